//! Streams a blob piece by piece.

use std::ops::Range;

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use futures::Stream;
use tokio::time::timeout;

use super::{client::Blobs, error::BlobError, info::BlobInfo, limits::CHUNK_TIMEOUT, measured::measured};

/// The bytes of a blob or of a range of it, as they arrive.
pub struct BlobStream {
    blobs: Option<Blobs>,
    bucket: String,
    info: BlobInfo,
    length: u64,
    received: u64,
    body: ByteStream,
}

impl BlobStream {
    pub(super) fn empty(info: BlobInfo) -> BlobStream {
        BlobStream { blobs: None, bucket: String::new(), info, length: 0, received: 0, body: ByteStream::default() }
    }

    pub(super) async fn open(
        blobs: &Blobs,
        bucket: &str,
        key: &str,
        range: Option<Range<u64>>,
        etag: Option<&str>,
    ) -> Result<BlobStream, BlobError> {
        let mut request = blobs.client().get_object().bucket(bucket).key(key).set_if_match(etag.map(str::to_owned));
        if let Some(range) = range {
            request = request.range(format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
        }
        let found = measured("GetObject", request.send()).await.map_err(|error| blobs.at(bucket, key).failure(error))?;
        let mut info = BlobInfo::new(key, found.content_length(), found.last_modified(), found.e_tag());
        let length = info.length;
        // `bytes 0-99/1234`: the number after the slash is the length of the whole blob.
        if let Some(whole) = found.content_range().and_then(|range| range.rsplit('/').next()).and_then(|length| length.parse().ok()) {
            info.length = whole;
        }
        Ok(BlobStream { blobs: Some(blobs.clone()), bucket: bucket.to_owned(), info, length, received: 0, body: found.body })
    }

    /// Length of the stream in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Properties of the whole blob.
    pub fn info(&self) -> &BlobInfo {
        &self.info
    }

    /// The next piece; nothing at the end.
    pub async fn next(&mut self) -> Option<Result<Bytes, BlobError>> {
        let blobs = self.blobs.as_ref()?;
        let at = blobs.at(&self.bucket, &self.info.key);
        match timeout(CHUNK_TIMEOUT, self.body.next()).await {
            Err(_) => Some(Err(at.timeout())),
            Ok(Some(Ok(chunk))) => {
                self.received += chunk.len() as u64;
                Some(Ok(chunk))
            }
            Ok(Some(Err(error))) => Some(Err(at.unreachable(error))),
            Ok(None) if self.received < self.length => Some(Err(at.unreachable(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)))),
            Ok(None) => None,
        }
    }

    /// Turns it into a stream, which ends at the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, BlobError>> + Send + 'static {
        futures::stream::unfold(Some(self), |state| async move {
            let mut stream = state?;
            let item = stream.next().await?;
            let rest = item.is_ok().then_some(stream);
            Some((item, rest))
        })
    }
}
