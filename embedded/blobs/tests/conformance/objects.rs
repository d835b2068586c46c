//! Putting, getting, heading and deleting objects.

use std::collections::HashMap;

use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, Delete, ObjectIdentifier};

use crate::store::{noise, refusal, with_store};

const SIZES: [usize; 8] = [0, 1, 4096, 65_536, 65_537, 1 << 20, (1 << 20) + 1, 5_000_000];

#[tokio::test]
async fn objects_of_every_size_come_back_as_they_were() {
    with_store(async |store| {
        for size in SIZES {
            let body = noise(size);
            store.put("object", body.clone()).await;
            assert!(store.get("object").await == body, "{size} bytes");
        }
    })
    .await;
}

#[tokio::test]
async fn the_etag_of_a_plain_object_is_its_md5() {
    with_store(async |store| {
        let output = store.put("object", "hello").await;
        assert_eq!(output.e_tag(), Some("\"5d41402abc4b2a76b9719d911017c592\""));
    })
    .await;
}

#[tokio::test]
async fn a_missing_object_is_no_such_key() {
    with_store(async |store| {
        let outcome = store.client.get_object().bucket(&store.bucket).key("nothing").send().await;
        assert_eq!(refusal(outcome), ("NoSuchKey".to_owned(), 404));
        let outcome = store.client.head_object().bucket(&store.bucket).key("nothing").send().await;
        assert_eq!(refusal(outcome).1, 404);
    })
    .await;
}

