//! Processes: true ends, environments, streams, stops of whole trees, start tasks.

use std::fs;

use contract::{
    ids::Fence,
    message::{ControlKind, TaskMessage, Verdict},
    outcome::{INLINE_STREAM_BYTES_MAX, Outcome, Stream},
    period::Period,
    spec::{EnvironmentSetting, ResourceFile, StartTask, TaskExtensions, TaskSpec},
    state::NodeState,
};
use node_agent::Ending;

use crate::harness::{Harness, task, task_with};

fn text(stream: &Stream) -> &str {
    match stream {
        Stream::Inline { bytes } => std::str::from_utf8(bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_end_of_a_process_is_told_as_it_was() {
    let mut harness = Harness::with_agent(1).await;
    let fault = |outcome: &Outcome| match outcome {
        Outcome::Launch(fault) => fault.code.clone(),
        other => panic!("{other:?}"),
    };
    harness.release(&task(1, "/bin/sh -c 'exit 3'")).await;
    assert_eq!(harness.finished().await.outcome, Outcome::Exit { code: 3 });
    harness.release(&task(2, "/bin/sh -c 'kill -9 $$'")).await;
    assert_eq!(harness.finished().await.outcome, Outcome::Signal { number: 9 });
    harness.release(&task(3, "no-such-program --flag")).await;
    assert_eq!(fault(&harness.finished().await.outcome), "CommandProgramNotFound");
    harness.release(&task(4, "/bin/echo 'open")).await;
    assert_eq!(fault(&harness.finished().await.outcome), "CommandLaunchFailed");
    harness.release(&task(5, "echo a 'b c' $AZ_BATCH_TASK_ID")).await;
    let finished = harness.finished().await;
    assert_eq!((finished.outcome, text(&finished.stdout)), (Outcome::Exit { code: 0 }, "a b c t5\n"));
    assert!(finished.usage.memory_peak_bytes > 0);
    harness.stop().await;
}

#[tokio::test]
async fn a_task_sees_its_environment_and_not_the_agents() {
    let mut harness = Harness::with_agent(1).await;
    let settings = vec![EnvironmentSetting { name: "MINE".into(), value: Some("a b".into()) }];
    let command_line = "/bin/sh -c 'echo $MINE; pwd; echo $AZ_BATCH_JOB_ID/$AZ_BATCH_TASK_ID; env >&2'".to_owned();
    harness.release(&task_with(1, TaskSpec { command_line, environment_settings: settings, ..TaskSpec::default() })).await;
    let finished = harness.finished().await;
    let wd = harness.root().canonicalize().unwrap().join("workitems/job/job-1/t1/wd");
    assert_eq!(text(&finished.stdout), format!("a b\n{}\njob/t1\n", wd.display()));
    let names: Vec<&str> = text(&finished.stderr).lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    assert!(names.contains(&"AZ_BATCH_NODE_SHARED_DIR") && names.contains(&"PIECEWORK_RUN"));
    assert!(!names.iter().any(|name| name.starts_with("CARGO")), "{names:?}");
    assert_eq!(fs::read_to_string(wd.parent().unwrap().join("stdout.txt")).unwrap(), text(&finished.stdout));
    harness.stop().await;
}

#[tokio::test]
async fn bare_names_of_resource_files_and_of_what_the_node_shares_run() {
    let mut harness = Harness::new(1).await;
    harness.add_blobs().await;
    let blobs = harness.blobs.clone().unwrap();
    blobs.put("users", "tool", bytes::Bytes::from_static(b"#!/bin/sh\nshared-tool $USER $AZ_BATCH_TASK_USER\n")).await.unwrap();
    harness.start_agent();
    harness.report().await;
    let shared = harness.root().join("shared/shared-tool");
    fs::write(&shared, "#!/bin/sh\necho ran for \"$@\"\n").unwrap();
    fs::set_permissions(&shared, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let tool = ResourceFile { auto_storage_container_name: Some("users".into()), ..ResourceFile::default() };
    harness.release(&task_with(1, TaskSpec { command_line: "tool".into(), resource_files: vec![tool], ..TaskSpec::default() })).await;
    let finished = harness.finished().await;
    let user = String::from_utf8(std::process::Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    assert_eq!((finished.outcome, text(&finished.stdout)), (Outcome::Exit { code: 0 }, format!("ran for {0} {0}\n", user.trim()).as_str()));
    harness.stop().await;
}

#[tokio::test]
async fn a_stop_ends_the_whole_tree_and_its_daemons() {
    let mut harness = Harness::with_agent(1).await;
    let shared = harness.root().join("shared");
    harness.release(&task(1, "/bin/sh -c 'trap : TERM; setsid sh -c \"echo \\$\\$ > $AZ_BATCH_NODE_SHARED_DIR/pid; exec sleep 600\" & sleep 600 & while :; do wait; done'")).await;
    let run = harness.started().await.run;
    let pid = loop {
        match fs::read_to_string(shared.join("pid")) {
            Ok(pid) if pid.ends_with('\n') => break pid.trim().to_owned(),
            _ => tokio::task::yield_now().await,
        }
    };
    harness.control(ControlKind::Stop { run, verdict: Verdict::Stop }).await;
    assert_eq!(harness.finished().await.outcome, Outcome::Stopped);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    harness.stop().await;
}

#[tokio::test]
async fn what_a_stopped_run_and_its_daemons_wrote_last_is_told() {
    let mut harness = Harness::with_agent(1).await;
    let shared = harness.root().join("shared");
    let daemon =
        "setsid sh -c \"trap : TERM; until [ -e $AZ_BATCH_NODE_SHARED_DIR/go ]; do sleep 0.01; done; echo daemon >&2; exec sleep 600\" & ";
    let main = "trap \"touch $AZ_BATCH_NODE_SHARED_DIR/go; sleep 0.3; echo last; exit 0\" TERM; echo first; mv ../stdout.txt ../elsewhere; touch $AZ_BATCH_NODE_SHARED_DIR/there; while :; do sleep 0.02; done";
    harness.release(&task(1, &format!("/bin/sh -c '{daemon}{main}'"))).await;
    let run = harness.started().await.run;
    while !shared.join("there").exists() {
        tokio::task::yield_now().await;
    }
    harness.control(ControlKind::Stop { run, verdict: Verdict::Stop }).await;
    let finished = harness.finished().await;
    assert_eq!((finished.outcome, text(&finished.stdout)), (Outcome::Stopped, "first\nlast\n"));
    assert!(text(&finished.stderr).ends_with("daemon\n"), "{}", text(&finished.stderr));
    harness.stop().await;
}

#[tokio::test]
async fn the_wall_clock_ends_a_run() {
    let mut harness = Harness::with_agent(1).await;
    let mut spec = TaskSpec { command_line: "/bin/sleep 600".into(), ..TaskSpec::default() };
    spec.constraints.max_wall_clock_time = Some(Period::from_ms(100));
    harness.release(&task_with(1, spec)).await;
    assert_eq!(harness.finished().await.outcome, Outcome::Timeout { limit_ms: 100 });
    harness.stop().await;
}

#[tokio::test]
async fn a_long_stream_is_shipped_to_blobs() {
    let mut harness = Harness::new(1).await;
    harness.add_blobs().await;
    harness.start_agent();
    harness.release(&task(1, "/bin/sh -c 'seq 1 5000'")).await;
    let Stream::Blob { key, bytes } = harness.finished().await.stdout else { panic!() };
    assert!(bytes as usize > INLINE_STREAM_BYTES_MAX);
    let shipped = harness.blobs.as_ref().unwrap().get("piecework", &key, None, 1 << 20).await.unwrap();
    assert_eq!(shipped.len() as u64, bytes);
    assert!(shipped.ends_with(b"4999\n5000\n"));
    harness.stop().await;
}

#[tokio::test]
async fn tasks_wait_for_the_start_task() {
    let mut harness = Harness::new(1).await;
    let command_line = "/bin/sh -c 'echo x >> tries; cp tries $AZ_BATCH_NODE_SHARED_DIR; test $(wc -l < tries) -ge 2'";
    let start_task = StartTask { command_line: command_line.into(), max_task_retry_count: Some(3), ..StartTask::default() };
    harness.change_script(|script| script.start_task = Some(start_task));
    harness.release(&task(1, "/bin/sh -c 'cat $AZ_BATCH_NODE_SHARED_DIR/tries'")).await;
    harness.start_agent();
    assert_eq!(harness.report().await.state, NodeState::WaitingForStartTask);
    let report = harness.report().await;
    let end = report.start_task.unwrap();
    assert_eq!((report.state, end.outcome, end.retries), (NodeState::Idle, Outcome::Exit { code: 0 }, 1));
    assert_eq!(text(&harness.finished().await.stdout), "x\nx\n");
    harness.stop().await;
}

#[tokio::test]
async fn a_node_whose_start_task_failed_takes_nothing() {
    let mut harness = Harness::new(1).await;
    let start_task = StartTask { command_line: "/bin/false".into(), ..StartTask::default() };
    harness.change_script(|script| script.start_task = Some(start_task));
    harness.release(&task(1, ":")).await;
    harness.start_agent();
    harness.report().await;
    assert_eq!(harness.report().await.state, NodeState::StartTaskFailed);
    harness.heartbeat(|heartbeat| !heartbeat.is_consuming).await;
    assert!(!harness.queue_is_empty().await);
    harness.stop().await;
}

#[tokio::test]
async fn a_further_run_on_the_same_node_finds_its_directory_as_it_was_left() {
    let mut harness = Harness::new(2).await;
    harness.add_blobs().await;
    let blobs = harness.blobs.clone().unwrap();
    blobs.ensure_bucket("users").await.unwrap();
    blobs.put("users", "in", bytes::Bytes::from_static(b"input\n")).await.unwrap();
    harness.start_agent();
    let input = ResourceFile { auto_storage_container_name: Some("users".into()), ..ResourceFile::default() };
    let command_line = "/bin/sh -c 'echo run >> count; cat count in; echo changed > in; exit 1'".to_owned();
    let spec = TaskSpec { command_line, resource_files: vec![input], ..TaskSpec::default() };
    let run = |uid, attempt, spec: &TaskSpec| {
        let mut message = task_with(uid, spec.clone());
        message.task = "t".parse().unwrap();
        (message.attempt, message.fence) = (attempt, Fence(u64::from(attempt)));
        message
    };
    harness.release(&run(1, 1, &spec)).await;
    assert_eq!(text(&harness.finished().await.stdout), "run\ninput\n");
    harness.release(&run(1, 2, &spec)).await;
    assert_eq!(text(&harness.finished().await.stdout), "run\nrun\nchanged\n", "as it was left, and its streams are its own");
    // The agent is killed and started again; the folder of the first run is reused.
    harness.end_agent(Ending::Now).await.unwrap();
    harness.start_agent();
    harness.release(&run(1, 3, &spec)).await;
    assert_eq!(text(&harness.finished().await.stdout), "run\nrun\nrun\nchanged\n");
    harness.release(&run(2, 2, &spec)).await;
    assert_eq!(text(&harness.finished().await.stdout), "run\ninput\n", "another task of the same name begins afresh");
    let piecework = TaskExtensions { fresh_directory: true, ..TaskExtensions::default() };
    harness.release(&run(2, 3, &TaskSpec { piecework, ..spec })).await;
    assert_eq!(text(&harness.finished().await.stdout), "run\ninput\n");
    harness.stop().await;
}

#[tokio::test]
async fn a_further_run_waits_until_the_one_before_has_left_the_directory() {
    let mut harness = Harness::with_agent(2).await;
    let main = "trap \"sleep 0.4; echo over >> log; exit 0\" TERM; touch $AZ_BATCH_NODE_SHARED_DIR/there; while :; do sleep 0.02; done";
    let command_line = format!("/bin/sh -c 'if [ -e log ]; then cat log; exit 0; fi; echo begun > log; {main}'");
    let first = task(1, &command_line);
    harness.release(&first).await;
    let run = harness.started().await.run;
    while !harness.root().join("shared/there").exists() {
        tokio::task::yield_now().await;
    }
    harness.control(ControlKind::Stop { run, verdict: Verdict::Fenced }).await;
    harness.release(&TaskMessage { attempt: 2, fence: Fence(2), ..first }).await;
    let ends = [harness.finished().await, harness.finished().await];
    assert_eq!((ends[0].run, &ends[0].outcome), (run, &Outcome::Stopped));
    assert_eq!((&ends[1].outcome, text(&ends[1].stdout)), (&Outcome::Exit { code: 0 }, "begun\nover\n"));
    harness.stop().await;
}

#[tokio::test]
async fn a_task_says_how_long_its_end_may_take() {
    let mut harness = Harness::with_agent(1).await;
    let main = "trap \"sleep 2.5; echo done; exit 0\" TERM; touch $AZ_BATCH_NODE_SHARED_DIR/there; while :; do sleep 0.02; done";
    let piecework = TaskExtensions { kill_grace: Some(Period::from_secs(60)), ..TaskExtensions::default() };
    harness.release(&task_with(1, TaskSpec { command_line: format!("/bin/sh -c '{main}'"), piecework, ..TaskSpec::default() })).await;
    let run = harness.started().await.run;
    while !harness.root().join("shared/there").exists() {
        tokio::task::yield_now().await;
    }
    harness.control(ControlKind::Stop { run, verdict: Verdict::Stop }).await;
    let finished = harness.finished().await;
    assert_eq!((finished.outcome, text(&finished.stdout)), (Outcome::Stopped, "done\n"));
    harness.stop().await;
}
