//! The seventeen checks with which stores were compared before this one was written, each under its name.
//! Other files test more; this one has one plain case for each check.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, CompletedMultipartUpload, CompletedPart, Delete, ExpirationStatus, LifecycleExpiration, LifecycleRule,
    LifecycleRuleFilter, ObjectIdentifier, Tag, Tagging,
};

use crate::raw::send;
use crate::store::{Store, noise, refusal, with_store};

async fn presigned_get(store: &Store, key: &str, begun_secs_ago: u64) -> String {
    let start = SystemTime::now() - Duration::from_secs(begun_secs_ago);
    let config = PresigningConfig::builder().start_time(start).expires_in(Duration::from_secs(600)).build().unwrap();
    store.client.get_object().bucket(&store.bucket).key(key).presigned(config).await.unwrap().uri().to_owned()
}

#[tokio::test]
async fn check_01_bucket_put_head_with_metadata_range_and_copy() {
    with_store(async |store| {
        store.client.head_bucket().bucket(&store.bucket).send().await.unwrap();
        let put = store.client.put_object().bucket(&store.bucket).key("k").metadata("a", "b").body(ByteStream::from_static(b"0123456789"));
        put.send().await.unwrap();
        let head = store.client.head_object().bucket(&store.bucket).key("k").send().await.unwrap();
        assert_eq!(head.metadata().unwrap()["a"], "b");
        let range = store.client.get_object().bucket(&store.bucket).key("k").range("bytes=2-4").send().await.unwrap();
        assert_eq!(range.body.collect().await.unwrap().to_vec(), b"234");
        let source = format!("{}/k", store.bucket);
        store.client.copy_object().bucket(&store.bucket).key("twin").copy_source(source).send().await.unwrap();
        assert_eq!(store.get("twin").await, b"0123456789");
    })
    .await;
}

