//! What API handlers ask of the engine. Everything is validated for its form before it gets here;
//! the engine decides whether the present state allows it.

use contract::{
    ids::{ApplicationId, JobId, NodeId, PackageVersion, PoolId, ScheduleId, TaskId, TaskUid},
    period::Period,
    spec::{QueuePolicy, TaskConstraints},
    state::DeallocationOption,
    time::Timestamp,
};
use model::{
    application::{ApplicationChange, Upload},
    auto_scale::ScaleRun,
    condition::Condition,
    job::{DisableOption, JobChange, NewJob},
    node::NodeActionKind,
    pool::{NewPool, PoolChange},
    refusal::Refusal,
    schedule::{NewSchedule, ScheduleChange},
    task::{NewTask, StreamName},
};
use scaling::formula::Formula;

impl Command {
    /// Whether it adds rows; the others change or remove some, which a full disk has still room for.
    pub fn adds(&self) -> bool {
        use Command::*;
        matches!(
            self,
            CreatePool(_)
                | CreateJob(_)
                | CreateTasks(..)
                | CreateSchedule(_)
                | PutApplication(..)
                | BeginPackage(..)
                | ActivatePackage(..)
        )
    }
}

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
        /// The limit of the resize that this is.
        timeout: Option<Period>,
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
    ActOnNode {
        /// The pool.
        pool: PoolId,
        /// The node.
        node: NodeId,
        /// What it shall do.
        kind: NodeActionKind,
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
    /// Let the end of a job wait no longer for what its nodes still do.
    ForceJob(JobId),
    /// The same for the jobs of a job schedule.
    ForceSchedule(ScheduleId),
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
    /// Keep the streams of these ended tasks no longer, each if it has this version still.
    ExpireStreams(Vec<(TaskUid, u64)>),
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
