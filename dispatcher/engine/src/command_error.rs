//! Why a command changed nothing: the present state does not allow it, or the store failed.
//!
//! `?` carries both through the functions that work on commands. They part in [`answered`] alone, as a refusal is an
//! answer to one client and a failure of the store ends the transaction of everybody.

use model::refusal::Refusal;
use store::StoreError;
use thiserror::Error;

#[derive(Debug, Error)]
#[error(transparent)]
pub(super) enum CommandError {
    /// The client gets this answer, and the transaction goes on.
    Refused(#[from] Refusal),
    /// The transaction cannot go on.
    Store(#[from] StoreError),
}

/// What to answer, unless the store failed.
pub(super) fn answered<T>(result: Result<T, CommandError>) -> Result<Result<T, Refusal>, StoreError> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(CommandError::Refused(refusal)) => Ok(Err(refusal)),
        Err(CommandError::Store(error)) => Err(error),
    }
}
