//! The model broker: a pool's task queues and the durable queue of events.
//!
//! It may lose, repeat and reorder what it holds; what an agent has not acknowledged comes back
//! when the agent's connection drops.

use std::collections::VecDeque;

use contract::{
    ids::{AttemptKey, Epoch, NodeId},
    message::AgentEvent,
};

use crate::simulation::random::Random;

/// A task's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    pub key: AttemptKey,
    /// Slots it takes; more than one means the wide queue.
    pub slots: u32,
    /// Whether it runs without a question.
    pub starts_now: bool,
    /// Whether it may have been delivered before.
    pub is_redelivered: bool,
}

/// An event with its sender.
#[derive(Debug, Clone)]
pub struct Told {
    pub node: NodeId,
    pub epoch: Epoch,
    pub event: AgentEvent,
}

/// Both queues.
#[derive(Debug, Default)]
pub struct Broker {
    /// Ready task messages, of one slot and of several.
    pub tasks: VecDeque<Message>,
    /// Events that the dispatcher has not acknowledged.
    pub events: VecDeque<Told>,
    /// Until then none of them is delivered.
    pub is_behind_until: i64,
}

impl Broker {
    /// Puts a message somewhere into the queue: at its end, or anywhere.
    pub fn put(&mut self, message: Message, reorders: bool, random: &mut Random) {
        let place = if reorders { random.below(self.tasks.len() + 1) } else { self.tasks.len() };
        self.tasks.insert(place, message);
    }

    /// Returns a delivery that was not acknowledged to the queue.
    pub fn give_back(&mut self, message: Message, random: &mut Random) {
        let back = Message { is_redelivered: true, ..message };
        let to_front = random.chance(500);
        let place = if to_front { 0 } else { random.below(self.tasks.len() + 1) };
        self.tasks.insert(place, back);
    }

    /// Takes the first message that fits so many slots.
    pub fn take(&mut self, slots: u32) -> Option<Message> {
        let place = self.tasks.iter().position(|message| message.slots <= slots)?;
        self.tasks.remove(place)
    }
}
