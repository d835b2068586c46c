//! Uploads files: one request for a small file, parts for a large one.
//!
//! Before a failed part is sent again, the store is asked whether it has it. An upload that fails or is given up is aborted,
//! so that the store keeps no unfinished parts.

use std::{collections::BTreeMap, path::Path};

use aws_sdk_s3::{
    primitives::{ByteStream, Length},
    types::{CompletedMultipartUpload, CompletedPart},
};
use futures::{StreamExt, stream};

use super::{
    BlobError, BlobHeaders, Blobs, PART_BYTES, PART_ROUNDS_MAX, PARTS_IN_FLIGHT, PARTS_MAX, headers::with_headers, measured::measured,
};

/// Etags of the parts that the store has.
type Stored = BTreeMap<i32, String>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    number: i32,
    offset: u64,
    length: u64,
}

impl Blobs {
    /// Uploads a file and returns its size in bytes.
    pub async fn upload_file(&self, bucket: &str, key: &str, path: &Path) -> Result<u64, BlobError> {
        self.upload_file_with(bucket, key, path, &BlobHeaders::default()).await
    }

    /// Uploads a file as a blob with these headers.
    pub async fn upload_file_with(&self, bucket: &str, key: &str, path: &Path, headers: &BlobHeaders) -> Result<u64, BlobError> {
        let local = |source| BlobError::Local { path: path.to_owned(), source };
        let meta = tokio::fs::metadata(path).await.map_err(local)?;
        if !meta.is_file() {
            return Err(local(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file")));
        }
        let length = meta.len();
        if length <= PART_BYTES {
            let bytes = tokio::fs::read(path).await.map_err(local)?;
            let length = bytes.len() as u64;
            self.put_with(bucket, key, bytes.into(), headers).await?;
            return Ok(length);
        }
        let upload = Upload::begin(self, bucket, key, path, headers).await?;
        let stored = upload.send(&parts(length)).await?;
        upload.complete(stored, length).await?;
        Ok(length)
    }
}

/// A multipart upload; aborted when dropped unfinished.
struct Upload<'a> {
    blobs: &'a Blobs,
    bucket: &'a str,
    key: &'a str,
    path: &'a Path,
    abort: Abort,
}

impl<'a> Upload<'a> {
    async fn begin(
        blobs: &'a Blobs,
        bucket: &'a str,
        key: &'a str,
        path: &'a Path,
        headers: &BlobHeaders,
    ) -> Result<Upload<'a>, BlobError> {
        let request = with_headers!(blobs.client().create_multipart_upload().bucket(bucket).key(key), headers);
        let created = measured("CreateMultipartUpload", request.send()).await.map_err(|error| blobs.at(bucket, key).failure(error))?;
        let id = created.upload_id().unwrap_or_default().to_owned();
        let abort = Abort { blobs: blobs.clone(), bucket: bucket.to_owned(), key: key.to_owned(), id, is_needed: true };
        Ok(Upload { blobs, bucket, key, path, abort })
    }

    async fn send(&self, parts: &[Part]) -> Result<Stored, BlobError> {
        let mut stored = Stored::new();
        for round in 1.. {
            let missing: Vec<Part> = parts.iter().copied().filter(|part| !stored.contains_key(&part.number)).collect();
            let mut sending = stream::iter(missing).map(|part| self.send_part(part)).buffer_unordered(PARTS_IN_FLIGHT);
            let mut failed = None;
            while let Some(sent) = sending.next().await {
                match sent {
                    Ok((number, etag)) => {
                        stored.insert(number, etag);
                    }
                    Err(error) if error.is_transient() && round < PART_ROUNDS_MAX => {
                        tracing::warn!(%error, key = self.key, round, "uploading a part failed, trying again");
                        failed = Some(error);
                    }
                    Err(error) => return Err(error),
                }
            }
            drop(sending);
            if failed.is_none() {
                break;
            }
            self.ask_what_is_stored(parts, &mut stored).await;
        }
        Ok(stored)
    }

