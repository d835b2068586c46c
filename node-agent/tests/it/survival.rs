//! Failures: runs survive a lost broker connection, no process survives a killed agent, a node may rejoin.

use std::{
    ffi::OsString,
    fs,
    io::Write,
    process::{Child, Command, Stdio},
};

use contract::{
    message::{Answer, NodeOrder},
    outcome::Outcome,
    period::Period,
    spec::TaskSpec,
};
use node_agent::{AgentError, Ending};
use rustix::process::{Pid, Signal};

use crate::harness::{Harness, node, pool, task, task_with};

#[tokio::test]
async fn a_lost_channel_does_not_end_a_run_and_its_delivery_is_adopted() {
    let mut harness = Harness::with_agent(2).await;
    harness.release(&task(1, "/bin/sh -c 'until [ -e $AZ_BATCH_NODE_SHARED_DIR/go ]; do sleep 0.02; done'")).await;
    let run = harness.started().await.run;
    harness.change_script(|script| script.answers.push_back(Answer::Resume { run }));
    let address = harness.broker.as_ref().unwrap().address();
    harness.broker.take().unwrap().stop().await;
    let settings = embedded_broker::Settings::new(address, harness.folder.path().join("broker"), "user", "password");
    harness.broker = Some(embedded_broker::Broker::start(settings).await.unwrap());
    let asked = harness.asked().await;
    assert_eq!(asked.run.uid.0, 1);
    assert_ne!(asked.run.run, run);
    fs::write(harness.root().join("shared/go"), "").unwrap();
    let finished = harness.finished().await;
    assert_eq!((finished.run, finished.outcome), (run, Outcome::Exit { code: 0 }));
    for uid in 2..=5 {
        harness.release(&task(uid, "/bin/true")).await;
    }
    let mut uids = Vec::new();
    for _ in 2..=5 {
        uids.push(harness.finished().await.uid.0);
    }
    uids.sort_unstable();
    assert_eq!(uids, [2, 3, 4, 5]);
    harness.end_agent(Ending::Drain).await.unwrap();
    assert!(harness.queue_is_empty().await);
    harness.stop().await;
}

#[tokio::test]
async fn nothing_is_left_of_a_killed_agent() {
    let mut harness = Harness::new(2).await;
    let mut agent = process(&harness);
    harness.release(&task(1, "/bin/sh -c 'setsid sleep 611 & sleep 611'")).await;
    harness.started().await;
    harness.heartbeat(|heartbeat| heartbeat.live.len() == 1).await;
    let marker = fs::read_to_string(harness.root().join("volatile/marker")).unwrap();
    // The shell and both sleepers.
    while carriers(&marker).len() < 2 {
        tokio::task::yield_now().await;
    }
    agent.end();
    while !carriers(&marker).is_empty() {
        tokio::task::yield_now().await;
    }
    // The next agent with this folder may start at once.
    harness.start_agent();
    harness.report().await;
    assert_eq!(harness.script.lock().unwrap().joins.len(), 2);
    assert_eq!(harness.script.lock().unwrap().joins[1].epoch, None);
    assert_eq!(harness.script.lock().unwrap().joins[1].token, "credential");
    harness.stop().await;
}

