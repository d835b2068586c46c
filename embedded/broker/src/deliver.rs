//! Delivers messages from a queue: to the next eligible consumer, or to a `basic.get`.

use std::sync::Arc;

use amq_protocol::{
    protocol::{AMQPClass, basic},
    types::AMQPValue,
};

use crate::{
    channel::Unacked,
    codec::{short, write_properties},
    content::properties_of,
    core::Core,
    encode,
    ids::{ChannelId, ConnectionId, QueueId},
    lapse::AckDeadline,
    message::{Entry, Message, now_ms},
    permissions::Right,
    queue::Queue,
    refusal::Outcome,
};

/// Smallest and largest step by which a queue's reservation runs ahead of its deliveries.
const RESERVE_STEP_MIN: u64 = 16;
const RESERVE_STEP_MAX: u64 = 2_048;

impl Core {
    /// Delivers while there is a message and an eligible consumer.
    pub(crate) fn deliver_ready(&mut self, id: QueueId) {
        self.drop_expired(id);
        self.serve(id);
    }

    /// As [`Core::deliver_ready`], for a message that was just published: one with no time to live may still be delivered at once.
    pub(crate) fn serve(&mut self, id: QueueId) {
        loop {
            let Some(queue) = self.queues.get_mut(&id) else { return };
            let Some((_, &consumer_id)) = queue.eligible.first_key_value() else { return };
            let Some(head) = queue.head() else { return };
            if head.stored.segment != 0 && head.position >= queue.reserved {
                let position = head.position;
                self.reserve(id, position);
                return;
            }
            if head.content.is_none() {
                self.load_ahead(id);
                continue;
            }
            let consumer = self.consumers.get(&consumer_id).expect("eligible consumers exist");
            let Some(connection) = self.connections.get_mut(consumer.connection) else {
                self.suspend_consumer(consumer_id);
                continue;
            };
            if connection.outbox.is_congested() {
                connection.parked.push(consumer_id);
                let connection_id = consumer.connection;
                self.suspend_consumer(consumer_id);
                self.mark_dirty(connection_id);
                continue;
            }
            let is_held =
                connection.channels.get(&consumer.channel).is_none_or(|channel| !consumer.no_ack && channel.is_held() || channel.is_paused);
            if is_held {
                self.suspend_consumer(consumer_id);
                continue;
            }
            self.deliver_head(id, consumer_id);
        }
    }

    fn deliver_head(&mut self, id: QueueId, consumer_id: u64) {
        let (Some(queue), Some(consumer)) = (self.queues.get_mut(&id), self.consumers.get_mut(&consumer_id)) else {
            return;
        };
        let Some(mut entry) = queue.pop() else { return };
        let Some(message) = entry.content.clone() else { return };
        reserve_ahead(queue, id, &entry, &mut self.journal);
        let Some(connection) = self.connections.get_mut(consumer.connection) else { return };
        let Some(channel) = connection.channels.get_mut(&consumer.channel) else { return };
        let tag = channel.next_tag();
        let frame_max = connection.frame_max;
        let out = &mut connection.outbox.bytes;
        let with_count = with_delivery_count(queue, &message, entry.returns);
        let message = with_count.as_ref().unwrap_or(&message);
        encode::deliver(out, consumer.channel, &consumer.tag, tag, entry.is_redelivered, message, frame_max);
        let connection_id = consumer.connection;
        if consumer.no_ack {
            self.retire(id, &entry);
        } else {
            consumer.unacked += 1;
            channel.unacked_consumed += 1;
            if entry.place.is_known() && self.held_bytes > self.settings.resident_max_bytes {
                self.held_bytes -= entry.drop_content();
            }
            let (number, timeout) = (consumer.channel, consumer.ack_timeout);
            let deadline = AckDeadline::begin(timeout);
            channel.unacked.insert(tag, Unacked { entry, queue: id, consumer: Some(consumer_id), deadline });
            if let Some(timeout) = timeout {
                self.watch_acks(connection_id, number, timeout);
            }
        }
        self.suspend_consumer(consumer_id);
        self.refresh_consumer(consumer_id);
        self.mark_dirty(connection_id);
    }

