//! Starts the dispatcher's parts, watches their health, and stops them in order.

use std::{
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use api::{ApiState, Gate, Key, Keys, KeysError, Oidc, OidcSettings, Publishers, TlsError, TlsFiles};
use broker_config::{
    metrics::install,
    private,
    settings::{BlobSettings, BrokerSettings, Secret},
    topology,
};
use clients::{
    amqp::{Acker, AmqpError, Link, LinkState},
    blobs::{BlobError, Blobs},
    broker_users::BrokerUsers,
};
use contract::clock::Clock;
use engine::{
    Engine, Identity, Input,
    messaging::{self, Files, Invocations, Queues, Running, dead_letters::DeadLetters},
    task_token::TaskTokens,
};
use model::health::{Health, Problem};
use scheduler::Timers;
use store::{
    StoreError,
    sqlite::{SqliteReader, SqliteStore},
};
use thiserror::Error;
use tokio::{net::TcpListener, sync::watch};
use tracing::{info, warn};

use crate::{
    disk_space::{self, make_room},
    locked::wait_while_locked,
    metrics::{Sources, metrics_page},
    progress::Progress,
    submissions::{self, Parts},
    triggers,
};

/// How long a dispatcher that has just ended may still appear as a consumer.
const PREDECESSOR_MAX: Duration = Duration::from_secs(20);
const PREDECESSOR_PAUSE: Duration = Duration::from_secs(2);
/// Reading connections to the store.
const READERS: usize = 4;
/// Time between two health checks.
const HEALTH_INTERVAL: Duration = Duration::from_secs(2);
/// Time between two health checks until the first success.
const HEALTH_FIRST_INTERVAL: Duration = Duration::from_millis(100);
/// Health checks between two test writes to the blob store.
const LOOKS_PER_BLOB_CHECK: u32 = 15;
/// Time limit of a health check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// Events that are not stored after this long are reported as a problem.
const UNSETTLED_MAX: Duration = Duration::from_secs(15);
/// Time of a whole stop, whatever hangs.
const STOP_MAX: Duration = Duration::from_secs(8);
/// Of it, the time that requests under way have.
const REQUESTS_STOP_MAX: Duration = Duration::from_secs(2);
/// Of it, the time until the engine has ended.
const ENGINE_STOP_MAX: Duration = Duration::from_secs(5);

/// Settings of a dispatcher.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address of the API; port 0 chooses a free one.
    pub listen: SocketAddr,
    /// Address of the metrics; `None` serves them with the API.
    pub metrics_listen: Option<SocketAddr>,
    /// The API's URL for clients and nodes; `None` derives it from the address.
    pub public_url: Option<String>,
    /// The folder of the store.
    pub data: PathBuf,
    pub account: String,
    /// The account's keys in base64; each of them is accepted.
    pub keys: Vec<Secret>,
    pub broker: BrokerSettings,
    /// Administers the users of the broker; absent where only its own administrator may.
    pub broker_users: Option<Arc<dyn BrokerUsers>>,
    pub blobs: BlobSettings,
    /// Allows an agent to join without a requested node.
    pub join_secret: Option<Secret>,
    /// Time limits and pauses of the scheduler.
    pub timers: Timers,
    /// Time between an agent's heartbeats.
    pub heartbeat_ms: u64,
    /// Further ways to authenticate, and TLS.
    pub access: Access,
}

/// Authentication besides the account's keys, and TLS.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// A file with keys, one per line, which is watched and replaces the keys of the settings.
    pub keys_file: Option<PathBuf>,
    /// The issuer of bearer tokens that are accepted.
    pub oidc: Option<OidcSettings>,
    /// Certificate and key; `None` means plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Whether plain HTTP may be served beyond this machine.
    pub allows_http: bool,
}

