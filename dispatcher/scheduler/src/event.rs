//! What happens to a pool: everything that API handlers, agents, the broker and time tell the rules.

use contract::{
    ids::{AttemptKey, Epoch, Fence, JobUid, NodeId, TaskUid},
    message::{Finished, NodeReport, Started},
    outcome::JobTaskEnd,
    state::DeallocationOption,
};
use model::{job_tasks::Rules, node::NodeAction};

/// A task that is about to be released, without what the rules do not need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The task.
    pub uid: TaskUid,
    /// Attempts so far.
    pub attempt: u32,
    /// Its present fence.
    pub fence: Fence,
    /// Slots it takes.
    pub slots: u32,
    /// Started attempts whose node died.
    pub crashes: u32,
    /// Retries spent.
    pub retries: u32,
    /// Retries allowed; -1 is no limit.
    pub retries_max: i32,
}

/// How a job stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobStop {
    /// Running tasks are queued again.
    Requeue,
    /// Running tasks are completed; waiting ones stay as they are.
    End,
    /// Running tasks go on; those that have not started are taken back.
    Wait,
    /// Everything goes.
    Delete,
}

/// What happens to a pool.
#[derive(Debug, Clone)]
pub enum Event {
    /// A job is there, or changed.
    Job {
        /// The job.
        job: JobUid,
        /// Larger first.
        priority: i32,
        /// -1 is no limit.
        max_parallel: i32,
        /// Whether its tasks may be released.
        runs: bool,
    },
    /// A job's live attempts end.
    JobStopped {
        /// The job.
        job: JobUid,
        /// In which way.
        stop: JobStop,
    },
    /// A job asks something of nodes around its tasks.
    Prepares {
        /// The job.
        job: JobUid,
        /// What.
        rules: Rules,
    },
    /// A job ends or leaves the pool: its nodes release it.
    Release {
        /// The job.
        job: JobUid,
    },
    /// A preparation or release ended.
    JobTaskEnded {
        /// The node.
        node: NodeId,
        /// Its start.
        epoch: Epoch,
        /// The end.
        end: Box<JobTaskEnd>,
    },
    /// Tasks were added and are ready, in their order.
    Added {
        /// The job.
        job: JobUid,
        /// The tasks.
        tasks: Vec<Ready>,
    },
    /// Rows became ready in the store: dependencies were satisfied.
    Unblocked {
        /// The job.
        job: JobUid,
        /// How many.
        count: u64,
    },
    /// A waiting, ready row is gone: ended or deleted.
    Withdrawn {
        /// The job.
        job: JobUid,
    },
    /// The store hands over what a `Fetch` asked for; fewer rows than asked means no more are ready.
    Fetched {
        /// The job.
        job: JobUid,
        /// How many were asked for.
        asked: u32,
        /// The tasks, lowest number first.
        tasks: Vec<Ready>,
    },
    /// The store has made rows ready whose pause is over.
    Woken {
        /// The job.
        job: JobUid,
        /// How many.
        count: u64,
        /// Whether others rest still.
        more: bool,
    },
    /// The window may have opened: release what fits.
    Fill,
    /// The broker has confirmed an attempt's publish.
    Published(AttemptKey),
    /// It has not.
    PublishFailed(AttemptKey),
    /// A run began.
    Started {
        /// The node.
        node: NodeId,
        /// Its start.
        epoch: Epoch,
        /// The run.
        started: Started,
    },
    /// A run ended.
    Finished {
        /// The node.
        node: NodeId,
        /// Its start.
        epoch: Epoch,
        /// The end.
        finished: Box<Finished>,
    },
    /// How often a task that is released or runs may be tried again has changed.
    Limits {
        /// The task.
        uid: TaskUid,
        /// -1 is no limit.
        retries_max: i32,
    },
    /// A person ends a task that is released or runs.
    Cancel {
        /// The task.
        uid: TaskUid,
        /// Its record goes, too.
        delete: bool,
    },
    /// A node was asked for.
    NodeAdded {
        /// The node.
        node: NodeId,
    },
    /// An agent joined.
    Joined {
        /// The node.
        node: NodeId,
        /// Its new start, or the old one when the process goes on.
        epoch: Epoch,
        /// Whether the process, and so its runs, go on.
        keeps_runs: bool,
    },
    /// An agent tells its own state.
    Reported {
        /// The node.
        node: NodeId,
        /// Its start.
        epoch: Epoch,
        /// What it says.
        report: NodeReport,
    },
    /// The nodes of the pool, which has none at present, will have other slots.
    SlotsPerNode {
        /// Of each.
        slots: u32,
    },
    /// A node shall be emptied.
    Drain {
        /// The node.
        node: NodeId,
        /// How.
        option: DeallocationOption,
    },
    /// Scheduling on a node is switched.
    Scheduling {
        /// The node.
        node: NodeId,
        /// On or off.
        enabled: bool,
        /// What becomes of what runs when it is switched off.
        option: DeallocationOption,
    },
    /// A node is asked to start again or to rest.
    NodeAction {
        /// The node.
        node: NodeId,
        /// For what.
        action: NodeAction,
    },
    /// The provider has stopped a node that rests.
    NodeStopped {
        /// The node.
        node: NodeId,
    },
    /// A node is gone for good.
    NodeGone {
        /// The node.
        node: NodeId,
    },
    /// Time passes.
    Tick {
        /// Events wait unread: nobody is reaped meanwhile.
        events_behind: bool,
        /// Messages ready in the pool's queue, when known.
        queue_ready: Option<u32>,
    },
}
