//! A job as requested, its manager task, and the changes that are possible later.

use contract::{
    ids::{JobId, PoolId},
    period::Period,
    spec::EnvironmentSetting,
};

use crate::{
    auto_pool::{JobPool, PoolChange},
    document::Properties,
    job_tasks::JobTasks,
    task::NewTask,
};

/// A job as requested.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct NewJob {
    pub id: JobId,
    /// Accepted properties as JSON, in Azure's names, without those that have a column.
    pub document: String,
    pub pool: JobPool,
    /// -1000 to 1000; jobs with a larger value go first.
    pub priority: i32,
    /// Tasks that may run at once; -1 means no limit.
    pub max_parallel: i32,
    /// Environment variables of all tasks; a task's own value wins.
    pub environment: Vec<EnvironmentSetting>,
    /// Default for tasks that set none; -1 means no limit.
    pub max_task_retry_count: i32,
    /// Limit for the whole job; `None` means none.
    pub max_wall_clock: Option<Period>,
    /// Whether the job completes when all its tasks have (`onAllTasksComplete`).
    pub terminate_when_complete: bool,
    /// Whether exit conditions of tasks may disable or terminate the job (`onTaskFailure`).
    pub performs_exit_options: bool,
    /// Whether tasks may depend on each other (`usesTaskDependencies`).
    pub uses_dependencies: bool,
    /// The job manager task, which is created together with the job.
    pub manager: Option<Box<NewManager>>,
    /// Job preparation and release tasks.
    #[serde(default)]
    #[serde(rename = "chores")]
    pub job_tasks: Option<Box<JobTasks>>,
}

impl NewJob {
    /// Whether the manager runs alone on its node, which takes all slots of that node.
    pub fn takes_a_node(&self) -> bool {
        self.manager.as_ref().is_some_and(|manager| manager.is_exclusive)
    }
}

/// A job's manager task.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct NewManager {
    pub task: NewTask,
    /// Whether the job completes when the manager does (`killJobOnCompletion`).
    pub ends_job: bool,
    /// Whether nothing else runs on its node (`runExclusive`).
    pub is_exclusive: bool,
}

/// Fate of the running tasks of a job that is disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisableOption {
    /// They are ended and queued again.
    Requeue,
    /// They are ended and completed.
    Terminate,
    /// They run on to their end.
    Wait,
}

/// A change of a job; `None` leaves a property as it is.
#[derive(Debug, Clone, Default)]
pub struct JobChange {
    /// Jobs with a larger value go first.
    pub priority: Option<i32>,
    /// -1 means no limit.
    pub max_parallel: Option<i32>,
    /// Whether the job completes when all its tasks have.
    pub terminate_when_complete: Option<bool>,
    /// Default for tasks that set none; -1 means no limit.
    pub max_task_retry_count: Option<i32>,
    /// Limit for the whole job; `Some(None)` removes it.
    pub max_wall_clock: Option<Option<Period>>,
    /// Another pool; only a disabled job can move.
    pub pool: Option<PoolId>,
    /// Whether the pool that was created for the job stays after it; only a disabled job can change it.
    pub keep_alive: Option<bool>,
    /// Properties of the document; null removes one.
    pub fields: Properties,
    /// The new specification of the pool that was created for the job.
    pub own_pool: Option<PoolChange>,
}

/// Number of tasks, or of their slots, by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Waiting, including blocked ones.
    pub active: u64,
    /// Running or preparing.
    pub running: u64,
    pub succeeded: u64,
    pub failed: u64,
}

impl Counts {
    /// Succeeded and failed ones.
    pub fn completed(&self) -> u64 {
        self.succeeded + self.failed
    }
}
