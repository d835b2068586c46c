//! Running tasks whose job is disabled, moved or managed, and tasks that are run again.

use std::{collections::HashMap, sync::Arc};

use contract::{
    message::AgentEvent,
    outcome::Outcome,
    spec::TaskConstraints,
    state::{JobState, TaskState},
};
use engine::{Input, command::Command};
use model::{
    condition::Condition,
    job::{Counts, DisableOption, JobChange, NewJob, NewManager},
    refusal::Code,
    task::{ExitConditions, ExitOptions, JobAction},
};
use store::{read::Read, rows::JobRow};

use crate::{TestEngine, clock::FakeClock, finished, job, plain, pool, started};

async fn disable(engine: &mut TestEngine, option: DisableOption) {
    engine.call(Command::DisableJob(job(), option, Condition::default())).await.unwrap();
}

async fn enable(engine: &mut TestEngine) {
    engine.call(Command::EnableJob(job(), Condition::default())).await.unwrap();
}

async fn tick(engine: &mut TestEngine) {
    engine.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
}

async fn row(engine: &TestEngine) -> JobRow {
    engine.read.job(&job()).await.unwrap().unwrap()
}

/// A task that runs, one that is released, and one that waits.
async fn busy(folder: &std::path::Path) -> (TestEngine, contract::ids::Epoch, Vec<contract::message::TaskMessage>) {
    let mut engine = TestEngine::open(folder);
    engine.create(1, false, vec![]).await;
    let epoch = engine.join().await;
    engine.add(vec![plain("runs"), plain("released"), plain("waits")]).await;
    let messages = std::mem::take(&mut engine.published);
    assert_eq!(messages.len(), 2);
    engine.events(epoch, vec![started(&messages[0], 1)]).await;
    (engine, epoch, messages)
}

#[tokio::test]
async fn disabling_with_requeue_gives_everything_back_and_enabling_runs_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut engine, epoch, messages) = busy(folder.path()).await;
    disable(&mut engine, DisableOption::Requeue).await;
    assert_eq!(row(&engine).await.state, JobState::Disabling);
    let task = engine.task("runs").await.unwrap();
    assert_eq!((task.state, task.requeue_count, task.retry_count), (TaskState::Active, 1, 0));
    assert_eq!(engine.task("released").await.unwrap().requeue_count, 0, "it never started");
    engine.events(epoch, vec![finished(&messages[0], 1, Outcome::Exit { code: 0 }), started(&messages[1], 2)]).await;
    assert_eq!(engine.counts().await, Counts { active: 3, running: 0, succeeded: 0, failed: 0 });
    tick(&mut engine).await;
    assert_eq!((row(&engine).await.state, row(&engine).await.previous.unwrap().0), (JobState::Disabled, JobState::Disabling));
    assert!(engine.published.is_empty());
    enable(&mut engine).await;
    assert_eq!(row(&engine).await.state, JobState::Enabling);
    let refused = engine.call(Command::DisableJob(job(), DisableOption::Wait, Condition::default())).await.unwrap_err();
    assert_eq!(refused.code, Code::OperationInvalidForCurrentState);
    tick(&mut engine).await;
    assert_eq!(row(&engine).await.state, JobState::Active);
    assert_eq!(
        engine.published.iter().map(|message| (message.task.as_str(), message.attempt)).collect::<Vec<_>>(),
        [("runs", 2), ("released", 2)]
    );
    engine.close().await;
}

#[tokio::test]
async fn disabling_with_terminate_completes_what_runs_and_leaves_the_job_alive() {
    let folder = tempfile::tempdir().unwrap();
    let (mut engine, _, _) = busy(folder.path()).await;
    disable(&mut engine, DisableOption::Terminate).await;
    let task = engine.task("runs").await.unwrap();
    assert_eq!((task.state, task.failure.unwrap().fault.code.as_str()), (TaskState::Completed, "TaskEnded"));
    assert_eq!(engine.counts().await, Counts { active: 2, running: 0, succeeded: 0, failed: 1 });
    tick(&mut engine).await;
    assert_eq!(row(&engine).await.state, JobState::Disabled);
    engine.close().await;
}

