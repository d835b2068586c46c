//! A channel: prefetch, unacknowledged deliveries, confirms, and the message whose content it is receiving.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    confirms::Confirms,
    content::Header,
    ids::{ConsumerId, Name, QueueId},
    lapse::AckDeadline,
    message::Entry,
};

/// A delivery that waits for its ack.
#[derive(Debug)]
pub(crate) struct Unacked {
    pub entry: Entry,
    pub queue: QueueId,
    /// Absent for `basic.get`.
    pub consumer: Option<ConsumerId>,
    /// Absent when there is no time limit.
    pub deadline: Option<AckDeadline>,
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
    /// Distinguishes it from an earlier channel with the same number.
    pub incarnation: u32,
    /// The server closed it: everything but close-ok is dropped.
    pub is_closing: bool,
    /// The client asked for a pause with `channel.flow`.
    pub is_paused: bool,
    /// Prefetch of new consumers; 0 is no limit.
    pub prefetch: u16,
    /// Prefetch of the whole channel; 0 is no limit.
    pub prefetch_total: u16,
    pub last_tag: u64,
    pub unacked: BTreeMap<u64, Unacked>,
    /// Deliveries that were returned to their queue because no ack came in time; a late ack is no error.
    pub lapsed: BTreeSet<u64>,
    /// Time of the next check of deadlines; 0 when none is due.
    pub ack_timer_ms: u64,
    /// Deliveries to consumers among `unacked`, counted for `prefetch_total`.
    pub unacked_consumed: u32,
    pub consumers: HashMap<Name, ConsumerId>,
    pub confirms: Option<Confirms>,
    pub incoming: Option<Incoming>,
    /// Tag of the direct reply-to consumer.
    pub reply_consumer: Option<Name>,
    /// The queue last declared here, which an empty queue name refers to.
    pub last_queue: Option<Name>,
}

impl Channel {
    /// True while the channel's consumers must wait.
    pub fn is_held(&self) -> bool {
        self.is_closing || self.is_paused || (self.prefetch_total != 0 && self.unacked_consumed >= u32::from(self.prefetch_total))
    }

    /// Handles a late ack of deliveries that were returned to their queue; returns true when it was for one of them.
    pub fn forget_lapsed(&mut self, tag: u64, is_multiple: bool) -> bool {
        if !is_multiple {
            return self.lapsed.remove(&tag);
        }
        let kept = if tag == 0 { BTreeSet::new() } else { self.lapsed.split_off(&tag.saturating_add(1)) };
        !std::mem::replace(&mut self.lapsed, kept).is_empty()
    }

    pub fn next_tag(&mut self) -> u64 {
        self.last_tag += 1;
        self.last_tag
    }
}
