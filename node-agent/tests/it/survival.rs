//! What survives: runs survive the broker's connection, nothing survives a killed agent, a node may rejoin.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use broker_config::message::{Answer, NodeOrder, Outcome};
use node_agent::{AgentError, Ending};

use crate::stage::{Stage, node, pool, task};

#[tokio::test]
async fn a_lost_channel_does_not_end_a_run_and_its_delivery_is_adopted() {
    let mut stage = Stage::with_agent(2).await;
    stage.release(&task(1, "/bin/sh -c 'until [ -e $AZ_BATCH_NODE_SHARED_DIR/go ]; do sleep 0.02; done'")).await;
    let run = stage.started().await.run;
    stage.say(|script| script.answers.push_back(Answer::Resume { run }));
    let address = stage.broker.as_ref().unwrap().address();
    stage.broker.take().unwrap().stop().await;
    let settings = embedded_broker::Settings::new(address, stage.folder.path().join("broker"), "user", "password");
    stage.broker = Some(embedded_broker::Broker::start(settings).await.unwrap());
    let asked = stage.asked().await;
    assert_eq!(asked.run.uid.0, 1);
    assert_ne!(asked.run.run, run);
    fs::write(stage.root().join("shared/go"), "").unwrap();
    let finished = stage.finished().await;
    assert_eq!((finished.run, finished.outcome), (run, Outcome::Exit { code: 0 }));
    for uid in 2..=5 {
        stage.release(&task(uid, "/bin/true")).await;
    }
    let mut uids = Vec::new();
    for _ in 2..=5 {
        uids.push(stage.finished().await.uid.0);
    }
    uids.sort_unstable();
    assert_eq!(uids, [2, 3, 4, 5]);
    stage.end_agent(Ending::Drain).await.unwrap();
    assert!(stage.queue_is_empty().await);
    stage.strike().await;
}

#[tokio::test]
async fn nothing_is_left_of_a_killed_agent() {
    let mut stage = Stage::set(2).await;
    let command = crate::roles::command("agent");
    let agent = Command::new(&command[0])
        .args(&command[1..])
        .envs([("TEST_BROKER", stage.url()), ("TEST_POOL", pool().to_string()), ("TEST_NODE", node().to_string())])
        .env("TEST_ROOT", stage.root())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut agent = Mortal(agent);
    stage.release(&task(1, "/bin/sh -c 'setsid sleep 611 & sleep 611'")).await;
    stage.started().await;
    stage.beat(|beat| beat.live.len() == 1).await;
    let marker = fs::read_to_string(stage.root().join("volatile/marker")).unwrap();
    // The shell and both sleepers.
    while carriers(&marker).len() < 2 {
        tokio::task::yield_now().await;
    }
    agent.end();
    while !carriers(&marker).is_empty() {
        tokio::task::yield_now().await;
    }
    // The next agent with this folder may start at once.
    stage.start_agent();
    stage.report().await;
    assert_eq!(stage.script.lock().unwrap().joins.len(), 2);
    assert_eq!(stage.script.lock().unwrap().joins[1].epoch, None);
    assert_eq!(stage.script.lock().unwrap().joins[1].token, "credential");
    stage.strike().await;
}

#[tokio::test]
async fn a_rejoin_keeps_the_runs_and_says_the_old_epoch() {
    let mut stage = Stage::with_agent(1).await;
    stage.release(&task(1, "/bin/sleep 600")).await;
    stage.started().await;
    stage.say(|script| script.order = NodeOrder::Rejoin);
    while stage.script.lock().unwrap().joins.len() < 2 {
        tokio::task::yield_now().await;
    }
    stage.say(|script| script.order = NodeOrder::Work);
    let beat = stage.beat(|beat| beat.epoch.0 >= 2).await;
    assert_eq!(beat.live.len(), 1);
    assert_eq!(stage.script.lock().unwrap().joins[1].epoch.unwrap().0, 1);
    stage.strike().await;
}

#[tokio::test]
async fn a_reimaged_node_starts_with_empty_folders_and_keeps_its_credential() {
    let mut stage = Stage::set(1).await;
    let root = stage.root();
    fs::create_dir_all(root.join("workitems/old/job-1/t")).unwrap();
    fs::create_dir_all(root.join("shared")).unwrap();
    fs::write(root.join("shared/data"), "old").unwrap();
    fs::write(root.join("credential"), "credential").unwrap();
    stage.say(|script| script.is_reimaged = true);
    stage.start_agent();
    stage.report().await;
    for folder in ["shared", "workitems"] {
        assert_eq!(fs::read_dir(root.join(folder)).unwrap().count(), 0, "{folder}");
    }
    assert_eq!(fs::read_to_string(root.join("credential")).unwrap(), "credential");
    stage.strike().await;
}

#[tokio::test]
async fn a_dismissed_agent_ends_its_runs_and_itself() {
    let mut stage = Stage::with_agent(1).await;
    stage.release(&task(1, "/bin/sleep 612")).await;
    stage.started().await;
    stage.say(|script| script.order = NodeOrder::Leave);
    let marker = fs::read_to_string(stage.root().join("volatile/marker")).unwrap();
    assert!(matches!(stage.agent_ends().await, Err(AgentError::Dismissed)));
    assert!(carriers(&marker).is_empty());
    stage.strike().await;
}

/// A process that does not outlive its test, however that ends.
struct Mortal(Child);

impl Mortal {
    fn end(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).unwrap();
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        self.end();
    }
}

fn carriers(marker: &str) -> Vec<String> {
    let wanted = format!("PIECEWORK_NODE={}", marker.trim()).into_bytes();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|entry| fs::read(entry.path().join("environ")).is_ok_and(|bytes| bytes.split(|byte| *byte == 0).any(|one| one == wanted)))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
