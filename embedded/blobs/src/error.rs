//! All errors of this crate, in one enum.
//! Errors at start reach the caller of `Blobs::start`; the others become S3 error bodies (`gateway.rs`).

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use s3s::{S3Error, S3ErrorCode};

/// The reason why the server could not start, or why one request failed inside it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The data folder could not be created or read.
    #[error("cannot use the data folder {path}")]
    Folder {
        /// The folder or file.
        path: PathBuf,
        source: io::Error,
    },
    /// Another process uses the data folder.
    #[error("the data folder {path} is in use by another process")]
    InUse {
        /// The data folder.
        path: PathBuf,
    },
    /// The folder was written by a newer version.
    #[error("the data folder has format {found}, this version reads up to {known}")]
    Format {
        found: i64,
        /// The newest format that this version can read.
        known: i64,
    },
    /// The listening address could not be bound.
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    /// A thread or runtime could not be started.
    #[error("cannot start the server's threads")]
    Threads(#[source] io::Error),
    /// An error of SQLite.
    #[error("the catalogue database failed")]
    Catalogue(#[from] rusqlite::Error),
    /// A stored JSON value is malformed.
    #[error("a stored JSON value is malformed")]
    Description(#[from] serde_json::Error),
    /// Reading or writing object bytes failed.
    #[error("object bytes could not be read or written")]
    Bytes(#[from] io::Error),
    /// The server is stopping, so the request was not carried out.
    #[error("the server is stopping")]
    Stopping,
    /// A shared commit failed, so none of its writes happened.
    #[error("the commit failed: {reason}")]
    Commit {
        /// SQLite's error, shared by every write of the group.
        reason: String,
    },
    /// A refusal that the S3 client gets as it is.
    #[error("the request was refused")]
    Refused(#[source] S3Error),
}

impl Error {
    /// True when another process held a lock on the catalogue for longer than a connection waits; a later start may succeed.
    pub fn is_locked(&self) -> bool {
        let Self::Catalogue(error) = self else { return false };
        matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked))
    }
}

impl From<S3Error> for Error {
    fn from(refusal: S3Error) -> Self {
        Self::Refused(refusal)
    }
}

impl From<S3ErrorCode> for Error {
    fn from(code: S3ErrorCode) -> Self {
        Self::Refused(S3Error::new(code))
    }
}

impl From<Error> for S3Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(refusal) => refusal,
            Error::Stopping => S3Error::with_message(S3ErrorCode::ServiceUnavailable, "The server is stopping."),
            other => {
                tracing::error!(
                    error = &other as &dyn std::error::Error,
                    "an S3 request failed inside the embedded blob store; the client gets an error"
                );
                let mut answer = S3Error::with_message(S3ErrorCode::InternalError, "We encountered an internal error. Please try again.");
                answer.set_source(Box::new(other));
                answer
            }
        }
    }
}
