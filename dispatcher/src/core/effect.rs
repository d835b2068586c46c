//! What follows from an event: rows to write, things to publish, answers to give.

use broker_config::{
    ids::{AttemptKey, Epoch, Fence, JobUid, NodeId, RunId, RunKey, TaskUid},
    message::{Answer, Finished, NodeOrder, Verdict},
    state::NodeState,
    time::Timestamp,
};

use crate::{
    core::Turn,
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
    },
}

/// An answer without the spec, which is the engine's to add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskAnswer {
    /// Run it.
    Run,
    /// That run of yours has it.
    Resume(RunId),
    /// Forget it.
    Drop,
    /// Ask again later.
    Wait(u64),
}

impl From<AskAnswer> for Answer {
    fn from(answer: AskAnswer) -> Answer {
        match answer {
            AskAnswer::Run => Answer::Run { spec: None },
            AskAnswer::Resume(run) => Answer::Resume { run },
            AskAnswer::Drop => Answer::Drop,
            AskAnswer::Wait(ms) => Answer::Wait { ms },
        }
    }
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
