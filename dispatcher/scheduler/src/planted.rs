//! Mistakes in the rules that the simulator must find; only tests can switch one on.

use crate::Core;

/// A one-line mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    /// The end of a run that does not own the task is accepted.
    FinishedFromAnyone,
    /// The end of a run is accepted from a node that does not have it.
    EndFromAnyNode,
    /// An end is accepted though its fence is old.
    OldFenceAccepted,
    /// Runs of a lost node are not queued again.
    NobodyReaped,
    /// What the broker lost is not published again.
    NoReconciler,
    /// What a run wrote is dropped when its task was ended before it could tell.
    StreamsDropped,
    /// A lost run spends one of its task's retries.
    LossSpendsRetries,
    /// One retry more than allowed is given.
    OneRetryTooMany,
    /// A run that its node does not list is never missed.
    NobodyMissed,
    /// A requeued task is not counted as waiting.
    RequeueNotCounted,
    /// An ended attempt keeps its slots in the window.
    WindowNeverLeft,
    /// A question is always answered with run.
    AskAlwaysRuns,
    /// A cancelled task keeps its attempt.
    CancelKeepsAttempt,
    /// A run may upload though it was fenced.
    EverybodyPublishes,
    /// A new start of an agent keeps the runs of the old one.
    RejoinKeepsOldRuns,
    /// A requeued task keeps its fence.
    RequeueKeepsFence,
    /// A disabled job whose running tasks go on starts those that were released, too.
    WaitKeepsReleased,
    /// A disabled job's tasks are released all the same.
    StoppedJobsFill,
    /// Tasks run on a node on which their job's preparation failed.
    FailedPreparationForgotten,
    /// A preparation counts though the node has started again.
    RebootKeepsPreparation,
    /// A preparation counts though the node's folders are empty.
    ReimageKeepsPreparation,
    /// Tasks are released for nodes that may not run them.
    BarredNodesCount,
    /// A release that was not heard of is not told again.
    ReleaseToldOnce,
    /// A release whose node is away is waited for for ever.
    ReleaseNeverGivenUp,
    /// A run whose start was lost is not taken from its node's heartbeats.
    LostStartStaysLost,
    /// A report of a node that was lost is not taken from its heartbeats.
    LostReportStaysLost,
    /// A node that ended together with the dispatcher counts as crashed by what it ran.
    StartCountsAsCrash,
    /// Timers follow the clock that people set.
    LeasesByWallClock,
    /// The time in which the dispatcher itself stood still counts as silence of its nodes.
    GapIsSilence,
    /// No node is kept for a task of several slots.
    NothingKept,
    /// A node is kept though its task has started or is gone.
    KeptForEver,
    /// A node is kept again beside the run that outlasted its last keep.
    VainKeepForgotten,
    /// No node is kept while the first in line fits none.
    UnfitBarsKeep,
    /// A task that fails again and again is tried again at once.
    RetriesAtOnce,
    /// Of several rows that rest only the first are made ready again.
    WakesOnce,
    /// The end of a preparation is believed though its agent was superseded.
    OldStartPrepares,
    /// A node counts as drained though it keeps an end that is not read yet.
    DrainedBeforeItsEnds,
    /// Every fault of a node counts against a task, also those of one node.
    EveryFaultCounts,
    /// A node whose runs end by its own faults gets work all the same.
    FaultyNodeWorksOn,
    /// A node rests equally long after each of its faults.
    FaultPauseNeverGrows,
    /// A task that comes back and fits no node any more is counted as waiting.
    UnfitWaits,
    /// What was released for more slots than nodes have now stays released.
    UnfitStaysReleased,
}

impl Bug {
    /// All of them.
    pub const ALL: &'static [Bug] = &[
        Bug::FinishedFromAnyone,
        Bug::EndFromAnyNode,
        Bug::OldFenceAccepted,
        Bug::NobodyReaped,
        Bug::NoReconciler,
        Bug::StreamsDropped,
        Bug::LossSpendsRetries,
        Bug::OneRetryTooMany,
        Bug::NobodyMissed,
        Bug::RequeueNotCounted,
        Bug::WindowNeverLeft,
        Bug::AskAlwaysRuns,
        Bug::CancelKeepsAttempt,
        Bug::EverybodyPublishes,
        Bug::RejoinKeepsOldRuns,
        Bug::RequeueKeepsFence,
        Bug::WaitKeepsReleased,
        Bug::StoppedJobsFill,
        Bug::FailedPreparationForgotten,
        Bug::RebootKeepsPreparation,
        Bug::ReimageKeepsPreparation,
        Bug::BarredNodesCount,
        Bug::ReleaseToldOnce,
        Bug::ReleaseNeverGivenUp,
        Bug::LostStartStaysLost,
        Bug::LostReportStaysLost,
        Bug::StartCountsAsCrash,
        Bug::LeasesByWallClock,
        Bug::GapIsSilence,
        Bug::NothingKept,
        Bug::KeptForEver,
        Bug::VainKeepForgotten,
        Bug::UnfitBarsKeep,
        Bug::RetriesAtOnce,
        Bug::WakesOnce,
        Bug::OldStartPrepares,
        Bug::DrainedBeforeItsEnds,
        Bug::EveryFaultCounts,
        Bug::FaultyNodeWorksOn,
        Bug::FaultPauseNeverGrows,
        Bug::UnfitWaits,
        Bug::UnfitStaysReleased,
    ];
}

#[cfg(test)]
impl Core {
    /// The same pool with a mistake in its rules.
    pub fn plant(&mut self, bug: Bug) {
        self.bug = Some(bug);
    }
}

#[cfg(not(test))]
impl Core {
    /// Mistakes cannot be planted outside tests.
    pub fn is_sound(&self) -> bool {
        self.bug.is_none()
    }
}