#[tokio::test]
async fn disabling_with_wait_lets_what_runs_end_and_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (mut engine, epoch, messages) = busy(folder.path()).await;
    disable(&mut engine, DisableOption::Wait).await;
    tick(&mut engine).await;
    assert_eq!((row(&engine).await.state, engine.counts().await.running), (JobState::Disabling, 1));
    engine.close().await;

    let mut engine = TestEngine::open(folder.path());
    tick(&mut engine).await;
    assert!(engine.published.is_empty(), "nothing is released anew");
    assert_eq!(row(&engine).await.state, JobState::Disabling);
    engine.events(epoch, vec![finished(&messages[0], 1, Outcome::Exit { code: 0 })]).await;
    tick(&mut engine).await;
    assert_eq!(row(&engine).await.state, JobState::Disabled);
    assert_eq!(engine.counts().await, Counts { active: 2, running: 0, succeeded: 1, failed: 0 });
    engine.close().await;
}

#[tokio::test]
async fn a_job_moves_to_another_pool_only_while_it_is_disabled() {
    let folder = tempfile::tempdir().unwrap();
    let (mut engine, epoch, messages) = busy(folder.path()).await;
    let other: contract::ids::PoolId = "other".parse().unwrap();
    let change = || Box::new(JobChange { pool: Some(other.clone()), ..JobChange::default() });
    let refused = engine.call(Command::UpdateJob(job(), change(), Condition::default())).await.unwrap_err();
    assert_eq!(refused.code, Code::OperationInvalidForCurrentState);
    engine.events(epoch, vec![finished(&messages[0], 1, Outcome::Exit { code: 0 })]).await;
    disable(&mut engine, DisableOption::Requeue).await;
    tick(&mut engine).await;
    engine.call(Command::UpdateJob(job(), change(), Condition::default())).await.unwrap();
    assert_eq!(row(&engine).await.pool, other, "which may come later");
    engine.create_pool("other", 2).await;
    assert_eq!(engine.task("runs").await.unwrap().pool, Some(pool()), "its files are still there");
    engine.published.clear();
    enable(&mut engine).await;
    tick(&mut engine).await;
    assert!(engine.published.is_empty(), "the old pool's node has nothing to do with it");
    engine.close().await;

    let engine = TestEngine::open(folder.path());
    assert_eq!(row(&engine).await.pool, other);
    engine.close().await;
}

#[tokio::test]
async fn a_manager_goes_first_alone_and_takes_its_job_along() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create_pool("pool", 2).await;
    let mut new = TestEngine::new_job(false, vec![]);
    new.manager = Some(Box::new(NewManager { task: plain("boss"), ends_job: true, is_exclusive: true }));
    engine.call(Command::CreateJob(Box::new(new))).await.unwrap();
    engine.add(vec![plain("a"), plain("b"), plain("c")]).await;
    let epoch = engine.join().await;
    let boss = engine.published.remove(0);
    assert_eq!((boss.task.as_str(), boss.slots), ("boss", 2));
    let worker = engine.published[0].clone();
    engine.events(epoch, vec![started(&boss, 1), started(&worker, 2)]).await;
    engine.events(epoch, vec![finished(&boss, 1, Outcome::Exit { code: 0 })]).await;
    let ended = row(&engine).await;
    assert_eq!((ended.state, ended.terminate_reason.as_deref()), (JobState::Terminating, Some("JMComplete")));
    assert_eq!(engine.task(worker.task.as_str()).await.unwrap().failure.unwrap().fault.code, "TaskEnded");
    tick(&mut engine).await;
    assert_eq!(row(&engine).await.state, JobState::Completed);
    engine.close().await;
}

