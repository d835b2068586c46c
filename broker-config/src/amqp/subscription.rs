//! What a consumer asks for, and what it is given.

use lapin::types::FieldTable;
use serde::de::DeserializeOwned;

use crate::body::{BodyError, Format};

/// What to consume and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Where from.
    pub queue: QueueTarget,
    /// Deliveries that each slot may hold unsettled; 0 is no limit.
    pub prefetch: u16,
    /// The broker takes every delivery for settled.
    pub no_ack: bool,
    /// One AMQP consumer for each, all on one channel; none means one.
    pub slots: Vec<SlotConsumer>,
    /// Deliveries kept here until they are asked for.
    pub buffer: usize,
}

impl Subscription {
    /// One consumer on a named queue.
    pub fn plain(queue: impl Into<String>, prefetch: u16) -> Subscription {
        Subscription {
            queue: QueueTarget::Named(queue.into()),
            prefetch,
            no_ack: false,
            slots: vec![SlotConsumer { slot: 0, priority: None }],
            buffer: usize::from(prefetch).max(1),
        }
    }

    /// One consumer on a queue of its own, settled by the broker.
    pub fn private(bindings: Vec<(&'static str, String)>, buffer: usize) -> Subscription {
        Subscription {
            queue: QueueTarget::Private { bindings },
            prefetch: 0,
            no_ack: true,
            slots: vec![SlotConsumer { slot: 0, priority: None }],
            buffer,
        }
    }
}

/// One AMQP consumer of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotConsumer {
    /// Its number, given back with every delivery.
    pub slot: u32,
    /// The broker prefers consumers with higher ones.
    pub priority: Option<i32>,
}

impl SlotConsumer {
    /// So many slots whose priorities make tasks spread over nodes: a node's first slots are served before any node's last ones.
    ///
    /// There are at most [`super::PRIORITY_LEVELS_MAX`] levels, because RabbitMQ pays for each on every delivery:
    /// 64 of them cost about half of a queue's throughput, 8 about a fifth.
    pub fn spread(slots: u32) -> Vec<SlotConsumer> {
        let levels = slots.min(super::PRIORITY_LEVELS_MAX);
        let level = |slot: u32| i32::try_from(u64::from(slot) * u64::from(levels) / u64::from(slots)).unwrap_or(0);
        (0..slots).map(|slot| SlotConsumer { slot, priority: Some(-level(slot)) }).collect()
    }
}

/// The queue to consume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueTarget {
    /// One that exists.
    Named(String),
    /// One that the broker names, for this connection alone; made anew after every mending.
    Private {
        /// Exchanges and keys.
        bindings: Vec<(&'static str, String)>,
    },
}

/// Names a delivery until it is settled or its channel is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag {
    /// Which channel of this consumer.
    pub generation: u64,
    /// The broker's number on that channel.
    pub number: u64,
}

/// A message that arrived.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// The body.
    pub body: Vec<u8>,
    /// How it is written.
    pub format: Format,
    /// Where it was published.
    pub exchange: String,
    /// With which key.
    pub routing_key: String,
    /// Somebody may have had it before.
    pub redelivered: bool,
    /// To settle it.
    pub tag: Tag,
    /// Which slot took it.
    pub slot: u32,
    /// The message's own id.
    pub message_id: Option<String>,
    /// Which question it answers, or which answer is awaited.
    pub correlation_id: Option<String>,
    /// The queue that takes answers.
    pub reply_to: Option<String>,
    /// The AMQP `type`.
    pub kind: Option<String>,
    /// Headers, for instance `x-death`.
    pub headers: FieldTable,
}

impl Delivery {
    /// Reads the body as one of our messages.
    pub fn message<T: DeserializeOwned>(&self) -> Result<T, BodyError> {
        self.format.read_versioned(&self.body)
    }

    pub(super) fn new(generation: u64, slot: u32, raw: lapin::message::Delivery) -> Delivery {
        let properties = &raw.properties;
        let text = |field: &Option<lapin::types::ShortString>| field.as_ref().map(|text| text.as_str().to_owned());
        Delivery {
            format: Format::of(properties.content_type().as_ref().map(|text| text.as_str())),
            exchange: raw.exchange.to_string(),
            routing_key: raw.routing_key.to_string(),
            redelivered: raw.redelivered,
            tag: Tag { generation, number: raw.delivery_tag },
            slot,
            message_id: text(properties.message_id()),
            correlation_id: text(properties.correlation_id()),
            reply_to: text(properties.reply_to()),
            kind: text(properties.kind()),
            headers: properties.headers().clone().unwrap_or_default(),
            body: raw.data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn priorities(slots: u32) -> Vec<i32> {
        SlotConsumer::spread(slots).into_iter().filter_map(|consumer| consumer.priority).collect()
    }

    #[test]
    fn a_few_slots_have_a_level_each_and_many_share_eight() {
        assert_eq!(priorities(4), [0, -1, -2, -3]);
        assert!(priorities(0).is_empty());
        let mut many = priorities(64);
        assert_eq!((many.len(), many[0], many[63]), (64, 0, -7));
        assert!(many.is_sorted_by(|earlier, later| earlier >= later));
        many.dedup();
        assert_eq!(many.len(), 8);
    }
}
