//! Reads messages of a queue and puts them back in their place.
//!
//! AMQP cannot read a message without taking it, so these messages count as redelivered from then on.

use lapin::{
    message::BasicGetMessage,
    options::{BasicGetOptions, BasicNackOptions},
};

use super::{
    declare::{NOT_FOUND, bounded, release},
    error::AmqpError,
    live::Live,
};

/// Messages of one peek at most.
pub const PEEKED_MAX: usize = 100;
/// A peek stops once the bodies have this many bytes together.
pub const PEEKED_BYTES_MAX: usize = 8 << 20;

/// A message in a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peeked {
    pub exchange: String,
    pub routing_key: String,
    /// True when the message was delivered or peeked before.
    pub redelivered: bool,
    pub content_type: Option<String>,
    pub message_id: Option<String>,
    /// The queue for replies.
    pub reply_to: Option<String>,
    pub correlation_id: Option<String>,
    pub priority: Option<u8>,
    /// Time to live in milliseconds, as text.
    pub expiration: Option<String>,
    pub body: Vec<u8>,
}

impl Peeked {
    fn of(message: BasicGetMessage) -> Peeked {
        let delivery = message.delivery;
        let text = |value: &Option<lapin::types::ShortString>| value.as_ref().map(|value| value.as_str().to_owned());
        let properties = &delivery.properties;
        Peeked {
            exchange: delivery.exchange.as_str().to_owned(),
            routing_key: delivery.routing_key.as_str().to_owned(),
            redelivered: delivery.redelivered,
            content_type: text(properties.content_type()),
            message_id: text(properties.message_id()),
            reply_to: text(properties.reply_to()),
            correlation_id: text(properties.correlation_id()),
            priority: *properties.priority(),
            expiration: text(properties.expiration()),
            body: delivery.data,
        }
    }
}

/// Copies of the first messages of a queue, in order; nothing when the queue does not exist.
pub(super) async fn peek(live: &Live, queue: &str, count: usize) -> Result<Option<Vec<Peeked>>, AmqpError> {
    let channel = live.channel().await?;
    let (mut seen, mut bytes, mut last) = (Vec::new(), 0, None);
    while seen.len() < count.min(PEEKED_MAX) && bytes < PEEKED_BYTES_MAX {
        match bounded("reading a message", channel.basic_get(queue.into(), BasicGetOptions { no_ack: false })).await {
            Ok(Some(message)) => {
                last = Some(message.delivery.delivery_tag);
                let message = Peeked::of(message);
                bytes += message.body.len();
                seen.push(message);
            }
            Ok(None) => break,
            Err(AmqpError::Refused { code: NOT_FOUND, .. }) => return Ok(None),
            // Closing the channel returns the messages to the queue.
            Err(error) => return Err(error),
        }
    }
    if let Some(tag) = last {
        bounded("putting messages back", channel.basic_nack(tag, BasicNackOptions { multiple: true, requeue: true })).await?;
    }
    release(channel).await;
    Ok(Some(seen))
}