#[tokio::test]
async fn a_failed_task_runs_again_with_all_its_retries() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create(1, false, vec![]).await;
    let epoch = engine.join().await;
    engine.add(vec![plain("t")]).await;
    let first = engine.published.pop().unwrap();
    engine.events(epoch, vec![started(&first, 1)]).await;
    let limits = TaskConstraints { max_task_retry_count: Some(1), ..TaskConstraints::default() };
    engine.call(Command::UpdateTask(job(), "t".parse().unwrap(), limits, Condition::default())).await.unwrap();
    engine.events(epoch, vec![finished(&first, 1, Outcome::Exit { code: 1 })]).await;
    let second = engine.published.pop().expect("its new limit allows a retry");
    engine.events(epoch, vec![finished(&second, 2, Outcome::Exit { code: 2 })]).await;
    let failed = engine.task("t").await.unwrap();
    assert_eq!((failed.state, failed.exit_code, failed.retry_count), (TaskState::Completed, Some(2), 1));
    engine.call(Command::ReactivateTask(job(), "t".parse().unwrap(), Condition::default())).await.unwrap();
    let third = engine.published.pop().expect("released again");
    assert!(third.attempt == 3 && third.fence > second.fence);
    let late: AgentEvent = finished(&second, 2, Outcome::Exit { code: 0 });
    engine.events(epoch, vec![late, finished(&third, 3, Outcome::Exit { code: 3 })]).await;
    let fourth = engine.published.pop().expect("its retries were given back");
    engine.events(epoch, vec![finished(&fourth, 4, Outcome::Exit { code: 0 })]).await;
    assert_eq!(engine.counts().await, Counts { active: 0, running: 0, succeeded: 1, failed: 0 });
    let again = engine.call(Command::ReactivateTask(job(), "t".parse().unwrap(), Condition::default())).await.unwrap_err();
    assert_eq!(again.code, Code::TaskSucceeded);
    engine.close().await;
}

#[tokio::test]
async fn a_job_that_is_out_of_time_ends_with_that_reason() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create_pool("pool", 1).await;
    let mut new = TestEngine::new_job(false, vec![]);
    new.max_wall_clock = Some(contract::period::Period::from_ms(0));
    engine.call(Command::CreateJob(Box::new(new))).await.unwrap();
    engine.add(vec![plain("t")]).await;
    while row(&engine).await.state == JobState::Active {
        tick(&mut engine).await;
    }
    assert_eq!(row(&engine).await.terminate_reason.as_deref(), Some("MaxWallClockTimeExpiry"));
    tick(&mut engine).await;
    assert_eq!((row(&engine).await.state, engine.counts().await.active), (JobState::Completed, 1));
    engine.close().await;
}

#[tokio::test]
async fn tasks_too_wide_for_their_pool_run_when_they_fit_the_next_one_of_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create(1, false, vec![]).await;
    let mut wide = plain("wide");
    wide.spec.required_slots = Some(2);
    engine.add(vec![wide]).await;
    engine.call(Command::DeletePool(pool(), Condition::default())).await.unwrap();
    tick(&mut engine).await;
    engine.create_pool("pool", 2).await;
    engine.join().await;
    assert_eq!(engine.published.iter().map(|message| (message.task.as_str(), message.slots)).collect::<Vec<_>>(), [("wide", 2)]);
    engine.close().await;
}

#[tokio::test]
async fn tasks_ended_by_disabling_do_not_end_their_job_and_failing_ones_do() {
    for fails in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mut engine = TestEngine::open(folder.path());
        engine.create_pool("pool", 1).await;
        let new = model::job::NewJob { performs_exit_options: true, ..TestEngine::new_job(false, vec![]) };
        engine.call(Command::CreateJob(Box::new(new))).await.unwrap();
        let epoch = engine.join().await;
        engine.add(vec![plain("t")]).await;
        let message = engine.published.pop().unwrap();
        engine.events(epoch, vec![started(&message, 1)]).await;
        disable(&mut engine, if fails { DisableOption::Wait } else { DisableOption::Terminate }).await;
        if fails {
            engine.events(epoch, vec![finished(&message, 1, Outcome::Exit { code: 1 })]).await;
        }
        let expected = if fails { (JobState::Terminating, Some("TaskFailed")) } else { (JobState::Disabling, None) };
        let job = row(&engine).await;
        assert_eq!((job.state, job.terminate_reason.as_deref()), expected);
        engine.close().await;
    }
}

