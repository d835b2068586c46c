//! Memory and disk alarms, heartbeats and time limits, checked once a second.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use amq_protocol::protocol::{AMQPClass, connection};

use crate::{codec::short, connection::Phase, core::Core, encode, ids::ConnectionId};

/// Time for a client to answer a close of the server.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// The memory alarm ends when memory falls below this share of the limit, in percent.
const MEMORY_CLEAR_PERCENT: u64 = 90;

/// The resources that are short.
#[derive(Default)]
pub(crate) struct Alarms {
    pub memory: bool,
    pub disk: bool,
    /// The disk alarm is raised below this number of free bytes on the data disk.
    pub disk_free_min: Arc<AtomicU64>,
}

impl Alarms {
    fn reason(&self) -> Option<&'static str> {
        match (self.memory, self.disk) {
            (true, _) => Some("low on memory"),
            (false, true) => Some("low on disk"),
            (false, false) => None,
        }
    }
}

impl Core {
    /// Checks everything that depends on time.
    pub(crate) fn on_tick(&mut self) {
        self.check_memory();
        self.check_disk();
        self.check_connections();
        self.turn.notify_one();
    }

    /// Raises or clears the memory alarm.
    pub(crate) fn check_memory(&mut self) {
        let most = self.settings.memory_max_bytes;
        let is_short = if self.alarms.memory { self.held_bytes > most / 100 * MEMORY_CLEAR_PERCENT } else { self.held_bytes > most };
        if is_short != self.alarms.memory {
            tracing::warn!(
                held_bytes = self.held_bytes,
                is_short,
                "memory alarm raised or cleared; publishers are blocked while it is raised"
            );
            self.alarms.memory = is_short;
            self.send_alarms();
        }
    }

    fn check_disk(&mut self) {
        let is_short = match rustix::fs::statvfs(&self.settings.data) {
            Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize) < self.alarms.disk_free_min.load(Ordering::Relaxed),
            Err(error) => {
                tracing::warn!(%error, "free disk space could not be read; the disk alarm stays as it is");
                return;
            }
        };
        if is_short != self.alarms.disk {
            tracing::warn!(is_short, "disk alarm raised or cleared; publishers are blocked while it is raised");
            self.alarms.disk = is_short;
            self.send_alarms();
        }
    }

    fn send_alarms(&mut self) {
        for id in self.connections.ids() {
            self.send_alarm(id);
        }
    }

    /// Sends `connection.blocked` or `unblocked` to one client, if the alarms changed for it.
    pub(crate) fn send_alarm(&mut self, id: ConnectionId) {
        let reason = self.alarms.reason();
        let Some(connection) = self.connections.get_mut(id) else { return };
        // A blocked client may stop writing altogether, and acks are needed to free memory.
        let reason = reason.filter(|_| connection.is_publisher);
        if connection.phase != Phase::Open || connection.is_blocked == reason.is_some() {
            return;
        }
        connection.is_blocked = reason.is_some();
        connection.wake.notify_one();
        if !connection.wants_blocked_notice {
            return;
        }
        let method = match reason {
            Some(reason) => connection::AMQPMethod::Blocked(connection::Blocked { reason: short(reason) }),
            None => connection::AMQPMethod::Unblocked(connection::Unblocked {}),
        };
        self.send(id, 0, AMQPClass::Connection(method));
    }

    fn check_connections(&mut self) {
        let now = Instant::now();
        let handshake = self.settings.handshake_timeout;
        let mut beating = Vec::new();
        for (id, connection) in self.connections.values_mut() {
            let limit = match connection.phase {
                Phase::Open => None,
                Phase::Closing | Phase::Gone => Some(CLOSE_TIMEOUT),
                _ => Some(handshake),
            };
            if limit.is_some_and(|limit| now - connection.phase_since > limit) {
                tracing::debug!(phase = ?connection.phase, "closing a connection: the client did not finish this phase in time");
                connection.break_off();
                continue;
            }
            let Some(interval) = connection.heartbeat.filter(|_| connection.phase == Phase::Open) else {
                continue;
            };
            // The server does not read during an alarm, so a missing heartbeat proves nothing.
            let is_heard = !(connection.is_blocked && connection.is_publisher || connection.is_slowed);
            if is_heard && now - connection.last_read > interval * 2 + Duration::from_secs(1) {
                tracing::debug!("closing a connection: the client sent no heartbeats");
                connection.break_off();
            } else if now - connection.last_sent >= interval / 2 && connection.outbox.pending() == 0 {
                beating.push(*id);
            }
        }
        for id in beating {
            if let Some(connection) = self.connections.get_mut(id) {
                encode::heartbeat(&mut connection.outbox.bytes);
            }
            self.mark_dirty(id);
        }
    }
}
