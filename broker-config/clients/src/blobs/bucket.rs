//! Creates buckets, and checks that the store can be used at all.

use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};
use bytes::Bytes;

use super::{BlobError, Blobs, measured::measured};

const PROBE: &[u8] = b"piecework was here";

impl Blobs {
    /// Creates both buckets when they are missing, then writes, reads and deletes a test blob.
    pub async fn check(&self) -> Result<(), BlobError> {
        let own = &self.settings().own_bucket;
        self.ensure_bucket(&self.settings().bucket).await?;
        self.ensure_bucket(own).await?;
        let key = format!("probe/{:032x}", rand::random::<u128>());
        self.put(own, &key, Bytes::from_static(PROBE)).await?;
        let read = self.get(own, &key, None, PROBE.len()).await?;
        self.delete(own, &key).await?;
        if read != PROBE {
            return Err(BlobError::Store { status: 200, code: String::new(), message: "the probe came back changed".to_owned() });
        }
        Ok(())
    }

    /// Creates a bucket unless it exists.
    pub async fn ensure_bucket(&self, bucket: &str) -> Result<(), BlobError> {
        let at = self.at(bucket, "");
        match measured("HeadBucket", self.client().head_bucket().bucket(bucket).send()).await.map_err(|error| at.failure(error)) {
            Ok(_) => return Ok(()),
            Err(BlobError::NoBucket { .. }) => {}
            Err(error) => return Err(error),
        }
        let mut request = self.client().create_bucket().bucket(bucket);
        // Only Amazon needs the location, and only outside its first region.
        if self.settings().endpoint.contains(".amazonaws.com") && self.settings().region != "us-east-1" {
            let place = BucketLocationConstraint::from(self.settings().region.as_str());
            request = request.create_bucket_configuration(CreateBucketConfiguration::builder().location_constraint(place).build());
        }
        match measured("CreateBucket", request.send()).await.map_err(|error| at.failure(error)) {
            Ok(_) => Ok(()),
            Err(BlobError::Store { code, .. }) if code == "BucketAlreadyOwnedByYou" => Ok(()),
            Err(error) => Err(error),
        }
    }
}
