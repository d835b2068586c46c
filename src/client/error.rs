//! Errors of requests.

use thiserror::Error;

/// Pages of one list at most.
pub(super) const PAGES_MAX: usize = 100_000;

/// Errors of requests.
#[derive(Debug, Error)]
pub(crate) enum ClientError {
    /// The server did not answer.
    #[error("{url} does not answer: {reason}")]
    Unreachable { url: String, reason: String },
    /// The server answered with an error.
    #[error("{message} ({code})")]
    Refused {
        status: u16,
        /// Azure Batch's error code.
        code: String,
        /// The first line of the error's message, and its details.
        message: String,
    },
    /// The body of the answer is not what the operation returns.
    #[error("{url} answered something unexpected")]
    Answer { url: String, source: serde_json::Error },
    /// A list with too many pages.
    #[error("a list has more than {PAGES_MAX} pages")]
    Endless,
}

impl ClientError {
    /// Whether the server answered with this error code.
    pub(crate) fn is(&self, wanted: &str) -> bool {
        matches!(self, ClientError::Refused { code, .. } if code == wanted)
    }

    /// Whether the resource does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, ClientError::Refused { status: 404, .. })
    }
}
