//! What follows from an event: rows to write, things to publish, answers to give.

use broker_config::{
    chore::{ChoreEnd, ChoreKey, ChoreKind},
    ids::{AttemptKey, Epoch, Fence, JobUid, NodeId, RunId, RunKey, TaskUid},
    message::{Finished, NodeOrder, Verdict},
    state::NodeState,
    time::Timestamp,
};

use crate::{
    core::{Site, Turn},
    store::{records::RequeueCause, usage::Work},
};

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
    /// A run that waited for a preparation began.
    Begin {
        /// The run.
        run: RunKey,
        /// When.
        at: Timestamp,
    },
    /// What a job did to a node has changed.
    Site {
        /// The job.
        job: JobUid,
        /// The node.
        node: NodeId,
        /// How it stands now.
        site: Site,
    },
    /// A node was asked for a preparation or release.
    ChoreBegun {
        /// The job.
        job: JobUid,
        /// The node.
        node: NodeId,
        /// Which of the two.
        kind: ChoreKind,
        /// When.
        at: Timestamp,
    },
    /// A preparation or release ended.
    ChoreEnded {
        /// The node.
        node: NodeId,
        /// How.
        end: Box<ChoreEnd>,
        /// Whether the node told it; otherwise the time of its beginning is not known here.
        is_told: bool,
    },
    /// Tell a node to beat at once.
    Nudge {
        /// The node.
        node: NodeId,
    },
    /// Ready again.
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
    Turned {
        /// The node.
        node: NodeId,
        /// What, or nothing when it is over.
        turn: Option<Turn>,
    },
    /// A node confirmed that it holds nothing.
    Drained {
        /// The node.
        node: NodeId,
    },
    /// The answer to an ask.
    Answer(AskAnswer),
    /// The answer to a may-publish.
    MayPublish(bool),
    /// The answer to a beat.
    Beaten {
        /// One for each run that is not simply fine.
        verdicts: Vec<(RunId, Verdict)>,
        /// What the node shall do.
        order: NodeOrder,
        /// Chores it named that are over.
        over: Vec<ChoreKey>,
        /// Releases it did not name that are due.
        releases: Vec<ChoreKey>,
    },
}

/// An answer without the spec, which is the engine's to add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskAnswer {
    /// Run it.
    Run,
    /// Run it after this preparation, or beside it where the job does not wait.
    Prepare(ChoreKey),
    /// That run of yours has it.
    Resume(RunId),
    /// Forget it.
    Drop,
    /// Ask again later.
    Wait(u64),
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
}
