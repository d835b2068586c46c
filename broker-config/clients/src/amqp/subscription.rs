//! Subscriptions of consumers, and the deliveries they return.

use contract::body::{BodyError, Format};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use serde::de::DeserializeOwned;

use super::limits::PRIORITY_LEVELS_MAX;

/// A queue to consume, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    pub queue: QueueTarget,
    /// Deliveries that each slot may hold unsettled; 0 is no limit.
    pub prefetch: u16,
    /// The broker settles every delivery when it sends it.
    pub no_ack: bool,
    /// One AMQP consumer for each entry, all on one channel; an empty list means one consumer.
    pub slots: Vec<SlotConsumer>,
    /// Deliveries buffered here before [`Consumer::next`](super::Consumer::next) takes them.
    pub buffer: usize,
}

impl Subscription {
    /// A subscription of one consumer on a named queue.
    pub fn plain(queue: impl Into<String>, prefetch: u16) -> Subscription {
        Subscription {
            queue: QueueTarget::Named(queue.into()),
            prefetch,
            no_ack: false,
            slots: vec![SlotConsumer { slot: 0, priority: None }],
            buffer: usize::from(prefetch).max(1),
        }
    }

    /// A subscription of one consumer on an exclusive queue; the broker counts deliveries as acknowledged.
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

/// An AMQP consumer of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotConsumer {
    /// Returned with every delivery.
    pub slot: u32,
    /// The broker prefers consumers with a higher priority.
    pub priority: Option<i32>,
}

impl SlotConsumer {
    /// Slots whose priorities spread tasks over nodes: the broker fills every node's first slots before any node's last ones.
    ///
    /// There are at most [`PRIORITY_LEVELS_MAX`] levels, because RabbitMQ pays for each on every delivery:
    /// 64 of them cost about half of a queue's throughput, 8 about a fifth.
    pub fn spread(slots: u32) -> Vec<SlotConsumer> {
        let levels = slots.min(PRIORITY_LEVELS_MAX);
        let level = |slot: u32| i32::try_from(u64::from(slot) * u64::from(levels) / u64::from(slots)).unwrap_or(0);
        (0..slots).map(|slot| SlotConsumer { slot, priority: Some(-level(slot)) }).collect()
    }
}

/// The queue to consume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueTarget {
    /// An existing queue.
    Named(String),
    /// A queue that the broker names, exclusive to this connection; declared anew after each reconnect.
    Private {
        /// Exchanges and routing keys.
        bindings: Vec<(&'static str, String)>,
    },
}

/// Identifies a delivery until it is settled or its channel is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag {
    /// Counts the channels of this consumer.
    pub generation: u64,
    /// The broker's delivery tag on that channel.
    pub number: u64,
}

/// A message that arrived.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    pub body: Vec<u8>,
    pub format: Format,
    pub exchange: String,
    pub routing_key: String,
    /// True when the message may have been delivered before.
    pub redelivered: bool,
    /// Settles the delivery, through the consumer's [`Acker`](super::Acker).
    pub tag: Tag,
    /// The slot whose consumer received it.
    pub slot: u32,
    pub message_id: Option<String>,
    /// The id of the request that this message answers, or of the request itself.
    pub correlation_id: Option<String>,
    /// The queue for replies.
    pub reply_to: Option<String>,
    /// The AMQP `type`.
    pub kind: Option<String>,
    /// Headers, for instance `x-death`.
    pub headers: FieldTable,
    /// All of them as they came.
    pub(super) properties: BasicProperties,
}

impl Delivery {
    /// Decodes the body as one of Piecework's messages.
    pub fn message<T: DeserializeOwned>(&self) -> Result<T, BodyError> {
        self.format.read_versioned(&self.body)
    }

    /// A header that is a text or a whole number, as text.
    pub fn header_as_text(&self, name: &str) -> Option<String> {
        match self.headers.inner().get(name)? {
            AMQPValue::LongString(text) => Some(text.to_string()),
            AMQPValue::ShortString(text) => Some(text.to_string()),
            AMQPValue::LongLongInt(number) => Some(number.to_string()),
            AMQPValue::LongInt(number) => Some(number.to_string()),
            AMQPValue::LongUInt(number) => Some(number.to_string()),
            AMQPValue::ShortInt(number) => Some(number.to_string()),
            AMQPValue::ShortShortInt(number) => Some(number.to_string()),
            _ => None,
        }
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
            properties: raw.properties,
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
