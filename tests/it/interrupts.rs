//! Ctrl-C while a command starts or plans its work: what the command created is removed.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use broker_config::{
    settings::{BrokerSettings, Secret},
    topology,
};
use clients::amqp::Link;
use embedded_broker::{Broker, Settings};
use rustix::process::{Pid, Signal, kill_process};

use crate::stack::{PIECEWORK, Stack, processes_naming, wait_for};

/// Far longer than the end takes, and shorter than what a silent server is waited for.
const END_MAX: Duration = Duration::from_secs(9);
const WAIT_MAX: Duration = Duration::from_secs(60);

fn start(arguments: &[&str], temporary: &Path) -> Child {
    let mut command = Command::new(PIECEWORK);
    for name in ["PIECEWORK_SERVER", "PIECEWORK_URL", "PIECEWORK_BROKER"] {
        command.env_remove(name);
    }
    command.args(arguments).current_dir(temporary).env("TMPDIR", temporary);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn interrupt(mut child: Child) {
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let ended = wait_for(END_MAX, || child.try_wait().unwrap());
    if ended.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(ended.expect("its end").code(), Some(130));
}

/// A server that takes connections and says nothing; resolves with the first connection.
fn silent() -> (SocketAddr, impl FnOnce() -> std::net::TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    (listener.local_addr().unwrap(), move || listener.accept().unwrap().0)
}

#[test]
fn a_demo_that_is_interrupted_while_it_starts_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // Each time a little further on its way.
    for file in ["lock", "secrets.json", "broker", "dispatcher/store.sqlite"] {
        let child = start(&["demo"], folder.path());
        let is_there = || fs::read_dir(folder.path()).unwrap().flatten().any(|entry| entry.path().join(file).exists()).then_some(());
        wait_for(WAIT_MAX, is_there).expect("a demo on its way");
        interrupt(child);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "its folder is gone");
        assert_eq!(processes_naming(folder.path()), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bench_that_is_interrupted_while_it_starts_leaves_the_broker_as_it_was() {
    let (folder, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let broker = Broker::start(Settings::new(([127, 0, 0, 1], 0).into(), folder.path(), "guest", "guest")).await.unwrap();
    let link = Link::open(BrokerSettings { url: Secret::new(broker.url()), name: "test".to_owned() }).await.unwrap();
    for _ in 0..2 {
        let child = start(&["bench", "--broker", &broker.url()], temporary.path());
        let looking = async {
            while link.depth(topology::EVENT_QUEUE).await.unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(WAIT_MAX, looking).await.expect("a dispatcher on this broker");
        tokio::task::spawn_blocking(move || interrupt(child)).await.unwrap();
        for queue in topology::base().queues {
            assert_eq!(link.depth(&queue.name).await.unwrap(), None, "{}", queue.name);
        }
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "its folder is gone");
    }
    link.close().await;
    broker.stop().await;
}

#[test]
fn a_broker_that_says_nothing_does_not_outlast_an_interrupt() {
    let temporary = tempfile::tempdir().unwrap();
    let (address, connected) = silent();
    let child = start(&["bench", "--broker", &format!("amqp://u:p@{address}/%2f")], temporary.path());
    let _connection = connected();
    interrupt(child);
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
    let (address, connected) = silent();
    let (data, url) = (temporary.path().join("data"), format!("amqp://u:p@{address}/%2f"));
    let child = start(&["up", "--listen", "127.0.0.1:0", "--data", &data.to_string_lossy(), "--broker", &url], temporary.path());
    let _connection = connected();
    interrupt(child);
}

#[test]
fn a_map_is_interrupted_while_a_silent_store_lists_its_inputs() {
    let stack = Stack::start();
    let (address, connected) = silent();
    let mut map = stack.command();
    map.args(["map", "--in", "s3://bucket/prefix", "--s3", &format!("s3+http://k:s@{address}/bucket"), "--", "cat", "{in}"]);
    let child = map.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let _connection = connected();
    interrupt(child);
    stack.stop();
}

/// Reads what a command says until a line holds a text.
fn says(stderr: &mut impl BufRead, text: &str) -> String {
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended without a word of {text:?}");
    }
    line
}

#[test]
fn a_second_interrupt_lets_the_removal_go_on_and_a_third_ends_it_and_names_what_is_left() {
    let stack = Stack::start();
    let input = stack.scratch().join("input.txt");
    fs::write(&input, "x").unwrap();
    let jobs = || -> Vec<serde_json::Value> {
        let out = stack.command().args(["--json", "job", "list"]).output().unwrap();
        serde_json::from_slice(&out.stdout).unwrap_or_default()
    };
    let server = Pid::from_raw(stack.pid().cast_signed()).unwrap();
    let begin = || {
        let mut map = stack.command();
        map.arg("map").arg("--in").arg(&input).args(["--", "sleep", "1000"]).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = map.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let job = wait_for(WAIT_MAX, || jobs().first().map(|job| job["id"].as_str().unwrap().to_owned())).expect("its job");
        // A server that stands still for a while holds up the removal until both signals have come.
        kill_process(server, Signal::STOP).unwrap();
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        (child, stderr, job)
    };

    let (mut child, mut stderr, job) = begin();
    assert!(says(&mut stderr, "interrupted; removing").contains(&job));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert!(says(&mut stderr, "still removing").contains(&job));
    kill_process(server, Signal::CONT).unwrap();
    let rest: Vec<String> = stderr.lines().map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(jobs().is_empty() && !rest.iter().any(|line| line.contains("may be left")), "{rest:?}");

    let (mut child, mut stderr, job) = begin();
    says(&mut stderr, "interrupted; removing");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    says(&mut stderr, "still removing");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert!(says(&mut stderr, "may be left").contains(&job));
    assert_eq!(child.wait().unwrap().code(), Some(130));
    kill_process(server, Signal::CONT).unwrap();
    stack.stop();
}
