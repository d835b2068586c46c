//! Errors of the blob client, and Azure's codes for them.

use std::{error::Error as StdError, io, path::PathBuf};

use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};
use thiserror::Error;

/// An operation on a blob that failed.
#[derive(Debug, Error)]
pub enum BlobError {
    #[error("no blob {key:?} in bucket {bucket:?}")]
    NotFound { bucket: String, key: String },
    #[error("no bucket {bucket:?}")]
    NoBucket { bucket: String },
    /// The store refused access.
    #[error("access to {key:?} in bucket {bucket:?} is denied")]
    Denied {
        bucket: String,
        /// Empty for the bucket itself.
        key: String,
    },
    /// The blob has more bytes than the caller allows.
    #[error("blob {key:?} has {length} bytes, at most {bytes_max} are allowed")]
    TooLarge {
        key: String,
        /// Size of the blob in bytes.
        length: u64,
        bytes_max: u64,
    },
    #[error("the blob store did not answer in time")]
    Timeout { bucket: String, key: String },
    /// The store could not be reached, or closed the connection.
    #[error("the blob store at {endpoint} cannot be reached")]
    Unreachable {
        endpoint: String,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The blob changed during the download.
    #[error("blob {key:?} changed while it was read")]
    Changed { key: String },
    /// A local file could not be read or written.
    #[error("cannot read or write the local file {}", path.display())]
    Local {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The store answered with another error.
    #[error("the blob store answered {status} {code}: {message}")]
    Store {
        /// The HTTP status; 0 when the answer had none.
        status: u16,
        /// The store's error code.
        code: String,
        /// The store's error message.
        message: String,
    },
    /// The URL does not name a container of this store.
    #[error("{url:?} is not a container of this store: {why}")]
    Url {
        /// Without its query, which may hold a signature.
        url: String,
        /// The rule that the URL breaks.
        why: &'static str,
    },
    /// Invalid settings.
    #[error("blob settings: {what}")]
    Settings {
        /// The rule that the settings break.
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

    /// True when a retry may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            BlobError::Timeout { .. } | BlobError::Unreachable { .. } | BlobError::Changed { .. } => true,
            BlobError::Store { status, .. } => *status == 0 || *status == 429 || *status >= 500,
            _ => false,
        }
    }
}

/// The bucket and key of an operation, to name them in an error.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) endpoint: &'a str,
    pub(super) bucket: &'a str,
    pub(super) key: &'a str,
}

impl At<'_> {
    /// Turns a failed request into an error.
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

    /// The error for an interrupted body.
    pub(super) fn unreachable(self, source: impl StdError + Send + Sync + 'static) -> BlobError {
        BlobError::Unreachable { endpoint: self.endpoint.to_owned(), source: source.into() }
    }

    pub(super) fn timeout(self) -> BlobError {
        BlobError::Timeout { bucket: self.bucket.to_owned(), key: self.key.to_owned() }
    }
}