/// Why the dispatcher did not start or has ended.
#[derive(Debug, Error)]
pub enum DispatcherError {
    /// The address is in use or not available.
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
    /// Plain HTTP would be served beyond this machine.
    #[error(
        "plain HTTP on {address} can be read by others on the network; give --tls-cert and --tls-key, or --allow-http if something in front of it does TLS"
    )]
    PlainHttp { address: SocketAddr },
    #[error("the TLS certificate cannot be used")]
    Tls(#[from] TlsError),
    #[error("the keys file {path} cannot be used")]
    KeysFile { path: PathBuf, source: KeysError },
    /// The HTTP client for the issuer could not be built.
    #[error("bearer tokens cannot be checked")]
    Oidc { reason: String },
    /// A key is not base64.
    #[error("an account key is not base64")]
    Key,
    /// The data folder cannot be used.
    #[error("cannot use the data folder {path}")]
    Data { path: PathBuf, source: std::io::Error },
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
    #[error("the broker cannot be used")]
    Broker(#[from] AmqpError),
    /// Another dispatcher consumes the same queues.
    #[error(
        "another dispatcher serves from this broker: its queue {queue} has {consumers} consumers; stop that one, or use another broker or \
         virtual host"
    )]
    BrokerInUse { queue: &'static str, consumers: u32 },
    #[error("the blob store cannot be used")]
    Blobs(#[from] BlobError),
    /// The engine has ended by itself; the log says why.
    #[error("the engine stopped; the log says why")]
    Engine,
}

impl DispatcherError {
    /// Whether another process uses the broker's queues or the store.
    pub fn is_in_use(&self) -> bool {
        matches!(self, DispatcherError::BrokerInUse { .. } | DispatcherError::Store(StoreError::InUse { .. } | StoreError::Locked { .. }))
    }
}

/// Waits until nobody else consumes the events queue. Two dispatchers on one broker would take each other's messages.
async fn be_alone(link: &Link) -> Result<(), DispatcherError> {
    let deadline = Instant::now() + PREDECESSOR_MAX;
    loop {
        let consumers = link.depth(topology::EVENT_QUEUE).await?.map_or(0, |depth| depth.consumers);
        if consumers == 0 {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(DispatcherError::BrokerInUse { queue: topology::EVENT_QUEUE, consumers });
        }
        warn!(queue = topology::EVENT_QUEUE, consumers, "another dispatcher still serves from this broker; waiting for its end");
        tokio::time::sleep(PREDECESSOR_PAUSE).await;
    }
}

/// Opens the store on another thread, because that waits for locks.
async fn off_loop<T: Send + 'static>(open: impl FnOnce() -> Result<T, StoreError> + Send + 'static) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(open).await.unwrap_or(Err(StoreError::Busy))
}

