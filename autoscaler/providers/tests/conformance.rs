//! The suite of every node provider, run on each of them, and tests of the `process` provider alone.

use std::{ffi::OsString, fs, future::Future, path::Path, time::Duration};

use broker_config::settings::Secret;
use contract::{
    ids::{NodeId, PoolId},
    message::NodeTicket,
};
use providers::{Command, CommandSettings, Instance, NodeProvider, Process, ProcessSettings};

/// Fails a test that waits forever; nothing in here takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut poll: impl FnMut() -> F) -> T {
    let looking = async {
        loop {
            if let Some(found) = poll().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("never happened: {what}"))
}

/// Arguments that make `/bin/sh` run a script; started directly, it could still be open for writing in a sibling's child.
fn script(folder: &Path, text: &str) -> Vec<OsString> {
    let path = folder.join("script.sh");
    fs::write(&path, text).unwrap();
    vec![path.into()]
}

/// A stand-in for an agent: records its start and its secrets, and lives until its stdin closes. `exec` keeps it one
/// process.
const AGENT: &str = "read -r secrets\necho \"$secrets\" > \"$STARTS.secrets\"\necho $$ >> \"$STARTS\"\nexec cat > /dev/null\n";

fn process_settings(folder: &Path) -> ProcessSettings {
    ProcessSettings {
        program: "/bin/sh".into(),
        arguments: script(folder, AGENT),
        environment: vec![("STARTS".into(), folder.join("starts").into())],
        broker: Secret::new("amqp://user:broker-canary@host"),
        s3: Some(Secret::new("s3+http://key:s3-canary@host")),
        state: folder.join("state"),
    }
}

