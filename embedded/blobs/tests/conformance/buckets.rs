//! Creating, finding, listing and deleting buckets.

use crate::store::{refusal, with_store};

#[tokio::test]
async fn a_created_bucket_is_found_and_listed() {
    with_store(async |store| {
        store.client.head_bucket().bucket(&store.bucket).send().await.unwrap();
        let buckets = store.client.list_buckets().send().await.unwrap();
        assert!(buckets.buckets().iter().any(|bucket| bucket.name() == Some(&store.bucket)));
    })
    .await;
}

#[tokio::test]
async fn a_missing_bucket_is_no_such_bucket_to_every_operation() {
    with_store(async |store| {
        let missing = "no-such-bucket-here";
        assert_eq!(refusal(store.client.head_bucket().bucket(missing).send().await).1, 404);
        let wanted = ("NoSuchBucket".to_owned(), 404);
        assert_eq!(refusal(store.client.list_objects_v2().bucket(missing).send().await), wanted);
        assert_eq!(refusal(store.client.list_objects().bucket(missing).send().await), wanted);
        assert_eq!(refusal(store.client.get_object().bucket(missing).key("k").send().await), wanted);
        assert_eq!(refusal(store.client.put_object().bucket(missing).key("k").send().await), wanted);
        assert_eq!(refusal(store.client.delete_object().bucket(missing).key("k").send().await), wanted);
        assert_eq!(refusal(store.client.create_multipart_upload().bucket(missing).key("k").send().await), wanted);
        assert_eq!(refusal(store.client.delete_bucket().bucket(missing).send().await), wanted);
        assert_eq!(refusal(store.client.get_bucket_location().bucket(missing).send().await), wanted);
    })
    .await;
}

#[tokio::test]
async fn creating_a_bucket_twice_is_refused() {
    with_store(async |store| {
        let outcome = store.client.create_bucket().bucket(&store.bucket).send().await;
        assert_eq!(refusal(outcome), ("BucketAlreadyOwnedByYou".to_owned(), 409));
    })
    .await;
}

#[tokio::test]
async fn bad_bucket_names_are_refused() {
    with_store(async |store| {
        for name in ["UPPER", "under_score", "-dash", "a..b", "192.168.0.1"] {
            let outcome = store.client.create_bucket().bucket(name).send().await;
            assert_eq!(refusal(outcome), ("InvalidBucketName".to_owned(), 400), "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn only_an_empty_bucket_can_be_deleted() {
    with_store(async |store| {
        store.put("object", "x").await;
        let outcome = store.client.delete_bucket().bucket(&store.bucket).send().await;
        assert_eq!(refusal(outcome), ("BucketNotEmpty".to_owned(), 409));
        store.client.delete_object().bucket(&store.bucket).key("object").send().await.unwrap();
        store.client.delete_bucket().bucket(&store.bucket).send().await.unwrap();
        assert_eq!(refusal(store.client.head_bucket().bucket(&store.bucket).send().await).1, 404);
    })
    .await;
}

#[tokio::test]
async fn a_new_bucket_of_an_old_name_is_empty() {
    with_store(async |store| {
        store.client.create_multipart_upload().bucket(&store.bucket).key("left-over").send().await.unwrap();
        store.client.delete_bucket().bucket(&store.bucket).send().await.unwrap();
        store.client.create_bucket().bucket(&store.bucket).send().await.unwrap();
        assert!(store.keys().await.is_empty());
        let uploads = store.client.list_multipart_uploads().bucket(&store.bucket).send().await.unwrap();
        assert!(uploads.uploads().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_bucket_tells_its_place_and_that_it_keeps_no_versions() {
    with_store(async |store| {
        store.client.get_bucket_location().bucket(&store.bucket).send().await.unwrap();
        let versioning = store.client.get_bucket_versioning().bucket(&store.bucket).send().await.unwrap();
        assert_eq!(versioning.status(), None);
    })
    .await;
}

#[tokio::test]
async fn the_same_key_in_two_buckets_is_two_objects() {
    with_store(async |store| {
        let other = format!("{}-b", store.bucket);
        store.client.create_bucket().bucket(&other).send().await.unwrap();
        store.put("object", "one").await;
        store.client.put_object().bucket(&other).key("object").body(b"two".to_vec().into()).send().await.unwrap();
        assert_eq!(store.get("object").await, b"one");
        store.client.delete_object().bucket(&other).key("object").send().await.unwrap();
        store.client.delete_bucket().bucket(&other).send().await.unwrap();
        assert_eq!(store.get("object").await, b"one");
    })
    .await;
}
