//! What follows from an event or a question: rows to write, things to publish, orders to give.

use contract::{
    ids::{AttemptKey, Epoch, Fence, JobUid, NodeId, RunId, RunKey, TaskUid},
    message::{Finished, Verdict},
    outcome::{Fault, JobTaskEnd, JobTaskKind},
    state::NodeState,
    time::Timestamp,
};
use model::{job_tasks::JobOnNode, node::NodeAction, task::RequeueCause, usage::Work};

/// What follows; all effects of a step belong in one transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Read the next ready rows of a job and come back with [`Event::Fetched`].
    Fetch {
        /// The job.
        job: JobUid,
        /// Rows at most.
        count: u32,
    },
    /// Store the attempt with an outbox row, then publish it with `start: now`.
    Release {
        /// The job.
        job: JobUid,
        /// The attempt.
        key: AttemptKey,
        /// Slots it reserves; more than one travels on the wide queue.
        slots: u32,
    },
    /// Publish it again with `start: ask`.
    Republish {
        /// The attempt.
        key: AttemptKey,
        /// Slots it reserves.
        slots: u32,
    },
    /// The outbox row goes.
    Published {
        /// The task.
        uid: TaskUid,
    },
    /// A run owns the attempt.
    Start {
        /// The job.
        job: JobUid,
        /// The run.
        run: RunKey,
        /// Its node.
        node: NodeId,
        /// The node's start.
        epoch: Epoch,
        /// When.
        at: Timestamp,
        /// Whether it waits for the job's preparation on the node first.
        is_preparing: bool,
    },
    /// A run that waited for a preparation began, or it is known now when one began that was only seen to run.
    Begin {
        /// The run.
        run: RunKey,
        /// When.
        at: Timestamp,
    },
    /// What a job did to a node has changed.
    JobOnNode {
        /// The job.
        job: JobUid,
        /// The node.
        node: NodeId,
        /// How it stands now.
        job_on_node: JobOnNode,
    },
    /// A node was asked for a preparation or release.
    JobTaskBegun {
        /// The job.
        job: JobUid,
        /// The node.
        node: NodeId,
        /// Which of the two.
        kind: JobTaskKind,
        /// When.
        at: Timestamp,
    },
    /// A preparation or release ended.
    JobTaskEnded {
        /// The node.
        node: NodeId,
        /// How.
        end: Box<JobTaskEnd>,
        /// Whether the node told it; otherwise the time of its beginning is not known here.
        is_told: bool,
    },
    /// A node's slots are kept for an attempt of several slots: it is told to heartbeat at once.
    Keep {
        /// The node.
        node: NodeId,
        /// The attempt.
        key: AttemptKey,
        /// Slots it takes.
        slots: u32,
        /// For how long it has waited.
        waited_ms: i64,
    },
    /// They are not any more.
    GiveBack {
        /// The node.
        node: NodeId,
        /// The attempt.
        key: AttemptKey,
    },
    /// A node gets no work for a while, because its runs end by its own fault.
    NodePaused {
        /// The node.
        node: NodeId,
        /// Faults in a row.
        in_a_row: u32,
        /// For how long.
        pause_ms: i64,
        /// The last fault.
        fault: Fault,
    },
    /// It gets work again.
    NodeResumed {
        /// The node.
        node: NodeId,
    },
    /// Tell a node to heartbeat at once.
    Nudge {
        /// The node.
        node: NodeId,
    },
    /// Ready again, at once or after a pause.
    Requeue {
        /// The job.
        job: JobUid,
        /// The task.
        uid: TaskUid,
        /// Its new fence.
        fence: Fence,
        /// Why.
        cause: RequeueCause,
        /// Started attempts whose node died, so far.
        crashes: u32,
        /// How long it rests before it is ready; mostly zero.
        pause_ms: u64,
    },
    /// Make the rows of a job ready whose pause is over, and come back with [`Event::Woken`].
    Wake {
        /// The job.
        job: JobUid,
    },
    /// Ready again, or held, as if it had never been released.
    Unrelease {
        /// The job.
        job: JobUid,
        /// The task.
        uid: TaskUid,
        /// Its new fence.
        fence: Fence,
    },
    /// The owner's run is over, however; what it used is counted.
    Used {
        /// The job.
        job: JobUid,
        /// The task and its run.
        run: RunKey,
        /// What it used.
        work: Work,
        /// When it started.
        started_at: Timestamp,
    },
    /// What a run wrote whose task was ended or queued again before: kept if the task has not run since.
    KeepStreams {
        /// The node that tells it.
        node: NodeId,
        /// The end.
        finished: Box<Finished>,
    },
    /// Completed.
    End {
        /// The job.
        job: JobUid,
        /// The task.
        uid: TaskUid,
        /// Its last fence.
        fence: Fence,
        /// Whether it counted as running.
        was_running: bool,
        /// The node that ran it.
        node: Option<NodeId>,
        /// Why.
        cause: EndCause,
    },
    /// The row of a live task goes.
    Delete {
        /// The job.
        job: JobUid,
        /// The task.
        uid: TaskUid,
        /// Whether it counted as running.
        was_running: bool,
    },
    /// Tell the pool's agents not to start an attempt.
    Revoke(AttemptKey),
    /// Tell a node to end a run.
    Stop {
        /// The node.
        node: NodeId,
        /// The run.
        run: RunId,
        /// Why.
        verdict: Verdict,
    },
    /// A node's state changed.
    NodeState {
        /// The node.
        node: NodeId,
        /// Its new state.
        state: NodeState,
    },
    /// A node was asked for something beside running tasks, or has done it.
    NodeActionChanged {
        /// The node.
        node: NodeId,
        /// What, or nothing when it is over.
        action: Option<NodeAction>,
    },
    /// A node confirmed that it holds nothing.
    Drained {
        /// The node.
        node: NodeId,
    },
}

/// Why a task is completed.
#[derive(Debug, Clone, PartialEq)]
pub enum EndCause {
    /// Its run ended.
    Finished(Box<Finished>),
    /// A person, its job or its node's drain ended it.
    Ended,
    /// Its node died under it too often.
    Crashes(u32),
    /// So many different nodes could not run it, by faults of their own.
    Faults {
        /// How many.
        nodes: u32,
        /// The last one's.
        fault: Fault,
    },
    /// Its row cannot be read.
    Unreadable,
}
