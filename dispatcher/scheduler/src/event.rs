//! Events of a pool: everything that the scheduler learns from API handlers, agents, broker and clock.

use contract::{
    ids::{AttemptKey, Epoch, Fence, JobUid, NodeId, TaskUid},
    message::{Finished, NodeReport, Started},
    outcome::JobTaskEnd,
    state::DeallocationOption,
};
use model::{job_tasks::Rules, node::NodeAction};

/// A task that is about to be released, with the facts that the scheduler needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    pub uid: TaskUid,
    /// Attempts so far.
    pub attempt: u32,
    pub fence: Fence,
    /// Slots it takes.
    pub slots: u32,
    /// Earlier attempts that had started when their node died.
    pub crashes: u32,
    /// Retries spent.
    pub retries: u32,
    /// Retries allowed; -1 means no limit.
    pub retries_max: i32,
}

/// How the released and running tasks of a job are stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobStop {
    /// Running tasks are queued again.
    Requeue,
    /// Running tasks are completed; waiting ones stay as they are.
    End,
    /// Running tasks go on; released ones that have not started are taken back.
    Wait,
    /// All tasks are deleted.
    Delete,
}

/// An event of a pool.
#[derive(Debug, Clone)]
pub enum Event {
    /// A job was added or changed.
    Job {
        job: JobUid,
        /// Jobs with a larger value go first.
        priority: i32,
        /// -1 means no limit.
        max_parallel: i32,
        /// Whether its tasks may be released.
        runs: bool,
    },
    /// The released and running tasks of a job are stopped.
    JobStopped { job: JobUid, stop: JobStop },
    /// The job has preparation or release settings.
    Prepares { job: JobUid, rules: Rules },
    /// A job ends or leaves the pool, so its nodes have to run its release.
    Release { job: JobUid },
    /// A preparation or release has ended.
    JobTaskEnded { node: NodeId, epoch: Epoch, end: Box<JobTaskEnd> },
    /// Tasks were added that are ready, in this order.
    Added { job: JobUid, tasks: Vec<Ready> },
    /// Rows became ready in the store, because their dependencies are satisfied.
    Unblocked { job: JobUid, count: u64 },
    /// A waiting, ready row was ended or deleted.
    Withdrawn { job: JobUid },
    /// The rows that a `Fetch` asked for. Fewer rows than requested means that no more are ready.
    Fetched {
        job: JobUid,
        /// The number of rows that was requested.
        asked: u32,
        /// The tasks, in the order in which they were added.
        tasks: Vec<Ready>,
    },
    /// The store has made rows ready whose pause is over.
    Woken {
        job: JobUid,
        count: u64,
        /// Whether further rows are still pausing.
        more: bool,
    },
    /// The window may have opened; release the tasks that fit.
    Fill,
    /// The broker has confirmed the publish of an attempt.
    Published(AttemptKey),
    /// The broker rejected or lost the publish.
    PublishFailed(AttemptKey),
    /// A run has begun.
    Started { node: NodeId, epoch: Epoch, started: Started },
    /// A run has ended.
    Finished { node: NodeId, epoch: Epoch, finished: Box<Finished> },
    /// The retry limit of a released or running task has changed.
    Limits {
        uid: TaskUid,
        /// -1 means no limit.
        retries_max: i32,
    },
    /// A client ends a released or running task.
    Cancel {
        uid: TaskUid,
        /// Whether its row is deleted as well.
        delete: bool,
    },
    /// A node was requested from the provider.
    NodeAdded { node: NodeId },
    /// An agent has joined.
    Joined {
        node: NodeId,
        /// Its new epoch, or the old one when the same process joins again.
        epoch: Epoch,
        /// Whether the same process, and so its runs, continue.
        keeps_runs: bool,
    },
    /// An agent reports its state.
    Reported { node: NodeId, epoch: Epoch, report: NodeReport },
    /// The slots per node of a pool without nodes change.
    SlotsPerNode { slots: u32 },
    /// A node is to be emptied and removed.
    Drain { node: NodeId, option: DeallocationOption },
    /// Scheduling on a node is enabled or disabled.
    Scheduling {
        node: NodeId,
        enabled: bool,
        /// What happens to running tasks when it is disabled.
        option: DeallocationOption,
    },
    /// A client requests an action on a node.
    NodeAction { node: NodeId, action: NodeAction },
    /// The provider has stopped a deallocated node.
    NodeStopped { node: NodeId },
    /// A node is gone for good.
    NodeGone { node: NodeId },
    /// The regular tick.
    Tick {
        /// Whether events may be waiting unread; then no node is counted as lost.
        events_behind: bool,
        /// Ready messages in the pool's queue, when known.
        queue_ready: Option<u32>,
    },
}
