//! The part of each row that the engine writes and loads: everything but the documents.

use contract::{
    ids::{Epoch, Fence, JobId, JobUid, NodeId, PoolId, RunId, TaskId, TaskUid},
    message::StartTaskEnd,
    outcome::{Fault, Stream},
    period::Period,
    spec::{EnvironmentSetting, FillType, PackageReference, QueuePolicy, StartTask},
    state::{AllocationState, DeallocationOption, JobState, NodeState, PoolState, SchedulingState, TaskState},
    time::Timestamp,
};
use model::{
    application::ApplicationRow,
    auto_pool::Tie,
    auto_scale::Scaling,
    function::FunctionRow,
    health::Unreadable,
    job::Counts,
    job_tasks::{JobOnNodeRecord, JobTasks},
    node::{NodeAction, NodeProperties},
    pool::{JobOrder, PoolSettings},
    schedule::ScheduleRow,
    task::{ExitConditions, Failure, RequeueCause},
    trigger::TriggerRow,
};

/// A pool's row, as the engine writes and loads it.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolRecord {
    pub id: PoolId,
    /// Counts changes; shown as the ETag.
    pub version: u64,
    pub state: PoolState,
    pub state_at: Timestamp,
    /// Whether a resize is going on.
    pub allocation: AllocationState,
    pub allocation_at: Timestamp,
    pub target_dedicated: u32,
    pub target_low_priority: u32,
    pub settings: PoolSettings,
    /// Fate of the tasks on nodes that a resize removes.
    pub deallocation: DeallocationOption,
    /// Errors of the last resize.
    pub resize_errors: Vec<Fault>,
    /// `taskSlotsPerNode`.
    pub slots_per_node: u32,
    /// Whether tasks are spread over nodes or packed on few.
    pub fill: FillType,
    /// How jobs of the same priority share the pool.
    pub job_order: JobOrder,
    /// Runs on every node when it joins.
    pub start_task: Option<StartTask>,
    /// Application packages that nodes unpack before the start task.
    pub packages: Vec<PackageReference>,
    /// Piecework's own queue-depth policy.
    pub policy: Option<QueuePolicy>,
    /// The autoscale formula and its last evaluation.
    pub scaling: Option<Scaling>,
    /// The last decision on the pool's size, as a sentence for people.
    pub decision: Option<String>,
    /// Number in the next node's name.
    pub next_node: u64,
    pub created_at: Timestamp,
    pub modified_at: Timestamp,
}

/// Tasks that a node's `recentTasks` lists at most.
pub const RECENT_MAX: usize = 10;

/// A node's row, as the engine writes and loads it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeRecord {
    pub id: NodeId,
    /// The token that the node joins with; after the first join the credential of its agent.
    pub token: String,
    /// Epoch of the agent; zero before the first join.
    pub epoch: Epoch,
    pub state: NodeState,
    pub state_at: Timestamp,
    /// Whether scheduling is enabled.
    pub scheduling: SchedulingState,
    /// How it is drained; `None` when it is not.
    pub drain: Option<DeallocationOption>,
    /// Whether it has confirmed that it holds no runs.
    pub is_drained: bool,
    /// The requested action that has not finished.
    pub action: Option<NodeAction>,
    pub properties: NodeProperties,
    /// When it was requested.
    pub allocated_at: Timestamp,
    /// When its agent last started.
    pub booted_at: Option<Timestamp>,
    /// Dedicated, not low-priority.
    pub is_dedicated: bool,
    /// Number of the node in its pool; packing pools fill low numbers first.
    pub rank: u32,
    /// Tasks run so far.
    pub tasks_run: u64,
    /// The part of `tasks_run` that succeeded.
    pub tasks_succeeded: u64,
    /// The last tasks it ran, newest last; at most [`RECENT_MAX`].
    pub recent: Vec<TaskUid>,
    /// The start task that its present epoch ran.
    pub booted_with: Option<StartTask>,
    /// The end of that start task.
    pub start_task: Option<StartTaskEnd>,
    /// Why it is unusable.
    pub faults: Vec<Fault>,
}

/// A job's row, as the engine writes and loads it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRecord {
    pub uid: JobUid,
    pub id: JobId,
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
    /// Environment variables of all tasks.
    pub environment: Vec<EnvironmentSetting>,
    /// Default for tasks that set none.
    pub max_task_retry_count: i32,
    /// Limit for the whole job.
    pub max_wall_clock: Option<Period>,
    /// Whether the job completes when all its tasks have.
    pub terminate_when_complete: bool,
    /// Whether exit conditions of tasks may act on the job.
    pub performs_exit_options: bool,
    /// Whether tasks may depend on each other.
    pub uses_dependencies: bool,
    /// The manager task, when its end completes the job.
    pub ends_with: Option<TaskUid>,
    pub created_at: Timestamp,
    pub modified_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// Why it was terminated, or is about to be.
    pub terminate_reason: Option<String>,
    pub tasks: Counts,
    pub slots: Counts,
}

/// A task to be added.
#[derive(Debug, Clone)]
pub struct NewTaskRecord<'a> {
    /// The number it gets if its name is free.
    pub uid: TaskUid,
    pub id: &'a TaskId,
    /// Accepted properties as JSON, in Azure's names.
    pub document: &'a str,
    pub exit_conditions: Option<&'a ExitConditions>,
    /// Slots it takes.
    pub slots: u32,
    /// Retries after a non-zero exit code; -1 means no limit.
    pub retries_max: i32,
    /// Ids of tasks that must succeed first; an id that is an integer also matches with leading zeros.
    pub depends_on: &'a [String],
    /// False for a task that needs more slots than the pool's nodes have.
    pub fits: bool,
    /// Fence of the first attempt.
    pub fence: Fence,
    /// Counts changes; shown as the ETag.
    pub version: u64,
    /// The present time.
    pub at: Timestamp,
}

