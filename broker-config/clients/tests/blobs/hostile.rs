//! Stores that close connections, send wrong data, refuse or do not answer.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use broker_config::settings::Secret;
use clients::blobs::{BlobError, Blobs, PART_BYTES, RANGE_BYTES};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::test_store::{TestStore, pattern, settings};

/// Sends one bare HTTP request and returns the whole answer as text.
pub async fn request(method: &str, url: &str, body: &[u8]) -> String {
    let (authority, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut socket = TcpStream::connect(authority).await.unwrap();
    let length = body.len();
    let head = format!("{method} /{path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    socket.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    let mut answer = vec![];
    socket.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Forwards connections; each is cut after so many bytes in either direction, as long as cuts are left.
async fn cutting_relay(target: SocketAddr, bytes_max: usize, cuts: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(target).await else { continue };
            let cuts = cuts.clone();
            tokio::spawn(async move {
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::select! {
                    () = pass(from_client, to_server, bytes_max, &cuts) => {}
                    () = pass(from_server, to_client, bytes_max, &cuts) => {}
                }
            });
        }
    });
    address
}

async fn pass(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, bytes_max: usize, cuts: &AtomicUsize) {
    let mut buffer = vec![0; 64 * 1024];
    let mut passed = 0;
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        passed += count;
        let is_over = passed > bytes_max && cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if is_over || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn through(store: &TestStore, bytes_max: usize, cuts: usize) -> (Blobs, Arc<AtomicUsize>) {
    let target: SocketAddr = store.blobs.settings().endpoint.strip_prefix("http://").unwrap().trim_end_matches('/').parse().unwrap();
    let left = Arc::new(AtomicUsize::new(cuts));
    let mut settings = store.blobs.settings().clone();
    settings.endpoint = format!("http://{}", cutting_relay(target, bytes_max, left.clone()).await);
    (Blobs::new(settings).unwrap(), left)
}

#[tokio::test]
async fn a_download_goes_on_where_it_was_cut() {
    let store = TestStore::start().await;
    let bytes = pattern(RANGE_BYTES as usize * 2 + 5);
    let (up, down) = (store.folder.path().join("up"), store.folder.path().join("down"));
    std::fs::write(&up, &bytes).unwrap();
    store.blobs.upload_file(&store.bucket, "file", &up).await.unwrap();
    let (cut, left) = through(&store, 5 << 20, 4).await;
    assert_eq!(cut.download_file(&store.bucket, "file", &down).await.unwrap(), bytes.len() as u64);
    assert!(std::fs::read(&down).unwrap() == bytes);
    assert_eq!(left.load(Ordering::SeqCst), 0, "nothing was cut");
    store.stop().await;
}

#[tokio::test]
async fn an_upload_sends_the_parts_that_were_cut_again() {
    let store = TestStore::start().await;
    let bytes = pattern(PART_BYTES as usize * 3 + 5);
    let up = store.folder.path().join("up");
    std::fs::write(&up, &bytes).unwrap();
    let (cut, left) = through(&store, 3 << 20, 6).await;
    assert_eq!(cut.upload_file(&store.bucket, "file", &up).await.unwrap(), bytes.len() as u64);
    assert!(store.blobs.get(&store.bucket, "file", None, bytes.len()).await.unwrap() == bytes);
    assert_eq!(left.load(Ordering::SeqCst), 0, "nothing was cut");
    store.stop().await;
}

#[tokio::test]
async fn a_wrong_secret_is_denied_and_not_repeated() {
    let store = TestStore::start().await;
    let mut settings = store.blobs.settings().clone();
    settings.secret_key = Secret::new("hush-hush");
    let error = Blobs::new(settings).unwrap().get(&store.bucket, "key", None, 10).await.unwrap_err();
    assert!(matches!(error, BlobError::Denied { .. }), "{error:?}");
    assert_eq!((error.code_for_download(), error.code_for_upload()), ("BlobAccessDenied", "FileUploadAccessDenied"));
    assert!(!format!("{error} {error:?}").contains("hush-hush"));
    store.stop().await;
}

#[tokio::test]
async fn a_store_that_is_not_there_is_named() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let blobs = Blobs::new(settings(&format!("http://{free}"))).unwrap();
    let error = blobs.head("bucket", "key").await.unwrap_err();
    assert!(matches!(&error, BlobError::Unreachable { endpoint, .. } if endpoint.contains(&free.to_string())), "{error:?}");
    assert!(error.is_transient());
}

#[tokio::test]
async fn an_answer_that_is_no_s3_is_an_error() {
    for answer in
        ["HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\noops", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort", "garbage\r\n\r\n"]
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = vec![0; 4096];
                if socket.read(&mut request).await.is_ok() {
                    let _gone = socket.write_all(answer.as_bytes()).await;
                }
            }
        });
        let blobs = Blobs::new(settings(&format!("http://{address}"))).unwrap();
        let error = blobs.get("bucket", "key", None, 1000).await.unwrap_err();
        assert_eq!(error.code_for_download(), "BlobDownloadMiscError", "{error:?}");
        serving.abort();
    }
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused() {
    for endpoint in ["", "127.0.0.1:9000", "ftp://127.0.0.1", "http://host/path", "http://"] {
        assert!(matches!(Blobs::new(settings(endpoint)), Err(BlobError::Settings { .. })), "{endpoint}");
    }
    let mut same = settings("http://127.0.0.1:1");
    same.own_bucket = same.bucket.clone();
    assert!(matches!(Blobs::new(same), Err(BlobError::Settings { .. })));
}
