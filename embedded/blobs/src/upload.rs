//! Receives object bytes: hashed and written while they arrive, verified before anything is stored.
//!
//! ```text
//! body → small: stays in memory, is stored in the row
//!      └ large: batches → blocking thread (hash, write) → verify → sync → rename
//! ```
//! The network fills one batch while the previous one is written; at most two batches are in memory.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::StatusCode;
use s3s::{S3Error, S3ErrorCode, S3Result, StdError, s3_error};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::digest::{Claims, Digests, Hasher};
use crate::error::Error;
use crate::files::{Files, Fresh, Incoming};
use crate::reaper::Reaper;

/// Objects up to this size are stored in their row.
pub(crate) const INLINE_BYTES_MAX: usize = 64 * 1024;
const BATCH_BYTES: usize = 1024 * 1024;
/// Bytes between early syncs, so that the last sync has little left to do.
const SYNC_EVERY_BYTES: u64 = 32 * 1024 * 1024;
const SLICES_MAX: usize = 256;

/// The place of received bytes.
#[derive(Debug)]
pub(crate) enum Place {
    /// In memory, small enough for a row.
    Inline(Vec<u8>),
    /// In a file that no row names yet.
    File(Fresh),
}

/// A verified stream of bytes.
#[derive(Debug)]
pub(crate) struct Arrived<P> {
    pub(crate) place: P,
    pub(crate) size: u64,
    pub(crate) digests: Digests,
}

/// Receives bodies.
#[derive(Clone, Debug)]
pub(crate) struct Intake {
    pub(crate) files: Files,
    pub(crate) reaper: Reaper,
    pub(crate) bytes_max: u64,
    pub(crate) pace: ClientPace,
}

/// Time limit for a client, and the bytes that it must send in each such time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientPace {
    pub(crate) wait_max: Duration,
    pub(crate) bytes_min: u64,
}

impl Intake {
    /// Receives a whole body; up to `inline_max` bytes stay in memory. A wrong checksum leaves nothing behind.
    pub(crate) async fn receive<B>(
        &self,
        body: B,
        announced: Option<u64>,
        claims: &Claims,
        inline_max: usize,
    ) -> Result<Arrived<Place>, Error>
    where
        B: Stream<Item = Result<Bytes, StdError>> + Unpin,
    {
        let mut arriving = self.arriving(body, announced)?;
        let mut batch = Batch::default();
        let mut is_complete = false;
        while batch.bytes <= inline_max && !is_complete {
            is_complete = !arriving.next(&mut batch).await?;
        }
        let arrived = if is_complete && batch.bytes <= inline_max {
            let mut hasher = claims.hasher();
            let bytes = batch.slices.concat();
            hasher.update(&bytes);
            let digests = hasher.finish();
            claims.verify(&digests)?;
            Arrived { place: Place::Inline(bytes), size: arriving.size, digests }
        } else {
            let Arrived { place, size, digests } = arriving.into_file(batch, is_complete, claims).await?;
            Arrived { place: Place::File(place), size, digests }
        };
        Ok(arrived)
    }

    /// Receives a whole body into a file, however small it is.
    pub(crate) async fn receive_to_file<B>(&self, body: B, announced: Option<u64>, claims: &Claims) -> Result<Arrived<Fresh>, Error>
    where
        B: Stream<Item = Result<Bytes, StdError>> + Unpin,
    {
        self.arriving(body, announced)?.into_file(Batch::default(), false, claims).await
    }

    fn arriving<B>(&self, body: B, announced: Option<u64>) -> S3Result<Arriving<'_, B>> {
        if announced.is_some_and(|bytes| bytes > self.bytes_max) {
            return Err(self.too_large());
        }
        Ok(Arriving { intake: self, body, announced, size: 0, waited: Duration::ZERO, size_before: 0 })
    }

    fn too_large(&self) -> S3Error {
        s3_error!(EntityTooLarge, "Your proposed upload exceeds the maximum allowed size of {} bytes.", self.bytes_max)
    }
}

#[derive(Debug, Default)]
struct Batch {
    slices: Vec<Bytes>,
    bytes: usize,
}

struct Arriving<'a, B> {
    intake: &'a Intake,
    body: B,
    announced: Option<u64>,
    size: u64,
    /// Time spent waiting for the client since it was last fast enough, and the size it had sent by then.
    waited: Duration,
    size_before: u64,
}

