//! What can go wrong in this crate, in one enum.
//! Start-up failures reach the caller of `Blobs::start`; the rest become S3 error bodies at the door (`answer.rs`).

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use s3s::{S3Error, S3ErrorCode};

/// Why the server could not start, or why one request failed inside it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The data folder could not be created or read.
    #[error("cannot use the data folder {path}")]
    Folder {
        /// The folder or file in question.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process holds the data folder.
    #[error("the data folder {path} is in use by another process")]
    InUse {
        /// The folder in question.
        path: PathBuf,
    },
    /// The folder was written by a newer version.
    #[error("the data folder has format {found}, this version knows up to {known}")]
    Format {
        /// What stands in the folder.
        found: i64,
        /// The newest this version knows.
        known: i64,
    },
    /// The listening address cannot be bound.
    #[error("cannot listen on {address}")]
    Listen {
        /// The wanted address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A thread or runtime could not be started.
    #[error("cannot start the server's threads")]
    Threads(#[source] io::Error),
    /// The catalogue failed.
    #[error("the object catalogue failed")]
    Catalogue(#[from] rusqlite::Error),
    /// A stored description does not parse.
    #[error("a stored description is not readable")]
    Description(#[from] serde_json::Error),
    /// Reading or writing object bytes failed.
    #[error("object bytes could not be moved")]
    Bytes(#[from] io::Error),
    /// The server is stopping, so the request was not carried out.
    #[error("the server is stopping")]
    Stopping,
    /// A shared commit failed, so none of its writes happened.
    #[error("the commit failed: {reason}")]
    Commit {
        /// What the catalogue said, shared by every write of the group.
        reason: String,
    },
    /// A refusal that the S3 client shall see as it is.
    #[error("refused")]
    Refused(#[source] S3Error),
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
                tracing::error!(error = &other as &dyn std::error::Error, "request failed inside the store");
                let mut answer = S3Error::with_message(S3ErrorCode::InternalError, "We encountered an internal error. Please try again.");
                answer.set_source(Box::new(other));
                answer
            }
        }
    }
}
