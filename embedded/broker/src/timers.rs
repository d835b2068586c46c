//! Timers: messages and queues expire, held messages are released, deliveries exceed the time for their ack.
//! One ordered set of due times, served by one task.

use std::{collections::BTreeSet, rc::Rc};

use tokio::sync::Notify;

use crate::{
    core::Core,
    deadletter::Reason,
    ids::{ChannelId, ConnectionId, QueueId},
    message::now_ms,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    Messages(QueueId),
    Queue(QueueId),
    /// Releases held messages.
    Held(QueueId),
    /// Checks the deadlines of unacknowledged deliveries.
    Acks(ConnectionId, ChannelId),
}

/// Due times in Unix milliseconds.
#[derive(Default)]
pub(crate) struct Timers {
    due: BTreeSet<(u64, Due)>,
    /// Signals the task that an earlier time was added.
    pub changed: Rc<Notify>,
}

impl Timers {
    pub fn add(&mut self, at_ms: u64, due: Due) {
        if self.next_ms().is_none_or(|next| at_ms < next) {
            self.changed.notify_one();
        }
        self.due.insert((at_ms, due));
    }

    /// The earliest due time.
    pub fn next_ms(&self) -> Option<u64> {
        self.due.first().map(|(at_ms, _)| *at_ms)
    }
}

impl Core {
    /// Sets a timer for the queue's next expiring message.
    pub(crate) fn watch_expiry(&mut self, id: QueueId) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        let next = queue.next_expiry_ms();
        if next != 0 && (queue.timer_ms == 0 || next < queue.timer_ms) {
            queue.timer_ms = next;
            self.timers.add(next, Due::Messages(id));
        }
    }

    /// Sets a timer for an unused queue with `x-expires`.
    pub(crate) fn schedule_queue_expiry(&mut self, id: QueueId) {
        let Some(queue) = self.queues.get(&id) else { return };
        if let Some(expires) = queue.rules.expires_ms {
            self.timers.add(queue.used_ms + expires, Due::Queue(id));
        }
    }

    /// Drops expired messages at the front of a queue.
    pub(crate) fn drop_expired(&mut self, id: QueueId) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        let next = queue.next_expiry_ms();
        if next == 0 {
            return;
        }
        let now = now_ms();
        while let Some(entry) = self.queues.get_mut(&id).and_then(|queue| queue.pop_expired(now)) {
            self.dead_letter(id, entry, Reason::Expired);
        }
        self.watch_expiry(id);
    }

    /// Handles all due timers; returns the next due time.
    pub(crate) fn on_time(&mut self) -> Option<u64> {
        let now = now_ms();
        while let Some((at_ms, due)) = self.timers.due.first().copied()
            && at_ms <= now
        {
            self.timers.due.pop_first();
            match due {
                Due::Messages(id) => {
                    if let Some(queue) = self.queues.get_mut(&id) {
                        queue.timer_ms = 0;
                    }
                    self.drop_expired(id);
                    self.watch_expiry(id);
                }
                Due::Queue(id) => self.expire_queue(id, now),
                Due::Held(id) => self.release_held(id, now),
                Due::Acks(id, number) => self.lapse_acks(id, number),
            }
        }
        self.turn.notify_one();
        self.timers.next_ms()
    }

    fn expire_queue(&mut self, id: QueueId, now: u64) {
        let Some(queue) = self.queues.get(&id) else { return };
        let Some(expires) = queue.rules.expires_ms else { return };
        if !queue.consumers.is_empty() {
            return;
        }
        if queue.used_ms + expires <= now {
            self.delete_queue(id);
        } else {
            self.schedule_queue_expiry(id);
        }
    }
}
