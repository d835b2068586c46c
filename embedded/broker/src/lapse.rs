//! `x-consumer-timeout`: a delivery without an ack in time returns to its queue. On a quorum queue its consumer is
//! cancelled with a notification; on a classic queue, or for a client without support for such notifications, the channel
//! is closed. The clock is monotonic: a step of the wall clock may start a check early or late, but ends no delivery.

use std::time::{Duration, Instant};

use amq_protocol::protocol::{AMQPClass, basic};

use crate::{
    channel::Unacked,
    codec::short,
    core::Core,
    held::ReturnKind,
    ids::{ChannelId, ConnectionId, ConsumerId},
    message::now_ms,
    refusal::Refusal,
    timers::Due,
};

/// Returned deliveries whose late ack a channel still accepts; above it the oldest is forgotten, and its ack is an error.
const LAPSED_MAX: usize = 65_536;

/// The latest time for the ack of a delivery.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AckDeadline {
    at: Instant,
    timeout: Duration,
}

impl AckDeadline {
    /// The deadline of a delivery that is sent now.
    pub fn begin(timeout: Option<Duration>) -> Option<AckDeadline> {
        timeout.map(|timeout| AckDeadline { at: Instant::now() + timeout, timeout })
    }
}

impl Core {
    /// Sets a timer for the first deadline of a channel's deliveries.
    pub(crate) fn watch_acks(&mut self, id: ConnectionId, number: ChannelId, remaining: Duration) {
        let at_ms = now_ms() + remaining.as_millis() as u64 + 1;
        let Ok(channel) = self.connections.channel_mut(id, number) else { return };
        if channel.ack_timer_ms == 0 || at_ms < channel.ack_timer_ms {
            channel.ack_timer_ms = at_ms;
            self.timers.add(at_ms, Due::Acks(id, number));
        }
    }

    /// Returns the deliveries of a channel whose deadline has passed.
    pub(crate) fn lapse_acks(&mut self, id: ConnectionId, number: ChannelId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let takes_notice = connection.wants_cancel_notice;
        let Some(channel) = connection.channels.get_mut(&number).filter(|channel| !channel.is_closing) else { return };
        channel.ack_timer_ms = 0;
        let now = Instant::now();
        let waiting = channel.unacked.iter().filter_map(|(tag, one)| one.deadline.map(|deadline| (*tag, one, deadline)));
        let (mut lapsed, mut next) = (Vec::new(), None::<Instant>);
        for (tag, one, deadline) in waiting {
            if deadline.at > now {
                next = Some(next.map_or(deadline.at, |next| next.min(deadline.at)));
                continue;
            }
            let is_quorum = self.queues.get(&one.queue).is_some_and(|queue| queue.rules.is_quorum);
            if !takes_notice || !is_quorum || one.consumer.is_none() {
                return self.refuse(id, number, timed_out(number, deadline.timeout), (0, 0));
            }
            lapsed.push(tag);
        }
        self.take_back(id, number, &lapsed);
        if let Some(next) = next {
            self.watch_acks(id, number, next.saturating_duration_since(now));
        }
    }

    /// Cancels the consumers of these deliveries and returns the deliveries; late acks of the client have no effect.
    fn take_back(&mut self, id: ConnectionId, number: ChannelId, lapsed: &[u64]) {
        let Ok(channel) = self.connections.channel_mut(id, number) else { return };
        let taken: Vec<Unacked> = lapsed.iter().filter_map(|tag| channel.unacked.remove(tag)).collect();
        if taken.is_empty() {
            return;
        }
        channel.lapsed.extend(lapsed);
        while channel.lapsed.len() > LAPSED_MAX {
            channel.lapsed.pop_first();
        }
        channel.unacked_consumed = channel.unacked_consumed.saturating_sub(taken.len() as u32);
        let mut consumers: Vec<ConsumerId> = taken.iter().filter_map(|one| one.consumer).collect();
        consumers.dedup();
        for consumer in consumers {
            self.cancel_consumer(consumer);
        }
        self.give_back(taken, ReturnKind::Failed);
        self.wake_channel(id, number);
    }

    /// Removes a consumer from its queue and sends `basic.cancel` to its client.
    fn cancel_consumer(&mut self, id: ConsumerId) {
        let Some(consumer) = self.consumers.get(&id) else { return };
        let (connection, number, tag) = (consumer.connection, consumer.channel, consumer.tag.clone());
        tracing::info!(
            consumer = &*tag,
            "consumer cancelled: a delivery was not acknowledged within the consumer timeout and returned to its queue"
        );
        if let Ok(channel) = self.connections.channel_mut(connection, number) {
            channel.consumers.remove(&tag);
        }
        self.drop_consumer(id);
        let cancel = basic::Cancel { consumer_tag: short(&tag), nowait: true };
        self.send(connection, number, AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel)));
    }
}

fn timed_out(number: ChannelId, timeout: Duration) -> Refusal {
    Refusal::precondition_failed(format!(
        "delivery acknowledgement on channel {number} timed out. Timeout value used: {} ms. \
         This timeout value can be configured, see consumers doc guide to learn more",
        timeout.as_millis()
    ))
}
