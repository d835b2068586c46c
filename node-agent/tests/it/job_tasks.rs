//! Preparations before a job's tasks and releases after them: run once, waited for, reported until acknowledged,
//! stopped.

use contract::{
    ids::JobUid,
    job_task::JobTask,
    message::{Answer, ControlKind, NodeOrder, Start, TaskMessage},
    outcome::{JobTaskKey, JobTaskKind, Outcome},
    period::Period,
    spec::{EnvironmentSetting, TaskConstraints, TaskSpec},
    state::DeallocationOption,
};
use node_agent::{AgentError, Ending};

use crate::{
    harness::{Harness, task},
    survival,
};

fn key(kind: JobTaskKind) -> JobTaskKey {
    JobTaskKey { job: JobUid(1), kind, number: 1 }
}

fn job_task(kind: JobTaskKind, command_line: &str) -> JobTask {
    let name = if kind == JobTaskKind::Preparation { "prep" } else { "tidy" };
    let preparation = (kind == JobTaskKind::Release).then(|| "prep".parse().unwrap());
    let settings = vec![EnvironmentSetting { name: "COMMON".into(), value: Some("yes".into()) }];
    let spec = TaskSpec { command_line: command_line.into(), environment_settings: settings, preparation, ..TaskSpec::default() };
    JobTask { key: key(kind), job: "job".parse().unwrap(), task: name.parse().unwrap(), is_awaited: true, spec }
}

fn question(uid: u64) -> TaskMessage {
    TaskMessage { start: Start::Ask, spec: None, ..task(uid, ":") }
}

fn answer(command_line: &str, preparation: Option<&JobTask>) -> Answer {
    let spec = TaskSpec { command_line: command_line.into(), preparation: Some("prep".parse().unwrap()), ..TaskSpec::default() };
    Answer::Run { spec: Some(Box::new(spec)), preparation: preparation.cloned().map(Box::new) }
}

/// A command that waits until a file of the node is there.
fn until(file: &str) -> String {
    format!("/bin/sh -c 'until [ -e $AZ_BATCH_NODE_SHARED_DIR/{file} ]; do sleep 0.02; done'")
}

#[tokio::test]
async fn a_preparation_runs_once_and_all_runs_of_the_job_wait_for_it() {
    let mut harness = Harness::with_agent(3).await;
    let line = "/bin/sh -c 'until [ -e $AZ_BATCH_NODE_SHARED_DIR/go ]; do sleep 0.02; done; echo $COMMON >> $AZ_BATCH_TASK_WORKING_DIR/data; echo said'";
    let preparation = job_task(JobTaskKind::Preparation, line);
    let uses = "/bin/sh -c 'grep -qx yes $AZ_BATCH_JOB_PREP_WORKING_DIR/data && test -f $AZ_BATCH_JOB_PREP_DIR/stdout.txt'";
    harness.change_script(|script| script.answers.extend((0..2).map(|_| answer(uses, Some(&preparation)))));
    harness.release(&question(1)).await;
    let ask = harness.asked().await;
    assert!(ask.prepares, "it says that it knows preparations");
    assert!(ask.pool.is_some(), "it says which pool it is in");
    harness.release(&question(2)).await;
    harness.asked().await;
    let heartbeat = harness.heartbeat(|heartbeat| heartbeat.live.len() == 2).await;
    assert_eq!(heartbeat.job_tasks, [key(JobTaskKind::Preparation)]);
    assert_eq!(heartbeat.free_slots, 1, "runs that wait hold their slots");
    std::fs::write(harness.root().join("shared/go"), "").unwrap();
    let end = harness.job_task_ended().await;
    assert_eq!((end.key, end.outcome, end.retries), (key(JobTaskKind::Preparation), Outcome::Exit { code: 0 }, 0));
    for _ in 0..2 {
        assert_eq!(harness.finished().await.outcome, Outcome::Exit { code: 0 });
    }
    // An answer that was on its way when the preparation ended starts nothing twice.
    harness.change_script(|script| {
        script.over.push(key(JobTaskKind::Preparation));
        script.answers.push_back(answer(uses, Some(&preparation)));
    });
    harness.heartbeat(|heartbeat| heartbeat.job_tasks.is_empty()).await;
    harness.release(&question(3)).await;
    assert_eq!(harness.finished().await.outcome, Outcome::Exit { code: 0 });
    let folder = harness.root().join("workitems/job/job-1/prep");
    assert_eq!(std::fs::read_to_string(folder.join("wd/data")).unwrap(), "yes\n");
    assert_eq!(std::fs::read_to_string(folder.join("stdout.txt")).unwrap(), "said\n");
    harness.stop().await;
}

