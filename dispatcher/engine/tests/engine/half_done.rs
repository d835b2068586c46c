//! Refused commands leave nothing behind; a command that is refused after a change ends its whole transaction.

use std::collections::BTreeSet;

use contract::{
    ids::{ApplicationId, PackageVersion, ScheduleId, TaskUid},
    period::Period,
    spec::{PackageReference, QueuePolicy, TaskConstraints},
    state::{DeallocationOption, PoolState},
};
use model::{
    application::{ApplicationChange, Upload},
    auto_pool::{AutoPool, JobPool, Lifetime, Tie},
    document::Properties,
    function::FunctionChange,
    job::{DisableOption, JobChange, NewManager},
    job_tasks::{JobTasks, PreparationTask},
    node::NodeActionKind,
    pool::PoolChange,
    refusal::Refusal,
    schedule::{NewSchedule, ScheduleChange, Timetable},
    submission::{MessageKey, NewSubmission, Target},
    task::StreamName,
    trigger::{NewTrigger, TriggerChange},
};
use scaling::formula::Formula;

use super::*;
use crate::{
    damage::vandalise,
    faulty::{Faults, FaultyStore, Point},
};

fn engine(folder: &Path) -> (TestEngine, Faults) {
    let path = folder.join("store.sqlite");
    let faults = Faults::default();
    let store = FaultyStore { inner: SqliteStore::open(&path).unwrap(), faults: faults.clone() };
    (TestEngine::on(Box::new(store), &path, Clock::system()), faults)
}

/// Commands that nothing refuses have no number; a new command gets one of the two here, and a refusal below.
fn number(command: &Command) -> Option<u32> {
    use Command::*;
    Some(match command {
        ForceJob(_) | ForceSchedule(_) | ExpireStreams(_) => return None,
        CreatePool(_) => 0,
        DeletePool(..) => 1,
        ResizePool { .. } => 2,
        StopResize(..) => 3,
        UpdatePool(..) => 4,
        EnableScaling { .. } => 5,
        DisableScaling(_) => 6,
        EvaluateScaling(..) => 7,
        SetPolicy(..) => 8,
        RemoveNodes { .. } => 9,
        SwitchScheduling { .. } => 10,
        ActOnNode { .. } => 11,
        CreateJob(_) => 12,
        DisableJob(..) => 13,
        EnableJob(..) => 14,
        TerminateJob(..) => 15,
        DeleteJob(..) => 16,
        UpdateJob(..) => 17,
        CreateSchedule(_) => 18,
        ChangeSchedule(..) => 19,
        SwitchSchedule(..) => 20,
        TerminateSchedule(..) => 21,
        DeleteSchedule(..) => 22,
        PutApplication(..) => 23,
        DeleteApplication(..) => 24,
        BeginPackage(..) => 25,
        ActivatePackage(..) => 26,
        DeletePackage(..) => 27,
        CreateTasks(..) => 28,
        UpdateTask(..) => 29,
        ReactivateTask(..) => 30,
        TerminateTask(..) => 31,
        DeleteTask(..) => 32,
        ForgetStream(..) => 33,
        Submit(_) => 34,
        CreateFunction(..) => 35,
        ChangeFunction(..) => 36,
        DeleteFunction(..) => 37,
        CreateTrigger(_) => 38,
        ChangeTrigger(..) => 39,
        DeleteTrigger(..) => 40,
        AdvanceTrigger(..) => 41,
    })
}

fn function() -> contract::ids::FunctionId {
    "none".parse().unwrap()
}

fn none_such() -> contract::ids::TriggerId {
    "none".parse().unwrap()
}

/// A trigger that starts a function which its pool does not have.
fn trigger(id: &str, pool: &str) -> NewTrigger {
    let spec = serde_json::json!({
        "exchange": {"name": "x", "pattern": "#"}, "function": {"poolId": pool, "id": "none"}, "batchSize": 1, "batchTime": "PT1S",
    });
    NewTrigger { id: id.parse().unwrap(), spec: serde_json::from_value(spec).unwrap() }
}

/// A condition that nothing meets.
fn unmet() -> Condition {
    Condition { if_match: Some("0x0".into()), ..Condition::default() }
}

