//! A message and its place in a queue. A message is shared by all queues it was routed to and never changes.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    ids::{ChannelId, ConnectionId, Name},
    journal::publish_bytes,
};

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
const MESSAGE_OVERHEAD_BYTES: usize = 128;
/// Memory of a message's place in a queue, roughly.
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
    /// Tells a channel from an earlier one with the same number.
    pub incarnation: u32,
    pub sequence: u64,
}

/// The record that keeps an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Journal segment, 0 for what is not kept.
    pub segment: u32,
    /// Index among the operations of its batch.
    pub slot: u32,
    /// Batch it travels in, 0 for what has no record at all.
    pub batch: u64,
}

/// Where a record lies on disk: in a journal segment, or in a spill file for what is not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub file: u32,
    pub offset: u32,
    /// 0 while it is not known.
    pub length: u32,
}

impl Place {
    pub fn is_known(self) -> bool {
        self.length != 0
    }
}

/// A message's place in one queue. Small, because a queue may hold millions whose content is on disk.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Nothing while it is on disk alone.
    pub content: Option<Arc<Message>>,
    /// Order of arrival in the queue; kept when the message is given back.
    pub position: u64,
    /// Unix milliseconds, 0 for never.
    pub expires_ms: u64,
    pub stored: Stored,
    pub place: Place,
    /// Size of its record, for the use of segments.
    pub record_bytes: u32,
    pub body_bytes: u32,
    /// How often it was delivered and came back.
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

    /// Lets the content go, which must be on disk; returns the memory that is free now.
    pub fn drop_content(&mut self) -> u64 {
        self.content.take().map_or(0, |message| message.cost())
    }

    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_ms != 0 && self.expires_ms <= now_ms
    }
}

/// Wall clock in Unix milliseconds; expiry must hold across restarts.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_millis() as u64)
}