impl<B> Arriving<'_, B>
where
    B: Stream<Item = Result<Bytes, StdError>> + Unpin,
{
    /// Adds the next frame of the body; false at its end.
    async fn next(&mut self, batch: &mut Batch) -> S3Result<bool> {
        let pace = self.intake.pace;
        let asked = Instant::now();
        let frame = tokio::time::timeout(pace.wait_max, self.body.next()).await.map_err(|_| too_slow())?;
        // Only the time spent waiting here counts, since a slow disk is not the client's fault.
        self.waited += asked.elapsed();
        let Some(frame) = frame else {
            return match self.announced {
                Some(bytes) if bytes != self.size => Err(S3ErrorCode::IncompleteBody.into()),
                _ => Ok(false),
            };
        };
        let frame = frame.map_err(broken_body)?;
        self.size += frame.len() as u64;
        if self.size > self.intake.bytes_max {
            return Err(self.intake.too_large());
        }
        if self.waited >= pace.wait_max {
            if self.size - self.size_before < pace.bytes_min {
                return Err(too_slow());
            }
            (self.waited, self.size_before) = (Duration::ZERO, self.size);
        }
        batch.bytes += frame.len();
        batch.slices.push(frame);
        Ok(true)
    }

    async fn into_file(mut self, first: Batch, is_complete: bool, claims: &Claims) -> Result<Arrived<Fresh>, Error> {
        let (files, reaper) = (self.intake.files.clone(), self.intake.reaper.clone());
        let hasher = claims.hasher();
        let mut batch = first;
        let mut is_complete = is_complete;
        let (mut sink, incoming) = blocking(move || {
            let (file, incoming) = files.create(&reaper)?;
            Ok((Sink { file, hasher, written: 0 }, incoming))
        })
        .await?;
        let mut early_sync: Option<JoinHandle<io::Result<()>>> = None;
        let mut synced = 0;
        loop {
            while batch.bytes < BATCH_BYTES && !is_complete {
                is_complete = !self.next(&mut batch).await?;
            }
            let full = std::mem::take(&mut batch);
            let writing = spawn_blocking(move || sink.write(full));
            while batch.bytes < BATCH_BYTES && !is_complete && !writing.is_finished() {
                is_complete = !self.next(&mut batch).await?;
            }
            sink = writing.await.map_err(|_| Error::Stopping)??;
            if is_complete && batch.slices.is_empty() {
                break;
            }
            if sink.written - synced >= SYNC_EVERY_BYTES {
                finish_sync(early_sync.take()).await?;
                synced = sink.written;
                let file = sink.file.try_clone()?;
                early_sync = Some(spawn_blocking(move || file.sync_data()));
            }
        }
        finish_sync(early_sync.take()).await?;
        self.settle(sink, incoming, claims).await
    }

    async fn settle(self, sink: Sink, incoming: Incoming, claims: &Claims) -> Result<Arrived<Fresh>, Error> {
        let digests = sink.hasher.finish();
        claims.verify(&digests)?;
        let files = self.intake.files.clone();
        let fresh = blocking(move || files.settle(&sink.file, incoming)).await?;
        Ok(Arrived { place: fresh, size: self.size, digests })
    }
}

/// An open file and the hashes of its bytes.
struct Sink {
    file: File,
    hasher: Hasher,
    written: u64,
}

impl Sink {
    fn write(mut self, batch: Batch) -> io::Result<Self> {
        for slices in batch.slices.chunks(SLICES_MAX) {
            let mut rest: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
            let mut rest = rest.as_mut_slice();
            IoSlice::advance_slices(&mut rest, 0);
            while !rest.is_empty() {
                match self.file.write_vectored(rest)? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    bytes => IoSlice::advance_slices(&mut rest, bytes),
                }
            }
            slices.iter().for_each(|slice| self.hasher.update(slice));
        }
        self.written += batch.bytes as u64;
        Ok(self)
    }
}

fn too_slow() -> S3Error {
    s3_error!(
        RequestTimeout,
        "Your socket connection to the server was not read from or written to within the timeout period. Idle connections will be closed."
    )
}

async fn finish_sync(sync: Option<JoinHandle<io::Result<()>>>) -> Result<(), Error> {
    match sync {
        Some(sync) => Ok(sync.await.map_err(|_| Error::Stopping)??),
        None => Ok(()),
    }
}

/// Runs file work on the bounded pool of blocking threads.
pub(crate) async fn blocking<T, W>(work: W) -> Result<T, Error>
where
    T: Send + 'static,
    W: FnOnce() -> io::Result<T> + Send + 'static,
{
    Ok(spawn_blocking(work).await.map_err(|_| Error::Stopping)??)
}

// The types of s3s's stream errors are private, so only their names distinguish them.
fn broken_body(error: StdError) -> S3Error {
    let text = error.to_string();
    if text.contains("Sha256Mismatch") {
        let mut answer = S3Error::with_message(
            S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into()),
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        );
        answer.set_status_code(StatusCode::BAD_REQUEST);
        answer
    } else if text.contains("SignatureMismatch") {
        s3_error!(SignatureDoesNotMatch, "The signature of a chunk does not match.")
    } else {
        let mut answer = S3Error::new(S3ErrorCode::IncompleteBody);
        answer.set_source(error);
        answer
    }
}
