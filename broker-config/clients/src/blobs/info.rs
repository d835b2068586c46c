//! Properties of a blob.

use aws_sdk_s3::primitives::DateTime;
use contract::time::Timestamp;

/// Properties of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    pub key: String,
    /// Size in bytes.
    pub length: u64,
    pub modified_at: Timestamp,
    /// Changes with the blob's bytes.
    pub etag: String,
}

impl BlobInfo {
    pub(super) fn new(key: &str, length: Option<i64>, modified: Option<&DateTime>, etag: Option<&str>) -> BlobInfo {
        BlobInfo {
            key: key.to_owned(),
            length: length.and_then(|length| u64::try_from(length).ok()).unwrap_or(0),
            modified_at: Timestamp(modified.and_then(|time| time.to_millis().ok()).unwrap_or(0)),
            etag: etag.unwrap_or_default().to_owned(),
        }
    }
}
