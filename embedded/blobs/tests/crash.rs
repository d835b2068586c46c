//! Data that survives a kill or a stop of the server: a child process is killed during uploads.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use embedded_blobs::{Blobs, Error, Settings};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

const CHILD_DATA: &str = "EMBEDDED_BLOBS_CHILD_DATA";
const ROUNDS: usize = 4;
const RANDOM_ROUNDS: usize = 12;
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

/// The child process: this test binary runs itself as a server, so that it can be killed.
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
    let endpoint = lines.find(|line| line.starts_with("http://")).expect("the child prints its endpoint");
    (child, endpoint)
}

/// Bytes that identify their write, with sizes on both sides of the inline limit.
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

/// Uploads until the server is killed: single puts, and every fifth one in parts.
async fn upload(s3: Client, log: Arc<Mutex<Log>>, uploader: usize, round: usize, enough: (usize, tokio::sync::mpsc::Sender<()>)) {
    for at in 0.. {
        // The rounds share their keys, so that objects are replaced as well as created.
        let key = format!("object-{uploader}-{}", at % 8);
        let write = (round * UPLOADERS + uploader) as u64 * 1_000_003 + at;
        log.lock().unwrap().begun.entry(key.clone()).or_default().push(write);
        let is_done = if at % 5 == 4 { put_in_parts(&s3, &key, write).await.is_some() } else { put(&s3, &key, write).await.is_some() };
        if !is_done {
            return;
        }
        let mut log = log.lock().unwrap();
        log.confirmed.insert(key, write);
        log.count += 1;
        if log.count == enough.0 {
            enough.1.try_send(()).unwrap();
        }
    }
}

async fn put(s3: &Client, key: &str, write: u64) -> Option<()> {
    s3.put_object().bucket("bucket").key(key).body(ByteStream::from(body(write))).send().await.ok().map(|_| ())
}

async fn put_in_parts(s3: &Client, key: &str, write: u64) -> Option<()> {
    let upload = s3.create_multipart_upload().bucket("bucket").key(key).send().await.ok()?;
    let id = upload.upload_id().unwrap();
    let part = s3.upload_part().bucket("bucket").key(key).upload_id(id).part_number(1).body(body(write).into()).send().await.ok()?;
    let part = CompletedPart::builder().part_number(1).set_e_tag(part.e_tag).build();
    let parts = CompletedMultipartUpload::builder().parts(part).build();
    s3.complete_multipart_upload().bucket("bucket").key(key).upload_id(id).multipart_upload(parts).send().await.ok().map(|_| ())
}

/// Kills the server repeatedly while clients upload: after a number of confirmed writes and then a pause.
async fn kill_again_and_again(moments: impl IntoIterator<Item = (usize, Duration)>) {
    let folder = TempDir::new().unwrap();
    let log = Arc::new(Mutex::new(Log::default()));
    for (round, (confirmed, then)) in moments.into_iter().enumerate() {
        let (mut child, endpoint) = start(folder.path());
        let s3 = client(&endpoint);
        if round == 0 {
            s3.create_bucket().bucket("bucket").send().await.unwrap();
        }
        check_files(&s3, folder.path()).await;
        check(&s3, &log).await;
        log.lock().unwrap().count = 0;
        let (enough, mut is_enough) = tokio::sync::mpsc::channel(1);
        let uploaders: Vec<_> = (0..UPLOADERS)
            .map(|uploader| tokio::spawn(upload(s3.clone(), log.clone(), uploader, round, (confirmed, enough.clone()))))
            .collect();
        is_enough.recv().await.unwrap();
        tokio::time::sleep(then).await;
        child.kill().unwrap();
        child.wait().unwrap();
        for uploader in uploaders {
            uploader.await.unwrap();
        }
    }
    let (mut child, endpoint) = start(folder.path());
    let s3 = client(&endpoint);
    check_files(&s3, folder.path()).await;
    check(&s3, &log).await;
    drop(child.stdin.take());
    let mut rest = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
    assert!(child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confirmed_objects_survive_a_kill_and_no_object_is_half_there() {
    kill_again_and_again([(CONFIRMED_BEFORE_KILL, Duration::ZERO); ROUNDS]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_random_moments_leave_neither_half_objects_nor_orphan_bytes() {
    let seed: u64 = std::env::var("PIECEWORK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    eprintln!("PIECEWORK_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let moments: Vec<_> =
        (0..RANDOM_ROUNDS).map(|_| (random.random_range(1..25), Duration::from_micros(random.random_range(0..20_000)))).collect();
    kill_again_and_again(moments).await;
}

/// After a start, exactly the files of objects and unfinished uploads exist.
async fn check_files(s3: &Client, folder: &Path) {
    let objects = s3.list_objects_v2().bucket("bucket").send().await.unwrap();
    let is_file = |object: &&aws_sdk_s3::types::Object| object.size().unwrap() > 65_536 || object.e_tag().unwrap().contains('-');
    let mut wanted = objects.contents().iter().filter(is_file).count();
    for upload in s3.list_multipart_uploads().bucket("bucket").send().await.unwrap().uploads() {
        let (key, id) = (upload.key().unwrap(), upload.upload_id().unwrap());
        wanted += s3.list_parts().bucket("bucket").key(key).upload_id(id).send().await.unwrap().parts().len();
    }
    assert_eq!(files_in(&folder.join("content")), wanted, "orphans remain, or bytes are missing");
    assert_eq!(files_in(&folder.join("incoming")), 0);
}

/// Every key has its last confirmed write or a later one, complete.
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
