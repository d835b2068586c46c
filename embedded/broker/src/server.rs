//! A running server: its threads, its listening socket, and its shutdown.

use std::{
    cell::RefCell,
    fs::{DirBuilder, File, TryLockError},
    net::{Ipv4Addr, SocketAddr, TcpListener as StdListener},
    os::unix::fs::DirBuilderExt,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc as std_mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use amq_protocol::protocol::{AMQPClass, connection};
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc, oneshot, watch},
    task::{JoinSet, LocalSet},
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};

use crate::{
    administration::{self, Command, Users, administer},
    codec::short,
    connection::{self as sockets, Phase},
    core::Core,
    error::Error,
    journal::{Committed, Journal, Writer, create_private, remove_spilled, replay},
    message::now_ms,
    refusal::Refusal,
    settings::Settings,
    users::Table,
    wire::Wire,
};

/// Longest time before acks that nothing waits for are written.
const LAZY_FLUSH: Duration = Duration::from_millis(10);
/// Interval of alarms, heartbeats and time limits.
const TICK: Duration = Duration::from_secs(1);
/// Longest sleep of the timer task.
const TIMER_IDLE: Duration = Duration::from_secs(3_600);
/// Time for clients to answer the close when the server stops.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// Time for the last batch to reach the disk.
const LAST_BATCH_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a failed accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Batches between core and writer: one is written while none waits.
const BATCHES_MAX: usize = 1;
/// Stack of the state's thread; dead letters may pass through many queues in one call.
const STACK_BYTES: usize = 16 << 20;

/// A running server. Dropping it stops it without waiting.
pub struct Broker {
    address: SocketAddr,
    url: String,
    disk_free_min: Arc<AtomicU64>,
    users: Users,
    stop: Option<oneshot::Sender<()>>,
    /// The reason for an unplanned end; closed without a reason when the thread panicked.
    ended: watch::Receiver<Option<String>>,
    thread: Option<JoinHandle<()>>,
}

impl Broker {
    /// Binds the address, opens the data folder, and serves on threads of its own.
    pub async fn start(settings: Settings) -> Result<Broker, Error> {
        let (ready, is_ready) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let (user, password) = (settings.user.clone(), settings.password.clone());
        let scheme = if settings.tls.is_some() { "amqps" } else { "amqp" };
        let data = settings.data.clone();
        let disk_free_min = Arc::new(AtomicU64::new(settings.disk_free_min_bytes));
        let limit = disk_free_min.clone();
        let (report, ended) = watch::channel(None);
        let (users, commands) = administration::channel();
        let thread = std::thread::Builder::new()
            .name("amqp".into())
            .stack_size(STACK_BYTES)
            .spawn(move || drop(report.send_replace(run(settings, limit, commands, ready, stopped))))
            .map_err(Error::data(data))?;
        let address = is_ready.await.map_err(|_| Error::ThreadEnded)??;
        let host = match address {
            SocketAddr::V4(v4) if v4.ip().is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
            SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
            SocketAddr::V4(v4) => v4.ip().to_string(),
        };
        let url = format!("{scheme}://{}:{}@{host}:{}/%2f", percent(&user), percent(&password), address.port());
        Ok(Broker { address, url, disk_free_min, users, stop: Some(stop), ended, thread: Some(thread) })
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// URL with user and password for a client on this machine.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Changes the free bytes on the data disk below which publishers are blocked; applies from the next second on.
    pub fn set_disk_free_min(&self, bytes: u64) {
        self.disk_free_min.store(bytes, Ordering::Relaxed);
    }

    /// Adds, changes and removes users while the server runs. They are kept in the data folder.
    pub fn users(&self) -> Users {
        self.users.clone()
    }

    /// Waits for an unplanned end of the server and returns its reason; clients are not served any more then.
    pub async fn ended(&mut self) -> String {
        match self.ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "its thread panicked".to_owned(),
        }
    }

    /// Closes all connections, writes the remaining data, and ends the threads.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the embedded broker's thread panicked");
            }
        }
    }
}