/// Runs until `shutdown` is ready. `progress` receives the API's address once everything is healthy.
pub async fn run(
    settings: Settings,
    progress: watch::Sender<Progress>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), DispatcherError> {
    install();
    let failed = |source| DispatcherError::Data { path: settings.data.clone(), source };
    private::folder(&settings.data).map_err(failed)?;
    make_room(&settings.data).map_err(failed)?;
    let access = settings.access;
    if access.tls.is_none() && !access.allows_http && !settings.listen.ip().is_loopback() {
        return Err(DispatcherError::PlainHttp { address: settings.listen });
    }
    let given: Keys = settings.keys.iter().map(|key| Key::parse(key.expose()).ok_or(DispatcherError::Key)).collect::<Result<_, _>>()?;
    let keys = match &access.keys_file {
        Some(path) => api::read_keys(path).map_err(|source| DispatcherError::KeysFile { path: path.clone(), source })?,
        None => given,
    };
    let tls = access.tls.map(TlsFiles::open).transpose()?;
    let oidc = access.oidc.map(Oidc::new).transpose().map_err(|error| DispatcherError::Oidc { reason: error.to_string() })?;
    let secret = settings.data.join("token-secret");
    let tokens = TaskTokens::open(&secret).map_err(|source| DispatcherError::Data { path: secret.clone(), source })?;
    let (listener, address) = listen(settings.listen).await?;
    let metrics_listener = match settings.metrics_listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let account_url: String =
        settings.public_url.clone().unwrap_or_else(|| format!("{}://{address}", if tls.is_some() { "https" } else { "http" }));

    let path = settings.data.join("store.sqlite");
    let blobs = Blobs::new(settings.blobs.clone())?;
    let mut shutdown = std::pin::pin!(shutdown);
    // With TLS, clients could not read a plain answer.
    let waiting = Some(&listener).filter(|_| tls.is_none());
    let open = || {
        let path = path.clone();
        off_loop(move || Ok((SqliteStore::open(&path)?, SqliteReader::open(&path, READERS)?)))
    };
    let (store, read) = tokio::select! {
        opened = wait_while_locked(&path, waiting, StoreError::is_locked, open) => opened?,
        () = &mut shutdown => return Ok(()),
    };
    let read = Arc::new(read);
    progress.send_replace(Progress::Connects);
    let link = tokio::select! {
        link = Link::open_to_any(settings.broker.clone()) => link?,
        // A broker that does not answer must not delay the shutdown.
        () = &mut shutdown => return Ok(()),
    };

    tokio::select! {
        alone = be_alone(&link) => alone?,
        () = &mut shutdown => return Ok(()),
    }
    let identity = Identity {
        account: settings.account.clone(),
        account_url: account_url.clone(),
        join_secret: settings.join_secret.clone(),
        heartbeat_ms: settings.heartbeat_ms,
        tokens: tokens.clone(),
    };
    let mut opened = Some(store);
    let start = || {
        let (opened, path, identity, timers) = (opened.take(), path.clone(), identity.clone(), settings.timers);
        off_loop(move || {
            // A failed attempt has consumed its store.
            let store = opened.map_or_else(|| SqliteStore::open(&path), Ok)?;
            Engine::start(Box::new(store), identity, timers, Clock::system())
        })
    };
    progress.send_replace(Progress::OpensStore);
    let (engine, outlets, thread) = tokio::select! {
        started = wait_while_locked(&path, waiting, StoreError::is_locked, start) => started?,
        () = &mut shutdown => return Ok(()),
    };
    progress.send_replace(Progress::Connects);
    let (stop, stopped) = watch::channel(false);
    let (tell_shortage, shortage) = watch::channel(None);
    let engine = engine.unless_short(shortage);
    let Running { mut loops, events, answers } =
        messaging::run(&link, (&blobs, read.clone(), tokens.fingerprint()), &engine, outlets, stopped.clone()).await?;
    let parts = Parts { link: link.clone(), engine: engine.clone(), read: read.clone(), blobs: blobs.clone(), base: account_url };
    let triggering = parts.clone();
    submissions::run(&mut loops, parts, answers, stopped.clone()).await?;
    loops.spawn(triggers::run(triggering, stopped.clone()));
    loops.spawn(disk_space::watch(settings.data.clone(), tell_shortage, stopped.clone()));
    let files = Files::open(&link).await?;
    let invocations = Invocations::open(&link).await?;
    let (health, seen) = watch::channel(Health::problem("start", "the dispatcher is starting"));
    let sources =
        Sources { engine: engine.clone(), read: read.clone(), events: events.clone(), health: seen.clone(), data: settings.data.clone() };
    let metrics = metrics_page(sources);
    loops.spawn(watch_health(link.clone(), blobs.clone(), (engine.clone(), events), health, stopped.clone()));

    // The tasks that watch files end with the API, which receives their updates.
    let mut watchers = tokio::task::JoinSet::new();
    let (tell_keys, keys) = watch::channel(keys);
    if let Some(path) = access.keys_file {
        watchers.spawn(api::watch_file(path, tell_keys));
    }
    let tls = tls.map(|(current, watching)| {
        watchers.spawn(watching);
        current
    });
    // Without an address of their own, metrics are served with the API.
    let metrics = match metrics_listener {
        Some((listener, address)) => {
            info!(%address, "metrics are served at /metrics");
            watchers.spawn(api::serve_metrics(listener, metrics));
            None
        }
        None => Some(metrics),
    };
    let gate = Gate::new(settings.account, keys, oidc, tokens);
    let api = ApiState {
        gate,
        engine: engine.clone(),
        read,
        files,
        queues: Queues::new(link.clone()),
        dead_letters: DeadLetters::new(link.clone()),
        publishers: Publishers { users: settings.broker_users, broker: settings.broker.url },
        invocations,
        blobs,
        health: seen.clone(),
        metrics,
        named: Default::default(),
        is_tls: tls.is_some(),
    };
    let mut well = seen;
    let announce = async move {
        if well.wait_for(Health::is_up).await.is_ok() {
            progress.send_replace(Progress::Ready(address));
        }
        std::future::pending::<()>().await
    };
    let mut closed = stopped;
    let serve = api::serve(listener, api::router(api), tls, async move {
        // The sender lives longer than the API.
        let _ = closed.wait_for(|stop| *stop).await;
    });
    let (serve, announce) = (std::pin::pin!(serve), std::pin::pin!(announce));
    info!(%address, "dispatcher started");
    let mut serve = serve;
    let result = tokio::select! {
        () = &mut shutdown => Ok(()),
        () = &mut serve => Ok(()),
        () = announce => Ok(()),
        _ = loops.join_next() => Err(DispatcherError::Engine),
    };
    let stopping = tokio::time::Instant::now();
    stop.send_replace(true);
    if tokio::time::timeout_at(stopping + REQUESTS_STOP_MAX, serve).await.is_err() {
        warn!("requests were still under way at the end");
    }
    // A busy engine takes the order late.
    let ended = async {
        if engine.put(Input::Stop).await.is_err() {
            return true;
        }
        matches!(tokio::task::spawn_blocking(move || thread.join()).await, Ok(Ok(())))
    };
    if !tokio::time::timeout_at(stopping + ENGINE_STOP_MAX, ended).await.unwrap_or(false) {
        warn!("the engine did not end cleanly; the store recovers by itself");
    }
    // What the engine said last still goes out, such as queues to be deleted.
    let rest = async {
        while loops.join_next().await.is_some() {}
        link.close().await;
    };
    if tokio::time::timeout_at(stopping + STOP_MAX, rest).await.is_err() {
        warn!("messages were still on their way at the end; agents ask for what they miss");
    }
    info!("dispatcher ended");
    result
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), DispatcherError> {
    let failed = |source| DispatcherError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Checks every part that a task needs, except nodes.
async fn watch_health(
    link: Link,
    blobs: Blobs,
    (engine, events): (Engine, Acker),
    health: watch::Sender<Health>,
    mut stop: watch::Receiver<bool>,
) {
    let mut count: u32 = 0;
    let mut blob_problem: Option<Problem> = None;
    loop {
        let mut problems = Vec::new();
        let mut problem = |part: &str, reason: String| problems.push(Problem { part: part.to_owned(), reason });
        match &*link.state().borrow() {
            LinkState::Connected { .. } => {}
            LinkState::Blocked { .. } => problem("broker", "the broker blocks publishers; look at its memory and disk alarms".to_owned()),
            state => problem("broker", format!("not connected to the broker ({state:?}); look whether it runs")),
        }
        match tokio::time::timeout(CHECK_TIMEOUT, link.depth(topology::EVENT_QUEUE)).await {
            Ok(Ok(Some(depth))) if depth.consumers > 0 => {}
            Ok(Ok(_)) => problem("events", "nobody consumes the event queue; the dispatcher reconnects".to_owned()),
            Ok(Err(error)) => problem("events", format!("the event queue cannot be looked at: {error}")),
            Err(_) => problem("events", "the broker does not answer in time".to_owned()),
        }
        if count.is_multiple_of(LOOKS_PER_BLOB_CHECK) || blob_problem.is_some() {
            let reason = match tokio::time::timeout(CHECK_TIMEOUT, blobs.check()).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("blobs cannot be written and read: {error}")),
                Err(_) => Some("the blob store does not answer in time".to_owned()),
            };
            blob_problem = reason.map(|reason| Problem { part: "blobs".to_owned(), reason });
        }
        if let Some(reason) = engine.refusal() {
            problem("store", format!("changes cannot be stored and are refused; what nodes tell is kept until they can: {reason}"));
        }
        let oldest = events.oldest().unwrap_or_default();
        if oldest > UNSETTLED_MAX {
            problem("events", format!("what nodes told {} s ago is not stored yet; the log says why", oldest.as_secs()));
        }
        if let Some(reason) = engine.shortage() {
            problem(model::health::DISK, reason);
        }
        if engine.load() > 0.99 {
            problem("engine", "too many changes wait to be stored".to_owned());
        }
        problems.extend(blob_problem.clone());
        count = count.wrapping_add(1);
        let is_well = problems.is_empty();
        health.send_if_modified(|health| {
            let next = Health { problems, oldest_event_ms: oldest.as_millis() as u64, unreadable: engine.unreadable() };
            let changed = *health != next;
            *health = next;
            changed
        });
        let pause = if is_well { HEALTH_INTERVAL } else { HEALTH_FIRST_INTERVAL };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}
