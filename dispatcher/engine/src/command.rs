//! Commands: the changes that API handlers request from the engine. Handlers have validated their form; the engine
//! decides whether the present state allows them.

use contract::{
    ids::{ApplicationId, FunctionId, JobId, NodeId, PackageVersion, PoolId, ScheduleId, TaskId, TaskUid, TriggerId},
    period::Period,
    spec::{QueuePolicy, TaskConstraints},
    state::DeallocationOption,
    time::Timestamp,
};
use model::{
    application::{ApplicationChange, Upload},
    auto_scale::ScaleRun,
    condition::Condition,
    function::FunctionChange,
    job::{DisableOption, JobChange, NewJob},
    node::NodeActionKind,
    pool::{NewPool, PoolChange},
    refusal::Refusal,
    schedule::{NewSchedule, ScheduleChange},
    submission::NewSubmission,
    task::{NewTask, StreamName},
    trigger::{Advance, NewTrigger, TriggerChange},
};
use scaling::formula::Formula;
use serde_json::{Map, Value};

impl Command {
    /// Whether the command adds rows, and so is refused while the disk is nearly full.
    pub fn adds(&self) -> bool {
        use Command::*;
        matches!(
            self,
            CreatePool(_)
                | CreateJob(_)
                | CreateTasks(..)
                | Submit(_)
                | CreateSchedule(_)
                | PutApplication(..)
                | CreateFunction(..)
                | ChangeFunction(..)
                | CreateTrigger(_)
                | AdvanceTrigger(..)
                | BeginPackage(..)
                | ActivatePackage(..)
        )
    }
}

/// A change that a client requests.
#[derive(Debug, Clone)]
pub enum Command {
    CreatePool(Box<NewPool>),
    /// Deletes a pool and its nodes.
    DeletePool(PoolId, Condition),
    /// Changes the target number of nodes.
    ResizePool {
        pool: PoolId,
        /// Target of dedicated nodes; `None` keeps it.
        dedicated: Option<u32>,
        /// Target of low-priority nodes; `None` keeps it.
        low_priority: Option<u32>,
        /// The resize ends with an error after this long.
        timeout: Option<Period>,
        /// Fate of the tasks that run on removed nodes.
        option: DeallocationOption,
        /// The request's condition.
        condition: Condition,
    },
    /// Stops a resize: the targets become the present numbers.
    StopResize(PoolId, Condition),
    UpdatePool(PoolId, Box<PoolChange>, Condition),
    /// Enables autoscaling, or changes its formula or interval.
    EnableScaling {
        pool: PoolId,
        /// The formula, already parsed; `None` keeps the present one.
        formula: Option<String>,
        /// Time between evaluations; `None` keeps the present value or takes the default.
        interval: Option<Period>,
        /// The request's condition.
        condition: Condition,
    },
    /// Disables autoscaling; the pool keeps its size.
    DisableScaling(PoolId),
    /// Evaluates a formula without applying the result.
    EvaluateScaling(PoolId, Box<Formula>),
    /// Sets or removes Piecework's own queue-depth policy.
    SetPolicy(PoolId, Option<QueuePolicy>),
    /// Removes nodes; one that is lost for good is only forgotten.
    RemoveNodes {
        pool: PoolId,
        nodes: Vec<NodeId>,
        /// Fate of the running tasks.
        option: DeallocationOption,
        /// Time limit of the resize that the removal is.
        timeout: Option<Period>,
        /// The request's condition.
        condition: Condition,
    },
    /// Enables or disables scheduling on a node.
    SwitchScheduling {
        pool: PoolId,
        node: NodeId,
        enabled: bool,
        /// Fate of the running tasks when scheduling is disabled.
        option: DeallocationOption,
    },
    /// Reboots, reimages, deallocates or starts a node.
    ActOnNode {
        pool: PoolId,
        node: NodeId,
        kind: NodeActionKind,
        /// Fate of the running tasks.
        option: DeallocationOption,
    },
    CreateJob(Box<NewJob>),
    /// Stops running the job's tasks until it is enabled.
    DisableJob(JobId, DisableOption, Condition),
    EnableJob(JobId, Condition),
    /// Terminates a job, with a reason that the job shows.
    TerminateJob(JobId, Option<String>, Condition),
    /// Deletes a job with its tasks.
    DeleteJob(JobId, Condition),
    /// Lets a job end without waiting for what its nodes still do.
    ForceJob(JobId),
    /// Like `ForceJob`, for all jobs of a schedule.
    ForceSchedule(ScheduleId),
    UpdateJob(JobId, Box<JobChange>, Condition),
    CreateSchedule(Box<NewSchedule>),
    /// Changes a job schedule; jobs that exist are not changed.
    ChangeSchedule(ScheduleId, Box<ScheduleChange>, Condition),
    /// Enables (true) or disables a job schedule.
    SwitchSchedule(ScheduleId, bool, Condition),
    /// Terminates a job schedule and its active job.
    TerminateSchedule(ScheduleId, Condition),
    /// Deletes a job schedule with its jobs.
    DeleteSchedule(ScheduleId, Condition),
    /// Creates or changes an application.
    PutApplication(ApplicationId, Box<ApplicationChange>, Condition),
    /// Creates a function with these settings.
    CreateFunction(PoolId, FunctionId, Map<String, Value>),
    /// Deploys a new version of a function, or activates another one.
    ChangeFunction(PoolId, FunctionId, FunctionChange, Condition),
    /// Deletes a function with its versions.
    DeleteFunction(PoolId, FunctionId, Condition),
    CreateTrigger(Box<NewTrigger>),
    ChangeTrigger(TriggerId, Box<TriggerChange>, Condition),
    DeleteTrigger(TriggerId, Condition),
    /// Stores what the worker of the trigger with this number did.
    AdvanceTrigger(TriggerId, u64, Box<Advance>),
    /// Deletes an application with its packages.
    DeleteApplication(ApplicationId, Condition),
    /// Records that an upload of a version begins, with the blob key it goes to.
    BeginPackage(ApplicationId, PackageVersion, String),
    /// Lets nodes download an uploaded version.
    ActivatePackage(ApplicationId, PackageVersion, Upload),
    DeletePackage(ApplicationId, PackageVersion),
    /// Adds tasks; answered with one result per task, in order.
    CreateTasks(JobId, Vec<NewTask>),
    /// Add the tasks of a message, all or none.
    Submit(Box<NewSubmission>),
    /// Replaces a task's constraints.
    UpdateTask(JobId, TaskId, TaskConstraints, Condition),
    /// Runs a failed task again.
    ReactivateTask(JobId, TaskId, Condition),
    TerminateTask(JobId, TaskId, Condition),
    DeleteTask(JobId, TaskId, Condition),
    /// Deletes a stored stream of an ended task.
    ForgetStream(JobId, TaskId, StreamName),
    /// Deletes the stored streams of these ended tasks, each only if its version is still the given one.
    ExpireStreams(Vec<(TaskUid, u64)>),
}

/// The result of a successful command.
#[derive(Debug, Clone)]
pub enum Done {
    /// The change is stored; with the resource's new version and modification time.
    Changed {
        /// Shown as the ETag.
        version: u64,
        /// Shown as Last-Modified.
        at: Timestamp,
    },
    /// The result of a formula.
    Scaled(ScaleRun),
    /// The tasks of a message are there.
    Submitted {
        /// Whether they were before.
        is_repeated: bool,
    },
    /// Results of the tasks, in the order of the request.
    Tasks(Vec<Result<(u64, Timestamp), Refusal>>),
}
