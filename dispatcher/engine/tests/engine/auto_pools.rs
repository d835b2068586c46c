//! Automatic pools: they come and go with their jobs, and a restart in between loses none.

use std::{collections::HashMap, path::Path};

use contract::{
    ids::{JobId, PoolId, ScheduleId},
    period::Period,
    spec::PackageReference,
    state::{JobState, PoolState, ScheduleState},
};
use engine::{Input, command::Command};
use model::{
    auto_pool::{AutoPool, JobPool, Lifetime, Tie},
    condition::Condition,
    job::{DisableOption, JobChange, NewJob},
    pool::NewPool,
    refusal::Code,
    schedule::{NewSchedule, ScheduleChange, Timetable},
};
use store::{
    read::{Page, Read},
    rows::{JobRow, PoolRow},
};

use crate::{TestEngine, job, plain};

fn auto(lifetime: Lifetime, keep_alive: bool) -> AutoPool {
    let pool = NewPool { target_dedicated: 0, ..TestEngine::new_pool("template", 3) };
    AutoPool { prefix: Some("auto".parse().unwrap()), tie: Tie { lifetime, keep_alive }, pool }
}

fn on(auto: AutoPool) -> NewJob {
    NewJob { pool: JobPool::Auto(Box::new(auto)), ..TestEngine::new_job(false, vec![]) }
}

fn own() -> NewJob {
    on(auto(Lifetime::Job, false))
}

fn schedule() -> ScheduleId {
    "s".parse().unwrap()
}

fn numbered(number: u64) -> JobId {
    JobId::of_schedule(&schedule(), number)
}

async fn tick(engine: &mut TestEngine) {
    engine.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
}

async fn add(engine: &mut TestEngine, job: NewJob) -> JobRow {
    let id = job.id.clone();
    engine.call(Command::CreateJob(Box::new(job))).await.unwrap();
    row(engine, &id).await.unwrap()
}

async fn row(engine: &TestEngine, job: &JobId) -> Option<JobRow> {
    engine.read.job(job).await.unwrap()
}

async fn pools(engine: &TestEngine) -> Vec<PoolRow> {
    engine.read.pools(Page { rows_max: 10, ..Page::default() }).await.unwrap()
}

async fn restart(engine: TestEngine, folder: &Path) -> TestEngine {
    engine.close().await;
    TestEngine::open(folder)
}

async fn terminate(engine: &mut TestEngine, job: &JobId) {
    engine.call(Command::TerminateJob(job.clone(), None, Condition::default())).await.unwrap();
}

async fn disable(engine: &mut TestEngine) {
    engine.call(Command::DisableJob(job(), DisableOption::Requeue, Condition::default())).await.unwrap();
    tick(engine).await;
    assert_eq!(row(engine, &job()).await.unwrap().state, JobState::Disabled);
}

/// A schedule whose jobs follow each other without a pause.
async fn start_schedule(engine: &mut TestEngine, auto: AutoPool) {
    let timetable = Timetable { interval: Some(Period::from_ms(1)), ..Timetable::default() };
    let new = NewSchedule { id: schedule(), timetable, job: on(auto), document: "{}".into() };
    engine.call(Command::CreateSchedule(Box::new(new))).await.unwrap();
}

/// Ends a job of the schedule and waits for the one after it.
async fn next_job(engine: &mut TestEngine, number: u64) -> JobRow {
    terminate(engine, &numbered(number)).await;
    loop {
        tick(engine).await;
        if let Some(next) = row(engine, &numbered(number + 1)).await {
            return next;
        }
    }
}

#[tokio::test]
async fn a_pool_comes_with_its_job_and_goes_with_it_whenever_the_dispatcher_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    let added = add(&mut engine, own()).await;
    let there = pools(&engine).await;
    assert_eq!((there.len(), &there[0].id, there[0].slots_per_node), (1, &added.pool, 3));
    assert!(added.pool.as_str().starts_with("auto_") && added.pool.as_str().len() == 41, "{}", added.pool);
    engine = restart(engine, folder.path()).await;
    assert_eq!(engine.handle.pools(), std::slice::from_ref(&added.pool));
    assert!(engine.add(vec![plain("t")]).await[0].is_ok());
    terminate(&mut engine, &job()).await;
    engine = restart(engine, folder.path()).await;
    assert_eq!(pools(&engine).await[0].state, PoolState::Active, "a job that ends may still need it");
    tick(&mut engine).await;
    assert_eq!(row(&engine, &job()).await.unwrap().state, JobState::Completed);
    assert_eq!(pools(&engine).await[0].state, PoolState::Deleting);
    engine = restart(engine, folder.path()).await;
    tick(&mut engine).await;
    assert_eq!(pools(&engine).await, []);
    assert_eq!(row(&engine, &job()).await.unwrap().pool, added.pool, "the job still tells where it ran");
    engine.close().await;
}

