//! Messages that a queue holds for a while: returned ones until their next try (`x-delayed-retry-type`), and dead
//! letters that no queue has accepted yet (`x-dead-letter-strategy: at-least-once`). They count towards the queue's
//! limits; after a restart they are ready.

use crate::{
    arguments::RetryKind,
    core::Core,
    deadletter::Reason,
    ids::QueueId,
    message::{Entry, now_ms},
    queue::Queue,
    timers::Due,
};

/// Pause before a dead letter without a queue is published again.
const DEAD_LETTER_PAUSE_MS: u64 = 5_000;
/// Held messages of one queue that are released at once.
const ROUND_MAX: usize = 256;
/// Pause between two rounds of one queue.
const ROUND_PAUSE_MS: u64 = 10;

/// The reason reason a message is held.
#[derive(Clone, Copy, Debug)]
pub(crate) enum HoldReason {
    Retry,
    DeadLetter(Reason),
}

/// A message that is neither ready nor delivered.
#[derive(Debug)]
pub(crate) struct Held {
    entry: Entry,
    reason: HoldReason,
}

impl Held {
    pub fn entry_mut(&mut self) -> &mut Entry {
        &mut self.entry
    }
}

/// The way in which a delivery was returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReturnKind {
    /// `basic.nack` and `basic.recover`: the consumer leaves it to another one.
    Returned,
    /// `basic.reject`, a timeout, or a closed channel.
    Failed,
}

impl Queue {
    /// The pause before a returned message is ready; nothing when it is ready at once.
    pub(crate) fn retry_pause_ms(&self, returns: u32, return_kind: ReturnKind) -> Option<u64> {
        let retry = self.rules.delayed_retry?;
        let applies = match retry.kind {
            RetryKind::All => true,
            RetryKind::Failed => return_kind == ReturnKind::Failed,
            RetryKind::Returned => return_kind == ReturnKind::Returned,
        };
        applies.then(|| retry.min_ms.saturating_mul(u64::from(returns)).min(retry.max_ms))
    }
}

impl Core {
    /// Holds a returned message until its next try.
    pub(crate) fn hold_for_retry(&mut self, id: QueueId, entry: Entry, pause_ms: u64) {
        self.hold(id, entry, HoldReason::Retry, pause_ms);
    }

    /// Holds a dead letter that no queue accepted.
    pub(crate) fn hold_dead_letter(&mut self, id: QueueId, entry: Entry, reason: Reason) {
        self.hold(id, entry, HoldReason::DeadLetter(reason), DEAD_LETTER_PAUSE_MS);
    }

    fn hold(&mut self, id: QueueId, mut entry: Entry, reason: HoldReason, pause_ms: u64) {
        let before = entry.cost();
        // Only ready messages learn a new place of their record, so the content of a held one must be in memory.
        if let Err(error) = self.pager.load(&mut entry) {
            tracing::error!(%error, queue = id, position = entry.position, "a message of this queue could not be read from disk; it is not delivered until the next start of the broker");
            self.held_bytes = self.held_bytes.saturating_sub(before);
            return;
        }
        self.held_bytes += entry.cost() - before;
        let Some(queue) = self.queues.get_mut(&id) else { return self.retire(id, &entry) };
        queue.held_bytes += u64::from(entry.body_bytes);
        queue.held.insert((now_ms() + pause_ms, entry.position), Held { entry, reason });
        self.watch_held(id, 0);
    }

    /// Sets a timer for the queue's next held message, though not before `earliest_ms`.
    fn watch_held(&mut self, id: QueueId, earliest_ms: u64) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        let Some((due_ms, _)) = queue.held.keys().next().copied() else { return };
        let at_ms = due_ms.max(earliest_ms);
        if queue.held_timer_ms == 0 || at_ms < queue.held_timer_ms {
            queue.held_timer_ms = at_ms;
            self.timers.add(at_ms, Due::Held(id));
        }
    }

    /// Releases held messages that are due.
    pub(crate) fn release_held(&mut self, id: QueueId, now: u64) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        queue.held_timer_ms = 0;
        for _ in 0..ROUND_MAX {
            let Some(held) = self.queues.get_mut(&id).and_then(|queue| queue.take_held(now)) else { break };
            match held.reason {
                HoldReason::DeadLetter(reason) => self.dead_letter(id, held.entry, reason),
                HoldReason::Retry => {
                    if let Some(queue) = self.queues.get_mut(&id) {
                        queue.insert(held.entry);
                    }
                }
            }
        }
        self.watch_expiry(id);
        self.deliver_ready(id);
        self.watch_held(id, now + ROUND_PAUSE_MS);
    }

    /// Removes the held messages of a queue before it is deleted.
    pub(crate) fn drop_held(&mut self, id: QueueId) {
        while let Some(held) = self.queues.get_mut(&id).and_then(|queue| queue.take_held(u64::MAX)) {
            self.retire(id, &held.entry);
        }
    }
}

impl Queue {
    fn take_held(&mut self, now_ms: u64) -> Option<Held> {
        let first = self.held.first_entry().filter(|first| first.key().0 <= now_ms)?;
        let held = first.remove();
        self.held_bytes -= u64::from(held.entry.body_bytes);
        Some(held)
    }
}
