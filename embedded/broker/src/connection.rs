//! The socket of one client: reads frames into the core, and writes when the core could not. The rest of its state
//! (phase, channels, outbox) is in the core, so that the handling of any client can use it.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::{
    channel::Channel,
    core::Core,
    frame::FRAME_MAX_BEFORE_TUNE,
    ids::{ChannelId, ConnectionId, ConsumerId, IdMap, QueueId},
    outbox::{Flush, Outbox},
    refusal::{Outcome, Refusal},
    users::Account,
    wire::Wire,
};

/// Bytes read from a socket at once.
pub(crate) const READ_BYTES: usize = 256 << 10;

/// The phases of a connection.
///
/// ```text
/// Header → Login → Tuning → Opening → Open → Closing (we sent close) → Gone
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Header,
    Login,
    Tuning,
    Opening,
    Open,
    Closing,
    Gone,
}

/// A connection's state.
pub(crate) struct Connection {
    wire: Rc<Wire>,
    /// Wakes the socket's task after a change that concerns reading or writing.
    pub wake: Rc<Notify>,
    pub outbox: Outbox,
    pub phase: Phase,
    /// Absent before the login.
    pub user: Option<Rc<Account>>,
    is_broken_off: bool,
    pub channels: HashMap<ChannelId, Channel>,
    pub incarnations: u32,
    pub frame_max: usize,
    pub channel_max: u16,
    pub heartbeat: Option<Duration>,
    pub wants_cancel_notice: bool,
    pub wants_blocked_notice: bool,
    pub is_dirty: bool,
    pub wants_write: bool,
    /// The client has published, so alarms stop reading from it.
    pub is_publisher: bool,
    pub is_blocked: bool,
    /// The journal is behind with messages of this client.
    pub is_slowed: bool,
    /// Consumers that wait for space in the outbox.
    pub parked: Vec<ConsumerId>,
    pub exclusive_queues: Vec<QueueId>,
    /// Nothing is sent before this journal batch is committed.
    pub held_until: u64,
    pub phase_since: Instant,
    pub last_read: Instant,
    pub last_sent: Instant,
}

impl Connection {
    fn new(wire: Rc<Wire>) -> Connection {
        let now = Instant::now();
        Connection {
            wire,
            wake: Rc::new(Notify::new()),
            outbox: Outbox::default(),
            phase: Phase::Header,
            user: None,
            is_broken_off: false,
            channels: HashMap::new(),
            incarnations: 0,
            frame_max: FRAME_MAX_BEFORE_TUNE,
            channel_max: 0,
            heartbeat: None,
            wants_cancel_notice: false,
            wants_blocked_notice: false,
            is_dirty: false,
            wants_write: false,
            is_publisher: false,
            is_blocked: false,
            is_slowed: false,
            parked: Vec::new(),
            exclusive_queues: Vec::new(),
            held_until: 0,
            phase_since: now,
            last_read: now,
            last_sent: now,
        }
    }

    pub fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.phase_since = Instant::now();
    }

    /// True when nothing more is read and only the outbox may still be sent.
    pub fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// True when the socket may be closed: nothing is left to send, or the client does not wait for it.
    fn is_over(&self) -> bool {
        self.is_gone() && (self.is_broken_off || (self.outbox.pending() == 0 && !self.wire.has_backlog()))
    }

    /// Ends the connection without sending the rest.
    pub fn break_off(&mut self) {
        self.phase = Phase::Gone;
        self.is_broken_off = true;
        self.outbox = Outbox::default();
        self.wake.notify_one();
    }

    /// Writes as much as the socket accepts.
    pub fn flush(&mut self) -> io::Result<Flush> {
        if self.outbox.pending() == 0 && !self.wire.has_backlog() {
            return Ok(Flush::Done);
        }
        self.last_sent = Instant::now();
        self.outbox.flush(&self.wire)
    }

    fn may_read(&self) -> bool {
        let is_stopped_by_alarm = self.is_blocked && self.is_publisher;
        !(self.outbox.is_full() || is_stopped_by_alarm || self.is_slowed || self.is_gone())
    }
}

/// All connections by id.
#[derive(Default)]
pub(crate) struct Connections {
    map: IdMap<ConnectionId, Connection>,
}

