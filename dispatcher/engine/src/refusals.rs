//! Refusals that several files use.

use contract::state::JobState;
use model::refusal::{Code, Refusal};

pub(super) const JOB_GOES: &str = "The specified job has been marked for deletion and is being garbage collected.";

/// The refusal of a change to a job in this state, if the state forbids it.
pub(super) fn closed(state: JobState) -> Option<Refusal> {
    let refusal = |code, message: &str| Some(Refusal::new(code, message).with("JobState", state));
    match state {
        JobState::Terminating => refusal(Code::JobBeingTerminated, "The specified job is being terminated."),
        JobState::Completed => refusal(Code::JobCompleted, "The specified job is already in a completed state."),
        JobState::Deleting => refusal(Code::JobBeingDeleted, JOB_GOES),
        _ => None,
    }
}

pub(super) fn invalid(state: JobState, message: &str) -> Refusal {
    Refusal::new(Code::OperationInvalidForCurrentState, message).with("JobState", state)
}

/// Error for a resource whose row cannot be read.
pub(super) fn illegible(what: &str) -> Refusal {
    Refusal::new(Code::InternalError, format!("The {what} is stored in a form that cannot be read."))
        .hint("`piecework doctor` names the row; the server's log says more.")
}

/// Error for a change that the store did not accept.
pub(super) fn not_stored() -> Refusal {
    Refusal::new(Code::ServerBusy, "The server could not store the change.").hint("Try again; creating with the same id is safe.")
}
