//! Authentication: signatures, presigned URLs, clocks.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;

use crate::raw::send;
use crate::store::{Store, client, noise, refusal, with_store};

fn hour() -> PresigningConfig {
    PresigningConfig::expires_in(Duration::from_secs(3600)).unwrap()
}

async fn presigned_get(store: &Store, config: PresigningConfig) -> String {
    store.client.get_object().bucket(&store.bucket).key("object").presigned(config).await.unwrap().uri().to_owned()
}

#[tokio::test]
async fn anonymous_requests_are_refused() {
    with_store(async |store| {
        store.put("object", "x").await;
        let url = format!("{}/{}/object", store.endpoint, store.bucket);
        for method in ["GET", "PUT", "DELETE"] {
            let answer = send(method, &url, &[], b"").await;
            assert_eq!((answer.status, answer.code()), (403, "AccessDenied".to_owned()), "{method}");
        }
        assert_eq!(send("HEAD", &url, &[], b"").await.status, 403);
        assert_eq!(send("GET", &format!("{}/", store.endpoint), &[], b"").await.status, 403);
        assert_eq!(store.get("object").await, b"x");
    })
    .await;
}

#[tokio::test]
async fn a_wrong_secret_or_an_unknown_key_is_refused() {
    with_store(async |store| {
        store.put("object", "x").await;
        let wrong = client(&store.endpoint, &store.access_key, "not the secret", &store.region);
        let outcome = wrong.get_object().bucket(&store.bucket).key("object").send().await;
        assert_eq!(refusal(outcome), ("SignatureDoesNotMatch".to_owned(), 403));
        let unknown = client(&store.endpoint, "nobody", &store.secret_key, &store.region);
        let outcome = unknown.get_object().bucket(&store.bucket).key("object").send().await;
        assert_eq!(refusal(outcome).1, 403);
    })
    .await;
}

#[tokio::test]
async fn a_presigned_get_reads_whole_objects_and_ranges() {
    with_store(async |store| {
        store.put("object", noise(200_000)).await;
        let url = presigned_get(&store, hour()).await;
        let answer = send("GET", &url, &[], b"").await;
        assert_eq!(answer.status, 200);
        assert!(answer.body == noise(200_000));
        let answer = send("GET", &url, &[("range", "bytes=10-19")], b"").await;
        assert_eq!(answer.status, 206);
        assert!(answer.head.contains("content-range: bytes 10-19/200000"));
        assert!(answer.body == noise(200_000)[10..20]);
    })
    .await;
}

#[tokio::test]
async fn a_presigned_put_stores_what_any_client_sends() {
    with_store(async |store| {
        let url = store.client.put_object().bucket(&store.bucket).key("object").presigned(hour()).await.unwrap();
        let answer = send("PUT", url.uri(), &[("content-type", "text/plain")], b"from anywhere").await;
        assert_eq!(answer.status, 200);
        assert_eq!(store.get("object").await, b"from anywhere");
    })
    .await;
}

#[tokio::test]
async fn a_presigned_head_works() {
    with_store(async |store| {
        store.put("object", "12345").await;
        let url = store.client.head_object().bucket(&store.bucket).key("object").presigned(hour()).await.unwrap();
        let answer = send("HEAD", url.uri(), &[], b"").await;
        assert_eq!(answer.status, 200);
        assert!(answer.head.contains("content-length: 5"));
    })
    .await;
}

#[tokio::test]
async fn a_tampered_presigned_url_is_refused() {
    with_store(async |store| {
        store.put("object", "x").await;
        store.put("other", "secret").await;
        let url = presigned_get(&store, hour()).await;
        let at = url.find("X-Amz-Signature=").unwrap() + "X-Amz-Signature=".len();
        let flipped = if &url[at..=at] == "0" { "1" } else { "0" };
        let tampered = [
            format!("{}{flipped}{}", &url[..at], &url[at + 1..]),
            format!("{}z{}", &url[..at], &url[at + 1..]),
            url.replace("/object?", "/other?"),
            url.replace("X-Amz-Expires=3600", "X-Amz-Expires=7200"),
            format!("{url}&response-content-type=text%2Fhtml"),
        ];
        for url in tampered {
            let answer = send("GET", &url, &[], b"").await;
            assert_eq!((answer.status, answer.code()), (403, "SignatureDoesNotMatch".to_owned()), "{url}");
        }
        assert_eq!(send("PUT", &url, &[], b"new").await.status, 403);
        assert_eq!(send("DELETE", &url, &[], b"").await.status, 403);
        assert_eq!(store.get("object").await, b"x");
    })
    .await;
}

