//! Slots of the model agents that the dispatcher keeps for an attempt: nothing else fills them until it is asked about.

use contract::{ids::AttemptKey, message::NodeOrder};

use crate::simulation::{agent::Held, broker::Message, world::World};

impl World {
    /// Slots are kept for an attempt, or for none any more.
    pub fn on_keep(&mut self, agent: usize, keep: Option<(AttemptKey, u32)>) {
        let facts = &mut self.agents[agent];
        facts.keep = keep.filter(|_| facts.order == NodeOrder::Work);
        if facts.keep.is_none() {
            facts.held.retain(|_, held| !held.is_kept || held.run.is_some());
        }
        self.deliver_soon();
    }

    /// Asks about the attempt that slots are kept for, once they are free.
    pub fn ask_for_kept(&mut self, agent: usize) {
        let facts = &self.agents[agent];
        let Some((key, slots)) = facts.keep.filter(|(key, _)| !facts.knows(*key)) else { return };
        if !facts.is_alive || !facts.is_connected || facts.is_paused || facts.epoch.is_none() || facts.used() + slots > facts.slots {
            return;
        }
        self.mark("kept slots used");
        let candidate = self.new_run();
        let facts = &mut self.agents[agent];
        let tag = facts.next_tag;
        facts.next_tag += 1;
        let message = Message { key, slots, starts_now: false, is_redelivered: true };
        facts.held.insert(tag, Held { message, is_kept: true, run: None, candidate });
        self.ask(agent, tag);
    }
}
