//! Single blobs, listings, presigned URLs.

use std::time::Duration;

use bytes::Bytes;
use clients::blobs::BlobError;

use crate::test_store::TestStore;

const KEYS: [&str; 6] = ["plain", "a/b", "a", "with space+plus%25", "ünï/κλειδί", "..%2f/../dots"];

#[tokio::test]
async fn what_is_put_is_got_whatever_its_key() {
    let store = TestStore::start().await;
    let (blobs, bucket) = (&store.blobs, store.bucket.as_str());
    for key in KEYS {
        let bytes = Bytes::from(format!("bytes of {key}"));
        blobs.put(bucket, key, bytes.clone()).await.unwrap();
        assert_eq!(blobs.get(bucket, key, None, 1000).await.unwrap(), bytes);
        assert_eq!(blobs.get(bucket, key, Some(3..5), 2).await.unwrap(), bytes.slice(3..5));
        let info = blobs.head(bucket, key).await.unwrap();
        assert_eq!(info.length, bytes.len() as u64);
        assert!(info.modified_at.0 > 1_500_000_000_000 && !info.etag.is_empty());
        blobs.copy(bucket, key, bucket, "copy").await.unwrap();
        assert_eq!(blobs.get(bucket, "copy", None, 1000).await.unwrap(), bytes);
    }
    store.stop().await;
}

#[tokio::test]
async fn an_empty_blob_and_an_empty_range_are_read() {
    let store = TestStore::start().await;
    let (blobs, bucket) = (&store.blobs, store.bucket.as_str());
    blobs.put(bucket, "empty", Bytes::new()).await.unwrap();
    assert!(blobs.get(bucket, "empty", None, 0).await.unwrap().is_empty());
    blobs.put(bucket, "full", Bytes::from_static(b"0123456789")).await.unwrap();
    assert!(blobs.get(bucket, "full", Some(4..4), 0).await.unwrap().is_empty());
    assert_eq!(blobs.get(bucket, "full", Some(8..100), 10).await.unwrap(), "89");
    let stream = blobs.open(bucket, "full", Some(2..5)).await.unwrap();
    assert_eq!((stream.length(), stream.info().length), (3, 10));
    store.stop().await;
}

#[tokio::test]
async fn what_is_missing_has_a_name_and_a_code() {
    let store = TestStore::start().await;
    let (blobs, bucket) = (&store.blobs, store.bucket.as_str());
    let missing = blobs.get(bucket, "missing", None, 10).await.unwrap_err();
    assert!(matches!(&missing, BlobError::NotFound { key, .. } if key == "missing"), "{missing:?}");
    assert_eq!(missing.code_for_download(), "BlobNotFound");
    assert!(matches!(blobs.head(bucket, "missing").await, Err(BlobError::NotFound { .. })));
    let nowhere = blobs.put("no-such-bucket-here", "key", Bytes::new()).await.unwrap_err();
    assert!(matches!(nowhere, BlobError::NoBucket { .. }), "{nowhere:?}");
    assert_eq!(nowhere.code_for_upload(), "FileUploadContainerNotFound");
    blobs.put(bucket, "large", Bytes::from(vec![0; 1000])).await.unwrap();
    let large = blobs.get(bucket, "large", None, 999).await.unwrap_err();
    assert!(matches!(large, BlobError::TooLarge { length: 1000, bytes_max: 999, .. }), "{large:?}");
    blobs.delete(bucket, "missing").await.unwrap();
    store.stop().await;
}

#[tokio::test]
async fn listings_go_on_where_they_stopped() {
    let store = TestStore::start().await;
    let (blobs, bucket) = (&store.blobs, store.bucket.as_str());
    for number in 0..25 {
        blobs.put(bucket, &format!("list/{number:02}"), Bytes::from(vec![0; number])).await.unwrap();
    }
    blobs.put(bucket, "other", Bytes::new()).await.unwrap();
    let mut keys = vec![];
    let mut after = None;
    loop {
        let listing = blobs.list(bucket, "list/", after.as_deref(), 10).await.unwrap();
        assert!(listing.blobs.len() <= 10);
        keys.extend(listing.blobs.into_iter().map(|blob| (blob.key, blob.length)));
        match listing.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(keys, (0..25u64).map(|number| (format!("list/{number:02}"), number)).collect::<Vec<_>>());
    assert_eq!(blobs.delete_prefix(bucket, "list/").await.unwrap(), 25);
    assert_eq!(blobs.delete_prefix(bucket, "list/").await.unwrap(), 0);
    assert_eq!(blobs.list(bucket, "", None, 10).await.unwrap().blobs.len(), 1);
    assert!(matches!(blobs.list("no-such-bucket-here", "", None, 10).await, Err(BlobError::NoBucket { .. })));
    store.stop().await;
}

#[tokio::test]
async fn a_presigned_url_needs_no_key_and_allows_nothing_else() {
    let store = TestStore::start().await;
    let (blobs, bucket) = (&store.blobs, store.bucket.as_str());
    let day = Duration::from_secs(24 * 3600);
    let put = blobs.presign_put(bucket, "signed key", day).await.unwrap();
    let answer = crate::hostile::request("PUT", &put, b"by hand").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let get = blobs.presign_get(bucket, "signed key", day * 1000).await.unwrap();
    let answer = crate::hostile::request("GET", &get, b"").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("by hand"), "{answer}");
    let answer = crate::hostile::request("GET", &get.replace("signed", "other"), b"").await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    store.stop().await;
}

#[tokio::test]
async fn the_check_makes_both_buckets_and_leaves_nothing_in_them() {
    let store = TestStore::start().await;
    store.blobs.check().await.unwrap();
    for bucket in [&store.blobs.settings().bucket, &store.blobs.settings().own_bucket] {
        assert_eq!(store.blobs.list(bucket, "", None, 10).await.unwrap().blobs, []);
    }
    store.stop().await;
}