impl Connections {
    pub fn len(&self) -> usize {
        self.map.len()
    }
    pub fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.map.get_mut(&id)
    }
    pub fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        self.map.remove(&id)
    }
    pub fn ids(&self) -> Vec<ConnectionId> {
        self.map.keys().copied().collect()
    }
    /// The oldest connection that has not logged in and opened the vhost.
    pub fn oldest_unopened(&self) -> Option<ConnectionId> {
        let is_logging_in = |phase| matches!(phase, Phase::Header | Phase::Login | Phase::Tuning | Phase::Opening);
        self.map.iter().filter(|(_, connection)| is_logging_in(connection.phase)).map(|(id, _)| *id).min()
    }
    pub fn values_mut(&mut self) -> impl Iterator<Item = (&ConnectionId, &mut Connection)> {
        self.map.iter_mut()
    }
    /// Finds a channel, or refuses when it does not exist.
    pub fn channel_mut(&mut self, id: ConnectionId, channel: ChannelId) -> Outcome<&mut Channel> {
        self.map
            .get_mut(&id)
            .and_then(|connection| connection.channels.get_mut(&channel))
            .ok_or_else(|| Refusal::channel_error("channel is not open"))
    }
}

/// A client whose connection was accepted and is counted.
pub(crate) struct Accepted {
    id: ConnectionId,
    wire: Rc<Wire>,
    wake: Rc<Notify>,
}

/// Counts a client from the moment its connection was accepted.
pub(crate) fn enter(core: &mut Core, wire: Wire) -> Accepted {
    core.last_id += 1;
    let id = core.last_id;
    let wire = Rc::new(wire);
    let connection = Connection::new(wire.clone());
    let wake = connection.wake.clone();
    core.connections.map.insert(id, connection);
    Accepted { id, wire, wake }
}

/// Serves one client until its connection is closed.
pub(crate) async fn serve(core: Rc<RefCell<Core>>, accepted: Accepted, scratch: Rc<RefCell<Vec<u8>>>) {
    let Accepted { id, wire, wake } = accepted;
    let mut left: Vec<u8> = Vec::new();
    loop {
        let (may_read, wants_write, is_over) = {
            let mut core = core.borrow_mut();
            let Some(connection) = core.connections.get_mut(id) else { return };
            // The TLS library writes its handshake by itself.
            (connection.may_read(), connection.wants_write || wire.has_backlog(), connection.is_over())
        };
        if is_over {
            break;
        }
        tokio::select! {
            biased;
            () = wake.notified() => {}
            ready = wire.writable(), if wants_write => {
                let is_well = ready.is_ok() && wire.push().is_ok();
                let mut core = core.borrow_mut();
                if let Some(connection) = core.connections.get_mut(id) {
                    connection.wants_write = false;
                    if !is_well {
                        connection.break_off();
                    }
                }
                core.flush(id);
                core.turn.notify_one();
            }
            ready = wire.readable(), if may_read => {
                let is_alive = ready.is_ok() && read(&core, id, &wire, &scratch, &mut left);
                if !is_alive {
                    break;
                }
            }
        }
    }
    wire.send_close_notify();
    core.borrow_mut().forget_connection(id);
}

/// Reads once and passes all whole frames to the core; returns false when the connection is closed.
fn read(core: &RefCell<Core>, id: ConnectionId, wire: &Wire, scratch: &RefCell<Vec<u8>>, left: &mut Vec<u8>) -> bool {
    let mut scratch = scratch.borrow_mut();
    let kept = left.len();
    let needed = kept + READ_BYTES;
    if scratch.len() < needed {
        scratch.resize(needed, 0);
    }
    let count = match wire.try_read(&mut scratch[kept..]) {
        Ok(0) => return false,
        Ok(count) => count,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
        Err(error) => {
            tracing::debug!(%error, "reading from a client failed; its connection is closed");
            return false;
        }
    };
    scratch[..kept].copy_from_slice(left);
    let filled = &scratch[..kept + count];
    let used = core.borrow_mut().on_bytes(id, filled);
    left.clear();
    left.extend_from_slice(&filled[used..]);
    if left.is_empty() && left.capacity() > READ_BYTES {
        *left = Vec::new();
    }
    true
}