/// The result of adding a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// The task was added and may run.
    Ready,
    /// The task was added and waits for other tasks, or fits no node.
    Blocked,
    /// The name is taken.
    Exists,
}

/// A task that can be released, or is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub uid: TaskUid,
    pub job: JobUid,
    pub id: TaskId,
    /// Number of attempts so far.
    pub attempt: u32,
    pub fence: Fence,
    /// Slots it takes.
    pub slots: u32,
    /// Attempts that had started when their node died.
    pub crashes: u32,
    /// Retries used so far.
    pub retries: u32,
    /// Retries allowed; -1 means no limit.
    pub retries_max: i32,
    /// Accepted properties as JSON, in Azure's names.
    pub document: String,
}

/// The facts about a task that the engine decides by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskHead {
    pub uid: TaskUid,
    pub id: TaskId,
    pub state: TaskState,
    /// Whether it waits, may run, and is not released.
    pub is_ready: bool,
    /// Whether it is released, preparing or running.
    pub is_live: bool,
    /// Whether it succeeded; `None` until it ends.
    pub has_succeeded: Option<bool>,
    pub fence: Fence,
    /// Slots it takes.
    pub slots: u32,
    /// Counts changes; shown as the ETag.
    pub version: u64,
    pub modified_at: Timestamp,
}

/// The output streams that an ended task shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// The streams that came with the end.
    Told,
    /// The run is still being ended; its streams are reported once it is over.
    Awaited,
    /// No run is ending: those of an earlier run, if there was one.
    Earlier,
}

/// How a task is queued again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requeue {
    pub cause: RequeueCause,
    /// Attempts that had started when their node died, so far.
    pub crashes: u32,
    /// When it becomes ready again; `None` means at once.
    pub rests_until: Option<Timestamp>,
    /// The present time.
    pub at: Timestamp,
}

/// The end of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    /// The fence after the end.
    pub fence: Fence,
    /// Whether it ended well.
    pub has_succeeded: bool,
    /// The command's exit code; `None` when it did not exit.
    pub exit_code: Option<i32>,
    pub failure: Option<Failure>,
    /// Which streams it shows.
    pub streams: Streams,
    pub stdout: Stream,
    pub stderr: Stream,
    /// Start of the last run; `None` without one.
    pub started_at: Option<Timestamp>,
    /// The node of the last run; `None` keeps the stored one.
    pub node: Option<NodeId>,
    /// When the task ended.
    pub at: Timestamp,
}

/// A task's former state, after its unreadable row was overwritten and ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buried {
    /// Its job; `None` when the row does not say and the caller did not know. Such a task is taken out of all lists of
    /// work.
    pub job: Option<JobUid>,
    /// Slots it needs, as far as they could be read.
    pub slots: u32,
    /// Whether it was ready and not released.
    pub was_ready: bool,
    /// Whether it was preparing or running.
    pub was_running: bool,
    /// Whether it was completed already.
    pub was_completed: bool,
}

/// Everything that is alive, and the next unused numbers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Loaded {
    /// Number of this start, larger than every earlier one.
    pub boot: u64,
    /// Epoch of the store, used as the upper bits of fences.
    pub store_epoch: u64,
    /// Larger than every task number in use.
    pub next_task: u64,
    /// Larger than every job number in use.
    pub next_job: u64,
    /// Larger than every number of an errand.
    pub next_errand: u64,
    /// Larger than every version in use.
    pub next_version: u64,
    /// All pools with their nodes.
    pub pools: Vec<(PoolRecord, Vec<NodeRecord>)>,
    /// All jobs that are not completed, with the number of their ready tasks.
    pub jobs: Vec<(JobRecord, u64)>,
    /// Those of them for which [`crate::Store::refit`] has tasks left to change.
    pub unfitted: Vec<JobUid>,
    /// Preparation and release tasks of jobs that are not completed.
    pub job_tasks: Vec<(JobUid, JobTasks)>,
    /// State of those jobs on nodes.
    pub jobs_on_nodes: Vec<JobOnNodeRecord>,
    pub schedules: Vec<ScheduleRow>,
    /// All applications.
    pub applications: Vec<ApplicationRow>,
    /// All functions of all pools.
    pub functions: Vec<FunctionRow>,
    /// All triggers.
    pub triggers: Vec<TriggerRow>,
    /// All released or running tasks.
    pub live: Vec<LiveTask>,
    /// Released or running tasks whose rows cannot be read.
    pub unreadable_tasks: Vec<(TaskUid, Unreadable)>,
    /// Other rows that cannot be read; they were left out.
    pub unreadable: Vec<Unreadable>,
}

/// A released or running task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveTask {
    pub uid: TaskUid,
    pub job: JobUid,
    pub attempt: u32,
    pub fence: Fence,
    /// Slots it takes.
    pub slots: u32,
    /// Attempts that had started when their node died.
    pub crashes: u32,
    /// Retries used so far.
    pub retries: u32,
    /// Retries allowed; -1 means no limit.
    pub retries_max: i32,
    /// Whether the broker has confirmed the publish.
    pub is_published: bool,
    /// The owning run with node and epoch, and when it started.
    pub owner: Option<(RunId, NodeId, Epoch, Timestamp)>,
    /// Whether that run still waits for its job's preparation.
    pub is_preparing: bool,
}
