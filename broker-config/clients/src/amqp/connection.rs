//! One connection to the broker and the task that reconnects it.
//!
//! ```text
//! connect ─► redeclare ─► up ── error, closed by the broker, discarded ──► down ─► backoff ─► connect
//! ```

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use broker_config::{settings::BrokerSettings, topology::Topology};
use futures::StreamExt;
use lapin::{ConnectionProperties, Event, uri::AMQPUri};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use super::{
    backoff::Backoff,
    declare,
    error::AmqpError,
    limits::{CLOSE_TIMEOUT, CONNECT_TIMEOUT, HEARTBEAT_SECONDS, RECONNECT_WAIT},
    live::Live,
    status::{ConnectionState, Role, Status},
};

/// The client library may miss the event of a lost connection, so the status is polled as well.
const STATUS_PERIOD: Duration = Duration::from_secs(1);

/// The present state of a connection.
#[derive(Clone)]
pub(super) enum Present {
    Down,
    Up(Live),
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Open,
    Finishing,
    Closing,
}

/// A connection that reconnects for as long as the link is open.
pub(super) struct Connection {
    role: Role,
    uri: AMQPUri,
    name: String,
    topology: Arc<Mutex<Topology>>,
    status: Arc<Status>,
    present: watch::Sender<Present>,
    phase: watch::Sender<Phase>,
    generations: AtomicU64,
}

impl Connection {
    /// Connects once and starts the task that reconnects.
    pub(super) async fn open(
        role: Role,
        settings: &BrokerSettings,
        topology: Arc<Mutex<Topology>>,
        status: Arc<Status>,
        frame_bytes: u32,
    ) -> Result<Arc<Connection>, AmqpError> {
        let mut uri: AMQPUri = settings.url.expose().parse().map_err(|_: String| AmqpError::Url)?;
        uri.query.heartbeat = Some(HEARTBEAT_SECONDS);
        uri.query.frame_max = Some(frame_bytes);
        uri.query.connection_timeout = Some(CONNECT_TIMEOUT.as_millis() as u64);
        let connection = Arc::new(Connection {
            role,
            uri,
            name: format!("{} ({})", settings.name, role.word()),
            topology,
            status,
            present: watch::Sender::new(Present::Down),
            phase: watch::Sender::new(Phase::Open),
            generations: AtomicU64::new(0),
        });
        let live = connection.connect().await?;
        connection.announce(&live);
        tokio::spawn(connection.clone().keep(live));
        Ok(connection)
    }

    /// Asks all users of the connection to finish.
    pub(super) fn finish(&self) {
        self.phase.send_replace(Phase::Finishing);
    }

    /// Closes the connection.
    pub(super) fn close(&self) {
        self.phase.send_replace(Phase::Closing);
    }

    /// Returns when [`Connection::finish`] or [`Connection::close`] was called.
    pub(super) async fn finishing(&self) {
        self.reaches(Phase::Finishing).await;
    }

    async fn closing(&self) {
        self.reaches(Phase::Closing).await;
    }

    async fn reaches(&self, phase: Phase) {
        // The sender lives in `self`, so waiting cannot fail.
        let mut present = self.phase.subscribe();
        let _reached = present.wait_for(|present| *present >= phase).await;
    }

    /// Returns when the connection's task has ended.
    pub(super) async fn closed(&self) {
        let mut present = self.present.subscribe();
        let _ended = present.wait_for(|present| matches!(present, Present::Closed)).await;
    }

    pub(super) fn watch(&self) -> watch::Receiver<Present> {
        self.present.subscribe()
    }

    /// The live connection; waits at most [`RECONNECT_WAIT`] for a reconnect.
    pub(super) async fn live(&self) -> Result<Live, AmqpError> {
        if let Present::Up(live) = &*self.present.borrow() {
            return Ok(live.clone());
        }
        match timeout(RECONNECT_WAIT, self.live_at_last()).await {
            Ok(Some(live)) => Ok(live),
            Ok(None) => Err(AmqpError::Closed),
            Err(_) => Err(AmqpError::Disconnected),
        }
    }

