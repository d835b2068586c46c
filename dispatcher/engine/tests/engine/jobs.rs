//! What becomes of running tasks when their job is disabled, moved, managed or told to run a task again.

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
    job::{DisableOption, JobChange, NewJob, NewManager},
    refusal::Code,
    task::{ExitConditions, ExitOptions, JobAction},
};
use store::{
    read::Read,
    rows::{Counts, JobRow},
};

use crate::{Rig, clock::Hands, finished, job, plain, pool, started};

async fn disable(rig: &mut Rig, option: DisableOption) {
    rig.call(Command::DisableJob(job(), option, Condition::default())).await.unwrap();
}

async fn enable(rig: &mut Rig) {
    rig.call(Command::EnableJob(job(), Condition::default())).await.unwrap();
}

async fn tick(rig: &mut Rig) {
    rig.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
}

async fn row(rig: &Rig) -> JobRow {
    rig.read.job(&job()).await.unwrap().unwrap()
}

/// A task that runs, one that is released, and one that waits.
async fn busy(folder: &std::path::Path) -> (Rig, contract::ids::Epoch, Vec<contract::message::TaskMessage>) {
    let mut rig = Rig::open(folder);
    rig.create(1, false, vec![]).await;
    let epoch = rig.join().await;
    rig.add(vec![plain("runs"), plain("released"), plain("waits")]).await;
    let messages = std::mem::take(&mut rig.published);
    assert_eq!(messages.len(), 2);
    rig.events(epoch, vec![started(&messages[0], 1)]).await;
    (rig, epoch, messages)
}

#[tokio::test]
async fn disabling_with_requeue_gives_everything_back_and_enabling_runs_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut rig, epoch, messages) = busy(folder.path()).await;
    disable(&mut rig, DisableOption::Requeue).await;
    assert_eq!(row(&rig).await.state, JobState::Disabling);
    let task = rig.task("runs").await.unwrap();
    assert_eq!((task.state, task.requeue_count, task.retry_count), (TaskState::Active, 1, 0));
    assert_eq!(rig.task("released").await.unwrap().requeue_count, 0, "it never started");
    rig.events(epoch, vec![finished(&messages[0], 1, Outcome::Exit { code: 0 }), started(&messages[1], 2)]).await;
    assert_eq!(rig.counts().await, Counts { active: 3, running: 0, succeeded: 0, failed: 0 });
    tick(&mut rig).await;
    assert_eq!((row(&rig).await.state, row(&rig).await.previous.unwrap().0), (JobState::Disabled, JobState::Disabling));
    assert!(rig.published.is_empty());
    enable(&mut rig).await;
    assert_eq!(row(&rig).await.state, JobState::Enabling);
    let refused = rig.call(Command::DisableJob(job(), DisableOption::Wait, Condition::default())).await.unwrap_err();
    assert_eq!(refused.code, Code::OperationInvalidForCurrentState);
    tick(&mut rig).await;
    assert_eq!(row(&rig).await.state, JobState::Active);
    assert_eq!(
        rig.published.iter().map(|message| (message.task.as_str(), message.attempt)).collect::<Vec<_>>(),
        [("runs", 2), ("released", 2)]
    );
    rig.close().await;
}

#[tokio::test]
async fn disabling_with_terminate_completes_what_runs_and_leaves_the_job_alive() {
    let folder = tempfile::tempdir().unwrap();
    let (mut rig, _, _) = busy(folder.path()).await;
    disable(&mut rig, DisableOption::Terminate).await;
    let task = rig.task("runs").await.unwrap();
    assert_eq!((task.state, task.failure.unwrap().fault.code.as_str()), (TaskState::Completed, "TaskEnded"));
    assert_eq!(rig.counts().await, Counts { active: 2, running: 0, succeeded: 0, failed: 1 });
    tick(&mut rig).await;
    assert_eq!(row(&rig).await.state, JobState::Disabled);
    rig.close().await;
}