/// Escapes characters that a URL's user part may not contain.
fn percent(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// Runs on the state's thread; returns the reason of an unplanned end.
fn run(
    settings: Settings,
    disk_free_min: Arc<AtomicU64>,
    commands: mpsc::Receiver<Command>,
    ready: oneshot::Sender<Result<SocketAddr, Error>>,
    stopped: oneshot::Receiver<()>,
) -> Option<String> {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            drop(ready.send(Err(Error::data("/")(error))));
            return None;
        }
    };
    let started = start(settings, disk_free_min);
    match started {
        Err(error) => {
            drop(ready.send(Err(error)));
            None
        }
        Ok(started) => {
            let address = started.address;
            let local = LocalSet::new();
            let reason = local.block_on(&runtime, async move {
                let listener = match TcpListener::from_std(started.listener) {
                    Ok(listener) => listener,
                    Err(source) => {
                        drop(ready.send(Err(Error::Listen { address, source })));
                        return None;
                    }
                };
                drop(ready.send(Ok(address)));
                serve(started.core, started.committed, commands, listener, stopped).await
            });
            // The tasks of sockets hold the state, and with it the journal's sender.
            drop(local);
            if started.writer.join().is_err() {
                tracing::error!("the thread that writes the broker's journal panicked");
            }
            drop(started.lock);
            reason
        }
    }
}

/// The parts of a server that is ready for its first client.
struct Started {
    address: SocketAddr,
    listener: StdListener,
    core: Rc<RefCell<Core>>,
    committed: mpsc::Receiver<Committed>,
    writer: JoinHandle<()>,
    lock: File,
}

fn start(settings: Settings, disk_free_min: Arc<AtomicU64>) -> Result<Started, Error> {
    let data = settings.data.clone();
    DirBuilder::new().recursive(true).mode(0o700).create(&data).map_err(Error::data(&data))?;
    let lock = create_private(&data.join("lock")).map_err(Error::data(data.join("lock")))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(Error::Locked { path: data }),
        Err(TryLockError::Error(error)) => return Err(Error::data(data.join("lock"))(error)),
    }
    let listen = |source| Error::Listen { address: settings.listen, source };
    let listener = StdListener::bind(settings.listen).map_err(listen)?;
    listener.set_nonblocking(true).map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;

    let users = Table::open(&data, &settings.user, &settings.password)?;
    remove_spilled(&data).map_err(Error::data(&data))?;
    let replayed = replay(&data, settings.resident_max_bytes)?;
    let segment = replayed.segments.keys().next_back().copied().unwrap_or(0) + 1;
    let writer = Writer::create(&data, segment).map_err(Error::data(&data))?;
    let (batches, to_write) = std_mpsc::sync_channel(BATCHES_MAX);
    let (report, committed) = mpsc::channel(BATCHES_MAX + 1);
    let writer = std::thread::Builder::new()
        .name("amqp-journal".into())
        .spawn(move || {
            writer.run(&to_write, |batch| {
                if report.blocking_send(batch).is_err() {
                    tracing::debug!("the core is gone");
                }
            });
        })
        .map_err(Error::data(&data))?;
    let journal = Journal::new(batches, segment, settings.segment_max_bytes, &replayed.segments);
    let mut core = Core::new(Arc::new(settings), users, journal, Rc::new(Notify::new()));
    core.alarms.disk_free_min = disk_free_min;
    core.restore(replayed);
    for op in core.topology() {
        core.journal.topology(op);
    }
    core.compact();
    core.turn.notify_one();
    Ok(Started { address, listener, core: Rc::new(RefCell::new(core)), committed, writer, lock })
}