#[tokio::test]
async fn an_exit_condition_disables_its_job_with_requeue() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create_pool("pool", 2).await;
    let new = model::job::NewJob { performs_exit_options: true, ..TestEngine::new_job(false, vec![]) };
    engine.call(Command::CreateJob(Box::new(new))).await.unwrap();
    let epoch = engine.join().await;
    let mut strict = plain("strict");
    let options = ExitOptions { job_action: Some(JobAction::Disable), dependency_action: None };
    strict.exit_conditions = Some(ExitConditions { otherwise: Some(options), ..ExitConditions::default() });
    engine.add(vec![strict, plain("other")]).await;
    let messages = std::mem::take(&mut engine.published);
    engine.events(epoch, vec![started(&messages[0], 1), started(&messages[1], 2)]).await;
    engine.events(epoch, vec![finished(&messages[0], 1, Outcome::Exit { code: 1 })]).await;
    assert_eq!(row(&engine).await.state, JobState::Disabling);
    assert_eq!(engine.task("other").await.unwrap().requeue_count, 1);
    tick(&mut engine).await;
    assert_eq!(row(&engine).await.state, JobState::Disabled);
    engine.close().await;
}

#[tokio::test]
async fn a_schedule_makes_no_job_while_the_disk_is_full_and_makes_it_when_there_is_room() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), std::sync::Arc::new(crate::clock::FakeClock::default()));
    let mut engine = TestEngine::open_by(folder.path(), clock.handle());
    let (tell, shortage) = tokio::sync::watch::channel(None);
    engine.handle = engine.handle.unless_short(shortage);
    engine.create_pool("pool", 1).await;
    let soon = model::schedule::Timetable { not_until: Some(contract::time::Timestamp::now().plus_ms(3_600_000)), ..Default::default() };
    let id: contract::ids::ScheduleId = "nightly".parse().unwrap();
    let schedule = model::schedule::NewSchedule { id, timetable: soon, job: TestEngine::new_job(false, vec![]), document: "{}".into() };
    engine.call(Command::CreateSchedule(Box::new(schedule))).await.unwrap();
    tell.send_replace(Some("no room".to_owned()));
    let made: contract::ids::JobId = "nightly:job-1".parse().unwrap();
    clock.pass(3_700_000);
    for _ in 0..3 {
        engine.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    }
    assert!(engine.read.job(&made).await.unwrap().is_none());
    tell.send_replace(None);
    engine.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    assert!(engine.read.job(&made).await.unwrap().is_some());
    engine.close().await;
}

#[tokio::test]
async fn a_job_that_ends_with_its_last_task_has_ten_seconds_to_get_its_first() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::<FakeClock>::default();
    let mut engine = TestEngine::open_by(folder.path(), clock.handle());
    engine.create_pool("pool", 1).await;
    let empty = NewJob { terminate_when_complete: true, ..TestEngine::new_job(false, vec![]) };
    let used = NewJob { id: "used".parse().unwrap(), ..empty.clone() };
    for new in [empty, used] {
        engine.call(Command::CreateJob(Box::new(new))).await.unwrap();
    }
    engine.call(Command::CreateTasks("used".parse().unwrap(), vec![plain("t")])).await.unwrap();
    clock.pass(10_000);
    tick(&mut engine).await;
    assert_eq!(engine.read.job(&job()).await.unwrap().unwrap().state, JobState::Active);
    clock.pass(1);
    for _ in 0..2 {
        tick(&mut engine).await;
    }
    let ended = engine.read.job(&job()).await.unwrap().unwrap();
    assert_eq!((ended.state, ended.terminate_reason.as_deref()), (JobState::Completed, Some("AllTasksComplete")));
    assert_eq!(engine.read.job(&"used".parse().unwrap()).await.unwrap().unwrap().state, JobState::Active);
    engine.close().await;
}
