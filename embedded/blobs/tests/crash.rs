//! What survives when the server dies or stops: a child process is killed in the middle of uploads.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::ByteStream;
use embedded_blobs::{Blobs, Error, Settings};
use tempfile::TempDir;

const CHILD_DATA: &str = "EMBEDDED_BLOBS_CHILD_DATA";
const ROUNDS: usize = 4;
const UPLOADERS: usize = 6;
const CONFIRMED_BEFORE_KILL: usize = 30;

fn client(endpoint: &str) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("piecework", "piecework", None, None, "test"))
        .retry_config(RetryConfig::disabled())
        .force_path_style(true)
        .build();
    Client::from_conf(config)
}

/// The child's half: this binary runs itself as a server, so that it can be killed.
#[tokio::test]
async fn child_server() {
    let Ok(data) = std::env::var(CHILD_DATA) else { return };
    let settings = Settings::new("127.0.0.1:0".parse().unwrap(), data, "piecework", "piecework");
    let server = Blobs::start(settings).await.unwrap();
    println!("\n{}", server.endpoint());
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    server.stop().await;
}

fn start(data: &Path) -> (Child, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child_server", "--exact", "--nocapture"])
        .env(CHILD_DATA, data)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines().map(Result::unwrap);
    let endpoint = lines.find(|line| line.starts_with("http://")).expect("the child tells its endpoint");
    (child, endpoint)
}

/// Bytes that tell which write made them, with sizes on both sides of the inline limit.
fn body(write: u64) -> Vec<u8> {
    let size = [100, 5_000, 70_000, 1_500_000][(write % 4) as usize];
    write.to_le_bytes().into_iter().cycle().take(size).collect()
}

fn files_in(folder: &Path) -> usize {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| if entry.file_type().unwrap().is_dir() { files_in(&entry.path()) } else { 1 })
        .sum()
}

#[derive(Default)]
struct Log {
    begun: HashMap<String, Vec<u64>>,
    confirmed: HashMap<String, u64>,
    count: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confirmed_objects_survive_a_kill_and_no_object_is_half_there() {
    let folder = TempDir::new().unwrap();
    let log = Arc::new(Mutex::new(Log::default()));
    for round in 0..ROUNDS {
        let (mut child, endpoint) = start(folder.path());
        let s3 = client(&endpoint);
        if round == 0 {
            s3.create_bucket().bucket("bucket").send().await.unwrap();
        }
        check(&s3, &log).await;
        log.lock().unwrap().count = 0;
        let (enough, mut is_enough) = tokio::sync::mpsc::channel(1);
        let uploaders: Vec<_> = (0..UPLOADERS)
            .map(|uploader| {
                let (s3, log, enough) = (s3.clone(), log.clone(), enough.clone());
                tokio::spawn(async move {
                    for at in 0.. {
                        // Keys are shared by the rounds, so that objects are replaced as well as created.
                        let key = format!("object-{uploader}-{}", at % 8);
                        let write = (round * UPLOADERS + uploader) as u64 * 1_000_003 + at;
                        log.lock().unwrap().begun.entry(key.clone()).or_default().push(write);
                        let put = s3.put_object().bucket("bucket").key(&key).body(ByteStream::from(body(write)));
                        if put.send().await.is_err() {
                            return;
                        }
                        let mut log = log.lock().unwrap();
                        log.confirmed.insert(key, write);
                        log.count += 1;
                        if log.count == CONFIRMED_BEFORE_KILL {
                            enough.try_send(()).unwrap();
                        }
                    }
                })
            })
            .collect();
        is_enough.recv().await.unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        for uploader in uploaders {
            uploader.await.unwrap();
        }
    }
    let (mut child, endpoint) = start(folder.path());
    let s3 = client(&endpoint);
    check(&s3, &log).await;
    let objects = s3.list_objects_v2().bucket("bucket").send().await.unwrap();
    let large = objects.contents().iter().filter(|object| object.size().unwrap() > 65_536).count();
    assert_eq!(files_in(&folder.path().join("content")), large, "orphans remain");
    assert_eq!(files_in(&folder.path().join("incoming")), 0);
    drop(child.stdin.take());
    let mut rest = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Every key holds its last confirmed write or one begun after it, whole.
async fn check(s3: &Client, log: &Mutex<Log>) {
    let (begun, confirmed) = {
        let log = log.lock().unwrap();
        (log.begun.clone(), log.confirmed.clone())
    };
    for (key, writes) in &begun {
        let found = match s3.get_object().bucket("bucket").key(key).send().await {
            Ok(output) => output.body.collect().await.unwrap().to_vec(),
            Err(error) => {
                assert!(error.as_service_error().unwrap().is_no_such_key(), "{error:?}");
                assert!(!confirmed.contains_key(key), "{key} was confirmed and is gone");
                continue;
            }
        };
        let from = confirmed.get(key).map_or(0, |last| writes.iter().position(|write| write == last).unwrap());
        assert!(writes[from..].iter().any(|write| body(*write) == found), "{key} holds something else");
    }
}

#[tokio::test]
async fn a_folder_serves_one_server_at_a_time_and_again_after_a_stop() {
    let folder = TempDir::new().unwrap();
    let settings = || Settings::new("127.0.0.1:0".parse().unwrap(), folder.path(), "piecework", "piecework");
    let server = Blobs::start(settings()).await.unwrap();
    let s3 = client(&server.endpoint());
    s3.create_bucket().bucket("bucket").send().await.unwrap();
    s3.put_object().bucket("bucket").key("k").body(ByteStream::from(body(3))).send().await.unwrap();
    assert!(matches!(Blobs::start(settings()).await, Err(Error::InUse { .. })));
    server.stop().await;
    let server = Blobs::start(settings()).await.unwrap();
    let output = client(&server.endpoint()).get_object().bucket("bucket").key("k").send().await.unwrap();
    assert!(output.body.collect().await.unwrap().to_vec() == body(3));
    server.stop().await;
}

#[tokio::test]
async fn a_replaced_object_is_read_to_its_end_and_its_file_goes_afterwards() {
    let folder = TempDir::new().unwrap();
    let settings = Settings::new("127.0.0.1:0".parse().unwrap(), folder.path(), "piecework", "piecework");
    let server = Blobs::start(settings).await.unwrap();
    let s3 = client(&server.endpoint());
    s3.create_bucket().bucket("bucket").send().await.unwrap();
    let old: Vec<u8> = (0..32_000_000_u32).map(|at| (at / 1000) as u8).collect();
    s3.put_object().bucket("bucket").key("k").body(old.clone().into()).send().await.unwrap();
    let reading = s3.get_object().bucket("bucket").key("k").send().await.unwrap();
    s3.put_object().bucket("bucket").key("k").body(body(0).into()).send().await.unwrap();
    assert!(reading.body.collect().await.unwrap().to_vec() == old);
    server.stop().await;
    let settings = Settings::new("127.0.0.1:0".parse().unwrap(), folder.path(), "piecework", "piecework");
    Blobs::start(settings).await.unwrap().stop().await;
    assert_eq!(files_in(&folder.path().join("content")), 0);
}