fn any() -> Condition {
    Condition::default()
}

fn no_package() -> Vec<PackageReference> {
    vec![PackageReference { application_id: "none".parse().unwrap(), version: None }]
}

fn named(id: &str) -> NewJob {
    NewJob { id: id.parse().unwrap(), ..TestEngine::new_job(false, vec![]) }
}

fn managed(id: &str, task: NewTask, is_exclusive: bool) -> NewJob {
    NewJob { manager: Some(Box::new(NewManager { task, ends_job: true, is_exclusive })), ..named(id) }
}

fn prepared(job: NewJob) -> NewJob {
    let preparation = PreparationTask { id: "prepare".parse().unwrap(), spec: TaskSpec::default(), waits: true, reruns: false };
    NewJob { job_tasks: Some(Box::new(JobTasks { preparation, release: None })), ..job }
}

fn on_auto_pool(job: NewJob) -> NewJob {
    let tie = Tie { lifetime: Lifetime::Job, keep_alive: false };
    let auto = AutoPool { prefix: None, tie, pool: TestEngine::new_pool("template", 1) };
    NewJob { pool: JobPool::Auto(Box::new(auto)), ..job }
}

fn nowhere(job: NewJob) -> NewJob {
    NewJob { pool: "nowhere".parse::<PoolId>().unwrap().into(), ..job }
}

fn packed() -> NewTask {
    task("boss", TaskSpec { application_package_references: no_package(), ..TaskSpec::default() }, &[])
}

fn with_interval(id: &str, job: NewJob) -> NewSchedule {
    let timetable = Timetable { interval: Some(Period::from_secs(86_400)), ..Timetable::default() };
    NewSchedule { id: id.parse().unwrap(), timetable, job, document: "{}".into() }
}

fn submit(pool: &str, job: Target, tasks: Vec<NewTask>) -> Command {
    let pool = pool.parse().unwrap();
    Command::Submit(Box::new(NewSubmission { pool, job, tasks, is_list: true, key: None, reply: None }))
}

fn standing(pool: &str) -> Target {
    Target::Standing(Box::new(NewJob { pool: pool.parse::<PoolId>().unwrap().into(), ..named("standing") }))
}

/// A message that was submitted before with the digest of ones.
fn submit_as(digest: [u8; 16]) -> Command {
    let key = Some(MessageKey { id: "known".into(), digest });
    let (pool, job, tasks) = (pool(), Target::Named(job()), vec![plain("known")]);
    Command::Submit(Box::new(NewSubmission { pool, job, tasks, is_list: false, key, reply: None }))
}

