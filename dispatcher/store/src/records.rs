//! What the engine writes and loads: the live part of each row, without documents.

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
    health::Unreadable,
    job_tasks::{JobOnNodeRecord, JobTasks},
    node::NodeAction,
    pool::{JobOrder, PoolSettings},
    schedule::ScheduleRow,
    task::{ExitConditions, Failure, RequeueCause},
};

use crate::rows::Counts;

/// A pool as the engine knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolRecord {
    pub id: PoolId,
    /// For the ETag.
    pub version: u64,
    /// Where it is in its life, and since when.
    pub state: PoolState,
    pub state_at: Timestamp,
    /// Whether its size is changing.
    pub allocation: AllocationState,
    pub allocation_at: Timestamp,
    pub target_dedicated: u32,
    pub target_low_priority: u32,
    pub settings: PoolSettings,
    /// What a shrinking resize does to tasks.
    pub deallocation: DeallocationOption,
    /// How the last resize failed.
    pub resize_errors: Vec<Fault>,
    /// Slots of a node.
    pub slots_per_node: u32,
    /// Spread or pack.
    pub fill: FillType,
    /// How its jobs of one priority take turns.
    pub job_order: JobOrder,
    /// What nodes run first.
    pub start_task: Option<StartTask>,
    /// What nodes unpack before.
    pub packages: Vec<PackageReference>,
    /// The built-in policy.
    pub policy: Option<QueuePolicy>,
    /// The formula its size follows.
    pub scaling: Option<Scaling>,
    /// The autoscaler's last decision in words.
    pub decision: Option<String>,
    /// The number in the next node's name.
    pub next_node: u64,
    /// When it was added.
    pub created_at: Timestamp,
    pub modified_at: Timestamp,
}

/// Tasks that a node remembers.
pub const RECENT_MAX: usize = 10;

/// A node as the engine knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeRecord {
    pub id: NodeId,
    /// What it joins with; a credential after the first join.
    pub token: String,
    /// The present start; zero before the first join.
    pub epoch: Epoch,
    /// Where it is in its life.
    pub state: NodeState,
    pub state_at: Timestamp,
    /// Whether it may be given tasks.
    pub scheduling: SchedulingState,
    /// How to drain it, once asked.
    pub drain: Option<DeallocationOption>,
    /// Whether it has confirmed that it holds nothing.
    pub is_drained: bool,
    /// What it was asked for beside running tasks.
    pub action: Option<NodeAction>,
    /// Its address, once it has joined.
    pub address: Option<String>,
    /// When it was asked for.
    pub allocated_at: Timestamp,
    /// When its agent last started.
    pub booted_at: Option<Timestamp>,
    /// Bought to stay.
    pub is_dedicated: bool,
    /// Its number in the pool, for packing.
    pub rank: u32,
    /// Tasks run so far.
    pub tasks_run: u64,
    /// Of them, those that succeeded.
    pub tasks_succeeded: u64,
    /// The last tasks it ran, newest last; at most [`RECENT_MAX`].
    pub recent: Vec<TaskUid>,
    /// The start task of its present start.
    pub booted_with: Option<StartTask>,
    /// How the start task ended.
    pub start_task: Option<StartTaskEnd>,
    /// Why it is unusable.
    pub faults: Vec<Fault>,
    pub agent_version: Option<String>,
    /// Its processors; zero before the first join.
    pub cores: u32,
}

/// A job as the engine knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRecord {
    pub uid: JobUid,
    pub id: JobId,
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
    /// Given to every task.
    pub environment: Vec<EnvironmentSetting>,
    /// For tasks that do not say.
    pub max_task_retry_count: i32,
    /// For the whole job.
    pub max_wall_clock: Option<Period>,
    /// Whether it ends with its last task.
    pub terminate_when_complete: bool,
    /// Whether exit conditions may act upon it.
    pub performs_exit_options: bool,
    /// Whether tasks may depend on each other.
    pub uses_dependencies: bool,
    /// The task whose end ends the job: its manager.
    pub ends_with: Option<TaskUid>,
    /// When it was added.
    pub created_at: Timestamp,
    pub modified_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// Why it ended, or is about to.
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
    /// Azure's fields as JSON.
    pub document: &'a str,
    /// What follows from its end.
    pub exit_conditions: Option<&'a ExitConditions>,
    /// Slots it takes.
    pub slots: u32,
    /// Retries after a non-zero exit; -1 is no limit.
    pub retries_max: i32,
    /// Names of tasks that must end well first; a name that is an integer also matches with leading zeros.
    pub depends_on: &'a [String],
    /// False for tasks that no node of the pool can ever run.
    pub fits: bool,
    /// Its first fence.
    pub fence: Fence,
    /// For the ETag.
    pub version: u64,
    /// Now.
    pub at: Timestamp,
}

