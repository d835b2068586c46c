//! Transfers file contents from nodes: small files over the broker in pieces, large ones by an upload to the bucket.
//!
//! An uploaded file stays under `transfer/` in our own bucket only while it is read; the sweep deletes what is left.

use std::{ops, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use clients::blobs::{BlobError, Blobs};
use contract::{
    ids::RunId,
    message::{FileEntry, FileReply, FileRequest},
    outcome::FILE_CHUNK_BYTES_MAX,
};
use futures::stream;
use model::refusal::{Code, Refusal};
use tokio::time::timeout;

use crate::{
    answer::Answer,
    call::Call,
    file_answer::{self, Range, missing},
    nodes::place::{Place, unexpected},
    state::ApiState,
};

/// Larger files are uploaded instead of being sent over the broker.
const ROAD_BYTES_MAX: u64 = 1024 * 1024;
/// Time limit for the blob store's answer and for each next piece.
const BLOB_TIMEOUT: Duration = Duration::from_secs(30);

fn blob_failed(error: &BlobError) -> Refusal {
    tracing::warn!(%error, "a blob with a task's file could not be read; the client gets an error");
    match error {
        BlobError::NotFound { .. } => Refusal::new(Code::TaskFilesUnavailable, "The file's bytes are not in the blob store any more."),
        _ => Refusal::new(Code::InternalError, "The blob store failed.").with("Reason", error).hint("See GET /piecework/health."),
    }
}

fn too_slow() -> Refusal {
    Refusal::new(Code::OperationTimedOut, "The blob store did not answer in time.").hint("See GET /piecework/health.")
}

/// Streams a part of a blob in our own bucket.
pub async fn open(api: &ApiState, key: &str, range: ops::Range<u64>) -> Result<Body, Refusal> {
    body(&api.blobs, key, range, None).await
}

/// Deletes an uploaded file when its last byte was read or the reader has gone away.
struct Cleanup {
    blobs: Blobs,
    key: String,
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        let (blobs, key) = (self.blobs.clone(), std::mem::take(&mut self.key));
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let bucket = blobs.settings().own_bucket.clone();
            match timeout(BLOB_TIMEOUT, blobs.delete(&bucket, &key)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, key, "a transferred file stays in the bucket"),
                Err(_) => tracing::warn!(key, "a transferred file stays in the bucket: no answer in time"),
            }
        });
    }
}

async fn body(blobs: &Blobs, key: &str, range: ops::Range<u64>, cleanup: Option<Cleanup>) -> Result<Body, Refusal> {
    let bucket = blobs.settings().own_bucket.clone();
    let opened = timeout(BLOB_TIMEOUT, blobs.open(&bucket, key, Some(range))).await.map_err(|_| too_slow())?;
    let blob = opened.map_err(|error| blob_failed(&error))?;
    let chunks = stream::try_unfold((blob, cleanup), |(mut blob, cleanup)| async move {
        match timeout(BLOB_TIMEOUT, blob.next()).await {
            Err(_) => Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "the blob store sent nothing in time")),
            Ok(None) => Ok(None),
            Ok(Some(Ok(chunk))) => Ok(Some((chunk, (blob, cleanup)))),
            Ok(Some(Err(error))) => Err(std::io::Error::other(error)),
        }
    });
    Ok(Body::from_stream(chunks))
}

impl Place {
    /// Bytes of a file.
    pub async fn content(&self, api: &ApiState, call: &Call, below: &str) -> Result<Answer, Refusal> {
        let range = Range::read(&call.headers)?;
        if call.condition != Default::default() {
            let entry = self.stat(api, below).await?.ok_or_else(|| missing(below))?;
            if let Some(answer) = file_answer::not_modified(call, &entry)? {
                return Ok(answer);
            }
        }
        let (entry, body, length) = fetch(api, self, below, range).await?;
        Ok(file_answer::content(call, &entry, body, length))
    }
}

/// A file's properties, the requested bytes, and their number.
async fn fetch(api: &ApiState, place: &Place, below: &str, range: Option<Range>) -> Result<(FileEntry, Body, u64), Refusal> {
    let path = place.path(below);
    let first = match range {
        Some(Range::From(start, end)) => start..end.map_or(u64::MAX, |end| end.saturating_add(1)),
        Some(Range::Last(_)) => 0..1,
        None => 0..u64::MAX,
    };
    let (entry, bytes) = read(api, place, &path, below, first.start, first.end - first.start).await?;
    if entry.is_directory {
        let refusal = Refusal::new(Code::OperationInvalidForCurrentState, "The path names a directory, which has no bytes.");
        return Err(refusal.with("FilePath", below).hint("List the files with recursive=true."));
    }
    let wanted = Range::within(range, entry.length)?;
    let length = wanted.end - wanted.start;
    if length > ROAD_BYTES_MAX {
        return upload(api, place, path, below, range).await;
    }
    let mut all = Vec::with_capacity(length as usize);
    if first.start == wanted.start {
        all.extend_from_slice(&bytes[..bytes.len().min(length as usize)]);
    }
    while (all.len() as u64) < length {
        let (_, bytes) = read(api, place, &path, below, wanted.start + all.len() as u64, length - all.len() as u64).await?;
        if bytes.is_empty() {
            break;
        }
        all.extend_from_slice(&bytes);
    }
    all.truncate(length as usize);
    let length = all.len() as u64;
    Ok((entry, Body::from(all), length))
}

async fn read(api: &ApiState, place: &Place, path: &str, below: &str, offset: u64, wanted: u64) -> Result<(FileEntry, Bytes), Refusal> {
    let request = FileRequest::Read { path: path.to_owned(), offset, length: wanted.min(FILE_CHUNK_BYTES_MAX as u64) };
    match api.files.ask(&place.pool, &place.node, request).await? {
        FileReply::Chunk { entry, bytes } => Ok((entry, bytes.into())),
        FileReply::Entry(entry) => Ok((entry, Bytes::new())),
        FileReply::NotFound => Err(missing(below)),
        reply => Err(unexpected(&reply)),
    }
}

async fn upload(api: &ApiState, place: &Place, path: String, below: &str, range: Option<Range>) -> Result<(FileEntry, Body, u64), Refusal> {
    let key = format!("transfer/{}", RunId::random());
    let cleanup = Cleanup { blobs: api.blobs.clone(), key: key.clone() };
    match api.files.ask(&place.pool, &place.node, FileRequest::Upload { path, key: key.clone() }).await? {
        FileReply::Entry(entry) => {
            let wanted = Range::within(range, entry.length)?;
            let length = wanted.end - wanted.start;
            let body = if length == 0 { Body::empty() } else { body(&api.blobs, &key, wanted, Some(cleanup)).await? };
            Ok((entry, body, length))
        }
        FileReply::NotFound => Err(missing(below)),
        reply => Err(unexpected(&reply)),
    }
}
