//! Effects of events and questions: rows to write, messages to publish, orders to send.

use contract::{
    ids::{AttemptKey, Epoch, Fence, JobUid, NodeId, RunId, RunKey, TaskUid},
    message::{Finished, Verdict},
    outcome::{Fault, JobTaskEnd, JobTaskKind},
    state::NodeState,
    time::Timestamp,
};
use model::{job_tasks::JobOnNode, node::NodeAction, task::RequeueCause, usage::Work};

/// An effect of a step. All effects of a step belong in one transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Read the next ready rows of a job and answer with [`Event::Fetched`].
    Fetch {
        job: JobUid,
        count: u32,
    },
    /// Store the attempt with an outbox row, then publish it with `start: now`.
    Release {
        job: JobUid,
        key: AttemptKey,
        /// Reserved slots; an attempt with more than one goes to the queue for wide tasks.
        slots: u32,
    },
    /// Publish the attempt again with `start: ask`.
    Republish {
        key: AttemptKey,
        /// Reserved slots.
        slots: u32,
    },
    /// Delete the outbox row.
    Published {
        uid: TaskUid,
    },
    /// A run has become the owner of the attempt.
    Start {
        job: JobUid,
        run: RunKey,
        node: NodeId,
        epoch: Epoch,
        at: Timestamp,
        /// Whether it first waits for the job's preparation on the node.
        is_preparing: bool,
    },
    /// A run that waited for a preparation has begun, or the start time of a run known from heartbeats has arrived.
    Begin {
        run: RunKey,
        at: Timestamp,
    },
    /// The state of a job on a node has changed; store it.
    JobOnNode {
        job: JobUid,
        node: NodeId,
        job_on_node: JobOnNode,
    },
    /// A node was ordered to run a preparation or release.
    JobTaskBegun {
        job: JobUid,
        node: NodeId,
        kind: JobTaskKind,
        at: Timestamp,
    },
    /// A preparation or release has ended.
    JobTaskEnded {
        node: NodeId,
        end: Box<JobTaskEnd>,
        /// Whether the node reported the end; if not, the start time is unknown.
        is_told: bool,
    },
    /// A node's slots are reserved for an attempt of several slots; ask it for a heartbeat at once.
    Keep {
        node: NodeId,
        key: AttemptKey,
        /// Slots that the attempt takes.
        slots: u32,
        /// How long the attempt has waited.
        waited_ms: i64,
    },
    /// The reservation of a node's slots has ended.
    GiveBack {
        node: NodeId,
        key: AttemptKey,
    },
    /// A node gets no tasks for a while, because its runs fail through its own fault.
    NodePaused {
        node: NodeId,
        /// Faults in a row.
        in_a_row: u32,
        pause_ms: i64,
        fault: Fault,
    },
    /// A paused node gets tasks again.
    NodeResumed {
        node: NodeId,
    },
    /// Ask a node for a heartbeat at once.
    Nudge {
        node: NodeId,
    },
    /// Queue the task again, at once or after a pause.
    Requeue {
        job: JobUid,
        uid: TaskUid,
        fence: Fence,
        cause: RequeueCause,
        /// Earlier attempts that had started when their node died.
        crashes: u32,
        /// Pause before the row is ready; mostly zero.
        pause_ms: u64,
    },
    /// Make the rows of a job ready whose pause is over, and answer with [`Event::Woken`].
    Wake {
        job: JobUid,
    },
    /// Make the row ready, or held, as if it had never been released.
    Unrelease {
        job: JobUid,
        uid: TaskUid,
        fence: Fence,
    },
    /// The owner's run has ended in whatever way; add what it used.
    Used {
        job: JobUid,
        /// The task and its run.
        run: RunKey,
        work: Work,
        started_at: Timestamp,
    },
    /// A run whose task was already ended or queued again reports its output streams; keep them unless the task has run
    /// since.
    KeepStreams {
        /// The node that reports.
        node: NodeId,
        finished: Box<Finished>,
    },
    /// Complete the task.
    End {
        job: JobUid,
        uid: TaskUid,
        fence: Fence,
        /// Whether the job's counters count it as running.
        was_running: bool,
        /// The node that ran it.
        node: Option<NodeId>,
        cause: EndCause,
    },
    /// Delete the row of a released or running task.
    Delete {
        job: JobUid,
        uid: TaskUid,
        /// Whether the job's counters count it as running.
        was_running: bool,
    },
    /// Order the pool's agents not to start an attempt.
    Revoke(AttemptKey),
    /// Order a node to end a run.
    Stop {
        node: NodeId,
        run: RunId,
        verdict: Verdict,
    },
    NodeState {
        node: NodeId,
        state: NodeState,
    },
    /// A node's action has begun or changed.
    NodeActionChanged {
        node: NodeId,
        /// The present action; `None` when it has finished.
        action: Option<NodeAction>,
    },
    /// A node has confirmed that it holds no runs.
    Drained {
        node: NodeId,
    },
}

/// Why a task is completed.
#[derive(Debug, Clone, PartialEq)]
pub enum EndCause {
    Finished(Box<Finished>),
    /// A client, the end of its job or the drain of its node ended it.
    Ended,
    /// Its node died during too many of its attempts.
    Crashes(u32),
    /// Too many different nodes failed to run it, through faults of their own.
    Faults {
        nodes: u32,
        fault: Fault,
    },
    /// Its row cannot be read.
    Unreadable,
}