/// Refusals of every command, with their codes.
fn refused() -> Vec<(Command, Code)> {
    use Code::*;
    use Command::*;
    let (going, scaled, resizing, disabled): (PoolId, PoolId, PoolId, JobId) =
        ("going".parse().unwrap(), "scaled".parse().unwrap(), "other".parse().unwrap(), "disabled".parse().unwrap());
    let (none, app): (ApplicationId, ApplicationId) = ("none".parse().unwrap(), "app".parse().unwrap());
    let version = || "1".parse::<PackageVersion>().unwrap();
    let (no_job, no_task, ended, waiting): (JobId, TaskId, TaskId, TaskId) =
        ("none".parse().unwrap(), "none".parse().unwrap(), "ended".parse().unwrap(), "waiting".parse().unwrap());
    let (schedule, no_schedule): (ScheduleId, ScheduleId) = ("schedule".parse().unwrap(), "none".parse().unwrap());
    let option = DeallocationOption::Requeue;
    let resize = |pool, condition| ResizePool { pool, dedicated: Some(3), low_priority: None, timeout: None, option, condition };
    let scale =
        |pool, formula: Option<&str>, condition| EnableScaling { pool, formula: formula.map(str::to_owned), interval: None, condition };
    let remove = |pool, node: &str, condition| RemoveNodes { pool, nodes: vec![node.parse().unwrap()], option, timeout: None, condition };
    let other = |keep_alive| JobChange { pool: Some("other".parse().unwrap()), keep_alive, ..JobChange::default() };
    let change = |job| Box::new(ScheduleChange { timetable: None, job, fields: Properties::default() });
    let put = |may_create| {
        let default_version = Some(Some("9".parse().unwrap()));
        Box::new(ApplicationChange { may_create, display_name: None, allow_updates: None, default_version })
    };
    let upload = || Upload { key: "another".into(), bytes: 1, becomes_default: true };
    vec![
        (CreatePool(Box::new(TestEngine::new_pool("pool", 1))), PoolExists),
        (CreatePool(Box::new(NewPool { packages: no_package(), ..TestEngine::new_pool("new", 1) })), InvalidApplicationPackageReferences),
        (DeletePool(going.clone(), any()), PoolBeingDeleted),
        (DeletePool(pool(), unmet()), ConditionNotMet),
        (resize(resizing.clone(), any()), PoolBeingResized),
        (resize(scaled.clone(), any()), OperationInvalidForCurrentState),
        (StopResize(going.clone(), any()), PoolBeingDeleted),
        (StopResize(pool(), unmet()), ConditionNotMet),
        (
            UpdatePool(pool(), Box::new(PoolChange { packages: Some(no_package()), ..PoolChange::default() }), any()),
            InvalidApplicationPackageReferences,
        ),
        (
            UpdatePool(pool(), Box::new(PoolChange { needs_no_nodes: Some("x"), slots_per_node: Some(9), ..PoolChange::default() }), any()),
            OperationInvalidForCurrentState,
        ),
        (scale(resizing.clone(), Some("$TargetDedicatedNodes = 1;"), any()), PoolBeingResized),
        (scale(scaled.clone(), None, any()), MissingRequiredProperty),
        (DisableScaling(pool()), OperationInvalidForCurrentState),
        (EvaluateScaling(pool(), Box::new(Formula::parse("$TargetDedicatedNodes = 1;").unwrap())), OperationInvalidForCurrentState),
        (SetPolicy(scaled, Some(QueuePolicy::default())), OperationInvalidForCurrentState),
        (remove(resizing, "node-0001", any()), PoolBeingResized),
        (SwitchScheduling { pool: pool(), node: node(), enabled: true, option }, NodeAlreadyInTargetSchedulingState),
        (ActOnNode { pool: pool(), node: node(), kind: NodeActionKind::Start, option }, OperationInvalidForCurrentState),
        (CreateJob(Box::new(TestEngine::new_job(false, vec![]))), JobExists),
        (CreateJob(Box::new(named("schedule"))), JobScheduleWithSameIdExists),
        (CreateJob(Box::new(nowhere(managed("new", plain("boss"), true)))), PoolNotFound),
        (CreateJob(Box::new(NewJob { pool: going.clone().into(), ..named("new") })), PoolBeingDeleted),
        (CreateJob(Box::new(on_auto_pool(managed("new", packed(), true)))), InvalidApplicationPackageReferences),
        (CreateJob(Box::new(on_auto_pool(prepared(managed("new", plain("prepare"), false))))), TaskIdSameAsJobPreparationTask),
        (DisableJob(no_job.clone(), DisableOption::Requeue, any()), JobNotFound),
        (DisableJob(job(), DisableOption::Requeue, unmet()), ConditionNotMet),
        (EnableJob(job(), any()), OperationInvalidForCurrentState),
        (TerminateJob(job(), None, unmet()), ConditionNotMet),
        (DeleteJob(no_job.clone(), any()), JobNotFound),
        (DeleteJob("completed".parse().unwrap(), unmet()), ConditionNotMet),
        (DeleteJob("unreadable".parse().unwrap(), unmet()), ConditionNotMet),
        (UpdateJob(job(), Box::new(other(None)), any()), OperationInvalidForCurrentState),
        (UpdateJob(disabled, Box::new(other(Some(true))), any()), OperationInvalidForCurrentState),
        (CreateSchedule(Box::new(with_interval("schedule", named("x")))), JobScheduleExists),
        (CreateSchedule(Box::new(with_interval("new", nowhere(managed("x", plain("boss"), true))))), PoolNotFound),
        (CreateSchedule(Box::new(with_interval("new", prepared(managed("x", plain("prepare"), false))))), TaskIdSameAsJobPreparationTask),
        (ChangeSchedule(schedule.clone(), change(Some(nowhere(managed("x", plain("boss"), true)))), any()), PoolNotFound),
        (ChangeSchedule(schedule.clone(), change(None), unmet()), ConditionNotMet),
        (SwitchSchedule(schedule.clone(), false, unmet()), ConditionNotMet),
        (TerminateSchedule(schedule.clone(), unmet()), ConditionNotMet),
        (DeleteSchedule(no_schedule, any()), JobScheduleNotFound),
        (DeleteSchedule(schedule, unmet()), ConditionNotMet),
        (PutApplication("new".parse().unwrap(), put(true), any()), InvalidPropertyValue),
        (PutApplication(none.clone(), put(false), any()), ApplicationNotFound),
        (DeleteApplication(app.clone(), unmet()), ConditionNotMet),
        (BeginPackage(none, version(), "key".into()), ApplicationNotFound),
        (ActivatePackage(app.clone(), version(), upload()), OperationInvalidForCurrentState),
        (DeletePackage(app, "9".parse().unwrap()), ResourceNotFound),
        (CreateFunction(pool(), function(), serde_json::Map::new()), InvalidInput),
        (ChangeFunction(pool(), function(), FunctionChange::Activate(1), any()), FunctionNotFound),
        (DeleteFunction(pool(), function(), any()), FunctionNotFound),
        (CreateTrigger(Box::new(trigger("none", "pool"))), FunctionNotFound),
        (CreateTrigger(Box::new(trigger("none", "nowhere"))), PoolNotFound),
        (ChangeTrigger(none_such(), Box::new(TriggerChange::Run), any()), TriggerNotFound),
        (DeleteTrigger(none_such(), any()), TriggerNotFound),
        (AdvanceTrigger(none_such(), 1, Box::default()), TriggerNotFound),
        (CreateTasks(no_job, vec![plain("new")]), JobNotFound),
        (submit("nowhere", Target::Named(job()), vec![plain("new")]), PoolNotFound),
        (submit("going", standing("going"), vec![plain("new")]), PoolBeingDeleted),
        (submit("pool", Target::Named("none".parse().unwrap()), vec![plain("new")]), JobNotFound),
        (submit("other", Target::Named(job()), vec![plain("new")]), InvalidPropertyValue),
        (submit("pool", standing("pool"), vec![plain("new"), plain("NEW")]), TaskExists),
        (submit("pool", standing("pool"), vec![plain("new"), packed()]), InvalidApplicationPackageReferences),
        (
            submit("pool", standing("pool"), vec![plain("new"), task("after", TaskSpec::default(), &["new"])]),
            TaskDependenciesNotSpecifiedOnJob,
        ),
        (submit("pool", Target::Named(job()), vec![plain("new"), plain("waiting")]), TaskExists),
        (submit("pool", Target::Named("completed".parse().unwrap()), vec![plain("new")]), JobCompleted),
        (submit_as([2; 16]), OperationInvalidForCurrentState),
        (UpdateTask(job(), ended.clone(), TaskConstraints::default(), any()), TaskCompleted),
        (UpdateTask(job(), waiting.clone(), TaskConstraints::default(), unmet()), ConditionNotMet),
        (ReactivateTask(job(), ended.clone(), any()), TaskSucceeded),
        (ReactivateTask(job(), waiting.clone(), any()), TaskNotCompleted),
        (TerminateTask(job(), ended.clone(), any()), TaskCompleted),
        (TerminateTask(job(), waiting.clone(), unmet()), ConditionNotMet),
        (DeleteTask(job(), ended, unmet()), ConditionNotMet),
        (DeleteTask(job(), waiting, unmet()), ConditionNotMet),
        (ForgetStream(job(), no_task, StreamName::Stdout), TaskNotFound),
    ]
}

