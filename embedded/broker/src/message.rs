//! A message and its place in a queue. A message is shared by all queues it was routed to and never changes.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::ids::{ChannelId, ConnectionId, Name};

/// What a publisher sent.
#[derive(Debug)]
pub(crate) struct Message {
    pub exchange: Name,
    pub routing_key: Name,
    /// Properties as they stood in the content header.
    pub properties: Box<[u8]>,
    pub body: Box<[u8]>,
    pub is_persistent: bool,
    pub priority: u8,
}

/// Memory of a message beside its bytes, roughly.
const MESSAGE_OVERHEAD_BYTES: usize = 192;

impl Message {
    /// Bytes counted against the memory limit.
    pub fn cost(&self) -> u64 {
        (self.body.len() + self.properties.len() + MESSAGE_OVERHEAD_BYTES) as u64
    }
}

/// The publish that waits for a confirm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConfirmKey {
    pub connection: ConnectionId,
    pub channel: ChannelId,
    /// Tells a channel from an earlier one with the same number.
    pub incarnation: u32,
    pub sequence: u64,
}

/// Where an entry stands in the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Segment number, 0 for what is not in the journal.
    pub segment: u32,
    /// Index among the operations of its batch.
    pub slot: u32,
    /// Batch it travels in.
    pub batch: u64,
}

/// A message's place in one queue.
#[derive(Debug)]
pub(crate) struct Entry {
    pub message: Arc<Message>,
    /// Order of arrival in the queue; kept when the message is given back.
    pub position: u64,
    /// Unix milliseconds, 0 for never.
    pub expires_ms: u64,
    /// How often it was delivered and came back.
    pub returns: u32,
    pub is_redelivered: bool,
    pub stored: Stored,
    pub confirm: Option<ConfirmKey>,
}

impl Entry {
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_ms != 0 && self.expires_ms <= now_ms
    }
}

/// Wall clock in Unix milliseconds; expiry must hold across restarts.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_millis() as u64)
}