    async fn send_part(&self, part: Part) -> Result<(i32, String), BlobError> {
        let body = ByteStream::read_from().path(self.path).offset(part.offset).length(Length::Exact(part.length)).build().await;
        let body = body.map_err(|error| BlobError::Local { path: self.path.to_owned(), source: std::io::Error::other(error) })?;
        let request = self.blobs.client().upload_part().bucket(self.bucket).key(self.key).upload_id(&self.abort.id);
        let request = request.part_number(part.number).content_length(part.length as i64).body(body);
        let sent = measured("UploadPart", request.send()).await.map_err(|error| self.blobs.at(self.bucket, self.key).failure(error))?;
        Ok((part.number, sent.e_tag().unwrap_or_default().to_owned()))
    }

    /// Finds parts whose answer was lost, so that they are not sent twice.
    async fn ask_what_is_stored(&self, parts: &[Part], stored: &mut Stored) {
        let mut after = None;
        loop {
            let request = self.blobs.client().list_parts().bucket(self.bucket).key(self.key).upload_id(&self.abort.id);
            let page = match measured("ListParts", request.set_part_number_marker(after.take()).send()).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::debug!(%error, "the store did not list the parts it has, sending the missing ones again");
                    return;
                }
            };
            for found in page.parts() {
                let Some(number) = found.part_number() else { continue };
                let is_whole = parts.iter().any(|part| part.number == number && found.size() == i64::try_from(part.length).ok());
                if let (true, Some(etag)) = (is_whole, found.e_tag()) {
                    stored.insert(number, etag.to_owned());
                }
            }
            after = page.next_part_number_marker().map(str::to_owned);
            if !page.is_truncated().unwrap_or(false) || after.is_none() {
                return;
            }
        }
    }

    async fn complete(mut self, stored: Stored, length: u64) -> Result<(), BlobError> {
        // Etags only: a store that got no checksum algorithm at the start refuses checksums here.
        let parts = stored.into_iter().map(|(number, etag)| CompletedPart::builder().part_number(number).e_tag(etag).build());
        let whole = CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build();
        let request = self.blobs.client().complete_multipart_upload().bucket(self.bucket).key(self.key);
        let request = request.upload_id(&self.abort.id).multipart_upload(whole);
        match measured("CompleteMultipartUpload", request.send()).await.map_err(|error| self.blobs.at(self.bucket, self.key).failure(error))
        {
            Ok(_) => {}
            // The answer to the first attempt was lost, and the second finds the upload completed.
            Err(BlobError::Store { code, .. }) if code == "NoSuchUpload" && self.is_there(length).await => {}
            Err(error) => return Err(error),
        }
        self.abort.is_needed = false;
        Ok(())
    }

    async fn is_there(&self, length: u64) -> bool {
        matches!(self.blobs.head(self.bucket, self.key).await, Ok(info) if info.length == length)
    }
}

struct Abort {
    blobs: Blobs,
    bucket: String,
    key: String,
    id: String,
    is_needed: bool,
}

impl Drop for Abort {
    fn drop(&mut self) {
        if !self.is_needed {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let request = self.blobs.client().abort_multipart_upload().bucket(&self.bucket).key(&self.key).upload_id(&self.id);
        let key = self.key.clone();
        runtime.spawn(async move {
            if let Err(error) = measured("AbortMultipartUpload", request.send()).await {
                tracing::warn!(%error, key, "a failed upload could not be aborted; its parts stay in the store");
            }
        });
    }
}

fn parts(length: u64) -> Vec<Part> {
    let size = PART_BYTES.max(length.div_ceil(PARTS_MAX));
    (0..length.div_ceil(size))
        .map(|index| Part { number: index as i32 + 1, offset: index * size, length: size.min(length - index * size) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_the_file_without_gaps_and_are_never_too_many() {
        for length in [PART_BYTES + 1, 3 * PART_BYTES, 100 * PART_BYTES + 7, 5_000_000_000_000] {
            let parts = parts(length);
            assert!(parts.len() as u64 <= PARTS_MAX);
            let end = parts.iter().fold(0, |end, part| {
                assert_eq!(part.offset, end);
                assert!(part.length > 0);
                end + part.length
            });
            assert_eq!(end, length);
            assert!(parts[..parts.len() - 1].iter().all(|part| part.length >= PART_BYTES));
        }
    }
}
