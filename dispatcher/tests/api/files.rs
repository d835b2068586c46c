//! Files of tasks and nodes, served by a fake agent: streams that outlive their node, ranges, large files.

use std::{collections::BTreeMap, time::Duration};

use broker_config::topology;
use bytes::Bytes;
use clients::{
    amqp::{Consumer, Link, Outgoing, Subscription},
    blobs::Blobs,
};
use contract::{
    ids::{Epoch, RunId},
    message::{
        AgentEvent, Control, ControlKind, EventBatch, FileEntry, FileReply, FileRequest, Finished, Join, NodeReport, Reply, ReplyMessage,
        Request, RequestKind, Started, TaskMessage, VERSION,
    },
    outcome::{FILE_CHUNK_BYTES_MAX, Outcome, Stream, Usage},
    state::NodeState,
    time::Timestamp,
};
use serde_json::{Value, json};
use tokio::{runtime::Runtime, task::JoinHandle};

use crate::{signing::Got, test_dispatcher::TestDispatcher};

const PATIENCE: Duration = Duration::from_secs(30);
const ROOT: &str = "workitems/Job/job-1/t";
/// More than is carried over the broker, and no multiple of a piece.
const LARGE_BYTES: usize = 3 * 1024 * 1024 + 17;

/// A name that tasks can give, however odd.
const ODD: &str = "wd/t\tb\n\\c:";

fn large() -> Vec<u8> {
    (0..LARGE_BYTES).map(|index| (index % 251) as u8).collect()
}

/// A node with one task that ran, and its files.
struct Node {
    runtime: Runtime,
    link: Link,
    blobs: Blobs,
    answering: Option<JoinHandle<()>>,
}

fn entry(name: &str, length: u64, is_directory: bool) -> FileEntry {
    let at = Timestamp(1_795_460_400_000);
    FileEntry {
        name: name.to_owned(),
        is_directory,
        length,
        modified_at: at,
        created_at: at,
        mode: if is_directory { 0o40_755 } else { 0o100_644 },
    }
}

async fn reply(files: &mut BTreeMap<String, Vec<u8>>, blobs: &Blobs, request: FileRequest) -> FileReply {
    let found = |files: &BTreeMap<String, Vec<u8>>, path: &str| files.get(path).map(|bytes| entry(path, bytes.len() as u64, false));
    match request {
        FileRequest::List { path, after, entries_max, .. } => {
            let prefix = if path.is_empty() { path } else { format!("{path}/") };
            let names =
                files.iter().filter_map(|(name, bytes)| name.strip_prefix(&prefix).map(|name| entry(name, bytes.len() as u64, false)));
            let mut entries: Vec<_> = names.filter(|entry| after.as_ref().is_none_or(|after| entry.name > *after)).collect();
            let has_more = entries.len() > entries_max as usize;
            entries.truncate(entries_max as usize);
            FileReply::Entries { entries, has_more }
        }
        FileRequest::Stat { path } => found(files, &path).map_or(FileReply::NotFound, FileReply::Entry),
        FileRequest::Read { path, offset, length } => match files.get(&path) {
            None => FileReply::NotFound,
            Some(bytes) => {
                assert!(length <= FILE_CHUNK_BYTES_MAX as u64);
                let start = (offset as usize).min(bytes.len());
                let end = start.saturating_add(length as usize).min(bytes.len());
                FileReply::Chunk { entry: entry(&path, bytes.len() as u64, false), bytes: bytes[start..end].to_vec() }
            }
        },
        FileRequest::Upload { path, key } => match files.get(&path) {
            None => FileReply::NotFound,
            Some(bytes) => {
                blobs.put("own", &key, Bytes::from(bytes.clone())).await.unwrap();
                FileReply::Entry(entry(&path, bytes.len() as u64, false))
            }
        },
        FileRequest::Delete { path, .. } => match files.remove(&path) {
            None => FileReply::NotFound,
            Some(bytes) => FileReply::Entry(entry(&path, bytes.len() as u64, false)),
        },
        FileRequest::UploadLogs { .. } => FileReply::NotFound,
    }
}