async fn must(engine: &mut TestEngine, command: Command) {
    engine.call(command).await.unwrap();
}

async fn tick(engine: &mut TestEngine) {
    engine.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
}

/// Everything that the refusals need: pools, jobs, tasks, a schedule and an application in many states.
async fn furnish(engine: &mut TestEngine, folder: &Path) {
    engine.create(1, false, vec![]).await;
    let epoch = engine.join().await;
    engine.add(vec![plain("ended")]).await;
    let message = engine.published.pop().unwrap();
    engine.events(epoch, vec![started(&message, 1), finished(&message, 1, Outcome::Exit { code: 0 })]).await;
    engine.add(vec![plain("out"), plain("ahead"), plain("waiting")]).await;
    for name in ["going", "other"] {
        engine.create_pool(name, 2).await;
    }
    let scaling = Some(("$TargetDedicatedNodes = 1;".to_owned(), Period::from_secs(900)));
    must(engine, Command::CreatePool(Box::new(NewPool { scaling, ..TestEngine::new_pool("scaled", 1) }))).await;
    let node = engine.request(RequestKind::CreateNodes { pool: "going".parse().unwrap(), count: 1 }).await;
    assert!(matches!(node, Reply::Nodes { .. }), "a node keeps the pool from being gone at once: {node:?}");
    must(engine, Command::DeletePool("going".parse().unwrap(), any())).await;
    for id in ["disabled", "completed", "unreadable"] {
        must(engine, Command::CreateJob(Box::new(named(id)))).await;
    }
    must(engine, Command::DisableJob("disabled".parse().unwrap(), DisableOption::Requeue, any())).await;
    for id in ["completed", "unreadable"] {
        must(engine, Command::TerminateJob(id.parse().unwrap(), None, any())).await;
    }
    must(engine, Command::CreateSchedule(Box::new(with_interval("schedule", named("x"))))).await;
    let change = ApplicationChange { may_create: true, display_name: None, allow_updates: None, default_version: None };
    must(engine, Command::PutApplication("app".parse().unwrap(), Box::new(change), any())).await;
    must(engine, Command::BeginPackage("app".parse().unwrap(), "1".parse().unwrap(), "key".into())).await;
    must(engine, submit_as([1; 16])).await;
    tick(engine).await;
    vandalise(folder, "UPDATE jobs SET priority = 'x' WHERE id = 'unreadable'");
    assert_eq!(engine.read.pool(&"going".parse().unwrap()).await.unwrap().unwrap().state, PoolState::Deleting);
}

