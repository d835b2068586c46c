//! Consumers: subscribe, cancel, and which of them may get a message now. Equal priorities take turns.

use std::{cmp::Reverse, time::Duration};

use amq_protocol::{
    protocol::{AMQPClass, basic},
    types::FieldTable,
};

use crate::{
    arguments::ConsumerArguments,
    codec::short,
    core::Core,
    ids::{ChannelId, ConnectionId, ConsumerId, Name, QueueId},
    permissions::Right,
    queue::ConsumerOrder,
    refusal::{Outcome, Refusal},
    replyto::REPLY_QUEUE,
};

/// A subscription to a queue.
pub(crate) struct Consumer {
    pub queue: QueueId,
    pub connection: ConnectionId,
    pub channel: ChannelId,
    pub tag: Name,
    pub no_ack: bool,
    pub prefetch: u16,
    pub unacked: u32,
    /// Longest time for the ack of a delivery.
    pub ack_timeout: Option<Duration>,
    /// The position among all consumers of the queue.
    order: ConsumerOrder,
    /// The position among the eligible consumers.
    turn: Option<ConsumerOrder>,
}

impl Core {
    pub(crate) fn on_consume(&mut self, connection: ConnectionId, channel: ChannelId, consume: basic::Consume) -> Outcome {
        if consume.queue.as_str() == REPLY_QUEUE {
            return self.consume_replies(connection, channel, &consume);
        }
        let queue_id = self.permitted_queue(connection, channel, consume.queue.as_str(), Right::Read)?;
        let queue = &self.queues[&queue_id];
        let arguments = ConsumerArguments::parse(&queue.name, queue.rules.is_quorum, &consume.arguments)?;
        let ack_timeout = arguments.timeout.or(queue.rules.consumer_timeout);
        let tag = self.new_consumer_tag(connection, channel, consume.consumer_tag.as_str())?;
        let queue = self.queues.get_mut(&queue_id).expect("the queue was just found");
        if queue.has_exclusive_consumer || (consume.exclusive && !queue.consumers.is_empty()) {
            return Err(Refusal::access_refused(format!("queue '{}' in vhost '/' in exclusive use", queue.name)));
        }
        self.last_id += 1;
        let id = self.last_id;
        let order = (Reverse(arguments.priority), id);
        queue.consumers.insert(order, id);
        queue.has_exclusive_consumer = consume.exclusive;
        let channel_state = self.connections.channel_mut(connection, channel)?;
        let consumer = Consumer {
            queue: queue_id,
            connection,
            channel,
            tag: tag.clone(),
            no_ack: consume.no_ack,
            prefetch: channel_state.prefetch,
            unacked: 0,
            ack_timeout,
            order,
            turn: None,
        };
        channel_state.consumers.insert(tag.clone(), id);
        self.consumers.insert(id, consumer);
        if !consume.nowait {
            self.reply_consume_ok(connection, channel, &tag);
        }
        self.choose_active(queue_id);
        self.refresh_consumer(id);
        self.deliver_ready(queue_id);
        Ok(())
    }

    pub(crate) fn reply_consume_ok(&mut self, connection: ConnectionId, channel: ChannelId, tag: &str) {
        let method = basic::AMQPMethod::ConsumeOk(basic::ConsumeOk { consumer_tag: short(tag) });
        self.send(connection, channel, AMQPClass::Basic(method));
    }

    /// The requested tag, or a new one; a tag in use is a connection error.
    pub(crate) fn new_consumer_tag(&mut self, connection: ConnectionId, channel: ChannelId, wanted: &str) -> Outcome<Name> {
        if wanted.is_empty() {
            return Ok(self.random_name("amq.ctag-").into());
        }
        let channel = self.connections.channel_mut(connection, channel)?;
        if channel.consumers.contains_key(wanted) || channel.reply_consumer.as_deref() == Some(wanted) {
            return Err(Refusal::not_allowed(format!("attempt to reuse consumer tag '{wanted}'")));
        }
        Ok(wanted.into())
    }

    pub(crate) fn on_cancel(&mut self, connection: ConnectionId, channel: ChannelId, cancel: basic::Cancel) -> Outcome {
        let tag = cancel.consumer_tag;
        let state = self.connections.channel_mut(connection, channel)?;
        let removed = state.consumers.remove(tag.as_str());
        if state.reply_consumer.as_deref() == Some(tag.as_str()) {
            state.reply_consumer = None;
        }
        if !cancel.nowait {
            let method = basic::AMQPMethod::CancelOk(basic::CancelOk { consumer_tag: tag });
            self.send(connection, channel, AMQPClass::Basic(method));
        }
        if let Some(id) = removed {
            self.drop_consumer(id);
        }
        Ok(())
    }

