//! What doors ask of the engine. Everything is validated for its form before it gets here;
//! the engine decides whether the present state allows it.

use broker_config::{
    ids::{ApplicationId, JobId, NodeId, PackageVersion, PoolId, ScheduleId, TaskId},
    message::Fault,
    period::Period,
    spec::{EnvironmentSetting, FillType, PackageReference, QueuePolicy, StartTask, TaskConstraints, TaskSpec},
    state::DeallocationOption,
    time::Timestamp,
};

use serde_json::{Map, Value};

use crate::{
    auto_pool::JobPool,
    core::JobOrder,
    formula::Formula,
    refusal::{Code, Refusal},
    store::{chores::JobChores, scaling::ScaleRun, schedules::Timetable},
};

/// A change that people ask for.
#[derive(Debug, Clone)]
pub enum Command {
    /// Add a pool.
    CreatePool(Box<NewPool>),
    /// Remove a pool and its nodes.
    DeletePool(PoolId, Condition),
    /// Change how many nodes a pool has.
    ResizePool {
        /// The pool.
        pool: PoolId,
        /// Dedicated nodes wanted; unchanged when absent.
        dedicated: Option<u32>,
        /// Low-priority nodes wanted; unchanged when absent.
        low_priority: Option<u32>,
        /// After this long the resize ends with an error.
        timeout: Option<Period>,
        /// What becomes of running tasks.
        option: DeallocationOption,
        /// The request's condition.
        condition: Condition,
    },
    /// End a resize where it is.
    StopResize(PoolId, Condition),
    /// Change a pool's properties.
    UpdatePool(PoolId, Box<PoolChange>, Condition),
    /// Let a formula decide how many nodes a pool has, or change the one that does.
    EnableScaling {
        /// The pool.
        pool: PoolId,
        /// The formula, already read once; the present one when absent.
        formula: Option<String>,
        /// Between evaluations; the present one, or the default, when absent.
        interval: Option<Period>,
        /// The request's condition.
        condition: Condition,
    },
    /// Keep the size a pool has.
    DisableScaling(PoolId),
    /// What a formula would decide now.
    EvaluateScaling(PoolId, Box<Formula>),
    /// Set or remove the built-in policy.
    SetPolicy(PoolId, Option<QueuePolicy>),
    /// Forget a node that is gone for good, or remove these nodes.
    RemoveNodes {
        /// The pool.
        pool: PoolId,
        /// The nodes.
        nodes: Vec<NodeId>,
        /// What becomes of running tasks.
        option: DeallocationOption,
        /// The request's condition.
        condition: Condition,
    },
    /// Switch scheduling on a node.
    SwitchScheduling {
        /// The pool.
        pool: PoolId,
        /// The node.
        node: NodeId,
        /// On or off.
        enabled: bool,
        /// What becomes of running tasks when it is switched off.
        option: DeallocationOption,
    },
    /// Let a node start again, or rest.
    TurnNode {
        /// The pool.
        pool: PoolId,
        /// The node.
        node: NodeId,
        /// What it shall do.
        kind: TurnKind,
        /// What becomes of running tasks.
        option: DeallocationOption,
    },
    /// Write what the nodes of pools did last: somebody looks.
    WriteNodes(Vec<PoolId>),
    /// Add a job.
    CreateJob(Box<NewJob>),
    /// Run nothing of a job until it is enabled.
    DisableJob(JobId, DisableOption, Condition),
    /// Run a job's tasks again.
    EnableJob(JobId, Condition),
    /// End a job.
    TerminateJob(JobId, Option<String>, Condition),
    /// Remove a job with its tasks.
    DeleteJob(JobId, Condition),
    /// Change parts of a job.
    UpdateJob(JobId, Box<JobChange>, Condition),
    /// Add a job schedule.
    CreateSchedule(Box<NewSchedule>),
    /// Change parts of a job schedule; later jobs follow.
    ChangeSchedule(ScheduleId, Box<ScheduleChange>, Condition),
    /// Make jobs again, or none until then.
    SwitchSchedule(ScheduleId, bool, Condition),
    /// End a job schedule and its job.
    TerminateSchedule(ScheduleId, Condition),
    /// Remove a job schedule with its jobs.
    DeleteSchedule(ScheduleId, Condition),
    /// Add an application, or change it.
    PutApplication(ApplicationId, Box<ApplicationChange>, Condition),
    /// Remove an application with its packages.
    DeleteApplication(ApplicationId, Condition),
    /// Note that the upload of a version begins, under this key.
    BeginPackage(ApplicationId, PackageVersion, String),
    /// Let nodes get an upload.
    ActivatePackage(ApplicationId, PackageVersion, Upload),
    /// Remove a version.
    DeletePackage(ApplicationId, PackageVersion),
    /// Add tasks: one result each, in order.
    CreateTasks(JobId, Vec<NewTask>),
    /// Replace a task's constraints.
    UpdateTask(JobId, TaskId, TaskConstraints, Condition),
    /// Run a failed task again.
    ReactivateTask(JobId, TaskId, Condition),
    /// End a task.
    TerminateTask(JobId, TaskId, Condition),
    /// Remove a task.
    DeleteTask(JobId, TaskId, Condition),
    /// Keep a stream of an ended task no longer.
    ForgetStream(JobId, TaskId, StreamName),
}