    /// The live connection, however long a reconnect takes; nothing once it is closed.
    pub(super) async fn live_at_last(&self) -> Option<Live> {
        let mut present = self.present.subscribe();
        let present = present.wait_for(|present| !matches!(present, Present::Down)).await.ok()?;
        match &*present {
            Present::Up(live) => Some(live.clone()),
            Present::Down | Present::Closed => None,
        }
    }

    async fn connect(&self) -> Result<Live, AmqpError> {
        let host = format!("{}:{}", self.uri.authority.host, self.uri.authority.port);
        let properties = ConnectionProperties::default().with_connection_name(self.name.as_str().into());
        let connection = match timeout(CONNECT_TIMEOUT, lapin::Connection::connect_uri(self.uri.clone(), properties)).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(source)) => return Err(AmqpError::Connect { host, source: source.into() }),
            Err(elapsed) => return Err(AmqpError::Connect { host, source: elapsed.into() }),
        };
        let generation = self.generations.fetch_add(1, Ordering::Relaxed) + 1;
        let live = Live { connection: Arc::new(connection), generation, discarded: Arc::new(Notify::new()) };
        let topology = self.topology.lock().unwrap_or_else(PoisonError::into_inner).clone();
        declare::declare_again(&live, &topology).await?;
        Ok(live)
    }

    fn announce(&self, live: &Live) {
        self.present.send_replace(Present::Up(live.clone()));
        self.status.report(self.role, ConnectionState::Up);
    }

    async fn keep(self: Arc<Connection>, mut live: Live) {
        loop {
            let reason = tokio::select! {
                reason = self.until_broken(&live) => Some(reason),
                () = self.closing() => None,
            };
            let Some(reason) = reason else {
                close_connection(&live.connection).await;
                break;
            };
            tracing::warn!(role = self.role.word(), reason, "broker connection lost, reconnecting");
            self.present.send_replace(Present::Down);
            self.status.lost(self.role);
            tokio::spawn(async move { close_connection(&live.connection).await });
            live = tokio::select! {
                live = self.reconnect() => live,
                () = self.closing() => break,
            };
            tracing::info!(role = self.role.word(), generation = live.generation, "connected to the broker again");
            self.announce(&live);
        }
        self.present.send_replace(Present::Closed);
    }

    async fn reconnect(&self) -> Live {
        let mut backoff = Backoff::new();
        loop {
            tokio::time::sleep(backoff.next()).await;
            match self.connect().await {
                Ok(live) => return live,
                Err(error) => tracing::warn!(role = self.role.word(), error = chain(&error), "cannot connect to the broker, trying again"),
            }
        }
    }

    async fn until_broken(&self, live: &Live) -> String {
        let mut events = pin!(live.connection.events_listener());
        let mut poll = tokio::time::interval(STATUS_PERIOD);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    // The holder of a channel handles the channel's own errors.
                    Some(Event::Error(error)) if error.is_amqp_soft_error() => {}
                    Some(Event::Error(error)) => return error.to_string(),
                    Some(Event::ConnectionBlocked(reason)) => {
                        tracing::warn!(role = self.role.word(), reason, "the broker is short of memory or disk and blocks publishing; callers publish again later");
                        self.status.report(self.role, ConnectionState::Blocked);
                    }
                    Some(Event::ConnectionUnblocked) => {
                        tracing::info!(role = self.role.word(), "the broker accepts messages again");
                        self.status.report(self.role, ConnectionState::Up);
                    }
                    Some(_) => {}
                    None => return "the client library stopped reporting events".to_owned(),
                },
                () = live.discarded.notified() => return "discarded because of an error on one of its channels".to_owned(),
                _ = poll.tick() => {
                    if !live.connection.status().connected() {
                        return "the connection was lost without a close frame".to_owned();
                    }
                }
            }
        }
    }
}

async fn close_connection(connection: &lapin::Connection) {
    if !connection.status().connected() {
        return;
    }
    match timeout(CLOSE_TIMEOUT, connection.close(200, "closing".into())).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "closing a broker connection failed; it is dropped"),
        Err(_) => tracing::debug!("the broker did not confirm the close of a connection in time; it is dropped"),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