    /// Asks the journal for permission to deliver up to `position`.
    fn reserve(&mut self, id: QueueId, position: u64) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        if queue.reserving <= position {
            extend_reservation(queue, id, position, &mut self.journal);
        }
        self.turn.notify_one();
    }

    pub(crate) fn on_get(&mut self, connection: ConnectionId, number: ChannelId, name: &str, no_ack: bool) -> Outcome {
        let id = self.permitted_queue(connection, number, name, Right::Read)?;
        self.drop_expired(id);
        if self.queues.get(&id).and_then(Queue::head).is_some_and(|head| head.content.is_none()) {
            self.load_ahead(id);
        }
        let Some(queue) = self.queues.get_mut(&id) else { return Ok(()) };
        queue.used_ms = now_ms();
        // An unreadable head is removed by now, and the next message may be on disk.
        let taken = queue.pop().and_then(|entry| entry.content.clone().map(|message| (entry, message)));
        let Some((mut entry, message)) = taken else {
            let empty = basic::AMQPMethod::GetEmpty(basic::GetEmpty {});
            self.send(connection, number, AMQPClass::Basic(empty));
            return Ok(());
        };
        let left = queue.ready as u32;
        let timeout = queue.rules.consumer_timeout;
        let is_ahead = entry.stored.segment != 0 && entry.position >= queue.reserved;
        if is_ahead {
            queue.reserving = queue.reserving.max(entry.position + RESERVE_STEP_MIN);
            self.journal.reserve(id, queue.reserving);
        }
        let with_count = with_delivery_count(queue, &message, entry.returns);
        let message = with_count.as_ref().unwrap_or(&message);
        let channel = self.connections.channel_mut(connection, number)?;
        let tag = channel.next_tag();
        let ok = basic::AMQPMethod::GetOk(basic::GetOk {
            delivery_tag: tag,
            redelivered: entry.is_redelivered,
            exchange: short(&message.exchange),
            routing_key: short(&message.routing_key),
            message_count: left,
        });
        if let Some(state) = self.connections.get_mut(connection) {
            encode::method(&mut state.outbox.bytes, number, AMQPClass::Basic(ok));
            let frame_max = state.frame_max;
            encode::content(&mut state.outbox.bytes, number, message, frame_max);
        }
        self.mark_dirty(connection);
        if is_ahead {
            self.hold_replies(connection);
        }
        if no_ack {
            self.retire(id, &entry);
        } else {
            self.page_out(&mut entry);
            let channel = self.connections.channel_mut(connection, number)?;
            channel.unacked.insert(tag, Unacked { entry, queue: id, consumer: None, deadline: AckDeadline::begin(timeout) });
            if let Some(timeout) = timeout {
                self.watch_acks(connection, number, timeout);
            }
        }
        self.watch_expiry(id);
        Ok(())
    }
}

/// Extends the reservation early, so that deliveries rarely wait for it.
fn reserve_ahead(queue: &mut Queue, id: QueueId, entry: &Entry, journal: &mut crate::journal::Journal) {
    if entry.stored.segment != 0 && entry.position + queue.reserve_step / 2 >= queue.reserving {
        extend_reservation(queue, id, entry.position, journal);
    }
}

/// Reserves twice as far as before, so that a fast queue reserves rarely and a slow one flags few messages after a crash.
fn extend_reservation(queue: &mut Queue, id: QueueId, position: u64, journal: &mut crate::journal::Journal) {
    queue.reserve_step = (queue.reserve_step * 2).clamp(RESERVE_STEP_MIN, RESERVE_STEP_MAX);
    queue.reserving = position + queue.reserve_step;
    journal.reserve(id, queue.reserving);
}

/// Adds `x-delivery-count`, if the queue counts deliveries and the message was returned before.
fn with_delivery_count(queue: &Queue, message: &Message, returns: u32) -> Option<Arc<Message>> {
    if !queue.rules.counts_deliveries() || returns == 0 {
        return None;
    }
    let properties = properties_of(message);
    let mut headers = properties.headers().clone().unwrap_or_default();
    headers.insert(short("x-delivery-count"), AMQPValue::LongLongInt(i64::from(returns)));
    Some(Arc::new(Message {
        exchange: message.exchange.clone(),
        routing_key: message.routing_key.clone(),
        properties: write_properties(&properties.with_headers(headers)),
        body: message.body.clone(),
        is_persistent: message.is_persistent,
        priority: message.priority,
    }))
}
