//! What the store hands to API handlers: rows as they are, with their documents as JSON text.

use contract::{
    ids::{JobId, JobUid, NodeId, PoolId, TaskId, TaskUid},
    message::StartTaskEnd,
    outcome::{Fault, Stream},
    period::Period,
    spec::{QueuePolicy, StartTask},
    state::{AllocationState, JobState, NodeState, PoolState, SchedulingState, TaskState},
    time::Timestamp,
};
use model::{auto_pool::Tie, auto_scale::Scaling, pool::PoolSettings, task::Failure};

/// A pool.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolRow {
    pub id: PoolId,
    /// Azure's fields as JSON.
    pub document: String,
    /// For the ETag.
    pub version: u64,
    /// Where it is in its life.
    pub state: PoolState,
    pub state_at: Timestamp,
    /// Whether its size is changing.
    pub allocation: AllocationState,
    pub allocation_at: Timestamp,
    pub target_dedicated: u32,
    pub target_low_priority: u32,
    /// There now, whatever their state but creating.
    pub current_dedicated: u32,
    /// There now.
    pub current_low_priority: u32,
    pub settings: PoolSettings,
    /// How the last resize failed.
    pub resize_errors: Vec<Fault>,
    /// Slots of a node.
    pub slots_per_node: u32,
    /// The built-in policy.
    pub policy: Option<QueuePolicy>,
    /// The formula its size follows.
    pub scaling: Option<Scaling>,
    /// The autoscaler's last decision in words.
    pub decision: Option<String>,
    /// When it was added.
    pub created_at: Timestamp,
    pub modified_at: Timestamp,
}

/// A node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeRow {
    pub pool: PoolId,
    pub id: NodeId,
    /// Where it is in its life.
    pub state: NodeState,
    pub state_at: Timestamp,
    /// Whether it may be given tasks.
    pub scheduling: SchedulingState,
    /// Its address, once it has joined.
    pub address: Option<String>,
    /// When it was asked for.
    pub allocated_at: Timestamp,
    /// When its agent last started.
    pub booted_at: Option<Timestamp>,
    /// Bought to stay.
    pub is_dedicated: bool,
    /// Tasks run so far.
    pub tasks_run: u64,
    /// Of them, those that succeeded.
    pub tasks_succeeded: u64,
    pub running_tasks: u32,
    pub running_slots: u32,
    /// The last tasks it ran, newest last.
    pub recent: Vec<TaskUid>,
    /// The start task of its present start.
    pub booted_with: Option<StartTask>,
    /// How the start task ended.
    pub start_task: Option<StartTaskEnd>,
    /// Why it is unusable.
    pub faults: Vec<Fault>,
    pub agent_version: Option<String>,
}

/// How many tasks, or slots, are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Waiting, blocked ones included.
    pub active: u64,
    /// Running or preparing.
    pub running: u64,
    /// Ended well.
    pub succeeded: u64,
    /// Ended badly.
    pub failed: u64,
}

impl Counts {
    /// Ended.
    pub fn completed(&self) -> u64 {
        self.succeeded + self.failed
    }
}

/// A job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRow {
    pub uid: JobUid,
    pub id: JobId,
    /// Azure's fields as JSON.
    pub document: String,
    /// For the ETag.
    pub version: u64,
    /// Where it is in its life.
    pub state: JobState,
    pub state_at: Timestamp,
    /// Where it was before, and since when.
    pub previous: Option<(JobState, Timestamp)>,
    pub pool: PoolId,
    /// What binds it to that pool, when the pool was made for it.
    pub auto_pool: Option<Tie>,
    /// Why that pool could not be made.
    pub scheduling_error: Option<Fault>,
    /// Larger first.
    pub priority: i32,
    /// -1 is no limit.
    pub max_parallel: i32,
    /// Whether it ends with its last task.
    pub terminate_when_complete: bool,
    /// For tasks that do not say.
    pub max_task_retry_count: i32,
    /// For the whole job.
    pub max_wall_clock: Option<Period>,
    /// Whether exit conditions may act upon it.
    pub performs_exit_options: bool,
    /// Whether tasks may depend on each other.
    pub uses_dependencies: bool,
    /// When it was added.
    pub created_at: Timestamp,
    pub modified_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub terminate_reason: Option<String>,
    pub tasks: Counts,
    pub slots: Counts,
}

/// A task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRow {
    pub uid: TaskUid,
    pub job_uid: JobUid,
    pub id: TaskId,
    /// Azure's fields as JSON.
    pub document: String,
    /// For the ETag.
    pub version: u64,
    /// Where it is in its life.
    pub state: TaskState,
    pub state_at: Timestamp,
    /// Where it was before, and since when.
    pub previous: Option<(TaskState, Timestamp)>,
    /// When it was added.
    pub created_at: Timestamp,
    pub modified_at: Timestamp,
    /// The present or last attempt; zero before the first.
    pub attempt: u32,
    /// The node that runs or ran it.
    pub node: Option<NodeId>,
    /// That node's pool, when its job has left it.
    pub pool: Option<PoolId>,
    /// When the last run started.
    pub started_at: Option<Timestamp>,
    /// When the task ended.
    pub ended_at: Option<Timestamp>,
    /// The command's exit code, if it exited.
    pub exit_code: Option<i32>,
    /// Whether it ended well.
    pub has_succeeded: Option<bool>,
    pub failure: Option<Failure>,
    /// Runs again because of an exit code.
    pub retry_count: u32,
    /// The last of them.
    pub retried_at: Option<Timestamp>,
    /// Runs again because somebody wanted it.
    pub requeue_count: u32,
    /// The last of them.
    pub requeued_at: Option<Timestamp>,
    /// What it wrote.
    pub stdout: Stream,
    /// What it wrote.
    pub stderr: Stream,
    /// Slots it takes.
    pub slots: u32,
}
