//! Mutations of the scheduler's rules that the simulator must detect. Only tests can switch one on.

use crate::Core;

/// A mutation of one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    /// The end of a run that does not own the task is accepted.
    FinishedFromAnyone,
    /// An end of a run is accepted from a node that does not hold it.
    EndFromAnyNode,
    /// An end is accepted though its fence is old.
    OldFenceAccepted,
    /// Runs of a lost node are not queued again.
    NobodyReaped,
    /// What the broker lost is not published again.
    NoReconciler,
    /// The output of a run is dropped when its task was ended before the run could report.
    StreamsDropped,
    /// A lost run uses up one of its task's retries.
    LossSpendsRetries,
    /// One retry more than allowed is given.
    OneRetryTooMany,
    /// A run that its node does not list is never counted as missing.
    NobodyMissed,
    /// The requeue of a task does not count it as waiting.
    RequeueNotCounted,
    /// An ended attempt keeps its slots in the window.
    WindowNeverLeft,
    /// A question is always answered with run.
    AskAlwaysRuns,
    /// A cancelled task keeps its attempt.
    CancelKeepsAttempt,
    /// A run may upload although its fence is old.
    EverybodyPublishes,
    /// A restarted agent keeps the runs of its former epoch.
    RejoinKeepsOldRuns,
    /// A requeued task keeps its fence.
    RequeueKeepsFence,
    /// Released tasks of a job that was disabled with `wait` still start.
    WaitKeepsReleased,
    /// Tasks of a disabled job are released.
    StoppedJobsFill,
    /// Tasks run on a node on which their job's preparation failed.
    FailedPreparationForgotten,
    /// A preparation counts although the node has restarted.
    RebootKeepsPreparation,
    /// A preparation counts although the node's folders were emptied.
    ReimageKeepsPreparation,
    /// Tasks are released for nodes that are barred for the job.
    BarredNodesCount,
    /// A release is ordered only once, even if the order was lost.
    ReleaseToldOnce,
    /// A release on a node that is away is awaited for ever.
    ReleaseNeverGivenUp,
    /// A run whose start event was lost is not taken from its node's heartbeats.
    LostStartStaysLost,
    /// A report of a lost node is not taken from its heartbeats.
    LostReportStaysLost,
    /// A node that ended together with the dispatcher counts as crashed by its runs.
    StartCountsAsCrash,
    /// Timers follow the wall clock.
    LeasesByWallClock,
    /// Time in which the dispatcher itself stood still counts as silence of its nodes.
    GapIsSilence,
    /// No node is kept for a task of several slots.
    NothingKept,
    /// A node stays kept although its task has started or is gone.
    KeptForEver,
    /// A node is kept again beside the run that outlasted its last keep.
    VainKeepForgotten,
    /// No node is kept while the longest-waiting task fits none.
    UnfitBarsKeep,
    /// A task that fails repeatedly is retried at once.
    RetriesAtOnce,
    /// Only the first of several pausing rows is made ready again.
    WakesOnce,
    /// The end of a preparation is accepted from a superseded agent.
    OldStartPrepares,
    /// A node counts as drained although it keeps an end that was not read.
    DrainedBeforeItsEnds,
    /// Every node fault counts against a task, even several of one node.
    EveryFaultCounts,
    /// A node gets tasks although its runs fail through its own fault.
    FaultyNodeWorksOn,
    /// A node's pause is equally long after each fault.
    FaultPauseNeverGrows,
    /// A requeued task that fits no node any more is counted as waiting.
    UnfitWaits,
    /// Attempts that need more slots than nodes now have stay released.
    UnfitStaysReleased,
    /// A node that runs nothing but invocations of functions counts as empty.
    InvocationsUnseen,
}

impl Bug {
    /// All mutations.
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
        Bug::InvocationsUnseen,
    ];
}

#[cfg(test)]
impl Core {
    /// The same pool with a mutation.
    pub fn plant(&mut self, bug: Bug) {
        self.bug = Some(bug);
    }
}

#[cfg(not(test))]
impl Core {
    /// Always true: mutations exist in tests only.
    pub fn is_sound(&self) -> bool {
        self.bug.is_none()
    }
}