#[tokio::test]
async fn a_service_that_a_preparation_starts_serves_the_jobs_tasks_and_goes_with_the_release() {
    let mut harness = Harness::new(1).await;
    let agent = survival::process(&harness);
    // Two kinds of daemon: in the group of the preparation, and in a session of its own with an empty environment.
    let line = "/bin/sh -c 'cd $AZ_BATCH_NODE_SHARED_DIR; sleep 618 & echo $! > one; env -i setsid sh -c \"echo \\$\\$ > two; exec sleep 618\" & until [ -s two ]; do sleep 0.01; done'";
    let preparation = job_task(JobTaskKind::Preparation, line);
    let uses = "/bin/sh -c 'cd $AZ_BATCH_NODE_SHARED_DIR; kill -0 $(cat one) && kill -0 $(cat two)'";
    harness.change_script(|script| script.answers.extend((0..2).map(|_| answer(uses, Some(&preparation)))));
    for uid in 1..=2 {
        harness.release(&question(uid)).await;
        assert_eq!(harness.finished().await.outcome, Outcome::Exit { code: 0 });
    }
    let pids =
        ["one", "two"].map(|name| std::fs::read_to_string(harness.root().join("shared").join(name)).unwrap().trim().parse().unwrap());
    assert!(pids.iter().all(|pid| survival::is_alive(*pid)), "the end of a task ends no service");
    // The release may still use the daemon.
    harness.change_script(|script| script.releases.push(job_task(JobTaskKind::Release, uses)));
    let mut end = harness.job_task_ended().await;
    if end.key.kind == JobTaskKind::Preparation {
        end = harness.job_task_ended().await;
    }
    assert_eq!((end.key, end.outcome), (key(JobTaskKind::Release), Outcome::Exit { code: 0 }));
    assert!(!pids.iter().any(|pid| survival::is_alive(*pid)), "{pids:?}");
    drop(agent);
    harness.stop().await;
}

#[tokio::test]
async fn a_preparation_that_fails_is_tried_again_and_then_fails_the_runs_that_wait() {
    let mut harness = Harness::with_agent(2).await;
    let mut preparation = job_task(JobTaskKind::Preparation, "/bin/sh -c 'exit 3'");
    preparation.spec.constraints = TaskConstraints { max_task_retry_count: Some(1), ..TaskConstraints::default() };
    harness.change_script(|script| script.answers.push_back(answer(":", Some(&preparation))));
    harness.release(&question(1)).await;
    let end = harness.job_task_ended().await;
    assert_eq!((&end.outcome, end.retries, end.retried_at.is_some()), (&Outcome::Exit { code: 3 }, 1, true));
    let finished = harness.finished().await;
    assert_eq!(finished.outcome, Outcome::Unprepared(Box::new(end.clone())));
    // The result is sent again to a new dispatcher, until that acknowledges it.
    harness.change_script(|script| script.boot = 2);
    assert_eq!(harness.job_task_ended().await, end);
    harness.change_script(|script| script.over.push(end.key));
    harness.heartbeat(|heartbeat| heartbeat.job_tasks.is_empty()).await;
    harness.stop().await;
}

#[tokio::test]
async fn tasks_run_beside_a_preparation_that_nobody_waits_for() {
    let mut harness = Harness::with_agent(1).await;
    let preparation = JobTask { is_awaited: false, ..job_task(JobTaskKind::Preparation, &until("go")) };
    harness.change_script(|script| script.answers.push_back(answer("/bin/true", Some(&preparation))));
    harness.release(&question(1)).await;
    assert_eq!(harness.finished().await.outcome, Outcome::Exit { code: 0 });
    std::fs::write(harness.root().join("shared/go"), "").unwrap();
    assert!(harness.job_task_ended().await.has_succeeded());
    harness.stop().await;
}

