//! One connection to the broker and the task that keeps it standing.
//!
//! ```text
//! connect ─► redeclare ─► up ── error, closed by the broker, condemned ──► down ─► backoff ─► connect
//! ```

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use lapin::{Connection, ConnectionProperties, Event, uri::AMQPUri};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use crate::{settings::BrokerSettings, topology::Topology};

use super::{
    AmqpError, CLOSE_TIMEOUT, CONNECT_TIMEOUT, HEARTBEAT_SECONDS, MENDING_WAIT, OPERATION_TIMEOUT,
    backoff::Backoff,
    board::{Board, LineState, Role},
    declare,
};

/// Bounds the client's own buffers, which hold 32 frames each way.
const FRAME_BYTES_MAX: u32 = 32 * 1024;
/// The client's events may miss an end, so the status is looked at as well.
const STATUS_PERIOD: Duration = Duration::from_secs(1);

/// A connection that stood when it was handed out.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) connection: Arc<Connection>,
    pub(super) generation: u64,
    condemned: Arc<Notify>,
}

impl Live {
    /// Says that this connection must be thrown away.
    pub(super) fn condemn(&self, reason: &str) {
        tracing::warn!(reason, "throwing the broker connection away");
        self.condemned.notify_one();
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// A new channel.
    pub(super) async fn channel(&self) -> Result<lapin::Channel, AmqpError> {
        match timeout(OPERATION_TIMEOUT, self.connection.create_channel()).await {
            Ok(channel) => Ok(channel?),
            Err(_) => {
                self.condemn("opening a channel took too long");
                Err(AmqpError::Timeout { what: "opening a channel" })
            }
        }
    }
}

/// What a line is at the moment.
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

/// A connection that is mended for as long as the link is open.
pub(super) struct Line {
    role: Role,
    uri: AMQPUri,
    name: String,
    topology: Arc<Mutex<Topology>>,
    board: Arc<Board>,
    present: watch::Sender<Present>,
    phase: watch::Sender<Phase>,
    generations: AtomicU64,
}

impl Line {
    /// Makes the first connection and starts to keep it.
    pub(super) async fn open(
        role: Role,
        settings: &BrokerSettings,
        topology: Arc<Mutex<Topology>>,
        board: Arc<Board>,
    ) -> Result<Arc<Line>, AmqpError> {
        let mut uri: AMQPUri = settings.url.expose().parse().map_err(|_: String| AmqpError::Url)?;
        uri.query.heartbeat = Some(HEARTBEAT_SECONDS);
        uri.query.frame_max = Some(FRAME_BYTES_MAX);
        uri.query.connection_timeout = Some(CONNECT_TIMEOUT.as_millis() as u64);
        let line = Arc::new(Line {
            role,
            uri,
            name: format!("{} ({})", settings.name, role.word()),
            topology,
            board,
            present: watch::Sender::new(Present::Down),
            phase: watch::Sender::new(Phase::Open),
            generations: AtomicU64::new(0),
        });
        let live = line.connect().await?;
        line.announce(&live);
        tokio::spawn(line.clone().keep(live));
        Ok(line)
    }

    /// Asks everything on the line to come to its end.
    pub(super) fn finish(&self) {
        self.phase.send_replace(Phase::Finishing);
    }

    /// Ends the line.
    pub(super) fn close(&self) {
        self.phase.send_replace(Phase::Closing);
    }

    /// Until [`Line::finish`] or [`Line::close`] is called.
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

    /// Until the line's task is gone.
    pub(super) async fn closed(&self) {
        let mut present = self.present.subscribe();
        let _ended = present.wait_for(|present| matches!(present, Present::Closed)).await;
    }

    pub(super) fn watch(&self) -> watch::Receiver<Present> {
        self.present.subscribe()
    }

    /// The connection as soon as it stands, waiting at most [`MENDING_WAIT`].
    pub(super) async fn live(&self) -> Result<Live, AmqpError> {
        if let Present::Up(live) = &*self.present.borrow() {
            return Ok(live.clone());
        }
        match timeout(MENDING_WAIT, self.live_at_last()).await {
            Ok(Some(live)) => Ok(live),
            Ok(None) => Err(AmqpError::Closed),
            Err(_) => Err(AmqpError::Disconnected),
        }
    }

    /// The connection as soon as it stands; nothing once the line is closed.
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
        let connection = match timeout(CONNECT_TIMEOUT, Connection::connect_uri(self.uri.clone(), properties)).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(source)) => return Err(AmqpError::Connect { host, source: source.into() }),
            Err(elapsed) => return Err(AmqpError::Connect { host, source: elapsed.into() }),
        };
        let generation = self.generations.fetch_add(1, Ordering::Relaxed) + 1;
        let live = Live { connection: Arc::new(connection), generation, condemned: Arc::new(Notify::new()) };
        let topology = self.topology.lock().unwrap_or_else(PoisonError::into_inner).clone();
        declare::declare_again(&live, &topology).await?;
        Ok(live)
    }

    fn announce(&self, live: &Live) {
        self.present.send_replace(Present::Up(live.clone()));
        self.board.report(self.role, LineState::Up);
    }

    async fn keep(self: Arc<Line>, mut live: Live) {
        loop {
            let reason = tokio::select! {
                reason = self.until_broken(&live) => Some(reason),
                () = self.closing() => None,
            };
            let Some(reason) = reason else {
                farewell(&live.connection).await;
                break;
            };
            tracing::warn!(role = self.role.word(), reason, "broker connection lost, mending it");
            self.present.send_replace(Present::Down);
            self.board.report(self.role, LineState::Down);
            tokio::spawn(async move { farewell(&live.connection).await });
            live = tokio::select! {
                live = self.mend() => live,
                () = self.closing() => break,
            };
            tracing::info!(role = self.role.word(), generation = live.generation, "broker connection stands again");
            self.announce(&live);
        }
        self.present.send_replace(Present::Closed);
    }

    async fn mend(&self) -> Live {
        let mut backoff = Backoff::new();
        loop {
            tokio::time::sleep(backoff.next()).await;
            match self.connect().await {
                Ok(live) => return live,
                Err(error) => tracing::warn!(role = self.role.word(), error = chain(&error), "broker not reached yet"),
            }
        }
    }

    async fn until_broken(&self, live: &Live) -> String {
        let mut events = pin!(live.connection.events_listener());
        let mut status = tokio::time::interval(STATUS_PERIOD);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    // A channel's trouble is the business of whoever holds the channel.
                    Some(Event::Error(error)) if error.is_amqp_soft_error() => {}
                    Some(Event::Error(error)) => return error.to_string(),
                    Some(Event::ConnectionBlocked(reason)) => {
                        tracing::warn!(role = self.role.word(), reason, "the broker takes no messages for now");
                        self.board.report(self.role, LineState::Blocked);
                    }
                    Some(Event::ConnectionUnblocked) => {
                        tracing::info!(role = self.role.word(), "the broker takes messages again");
                        self.board.report(self.role, LineState::Up);
                    }
                    Some(_) => {}
                    None => return "the client ended".to_owned(),
                },
                () = live.condemned.notified() => return "condemned".to_owned(),
                _ = status.tick() => {
                    if !live.connection.status().connected() {
                        return "the connection ended without a word".to_owned();
                    }
                }
            }
        }
    }
}

async fn farewell(connection: &Connection) {
    if !connection.status().connected() {
        return;
    }
    match timeout(CLOSE_TIMEOUT, connection.close(200, "goodbye".into())).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "connection closed uncleanly"),
        Err(_) => tracing::debug!("connection did not close in time"),
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
