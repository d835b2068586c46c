//! Bucket operations.
//! Called by the S3 trait; rows are in `buckets.rs`.

use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::Service;
use super::refuse::unsupported;
use crate::attributes::timestamp;
use crate::buckets;
use crate::objects::bucket_id;

impl Service {
    pub(super) async fn make_bucket(&self, request: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        let input = request.input;
        unsupported(input.object_lock_enabled_for_bucket == Some(true), "Object lock")?;
        unsupported(input.acl.as_ref().is_some_and(|acl| acl.as_str() != BucketCannedACL::PRIVATE), "An access list other than private")?;
        let has_grant = input.grant_full_control.is_some()
            || input.grant_read.is_some()
            || input.grant_read_acp.is_some()
            || input.grant_write.is_some()
            || input.grant_write_acp.is_some();
        unsupported(has_grant, "Granting access")?;
        let wanted = input.create_bucket_configuration.and_then(|config| config.location_constraint);
        if wanted.as_ref().is_some_and(|region| !region.as_str().is_empty() && region.as_str() != self.region) {
            return Err(s3_error!(
                IllegalLocationConstraintException,
                "The location constraint is incompatible with the region of this server, {}.",
                self.region
            ));
        }
        let name = input.bucket.clone();
        self.writer.run(move |connection, _| buckets::create(connection, &name)).await?;
        Ok(S3Response::new(CreateBucketOutput { location: Some(format!("/{}", input.bucket)) }))
    }

    pub(super) async fn remove_bucket(&self, request: S3Request<DeleteBucketInput>) -> S3Result<S3Response<DeleteBucketOutput>> {
        let name = request.input.bucket;
        self.writer.run(move |connection, after| buckets::delete(connection, after, &name)).await?;
        Ok(S3Response::new(DeleteBucketOutput::default()))
    }

    pub(super) async fn check_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.must_exist(request.input.bucket).await?;
        Ok(S3Response::new(HeadBucketOutput { bucket_region: Some(self.region.clone()), ..Default::default() }))
    }

    pub(super) async fn locate_bucket(&self, request: S3Request<GetBucketLocationInput>) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.must_exist(request.input.bucket).await?;
        // S3 returns an empty location for its first region.
        let region = (self.region != "us-east-1").then(|| BucketLocationConstraint::from(self.region.clone()));
        Ok(S3Response::new(GetBucketLocationOutput { location_constraint: region }))
    }

    pub(super) async fn report_versioning(
        &self,
        request: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        self.must_exist(request.input.bucket).await?;
        Ok(S3Response::new(GetBucketVersioningOutput::default()))
    }

    pub(super) async fn buckets(&self, request: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let input = request.input;
        unsupported(input.continuation_token.is_some(), "Paging of buckets")?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let buckets = self.readers.run(move |connection| buckets::list(connection, &prefix)).await?;
        let buckets = buckets
            .into_iter()
            .map(|bucket| Bucket { name: Some(bucket.name), creation_date: Some(timestamp(bucket.created_ms)), bucket_region: None })
            .collect();
        let owner = Owner { display_name: Some("piecework".to_owned()), id: Some("piecework".to_owned()) };
        Ok(S3Response::new(ListBucketsOutput {
            buckets: Some(buckets),
            owner: Some(owner),
            prefix: input.prefix,
            continuation_token: None,
        }))
    }

    /// Refuses with `NoSuchBucket` unless the bucket exists.
    pub(super) async fn must_exist(&self, bucket: String) -> S3Result<()> {
        self.readers.run(move |connection| bucket_id(connection, &bucket)).await?;
        Ok(())
    }
}