#[tokio::test]
async fn every_end_of_a_job_takes_its_pool_along() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    let id = job();
    let all_done = JobChange { terminate_when_complete: Some(true), ..JobChange::default() };
    for (way, commands) in [
        ("delete", vec![Command::DeleteJob(id.clone(), Condition::default())]),
        ("all tasks complete", vec![Command::UpdateJob(id.clone(), Box::new(all_done), Condition::default())]),
        (
            "disable and terminate",
            vec![
                Command::DisableJob(id.clone(), DisableOption::Wait, Condition::default()),
                Command::TerminateJob(id.clone(), None, Condition::default()),
            ],
        ),
        (
            "terminate and delete",
            vec![Command::TerminateJob(id.clone(), None, Condition::default()), Command::DeleteJob(id.clone(), Condition::default())],
        ),
    ] {
        add(&mut engine, own()).await;
        for command in commands {
            engine.call(command).await.unwrap();
        }
        tick(&mut engine).await;
        tick(&mut engine).await;
        assert_eq!(pools(&engine).await, [], "{way}");
        if row(&engine, &id).await.is_some() {
            engine.call(Command::DeleteJob(id.clone(), Condition::default())).await.unwrap();
            tick(&mut engine).await;
        }
    }
    add(&mut engine, NewJob { max_wall_clock: Some(Period::from_ms(1)), ..own() }).await;
    while !pools(&engine).await.is_empty() {
        tick(&mut engine).await;
    }
    let expired = row(&engine, &id).await.unwrap();
    assert_eq!((expired.state, expired.terminate_reason.as_deref()), (JobState::Completed, Some("MaxWallClockTimeExpiry")));
    engine.close().await;
}

#[tokio::test]
async fn a_pool_that_is_kept_alive_stays_and_only_a_disabled_job_changes_its_mind() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    let pool = add(&mut engine, own()).await.pool;
    let change = |keep_alive| {
        Command::UpdateJob(job(), Box::new(JobChange { keep_alive: Some(keep_alive), ..JobChange::default() }), Condition::default())
    };
    engine.call(change(false)).await.unwrap();
    assert_eq!(engine.call(change(true)).await.unwrap_err().code, Code::OperationInvalidForCurrentState);
    disable(&mut engine).await;
    engine.create_pool("other", 1).await;
    let moved = JobChange { pool: Some("other".parse().unwrap()), ..JobChange::default() };
    let refused = engine.call(Command::UpdateJob(job(), Box::new(moved), Condition::default())).await.unwrap_err();
    assert_eq!(refused.code, Code::OperationInvalidForCurrentState);
    engine.call(change(true)).await.unwrap();
    engine = restart(engine, folder.path()).await;
    assert_eq!(row(&engine, &job()).await.unwrap().auto_pool, Some(Tie { lifetime: Lifetime::Job, keep_alive: true }));
    terminate(&mut engine, &job()).await;
    tick(&mut engine).await;
    tick(&mut engine).await;
    let there: Vec<_> = pools(&engine).await.into_iter().map(|pool| (pool.id, pool.state)).collect();
    assert_eq!(there, [(pool.clone(), PoolState::Active), ("other".parse().unwrap(), PoolState::Active)]);
    engine.call(Command::DeletePool(pool, Condition::default())).await.unwrap();
    engine.close().await;
}

#[tokio::test]
async fn a_completed_job_that_is_deleted_touches_no_pool_of_that_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    let pool = add(&mut engine, own()).await.pool;
    engine.call(Command::DeletePool(pool.clone(), Condition::default())).await.unwrap();
    tick(&mut engine).await;
    assert_eq!(pools(&engine).await, [], "its owner may delete it early");
    terminate(&mut engine, &job()).await;
    tick(&mut engine).await;
    assert_eq!(row(&engine, &job()).await.unwrap().state, JobState::Completed);
    engine.create_pool(pool.as_str(), 1).await;
    engine.call(Command::DeleteJob(job(), Condition::default())).await.unwrap();
    tick(&mut engine).await;
    assert!(row(&engine, &job()).await.is_none());
    assert_eq!(pools(&engine).await[0].state, PoolState::Active);
    engine.close().await;
}

#[tokio::test]
async fn the_jobs_of_a_schedule_share_a_pool_that_goes_with_the_schedule() {
    for ends in [Command::TerminateSchedule(schedule(), Condition::default()), Command::DeleteSchedule(schedule(), Condition::default())] {
        let folder = tempfile::tempdir().unwrap();
        let mut engine = TestEngine::open(folder.path());
        start_schedule(&mut engine, auto(Lifetime::JobSchedule, false)).await;
        let first = row(&engine, &numbered(1)).await.unwrap();
        assert_eq!(engine.read.schedule(&schedule()).await.unwrap().unwrap().auto_pool, Some(first.pool.clone()));
        engine = restart(engine, folder.path()).await;
        assert_eq!(next_job(&mut engine, 1).await.pool, first.pool);
        assert_eq!(pools(&engine).await[0].state, PoolState::Active);
        engine.call(ends).await.unwrap();
        engine = restart(engine, folder.path()).await;
        while !pools(&engine).await.is_empty() {
            tick(&mut engine).await;
        }
        let left = engine.read.schedule(&schedule()).await.unwrap();
        assert!(left.is_none_or(|row| (row.state, row.auto_pool) == (ScheduleState::Completed, None)));
        engine.close().await;
    }
}