#[tokio::test]
async fn disabling_with_wait_lets_what_runs_end_and_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (mut rig, epoch, messages) = busy(folder.path()).await;
    disable(&mut rig, DisableOption::Wait).await;
    tick(&mut rig).await;
    assert_eq!((row(&rig).await.state, rig.counts().await.running), (JobState::Disabling, 1));
    rig.close().await;

    let mut rig = Rig::open(folder.path());
    tick(&mut rig).await;
    assert!(rig.published.is_empty(), "nothing is released anew");
    assert_eq!(row(&rig).await.state, JobState::Disabling);
    rig.events(epoch, vec![finished(&messages[0], 1, Outcome::Exit { code: 0 })]).await;
    tick(&mut rig).await;
    assert_eq!(row(&rig).await.state, JobState::Disabled);
    assert_eq!(rig.counts().await, Counts { active: 2, running: 0, succeeded: 1, failed: 0 });
    rig.close().await;
}

#[tokio::test]
async fn a_job_moves_to_another_pool_only_while_it_is_disabled() {
    let folder = tempfile::tempdir().unwrap();
    let (mut rig, epoch, messages) = busy(folder.path()).await;
    let other: contract::ids::PoolId = "other".parse().unwrap();
    let change = || Box::new(JobChange { pool: Some(other.clone()), ..JobChange::default() });
    let refused = rig.call(Command::UpdateJob(job(), change(), Condition::default())).await.unwrap_err();
    assert_eq!(refused.code, Code::OperationInvalidForCurrentState);
    rig.events(epoch, vec![finished(&messages[0], 1, Outcome::Exit { code: 0 })]).await;
    disable(&mut rig, DisableOption::Requeue).await;
    tick(&mut rig).await;
    rig.call(Command::UpdateJob(job(), change(), Condition::default())).await.unwrap();
    assert_eq!(row(&rig).await.pool, other, "which may come later");
    rig.create_pool("other", 2).await;
    assert_eq!(rig.task("runs").await.unwrap().pool, Some(pool()), "its files are still there");
    rig.published.clear();
    enable(&mut rig).await;
    tick(&mut rig).await;
    assert!(rig.published.is_empty(), "the old pool's node has nothing to do with it");
    rig.close().await;

    let rig = Rig::open(folder.path());
    assert_eq!(row(&rig).await.pool, other);
    rig.close().await;
}

#[tokio::test]
async fn a_manager_goes_first_alone_and_takes_its_job_along() {
    let folder = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(folder.path());
    rig.create_pool("pool", 2).await;
    let mut new = Rig::new_job(false, vec![]);
    new.manager = Some(Box::new(NewManager { task: plain("boss"), ends_job: true, is_exclusive: true }));
    rig.call(Command::CreateJob(Box::new(new))).await.unwrap();
    rig.add(vec![plain("a"), plain("b"), plain("c")]).await;
    let epoch = rig.join().await;
    let boss = rig.published.remove(0);
    assert_eq!((boss.task.as_str(), boss.slots), ("boss", 2));
    let worker = rig.published[0].clone();
    rig.events(epoch, vec![started(&boss, 1), started(&worker, 2)]).await;
    rig.events(epoch, vec![finished(&boss, 1, Outcome::Exit { code: 0 })]).await;
    let ended = row(&rig).await;
    assert_eq!((ended.state, ended.terminate_reason.as_deref()), (JobState::Terminating, Some("JMComplete")));
    assert_eq!(rig.task(worker.task.as_str()).await.unwrap().failure.unwrap().fault.code, "TaskEnded");
    tick(&mut rig).await;
    assert_eq!(row(&rig).await.state, JobState::Completed);
    rig.close().await;
}