/// Runs until it is stopped or one of its tasks ends; returns the reason of an unplanned end.
async fn serve(
    core: Rc<RefCell<Core>>,
    committed: mpsc::Receiver<Committed>,
    commands: mpsc::Receiver<Command>,
    listener: TcpListener,
    stopped: oneshot::Receiver<()>,
) -> Option<String> {
    let lazy = Rc::new(Notify::new());
    let mut tasks = JoinSet::new();
    tasks.spawn_local(end_turns(core.clone(), committed, lazy.clone()));
    tasks.spawn_local(flush_lazily(core.clone(), lazy));
    tasks.spawn_local(keep_time(core.clone()));
    tasks.spawn_local(tick(core.clone()));
    tasks.spawn_local(administer(core.clone(), commands));
    let accepting = tasks.spawn_local(accept(core.clone(), listener));
    let reason = tokio::select! {
        // A dropped handle stops the server too.
        _ = stopped => None,
        // Without any of these tasks the server would only seem to serve.
        ended = tasks.join_next() => Some(match ended {
            Some(Err(error)) => format!("one of its tasks failed: {error}"),
            _ => "its journal cannot be written any more; an earlier log line says why".to_owned(),
        }),
    };
    accepting.abort();
    match &reason {
        None => stop(&core).await,
        Some(reason) => {
            tracing::error!(reason, "the embedded broker ends, because one of its parts has failed");
            fail(&core);
        }
    }
    // Cancelled tasks must be gone before the journal's sender can be dropped.
    tasks.shutdown().await;
    reason
}

/// Ends a turn after each event, once all ready sockets were handled; and handles committed batches.
async fn end_turns(core: Rc<RefCell<Core>>, mut committed: mpsc::Receiver<Committed>, lazy: Rc<Notify>) {
    let turn = core.borrow().turn.clone();
    loop {
        tokio::select! {
            biased;
            batch = committed.recv() => match batch {
                Some(batch) => core.borrow_mut().on_committed(batch),
                None => return fail(&core),
            },
            () = turn.notified() => {}
        }
        let mut core = core.borrow_mut();
        core.finish_turn();
        if core.journal.has_lazy() {
            lazy.notify_one();
        }
    }
}

/// Closes all connections after the journal's writer gave up, since nothing can be confirmed any more.
fn fail(core: &RefCell<Core>) {
    let mut core = core.borrow_mut();
    for id in core.connections.ids() {
        if let Some(connection) = core.connections.get_mut(id) {
            connection.break_off();
        }
    }
}

async fn flush_lazily(core: Rc<RefCell<Core>>, lazy: Rc<Notify>) {
    loop {
        lazy.notified().await;
        tokio::time::sleep(LAZY_FLUSH).await;
        let mut core = core.borrow_mut();
        core.journal.flush_lazy();
        core.turn.notify_one();
    }
}

async fn keep_time(core: Rc<RefCell<Core>>) {
    let changed = core.borrow().timers.changed.clone();
    loop {
        let next = core.borrow_mut().on_time();
        let pause = next.map_or(TIMER_IDLE, |at_ms| Duration::from_millis(at_ms.saturating_sub(now_ms())).min(TIMER_IDLE));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = changed.notified() => {}
        }
    }
}

async fn tick(core: Rc<RefCell<Core>>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        core.borrow_mut().on_tick();
    }
}

async fn accept(core: Rc<RefCell<Core>>, listener: TcpListener) {
    let scratch = Rc::new(RefCell::new(Vec::new()));
    let tls = core.borrow().settings.tls.clone();
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(%error, "a client's connection could not be accepted; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if !make_room(&mut core.borrow_mut()) {
            tracing::warn!("a client's connection was closed at once: the limit of connections is reached");
            continue;
        }
        if let Err(error) = socket.set_nodelay(true) {
            tracing::warn!(%error, "TCP_NODELAY could not be set for a client; small messages may be delayed");
        }
        match Wire::new(socket, tls.as_ref()) {
            Ok(wire) => {
                let accepted = sockets::enter(&mut core.borrow_mut(), wire);
                drop(tokio::task::spawn_local(sockets::serve(core.clone(), accepted, scratch.clone())));
            }
            Err(error) => tracing::warn!(%error, "TLS could not be set up for a client; its connection is closed"),
        }
    }
}

