//! Clients that are too slow, in either direction, are disconnected and leave nothing behind. On embedded servers with short timeouts.

use std::path::Path;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::presigning::PresigningConfig;
use embedded_blobs::{Blobs, Settings};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::store::{client, noise};

const DRIP: Duration = Duration::from_millis(5);
/// More than the socket buffers of both sides.
const LARGE: usize = 32_000_000;

/// A server with one object and a timeout of half a second.
async fn impatient(folder: &Path, bytes: usize) -> (Blobs, Client) {
    let settings = || Settings::new("127.0.0.1:0".parse().unwrap(), folder, "key", "secret");
    let server = Blobs::start(settings()).await.unwrap();
    let patient = client(&server.endpoint(), "key", "secret", "us-east-1");
    patient.create_bucket().bucket("bucket").send().await.unwrap();
    patient.put_object().bucket("bucket").key("kept").body(noise(bytes).into()).send().await.unwrap();
    server.stop().await;
    let mut settings = settings();
    settings.limits.body_timeout = Duration::from_millis(500);
    let server = Blobs::start(settings).await.unwrap();
    let client = client(&server.endpoint(), "key", "secret", "us-east-1");
    (server, client)
}

fn hour() -> PresigningConfig {
    PresigningConfig::expires_in(Duration::from_secs(3600)).unwrap()
}

async fn begin(server: &Blobs, method: &str, url: &str, length: usize) -> TcpStream {
    let (host, target) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let head = format!("{method} /{target} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

fn files_in(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries.map(|entry| if entry.file_type().unwrap().is_dir() { files_in(&entry.path()) } else { 1 }).sum()
}

#[tokio::test]
async fn silent_connections_and_half_requests_hold_up_nobody() {
    let folder = TempDir::new().unwrap();
    let mut settings = Settings::new("127.0.0.1:0".parse().unwrap(), folder.path(), "key", "secret");
    settings.limits.connections_max = 4;
    // No time limit ends a connection in this test.
    settings.limits.head_timeout = Duration::from_secs(600);
    let server = Blobs::start(settings).await.unwrap();
    let mut held = vec![];
    for number in 0..40 {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        if number % 2 == 0 {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: ").await.unwrap();
        }
        held.push(stream);
    }
    let client = client(&server.endpoint(), "key", "secret", "us-east-1");
    let work = async {
        client.create_bucket().bucket("bucket").send().await.unwrap();
        client.put_object().bucket("bucket").key("k").body(noise(1_000).into()).send().await.unwrap();
        let got = client.get_object().bucket("bucket").key("k").send().await.unwrap();
        assert_eq!(got.body.collect().await.unwrap().into_bytes().len(), 1_000);
    };
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("silent connections hold up a client");
    let mut rest = vec![];
    assert_eq!(held[0].read_to_end(&mut rest).await.unwrap_or(0), 0, "the oldest is gone");
    server.stop().await;
}

#[tokio::test]
async fn an_upload_that_only_drips_is_ended_and_stores_nothing() {
    let folder = TempDir::new().unwrap();
    let (server, client) = impatient(folder.path(), 1).await;
    let url = client.put_object().bucket("bucket").key("k").presigned(hour()).await.unwrap();
    let mut stream = begin(&server, "PUT", url.uri(), 1_000_000).await;
    // Larger than the inline limit, so that a file is created.
    stream.write_all(&noise(100_000)).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let dripping = tokio::spawn(async move {
        let mut drips = tokio::time::interval(DRIP);
        loop {
            drips.tick().await;
            if writing.write_all(b"x").await.is_err() {
                return;
            }
        }
    });
    let mut answer = vec![0; 12];
    reading.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 400");
    dripping.abort();
    assert!(client.head_object().bucket("bucket").key("k").send().await.is_err());
    server.stop().await;
    assert_eq!((files_in(&folder.path().join("content")), files_in(&folder.path().join("incoming"))), (0, 0));
}

#[tokio::test]
async fn an_upload_that_stops_is_ended() {
    let folder = TempDir::new().unwrap();
    let (server, client) = impatient(folder.path(), 1).await;
    let url = client.put_object().bucket("bucket").key("k").presigned(hour()).await.unwrap();
    let mut stream = begin(&server, "PUT", url.uri(), 10).await;
    stream.write_all(b"half").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("<Code>RequestTimeout</Code>"));
    server.stop().await;
}

#[tokio::test]
async fn a_download_that_nobody_reads_is_ended_and_lets_its_bytes_go() {
    let folder = TempDir::new().unwrap();
    let (server, client) = impatient(folder.path(), LARGE).await;
    let url = client.get_object().bucket("bucket").key("kept").presigned(hour()).await.unwrap();
    let mut stream = begin(&server, "GET", url.uri(), 0).await;
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200");
    client.delete_object().bucket("bucket").key("kept").send().await.unwrap();
    // The file stays as long as it is being read.
    let gone = async {
        let mut checks = tokio::time::interval(DRIP);
        while files_in(&folder.path().join("content")) > 0 {
            checks.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("the connection is held for ever");
    drop(stream);
    server.stop().await;
}