#[tokio::test]
async fn check_02_list_pages_delimiter_and_delete_many() {
    with_store(async |store| {
        for key in ["a", "b/1", "b/2", "c"] {
            store.put(key, "x").await;
        }
        let mut pages = store.client.list_objects_v2().bucket(&store.bucket).max_keys(1).into_paginator().send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            keys.extend(page.unwrap().contents().iter().map(|object| object.key().unwrap().to_owned()));
        }
        assert_eq!(keys, ["a", "b/1", "b/2", "c"]);
        let folded = store.client.list_objects_v2().bucket(&store.bucket).delimiter("/").send().await.unwrap();
        assert_eq!((folded.contents().len(), folded.common_prefixes()[0].prefix()), (2, Some("b/")));
        let objects = keys.iter().map(|key| ObjectIdentifier::builder().key(key).build().unwrap()).collect();
        let delete = Delete::builder().set_objects(Some(objects)).build().unwrap();
        store.client.delete_objects().bucket(&store.bucket).delete(delete).send().await.unwrap();
        assert!(store.keys().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn check_03_presigned_put_get_and_range() {
    with_store(async |store| {
        let config = PresigningConfig::expires_in(Duration::from_secs(600)).unwrap();
        let put = store.client.put_object().bucket(&store.bucket).key("k").presigned(config).await.unwrap();
        assert_eq!(send("PUT", put.uri(), &[], b"0123456789").await.status, 200);
        let get = presigned_get(&store, "k", 0).await;
        assert_eq!(send("GET", &get, &[], b"").await.body, b"0123456789");
        let range = send("GET", &get, &[("range", "bytes=-2")], b"").await;
        assert_eq!((range.status, range.body.as_slice()), (206, b"89".as_slice()));
    })
    .await;
}

#[tokio::test]
async fn check_04_tampered_and_expired_urls_are_refused() {
    with_store(async |store| {
        store.put("k", "x").await;
        store.put("secret", "x").await;
        let tampered = presigned_get(&store, "k", 0).await.replace("/k?", "/secret?");
        assert_eq!(send("GET", &tampered, &[], b"").await.status, 403);
        let expired = presigned_get(&store, "k", 601).await;
        assert!([400, 403].contains(&send("GET", &expired, &[], b"").await.status));
    })
    .await;
}

#[tokio::test]
async fn check_05_an_anonymous_get_is_refused() {
    with_store(async |store| {
        store.put("k", "x").await;
        let url = format!("{}/{}/k", store.endpoint, store.bucket);
        assert_eq!(send("GET", &url, &[], b"").await.status, 403);
    })
    .await;
}

#[tokio::test]
async fn check_06_a_wrong_sha256_stores_nothing() {
    with_store(async |store| {
        let wrong = "d3JvbmcgYnV0IHdlbGwtZm9ybWVkLCAzMiBieXRlcyE=";
        let put = store.client.put_object().bucket(&store.bucket).key("k").checksum_sha256(wrong).body(ByteStream::from_static(b"x"));
        assert_eq!(refusal(put.send().await).1, 400);
        assert!(store.keys().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn check_07_put_if_none_match_does_not_overwrite() {
    with_store(async |store| {
        store.put("k", "old").await;
        let put = store.client.put_object().bucket(&store.bucket).key("k").if_none_match("*").body(ByteStream::from_static(b"new"));
        assert_eq!(refusal(put.send().await).1, 412);
        assert_eq!(store.get("k").await, b"old");
    })
    .await;
}

#[tokio::test]
async fn check_08_put_if_match_of_another_etag_does_not_overwrite() {
    with_store(async |store| {
        store.put("k", "old").await;
        let other = "\"00000000000000000000000000000000\"";
        let put = store.client.put_object().bucket(&store.bucket).key("k").if_match(other).body(ByteStream::from_static(b"new"));
        assert_eq!(refusal(put.send().await).1, 412);
        assert_eq!(store.get("k").await, b"old");
    })
    .await;
}

#[tokio::test]
async fn check_09_get_if_none_match_of_the_same_etag_is_not_modified() {
    with_store(async |store| {
        let etag = store.put("k", "x").await.e_tag().unwrap().to_owned();
        let get = store.client.get_object().bucket(&store.bucket).key("k").if_none_match(etag);
        assert_eq!(refusal(get.send().await).1, 304);
    })
    .await;
}

#[tokio::test]
async fn check_10_multipart_with_the_sdks_checksums_echoed() {
    with_store(async |store| {
        let upload = store.client.create_multipart_upload().bucket(&store.bucket).key("k").send().await.unwrap();
        let id = upload.upload_id().unwrap();
        let mut parts = CompletedMultipartUpload::builder();
        for (number, bytes) in [(1, 5 << 20), (2, 1000)] {
            let body = ByteStream::from(noise(bytes));
            let part = store.client.upload_part().bucket(&store.bucket).key("k").upload_id(id).part_number(number).body(body);
            let part = part.send().await.unwrap();
            let named = CompletedPart::builder().part_number(number).set_e_tag(part.e_tag).set_checksum_crc32(part.checksum_crc32);
            parts = parts.parts(named.build());
        }
        let complete = store.client.complete_multipart_upload().bucket(&store.bucket).key("k").upload_id(id);
        complete.multipart_upload(parts.build()).send().await.unwrap();
        assert!(store.get("k").await == [noise(5 << 20), noise(1000)].concat());
    })
    .await;
}

#[tokio::test]
async fn check_11_unfinished_uploads_are_listed() {
    with_store(async |store| {
        let upload = store.client.create_multipart_upload().bucket(&store.bucket).key("k").send().await.unwrap();
        let listed = store.client.list_multipart_uploads().bucket(&store.bucket).send().await.unwrap();
        assert_eq!(listed.uploads()[0].upload_id(), upload.upload_id());
        let id = upload.upload_id().unwrap();
        store.client.abort_multipart_upload().bucket(&store.bucket).key("k").upload_id(id).send().await.unwrap();
        let listed = store.client.list_multipart_uploads().bucket(&store.bucket).send().await.unwrap();
        assert!(listed.uploads().is_empty());
    })
    .await;
}

#[tokio::test]
async fn check_12_x_and_x_slash_y_stand_together() {
    with_store(async |store| {
        store.put("x", "parent").await;
        store.put("x/y", "child").await;
        assert_eq!((store.get("x").await, store.get("x/y").await), (b"parent".to_vec(), b"child".to_vec()));
    })
    .await;
}

#[tokio::test]
async fn check_13_an_escaping_key_is_an_ordinary_one() {
    with_store(async |store| {
        store.put("../escape", "x").await;
        assert_eq!(store.keys().await, ["../escape"]);
        assert_eq!(store.get("../escape").await, b"x");
    })
    .await;
}

#[tokio::test]
async fn check_14_a_deleted_object_leaves_no_bytes() {
    let folder = tempfile::TempDir::new().unwrap();
    let settings = || embedded_blobs::Settings::new("127.0.0.1:0".parse().unwrap(), folder.path(), "key", "secret");
    let server = embedded_blobs::Blobs::start(settings()).await.unwrap();
    let client = crate::store::client(&server.endpoint(), "key", "secret", "us-east-1");
    client.create_bucket().bucket("bucket").send().await.unwrap();
    for (key, bytes) in [("small", 10), ("large", 200_000)] {
        client.put_object().bucket("bucket").key(key).body(noise(bytes).into()).send().await.unwrap();
        client.delete_object().bucket("bucket").key(key).send().await.unwrap();
    }
    server.stop().await;
    let files = |name: &str| walk(&folder.path().join(name));
    assert_eq!((files("content"), files("incoming")), (0, 0));
}

fn walk(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries.map(|entry| if entry.file_type().unwrap().is_dir() { walk(&entry.path()) } else { 1 }).sum()
}

#[tokio::test]
async fn check_15_tags_of_objects() {
    with_store(async |store| {
        store.put("k", "x").await;
        let tag = Tag::builder().key("a").value("b").build().unwrap();
        let tagging = Tagging::builder().tag_set(tag.clone()).build().unwrap();
        store.client.put_object_tagging().bucket(&store.bucket).key("k").tagging(tagging).send().await.unwrap();
        let found = store.client.get_object_tagging().bucket(&store.bucket).key("k").send().await.unwrap();
        assert_eq!(found.tag_set(), [tag]);
    })
    .await;
}

#[tokio::test]
async fn check_16_lifecycle_rules_are_kept() {
    with_store(async |store| {
        let rule = LifecycleRule::builder()
            .id("r")
            .status(ExpirationStatus::Enabled)
            .filter(LifecycleRuleFilter::builder().prefix("tmp/").build())
            .expiration(LifecycleExpiration::builder().days(1).build());
        let given = BucketLifecycleConfiguration::builder().rules(rule.build().unwrap()).build().unwrap();
        store.client.put_bucket_lifecycle_configuration().bucket(&store.bucket).lifecycle_configuration(given).send().await.unwrap();
        let found = store.client.get_bucket_lifecycle_configuration().bucket(&store.bucket).send().await.unwrap();
        assert_eq!(found.rules()[0].expiration().unwrap().days(), Some(1));
    })
    .await;
}

#[tokio::test]
async fn check_17_three_hundred_small_puts_one_after_the_other() {
    with_store(async |store| {
        for at in 0..300 {
            store.put(&format!("small-{at:03}"), noise(1024)).await;
        }
        assert_eq!(store.keys().await.len(), 300);
        assert!(store.get("small-299").await == noise(1024));
    })
    .await;
}
