//! Between the journal and the state: what a start takes over, what a new segment begins with, what is written again.

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
    /// Takes over what a journal described.
    pub(crate) fn restore(&mut self, replayed: Replayed) {
        for (name, mut exchange) in replayed.exchanges {
            match alternate_exchange(&exchange.arguments) {
                Ok(alternate) => exchange.alternate = alternate.map(Name::from),
                Err(refusal) => tracing::warn!(name, refusal.text, "kept exchange has odd arguments"),
            }
            self.exchanges.insert(name.into(), exchange);
        }
        for (id, old) in replayed.queues {
            let rules = QueueArguments::parse(&old.arguments).unwrap_or_else(|refusal| {
                tracing::warn!(name = old.name, refusal.text, "kept queue has odd arguments");
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

    /// The kept topology, as a segment begins with it.
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

    /// Begins a segment behind the collected batch, and writes again what keeps old ones alive.
    pub(crate) fn start_segment(&mut self) {
        let topology = self.topology();
        self.journal.next_segment(topology);
    }

    /// Writes the oldest segment's live messages again when the log is too large for what is alive.
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
                // Where it will lie is told to queues alone, so it must be in memory.
                if let Err(error) = self.pager.load(&mut unacked.entry) {
                    tracing::error!(%error, "a message that is out cannot be read, the journal keeps its segment");
                    return;
                }
                self.held_bytes += unacked.entry.cost() - before;
                journal.rewrite(unacked.queue, &mut unacked.entry);
            }
        }
        self.journal.finish_rewrite(oldest);
    }

    /// Marks exactly those messages redelivered that are, so that a planned restart flags no other.
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
