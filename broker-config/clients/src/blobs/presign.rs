//! Makes presigned URLs, which need no other credentials until they expire.

use std::time::Duration;

use aws_sdk_s3::presigning::PresigningConfig;

use super::{BlobError, Blobs, PRESIGN_MAX};

impl Blobs {
    /// Presigns a URL to read a blob.
    pub async fn presign_get(&self, bucket: &str, key: &str, expires: Duration) -> Result<String, BlobError> {
        let request = self.client().get_object().bucket(bucket).key(key);
        let signed = request.presigned(lifetime(expires)?).await.map_err(|error| self.at(bucket, key).failure(error))?;
        Ok(signed.uri().to_owned())
    }

    /// Presigns a URL to write a blob.
    pub async fn presign_put(&self, bucket: &str, key: &str, expires: Duration) -> Result<String, BlobError> {
        let request = self.client().put_object().bucket(bucket).key(key);
        let signed = request.presigned(lifetime(expires)?).await.map_err(|error| self.at(bucket, key).failure(error))?;
        Ok(signed.uri().to_owned())
    }
}

fn lifetime(expires: Duration) -> Result<PresigningConfig, BlobError> {
    PresigningConfig::expires_in(expires.min(PRESIGN_MAX))
        .map_err(|_| BlobError::Settings { what: "a presigned URL cannot be valid that long" })
}
