//! Direct reply-to: replies go straight to the requester's channel, without a queue.

use std::{collections::HashMap, sync::Arc};

use amq_protocol::protocol::basic;

use crate::{
    codec::{parse_properties, short, write_properties},
    core::Core,
    encode,
    ids::{ChannelId, ConnectionId},
    message::Message,
    refusal::{Outcome, Refusal},
};

/// The pseudo-queue that requesters consume from and name in `reply_to`.
pub(crate) const REPLY_QUEUE: &str = "amq.rabbitmq.reply-to";
/// Prefix of the addresses to which replies are sent.
pub(crate) const REPLY_PREFIX: &str = "amq.rabbitmq.reply-to.";

/// Addresses of channels that consume replies.
#[derive(Default)]
pub(crate) struct ReplyAddresses {
    by_address: HashMap<String, (ConnectionId, ChannelId)>,
    by_channel: HashMap<(ConnectionId, ChannelId), String>,
}

impl ReplyAddresses {
    /// Removes a channel.
    pub fn remove(&mut self, connection: ConnectionId, channel: ChannelId) {
        if let Some(address) = self.by_channel.remove(&(connection, channel)) {
            self.by_address.remove(&address);
        }
    }
    /// True when an address belongs to an open channel.
    pub fn contains(&self, address: &str) -> bool {
        self.by_address.contains_key(address)
    }
}

impl Core {
    pub(crate) fn consume_replies(&mut self, connection: ConnectionId, number: ChannelId, consume: &basic::Consume) -> Outcome {
        Core::refuse_arguments(&consume.arguments)?;
        if !consume.no_ack {
            return Err(Refusal::precondition_failed("reply consumer cannot acknowledge"));
        }
        let tag = self.new_consumer_tag(connection, number, consume.consumer_tag.as_str())?;
        let channel = self.connections.channel_mut(connection, number)?;
        if channel.reply_consumer.is_some() {
            return Err(Refusal::precondition_failed("reply consumer already set"));
        }
        channel.reply_consumer = Some(tag.clone());
        let address = self.random_name(REPLY_PREFIX);
        self.reply_addresses.by_address.insert(address.clone(), (connection, number));
        self.reply_addresses.by_channel.insert((connection, number), address);
        if !consume.nowait {
            self.reply_consume_ok(connection, number, &tag);
        }
        Ok(())
    }

    /// Puts the channel's own address into `reply_to`.
    pub(crate) fn rewrite_reply_to(&mut self, connection: ConnectionId, number: ChannelId, properties: &[u8]) -> Outcome<Box<[u8]>> {
        let has_consumer = self.connections.channel_mut(connection, number)?.reply_consumer.is_some();
        let address = self
            .reply_addresses
            .by_channel
            .get(&(connection, number))
            .filter(|_| has_consumer)
            .ok_or_else(|| Refusal::precondition_failed("fast reply consumer does not exist"))?;
        Ok(write_properties(&parse_properties(properties)?.with_reply_to(short(address))))
    }

    /// Delivers a reply to the requester; false when its channel is closed.
    pub(crate) fn deliver_reply(&mut self, message: &Arc<Message>) -> bool {
        let Some(&(id, number)) = self.reply_addresses.by_address.get(&*message.routing_key) else {
            return false;
        };
        let Some(connection) = self.connections.get_mut(id) else { return false };
        // A requester that does not read loses replies, as it would by disconnecting.
        if connection.outbox.is_full() {
            return false;
        }
        let frame_max = connection.frame_max;
        let Some(channel) = connection.channels.get_mut(&number) else { return false };
        let Some(consumer) = channel.reply_consumer.clone() else { return false };
        let tag = channel.next_tag();
        encode::deliver(&mut connection.outbox.bytes, number, &consumer, tag, false, message, frame_max);
        self.mark_dirty(id);
        true
    }
}