#[tokio::test]
async fn a_failed_task_runs_again_with_all_its_retries() {
    let folder = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(folder.path());
    rig.create(1, false, vec![]).await;
    let epoch = rig.join().await;
    rig.add(vec![plain("t")]).await;
    let first = rig.published.pop().unwrap();
    rig.events(epoch, vec![started(&first, 1)]).await;
    let limits = TaskConstraints { max_task_retry_count: Some(1), ..TaskConstraints::default() };
    rig.call(Command::UpdateTask(job(), "t".parse().unwrap(), limits, Condition::default())).await.unwrap();
    rig.events(epoch, vec![finished(&first, 1, Outcome::Exit { code: 1 })]).await;
    let second = rig.published.pop().expect("its new limit allows a retry");
    rig.events(epoch, vec![finished(&second, 2, Outcome::Exit { code: 2 })]).await;
    let failed = rig.task("t").await.unwrap();
    assert_eq!((failed.state, failed.exit_code, failed.retry_count), (TaskState::Completed, Some(2), 1));
    rig.call(Command::ReactivateTask(job(), "t".parse().unwrap(), Condition::default())).await.unwrap();
    let third = rig.published.pop().expect("released again");
    assert!(third.attempt == 3 && third.fence > second.fence);
    let late: AgentEvent = finished(&second, 2, Outcome::Exit { code: 0 });
    rig.events(epoch, vec![late, finished(&third, 3, Outcome::Exit { code: 3 })]).await;
    let fourth = rig.published.pop().expect("its retries were given back");
    rig.events(epoch, vec![finished(&fourth, 4, Outcome::Exit { code: 0 })]).await;
    assert_eq!(rig.counts().await, Counts { active: 0, running: 0, succeeded: 1, failed: 0 });
    let again = rig.call(Command::ReactivateTask(job(), "t".parse().unwrap(), Condition::default())).await.unwrap_err();
    assert_eq!(again.code, Code::TaskSucceeded);
    rig.close().await;
}

#[tokio::test]
async fn a_job_that_is_out_of_time_ends_with_that_reason() {
    let folder = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(folder.path());
    rig.create_pool("pool", 1).await;
    let mut new = Rig::new_job(false, vec![]);
    new.max_wall_clock = Some(contract::period::Period::from_ms(0));
    rig.call(Command::CreateJob(Box::new(new))).await.unwrap();
    rig.add(vec![plain("t")]).await;
    while row(&rig).await.state == JobState::Active {
        tick(&mut rig).await;
    }
    assert_eq!(row(&rig).await.terminate_reason.as_deref(), Some("MaxWallClockTimeExpiry"));
    tick(&mut rig).await;
    assert_eq!((row(&rig).await.state, rig.counts().await.active), (JobState::Completed, 1));
    rig.close().await;
}

#[tokio::test]
async fn tasks_too_wide_for_their_pool_run_when_they_fit_the_next_one_of_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(folder.path());
    rig.create(1, false, vec![]).await;
    let mut wide = plain("wide");
    wide.spec.required_slots = Some(2);
    rig.add(vec![wide]).await;
    rig.call(Command::DeletePool(pool(), Condition::default())).await.unwrap();
    tick(&mut rig).await;
    rig.create_pool("pool", 2).await;
    rig.join().await;
    assert_eq!(rig.published.iter().map(|message| (message.task.as_str(), message.slots)).collect::<Vec<_>>(), [("wide", 2)]);
    rig.close().await;
}

#[tokio::test]
async fn tasks_ended_by_disabling_do_not_end_their_job_and_failing_ones_do() {
    for fails in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mut rig = Rig::open(folder.path());
        rig.create_pool("pool", 1).await;
        let new = model::job::NewJob { performs_exit_options: true, ..Rig::new_job(false, vec![]) };
        rig.call(Command::CreateJob(Box::new(new))).await.unwrap();
        let epoch = rig.join().await;
        rig.add(vec![plain("t")]).await;
        let message = rig.published.pop().unwrap();
        rig.events(epoch, vec![started(&message, 1)]).await;
        disable(&mut rig, if fails { DisableOption::Wait } else { DisableOption::Terminate }).await;
        if fails {
            rig.events(epoch, vec![finished(&message, 1, Outcome::Exit { code: 1 })]).await;
        }
        let expected = if fails { (JobState::Terminating, Some("TaskFailed")) } else { (JobState::Disabling, None) };
        let job = row(&rig).await;
        assert_eq!((job.state, job.terminate_reason.as_deref()), expected);
        rig.close().await;
    }
}

