//! Why a blob could not be moved, and which of Azure's codes a task gets for it.

use std::{error::Error as StdError, io, path::PathBuf};

use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};
use thiserror::Error;

/// Why something with blobs did not work.
#[derive(Debug, Error)]
pub enum BlobError {
    /// No such blob.
    #[error("no blob {key:?} in bucket {bucket:?}")]
    NotFound {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
    },
    /// No such bucket.
    #[error("no bucket {bucket:?}")]
    NoBucket {
        /// The bucket.
        bucket: String,
    },
    /// The store says no.
    #[error("access to {key:?} in bucket {bucket:?} is denied")]
    Denied {
        /// The bucket.
        bucket: String,
        /// The key; empty for the bucket itself.
        key: String,
    },
    /// More bytes than the caller wants.
    #[error("blob {key:?} has {length} bytes, the most is {bytes_max}")]
    TooLarge {
        /// The key.
        key: String,
        /// Bytes it has.
        length: u64,
        /// Bytes allowed.
        bytes_max: u64,
    },
    /// The store did not answer in time.
    #[error("the blob store did not answer in time")]
    Timeout {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
    },
    /// The store was not reached, or hung up.
    #[error("the blob store at {endpoint} is not reached")]
    Unreachable {
        /// Where it should be.
        endpoint: String,
        /// The cause.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The blob changed while it was read.
    #[error("blob {key:?} changed while it was read")]
    Changed {
        /// The key.
        key: String,
    },
    /// A local file could not be read or written.
    #[error("local file {}", path.display())]
    Local {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another answer of the store.
    #[error("the blob store answered {status} {code}: {message}")]
    Store {
        /// The HTTP status; 0 when there was none.
        status: u16,
        /// The store's code.
        code: String,
        /// The store's words.
        message: String,
    },
    /// A URL that is no place for blobs.
    #[error("{url:?} is no place for blobs: {why}")]
    Url {
        /// The URL, without its query.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Settings that cannot work.
    #[error("blob settings: {what}")]
    Settings {
        /// What is wrong with them.
        what: &'static str,
    },
}

impl BlobError {
    /// Azure Batch's code for a resource file that could not be fetched.
    pub fn code_for_download(&self) -> &'static str {
        match self {
            BlobError::NotFound { .. } | BlobError::NoBucket { .. } => "BlobNotFound",
            BlobError::Denied { .. } => "BlobAccessDenied",
            BlobError::Timeout { .. } => "BlobDownloadTimedOut",
            _ => "BlobDownloadMiscError",
        }
    }

    /// Azure Batch's code for an output file that could not be stored.
    pub fn code_for_upload(&self) -> &'static str {
        match self {
            BlobError::NotFound { .. } | BlobError::NoBucket { .. } => "FileUploadContainerNotFound",
            BlobError::Denied { .. } => "FileUploadAccessDenied",
            BlobError::Timeout { .. } => "FileUploadTimedOut",
            _ => "FileUploadMiscError",
        }
    }

    /// Whether the same thing may work a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            BlobError::Timeout { .. } | BlobError::Unreachable { .. } | BlobError::Changed { .. } => true,
            BlobError::Store { status, .. } => *status == 0 || *status == 429 || *status >= 500,
            _ => false,
        }
    }
}

/// Where something was tried, to name it when it fails.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) endpoint: &'a str,
    pub(super) bucket: &'a str,
    pub(super) key: &'a str,
}

impl At<'_> {
    /// Sorts a failed request.
    pub(super) fn failure<E>(self, error: SdkError<E, HttpResponse>) -> BlobError
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        let (bucket, key) = (self.bucket.to_owned(), self.key.to_owned());
        let status = error.raw_response().map_or(0, |response| response.status().as_u16());
        match &error {
            SdkError::TimeoutError(_) => return BlobError::Timeout { bucket, key },
            SdkError::DispatchFailure(failure) if failure.is_timeout() => return BlobError::Timeout { bucket, key },
            SdkError::DispatchFailure(_) | SdkError::ResponseError(_) if status == 0 => return self.unreachable(error),
            _ => {}
        }
        let code = error.code().unwrap_or_default().to_owned();
        match (status, code.as_str()) {
            (_, "NoSuchBucket") => BlobError::NoBucket { bucket },
            (404, "NoSuchUpload") => BlobError::Store { status, code, message: "the upload is gone".to_owned() },
            (404, _) if key.is_empty() => BlobError::NoBucket { bucket },
            (404, _) => BlobError::NotFound { bucket, key },
            (401 | 403, _) => BlobError::Denied { bucket, key },
            (412, _) => BlobError::Changed { key },
            _ => {
                let message = error.message().map_or_else(|| error.to_string(), str::to_owned);
                BlobError::Store { status, code, message }
            }
        }
    }

    /// A body that broke off.
    pub(super) fn unreachable(self, source: impl StdError + Send + Sync + 'static) -> BlobError {
        BlobError::Unreachable { endpoint: self.endpoint.to_owned(), source: source.into() }
    }

    pub(super) fn timeout(self) -> BlobError {
        BlobError::Timeout { bucket: self.bucket.to_owned(), key: self.key.to_owned() }
    }
}