    /// Removes a consumer from its queue; an auto-delete queue is deleted with its last one.
    pub(crate) fn drop_consumer(&mut self, id: ConsumerId) {
        let Some(consumer) = self.consumers.remove(&id) else { return };
        let Some(queue) = self.queues.get_mut(&consumer.queue) else { return };
        queue.consumers.remove(&consumer.order);
        if let Some(turn) = consumer.turn {
            queue.eligible.remove(&turn);
        }
        queue.has_exclusive_consumer = false;
        if queue.consumers.is_empty() {
            queue.used_ms = crate::message::now_ms();
            if queue.is_auto_delete {
                self.delete_queue(consumer.queue);
                return;
            }
            self.schedule_queue_expiry(consumer.queue);
        }
        if let Some(queue) = self.queues.get_mut(&consumer.queue)
            && queue.active == Some(id)
        {
            queue.active = None;
            self.choose_active(consumer.queue);
            self.deliver_ready(consumer.queue);
        }
    }

    /// Chooses the single active consumer when there is none.
    fn choose_active(&mut self, queue_id: QueueId) {
        let Some(queue) = self.queues.get_mut(&queue_id) else { return };
        if queue.rules.is_single_active && queue.active.is_none() {
            queue.active = queue.consumers.values().next().copied();
            if let Some(id) = queue.active {
                self.refresh_consumer(id);
            }
        }
    }

    /// Adds a consumer to the eligible ones if it can get a message now.
    pub(crate) fn refresh_consumer(&mut self, id: ConsumerId) {
        let Some(consumer) = self.consumers.get_mut(&id) else { return };
        if consumer.turn.is_some() || (!consumer.no_ack && consumer.prefetch != 0 && consumer.unacked >= u32::from(consumer.prefetch)) {
            return;
        }
        let Some(queue) = self.queues.get_mut(&consumer.queue) else { return };
        if queue.rules.is_single_active && queue.active != Some(id) {
            return;
        }
        self.last_turn += 1;
        let turn = (consumer.order.0, self.last_turn);
        consumer.turn = Some(turn);
        queue.eligible.insert(turn, id);
    }

    /// Removes a consumer from the eligible ones until something changes.
    pub(crate) fn suspend_consumer(&mut self, id: ConsumerId) {
        let Some(consumer) = self.consumers.get_mut(&id) else { return };
        if let (Some(turn), Some(queue)) = (consumer.turn.take(), self.queues.get_mut(&consumer.queue)) {
            queue.eligible.remove(&turn);
        }
    }

    /// Makes the consumers of a channel eligible again after a pause.
    pub(crate) fn wake_channel(&mut self, connection: ConnectionId, channel: ChannelId) {
        let Ok(state) = self.connections.channel_mut(connection, channel) else { return };
        let ids: Vec<ConsumerId> = state.consumers.values().copied().collect();
        self.wake_consumers(ids);
    }

    /// Refreshes consumers and delivers from their queues.
    pub(crate) fn wake_consumers(&mut self, ids: Vec<ConsumerId>) {
        let mut queues: Vec<QueueId> = Vec::with_capacity(1);
        for id in ids {
            self.refresh_consumer(id);
            if let Some(consumer) = self.consumers.get(&id)
                && !queues.contains(&consumer.queue)
            {
                queues.push(consumer.queue);
            }
        }
        for queue in queues {
            self.deliver_ready(queue);
        }
    }

    /// Sends `basic.cancel` to a client whose consumer's queue was deleted.
    pub(crate) fn notify_cancelled(&mut self, id: ConsumerId) {
        let Some(consumer) = self.consumers.remove(&id) else { return };
        let Some(connection) = self.connections.get_mut(consumer.connection) else { return };
        let wants_notice = connection.wants_cancel_notice;
        if let Some(channel) = connection.channels.get_mut(&consumer.channel) {
            channel.consumers.remove(&consumer.tag);
        }
        if wants_notice {
            let cancel = basic::Cancel { consumer_tag: short(&consumer.tag), nowait: true };
            self.send(consumer.connection, consumer.channel, AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel)));
        }
    }

    /// Refuses arguments on a direct reply consumer.
    pub(crate) fn refuse_arguments(arguments: &FieldTable) -> Outcome {
        ConsumerArguments::parse(REPLY_QUEUE, false, arguments).map(drop)
    }
}
