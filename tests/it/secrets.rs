//! Command lines and environments of our processes show no secret to other processes of the same user.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use embedded_broker::{Broker, Settings};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::{
    rest::{PATIENCE, Rest},
    stack::{PIECEWORK, Ready, S3, Stack, processes_naming, wait_for},
};

/// What an environment shows of a process, or nothing where it is closed to us.
fn environment(pid: &str) -> String {
    fs::read(format!("/proc/{pid}/environ")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The processes that a process started, and those that they started; none of it is closed by the end of its parent.
fn family(parent: u32) -> Vec<String> {
    let (mut found, mut parents) = (vec![], vec![parent.to_string()]);
    while let Some(parent) = parents.pop() {
        for process in fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else { continue };
            let is_child = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)).is_some_and(|found| found == parent);
            if is_child {
                parents.push(process.clone());
                found.push(process);
            }
        }
    }
    found
}

fn command_line(pid: &str) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).replace('\0', " ")
}

/// Everything that is secret in the folder of a stack: the key, passwords, tokens and credentials of nodes.
fn secrets_below(data: &Path) -> Vec<String> {
    let mut found = vec![];
    if let Ok(text) = fs::read_to_string(data.join("secrets.json")) {
        let secrets: serde_json::Value = serde_json::from_str(&text).unwrap();
        for name in ["key", "broker_password", "s3_access_key", "s3_secret_key"] {
            found.push(secrets[name].as_str().unwrap().to_owned());
        }
    }
    let is_folder = |entry: &fs::DirEntry| entry.file_type().unwrap().is_dir();
    for pool in fs::read_dir(data.join("nodes")).unwrap().flatten().filter(is_folder) {
        for node in fs::read_dir(pool.path()).unwrap().flatten() {
            found.push(fs::read_to_string(node.path().join("token")).unwrap());
            found.push(fs::read_to_string(node.path().join("root/credential")).unwrap());
        }
    }
    found
}

/// Asserts that the processes show none of the secrets, and that those of Piecework are closed to their user.
fn assert_closed(processes: &[String], secrets: &[String]) {
    for process in processes {
        let (line, environment) = (command_line(process), environment(process));
        for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
            assert!(!line.contains(secret.as_str()), "a secret in the command line of {line}");
            assert!(!environment.contains(secret.as_str()), "a secret in the environment of {line}");
        }
        let is_part = [" agent ", " dispatcher ", " autoscaler ", " up "].iter().any(|part| line.contains(part));
        let own = rustix::process::getuid().as_raw();
        // What is closed belongs to root.
        if let (true, Ok(file)) = (is_part && own != 0, fs::metadata(format!("/proc/{process}/environ"))) {
            assert_ne!(file.uid(), own, "open to its user: {line}");
        }
    }
}

#[test]
fn no_secret_shows_in_the_processes_of_a_stack() {
    let stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    rest.add_pool("p", 1, 1);
    rest.add_job("job", "p");
    let gate = stack.scratch().join("gate");
    rest.add_task(
        "job",
        json!({"id": "t", "commandLine": format!("/bin/sh -c 'env; until [ -e {} ]; do sleep 0.1; done'", gate.display())}),
    );
    wait_for(PATIENCE, || (rest.get("/jobs/job/tasks/t")["state"] == "running").then_some(())).expect("a running task");
    wait_for(PATIENCE, || (!processes_naming(&gate).is_empty()).then_some(())).expect("its process");
    let secrets = secrets_below(&stack.data());
    assert_eq!(secrets.len(), 6);
    let processes = [vec![stack.pid().to_string()], family(stack.pid())].concat();
    let lines: Vec<_> = processes.iter().map(|process| command_line(process)).collect();
    for part in [" up ", " agent ", " guardian", "until"] {
        assert!(lines.iter().any(|line| line.contains(part)), "{part} is among them: {lines:?}");
    }
    assert_closed(&processes, &secrets);
    fs::write(&gate, "").unwrap();
    rest.finished("job", "t");
    let printed = rest.send("GET", "/jobs/job/tasks/t/files/stdout.txt", None).text();
    assert!(secrets.iter().all(|secret| !printed.contains(secret.as_str())), "{printed}");
    stack.stop();
}

/// A part that runs alone; it ends with its test.
struct Part(Child);

impl Part {
    fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Part {
        let mut command = Command::new(PIECEWORK);
        command.args(arguments).envs(variables.iter().copied()).env_remove("PIECEWORK_SERVER");
        Part(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn end(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_that_run_alone_take_their_secrets_from_files_and_hand_none_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let broker = Broker::start(Settings::new(([127, 0, 0, 1], 0).into(), at("broker"), "guest", "broker-canary")).await.unwrap();
    let settings = embedded_blobs::Settings::new(([127, 0, 0, 1], 0).into(), at("blobs"), "access-canary", "s3-canary");
    let blobs = embedded_blobs::Blobs::start(settings).await.unwrap();
    let s3 = blobs.endpoint().replace("http://", "s3+http://access-canary:s3-canary@");
    let key = "a2V5LWNhbmFyeS1rZXktY2FuYXJ5";
    for (name, text) in [("broker-url", broker.url()), ("s3-url", format!("{s3}/piecework")), ("keys", key.to_owned())] {
        fs::write(at(name), text + "\n").unwrap();
    }
    let services = ["--broker-file", &at("broker-url"), "--s3-file", &at("s3-url")];
    let flags = [
        &["dispatcher", "--listen", "127.0.0.1:0", "--account", "acme", "--keys-file", &at("keys"), "--data", &at("store")],
        &services[..],
    ];
    let mut dispatcher = Part::start(&flags.concat(), &[]);
    let mut told = String::new();
    BufReader::new(dispatcher.0.stdout.take().unwrap()).read_line(&mut told).unwrap();
    let url = told.trim().rsplit(' ').next().unwrap().to_owned();
    // Variables that are set by hand work as ever, and go no further.
    let (broker_url, s3_url) = (broker.url(), format!("{s3}/piecework"));
    let variables = [
        ("PIECEWORK_BROKER", broker_url.as_str()),
        ("PIECEWORK_S3", &s3_url),
        ("PIECEWORK_KEY", key),
        ("AWS_SECRET_ACCESS_KEY", "aws-canary"),
    ];
    let autoscaler = Part::start(&["autoscaler", "--data", &at("agents")], &variables);
    let (dispatcher_pid, autoscaler_pid, data) = (dispatcher.0.id(), autoscaler.0.id(), folder.path().join("agents"));
    tokio::task::spawn_blocking(move || {
        let s3 = S3 {
            endpoint: String::new(),
            bucket: String::new(),
            region: String::new(),
            access_key: String::new(),
            secret_key: String::new(),
        };
        let rest = Rest::new(&Ready { url, account: "acme".to_owned(), key: key.to_owned(), broker: String::new(), s3 });
        rest.add_pool("p", 1, 1);
        rest.add_job("job", "p");
        rest.add_task("job", json!({"id": "t", "commandLine": "/bin/true"}));
        rest.finished("job", "t");
        let mut secrets = secrets_below(&data);
        assert_eq!(secrets.len(), 2);
        secrets.extend(["broker-canary", "access-canary", "s3-canary", key, "aws-canary"].map(str::to_owned));
        let agents = family(autoscaler_pid);
        assert!(agents.iter().any(|agent| command_line(agent).contains(" agent ")));
        assert_closed(&[vec![dispatcher_pid.to_string()], agents].concat(), &secrets);
    })
    .await
    .unwrap();
    autoscaler.end();
    dispatcher.end();
    blobs.stop().await;
    broker.stop().await;
}