fn starts(folder: &Path) -> Vec<i32> {
    let text = fs::read_to_string(folder.join("starts")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn runs(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn ticket(name: &str) -> NodeTicket {
    NodeTicket { node: name.parse().unwrap(), token: "secret".into() }
}

async fn names(provider: &impl NodeProvider) -> Vec<(String, String)> {
    let mut names: Vec<_> =
        provider.list().await.unwrap().into_iter().map(|Instance { pool, node, .. }| (pool.to_string(), node.to_string())).collect();
    names.sort();
    names
}

async fn stopped(provider: &impl NodeProvider) -> Vec<(String, String)> {
    let stopped = provider.list().await.unwrap().into_iter().filter(|instance| instance.is_stopped && !instance.is_running);
    stopped.map(|Instance { pool, node, .. }| (pool.to_string(), node.to_string())).collect()
}

async fn conforms(provider: &impl NodeProvider) {
    let (pool, other): (PoolId, PoolId) = ("p".parse().unwrap(), "q".parse().unwrap());
    assert_eq!(names(provider).await, vec![]);
    for _ in 0..2 {
        provider.create(&pool, &ticket("a")).await.unwrap();
    }
    provider.create(&pool, &ticket("b")).await.unwrap();
    provider.create(&other, &ticket("a")).await.unwrap();
    let pair = |pool: &str, node: &str| (pool.to_owned(), node.to_owned());
    assert_eq!(names(provider).await, vec![pair("p", "a"), pair("p", "b"), pair("q", "a")]);
    for _ in 0..2 {
        provider.delete(&pool, &"a".parse().unwrap()).await.unwrap();
    }
    assert_eq!(names(provider).await, vec![pair("p", "b"), pair("q", "a")]);
    provider.create(&pool, &ticket("a")).await.unwrap();
    for node in ["a", "nobody"] {
        for _ in 0..2 {
            provider.stop(&pool, &node.parse().unwrap()).await.unwrap();
        }
    }
    assert_eq!(stopped(provider).await, vec![pair("p", "a")]);
    assert_eq!(names(provider).await, vec![pair("p", "a"), pair("p", "b"), pair("q", "a")]);
    for _ in 0..2 {
        provider.start(&pool, &"a".parse().unwrap()).await.unwrap();
    }
    assert_eq!(stopped(provider).await, vec![]);
    provider.stop(&pool, &"b".parse().unwrap()).await.unwrap();
    for (pool, node) in [(&pool, "a"), (&pool, "b"), (&other, "a")] {
        provider.delete(pool, &node.parse::<NodeId>().unwrap()).await.unwrap();
    }
    assert_eq!(names(provider).await, vec![]);
}

#[tokio::test]
async fn the_process_provider_conforms() {
    let folder = tempfile::tempdir().unwrap();
    conforms(&Process::open(process_settings(folder.path())).await.unwrap()).await;
}

#[tokio::test]
async fn an_agent_gets_its_secrets_by_its_stdin_and_shows_none() {
    let folder = tempfile::tempdir().unwrap();
    let provider = Process::open(process_settings(folder.path())).await.unwrap();
    provider.create(&"p".parse().unwrap(), &ticket("a")).await.unwrap();
    let pid = eventually("an agent starts", || async { starts(folder.path()).first().copied() }).await;
    let secrets = fs::read_to_string(folder.path().join("starts.secrets")).unwrap();
    assert_eq!(secrets, "{\"token\":\"secret\",\"broker\":\"amqp://user:broker-canary@host\",\"s3\":\"s3+http://key:s3-canary@host\"}\n");
    for file in ["cmdline", "environ"] {
        let shown = String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{file}")).unwrap()).into_owned();
        assert!(!shown.contains("canary") && !shown.contains("secret\0"), "{file}: {shown}");
    }
    provider.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn what_tasks_leave_in_a_nodes_folder_ends_no_start_and_holds_none_up() {
    let folder = tempfile::tempdir().unwrap();
    let provider = Process::open(process_settings(folder.path())).await.unwrap();
    let pool: PoolId = "p".parse().unwrap();
    for name in ["log", "token", "record", "whole"] {
        provider.create(&pool, &ticket(name)).await.unwrap();
    }
    provider.stop(Duration::ZERO).await;
    let fifo = |path: &str| {
        let path = folder.path().join("state/p").join(path);
        fs::remove_file(&path).ok();
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    };
    for path in ["log/agent.log", "token/token", "record/node.json", "log/node.json.new", "whole/token.new"] {
        fifo(path);
    }
    let before = starts(folder.path()).len();
    let provider = tokio::time::timeout(PATIENCE, Process::open(process_settings(folder.path()))).await.unwrap().unwrap();
    eventually("two of them start", || async { (starts(folder.path()).len() == before + 2).then_some(()) }).await;
    let pair = |node: &str| ("p".to_owned(), node.to_owned());
    assert_eq!(names(&provider).await, vec![pair("log"), pair("whole")]);
    // The dispatcher, which misses the others, has them deleted, and may make them again.
    for name in ["record", "token"] {
        provider.delete(&pool, &name.parse().unwrap()).await.unwrap();
        provider.create(&pool, &ticket(name)).await.unwrap();
    }
    eventually("the others start", || async { (starts(folder.path()).len() == before + 4).then_some(()) }).await;
    provider.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn an_agent_starts_again_whatever_a_task_put_in_the_place_of_its_nodes_files() {
    let folder = tempfile::tempdir().unwrap();
    let provider = Process::open(process_settings(folder.path())).await.unwrap();
    let (pool, node): (PoolId, NodeId) = ("p".parse().unwrap(), "a".parse().unwrap());
    provider.create(&pool, &ticket("a")).await.unwrap();
    let (place, victim) = (folder.path().join("state/p/a"), folder.path().join("victim"));
    fs::create_dir(&victim).unwrap();
    for (round, is_link) in [true, false].into_iter().enumerate() {
        let agent = eventually("a start", || async { starts(folder.path()).get(round).copied() }).await;
        let is_recorded = || fs::read_to_string(place.join("node.json")).is_ok_and(|text| text.contains(&format!(":{agent},")));
        eventually("its record", || async { is_recorded().then_some(()) }).await;
        for name in ["token", "node.json", "agent.log", "root", "token.new", "node.json.new"] {
            let path = place.join(name);
            match fs::symlink_metadata(&path) {
                Ok(found) if found.is_dir() => fs::remove_dir_all(&path).unwrap(),
                Ok(_) => fs::remove_file(&path).unwrap(),
                Err(_) => {}
            }
            if is_link {
                std::os::unix::fs::symlink(&victim, &path).unwrap();
            } else {
                rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
            }
        }
        rustix::process::kill_process(rustix::process::Pid::from_raw(agent).unwrap(), rustix::process::Signal::KILL).unwrap();
    }
    eventually("the last start", || async { starts(folder.path()).get(2).copied() }).await;
    assert_eq!(fs::read_to_string(place.join("token")).unwrap(), "secret");
    assert!(fs::symlink_metadata(place.join("root")).unwrap().is_dir() && fs::read_dir(&victim).unwrap().next().is_none());
    provider.delete(&pool, &node).await.unwrap();
}

#[tokio::test]
async fn a_stop_that_cannot_be_recorded_is_tried_again_and_not_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let provider = Process::open(process_settings(folder.path())).await.unwrap();
    let (pool, node): (PoolId, NodeId) = ("p".parse().unwrap(), "a".parse().unwrap());
    provider.create(&pool, &ticket("a")).await.unwrap();
    let first = eventually("an agent starts", || async { starts(folder.path()).first().copied() }).await;
    let (place, aside) = (folder.path().join("state/p/a"), folder.path().join("aside"));
    fs::rename(&place, &aside).unwrap();
    for _ in 0..2 {
        NodeProvider::stop(&provider, &pool, &node).await.unwrap_err();
        assert!(!runs(first) && names(&provider).await.len() == 1 && stopped(&provider).await.is_empty());
    }
    fs::rename(&aside, &place).unwrap();
    // A task replaced the record.
    fs::remove_file(place.join("node.json")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, place.join("node.json"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    NodeProvider::stop(&provider, &pool, &node).await.unwrap();
    assert_eq!(stopped(&provider).await.len(), 1);
    Process::stop(&provider, Duration::ZERO).await;
    drop(provider);
    let provider = Process::open(process_settings(folder.path())).await.unwrap();
    assert_eq!(stopped(&provider).await.len(), 1, "it was recorded");
    provider.start(&pool, &node).await.unwrap();
    eventually("it starts again", || async { starts(folder.path()).get(1).copied() }).await;
    // A stop that failed half way is undone by a start.
    fs::rename(&place, &aside).unwrap();
    NodeProvider::stop(&provider, &pool, &node).await.unwrap_err();
    fs::rename(&aside, &place).unwrap();
    provider.start(&pool, &node).await.unwrap();
    eventually("it runs", || async { starts(folder.path()).get(2).copied() }).await;
    provider.delete(&pool, &node).await.unwrap();
    Process::stop(&provider, Duration::ZERO).await;
}

#[tokio::test]
async fn a_stopped_node_rests_across_a_restart_of_its_provider_and_keeps_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (pool, node): (PoolId, NodeId) = ("p".parse().unwrap(), "a".parse().unwrap());
    let provider = Process::open(process_settings(folder.path())).await.unwrap();
    provider.create(&pool, &ticket("a")).await.unwrap();
    let pid = eventually("an agent starts", || async { starts(folder.path()).first().copied() }).await;
    for _ in 0..2 {
        NodeProvider::stop(&provider, &pool, &node).await.unwrap();
        assert!(!runs(pid));
    }
    Process::stop(&provider, Duration::ZERO).await;
    drop(provider);
    let provider = Process::open(process_settings(folder.path())).await.unwrap();
    assert_eq!(stopped(&provider).await.len(), 1);
    assert_eq!(starts(folder.path()).len(), 1, "nobody started it");
    assert!(folder.path().join("state/p/a/token").exists());
    provider.start(&pool, &node).await.unwrap();
    eventually("it starts again", || async { starts(folder.path()).get(1).copied() }).await;
    provider.delete(&pool, &node).await.unwrap();
    Process::stop(&provider, Duration::ZERO).await;
}

#[tokio::test]
async fn the_command_provider_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let text = "set -e\ncd \"${0%/*}\"\ncase $1 in\n  create) read -r token || test secret = \"$token\"; touch \"$2 $3\";;\n  \
                list) ls | grep ' ' || true;;\n  delete) rm -f \"$2 $3\" \"$2 $3 stopped\";;\n  \
                stop) test ! -e \"$2 $3\" || mv \"$2 $3\" \"$2 $3 stopped\";;\n  \
                start) test ! -e \"$2 $3 stopped\" || mv \"$2 $3 stopped\" \"$2 $3\";;\nesac\n";
    let settings =
        CommandSettings { program: "/bin/sh".into(), arguments: script(folder.path(), text), environment: vec![], timeout: PATIENCE };
    conforms(&Command::new(settings)).await;
}

#[tokio::test]
async fn a_script_that_fails_is_told_with_its_words() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = script(folder.path(), "echo quota exceeded >&2\nexit 3\n");
    let provider = Command::new(CommandSettings { program: "/bin/sh".into(), arguments, environment: vec![], timeout: PATIENCE });
    let error = provider.create(&"p".parse().unwrap(), &ticket("a")).await.unwrap_err();
    assert!(error.to_string().contains("quota exceeded"), "{error}");
    assert_eq!(error.fault().code, "AllocationFailed");
}

#[tokio::test]
async fn a_script_that_is_late_or_prints_without_end_goes_with_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let pids = folder.path().join("pids");
    for (text, timeout) in [("wait", Duration::from_millis(300)), ("yes", PATIENCE)] {
        let text = format!("sleep 600 & echo $! >> {0}\necho $$ >> {0}\n{text}\n", pids.display());
        let settings = CommandSettings { program: "/bin/sh".into(), arguments: script(folder.path(), &text), environment: vec![], timeout };
        let error = Command::new(settings).list().await.unwrap_err();
        assert!(matches!(error, providers::ProviderError::ScriptRun { .. }), "{error}");
    }
    let pids: Vec<i32> = fs::read_to_string(&pids).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(pids.len(), 4);
    eventually("all of them end", || async { pids.iter().all(|pid| !runs(*pid)).then_some(()) }).await;
}

#[tokio::test]
async fn an_agent_that_dies_is_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let provider = Process::open(process_settings(folder.path())).await.unwrap();
    provider.create(&"p".parse().unwrap(), &ticket("a")).await.unwrap();
    let first = eventually("the first start", || async { starts(folder.path()).first().copied() }).await;
    rustix::process::kill_process(rustix::process::Pid::from_raw(first).unwrap(), rustix::process::Signal::KILL).unwrap();
    let second = eventually("the second start", || async { starts(folder.path()).get(1).copied() }).await;
    provider.delete(&"p".parse().unwrap(), &"a".parse().unwrap()).await.unwrap();
    assert!(!runs(second));
    assert!(!folder.path().join("state/p/a").exists());
}

#[tokio::test]
async fn a_hung_agent_is_ended_with_its_node_and_a_new_one_takes_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let provider = Process::open(process_settings(folder.path())).await.unwrap();
    let (pool, node): (PoolId, NodeId) = ("p".parse().unwrap(), "a".parse().unwrap());
    provider.create(&pool, &ticket("a")).await.unwrap();
    let hung = eventually("the start", || async { starts(folder.path()).first().copied() }).await;
    // The agent hangs: closing its stdin and SIGTERM have no effect.
    rustix::process::kill_process(rustix::process::Pid::from_raw(hung).unwrap(), rustix::process::Signal::STOP).unwrap();
    provider.delete(&pool, &node).await.unwrap();
    assert!(!runs(hung) && names(&provider).await.is_empty());
    provider.create(&pool, &ticket("b")).await.unwrap();
    eventually("its successor starts", || async { starts(folder.path()).get(1).copied() }).await;
    provider.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn stopping_ends_the_agents_and_keeps_their_nodes_for_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let provider = Process::open(process_settings(folder.path())).await.unwrap();
    provider.create(&"p".parse().unwrap(), &ticket("a")).await.unwrap();
    let first = eventually("the first start", || async { starts(folder.path()).first().copied() }).await;
    provider.stop(PATIENCE).await;
    assert!(!runs(first));
    let provider = Process::open(process_settings(folder.path())).await.unwrap();
    eventually("the node's next start", || async { starts(folder.path()).get(1).copied() }).await;
    assert_eq!(names(&provider).await, vec![("p".to_owned(), "a".to_owned())]);
    provider.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn stopping_waits_for_an_agent_whose_deletion_nobody_awaits_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = process_settings(folder.path());
    settings.arguments = script(folder.path(), "echo $$ >> \"$STARTS\"\ncat > /dev/null\nsleep 0.5\n");
    let provider = Process::open(settings).await.unwrap();
    let (pool, node) = ("p".parse().unwrap(), "a".parse().unwrap());
    provider.create(&pool, &ticket("a")).await.unwrap();
    let pid = eventually("the start", || async { starts(folder.path()).first().copied() }).await;
    assert!(futures::FutureExt::now_or_never(provider.delete(&pool, &node)).is_none(), "its agent takes a while to end");
    assert!(runs(pid));
    provider.stop(PATIENCE).await;
    assert!(!runs(pid));
    provider.create(&pool, &ticket("b")).await.unwrap_err();
}

#[test]
fn an_agent_left_by_an_earlier_parent_is_ended_before_its_node_starts_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = process_settings(folder.path());
    // Ignores its stdin, as an agent that hangs would.
    settings.arguments = script(folder.path(), "echo $$ >> \"$STARTS\"\nexec sleep 600\n");
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let parent = runtime();
    let left = parent.block_on(async {
        let first = Process::open(settings.clone()).await.unwrap();
        first.create(&"p".parse().unwrap(), &ticket("a")).await.unwrap();
        eventually("the first start", || async { starts(folder.path()).first().copied() }).await
    });
    // Its supervisors end with their runtime, as those of a killed parent.
    parent.shutdown_timeout(PATIENCE);
    assert!(runs(left));
    runtime().block_on(async {
        let second = Process::open(settings).await.unwrap();
        assert!(!runs(left));
        eventually("the next start", || async { starts(folder.path()).get(1).copied() }).await;
        second.stop(PATIENCE).await;
    });
    assert!(starts(folder.path()).into_iter().all(|pid| !runs(pid)));
}
