//! Blobs to files: one request for a small one, ranges side by side for a large one.
//!
//! Bytes go to a hidden name beside the target, which appears whole or not at all.
//! Every range goes on where it broke off, as long as the blob is still the same.

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

use super::{ATTEMPTS_MAX, BlobError, BlobStream, Blobs, PART_ROUNDS_MAX, PARTS_IN_FLIGHT, RANGE_BYTES};

const RANGE_NOT_SATISFIABLE: u16 = 416;

impl Blobs {
    /// Fetches a blob into a file and says how many bytes it has.
    pub async fn download_file(&self, bucket: &str, key: &str, path: &Path) -> Result<u64, BlobError> {
        for round in 1.. {
            let partial = Partial::beside(path);
            match self.download(bucket, key, &partial.path).await {
                Ok(length) => {
                    partial.rename(path).await?;
                    return Ok(length);
                }
                Err(BlobError::Changed { .. }) if round < PART_ROUNDS_MAX => {
                    tracing::debug!(key, "the blob changed while it was read, starting again");
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
            // There is no first byte in an empty blob.
            Err(BlobError::Store { status: RANGE_NOT_SATISFIABLE, .. }) => BlobStream::open(self, bucket, key, None, None).await?,
            other => other?,
        };
        let info = first.info().clone();
        // A store that ignores ranges sends everything at once.
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
    /// Writes one range to its place, going on where the stream broke off.
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
                    tracing::debug!(%error, key = self.key, at = range.start, "a range broke off, going on");
                }
                other => other?,
            }
        }
        // A write may still be under way inside the file.
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

/// A file that is not whole yet; removed when dropped.
struct Partial {
    path: PathBuf,
}

impl Partial {
    fn beside(target: &Path) -> Partial {
        let name = format!(".{:016x}.part", rand::random::<u64>());
        Partial { path: target.with_file_name(name) }
    }

    async fn rename(self, target: &Path) -> Result<(), BlobError> {
        let renamed = tokio::fs::rename(&self.path, target).await;
        renamed.map_err(|source| BlobError::Local { path: target.to_owned(), source })
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, path = %self.path.display(), "a partial download is left behind"),
        }
    }
}