/// Makes room for one more connection, if need be by closing the oldest one that has not logged in; false when all
/// have. The closed one is not counted from here on: many may be accepted before its own task runs again.
fn make_room(core: &mut Core) -> bool {
    if core.connections.len() < core.settings.connections_max {
        return true;
    }
    let Some(id) = core.connections.oldest_unopened() else { return false };
    if let Some(unopened) = core.connections.get_mut(id) {
        unopened.break_off();
    }
    core.forget_connection(id);
    true
}

/// Closes all connections, waits a short while for the answers, and writes the remaining data.
async fn stop(core: &Rc<RefCell<Core>>) {
    let refusal = Refusal::connection_forced("broker is shutting down");
    {
        let mut core = core.borrow_mut();
        for id in core.connections.ids() {
            let Some(connection) = core.connections.get_mut(id) else { continue };
            if connection.phase == Phase::Open {
                connection.enter(Phase::Closing);
                let close = connection::Close { reply_code: refusal.code, reply_text: short(&refusal.text), class_id: 0, method_id: 0 };
                core.send(id, 0, AMQPClass::Connection(connection::AMQPMethod::Close(close)));
            } else {
                connection.break_off();
            }
        }
        core.turn.notify_one();
    }
    wait_until(core, STOP_GRACE, |core| core.connections.len() == 0).await;
    {
        let mut core = core.borrow_mut();
        for id in core.connections.ids() {
            core.forget_connection(id);
        }
    }
    wait_until(core, LAST_BATCH_TIMEOUT, |core| core.journal.is_idle()).await;
    core.borrow_mut().note_clean_stop();
    wait_until(core, LAST_BATCH_TIMEOUT, |core| core.journal.is_idle()).await;
}

/// Polls every few milliseconds; only the shutdown waits like this.
async fn wait_until(core: &Rc<RefCell<Core>>, most: Duration, is_done: impl Fn(&Core) -> bool) {
    const POLL: Duration = Duration::from_millis(2);
    let deadline = Instant::now() + most;
    let mut polls = interval(POLL);
    while !is_done(&core.borrow()) {
        core.borrow_mut().journal.flush_lazy();
        core.borrow().turn.notify_one();
        if timeout_at(deadline, polls.tick()).await.is_err() || Instant::now() >= deadline {
            tracing::warn!("the embedded broker did not finish all its work in time for the stop");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_whose_journal_ends_says_so_and_ends() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings::new(([127, 0, 0, 1], 0).into(), folder.path(), "guest", "guest");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let reason = LocalSet::new().block_on(&runtime, async {
            let started = start(settings, Arc::default()).unwrap();
            // The writer's reports are not received any more, as after it gave up.
            let (gone, committed) = mpsc::channel(1);
            drop(gone);
            let (_stop, stopped) = oneshot::channel();
            let listener = TcpListener::from_std(started.listener).unwrap();
            serve(started.core, committed, administration::channel().1, listener, stopped).await
        });
        assert!(reason.unwrap().contains("journal"));
    }

    #[test]
    fn of_many_silent_clients_accepted_at_once_the_newest_stay_and_none_is_turned_away() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::new(([127, 0, 0, 1], 0).into(), folder.path(), "guest", "guest");
        settings.connections_max = 8;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let started = start(settings, Arc::default()).unwrap();
            let core = started.core;
            // All of them wait before the first is accepted, so no client's own task runs in between.
            let _clients: Vec<_> = (0..40).map(|_| std::net::TcpStream::connect(started.address).unwrap()).collect();
            let accepting = tokio::task::spawn_local(accept(core.clone(), TcpListener::from_std(started.listener).unwrap()));
            while core.borrow().last_id < 40 {
                tokio::task::yield_now().await;
            }
            let mut ids = core.borrow().connections.ids();
            ids.sort_unstable();
            assert_eq!(ids, (33..=40).collect::<Vec<u64>>());
            accepting.abort();
        });
    }

    #[tokio::test]
    async fn a_server_that_is_stopped_did_not_end_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let mut broker = Broker::start(Settings::new(([127, 0, 0, 1], 0).into(), folder.path(), "guest", "guest")).await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(50), broker.ended()).await;
        assert!(early.is_err(), "it runs: {early:?}");
        broker.stop().await;
    }
}
