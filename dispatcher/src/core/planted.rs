//! Mistakes in the rules that the simulator must find; only tests can switch one on.

use crate::core::Core;

/// A one-line mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    /// The end of a run that does not own the task is accepted.
    FinishedFromAnyone,
    /// An end is accepted though its fence is old.
    OldFenceAccepted,
    /// Runs of a lost node are not queued again.
    NobodyReaped,
    /// What the broker lost is not published again.
    NoReconciler,
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
}

impl Bug {
    /// All of them.
    pub const ALL: &'static [Bug] = &[
        Bug::FinishedFromAnyone,
        Bug::OldFenceAccepted,
        Bug::NobodyReaped,
        Bug::NoReconciler,
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