#[tokio::test]
async fn daemons_end_with_their_run_whatever_they_hide() {
    let mut harness = Harness::new(2).await;
    let agent = process(&harness);
    let daemon = |name: &str| {
        let file = format!("$AZ_BATCH_NODE_SHARED_DIR/{name}");
        // Its own session, an empty environment, and a parent that is gone.
        let start = format!("(env -i setsid sh -c \"sleep 613 & echo \\$\\$ \\$! > {file}.new; mv {file}.new {file}; wait\" &)");
        format!("{start}; until [ -e {file} ]; do sleep 0.01; done")
    };
    let go = harness.root().join("shared/go");
    harness
        .release(&task(1, &format!("/bin/sh -c '{}; until [ -e $AZ_BATCH_NODE_SHARED_DIR/go ]; do sleep 0.01; done'", daemon("one"))))
        .await;
    let pids = |name: &str| -> Vec<u32> {
        let text = fs::read_to_string(harness.root().join("shared").join(name)).unwrap_or_default();
        text.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect()
    };
    while pids("one").len() < 2 {
        tokio::task::yield_now().await;
    }
    let (first, two) = (pids("one"), task(2, &format!("/bin/sh -c '{}; exit 7'", daemon("two"))));
    harness.release(&two).await;
    let finished = harness.finished().await;
    assert_eq!((finished.uid.0, finished.outcome), (2, Outcome::Exit { code: 7 }));
    assert!(first.iter().all(|pid| is_alive(*pid)), "what another run started lives");
    fs::write(&go, "").unwrap();
    assert_eq!(harness.finished().await.outcome, Outcome::Exit { code: 0 });
    let all: Vec<u32> = ["one", "two"]
        .iter()
        .flat_map(|name| fs::read_to_string(harness.root().join("shared").join(name)))
        .flat_map(|text| text.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>())
        .collect();
    assert_eq!(all.len(), 4);
    assert!(!all.iter().any(|pid| is_alive(*pid)), "{all:?}");
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", agent.0.id())).unwrap_or_default();
    let zombies = children
        .split_ascii_whitespace()
        .filter(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z ")));
    assert_eq!(zombies.count(), 0, "what was adopted is reaped");
    drop(agent);
    harness.stop().await;
}

#[tokio::test]
async fn a_process_that_may_not_be_ended_holds_up_no_end() {
    // Like a user without rights over what `sudo` starts: root, but for the right to signal other users' processes.
    let starter = ["setpriv", "--bounding-set", "-kill", "--inh-caps", "-kill"];
    let may_change_user = Command::new(starter[0]).args(&starter[1..]).args(["setpriv", "--reuid", "65534", "true"]).status();
    if !may_change_user.is_ok_and(|status| status.success()) {
        return println!("skipped: only root can start a process of another user");
    }
    let mut harness = Harness::new(1).await;
    let agent = process_below(&harness, &starter);
    let file = "$AZ_BATCH_NODE_SHARED_DIR/pid";
    let start = format!("setpriv --reuid 65534 setsid sleep 617 & echo $! > {file}");
    let mut spec = TaskSpec { command_line: format!("/bin/sh -c '{start}; sleep 0.3'"), ..TaskSpec::default() };
    // It ends in time, and what it leaves cannot be ended in any time.
    spec.constraints.max_wall_clock_time = Some(Period::from_ms(5_000));
    harness.release(&task_with(1, spec)).await;
    assert_eq!(harness.finished().await.outcome, Outcome::Exit { code: 0 });
    let stranger: u32 = fs::read_to_string(harness.root().join("shared/pid")).unwrap().trim().parse().unwrap();
    assert!(is_alive(stranger));
    for uid in 2..=4 {
        let mut spec = TaskSpec { command_line: "/bin/true".into(), ..TaskSpec::default() };
        spec.constraints.max_wall_clock_time = Some(Period::from_ms(5_000));
        harness.release(&task_with(uid, spec)).await;
        assert_eq!(harness.finished().await.outcome, Outcome::Exit { code: 0 });
    }
    drop(agent);
    rustix::process::kill_process(Pid::from_raw(stranger.cast_signed()).unwrap(), Signal::KILL).unwrap();
    harness.stop().await;
}

#[test]
fn processes_are_tracked_in_a_container_whose_session_is_outside() {
    let unshare = || {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]).stdin(Stdio::null());
        unshare
    };
    if !unshare().arg("/bin/true").status().is_ok_and(|status| status.success()) {
        return println!("skipped: this system lets nobody make namespaces");
    }
    let again = ["--exact", "survival::daemons_end_with_their_run_whatever_they_hide"];
    let output = unshare().arg(std::env::current_exe().unwrap()).args(again).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn the_guardian_ends_what_a_killed_agent_had_adopted() {
    let command = crate::roles::command("guardian");
    let mut guardian = Command::new(&command[0]).args(&command[1..]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let hidden = || KilledOnDrop(Command::new("/bin/sleep").arg("614").env_clear().spawn().unwrap());
    let started = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat[stat.rfind(')').unwrap() + 1..].split_ascii_whitespace().nth(19).unwrap().to_owned()
    };
    let (mut stray, left, stranger) = (hidden(), hidden(), hidden());
    let mut pipe = guardian.stdin.take().unwrap();
    let line = |word: &str, pid: u32| format!("{word} {pid} {}\n", started(pid));
    let mut text = format!("marker none\n{}{}{}", line("stray", stray.0.id()), line("stray", left.0.id()), line("left", left.0.id()));
    // A number that was given to another process since.
    text += &format!("stray {} 1\n", stranger.0.id());
    pipe.write_all(text.as_bytes()).unwrap();
    drop(pipe);
    assert!(!stray.0.wait().unwrap().success());
    assert!(guardian.wait().unwrap().success());
    assert!(is_alive(left.0.id()) && is_alive(stranger.0.id()));
}

