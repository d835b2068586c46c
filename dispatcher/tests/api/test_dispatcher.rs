//! A dispatcher of its own for each test, on ports and folders of its own.

use std::{
    net::SocketAddr,
    path::Path,
    thread::{self, JoinHandle},
    time::SystemTime,
};

use broker_config::settings::{BlobSettings, BrokerSettings, Secret};
use dispatcher::{Access, Progress, Settings};
use scheduler::Timers;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};

use crate::signing::{Account, Got, Wire};

pub const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const VERSION: &str = "api-version=2024-02-01.19.0";

/// A running dispatcher; dropping it ends it.
pub struct TestDispatcher {
    pub account: Account,
    pub broker: BrokerSettings,
    pub blobs: BlobSettings,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    pub folder: TempDir,
}

struct Open {
    api: SocketAddr,
    broker: BrokerSettings,
    blobs: BlobSettings,
}

async fn live(folder: &Path, access: Access, open: oneshot::Sender<Open>, stop: oneshot::Receiver<()>) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let broker_server = embedded_broker::Broker::start(embedded_broker::Settings::new(any, folder.join("broker"), "u", "p")).await.unwrap();
    let blob_server =
        embedded_blobs::Blobs::start(embedded_blobs::Settings::new(any, folder.join("blobs"), "access", "secret")).await.unwrap();
    let broker = BrokerSettings { url: Secret::new(broker_server.url()), name: "door".into() };
    let blobs = BlobSettings {
        endpoint: blob_server.endpoint(),
        region: "us-east-1".into(),
        access_key: "access".into(),
        secret_key: Secret::new("secret"),
        bucket: "user".into(),
        own_bucket: "own".into(),
    };
    let settings = Settings {
        listen: any,
        metrics_listen: None,
        public_url: None,
        data: folder.join("store"),
        account: "acct".into(),
        keys: vec![Secret::new("b2xka2V5"), Secret::new(KEY)],
        broker: broker.clone(),
        broker_users: None,
        blobs: blobs.clone(),
        join_secret: Some(Secret::new("join")),
        timers: Timers::default(),
        heartbeat_ms: 1_000,
        access,
    };
    let (progress, seen) = watch::channel(Progress::default());
    let (end, ended) = oneshot::channel::<()>();
    let running = tokio::spawn(dispatcher::run(settings, progress, async move {
        let _ = ended.await;
    }));
    let api = Progress::ready(seen).await.expect("a dispatcher that becomes ready");
    assert!(open.send(Open { api, broker, blobs }).is_ok(), "somebody waits for the dispatcher");
    let _ = stop.await;
    let _ = end.send(());
    running.await.unwrap().unwrap();
    broker_server.stop().await;
    blob_server.stop().await;
}

impl TestDispatcher {
    /// Starts a dispatcher and waits until it is healthy.
    pub fn start() -> TestDispatcher {
        TestDispatcher::start_with(Access::default())
    }

    /// Starts a dispatcher with other settings of access.
    pub fn start_with(access: Access) -> TestDispatcher {
        let scheme = if access.tls.is_some() { "https" } else { "http" };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let (open, is_open) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(live(&path, access, open, stopped));
        });
        let Open { api, broker, blobs } = is_open.blocking_recv().expect("a dispatcher that opens");
        let account = Account { url: format!("{scheme}://{api}"), name: "acct".into(), key: KEY.into() };
        TestDispatcher { account, broker, blobs, stop: Some(stop), thread: Some(thread), folder }
    }

    /// Sends a signed request with these headers.
    pub fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &Value) -> Got {
        let version = if target.contains('?') { format!("&{VERSION}") } else { format!("?{VERSION}") };
        let target = if target.contains("api-version") { target.to_owned() } else { format!("{target}{version}") };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut wire = Wire::new(method, &target, body);
        for (name, value) in headers {
            wire = wire.with(name, *value);
        }
        wire.send_signed(&self.account)
    }

    /// Sends a request with a bearer token in place of a signature.
    pub fn ask_as(&self, token: &str, method: &str, target: &str, body: &Value) -> Got {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let wire = Wire::new(method, &format!("{target}?{VERSION}"), body).with("authorization", format!("Bearer {token}"));
        wire.prepared(&self.account, SystemTime::now()).send(&self.account)
    }

    /// Sends a request that must be answered with this status.
    pub fn send(&self, method: &str, target: &str, body: Value, status: u16) -> Got {
        let got = self.ask(method, target, &[], &body);
        assert_eq!(got.status, status, "{method} {target}: {}", String::from_utf8_lossy(&got.body));
        got
    }

    pub fn get(&self, target: &str) -> Value {
        self.send("GET", target, Value::Null, 200).json()
    }

    /// Adds a pool without nodes, and a job on it.
    pub fn add_pool_and_job(&self) {
        let machine = json!({"imageReference": {"publisher": "p", "offer": "o", "sku": "s"}, "nodeAgentSKUId": "a"});
        self.send(
            "POST",
            "/pools",
            json!({"id": "Pool", "vmSize": "x", "targetDedicatedNodes": 0, "virtualMachineConfiguration": machine}),
            201,
        );
        self.send("POST", "/jobs", json!({"id": "Job", "poolInfo": {"poolId": "pool"}}), 201);
    }
}

impl Drop for TestDispatcher {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("the dispatcher did not end well");
        }
    }
}
