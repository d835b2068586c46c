//! Reads a queue from its front without consuming it: what is not removed goes back to its place at the end.
//!
//! AMQP cannot read a message without taking it, so the messages count as redelivered from then on, and nobody else sees
//! them while they are held.

use lapin::{
    Channel,
    options::{BasicAckOptions, BasicGetOptions, BasicNackOptions},
};

use super::{
    declare::{NOT_FOUND, bounded, release},
    error::AmqpError,
    live::Live,
    subscription::Delivery,
};

/// Holds messages of one queue. Dropped before [`Browser::finish`], its channel is closed, and all that was not removed
/// goes back as well.
pub struct Browser {
    channel: Channel,
    queue: String,
    /// The latest message that is still held.
    last: Option<u64>,
}

impl Browser {
    pub(super) async fn open(live: &Live, queue: &str) -> Result<Browser, AmqpError> {
        Ok(Browser { channel: live.channel().await?, queue: queue.to_owned(), last: None })
    }

    /// The next message, and how many wait behind it; nothing at the end of the queue, or when there is no such queue.
    pub async fn next(&mut self) -> Result<Option<(Delivery, u32)>, AmqpError> {
        let get = self.channel.basic_get(self.queue.as_str().into(), BasicGetOptions { no_ack: false });
        match bounded("reading a message", get).await {
            Ok(Some(message)) => {
                self.last = Some(message.delivery.delivery_tag);
                Ok(Some((Delivery::new(0, 0, message.delivery), message.message_count)))
            }
            Ok(None) | Err(AmqpError::Refused { code: NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a message that [`Browser::next`] returned.
    pub async fn remove(&mut self, message: &Delivery) -> Result<(), AmqpError> {
        let number = message.tag.number;
        bounded("removing a message", self.channel.basic_ack(number, BasicAckOptions { multiple: false })).await
    }

    /// Puts back what is still held; the broker has done all of it when this returns.
    pub async fn finish(self) -> Result<(), AmqpError> {
        if self.last.is_some() {
            // Zero stands for all messages of the channel that are not settled.
            bounded("putting messages back", self.channel.basic_nack(0, BasicNackOptions { multiple: true, requeue: true })).await?;
        }
        release(self.channel).await;
        Ok(())
    }
}
