//! Lists and deletes many blobs.

use aws_sdk_s3::types::{Delete, ObjectIdentifier};

use super::{client::Blobs, error::BlobError, info::BlobInfo, limits::PAGE_MAX, measured::measured};

/// Blobs in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    pub blobs: Vec<BlobInfo>,
    /// The `after` of the next page; nothing on the last one.
    pub next: Option<String>,
}

impl Blobs {
    /// Lists at most `max` blobs with a prefix whose keys come after `after`.
    pub async fn list(&self, bucket: &str, prefix: &str, after: Option<&str>, max: usize) -> Result<Listing, BlobError> {
        let mut listing = Listing { blobs: vec![], next: after.map(str::to_owned) };
        while listing.blobs.len() < max {
            let page_max = (max - listing.blobs.len()).min(PAGE_MAX) as i32;
            let request = self.client().list_objects_v2().bucket(bucket).prefix(prefix).max_keys(page_max);
            let request = request.set_start_after(listing.next.take());
            let page = measured("ListObjectsV2", request.send()).await.map_err(|error| self.at(bucket, "").failure(error))?;
            let found = page.contents().iter().filter_map(|object| {
                let key = object.key()?;
                Some(BlobInfo::new(key, object.size(), object.last_modified(), object.e_tag()))
            });
            let before = listing.blobs.len();
            listing.blobs.extend(found);
            let is_more = page.is_truncated().unwrap_or(false) && listing.blobs.len() > before;
            listing.next = if is_more { listing.blobs.last().map(|blob| blob.key.clone()) } else { None };
            if !is_more {
                break;
            }
        }
        Ok(listing)
    }

    /// Deletes all blobs with a prefix and returns their number.
    pub async fn delete_prefix(&self, bucket: &str, prefix: &str) -> Result<u64, BlobError> {
        let mut deleted = 0;
        let mut after = None;
        loop {
            let listing = self.list(bucket, prefix, after.as_deref(), PAGE_MAX).await?;
            if !listing.blobs.is_empty() {
                let keys: Vec<&str> = listing.blobs.iter().map(|blob| blob.key.as_str()).collect();
                self.delete_page(bucket, &keys).await?;
                deleted += listing.blobs.len() as u64;
            }
            match listing.next {
                Some(next) => after = Some(next),
                None => return Ok(deleted),
            }
        }
    }

    /// Deletes blobs by their keys; a missing blob is no error.
    pub async fn delete_keys(&self, bucket: &str, keys: &[&str]) -> Result<(), BlobError> {
        for keys in keys.chunks(PAGE_MAX) {
            self.delete_page(bucket, keys).await?;
        }
        Ok(())
    }

    async fn delete_page(&self, bucket: &str, keys: &[&str]) -> Result<(), BlobError> {
        let mut delete = Delete::builder().quiet(true);
        for &key in keys {
            delete = delete.objects(ObjectIdentifier::builder().key(key).build().expect("an object to delete needs a key alone"));
        }
        let delete = delete.build().expect("a deletion needs its objects alone");
        let request = self.client().delete_objects().bucket(bucket).delete(delete);
        let answer = measured("DeleteObjects", request.send()).await.map_err(|error| self.at(bucket, "").failure(error))?;
        match answer.errors().first() {
            None => Ok(()),
            Some(error) => Err(BlobError::Store {
                status: 200,
                code: error.code().unwrap_or_default().to_owned(),
                message: format!("{:?} was not deleted: {}", error.key().unwrap_or_default(), error.message().unwrap_or_default()),
            }),
        }
    }
}
