//! A channel: prefetch, unacknowledged deliveries, confirms, and the content it is in the middle of receiving.

use std::collections::{BTreeMap, HashMap};

use crate::{
    confirms::Confirms,
    content::Header,
    ids::{ConsumerId, Name, QueueId},
    message::Entry,
};

/// A delivery that awaits its ack.
#[derive(Debug)]
pub(crate) struct Unacked {
    pub entry: Entry,
    pub queue: QueueId,
    /// Nobody for `basic.get`.
    pub consumer: Option<ConsumerId>,
}

/// A publish whose content is still arriving.
pub(crate) struct Incoming {
    pub exchange: Name,
    pub routing_key: Name,
    pub is_mandatory: bool,
    pub header: Option<Header>,
    pub body: Vec<u8>,
}

/// A channel of a connection.
#[derive(Default)]
pub(crate) struct Channel {
    /// Tells it from an earlier channel with the same number.
    pub incarnation: u32,
    /// Closed by us: everything but close-ok is dropped.
    pub is_closing: bool,
    /// The client asked for a pause.
    pub is_paused: bool,
    /// Prefetch that new consumers get, 0 for none.
    pub prefetch: u16,
    /// Prefetch for the channel as a whole, 0 for none.
    pub prefetch_total: u16,
    pub last_tag: u64,
    pub unacked: BTreeMap<u64, Unacked>,
    /// Deliveries to consumers among `unacked`, for `prefetch_total`.
    pub unacked_consumed: u32,
    pub consumers: HashMap<Name, ConsumerId>,
    pub confirms: Option<Confirms>,
    pub incoming: Option<Incoming>,
    /// Tag of the direct reply-to consumer.
    pub reply_consumer: Option<Name>,
    /// Queue last declared here, meant by an empty queue name.
    pub last_queue: Option<Name>,
}

impl Channel {
    /// Whether its consumers must wait.
    pub fn is_held(&self) -> bool {
        self.is_closing || self.is_paused || (self.prefetch_total != 0 && self.unacked_consumed >= u32::from(self.prefetch_total))
    }

    pub fn next_tag(&mut self) -> u64 {
        self.last_tag += 1;
        self.last_tag
    }
}
