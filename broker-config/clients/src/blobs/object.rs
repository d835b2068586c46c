//! Operations on single blobs: put, get, head, copy, delete.

use std::ops::Range;

use aws_sdk_s3::primitives::ByteStream;
use bytes::{Bytes, BytesMut};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    client::Blobs,
    error::BlobError,
    headers::{BlobHeaders, with_headers},
    info::BlobInfo,
    measured::measured,
    stream::BlobStream,
};

/// Characters to escape in the header that names a copy's source.
const HEADER_UNSAFE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

impl Blobs {
    /// Writes a blob.
    pub async fn put(&self, bucket: &str, key: &str, bytes: Bytes) -> Result<(), BlobError> {
        self.put_with(bucket, key, bytes, &BlobHeaders::default()).await
    }

    /// Writes a blob with these headers.
    pub(super) async fn put_with(&self, bucket: &str, key: &str, bytes: Bytes, headers: &BlobHeaders) -> Result<(), BlobError> {
        let request = self.client().put_object().bucket(bucket).key(key).body(ByteStream::from(bytes));
        let request = with_headers!(request, headers);
        measured("PutObject", request.send()).await.map_err(|error| self.at(bucket, key).failure(error))?;
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

    /// Opens a blob or a range of it for streaming.
    pub async fn open(&self, bucket: &str, key: &str, range: Option<Range<u64>>) -> Result<BlobStream, BlobError> {
        if range.as_ref().is_some_and(|range| range.is_empty()) {
            return Ok(BlobStream::empty(self.head(bucket, key).await?));
        }
        BlobStream::open(self, bucket, key, range, None).await
    }

    /// Properties of a blob.
    pub async fn head(&self, bucket: &str, key: &str) -> Result<BlobInfo, BlobError> {
        let request = self.client().head_object().bucket(bucket).key(key);
        let found = measured("HeadObject", request.send()).await.map_err(|error| self.at(bucket, key).failure(error))?;
        Ok(BlobInfo::new(key, found.content_length(), found.last_modified(), found.e_tag()))
    }

    /// Deletes a blob; a missing blob is no error.
    pub async fn delete(&self, bucket: &str, key: &str) -> Result<(), BlobError> {
        let request = self.client().delete_object().bucket(bucket).key(key);
        match measured("DeleteObject", request.send()).await.map_err(|error| self.at(bucket, key).failure(error)) {
            Ok(_) | Err(BlobError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Copies a blob inside the store.
    pub async fn copy(&self, from_bucket: &str, from_key: &str, bucket: &str, key: &str) -> Result<(), BlobError> {
        let source = format!("{from_bucket}/{}", utf8_percent_encode(from_key, HEADER_UNSAFE));
        let request = self.client().copy_object().copy_source(source).bucket(bucket).key(key);
        measured("CopyObject", request.send()).await.map_err(|error| self.at(from_bucket, from_key).failure(error))?;
        Ok(())
    }
}
