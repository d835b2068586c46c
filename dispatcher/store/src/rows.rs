//! Rows as API handlers read them, with their documents as JSON text.

use contract::{
    ids::{JobId, JobUid, NodeId, PoolId, TaskId, TaskUid},
    message::StartTaskEnd,
    outcome::{Fault, Stream},
    period::Period,
    spec::{QueuePolicy, StartTask},
    state::{AllocationState, JobState, NodeState, PoolState, SchedulingState, TaskState},
    time::Timestamp,
};
use model::{auto_pool::Tie, auto_scale::Scaling, job::Counts, node::NodeProperties, pool::PoolSettings, task::Failure};

/// A pool as API handlers read it.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolRow {
    pub id: PoolId,
    /// Accepted properties as JSON, in Azure's names.
    pub document: String,
    /// Counts changes; shown as the ETag.
    pub version: u64,
    pub state: PoolState,
    pub state_at: Timestamp,
    /// Whether a resize is going on.
    pub allocation: AllocationState,
    pub allocation_at: Timestamp,
    pub target_dedicated: u32,
    pub target_low_priority: u32,
    /// Present nodes in any state but creating.
    pub current_dedicated: u32,
    /// Present nodes in any state but creating.
    pub current_low_priority: u32,
    pub settings: PoolSettings,
    /// Errors of the last resize.
    pub resize_errors: Vec<Fault>,
    /// `taskSlotsPerNode`.
    pub slots_per_node: u32,
    /// Piecework's own queue-depth policy.
    pub policy: Option<QueuePolicy>,
    /// The autoscale formula and its last evaluation.
    pub scaling: Option<Scaling>,
    /// The last decision on the pool's size, as a sentence for people.
    pub decision: Option<String>,
    pub created_at: Timestamp,
    pub modified_at: Timestamp,
}

/// A node as API handlers read it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeRow {
    pub pool: PoolId,
    pub id: NodeId,
    pub state: NodeState,
    pub state_at: Timestamp,
    /// Whether scheduling is enabled.
    pub scheduling: SchedulingState,
    pub properties: NodeProperties,
    /// When it was requested.
    pub allocated_at: Timestamp,
    /// When its agent last started.
    pub booted_at: Option<Timestamp>,
    /// Dedicated, not low-priority.
    pub is_dedicated: bool,
    /// Tasks run so far.
    pub tasks_run: u64,
    /// The part of `tasks_run` that succeeded.
    pub tasks_succeeded: u64,
    pub running_tasks: u32,
    pub running_slots: u32,
    /// The last tasks it ran, newest last.
    pub recent: Vec<TaskUid>,
    /// The start task that its present epoch ran.
    pub booted_with: Option<StartTask>,
    /// The end of that start task.
    pub start_task: Option<StartTaskEnd>,
    /// Why it is unusable.
    pub faults: Vec<Fault>,
}

/// A job as API handlers read it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRow {
    pub uid: JobUid,
    pub id: JobId,
    /// Accepted properties as JSON, in Azure's names.
    pub document: String,
    /// Counts changes; shown as the ETag.
    pub version: u64,
    pub state: JobState,
    pub state_at: Timestamp,
    /// The state before, and when it entered that one.
    pub previous: Option<(JobState, Timestamp)>,
    pub pool: PoolId,
    /// Set when the pool was created for the job.
    pub auto_pool: Option<Tie>,
    /// Why that pool could not be created.
    pub scheduling_error: Option<Fault>,
    /// Jobs with a larger value go first.
    pub priority: i32,
    /// -1 means no limit.
    pub max_parallel: i32,
    /// Whether the job completes when all its tasks have.
    pub terminate_when_complete: bool,
    /// Default for tasks that set none.
    pub max_task_retry_count: i32,
    /// Limit for the whole job.
    pub max_wall_clock: Option<Period>,
    /// Whether exit conditions of tasks may act on the job.
    pub performs_exit_options: bool,
    /// Whether tasks may depend on each other.
    pub uses_dependencies: bool,
    pub created_at: Timestamp,
    pub modified_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub terminate_reason: Option<String>,
    pub tasks: Counts,
    pub slots: Counts,
}

/// A task as API handlers read it.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRow {
    pub uid: TaskUid,
    pub job_uid: JobUid,
    pub id: TaskId,
    /// Accepted properties as JSON, in Azure's names.
    pub document: String,
    /// Counts changes; shown as the ETag.
    pub version: u64,
    pub state: TaskState,
    pub state_at: Timestamp,
    /// The state before, and when it entered that one.
    pub previous: Option<(TaskState, Timestamp)>,
    pub created_at: Timestamp,
    pub modified_at: Timestamp,
    /// Number of the present or last attempt; zero before the first.
    pub attempt: u32,
    /// The node of the present or last run.
    pub node: Option<NodeId>,
    /// Pool of that node; set when the job has moved to another pool since.
    pub pool: Option<PoolId>,
    /// Start of the last run.
    pub started_at: Option<Timestamp>,
    /// When the task ended.
    pub ended_at: Option<Timestamp>,
    /// The command's exit code; `None` when it did not exit.
    pub exit_code: Option<i32>,
    /// Whether it succeeded; `None` until it ends.
    pub has_succeeded: Option<bool>,
    pub failure: Option<Failure>,
    /// Retries after non-zero exit codes.
    pub retry_count: u32,
    /// Time of the last retry.
    pub retried_at: Option<Timestamp>,
    /// Requeues on request.
    pub requeue_count: u32,
    /// Time of the last requeue.
    pub requeued_at: Option<Timestamp>,
    pub stdout: Stream,
    pub stderr: Stream,
    /// Slots it takes.
    pub slots: u32,
}
