//! Why a command changed nothing: the present state does not allow it, or the store failed.
//!
//! `?` carries both through the engine's functions. [`answered`] tells them apart: a refusal answers one client, while
//! a failure of the store ends the whole transaction.

use model::refusal::Refusal;
use store::StoreError;
use thiserror::Error;

#[derive(Debug, Error)]
#[error(transparent)]
pub(super) enum CommandError {
    /// The client gets this answer and the transaction goes on.
    Refused(#[from] Refusal),
    /// The transaction is rolled back.
    Store(#[from] StoreError),
}

/// Separates the answer for the client from a failure of the store.
pub(super) fn answered<T>(result: Result<T, CommandError>) -> Result<Result<T, Refusal>, StoreError> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(CommandError::Refused(refusal)) => Ok(Err(refusal)),
        Err(CommandError::Store(error)) => Err(error),
    }
}