#[tokio::test]
async fn an_exit_condition_disables_its_job_with_requeue() {
    let folder = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(folder.path());
    rig.create_pool("pool", 2).await;
    let new = model::job::NewJob { performs_exit_options: true, ..Rig::new_job(false, vec![]) };
    rig.call(Command::CreateJob(Box::new(new))).await.unwrap();
    let epoch = rig.join().await;
    let mut strict = plain("strict");
    let options = ExitOptions { job_action: Some(JobAction::Disable), dependency_action: None };
    strict.exit_conditions = Some(ExitConditions { otherwise: Some(options), ..ExitConditions::default() });
    rig.add(vec![strict, plain("other")]).await;
    let messages = std::mem::take(&mut rig.published);
    rig.events(epoch, vec![started(&messages[0], 1), started(&messages[1], 2)]).await;
    rig.events(epoch, vec![finished(&messages[0], 1, Outcome::Exit { code: 1 })]).await;
    assert_eq!(row(&rig).await.state, JobState::Disabling);
    assert_eq!(rig.task("other").await.unwrap().requeue_count, 1);
    tick(&mut rig).await;
    assert_eq!(row(&rig).await.state, JobState::Disabled);
    rig.close().await;
}

#[tokio::test]
async fn a_schedule_makes_no_job_while_the_disk_is_full_and_makes_it_when_there_is_room() {
    let (folder, hands) = (tempfile::tempdir().unwrap(), std::sync::Arc::new(crate::clock::Hands::default()));
    let mut rig = Rig::open_by(folder.path(), hands.clock());
    let (tell, shortage) = tokio::sync::watch::channel(None);
    rig.engine = rig.engine.unless_short(shortage);
    rig.create_pool("pool", 1).await;
    let soon = model::schedule::Timetable { not_until: Some(contract::time::Timestamp::now().plus_ms(3_600_000)), ..Default::default() };
    let id: contract::ids::ScheduleId = "nightly".parse().unwrap();
    let schedule = model::schedule::NewSchedule { id, timetable: soon, job: Rig::new_job(false, vec![]), document: "{}".into() };
    rig.call(Command::CreateSchedule(Box::new(schedule))).await.unwrap();
    tell.send_replace(Some("no room".to_owned()));
    let made: contract::ids::JobId = "nightly:job-1".parse().unwrap();
    hands.pass(3_700_000);
    for _ in 0..3 {
        rig.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    }
    assert!(rig.read.job(&made).await.unwrap().is_none());
    tell.send_replace(None);
    rig.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    assert!(rig.read.job(&made).await.unwrap().is_some());
    rig.close().await;
}

#[tokio::test]
async fn a_job_that_ends_with_its_last_task_has_ten_seconds_to_get_its_first() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Arc::<Hands>::default();
    let mut rig = Rig::open_by(folder.path(), hands.clock());
    rig.create_pool("pool", 1).await;
    let empty = NewJob { terminate_when_complete: true, ..Rig::new_job(false, vec![]) };
    let used = NewJob { id: "used".parse().unwrap(), ..empty.clone() };
    for new in [empty, used] {
        rig.call(Command::CreateJob(Box::new(new))).await.unwrap();
    }
    rig.call(Command::CreateTasks("used".parse().unwrap(), vec![plain("t")])).await.unwrap();
    hands.pass(10_000);
    tick(&mut rig).await;
    assert_eq!(rig.read.job(&job()).await.unwrap().unwrap().state, JobState::Active);
    hands.pass(1);
    for _ in 0..2 {
        tick(&mut rig).await;
    }
    let ended = rig.read.job(&job()).await.unwrap().unwrap();
    assert_eq!((ended.state, ended.terminate_reason.as_deref()), (JobState::Completed, Some("AllTasksComplete")));
    assert_eq!(rig.read.job(&"used".parse().unwrap()).await.unwrap().unwrap().state, JobState::Active);
    rig.close().await;
}