/// Which of a task's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamName {
    /// `stdout.txt`.
    Stdout,
    /// `stderr.txt`.
    Stderr,
}

/// What a node can be asked beside running tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnKind {
    /// End and start again.
    Reboot,
    /// The same with empty folders.
    Reimage,
    /// Be stopped and kept.
    Deallocate,
    /// Be started after that.
    Start,
}

/// What a command did.
#[derive(Debug, Clone)]
pub enum Done {
    /// It holds, durably; the new version of the thing and when it changed.
    Changed {
        /// For the ETag.
        version: u64,
        /// For Last-Modified.
        at: Timestamp,
    },
    /// What a formula decided.
    Scaled(ScaleRun),
    /// One result for each task.
    Tasks(Vec<Result<(u64, Timestamp), Refusal>>),
}

/// A pool as asked for.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct NewPool {
    /// Its name.
    pub id: PoolId,
    /// The accepted Azure fields as JSON, without those that have a column.
    pub document: String,
    /// Slots of a node.
    pub slots_per_node: u32,
    /// Spread or pack.
    pub fill: FillType,
    /// How its jobs of one priority take turns.
    pub job_order: JobOrder,
    /// Dedicated nodes wanted.
    pub target_dedicated: u32,
    /// Low-priority nodes wanted.
    pub target_low_priority: u32,
    /// After this long the first resize ends with an error.
    pub resize_timeout: Period,
    /// What nodes run when they join.
    pub start_task: Option<StartTask>,
    /// What nodes unpack before.
    pub packages: Vec<PackageReference>,
    /// The built-in policy.
    pub policy: Option<QueuePolicy>,
    /// The formula its size follows, and the time between evaluations.
    pub scaling: Option<(String, Period)>,
}

/// Properties of a pool to change; absent ones stay.
#[derive(Debug, Clone, Default)]
pub struct PoolChange {
    /// Fields of the document; null and empty lists remove theirs.
    pub fields: Map<String, Value>,
    /// What nodes run when they join or start again from now on.
    pub start_task: Option<Option<StartTask>>,
    /// Packages that nodes unpack when they join or start again from now on.
    pub packages: Option<Vec<PackageReference>>,
    /// Slots of a node.
    pub slots_per_node: Option<u32>,
    /// How nodes are filled and jobs take turns.
    pub scheduling: Option<(FillType, JobOrder)>,
    /// A property that only a pool without nodes may change.
    pub needs_no_nodes: Option<&'static str>,
}

