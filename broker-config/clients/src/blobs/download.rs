//! Downloads blobs to files: one request for a small blob, concurrent ranges for a large one.
//!
//! Bytes go to a hidden file beside the target, which is renamed once it is complete.
//! A broken range continues where it stopped, as long as the blob is still the same.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use futures::{StreamExt, TryStreamExt, stream};
use tokio::{
    fs::{File, OpenOptions},
    io::{AsyncSeekExt, AsyncWriteExt},
};

use crate::blobs::{
    client::Blobs,
    error::BlobError,
    limits::{ATTEMPTS_MAX, PART_ROUNDS_MAX, PARTS_IN_FLIGHT, RANGE_BYTES},
    stream::BlobStream,
};

const RANGE_NOT_SATISFIABLE: u16 = 416;

impl Blobs {
    /// Downloads a blob into a file and returns its size in bytes.
    pub async fn download_file(&self, bucket: &str, key: &str, path: &Path) -> Result<u64, BlobError> {
        for round in 1.. {
            let partial = Partial::beside(path);
            match self.download(bucket, key, &partial.path).await {
                Ok(length) => {
                    partial.rename(path).await.map_err(|source| BlobError::Local { path: path.to_owned(), source })?;
                    return Ok(length);
                }
                Err(BlobError::Changed { .. }) if round < PART_ROUNDS_MAX => {
                    tracing::debug!(key, "the blob changed during the download, starting again");
                }
                Err(error) => return Err(error),
            }
        }
        unreachable!("the last round returns")
    }

    async fn download(&self, bucket: &str, key: &str, path: &Path) -> Result<u64, BlobError> {
        let local = |source| BlobError::Local { path: path.to_owned(), source };
        let file = File::create(path).await.map_err(local)?;
        let first = match BlobStream::open(self, bucket, key, Some(0..RANGE_BYTES), None).await {
            // An empty blob has no first byte to ask for.
            Err(BlobError::Store { status: RANGE_NOT_SATISFIABLE, .. }) => BlobStream::open(self, bucket, key, None, None).await?,
            other => other?,
        };
        let info = first.info().clone();
        // A store that ignores ranges sends the whole blob at once.
        let head = first.length().max(RANGE_BYTES.min(info.length));
        let rest: Vec<Range<u64>> = (0..)
            .map(|index| head + index * RANGE_BYTES)
            .take_while(|start| *start < info.length)
            .map(|start| start..(start + RANGE_BYTES).min(info.length))
            .collect();
        let work = Fetch { blobs: self, bucket, key, etag: &info.etag, path };
        work.fetch(0..head, Some((file, first))).await?;
        let fetching = stream::iter(rest).map(|range| work.fetch(range, None)).buffer_unordered(PARTS_IN_FLIGHT);
        fetching.try_collect::<Vec<()>>().await?;
        Ok(info.length)
    }
}

struct Fetch<'a> {
    blobs: &'a Blobs,
    bucket: &'a str,
    key: &'a str,
    etag: &'a str,
    path: &'a Path,
}

impl Fetch<'_> {
    /// Writes one range to its place, continuing where the stream broke.
    async fn fetch(&self, mut range: Range<u64>, begun: Option<(File, BlobStream)>) -> Result<(), BlobError> {
        let local = |source| BlobError::Local { path: self.path.to_owned(), source };
        let (mut file, mut stream) = match begun {
            Some((file, stream)) => (file, Some(stream)),
            None => {
                let mut file = OpenOptions::new().write(true).open(self.path).await.map_err(local)?;
                file.seek(io::SeekFrom::Start(range.start)).await.map_err(local)?;
                (file, None)
            }
        };
        let mut failures = 0;
        while !range.is_empty() {
            let present = match stream.take() {
                Some(present) => Ok(present),
                None => BlobStream::open(self.blobs, self.bucket, self.key, Some(range.clone()), Some(self.etag)).await,
            };
            let result = match present {
                Ok(mut present) => self.pour(&mut present, &mut file, &mut range).await,
                Err(error) => Err(error),
            };
            match result {
                Err(error) if error.is_transient() && !matches!(error, BlobError::Changed { .. }) && failures < ATTEMPTS_MAX => {
                    failures += 1;
                    tracing::debug!(%error, key = self.key, at = range.start, "a download was interrupted, continuing at this byte");
                }
                other => other?,
            }
        }
        // A write inside the file may still be pending.
        file.flush().await.map_err(local)
    }

    async fn pour(&self, stream: &mut BlobStream, file: &mut File, range: &mut Range<u64>) -> Result<(), BlobError> {
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            let room = (range.end - range.start).min(chunk.len() as u64);
            file.write_all(&chunk[..room as usize]).await.map_err(|source| BlobError::Local { path: self.path.to_owned(), source })?;
            range.start += room;
        }
        Ok(())
    }
}

/// An incomplete file beside its target; removed when dropped.
pub struct Partial {
    path: PathBuf,
}

impl Partial {
    /// A random name in the target's folder; no file is created yet.
    pub fn beside(target: &Path) -> Partial {
        let name = format!(".{:016x}.part", rand::random::<u64>());
        Partial { path: target.with_file_name(name) }
    }

    /// The hidden file to write to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Renames the file to its target, replacing an existing one.
    pub async fn rename(self, target: &Path) -> io::Result<()> {
        tokio::fs::rename(&self.path, target).await
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Removed synchronously: the path may lead through a descriptor that is closed after this.
        match std::fs::remove_file(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "a partial download could not be removed and stays on the disk")
            }
        }
    }
}
