//! A message, and its entry in a queue. A message is shared by all queues it was routed to and never changes.

use std::{
    sync::{Arc, OnceLock},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    ids::{ChannelId, ConnectionId, Name},
    journal::publish_bytes,
};

/// A published message.
#[derive(Debug)]
pub(crate) struct Message {
    pub exchange: Name,
    pub routing_key: Name,
    /// Properties in the encoding of the content header.
    pub properties: Box<[u8]>,
    pub body: Box<[u8]>,
    pub is_persistent: bool,
    pub priority: u8,
}

/// Memory of a message in addition to its bytes, approximately.
const MESSAGE_OVERHEAD_BYTES: usize = 128;
/// Memory of an entry in a queue, approximately.
const ENTRY_BYTES: u64 = 80;

impl Message {
    /// Bytes counted against the memory limit.
    fn cost(&self) -> u64 {
        (self.body.len() + self.properties.len() + MESSAGE_OVERHEAD_BYTES) as u64
    }
}

/// The publish that waits for a confirm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConfirmKey {
    pub connection: ConnectionId,
    pub channel: ChannelId,
    /// Distinguishes a channel from an earlier one with the same number.
    pub incarnation: u32,
    pub sequence: u64,
}

/// The record of an entry in the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Journal segment; 0 for a message that need not survive a restart.
    pub segment: u32,
    /// Index among the operations of its batch.
    pub slot: u32,
    /// The batch that writes it; 0 without a record.
    pub batch: u64,
}

/// The position of a record on disk: in a journal segment, or in a spill file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub file: u32,
    pub offset: u32,
    /// 0 while unknown.
    pub length: u32,
}

impl Place {
    pub fn is_known(self) -> bool {
        self.length != 0
    }
}

/// An entry of one queue. Small, because a queue may hold millions whose content is on disk.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Absent while the content is on disk only.
    pub content: Option<Arc<Message>>,
    /// Order of arrival in the queue; kept when the message is returned.
    pub position: u64,
    /// Unix milliseconds; 0 for never.
    pub expires_ms: u64,
    pub stored: Stored,
    pub place: Place,
    /// Size of its record, to compute the usage of segments.
    pub record_bytes: u32,
    pub body_bytes: u32,
    /// The number of deliveries that were returned.
    pub returns: u32,
    pub priority: u8,
    pub is_redelivered: bool,
}

impl Entry {
    pub fn new(message: Arc<Message>, position: u64, expires_ms: u64, stored: Stored) -> Entry {
        Entry {
            position,
            expires_ms,
            stored,
            place: Place::default(),
            record_bytes: publish_bytes(&message) as u32,
            body_bytes: message.body.len() as u32,
            returns: 0,
            priority: message.priority,
            is_redelivered: false,
            content: Some(message),
        }
    }

    /// Bytes counted against the memory limit.
    pub fn cost(&self) -> u64 {
        ENTRY_BYTES + self.content.as_ref().map_or(0, |message| message.cost())
    }

    /// Drops the content, which must be on disk; returns the freed memory.
    pub fn drop_content(&mut self) -> u64 {
        self.content.take().map_or(0, |message| message.cost())
    }

    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_ms != 0 && self.expires_ms <= now_ms
    }
}

/// The wall clock in Unix milliseconds, for display.
pub(crate) fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_millis() as u64)
}

/// Milliseconds for expiry: starts at the wall clock, because expiry continues across restarts, and then follows a clock
/// that nobody can set. It includes the time in which the machine was suspended, as a publisher expects.
pub(crate) fn now_ms() -> u64 {
    static START: OnceLock<(u64, u64)> = OnceLock::new();
    let up_ms = up_ms();
    let (wall, up) = *START.get_or_init(|| (wall_ms(), up_ms));
    wall + up_ms.saturating_sub(up)
}

fn up_ms() -> u64 {
    #[cfg(target_os = "linux")]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
    let time = rustix::time::clock_gettime(CLOCK);
    time.tv_sec.unsigned_abs() * 1_000 + time.tv_nsec.unsigned_abs() / 1_000_000
}