#[tokio::test]
async fn a_refused_command_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut engine, faults) = engine(folder.path());
    furnish(&mut engine, folder.path()).await;
    let boot = boot(&mut engine).await;
    let mut seen = BTreeSet::new();
    for (command, code) in refused() {
        let (written, what) = (faults.written(), format!("{command:?}"));
        seen.extend(number(&command));
        let refusal = engine.call(command).await.expect_err(&what);
        assert_eq!(refusal.code, code, "{what}: {refusal}");
        assert_eq!(faults.written(), written, "{what} wrote something though it was refused");
    }
    assert_eq!(seen, (0..42).collect(), "every command that may be refused is refused at least once");
    assert_eq!(self::boot(&mut engine).await, boot, "no transaction was undone");
    engine.close().await;
}

/// The number of times that everything was loaded from the store.
async fn boot(engine: &mut TestEngine) -> u64 {
    match engine.request(RequestKind::Snapshot).await {
        Reply::Snapshot { boot, .. } => boot,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_refusal_after_a_change_is_answered_and_its_transaction_is_undone() {
    let folder = tempfile::tempdir().unwrap();
    let (mut engine, faults) = engine(folder.path());
    engine.create(1, false, vec![]).await;
    let before = boot(&mut engine).await;
    // The store claims that rows were changed whenever it is asked.
    faults.set(&[(Point::Miscount, 1)]);
    let refusal: Refusal = engine.call(Command::TerminateJob(job(), None, unmet())).await.unwrap_err();
    assert_eq!(refusal.code, Code::ConditionNotMet, "not a store that is busy: {refusal}");
    faults.set(&[]);
    assert_eq!(boot(&mut engine).await, before + 1, "memory was loaded anew");
    assert!(engine.add(vec![plain("t")]).await[0].is_ok());
    let streams = vec![(TaskUid(1), 1)];
    engine.call(Command::ExpireStreams(streams)).await.unwrap();
    assert_eq!(engine.handle.refusal(), None);
    engine.close().await;
}
