//! Single blobs: put, get, head, copy, delete.

use std::ops::Range;

use aws_sdk_s3::primitives::{ByteStream, DateTime};
use bytes::{Bytes, BytesMut};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::time::Timestamp;

use super::{BlobError, BlobHeaders, BlobStream, Blobs, headers::with_headers};

/// What must not stand raw in the header that names a copy's source.
const HEADER_UNSAFE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// What the store knows about a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its key.
    pub key: String,
    /// Its bytes.
    pub length: u64,
    /// When it was written.
    pub modified_at: Timestamp,
    /// Changes with its bytes.
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

impl Blobs {
    /// Writes a blob.
    pub async fn put(&self, bucket: &str, key: &str, bytes: Bytes) -> Result<(), BlobError> {
        self.put_with(bucket, key, bytes, &BlobHeaders::default()).await
    }

    /// Writes a blob that keeps these headers.
    pub(super) async fn put_with(&self, bucket: &str, key: &str, bytes: Bytes, headers: &BlobHeaders) -> Result<(), BlobError> {
        let request = self.client().put_object().bucket(bucket).key(key).body(ByteStream::from(bytes));
        let request = with_headers!(request, headers);
        request.send().await.map_err(|error| self.at(bucket, key).failure(error))?;
        Ok(())
    }

    /// Reads a blob or a range of it into memory.
    pub async fn get(&self, bucket: &str, key: &str, range: Option<Range<u64>>, bytes_max: usize) -> Result<Bytes, BlobError> {
        let mut stream = self.open(bucket, key, range).await?;
        let too_large = |length: u64| BlobError::TooLarge { key: key.to_owned(), length, bytes_max: bytes_max as u64 };
        if stream.length() > bytes_max as u64 {
            return Err(too_large(stream.length()));
        }
        let mut bytes = BytesMut::with_capacity(stream.length() as usize);
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk?);
            if bytes.len() > bytes_max {
                return Err(too_large(bytes.len() as u64));
            }
        }
        Ok(bytes.freeze())
    }

    /// Starts to read a blob or a range of it.
    pub async fn open(&self, bucket: &str, key: &str, range: Option<Range<u64>>) -> Result<BlobStream, BlobError> {
        if range.as_ref().is_some_and(|range| range.is_empty()) {
            return Ok(BlobStream::empty(self.head(bucket, key).await?));
        }
        BlobStream::open(self, bucket, key, range, None).await
    }

    /// Asks about a blob.
    pub async fn head(&self, bucket: &str, key: &str) -> Result<BlobInfo, BlobError> {
        let request = self.client().head_object().bucket(bucket).key(key);
        let found = request.send().await.map_err(|error| self.at(bucket, key).failure(error))?;
        Ok(BlobInfo::new(key, found.content_length(), found.last_modified(), found.e_tag()))
    }

    /// Deletes a blob; no error when there is none.
    pub async fn delete(&self, bucket: &str, key: &str) -> Result<(), BlobError> {
        match self.client().delete_object().bucket(bucket).key(key).send().await.map_err(|error| self.at(bucket, key).failure(error)) {
            Ok(_) | Err(BlobError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Copies a blob inside the store.
    pub async fn copy(&self, from_bucket: &str, from_key: &str, bucket: &str, key: &str) -> Result<(), BlobError> {
        let source = format!("{from_bucket}/{}", utf8_percent_encode(from_key, HEADER_UNSAFE));
        let request = self.client().copy_object().copy_source(source).bucket(bucket).key(key);
        request.send().await.map_err(|error| self.at(from_bucket, from_key).failure(error))?;
        Ok(())
    }
}