#[tokio::test]
async fn a_preparation_that_is_over_is_stopped_and_so_are_the_runs_that_wait() {
    let mut harness = Harness::with_agent(2).await;
    let preparation = job_task(JobTaskKind::Preparation, "/bin/sleep 600");
    harness.change_script(|script| script.answers.extend((0..2).map(|_| answer(":", Some(&preparation)))));
    harness.release(&question(1)).await;
    let run = harness.asked().await.run;
    harness.heartbeat(|heartbeat| heartbeat.live.len() == 1 && !heartbeat.job_tasks.is_empty()).await;
    harness.control(ControlKind::Stop { run: run.run, verdict: contract::message::Verdict::Stop }).await;
    assert_eq!(harness.finished().await.outcome, Outcome::Stopped, "its run can be stopped while it waits");
    harness.release(&question(2)).await;
    harness.asked().await;
    harness.change_script(|script| script.over.push(key(JobTaskKind::Preparation)));
    assert_eq!(harness.job_task_ended().await.outcome, Outcome::Stopped);
    assert!(matches!(harness.finished().await.outcome, Outcome::Unprepared(_)));
    harness.stop().await;
}

#[tokio::test]
async fn a_release_stops_the_jobs_runs_takes_no_slot_and_runs_once() {
    let mut harness = Harness::with_agent(1).await;
    let preparation = job_task(JobTaskKind::Preparation, "/bin/sh -c 'echo x > data'");
    harness.change_script(|script| script.answers.push_back(answer("/bin/sleep 600", Some(&preparation))));
    harness.release(&question(1)).await;
    harness.started().await;
    let line = "/bin/sh -c 'cat $AZ_BATCH_JOB_PREP_WORKING_DIR/data >> $AZ_BATCH_NODE_SHARED_DIR/released'";
    harness.change_script(|script| script.releases.push(job_task(JobTaskKind::Release, line)));
    harness.control(ControlKind::Heartbeat).await;
    assert_eq!(harness.finished().await.outcome, Outcome::Stopped);
    let end = harness.job_task_ended().await;
    assert_eq!((end.key, end.outcome), (key(JobTaskKind::Release), Outcome::Exit { code: 0 }));
    // An answer that was on its way starts nothing after the release.
    harness.change_script(|script| script.answers.push_back(answer("/bin/true", Some(&preparation))));
    harness.release(&question(2)).await;
    assert_eq!(harness.finished().await.outcome, Outcome::Stopped);
    harness.change_script(|script| script.over.push(key(JobTaskKind::Release)));
    harness.heartbeat(|heartbeat| !heartbeat.job_tasks.contains(&key(JobTaskKind::Release))).await;
    // A copy of the order that comes late starts nothing either, and the slot is free for others.
    harness.release(&task(3, "/bin/true")).await;
    assert_eq!(harness.finished().await.outcome, Outcome::Exit { code: 0 });
    assert_eq!(std::fs::read_to_string(harness.root().join("shared/released")).unwrap(), "x\n");
    harness.stop().await;
}

#[tokio::test]
async fn a_release_ends_at_its_limit() {
    let mut harness = Harness::with_agent(1).await;
    let mut release = job_task(JobTaskKind::Release, "/bin/sleep 600");
    release.spec.constraints.max_wall_clock_time = Some(Period::from_ms(50));
    harness.change_script(|script| script.releases.push(release));
    assert_eq!(harness.job_task_ended().await.outcome, Outcome::Timeout { limit_ms: 50 });
    harness.stop().await;
}

#[tokio::test]
async fn a_restart_ends_job_tasks_and_the_next_start_runs_the_release_again() {
    let mut harness = Harness::with_agent(1).await;
    let count = "echo x >> $AZ_BATCH_NODE_SHARED_DIR/count";
    harness.change_script(|script| script.releases.push(job_task(JobTaskKind::Release, &format!("/bin/sh -c '{count}; sleep 600'"))));
    harness.heartbeat(|heartbeat| !heartbeat.job_tasks.is_empty()).await;
    let counted = |harness: &Harness| std::fs::read_to_string(harness.root().join("shared/count")).unwrap_or_default();
    while counted(&harness).is_empty() {
        harness.heartbeat(|_| true).await;
    }
    harness.change_script(|script| script.order = NodeOrder::Restart { option: DeallocationOption::Requeue });
    assert_eq!(harness.job_task_ended().await.outcome, Outcome::Stopped);
    assert!(matches!(harness.agent_ends().await, Err(AgentError::Restarts)));
    harness.change_script(|script| {
        script.order = NodeOrder::Work;
        script.releases = vec![job_task(JobTaskKind::Release, &format!("/bin/sh -c '{count}'"))];
    });
    harness.start_agent();
    assert!(harness.job_task_ended().await.has_succeeded());
    assert_eq!(counted(&harness), "x\nx\n");
    harness.end_agent(Ending::Drain).await.unwrap();
    harness.stop().await;
}