#[tokio::test]
async fn a_rejoin_keeps_the_runs_and_says_the_old_epoch() {
    let mut harness = Harness::with_agent(1).await;
    harness.release(&task(1, "/bin/sleep 600")).await;
    harness.started().await;
    harness.change_script(|script| script.order = NodeOrder::Rejoin);
    while harness.script.lock().unwrap().joins.len() < 2 {
        tokio::task::yield_now().await;
    }
    harness.change_script(|script| script.order = NodeOrder::Work);
    let heartbeat = harness.heartbeat(|heartbeat| heartbeat.epoch.0 >= 2).await;
    assert_eq!(heartbeat.live.len(), 1);
    assert_eq!(harness.script.lock().unwrap().joins[1].epoch.unwrap().0, 1);
    harness.stop().await;
}

#[tokio::test]
async fn a_reimaged_node_starts_with_empty_folders_and_keeps_its_credential() {
    let mut harness = Harness::new(1).await;
    let root = harness.root();
    fs::create_dir_all(root.join("workitems/old/job-1/t")).unwrap();
    fs::create_dir_all(root.join("shared")).unwrap();
    fs::write(root.join("shared/data"), "old").unwrap();
    fs::write(root.join("credential"), "credential").unwrap();
    harness.change_script(|script| script.is_reimaged = true);
    harness.start_agent();
    harness.report().await;
    for folder in ["shared", "workitems"] {
        assert_eq!(fs::read_dir(root.join(folder)).unwrap().count(), 0, "{folder}");
    }
    assert_eq!(fs::read_to_string(root.join("credential")).unwrap(), "credential");
    harness.stop().await;
}

#[tokio::test]
async fn a_dismissed_agent_ends_its_runs_and_itself() {
    let mut harness = Harness::with_agent(1).await;
    harness.release(&task(1, "/bin/sleep 612")).await;
    harness.started().await;
    harness.change_script(|script| script.order = NodeOrder::Leave);
    let marker = fs::read_to_string(harness.root().join("volatile/marker")).unwrap();
    assert!(matches!(harness.agent_ends().await, Err(AgentError::Dismissed)));
    assert!(carriers(&marker).is_empty());
    harness.stop().await;
}

/// A whole agent as a process of its own.
pub fn process(harness: &Harness) -> KilledOnDrop {
    process_below(harness, &[])
}

/// Like [`process`], started by another program that becomes the agent.
fn process_below(harness: &Harness, starter: &[&str]) -> KilledOnDrop {
    let command: Vec<OsString> = starter.iter().map(OsString::from).chain(crate::roles::command("agent")).collect();
    let mut agent = Command::new(&command[0]);
    agent.args(&command[1..]).env("TEST_ROOT", harness.root());
    agent.envs([("TEST_BROKER", harness.url()), ("TEST_POOL", pool().to_string()), ("TEST_NODE", node().to_string())]);
    KilledOnDrop(agent.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

pub fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// A process that is killed when the test ends, however it ends.
pub struct KilledOnDrop(Child);

impl KilledOnDrop {
    fn end(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).unwrap();
    }
}

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        self.end();
    }
}

pub fn carriers(marker: &str) -> Vec<String> {
    let wanted = format!("PIECEWORK_NODE={}", marker.lines().next().unwrap()).into_bytes();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|entry| fs::read(entry.path().join("environ")).is_ok_and(|bytes| bytes.split(|byte| *byte == 0).any(|one| one == wanted)))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
