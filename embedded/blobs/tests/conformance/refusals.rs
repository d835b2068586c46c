//! Unsupported requests are refused, and change nothing.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketVersioningStatus, ObjectCannedAcl, ObjectLockMode, ServerSideEncryption, StorageClass, VersioningConfiguration,
};

use crate::store::{refusal, with_store};

#[tokio::test]
async fn operations_that_are_not_there_are_not_implemented() {
    with_store(async |store| {
        let wanted = ("NotImplemented".to_owned(), 501);
        let (client, bucket) = (&store.client, &store.bucket);
        assert_eq!(refusal(client.get_bucket_policy().bucket(bucket).send().await), wanted);
        assert_eq!(refusal(client.get_bucket_acl().bucket(bucket).send().await), wanted);
        assert_eq!(refusal(client.get_bucket_cors().bucket(bucket).send().await), wanted);
        let on = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        let outcome = client.put_bucket_versioning().bucket(bucket).versioning_configuration(on).send().await;
        assert_eq!(refusal(outcome), wanted);
    })
    .await;
}

#[tokio::test]
async fn wishes_that_would_be_ignored_are_refused() {
    with_store(async |store| {
        let put = || store.client.put_object().bucket(&store.bucket).key("object").body(ByteStream::from_static(b"x"));
        let wanted = ("NotImplemented".to_owned(), 501);
        assert_eq!(refusal(put().acl(ObjectCannedAcl::PublicRead).send().await), wanted);
        assert_eq!(refusal(put().server_side_encryption(ServerSideEncryption::AwsKms).send().await), wanted);
        assert_eq!(refusal(put().object_lock_mode(ObjectLockMode::Governance).send().await), wanted);
        assert_eq!(refusal(put().website_redirect_location("/elsewhere").send().await), wanted);
        let outcome = put().storage_class(StorageClass::Glacier).send().await;
        assert_eq!(refusal(outcome), ("InvalidStorageClass".to_owned(), 400));
        assert!(store.keys().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn versions_do_not_exist() {
    with_store(async |store| {
        store.put("object", "x").await;
        let outcome = store.client.get_object().bucket(&store.bucket).key("object").version_id("v1").send().await;
        assert_eq!(refusal(outcome), ("NoSuchVersion".to_owned(), 404));
        let outcome = store.client.delete_object().bucket(&store.bucket).key("object").version_id("v1").send().await;
        assert_eq!(refusal(outcome), ("NoSuchVersion".to_owned(), 404));
        assert_eq!(store.get("object").await, b"x");
    })
    .await;
}
