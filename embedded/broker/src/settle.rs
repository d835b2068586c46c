//! Settles deliveries: ack, nack, reject, recover; and returns unacknowledged ones to their queues.

use crate::{
    channel::Unacked,
    core::Core,
    deadletter::Reason,
    held::ReturnKind,
    ids::{ChannelId, ConnectionId, QueueId},
    refusal::{Outcome, Refusal},
};

impl Core {
    pub(crate) fn on_ack(&mut self, id: ConnectionId, number: ChannelId, tag: u64, is_multiple: bool) -> Outcome {
        let mut queues = Vec::with_capacity(1);
        for unacked in self.take_unacked(id, number, tag, is_multiple)? {
            self.count_back(&unacked);
            self.retire(unacked.queue, &unacked.entry);
            note(&mut queues, unacked.queue);
        }
        self.deliver_all(queues);
        self.turn.notify_one();
        Ok(())
    }

    pub(crate) fn on_nack(&mut self, id: ConnectionId, number: ChannelId, tag: u64, is_multiple: bool, requeue: bool) -> Outcome {
        let taken = self.take_unacked(id, number, tag, is_multiple)?;
        if requeue {
            self.give_back(taken, ReturnKind::Returned);
        } else {
            self.discard(taken);
        }
        Ok(())
    }

    pub(crate) fn on_reject(&mut self, id: ConnectionId, number: ChannelId, tag: u64, requeue: bool) -> Outcome {
        let taken = self.take_unacked(id, number, tag, false)?;
        if requeue {
            self.give_back(taken, ReturnKind::Failed);
        } else {
            self.discard(taken);
        }
        Ok(())
    }

    /// Dead-letters rejected messages.
    fn discard(&mut self, taken: Vec<Unacked>) {
        let mut queues = Vec::with_capacity(1);
        for unacked in taken {
            self.count_back(&unacked);
            note(&mut queues, unacked.queue);
            self.dead_letter(unacked.queue, unacked.entry, Reason::Rejected);
        }
        self.deliver_all(queues);
        self.turn.notify_one();
    }

    pub(crate) fn on_recover(&mut self, id: ConnectionId, number: ChannelId, requeue: bool) -> Outcome {
        if !requeue {
            return Err(Refusal::not_implemented("recover with requeue=false"));
        }
        let channel = self.connections.channel_mut(id, number)?;
        channel.unacked_consumed = 0;
        let all = std::mem::take(&mut channel.unacked).into_values().collect();
        self.give_back(all, ReturnKind::Returned);
        self.wake_channel(id, number);
        Ok(())
    }

    /// Removes the deliveries of a tag from their channel.
    fn take_unacked(&mut self, id: ConnectionId, number: ChannelId, tag: u64, is_multiple: bool) -> Outcome<Vec<Unacked>> {
        let channel = self.connections.channel_mut(id, number)?;
        let was_held = channel.is_held();
        let taken: Vec<Unacked> = if is_multiple {
            let kept = if tag == 0 { Default::default() } else { channel.unacked.split_off(&(tag.saturating_add(1))) };
            std::mem::replace(&mut channel.unacked, kept).into_values().collect()
        } else {
            channel.unacked.remove(&tag).into_iter().collect()
        };
        let had_lapsed = channel.forget_lapsed(tag, is_multiple);
        if taken.is_empty() && tag != 0 && !had_lapsed || tag == 0 && !is_multiple {
            return Err(Refusal::precondition_failed(format!("unknown delivery tag {tag}")));
        }
        let consumed = taken.iter().filter(|unacked| unacked.consumer.is_some()).count() as u32;
        channel.unacked_consumed -= consumed.min(channel.unacked_consumed);
        if was_held && !channel.is_held() {
            let consumers = channel.consumers.values().copied().collect::<Vec<_>>();
            for consumer in consumers {
                self.refresh_consumer(consumer);
                if let Some(consumer) = self.consumers.get(&consumer) {
                    self.deliver_later(consumer.queue);
                }
            }
        }
        Ok(taken)
    }

    /// Lowers the unacknowledged count of the delivery's consumer.
    fn count_back(&mut self, unacked: &Unacked) {
        let Some(id) = unacked.consumer else { return };
        if let Some(consumer) = self.consumers.get_mut(&id) {
            consumer.unacked = consumer.unacked.saturating_sub(1);
            self.refresh_consumer(id);
        }
    }

    /// Returns messages to their place, at once or after a pause; those returned too often are dead-lettered.
    pub(crate) fn give_back(&mut self, unacked: Vec<Unacked>, return_kind: ReturnKind) {
        let mut queues = Vec::with_capacity(1);
        for mut one in unacked {
            self.count_back(&one);
            note(&mut queues, one.queue);
            one.entry.returns += 1;
            one.entry.is_redelivered = true;
            match self.queues.get_mut(&one.queue) {
                None => self.retire(one.queue, &one.entry),
                Some(queue) => {
                    let limit = queue.rules.delivery_limit;
                    if limit.is_some_and(|limit| one.entry.returns > limit) {
                        self.dead_letter(one.queue, one.entry, Reason::DeliveryLimit);
                    } else {
                        if queue.rules.counts_deliveries() && one.entry.stored.segment != 0 {
                            self.journal.returned(one.queue, &one.entry);
                        }
                        match queue.retry_pause_ms(one.entry.returns, return_kind) {
                            Some(pause_ms) => self.hold_for_retry(one.queue, one.entry, pause_ms),
                            None => queue.insert(one.entry),
                        }
                    }
                }
            }
        }
        for queue in &queues {
            self.watch_expiry(*queue);
        }
        self.deliver_all(queues);
        self.turn.notify_one();
    }

    fn deliver_all(&mut self, queues: Vec<QueueId>) {
        for queue in queues {
            self.deliver_ready(queue);
        }
        while let Some(queue) = self.later.pop() {
            self.deliver_ready(queue);
        }
    }

    fn deliver_later(&mut self, queue: QueueId) {
        if !self.later.contains(&queue) {
            self.later.push(queue);
        }
    }
}

fn note(queues: &mut Vec<QueueId>, queue: QueueId) {
    if !queues.contains(&queue) {
        queues.push(queue);
    }
}