#[tokio::test]
async fn a_shared_pool_that_somebody_deleted_is_made_anew_for_the_next_job() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    start_schedule(&mut engine, auto(Lifetime::JobSchedule, false)).await;
    let first = row(&engine, &numbered(1)).await.unwrap().pool;
    engine.call(Command::DeletePool(first.clone(), Condition::default())).await.unwrap();
    let second = next_job(&mut engine, 1).await.pool;
    assert_ne!(second, first);
    let there: Vec<PoolId> = pools(&engine).await.into_iter().map(|pool| pool.id).collect();
    assert_eq!(there, [second]);
    engine.close().await;
}

#[tokio::test]
async fn each_job_of_a_schedule_may_have_a_pool_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    start_schedule(&mut engine, auto(Lifetime::Job, false)).await;
    let first = row(&engine, &numbered(1)).await.unwrap().pool;
    let second = next_job(&mut engine, 1).await.pool;
    assert_ne!(second, first);
    tick(&mut engine).await;
    let there: Vec<PoolId> = pools(&engine).await.into_iter().map(|pool| pool.id).collect();
    assert_eq!(there, [second]);
    engine.close().await;
}

#[tokio::test]
async fn a_schedule_whose_jobs_share_no_pool_any_more_leaves_it_to_the_last_job_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    start_schedule(&mut engine, auto(Lifetime::JobSchedule, false)).await;
    let first = row(&engine, &numbered(1)).await.unwrap().pool;
    let change = |auto| {
        let change = ScheduleChange { timetable: None, job: Some(on(auto)), fields: Default::default() };
        Command::ChangeSchedule(schedule(), Box::new(change), Condition::default())
    };
    engine.call(change(auto(Lifetime::JobSchedule, true))).await.unwrap();
    assert_eq!(engine.read.schedule(&schedule()).await.unwrap().unwrap().auto_pool, Some(first.clone()), "it still is shared");
    engine.call(change(auto(Lifetime::JobSchedule, false))).await.unwrap();
    engine.call(change(auto(Lifetime::Job, false))).await.unwrap();
    assert_eq!(pools(&engine).await[0].state, PoolState::Active, "its job still runs");
    engine = restart(engine, folder.path()).await;
    let second = next_job(&mut engine, 1).await.pool;
    tick(&mut engine).await;
    let there: Vec<PoolId> = pools(&engine).await.into_iter().map(|pool| pool.id).collect();
    assert_eq!(there, [second]);
    engine.close().await;
}

#[tokio::test]
async fn a_job_whose_pool_cannot_be_made_is_completed_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    let package = PackageReference { application_id: "nothing".parse().unwrap(), version: None };
    let with = |change: fn(&mut NewPool)| {
        let mut auto = auto(Lifetime::Job, false);
        change(&mut auto.pool);
        auto
    };
    let mut unpacked = auto(Lifetime::Job, false);
    unpacked.pool.packages = vec![package];
    for (auto, code) in [
        (unpacked, "InvalidApplicationPackageReferencesInAutoPool"),
        (with(|pool| pool.scaling = Some(("$Old(".into(), Period::from_secs(300)))), "InvalidAutoScaleFormulaInAutoPool"),
    ] {
        let added = add(&mut engine, on(auto)).await;
        assert_eq!((added.state, added.scheduling_error.unwrap().code.as_str()), (JobState::Terminating, code));
        assert_eq!(engine.call(Command::CreateTasks(job(), vec![plain("t")])).await.unwrap_err().code, Code::JobBeingTerminated);
        engine = restart(engine, folder.path()).await;
        tick(&mut engine).await;
        let ended = row(&engine, &job()).await.unwrap();
        assert_eq!((ended.state, ended.terminate_reason), (JobState::Completed, None));
        assert_eq!(ended.scheduling_error.unwrap().code, code);
        assert_eq!(pools(&engine).await, []);
        engine.call(Command::DeleteJob(job(), Condition::default())).await.unwrap();
        tick(&mut engine).await;
    }
    engine.close().await;
}

#[tokio::test]
async fn a_job_that_is_refused_leaves_no_pool_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    add(&mut engine, own()).await;
    assert_eq!(engine.call(Command::CreateJob(Box::new(own()))).await.unwrap_err().code, Code::JobExists);
    let mut managed = own();
    managed.id = "managed".parse().unwrap();
    let mut task = plain("boss");
    task.spec.application_package_references = vec![PackageReference { application_id: "nothing".parse().unwrap(), version: None }];
    managed.manager = Some(Box::new(model::job::NewManager { task, ends_job: true, is_exclusive: true }));
    assert_eq!(engine.call(Command::CreateJob(Box::new(managed))).await.unwrap_err().code, Code::InvalidApplicationPackageReferences);
    assert_eq!(pools(&engine).await.len(), 1);
    engine.close().await;
}