/// What to change of an application; absent parts stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationChange {
    /// Whether it is added when there is none.
    pub may_create: bool,
    /// What people call it.
    pub display_name: Option<Option<String>>,
    /// Whether a version that is there may be uploaded again.
    pub allow_updates: Option<bool>,
    /// What references without a version mean.
    pub default_version: Option<Option<PackageVersion>>,
}

/// An upload that was seen in the blob store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Its key.
    pub key: String,
    /// Its length.
    pub bytes: u64,
    /// Whether references without a version mean it from now on.
    pub becomes_default: bool,
}

/// A job as asked for.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct NewJob {
    /// Its name.
    pub id: JobId,
    /// The accepted Azure fields as JSON, without those that have a column.
    pub document: String,
    /// Where it runs.
    pub pool: JobPool,
    /// -1000 to 1000, larger first.
    pub priority: i32,
    /// Tasks that may run at once; -1 is no limit.
    pub max_parallel: i32,
    /// Given to every task that has no value of its own.
    pub environment: Vec<EnvironmentSetting>,
    /// For tasks that do not say; -1 is no limit.
    pub max_task_retry_count: i32,
    /// For the whole job.
    pub max_wall_clock: Option<Period>,
    /// Whether the job ends with its last task.
    pub terminate_when_complete: bool,
    /// Whether exit conditions may act upon the job.
    pub performs_exit_options: bool,
    /// Whether tasks may depend on each other.
    pub uses_dependencies: bool,
    /// The task that comes with the job.
    pub manager: Option<Box<NewManager>>,
    /// What it runs on a node before its first task there and after its last.
    #[serde(default)]
    pub chores: Option<Box<JobChores>>,
}

impl NewJob {
    /// Whether its manager runs on a node with nothing else.
    pub fn takes_a_node(&self) -> bool {
        self.manager.as_ref().is_some_and(|manager| manager.is_exclusive)
    }
}

/// A job schedule as asked for.
#[derive(Debug, Clone)]
pub struct NewSchedule {
    /// Its name.
    pub id: ScheduleId,
    /// When jobs are due.
    pub timetable: Timetable,
    /// What they are made from; the name is replaced.
    pub job: NewJob,
    /// Azure's fields as JSON.
    pub document: String,
}

/// Parts of a job schedule to change; absent ones stay.
#[derive(Debug, Clone)]
pub struct ScheduleChange {
    /// When jobs are due.
    pub timetable: Option<Timetable>,
    /// What later jobs are made from.
    pub job: Option<NewJob>,
    /// The document with the changes.
    pub document: String,
}

/// A job's manager task.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct NewManager {
    /// The task.
    pub task: NewTask,
    /// Whether its end ends the job.
    pub ends_job: bool,
    /// Whether nothing else runs on its node.
    pub is_exclusive: bool,
}

/// What becomes of a job's running tasks when it is disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisableOption {
    /// Ended and queued again.
    Requeue,
    /// Ended and completed.
    Terminate,
    /// They run to their end.
    Wait,
}

/// Parts of a job to change; absent ones stay.
#[derive(Debug, Clone, Default)]
pub struct JobChange {
    /// Larger first.
    pub priority: Option<i32>,
    /// -1 is no limit.
    pub max_parallel: Option<i32>,
    /// Whether the job ends with its last task.
    pub terminate_when_complete: Option<bool>,
    /// For tasks that do not say.
    pub max_task_retry_count: Option<i32>,
    /// For the whole job.
    pub max_wall_clock: Option<Option<Period>>,
    /// Another pool; only of a disabled job.
    pub pool: Option<PoolId>,
    /// Whether the pool that was made for it stays; only of a disabled job.
    pub keep_alive: Option<bool>,
    /// The new document, when it changed.
    pub document: Option<String>,
}