/// What became of an insert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// The task is there and may run.
    Ready,
    /// The task is there and waits for others, or fits no node.
    Blocked,
    /// The name is taken.
    Exists,
}

/// A task that can be released, or has been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub uid: TaskUid,
    pub job: JobUid,
    pub id: TaskId,
    /// Attempts so far.
    pub attempt: u32,
    pub fence: Fence,
    /// Slots it takes.
    pub slots: u32,
    /// Started attempts whose node died.
    pub crashes: u32,
    /// Retries spent.
    pub retries: u32,
    /// Retries allowed; -1 is no limit.
    pub retries_max: i32,
    /// Azure's fields as JSON.
    pub document: String,
}

/// A task's state, for decisions about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskHead {
    pub uid: TaskUid,
    pub id: TaskId,
    /// Where it is in its life.
    pub state: TaskState,
    /// Whether it waits, may run, and is not released.
    pub is_ready: bool,
    /// Whether it is released or runs.
    pub is_live: bool,
    /// Whether it ended well.
    pub has_succeeded: Option<bool>,
    pub fence: Fence,
    /// Slots it takes.
    pub slots: u32,
    /// For the ETag.
    pub version: u64,
    pub modified_at: Timestamp,
}

/// Whose streams an ended task shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// Those that come with the end.
    Told,
    /// Those of the run that is being ended; it tells them when it is over.
    Awaited,
    /// No run ends now: those of an earlier one, if there was one.
    Earlier,
}

/// How a task goes back to the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requeue {
    pub cause: RequeueCause,
    /// Started attempts whose node died, so far.
    pub crashes: u32,
    /// Until when it rests before it is ready, if it does.
    pub rests_until: Option<Timestamp>,
    /// Now.
    pub at: Timestamp,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    /// The fence after the end.
    pub fence: Fence,
    /// Whether it ended well.
    pub has_succeeded: bool,
    /// The command's exit code, if it exited.
    pub exit_code: Option<i32>,
    pub failure: Option<Failure>,
    /// Whose streams it shows.
    pub streams: Streams,
    /// What it wrote.
    pub stdout: Stream,
    /// What it wrote.
    pub stderr: Stream,
    /// When the last run started, if one did.
    pub started_at: Option<Timestamp>,
    /// The node of the last run; the row's own stays when absent.
    pub node: Option<NodeId>,
    /// When the task ended.
    pub at: Timestamp,
}

/// What a task was whose row was made readable and ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buried {
    /// Its job; nothing when the row does not tell it and nobody knows, then the task is out of everybody's way.
    pub job: Option<JobUid>,
    /// Slots it takes, as far as they can be read.
    pub slots: u32,
    /// Whether it waited, might run, and was not released.
    pub was_ready: bool,
    /// Whether it was running or preparing.
    pub was_running: bool,
    /// Whether it had ended before; then it ends no second time.
    pub was_completed: bool,
}

/// Everything that is alive.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Loaded {
    /// This start's number: larger than every earlier one.
    pub boot: u64,
    /// The epoch of the store, the upper bits of fences.
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
    /// All jobs that are not completed, with how many of their tasks are ready and not released.
    pub jobs: Vec<(JobRecord, u64)>,
    /// Those of them of which [`crate::Store::refit`] has more tasks to change.
    pub unfitted: Vec<JobUid>,
    /// What jobs that are not completed run on nodes around their tasks.
    pub job_tasks: Vec<(JobUid, JobTasks)>,
    /// How those jobs stand on nodes.
    pub jobs_on_nodes: Vec<JobOnNodeRecord>,
    pub schedules: Vec<ScheduleRow>,
    /// All applications.
    pub applications: Vec<ApplicationRow>,
    /// All tasks that are released or run.
    pub live: Vec<LiveTask>,
    /// Released or running tasks whose rows cannot be read.
    pub unreadable_tasks: Vec<(TaskUid, Unreadable)>,
    /// Other rows that cannot be read; they were left out.
    pub unreadable: Vec<Unreadable>,
}

/// A task that is released or runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveTask {
    pub uid: TaskUid,
    pub job: JobUid,
    pub attempt: u32,
    pub fence: Fence,
    /// Slots it takes.
    pub slots: u32,
    /// Started attempts whose node died.
    pub crashes: u32,
    /// Retries spent.
    pub retries: u32,
    /// Retries allowed; -1 is no limit.
    pub retries_max: i32,
    /// Whether the broker has confirmed it.
    pub is_published: bool,
    /// Who runs it, and since when.
    pub owner: Option<(RunId, NodeId, Epoch, Timestamp)>,
    /// Whether that run waits for its job's preparation.
    pub is_preparing: bool,
}
