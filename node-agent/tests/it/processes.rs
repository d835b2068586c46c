//! Processes: true ends, environments, streams, stops of whole trees, start tasks.

use std::fs;

use broker_config::{
    message::{ControlKind, INLINE_STREAM_BYTES_MAX, Outcome, Stream, Verdict},
    period::Period,
    spec::{EnvironmentSetting, StartTask, TaskSpec},
    state::NodeState,
};

use crate::stage::{Stage, task, task_with};

fn text(stream: &Stream) -> &str {
    match stream {
        Stream::Inline { bytes } => std::str::from_utf8(bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_end_of_a_process_is_told_as_it_was() {
    let mut stage = Stage::with_agent(1).await;
    let fault = |outcome: &Outcome| match outcome {
        Outcome::Launch(fault) => fault.code.clone(),
        other => panic!("{other:?}"),
    };
    stage.release(&task(1, "/bin/sh -c 'exit 3'")).await;
    assert_eq!(stage.finished().await.outcome, Outcome::Exit { code: 3 });
    stage.release(&task(2, "/bin/sh -c 'kill -9 $$'")).await;
    assert_eq!(stage.finished().await.outcome, Outcome::Signal { number: 9 });
    stage.release(&task(3, "no-such-program --flag")).await;
    assert_eq!(fault(&stage.finished().await.outcome), "CommandProgramNotFound");
    stage.release(&task(4, "/bin/echo 'open")).await;
    assert_eq!(fault(&stage.finished().await.outcome), "CommandLaunchFailed");
    stage.release(&task(5, "echo a 'b c' $AZ_BATCH_TASK_ID")).await;
    let finished = stage.finished().await;
    assert_eq!((finished.outcome, text(&finished.stdout)), (Outcome::Exit { code: 0 }, "a b c t5\n"));
    assert!(finished.usage.memory_peak_bytes > 0);
    stage.strike().await;
}

#[tokio::test]
async fn a_task_sees_its_environment_and_not_the_agents() {
    let mut stage = Stage::with_agent(1).await;
    let settings = vec![EnvironmentSetting { name: "MINE".into(), value: Some("a b".into()) }];
    let command_line = "/bin/sh -c 'echo $MINE; pwd; echo $AZ_BATCH_JOB_ID/$AZ_BATCH_TASK_ID; env >&2'".to_owned();
    stage.release(&task_with(1, TaskSpec { command_line, environment_settings: settings, ..TaskSpec::default() })).await;
    let finished = stage.finished().await;
    let wd = stage.root().canonicalize().unwrap().join("workitems/job/job-1/t1/wd");
    assert_eq!(text(&finished.stdout), format!("a b\n{}\njob/t1\n", wd.display()));
    let names: Vec<&str> = text(&finished.stderr).lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    assert!(names.contains(&"AZ_BATCH_NODE_SHARED_DIR") && names.contains(&"PIECEWORK_RUN"));
    assert!(!names.iter().any(|name| name.starts_with("CARGO")), "{names:?}");
    assert_eq!(fs::read_to_string(wd.parent().unwrap().join("stdout.txt")).unwrap(), text(&finished.stdout));
    stage.strike().await;
}

#[tokio::test]
async fn a_stop_ends_the_whole_tree_and_its_daemons() {
    let mut stage = Stage::with_agent(1).await;
    let shared = stage.root().join("shared");
    stage.release(&task(1, "/bin/sh -c 'trap : TERM; setsid sh -c \"echo \\$\\$ > $AZ_BATCH_NODE_SHARED_DIR/pid; exec sleep 600\" & sleep 600 & while :; do wait; done'")).await;
    let run = stage.started().await.run;
    let pid = loop {
        match fs::read_to_string(shared.join("pid")) {
            Ok(pid) if pid.ends_with('\n') => break pid.trim().to_owned(),
            _ => tokio::task::yield_now().await,
        }
    };
    stage.control(ControlKind::Stop { run, verdict: Verdict::Stop }).await;
    assert_eq!(stage.finished().await.outcome, Outcome::Stopped);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    stage.strike().await;
}

#[tokio::test]
async fn the_wall_clock_ends_a_run() {
    let mut stage = Stage::with_agent(1).await;
    let mut spec = TaskSpec { command_line: "/bin/sleep 600".into(), ..TaskSpec::default() };
    spec.constraints.max_wall_clock_time = Some(Period::from_ms(100));
    stage.release(&task_with(1, spec)).await;
    assert_eq!(stage.finished().await.outcome, Outcome::Timeout { limit_ms: 100 });
    stage.strike().await;
}

#[tokio::test]
async fn a_long_stream_is_shipped_to_blobs() {
    let mut stage = Stage::set(1).await;
    stage.add_blobs().await;
    stage.start_agent();
    stage.release(&task(1, "/bin/sh -c 'seq 1 5000'")).await;
    let Stream::Blob { key, bytes } = stage.finished().await.stdout else { panic!() };
    assert!(bytes as usize > INLINE_STREAM_BYTES_MAX);
    let shipped = stage.blobs.as_ref().unwrap().get("piecework", &key, None, 1 << 20).await.unwrap();
    assert_eq!(shipped.len() as u64, bytes);
    assert!(shipped.ends_with(b"4999\n5000\n"));
    stage.strike().await;
}

#[tokio::test]
async fn tasks_wait_for_the_start_task() {
    let mut stage = Stage::set(1).await;
    let command_line = "/bin/sh -c 'echo x >> $AZ_BATCH_NODE_SHARED_DIR/tries; test $(wc -l < $AZ_BATCH_NODE_SHARED_DIR/tries) -ge 2'";
    let start_task = StartTask { command_line: command_line.into(), max_task_retry_count: Some(3), ..StartTask::default() };
    stage.say(|script| script.start_task = Some(start_task));
    stage.release(&task(1, "/bin/sh -c 'cat $AZ_BATCH_NODE_SHARED_DIR/tries'")).await;
    stage.start_agent();
    assert_eq!(stage.report().await.state, NodeState::WaitingForStartTask);
    let report = stage.report().await;
    let end = report.start_task.unwrap();
    assert_eq!((report.state, end.outcome, end.retries), (NodeState::Idle, Outcome::Exit { code: 0 }, 1));
    assert_eq!(text(&stage.finished().await.stdout), "x\nx\n");
    stage.strike().await;
}

#[tokio::test]
async fn a_node_whose_start_task_failed_takes_nothing() {
    let mut stage = Stage::set(1).await;
    let start_task = StartTask { command_line: "/bin/false".into(), ..StartTask::default() };
    stage.say(|script| script.start_task = Some(start_task));
    stage.release(&task(1, ":")).await;
    stage.start_agent();
    stage.report().await;
    assert_eq!(stage.report().await.state, NodeState::StartTaskFailed);
    stage.beat(|beat| !beat.is_consuming).await;
    assert!(!stage.queue_is_empty().await);
    stage.strike().await;
}