/// A task as asked for.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct NewTask {
    /// Its name.
    pub id: TaskId,
    /// The accepted Azure fields as JSON, as GET shows them.
    pub document: String,
    /// The same for the node, the job's environment not merged in yet.
    pub spec: TaskSpec,
    /// Tasks that must end well first; numbers of ranges are written as plain decimals.
    pub depends_on: Vec<String>,
    /// What follows from its end.
    pub exit_conditions: Option<ExitConditions>,
}

/// What follows from a task's end, as Azure defines it.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExitConditions {
    /// Single codes.
    pub exit_codes: Vec<ExitCode>,
    /// Ranges, both ends included.
    pub exit_code_ranges: Vec<ExitCodeRange>,
    /// The command never ran.
    pub pre_processing_error: Option<ExitOptions>,
    /// Outputs could not be uploaded.
    pub file_upload_error: Option<ExitOptions>,
    /// Everything else that is not zero.
    #[serde(rename = "default")]
    pub otherwise: Option<ExitOptions>,
}

impl ExitConditions {
    /// Whether any end is asked to do something to the job.
    pub fn acts_on_job(&self) -> bool {
        let codes = self.exit_codes.iter().map(|mapping| mapping.exit_options);
        let ranges = self.exit_code_ranges.iter().map(|mapping| mapping.exit_options);
        let others = [self.pre_processing_error, self.file_upload_error, self.otherwise].into_iter().flatten();
        codes.chain(ranges).chain(others).any(|options| options.job_action.is_some_and(|action| action != JobAction::None))
    }
}

/// One code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExitCode {
    /// The code.
    pub code: i32,
    /// What follows.
    pub exit_options: ExitOptions,
}

/// A range of codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExitCodeRange {
    /// First.
    pub start: i32,
    /// Last.
    pub end: i32,
    /// What follows.
    pub exit_options: ExitOptions,
}

/// What follows from an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExitOptions {
    /// For the job.
    pub job_action: Option<JobAction>,
    /// For those that depend on the task.
    pub dependency_action: Option<DependencyAction>,
}

/// What an end does to the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobAction {
    /// Nothing.
    None,
    /// Disable it, requeueing its tasks.
    Disable,
    /// Terminate it.
    Terminate,
}

/// What an end does to dependants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DependencyAction {
    /// They may run.
    Satisfy,
    /// They wait.
    Block,
}

/// A request's conditional headers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Condition {
    /// `If-Match`: an ETag, or `*`.
    pub if_match: Option<String>,
    /// `If-None-Match`.
    pub if_none_match: Option<String>,
    /// `If-Modified-Since`.
    pub if_modified_since: Option<Timestamp>,
    /// `If-Unmodified-Since`.
    pub if_unmodified_since: Option<Timestamp>,
}

/// A version as an ETag, the way it is shown and compared.
pub fn etag(version: u64) -> String {
    format!("0x{version:X}")
}

impl Condition {
    /// Whether the thing with this version and last change meets the condition.
    pub fn is_met(&self, version: u64, modified_at: Timestamp) -> bool {
        let same = |given: &str| given == "*" || given.trim_matches('"') == etag(version);
        let seconds = |time: Timestamp| time.0.div_euclid(1000);
        self.if_match.as_deref().is_none_or(same)
            && !self.if_none_match.as_deref().is_some_and(same)
            && self.if_modified_since.is_none_or(|since| seconds(modified_at) > seconds(since))
            && self.if_unmodified_since.is_none_or(|since| seconds(modified_at) <= seconds(since))
    }

    /// Refuses a write whose condition is not met.
    pub fn check(&self, version: u64, modified_at: Timestamp) -> Result<(), Refusal> {
        if self.is_met(version, modified_at) {
            return Ok(());
        }
        Err(Refusal::new(Code::ConditionNotMet, "The condition specified in the request headers was not met.")
            .with("ETag", etag(version))
            .hint("Read the resource again and repeat the change with its present ETag."))
    }
}

/// Why a task failed, as people see it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    /// Whose fault it is.
    pub is_user_error: bool,
    /// Code, message and details.
    #[serde(flatten)]
    pub fault: Fault,
}
