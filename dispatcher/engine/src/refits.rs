//! Tasks of several slots after the nodes of their job's pool got more or fewer, or the job went to another pool: they
//! fit now, or do not.
//!
//! ```text
//! pool or job changes ─► a slice at once ─► done
//!                           └─more─► the job begins nothing ─► a slice with each transaction ─► it goes on
//! ```
//! A start finds the jobs that were not done by what their rows say.

use contract::{
    ids::{JobUid, PoolId},
    time::Timestamp,
};
use store::StoreError;

use crate::world::World;

/// Rows that change in one transaction at most: what else comes meanwhile waits no longer than for these.
const SLICE_ROWS: usize = 500;

impl World {
    /// The jobs of a pool that are in memory.
    pub(super) fn jobs_of(&self, pool: &PoolId) -> Vec<JobUid> {
        self.jobs.iter().filter(|(_, job)| job.record.pool == *pool).map(|(uid, _)| *uid).collect()
    }

    /// Looks again at what of these jobs fits; those that cannot be done at once begin nothing until they are.
    pub(super) fn refit_jobs(&mut self, jobs: Vec<JobUid>, now: Timestamp) -> Result<(), StoreError> {
        self.refitting.retain(|job| !jobs.contains(job));
        self.refitting.extend(jobs);
        self.refit(now)?;
        for uid in self.refitting.clone() {
            if let Some(entry) = self.jobs.get_mut(&uid)
                && !entry.is_refitting
            {
                entry.is_refitting = true;
                // Nobody shall make nodes for what may not fit them.
                if let Some(pool) = self.pools.get_mut(&entry.record.pool) {
                    pool.core.recount_waiting(uid, 0);
                }
                self.tell_job(uid, now)?;
            }
        }
        Ok(())
    }

    /// A slice of the rows that are left.
    pub(super) fn refit(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let mut left = SLICE_ROWS;
        while left > 0
            && let Some(uid) = self.refitting.pop_front()
        {
            let Some(entry) = self.jobs.get_mut(&uid) else { continue };
            let pool = self.pools.get(&entry.record.pool);
            // A pool that is still to come looks again when it does.
            let slots_max = pool.map_or(u32::MAX, |pool| pool.record.slots_per_node);
            let changed = self.store.refit(uid, slots_max, left)?;
            entry.was_refitted |= changed > 0;
            if changed == left {
                self.refitting.push_front(uid);
            } else {
                self.refitted(uid, now)?;
            }
            left -= changed;
        }
        Ok(())
    }

    /// All tasks of a job have been looked at.
    fn refitted(&mut self, uid: JobUid, now: Timestamp) -> Result<(), StoreError> {
        let Some(entry) = self.jobs.get_mut(&uid) else { return Ok(()) };
        let was_held = std::mem::take(&mut entry.is_refitting);
        if std::mem::take(&mut entry.was_refitted) || was_held {
            let ready = self.store.count_ready(uid)?;
            match self.pools.get_mut(&entry.record.pool) {
                Some(pool) => {
                    pool.core.recount_waiting(uid, ready);
                    pool.is_touched = true;
                }
                None => entry.parked = ready,
            }
        }
        if was_held { self.tell_job(uid, now) } else { Ok(()) }
    }
}
