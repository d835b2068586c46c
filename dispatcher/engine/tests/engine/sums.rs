//! The usage of a run is counted once, in the transaction that stores its end.

use std::collections::HashMap;

use contract::{
    message::{AgentEvent, Finished, TaskMessage},
    outcome::{Outcome, Usage},
    spec::{TaskConstraints, TaskSpec},
    state::JobState,
    time::Timestamp,
};
use engine::{Input, command::Command};
use model::{
    condition::Condition,
    usage::{Sums, Work},
};
use store::read::Read;

use crate::{TestEngine, finished, job, plain, started, task};

const ONE_RUN: Work = Work { user_ms: 70, kernel_ms: 30, wall_ms: 2_000, in_bytes: 5, out_bytes: 6 };

/// The end of a run that started some seconds after the epoch and used [`ONE_RUN`].
fn ended(message: &TaskMessage, run: u128, start_ms: i64, code: i32) -> AgentEvent {
    let AgentEvent::Finished(end) = finished(message, run, Outcome::Exit { code }) else { panic!("not an end") };
    let Work { user_ms, kernel_ms, wall_ms, in_bytes, out_bytes } = ONE_RUN;
    let ended_at = Timestamp(start_ms).plus_ms(wall_ms.cast_signed());
    let usage = Usage { user_ms, kernel_ms, in_bytes, out_bytes, ..Usage::default() };
    AgentEvent::Finished(Box::new(Finished { started_at: Timestamp(start_ms), ended_at, usage, ..*end }))
}

async fn of_task(engine: &TestEngine, id: &str) -> Sums {
    let row = engine.task(id).await.unwrap();
    engine.read.sums_of_tasks(vec![row.uid]).await.unwrap()[0]
}

async fn of_job(engine: &TestEngine) -> Sums {
    let row = engine.read.job(&job()).await.unwrap().unwrap();
    engine.read.sums_of_jobs(vec![row.uid]).await.unwrap()[0]
}

fn runs(count: u64) -> Work {
    let mut work = Work::default();
    (0..count).for_each(|_| work.add(&ONE_RUN));
    work
}

#[tokio::test]
async fn every_run_is_counted_once_through_retries_repeated_events_and_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create(1, false, vec![]).await;
    let epoch = engine.join().await;
    let constraints = TaskConstraints { max_task_retry_count: Some(1), ..Default::default() };
    let spec = TaskSpec { command_line: "/bin/false".into(), constraints, ..Default::default() };
    engine.add(vec![task("t", spec, &[])]).await;
    let added = engine.task("t").await.unwrap().created_at;

    let first = engine.published.pop().unwrap();
    let start = added.plus_ms(3_000).0;
    engine.events(epoch, vec![started(&first, 1), ended(&first, 1, start, 9)]).await;
    engine.events(epoch, vec![ended(&first, 1, start, 9)]).await;
    assert_eq!(of_task(&engine, "t").await, Sums { work: ONE_RUN, wait_ms: 3_000, ..Sums::default() });
    assert_eq!(of_job(&engine).await, Sums { work: ONE_RUN, wait_ms: 3_000, retries: 1, ..Sums::default() });
    engine.close().await;

    let mut engine = TestEngine::open(folder.path());
    engine.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    let second = engine.published.pop().unwrap();
    assert_eq!(second.attempt, 2);
    let end = ended(&second, 2, added.plus_ms(10_000).0, 9);
    engine.events(epoch, vec![started(&second, 2), end.clone(), end]).await;
    assert_eq!(of_task(&engine, "t").await, Sums { work: runs(2), wait_ms: 10_000, ..Sums::default() }, "up to the last start");
    assert_eq!(of_job(&engine).await, Sums { work: runs(2), wait_ms: 10_000, retries: 1, ..Sums::default() });

    engine.call(Command::DeleteTask(job(), "t".parse().unwrap(), Condition::default())).await.unwrap();
    assert_eq!(of_job(&engine).await.work, runs(2), "a job keeps what its deleted tasks have used");
    engine.close().await;
}

#[tokio::test]
async fn the_last_run_of_a_job_that_ends_with_it_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create_pool("pool", 1).await;
    let mut new = TestEngine::new_job(false, vec![]);
    new.terminate_when_complete = true;
    engine.call(Command::CreateJob(Box::new(new))).await.unwrap();
    let epoch = engine.join().await;
    engine.add(vec![plain("only")]).await;
    let message = engine.published.pop().unwrap();
    engine.events(epoch, vec![started(&message, 1), ended(&message, 1, 0, 0)]).await;
    engine.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    let row = engine.read.job(&job()).await.unwrap().unwrap();
    assert_eq!(row.state, JobState::Completed);
    assert_eq!(of_job(&engine).await, Sums { work: ONE_RUN, ..Sums::default() }, "a start before the task was added is no wait");
    engine.close().await;
}