#[tokio::test]
async fn an_expired_presigned_url_is_refused() {
    with_store(async |store| {
        store.put("object", "x").await;
        let config = PresigningConfig::builder()
            .start_time(SystemTime::now() - Duration::from_secs(7200))
            .expires_in(Duration::from_secs(3600))
            .build()
            .unwrap();
        let answer = send("GET", &presigned_get(&store, config).await, &[], b"").await;
        assert_eq!((answer.status, answer.code()), (403, "AccessDenied".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn a_presigned_url_cannot_be_given_a_copy_source() {
    with_store(async |store| {
        store.put("secret", "secret").await;
        let url = store.client.put_object().bucket(&store.bucket).key("object").presigned(hour()).await.unwrap();
        let source = format!("/{}/secret", store.bucket);
        let answer = send("PUT", url.uri(), &[("x-amz-copy-source", &source)], b"").await;
        assert_eq!(answer.status, 403);
        assert_eq!(store.keys().await, ["secret"]);
    })
    .await;
}

#[tokio::test]
async fn a_presigned_get_may_rename_the_download() {
    with_store(async |store| {
        store.put("object", "x").await;
        let get = store.client.get_object().bucket(&store.bucket).key("object");
        let url = get
            .response_content_disposition("attachment; filename=named.txt")
            .response_content_type("text/odd")
            .presigned(hour())
            .await
            .unwrap();
        let answer = send("GET", url.uri(), &[], b"").await;
        assert_eq!(answer.status, 200);
        assert!(answer.head.contains("content-disposition: attachment; filename=named.txt"));
        assert!(answer.head.contains("content-type: text/odd"));
    })
    .await;
}

#[tokio::test]
async fn a_request_signed_long_ago_is_refused() {
    with_store(async |store| {
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/20200101/{}/s3/aws4_request, \
             SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature={}",
            store.access_key,
            store.region,
            "0".repeat(64)
        );
        let headers =
            [("authorization", authorization.as_str()), ("x-amz-date", "20200101T000000Z"), ("x-amz-content-sha256", "UNSIGNED-PAYLOAD")];
        let answer = send("GET", &format!("{}/{}", store.endpoint, store.bucket), &headers, b"").await;
        assert_eq!((answer.status, answer.code()), (403, "RequestTimeTooSkewed".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn old_signatures_are_refused() {
    with_store(async |store| {
        let url = format!("{}/{}", store.endpoint, store.bucket);
        let answer = send("GET", &url, &[("authorization", "AWS tester:c2lnbmF0dXJl")], b"").await;
        assert_eq!((answer.status, answer.code()), (400, "InvalidRequest".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn a_body_that_ends_early_stores_nothing() {
    with_store(async |store| {
        let url = store.client.put_object().bucket(&store.bucket).key("object").presigned(hour()).await.unwrap();
        let rest = url.uri().strip_prefix("http://").unwrap();
        let (host, path) = rest.split_once('/').unwrap();
        let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
        let head = format!("PUT /{path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 500000\r\n\r\n");
        use tokio::io::AsyncWriteExt;
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&noise(200_000)).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        use tokio::io::AsyncReadExt;
        // The store may answer or just close; either way nothing may be stored.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(store.keys().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_streamed_body_of_unknown_pieces_is_stored() {
    with_store(async |store| {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("body");
        std::fs::write(&path, noise(3_000_000)).unwrap();
        let body = ByteStream::from_path(&path).await.unwrap();
        store.client.put_object().bucket(&store.bucket).key("object").body(body).send().await.unwrap();
        assert!(store.get("object").await == noise(3_000_000));
    })
    .await;
}
