//! Files up and down, small and in parts.

use std::time::Duration;

use clients::blobs::{BlobError, BlobHeaders, PART_BYTES, RANGE_BYTES};

use crate::test_store::{TestStore, pattern};

#[tokio::test]
async fn files_of_every_size_come_back_the_same() {
    let store = TestStore::start().await;
    let (blobs, bucket) = (&store.blobs, store.bucket.as_str());
    let part = PART_BYTES as usize;
    let range = RANGE_BYTES as usize;
    for length in [0, 1, part, part + 1, range, range + 1, 2 * range + part + 17] {
        let (up, down) = (store.folder.path().join("up"), store.folder.path().join("down"));
        let bytes = pattern(length);
        std::fs::write(&up, &bytes).unwrap();
        assert_eq!(blobs.upload_file(bucket, "file", &up).await.unwrap(), length as u64);
        assert_eq!(blobs.head(bucket, "file").await.unwrap().length, length as u64);
        assert_eq!(blobs.download_file(bucket, "file", &down).await.unwrap(), length as u64);
        assert!(std::fs::read(&down).unwrap() == bytes, "{length} bytes came back changed");
    }
    store.stop().await;
}

#[tokio::test]
async fn headers_stay_with_files_of_every_size() {
    let store = TestStore::start().await;
    let (blobs, bucket, up) = (&store.blobs, store.bucket.as_str(), store.folder.path().join("up"));
    let headers = BlobHeaders::read([
        ("content-type", "text/csv"),
        ("x-ms-blob-content-encoding", "gzip"),
        ("content-language", "en"),
        ("x-ms-blob-content-disposition", "attachment"),
        ("cache-control", "no-store"),
        ("x-ms-meta-origin", "here"),
    ]);
    let headers = headers.unwrap();
    for length in [1, PART_BYTES as usize + 1] {
        std::fs::write(&up, pattern(length)).unwrap();
        assert_eq!(blobs.upload_file_with(bucket, "file", &up, &headers).await.unwrap(), length as u64);
        let url = blobs.presign_get(bucket, "file", Duration::from_secs(60)).await.unwrap();
        let answer = crate::hostile::request("GET", &url, b"").await;
        let head = answer.split("\r\n\r\n").next().unwrap().to_ascii_lowercase();
        for header in [
            "content-type: text/csv",
            "content-encoding: gzip",
            "content-language: en",
            "content-disposition: attachment",
            "cache-control: no-store",
            "x-amz-meta-origin: here",
        ] {
            assert!(head.lines().any(|line| line == header), "{length} bytes, {header}: {head}");
        }
    }
    store.stop().await;
}

#[tokio::test]
async fn a_failed_download_leaves_the_target_as_it_was() {
    let store = TestStore::start().await;
    let folder = store.folder.path().join("target");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("file");
    std::fs::write(&file, "before").unwrap();
    let error = store.blobs.download_file(&store.bucket, "missing", &file).await.unwrap_err();
    assert!(matches!(error, BlobError::NotFound { .. }), "{error:?}");
    assert_eq!(std::fs::read(&file).unwrap(), b"before");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    store.stop().await;
}

#[tokio::test]
async fn local_trouble_is_told_from_the_stores() {
    let store = TestStore::start().await;
    let (blobs, bucket, folder) = (&store.blobs, store.bucket.as_str(), store.folder.path());
    for path in [folder.join("missing"), folder.to_owned()] {
        let error = blobs.upload_file(bucket, "key", &path).await.unwrap_err();
        assert!(matches!(error, BlobError::Local { .. }), "{error:?}");
        assert_eq!(error.code_for_upload(), "FileUploadMiscError");
    }
    blobs.put(bucket, "key", bytes::Bytes::from_static(b"x")).await.unwrap();
    let error = blobs.download_file(bucket, "key", &folder.join("no/such/folder/file")).await.unwrap_err();
    assert!(matches!(error, BlobError::Local { .. }), "{error:?}");
    store.stop().await;
}
