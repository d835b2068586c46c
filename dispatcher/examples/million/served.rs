//! A dispatcher over a filled store with a broker and a blob store of its own, and a signed client that keeps its connection.

use std::{
    cell::RefCell,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use broker_config::settings::{BlobSettings, BrokerSettings, Secret};
use dispatcher::{Progress, Settings};
use scheduler::Timers;
use tokio::sync::{oneshot, watch};

use crate::signing::{Account, Got, Wire};

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const PATIENCE: Duration = Duration::from_secs(120);

/// A running dispatcher; dropping it ends it.
pub struct Served {
    pub account: Account,
    socket: RefCell<BufReader<TcpStream>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

async fn live(folder: PathBuf, open: oneshot::Sender<SocketAddr>, stop: oneshot::Receiver<()>) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let settings = embedded_broker::Settings::new(any, folder.join("broker"), "u", "p");
    let broker = embedded_broker::Broker::start(settings).await.expect("a broker");
    let settings = embedded_blobs::Settings::new(any, folder.join("blobs"), "access", "secret");
    let blobs = embedded_blobs::Blobs::start(settings).await.expect("a blob store");
    let settings = Settings {
        listen: any,
        metrics_listen: None,
        public_url: None,
        data: folder,
        account: "acct".into(),
        keys: vec![Secret::new(KEY)],
        broker: BrokerSettings { url: Secret::new(broker.url()), name: "million".into() },
        broker_users: None,
        blobs: BlobSettings {
            endpoint: blobs.endpoint(),
            region: "us-east-1".into(),
            access_key: "access".into(),
            secret_key: Secret::new("secret"),
            bucket: "user".into(),
            own_bucket: "own".into(),
        },
        join_secret: None,
        timers: Timers::default(),
        heartbeat_ms: 1_000,
        access: dispatcher::Access::default(),
    };
    let ended = async move {
        // A sender that is gone ends it as well.
        let _ = stop.await;
    };
    let (progress, seen) = watch::channel(Progress::default());
    let announce = async {
        if let Some(address) = Progress::ready(seen).await {
            open.send(address).expect("somebody who waits");
        }
    };
    let (ended, ()) = tokio::join!(dispatcher::run(settings, progress, ended), announce);
    ended.expect("a dispatcher that ends well");
    broker.stop().await;
    blobs.stop().await;
}

impl Served {
    /// Starts one over a folder's store and waits until it is healthy.
    pub fn open(folder: &Path) -> Result<Served, Box<dyn std::error::Error>> {
        let folder = folder.to_owned();
        let (open, is_open) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let thread = thread::spawn(move || runtime.block_on(live(folder, open, stopped)));
        let address = is_open.blocking_recv()?;
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let account = Account { url: format!("http://{address}"), name: "acct".into(), key: KEY.into() };
        Ok(Served { account, socket: RefCell::new(BufReader::new(socket)), stop: Some(stop), thread: Some(thread) })
    }

    /// Sends a signed request that must be answered with 200.
    pub fn ask(&self, method: &str, target: &str, body: &str) -> Got {
        let host = self.account.url.trim_start_matches("http://").to_owned();
        let mut wire = Wire::new(method, target, body).with("host", host).with("ocp-date", httpdate::fmt_http_date(SystemTime::now()));
        if !body.is_empty() {
            wire = wire.with("content-type", "application/json; odata=minimalmetadata").with("content-length", body.len().to_string());
        }
        let authorization = wire.authorization(&self.account.name, &self.account.key);
        let wire = wire.with("authorization", authorization);
        let mut bytes = format!("{} {} HTTP/1.1\r\n", wire.method, wire.target).into_bytes();
        for (name, value) in &wire.headers {
            bytes.extend(format!("{name}: {value}\r\n").into_bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(&wire.body);
        let socket = &mut *self.socket.borrow_mut();
        socket.get_mut().write_all(&bytes).expect("a door that reads");
        let got = read(socket).expect("an answer");
        assert_eq!(got.status, 200, "{method} {target}: {}", String::from_utf8_lossy(&got.body));
        got
    }
}

fn read(socket: &mut BufReader<TcpStream>) -> std::io::Result<Got> {
    let mut line = String::new();
    socket.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    let (mut headers, mut length) = (Vec::new(), 0);
    loop {
        line.clear();
        socket.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or_default();
        }
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body)?;
    Ok(Got { status, headers, body })
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the dispatcher did not end well");
        }
    }
}
