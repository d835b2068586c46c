//! Converts between the journal and the state: restores at start, begins new segments, and writes live messages again.

use std::collections::BTreeMap;

use crate::{
    arguments::{QueueArguments, alternate_exchange},
    core::Core,
    exchange::Target,
    ids::Name,
    journal::{Op, Replayed},
    queue::Queue,
};

impl Core {
    /// Takes over the state that a journal described.
    pub(crate) fn restore(&mut self, replayed: Replayed) {
        for (name, mut exchange) in replayed.exchanges {
            match alternate_exchange(&exchange.arguments) {
                Ok(alternate) => exchange.alternate = alternate.map(Name::from),
                Err(refusal) => tracing::warn!(name, refusal.text, "a stored exchange has invalid arguments; they are ignored"),
            }
            self.exchanges.insert(name.into(), exchange);
        }
        for (id, old) in replayed.queues {
            let rules = QueueArguments::read(&old.name, &old.arguments).unwrap_or_else(|refusal| {
                tracing::warn!(name = old.name, refusal.text, "a stored queue has invalid arguments; it is opened without any");
                QueueArguments::default()
            });
            let name: Name = old.name.into();
            let mut queue = Queue::new(name.clone(), true, old.arguments, rules);
            queue.is_auto_delete = old.is_auto_delete;
            queue.next_position = old.next_position;
            queue.reserved = old.reserved;
            queue.reserving = old.reserved;
            queue.used_ms = crate::message::now_ms();
            for (position, mut entry) in old.messages {
                entry.is_redelivered |= position < old.reserved;
                self.held_bytes += entry.cost();
                self.journal.count_live(&entry);
                queue.insert(entry);
            }
            self.last_queue_id = self.last_queue_id.max(id);
            self.queues.insert(id, queue);
            self.queue_names.insert(name, id);
        }
        for (source, key, binding) in replayed.bindings {
            let leads_somewhere = match &binding.target {
                Target::Queue(queue) => self.queues.contains_key(queue),
                Target::Exchange(name) => self.exchanges.contains_key(name),
            };
            let Some(exchange) = self.exchanges.get_mut(&source) else { continue };
            if !leads_somewhere {
                continue;
            }
            if let Target::Queue(queue) = &binding.target
                && let Some(queue) = self.queues.get_mut(queue)
            {
                queue.bound.insert((source, key.clone()));
            }
            exchange.bind(key, binding);
        }
        let ids: Vec<_> = self.queues.keys().copied().collect();
        for id in ids {
            self.watch_expiry(id);
            self.schedule_queue_expiry(id);
        }
    }

    /// The durable topology, as the first records of a segment.
    pub(crate) fn topology(&self) -> Vec<Op> {
        let mut ops = Vec::new();
        for (name, exchange) in &self.exchanges {
            if exchange.is_durable && !name.is_empty() && !name.starts_with("amq.") {
                ops.push(Op::declare_exchange(name, exchange));
            }
        }
        let kept: BTreeMap<_, _> = self.queues.iter().filter(|(_, queue)| queue.is_kept).collect();
        for (id, queue) in kept {
            ops.push(Op::declare_queue(*id, queue));
            ops.push(Op::Reserve { queue: *id, upto: queue.reserving });
        }
        for (source, exchange) in &self.exchanges {
            for (key, bindings) in &exchange.bindings {
                for binding in bindings.iter().filter(|binding| binding.is_durable) {
                    ops.push(Op::Bind { source: source.clone(), key: key.clone(), binding: binding.clone() });
                }
            }
        }
        ops
    }

    /// Begins a segment after the collected batch, and writes again the messages that keep old segments alive.
    pub(crate) fn start_segment(&mut self) {
        let topology = self.topology();
        self.journal.next_segment(topology);
    }

    /// Writes the oldest segment's live messages again when the log is too large for its live messages.
    pub(crate) fn compact(&mut self) {
        let Some(oldest) = self.journal.segment_to_rewrite() else { return };
        let journal = &mut self.journal;
        for (id, queue) in &mut self.queues {
            for entry in queue.entries_mut().filter(|entry| entry.stored.segment == oldest) {
                journal.rewrite(*id, entry);
            }
        }
        for (_, connection) in self.connections.values_mut() {
            let unacked = connection.channels.values_mut().flat_map(|one| one.unacked.values_mut());
            for unacked in unacked.filter(|unacked| unacked.entry.stored.segment == oldest) {
                let before = unacked.entry.cost();
                // Only messages in queues learn their new position, so this one must be in memory.
                if let Err(error) = self.pager.load(&mut unacked.entry) {
                    tracing::error!(%error, "an unacknowledged message could not be read from disk; the journal keeps its old segment");
                    return;
                }
                self.held_bytes += unacked.entry.cost() - before;
                journal.rewrite(unacked.queue, &mut unacked.entry);
            }
        }
        self.journal.finish_rewrite(oldest);
    }

    /// Records which messages were delivered, so that a planned restart flags no others as redelivered.
    pub(crate) fn note_clean_stop(&mut self) {
        for (id, queue) in self.queues.iter_mut().filter(|(_, queue)| queue.is_kept) {
            self.journal.note(Op::Reserve { queue: *id, upto: 1 });
            for entry in queue.entries_mut() {
                if entry.is_redelivered && entry.stored.segment != 0 {
                    self.journal.note(Op::Flag { queue: *id, position: entry.position });
                }
            }
        }
        self.journal.flush_lazy();
    }
}