#[tokio::test]
async fn metadata_and_content_headers_come_back() {
    with_store(async |store| {
        let expires = DateTime::from_secs(2_000_000_000);
        store
            .client
            .put_object()
            .bucket(&store.bucket)
            .key("object")
            .body(ByteStream::from_static(b"x"))
            .content_type("text/x-odd")
            .cache_control("max-age=7")
            .content_disposition("attachment; filename=\"a b\"")
            .content_encoding("gzip")
            .content_language("de")
            .expires(expires)
            .metadata("colour", "red")
            .metadata("shape", "round")
            .send()
            .await
            .unwrap();
        let head = store.client.head_object().bucket(&store.bucket).key("object").send().await.unwrap();
        assert_eq!(head.content_type(), Some("text/x-odd"));
        assert_eq!(head.cache_control(), Some("max-age=7"));
        assert_eq!(head.content_disposition(), Some("attachment; filename=\"a b\""));
        assert_eq!(head.content_encoding(), Some("gzip"));
        assert_eq!(head.content_language(), Some("de"));
        assert_eq!(head.expires_string(), Some("Wed, 18 May 2033 03:33:20 GMT"));
        assert_eq!(head.content_length(), Some(1));
        let wanted: HashMap<String, String> =
            [("colour", "red"), ("shape", "round")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        assert_eq!(head.metadata(), Some(&wanted));
    })
    .await;
}

#[tokio::test]
async fn too_much_metadata_is_refused() {
    with_store(async |store| {
        let outcome = store
            .client
            .put_object()
            .bucket(&store.bucket)
            .key("object")
            .metadata("big", "x".repeat(2100))
            .body(ByteStream::from_static(b"x"))
            .send()
            .await;
        assert_eq!(refusal(outcome), ("MetadataTooLarge".to_owned(), 400));
        assert!(store.keys().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_put_replaces_the_object_whole() {
    with_store(async |store| {
        store.put("object", noise(200_000)).await;
        store.put("object", "short").await;
        assert_eq!(store.get("object").await, b"short");
        store.put("object", noise(300_000)).await;
        assert!(store.get("object").await == noise(300_000));
    })
    .await;
}

#[tokio::test]
async fn ranges_select_bytes_of_small_and_large_objects() {
    with_store(async |store| {
        for size in [1000, 2_000_000] {
            let body = noise(size);
            store.put("object", body.clone()).await;
            let cases = [
                ("bytes=0-0", 0..1),
                ("bytes=10-99", 10..100),
                ("bytes=900-", 900..size),
                ("bytes=-7", size - 7..size),
                ("bytes=500-99999999", 500..size),
                ("bytes=-99999999", 0..size),
            ];
            for (range, wanted) in cases {
                let output = store.client.get_object().bucket(&store.bucket).key("object").range(range).send().await.unwrap();
                assert_eq!(output.content_range(), Some(format!("bytes {}-{}/{size}", wanted.start, wanted.end - 1).as_str()));
                assert_eq!(output.content_length(), Some(wanted.len() as i64));
                assert!(output.body.collect().await.unwrap().to_vec() == body[wanted], "{range} of {size}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_range_past_the_end_is_not_satisfiable() {
    with_store(async |store| {
        store.put("object", "12345").await;
        let get = |range: &str| store.client.get_object().bucket(&store.bucket).key("object").range(range).send();
        assert_eq!(refusal(get("bytes=5-").await), ("InvalidRange".to_owned(), 416));
        assert_eq!(refusal(get("bytes=9-12").await), ("InvalidRange".to_owned(), 416));
    })
    .await;
}

#[tokio::test]
async fn a_head_with_a_range_tells_the_length_of_the_range() {
    with_store(async |store| {
        store.put("object", "0123456789").await;
        let head = store.client.head_object().bucket(&store.bucket).key("object").range("bytes=2-4").send().await.unwrap();
        assert_eq!(head.content_length(), Some(3));
    })
    .await;
}

#[tokio::test]
async fn deleting_twice_is_fine() {
    with_store(async |store| {
        store.put("object", "x").await;
        for _ in 0..2 {
            store.client.delete_object().bucket(&store.bucket).key("object").send().await.unwrap();
        }
        assert!(store.keys().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn many_objects_are_deleted_at_once_and_missing_ones_count_as_deleted() {
    with_store(async |store| {
        for at in 0..10 {
            store.put(&format!("object-{at}"), "x").await;
        }
        let wanted = (0..12).map(|at| ObjectIdentifier::builder().key(format!("object-{at}")).build().unwrap());
        let wanted = Delete::builder().set_objects(Some(wanted.collect())).build().unwrap();
        let output = store.client.delete_objects().bucket(&store.bucket).delete(wanted).send().await.unwrap();
        assert_eq!(output.deleted().len(), 12);
        assert!(output.errors().is_empty());
        assert!(store.keys().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_quiet_delete_tells_nothing() {
    with_store(async |store| {
        store.put("object", "x").await;
        let wanted = ObjectIdentifier::builder().key("object").build().unwrap();
        let wanted = Delete::builder().objects(wanted).quiet(true).build().unwrap();
        let output = store.client.delete_objects().bucket(&store.bucket).delete(wanted).send().await.unwrap();
        assert!(output.deleted().is_empty());
        assert!(store.keys().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn odd_keys_are_ordinary() {
    with_store(async |store| {
        let long = "k".repeat(1024);
        let keys = [
            "../escape",
            "a/../../b",
            ".",
            "..",
            "a//b",
            "/leading",
            "trailing/",
            "with space",
            "plus+sign",
            "per%25cent",
            "quest?ion",
            "ha#sh",
            "amp&ersand",
            "umläut-日本-🦀",
            "star*'\"<>",
            "back\\slash",
            "semi;colon=equals",
            "x",
            "x/y",
            "x/y/z",
            long.as_str(),
        ];
        for key in keys {
            store.put(key, key.as_bytes()).await;
        }
        for key in keys {
            assert_eq!(store.get(key).await, key.as_bytes(), "{key}");
        }
        let mut wanted: Vec<_> = keys.map(str::to_owned).into();
        wanted.sort();
        assert_eq!(store.keys().await, wanted);
    })
    .await;
}

#[tokio::test]
async fn a_key_longer_than_1024_bytes_is_refused() {
    with_store(async |store| {
        let outcome =
            store.client.put_object().bucket(&store.bucket).key("k".repeat(1025)).body(ByteStream::from_static(b"x")).send().await;
        assert_eq!(refusal(outcome), ("KeyTooLongError".to_owned(), 400));
    })
    .await;
}

#[tokio::test]
async fn deleting_a_parent_leaves_its_child() {
    with_store(async |store| {
        store.put("x", "parent").await;
        store.put("x/y", "child").await;
        store.client.delete_object().bucket(&store.bucket).key("x").send().await.unwrap();
        assert_eq!(store.get("x/y").await, b"child");
        assert_eq!(store.keys().await, ["x/y"]);
    })
    .await;
}

#[tokio::test]
async fn every_checksum_is_computed_kept_and_told() {
    with_store(async |store| {
        let algorithms = [
            ChecksumAlgorithm::Crc32,
            ChecksumAlgorithm::Crc32C,
            ChecksumAlgorithm::Crc64Nvme,
            ChecksumAlgorithm::Sha1,
            ChecksumAlgorithm::Sha256,
        ];
        for size in [100, 300_000] {
            for algorithm in &algorithms {
                let put = store
                    .client
                    .put_object()
                    .bucket(&store.bucket)
                    .key("object")
                    .checksum_algorithm(algorithm.clone())
                    .body(ByteStream::from(noise(size)))
                    .send()
                    .await
                    .unwrap();
                let head = store
                    .client
                    .head_object()
                    .bucket(&store.bucket)
                    .key("object")
                    .checksum_mode(ChecksumMode::Enabled)
                    .send()
                    .await
                    .unwrap();
                let (answered, kept) = match algorithm {
                    ChecksumAlgorithm::Crc32 => (put.checksum_crc32(), head.checksum_crc32()),
                    ChecksumAlgorithm::Crc32C => (put.checksum_crc32_c(), head.checksum_crc32_c()),
                    ChecksumAlgorithm::Crc64Nvme => (put.checksum_crc64_nvme(), head.checksum_crc64_nvme()),
                    ChecksumAlgorithm::Sha1 => (put.checksum_sha1(), head.checksum_sha1()),
                    _ => (put.checksum_sha256(), head.checksum_sha256()),
                };
                assert!(answered.is_some(), "{algorithm}");
                assert_eq!(answered, kept, "{algorithm}");
                assert!(store.get("object").await == noise(size));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_wrong_checksum_stores_nothing() {
    with_store(async |store| {
        for size in [100, 300_000] {
            let put = || store.client.put_object().bucket(&store.bucket).key("object").body(noise(size).into());
            let wrong = "d3JvbmcgYnV0IHdlbGwtZm9ybWVkLCAzMiBieXRlcyE=";
            let outcome = put().checksum_sha256(wrong).send().await;
            assert_eq!(refusal(outcome), ("BadDigest".to_owned(), 400));
            let outcome = put().checksum_crc32("AAAAAA==").send().await;
            assert_eq!(refusal(outcome), ("BadDigest".to_owned(), 400));
            let outcome = put().content_md5("AAAAAAAAAAAAAAAAAAAAAA==").send().await;
            assert_eq!(refusal(outcome), ("BadDigest".to_owned(), 400));
            let outcome = put().content_md5("not base64").send().await;
            assert_eq!(refusal(outcome), ("InvalidDigest".to_owned(), 400));
            assert!(store.keys().await.is_empty());
        }
    })
    .await;
}

#[tokio::test]
async fn a_right_md5_is_accepted() {
    with_store(async |store| {
        store
            .client
            .put_object()
            .bucket(&store.bucket)
            .key("object")
            .content_md5("XUFAKrxLKna5cZ2REBfFkg==")
            .body(ByteStream::from_static(b"hello"))
            .send()
            .await
            .unwrap();
        assert_eq!(store.get("object").await, b"hello");
    })
    .await;
}
