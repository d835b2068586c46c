//! Memory and disk alarms, heartbeats and time limits: what one tick a second looks after.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use amq_protocol::protocol::{AMQPClass, connection};

use crate::{codec::short, connection::Phase, core::Core, encode, ids::ConnectionId};

/// Time a client has to answer our close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Memory must fall below this share of its limit before publishers go on, in percent.
const MEMORY_CLEAR_PERCENT: u64 = 90;

/// Which resources are short.
#[derive(Default)]
pub(crate) struct Alarms {
    pub memory: bool,
    pub disk: bool,
    /// Free bytes on the data disk below which it is short.
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
    /// Looks after everything that goes by the clock.
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
            tracing::warn!(held_bytes = self.held_bytes, is_short, "memory alarm changed");
            self.alarms.memory = is_short;
            self.tell_alarms();
        }
    }

    fn check_disk(&mut self) {
        let is_short = match rustix::fs::statvfs(&self.settings.data) {
            Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize) < self.alarms.disk_free_min.load(Ordering::Relaxed),
            Err(error) => {
                tracing::warn!(%error, "free disk space is unknown");
                return;
            }
        };
        if is_short != self.alarms.disk {
            tracing::warn!(is_short, "disk alarm changed");
            self.alarms.disk = is_short;
            self.tell_alarms();
        }
    }

    fn tell_alarms(&mut self) {
        for id in self.connections.ids() {
            self.tell_alarm(id);
        }
    }

    /// Tells one client how alarms stand, if that is news to it.
    pub(crate) fn tell_alarm(&mut self, id: ConnectionId) {
        let reason = self.alarms.reason();
        let Some(connection) = self.connections.get_mut(id) else { return };
        // A client that is told so may write nothing more, and acks are what frees memory.
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
                tracing::debug!(phase = ?connection.phase, "client was too slow");
                connection.break_off();
                continue;
            }
            let Some(interval) = connection.heartbeat.filter(|_| connection.phase == Phase::Open) else {
                continue;
            };
            // While an alarm keeps us from reading, silence is ours.
            let is_heard = !(connection.is_blocked && connection.is_publisher || connection.is_slowed);
            if is_heard && now - connection.last_read > interval * 2 + Duration::from_secs(1) {
                tracing::debug!("client missed its heartbeats");
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
