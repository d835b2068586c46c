//! Looks at messages that wait, and puts them back where they were.
//!
//! AMQP has no way to look without taking, so what is seen counts as redelivered from then on.

use lapin::{
    message::BasicGetMessage,
    options::{BasicGetOptions, BasicNackOptions},
};

use super::{
    AmqpError,
    declare::{NOT_FOUND, bounded, release},
    line::Live,
};

/// Messages seen at once.
pub const PEEKED_MAX: usize = 100;
/// Bodies are taken until this many bytes are together.
pub const PEEKED_BYTES_MAX: usize = 8 << 20;

/// A message as it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peeked {
    /// The exchange it was published to.
    pub exchange: String,
    /// Its routing key.
    pub routing_key: String,
    /// Whether somebody has had it, or seen it, before.
    pub redelivered: bool,
    /// What its body is.
    pub content_type: Option<String>,
    /// Its id.
    pub message_id: Option<String>,
    /// Where an answer goes.
    pub reply_to: Option<String>,
    /// What ties the answer to it.
    pub correlation_id: Option<String>,
    /// Its priority.
    pub priority: Option<u8>,
    /// Its time to live, in milliseconds as text.
    pub expiration: Option<String>,
    /// Its body.
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

/// The first messages of a queue, in order; nothing when there is no such queue.
pub(super) async fn peek(live: &Live, queue: &str, count: usize) -> Result<Option<Vec<Peeked>>, AmqpError> {
    let channel = live.channel().await?;
    let (mut seen, mut bytes, mut last) = (Vec::new(), 0, None);
    while seen.len() < count.min(PEEKED_MAX) && bytes < PEEKED_BYTES_MAX {
        match bounded("looking at a message", channel.basic_get(queue.into(), BasicGetOptions { no_ack: false })).await {
            Ok(Some(message)) => {
                last = Some(message.delivery.delivery_tag);
                let message = Peeked::of(message);
                bytes += message.body.len();
                seen.push(message);
            }
            Ok(None) => break,
            Err(AmqpError::Refused { code: NOT_FOUND, .. }) => return Ok(None),
            // The channel's end gives back what was taken.
            Err(error) => return Err(error),
        }
    }
    if let Some(tag) = last {
        bounded("putting messages back", channel.basic_nack(tag, BasicNackOptions { multiple: true, requeue: true })).await?;
    }
    release(channel).await;
    Ok(Some(seen))
}