async fn answer(link: Link, mut control: Consumer, blobs: Blobs) {
    let texts = [
        ("stderr.txt", b"on the node".to_vec()),
        ("wd/a b.txt", b"0123456789".to_vec()),
        ("wd/empty", vec![]),
        ("wd/large", large()),
        (ODD, b"odd".to_vec()),
    ];
    let mut files: BTreeMap<_, _> = texts.into_iter().map(|(name, bytes)| (format!("{ROOT}/{name}"), bytes)).collect();
    while let Some(delivery) = control.next().await {
        let Control { what, .. } = delivery.message().unwrap();
        if let ControlKind::File(request) = what {
            let reply = reply(&mut files, &blobs, request).await;
            let to = delivery.reply_to.clone().unwrap();
            let outgoing =
                Outgoing::message("", to, &reply).unwrap().transient().optional().correlation(delivery.correlation_id.clone().unwrap());
            link.publisher().publish(outgoing).await.unwrap();
        }
        control.acker().ack(delivery.tag);
    }
}

async fn run_task(link: &Link, blobs: &Blobs) -> JoinHandle<()> {
    let (pool, node) = ("Pool".parse().unwrap(), "n1".parse().unwrap());
    let key = topology::node_key(&pool, &node);
    let control = link.subscribe(Subscription::private(vec![(topology::CONTROL, key.clone())], 64)).await.unwrap();
    let caller = link.caller().await.unwrap();
    let join = Join {
        pool: pool.clone(),
        node: node.clone(),
        token: "join".into(),
        epoch: None,
        address: "127.0.0.1".into(),
        cores: 1,
        version: "test".into(),
    };
    let request = Request { v: VERSION, what: RequestKind::Join(join) };
    let joined: ReplyMessage = caller.call(topology::REQUESTS, "asks".into(), &request, PATIENCE).await.unwrap();
    let Reply::Joined(joined) = joined.what else { panic!("{joined:?}") };
    let publisher = link.publisher();
    let tell = async |epoch: Epoch, events: Vec<AgentEvent>| {
        let batch = EventBatch { v: VERSION, pool: pool.clone(), node: node.clone(), epoch, events };
        publisher.publish(Outgoing::message(topology::EVENTS, key.clone(), &batch).unwrap()).await.unwrap();
    };
    let report = NodeReport { state: NodeState::Idle, start_task: None, fault: None, is_drained: false, at: Timestamp::now(), number: 0 };
    tell(joined.epoch, vec![AgentEvent::Node(report)]).await;

    let mut queue = link.subscribe(Subscription::plain(topology::pool_queue(&pool), 1)).await.unwrap();
    let delivery = tokio::time::timeout(PATIENCE, queue.next()).await.unwrap().unwrap();
    let task: TaskMessage = delivery.message().unwrap();
    blobs.put("own", "logs/1/1/r/stdout", Bytes::from_static(b"from the bucket")).await.unwrap();
    let (run, at) = (RunId::random(), Timestamp::now());
    let started = Started { uid: task.uid, attempt: task.attempt, fence: task.fence, run, at };
    let finished = Finished {
        uid: task.uid,
        attempt: task.attempt,
        fence: task.fence,
        run,
        started_at: at,
        ended_at: at,
        outcome: Outcome::Exit { code: 3 },
        stdout: Stream::Blob { key: "logs/1/1/r/stdout".into(), bytes: 15 },
        stderr: Stream::Inline { bytes: b"inline".to_vec() },
        usage: Usage::default(),
    };
    tell(joined.epoch, vec![AgentEvent::Started(started), AgentEvent::Finished(Box::new(finished))]).await;
    queue.acker().ack(delivery.tag);
    tokio::spawn(answer(link.clone(), control, blobs.clone()))
}

impl Node {
    /// Runs the task `t` of the job to its end.
    fn with_ended_task(dispatcher: &TestDispatcher) -> Node {
        dispatcher.add_pool_and_job();
        dispatcher.send("POST", "/jobs/Job/tasks", json!({"id": "t", "commandLine": "x"}), 201);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let blobs = Blobs::new(dispatcher.blobs.clone()).unwrap();
        let (link, answering) = runtime.block_on(async {
            let link = Link::open(dispatcher.broker.clone()).await.unwrap();
            let answering = run_task(&link, &blobs).await;
            (link, Some(answering))
        });
        let deadline = std::time::Instant::now() + PATIENCE;
        while dispatcher.get("/jobs/Job/tasks/t")["state"] != "completed" {
            assert!(std::time::Instant::now() < deadline, "{}", dispatcher.get("/jobs/Job/tasks/t"));
        }
        Node { runtime, link, blobs, answering }
    }

