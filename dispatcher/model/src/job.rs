//! A job as it is asked for, its manager task, and what may be changed of it later.

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
    #[serde(rename = "chores")]
    pub job_tasks: Option<Box<JobTasks>>,
}

impl NewJob {
    /// Whether its manager runs on a node with nothing else.
    pub fn takes_a_node(&self) -> bool {
        self.manager.as_ref().is_some_and(|manager| manager.is_exclusive)
    }
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
    /// Properties of the document; null removes one.
    pub fields: Properties,
    /// The specification of the pool that was made for it.
    pub own_pool: Option<PoolChange>,
}
