//! Computes the [`Figures`] from what the engine holds in memory.
//!
//! Reads nothing from the store, so the cost does not depend on the number of tasks.

use scheduler::Phase;

use crate::{figures::Figures, world::World};

impl World {
    pub(super) fn figures(&mut self) -> Figures {
        let (jobs, pools) = (self.jobs.len() as u64, self.pools.len() as u64);
        let mut figures = Figures { jobs, pools, ..Figures::default() };
        for (id, entry) in &self.pools {
            let sums = figures.by_pool.entry(self.tally.label(id).to_owned()).or_default();
            for node in entry.nodes.values() {
                *sums.nodes.entry(node.state).or_default() += 1;
            }
            sums.slots += u64::from(entry.core.slots());
            for attempt in entry.core.live().values() {
                match attempt.phase {
                    Phase::Released { is_published, .. } => figures.unpublished += u64::from(!is_published),
                    Phase::Running { is_preparing, .. } => {
                        sums.preparing += u64::from(is_preparing);
                        sums.slots_used += u64::from(attempt.slots);
                    }
                }
            }
            let waiting_ms = entry.waiting_since.map_or(0, |since| self.moment.since(since));
            sums.waiting_ms = sums.waiting_ms.max(waiting_ms);
        }
        for job in self.jobs.values().filter(|job| self.pools.contains_key(&job.record.pool)) {
            let sums = figures.by_pool.entry(self.tally.label(&job.record.pool).to_owned()).or_default();
            sums.active += job.record.tasks.active;
            sums.running += job.record.tasks.running;
            sums.completed += job.record.tasks.completed();
        }
        for sums in figures.by_pool.values_mut() {
            sums.running = sums.running.saturating_sub(sums.preparing);
        }
        figures
    }
}