    /// Nothing that was uploaded for a reader stays behind.
    fn assert_no_transfers(&self) {
        let deadline = std::time::Instant::now() + PATIENCE;
        while !self.runtime.block_on(self.blobs.list("own", "transfer/", None, 10)).unwrap().blobs.is_empty() {
            assert!(std::time::Instant::now() < deadline, "an uploaded file stays in the bucket");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(answering) = self.answering.take() {
            answering.abort();
        }
        self.runtime.block_on(self.link.close());
    }
}

fn read(dispatcher: &TestDispatcher, file: &str, range: Option<&str>) -> Got {
    let headers: Vec<_> = range.map(|range| ("ocp-range", range)).into_iter().collect();
    dispatcher.ask("GET", &format!("/jobs/Job/tasks/t/files/{file}"), &headers, &Value::Null)
}

#[test]
fn an_ended_task_shows_its_streams_its_files_and_its_end() {
    let dispatcher = TestDispatcher::start();
    let node = Node::with_ended_task(&dispatcher);

    let task = dispatcher.get("/jobs/Job/tasks/t");
    assert_eq!((&task["executionInfo"]["exitCode"], &task["executionInfo"]["result"]), (&json!(3), &json!("failure")));
    assert_eq!(task["executionInfo"]["failureInfo"]["code"], "FailureExitCode");
    assert_eq!(task["nodeInfo"]["taskRootDirectory"], ROOT);
    assert_eq!(task["nodeInfo"]["taskRootDirectoryUrl"], format!("{}/pools/pool/nodes/n1/files/{ROOT}", dispatcher.account.url));

    let node_shown = dispatcher.get("/pools/Pool/nodes/n1?$select=recentTasks,totalTasksRun,runningTasksCount");
    assert_eq!((&node_shown["totalTasksRun"], &node_shown["runningTasksCount"]), (&json!(1), &json!(0)));
    let recent = node_shown["recentTasks"].clone();
    assert_eq!((&recent[0]["taskId"], &recent[0]["jobId"], &recent[0]["taskState"]), (&json!("t"), &json!("Job"), &json!("completed")));
    assert_eq!((&recent[0]["taskUrl"], &recent[0]["executionInfo"]["exitCode"]), (&task["url"], &json!(3)));

    let got = read(&dispatcher, "stdout.txt", None);
    assert_eq!((got.status, got.body.as_slice()), (200, &b"from the bucket"[..]));
    assert_eq!(read(&dispatcher, "stdout.txt", Some("bytes=5-7")).body, b"the");
    assert_eq!(read(&dispatcher, "stderr.txt", None).body, b"inline");
    assert_eq!(read(&dispatcher, "stderr.txt", Some("bytes=-2")).body, b"ne");
    assert_eq!(read(&dispatcher, "stderr.txt", Some("bytes=6-")).json()["code"], "InvalidRange");

    let got = read(&dispatcher, "wd%2Fa%20b.txt", Some("bytes=2-4"));
    assert_eq!((got.status, got.body.as_slice(), got.header("content-length")), (200, &b"234"[..], Some("3")));
    assert_eq!(got.header("ocp-batch-file-mode"), Some("0o100644"));
    assert_eq!(read(&dispatcher, "wd%2Fa%20b.txt", Some("bytes=10-")).status, 416);
    assert_eq!(read(&dispatcher, "wd%2Fa%20b.txt", Some("bytes=-3")).body, b"789");
    assert_eq!(read(&dispatcher, "wd%2Fempty", None).header("content-length"), Some("0"));
    assert_eq!(read(&dispatcher, "wd%2Fnothing", None).json()["code"], "FileNotFound");

    let got = dispatcher.ask("HEAD", "/jobs/Job/tasks/t/files/wd%2Fa%20b.txt", &[], &Value::Null);
    assert_eq!((got.status, got.header("content-length"), got.body.len()), (200, Some("10"), 0));
    assert_eq!((got.header("ocp-batch-file-isdirectory"), got.header("content-type")), (Some("false"), Some("text/plain")));
    assert_eq!(got.header("last-modified"), got.header("ocp-creation-time"));
    let later = [("if-modified-since", "Mon, 01 Jan 2035 00:00:00 GMT")];
    assert_eq!(dispatcher.ask("GET", "/jobs/Job/tasks/t/files/wd%2Fa%20b.txt", &later, &Value::Null).status, 304);

    assert_eq!(dispatcher.ask("GET", &format!("/pools/Pool/nodes/n1/files/{ROOT}/wd/a%20b.txt"), &[], &Value::Null).body, b"0123456789");
    drop(node);
}

#[test]
fn large_files_come_whole_and_in_part_and_leave_nothing_behind() {
    let dispatcher = TestDispatcher::start();
    let node = Node::with_ended_task(&dispatcher);
    let got = read(&dispatcher, "wd%2Flarge", None);
    assert_eq!((got.status, got.header("content-length")), (200, Some(LARGE_BYTES.to_string().as_str())));
    assert!(got.body == large(), "the bytes are those of the file");
    assert!(read(&dispatcher, "wd%2Flarge", Some("bytes=100-2000099")).body == large()[100..2_000_100], "a large part is that of the file");
    assert!(
        read(&dispatcher, "wd%2Flarge", Some("bytes=1000-600999")).body == large()[1000..601_000],
        "a smaller part is that of the file"
    );
    node.assert_no_transfers();
}

#[test]
fn files_are_listed_page_by_page_and_removed() {
    let dispatcher = TestDispatcher::start();
    let _node = Node::with_ended_task(&dispatcher);
    let names =
        |list: &Value| list["value"].as_array().unwrap().iter().map(|file| file["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let files = "/jobs/Job/tasks/t/files";
    let whole = dispatcher.get(&format!("{files}?recursive=true"));
    assert_eq!(names(&whole), ["stderr.txt", "stdout.txt", "wd/a b.txt", "wd/empty", "wd/large", ODD]);
    let url = whole["value"][5]["url"].as_str().unwrap().strip_prefix(&dispatcher.account.url).unwrap();
    assert_eq!(url, format!("{files}/wd/t%09b%0A%5Cc%3A"));
    for odd in [url.to_owned(), format!("{files}/wd%2Ft%09b%0A%5Cc%3A")] {
        assert_eq!(dispatcher.ask("GET", &odd, &[], &Value::Null).body, b"odd", "what is listed can be read");
    }
    assert_eq!(whole["value"][0]["properties"]["contentLength"], 6, "the kept stream counts");
    let types: Vec<_> = [1, 3].map(|at: usize| whole["value"][at]["properties"]["contentType"].as_str().unwrap()).into();
    assert_eq!(types, ["text/plain", "application/octet-stream"]);
    assert_eq!(whole["value"][2]["url"], format!("{}{files}/wd/a%20b.txt", dispatcher.account.url));
    assert_eq!(names(&dispatcher.get(&format!("{files}?recursive=true&$filter=startswith(name,'wd/')"))).len(), 4);
    let first = dispatcher.get(&format!("{files}?recursive=true&maxresults=2"));
    let next = first["odata.nextLink"].as_str().unwrap().strip_prefix(&dispatcher.account.url).unwrap();
    let mut all = names(&first);
    all.extend(names(&dispatcher.get(next)));
    assert!(all.contains(&"stdout.txt".to_owned()) && all.contains(&"wd/a b.txt".to_owned()), "{all:?}");

    dispatcher.send("DELETE", &format!("{files}/wd%2Fempty"), Value::Null, 200);
    dispatcher.send("DELETE", &format!("{files}/wd%2Fempty"), Value::Null, 404);
}

#[test]
fn a_removed_stream_is_kept_no_longer() {
    let dispatcher = TestDispatcher::start();
    let node = Node::with_ended_task(&dispatcher);
    let files = "/jobs/Job/tasks/t/files";
    for (name, code) in [("stdout.txt", "a stream in the bucket"), ("stderr.txt", "a stream in the row, and on the node")] {
        dispatcher.send("DELETE", &format!("{files}/{name}"), Value::Null, 200);
        assert_eq!(read(&dispatcher, name, None).json()["code"], "FileNotFound", "{code}");
        assert_eq!(dispatcher.ask("HEAD", &format!("{files}/{name}"), &[], &Value::Null).status, 404, "{code}");
        dispatcher.send("DELETE", &format!("{files}/{name}"), Value::Null, 404);
    }
    let left = dispatcher.get(&format!("{files}?recursive=true"));
    assert!(left["value"].as_array().unwrap().iter().all(|file| file["name"].as_str().unwrap().starts_with("wd/")), "{left}");
    let deadline = std::time::Instant::now() + PATIENCE;
    while !node.runtime.block_on(node.blobs.list("own", "logs/", None, 10)).unwrap().blobs.is_empty() {
        assert!(std::time::Instant::now() < deadline, "a removed stream stays in the bucket");
    }
    dispatcher.send("POST", "/jobs/Job/tasks/t/reactivate", Value::Null, 204);
}
