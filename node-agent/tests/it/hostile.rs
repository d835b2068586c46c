//! Tasks that try to hold the agent up, an agent that hangs, and a node that lacks descriptors.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use contract::{
    ids::JobUid,
    job_task::JobTask,
    outcome::{JobTaskKey, JobTaskKind, Outcome},
    period::Period,
    spec::{OutputContainer, OutputDestination, OutputFile, ResourceFile, TaskSpec, UploadCondition, UploadOptions},
};
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Harness, node, pool, task, task_with};

fn output(pattern: &str) -> OutputFile {
    OutputFile {
        file_pattern: pattern.into(),
        destination: OutputDestination {
            container: OutputContainer { container_url: "s3://users".into(), path: None, upload_headers: vec![] },
        },
        upload_options: UploadOptions { upload_condition: UploadCondition::TaskCompletion },
    }
}

async fn with_blobs() -> Harness {
    let mut harness = Harness::new(2).await;
    harness.add_blobs().await;
    harness
}

#[tokio::test]
async fn fifos_and_links_in_place_of_the_agents_files_hold_nobody_up() {
    let mut harness = with_blobs().await;
    harness.start_agent();
    let kept = harness.folder.path().join("kept");
    fs::write(&kept, "kept").unwrap();
    let lines = [
        // A FIFO where the log of the upload goes, and one that matches.
        "mkfifo ../fileuploadout.txt ../fileuploaderr.txt out.fifo; echo 1 > o.txt".to_owned(),
        format!("ln -s {0} ../fileuploadout.txt; ln -s {0} ../fileuploaderr.txt; echo 1 > o.txt", kept.display()),
        "rm ../stdout.txt; mkfifo ../stdout.txt; echo 1 > o.txt".to_owned(),
    ];
    for (uid, line) in (1..).zip(&lines) {
        let output_files = vec![output("o*")];
        harness
            .release(&task_with(uid, TaskSpec { command_line: format!("/bin/sh -c '{line}'"), output_files, ..TaskSpec::default() }))
            .await;
        let finished = harness.finished().await;
        assert_eq!((finished.uid.0, finished.outcome), (uid, Outcome::Exit { code: 0 }));
    }
    assert_eq!(fs::read_to_string(&kept).unwrap(), "kept", "no link was followed");
    for uid in 1..=2 {
        let log = fs::read_to_string(harness.root().join(format!("workitems/job/job-1/t{uid}/fileuploadout.txt"))).unwrap();
        assert!(log.contains("o*: 1 files") && log.contains("o.txt"), "{log}");
    }
    // The agent still sends heartbeats.
    harness.heartbeat(|heartbeat| heartbeat.live.is_empty()).await;
    harness.stop().await;
}

#[tokio::test]
async fn an_agent_that_hangs_is_ended_by_its_guardian_with_its_tasks() {
    let mut harness = Harness::new(1).await;
    // The guardian uses the shortest silence that it supports.
    harness.change_script(|script| script.lease_ms = 1_000);
    let agent = Process::start(&harness, None);
    harness.release(&task(1, "/bin/sleep 613")).await;
    harness.started().await;
    harness.heartbeat(|heartbeat| heartbeat.live.len() == 1).await;
    let marker = fs::read_to_string(harness.root().join("volatile/marker")).unwrap();
    // The agent has an environment of its own once it has begun to run its program.
    while crate::survival::carriers(&marker).is_empty() {
        tokio::task::yield_now().await;
    }
    rustix::process::kill_process(agent.pid(), Signal::STOP).unwrap();
    let status = agent.ends().await;
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    while !crate::survival::carriers(&marker).is_empty() {
        tokio::task::yield_now().await;
    }
    // Its supervisor would start the next agent.
    harness.start_agent();
    harness.report().await;
    harness.stop().await;
}

#[tokio::test]
async fn many_folders_need_few_descriptors() {
    let mut harness = with_blobs().await;
    // The limit of all descriptors, which the agent cannot raise.
    let agent = Process::start(&harness, Some(96));
    harness.report().await;
    let line = "i=0; while [ $i -lt 300 ]; do mkdir -p a/$i; i=$((i+1)); done; echo 1 > a/7/o; mkdir -p b/b/b/b/b; echo 2 > b/b/b/b/b/o";
    let command_line = format!("/bin/sh -c '{line}'");
    harness.release(&task_with(1, TaskSpec { command_line, output_files: vec![output("**/o")], ..TaskSpec::default() })).await;
    assert_eq!(harness.finished().await.outcome, Outcome::Exit { code: 0 });
    let listing = harness.blobs.as_ref().unwrap().list("users", "", None, 10).await.unwrap();
    let keys: Vec<String> = listing.blobs.into_iter().map(|blob| blob.key).collect();
    assert_eq!(keys, ["a/7/o", "b/b/b/b/b/o"]);
    drop(agent);
    harness.stop().await;
}

#[tokio::test]
async fn releases_of_many_jobs_hold_up_no_task() {
    let mut harness = Harness::with_agent(1).await;
    let wait = "/bin/sh -c 'until [ -e $AZ_BATCH_NODE_SHARED_DIR/go ]; do sleep 0.02; done'";
    let release = |job: u64| {
        let key = JobTaskKey { job: JobUid(job), kind: JobTaskKind::Release, number: 1 };
        let spec = TaskSpec { command_line: wait.into(), ..TaskSpec::default() };
        JobTask { key, job: format!("job{job}").parse().unwrap(), task: "tidy".parse().unwrap(), is_awaited: true, spec }
    };
    harness.change_script(|script| script.releases = (1..=30).map(release).collect());
    harness.heartbeat(|heartbeat| heartbeat.job_tasks.len() == 30).await;
    let mut spec = TaskSpec { command_line: "/bin/true".into(), ..TaskSpec::default() };
    spec.constraints.max_wall_clock_time = Some(Period::from_ms(10_000));
    harness.release(&task_with(1, spec)).await;
    assert_eq!(harness.finished().await.outcome, Outcome::Exit { code: 0 });
    fs::write(harness.root().join("shared/go"), "").unwrap();
    for _ in 1..=30 {
        assert!(harness.job_task_ended().await.has_succeeded());
    }
    harness.stop().await;
}

#[tokio::test]
async fn the_wall_clock_begins_with_the_process() {
    let mut harness = Harness::with_agent(1).await;
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http_url = Some(format!("http://{}/slow", server.local_addr().unwrap()));
    let resource_files = vec![ResourceFile { http_url, file_path: Some("in".into()), ..Default::default() }];
    let mut spec = TaskSpec { command_line: "/bin/cat in".into(), resource_files, ..TaskSpec::default() };
    let limit = Duration::from_secs(2);
    spec.constraints.max_wall_clock_time = Some(Period::from_ms(limit.as_millis() as u64));
    harness.release(&task_with(1, spec)).await;
    let (mut connection, _) = server.accept().await.unwrap();
    assert!(connection.read(&mut [0; 4096]).await.unwrap() > 0);
    // Longer than the limit, as a slow server is.
    tokio::time::sleep(limit + Duration::from_millis(200)).await;
    connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nslow").await.unwrap();
    assert_eq!(harness.finished().await.outcome, Outcome::Exit { code: 0 });
    harness.stop().await;
}

/// An agent as a process, which does not outlive its test.
struct Process(Option<Child>);

impl Process {
    /// Starts an agent with at most this many descriptors.
    fn start(harness: &Harness, descriptors_max: Option<u32>) -> Process {
        let words = crate::roles::command("agent");
        let mut command = match descriptors_max {
            None => Command::new(&words[0]),
            Some(max) => {
                let mut command = Command::new("/bin/sh");
                command.args(["-c", &format!("ulimit -n {max}; exec \"$0\" \"$@\"")]).arg(&words[0]);
                command
            }
        };
        command.args(&words[1..]);
        command.envs([("TEST_BROKER", harness.url()), ("TEST_POOL", pool().to_string()), ("TEST_NODE", node().to_string())]);
        if let Some(blobs) = &harness.blob_settings {
            command.env("TEST_BLOBS", &blobs.endpoint);
        }
        command.env("TEST_ROOT", harness.root()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Process(Some(command.spawn().unwrap()))
    }

    fn pid(&self) -> Pid {
        Pid::from_child(self.0.as_ref().unwrap())
    }

    async fn ends(mut self) -> std::process::ExitStatus {
        let mut child = self.0.take().unwrap();
        tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            child.kill().and_then(|()| child.wait()).unwrap();
        }
    }
}
