//! Checks again whether tasks of several slots fit, after the slots per node of their pool changed or their job moved
//! to another pool.
//!
//! ```text
//! pool or job changes ─► a slice at once ─► done
//!                           └─more─► the job begins nothing ─► a slice with each transaction ─► it goes on
//! ```
//! After a restart, jobs that were not finished are recognised by their rows.

use contract::{
    ids::{JobUid, PoolId},
    time::Timestamp,
};
use store::StoreError;

use crate::world::World;

/// Rows that one transaction changes at most, which bounds how long other inputs wait.
const SLICE_ROWS: usize = 500;

impl World {
    /// The jobs of a pool that are in memory.
    pub(super) fn jobs_of(&self, pool: &PoolId) -> Vec<JobUid> {
        self.jobs.iter().filter(|(_, job)| job.record.pool == *pool).map(|(uid, _)| *uid).collect()
    }

    /// Checks the tasks of these jobs. A job that needs more than one slice starts nothing until all are checked.
    pub(super) fn refit_jobs(&mut self, jobs: Vec<JobUid>, now: Timestamp) -> Result<(), StoreError> {
        self.refitting.retain(|job| !jobs.contains(job));
        self.refitting.extend(jobs);
        self.refit(now)?;
        for uid in self.refitting.clone() {
            if let Some(entry) = self.jobs.get_mut(&uid)
                && !entry.is_refitting
            {
                entry.is_refitting = true;
                // The autoscaler must not create nodes for tasks that may not fit.
                if let Some(pool) = self.pools.get_mut(&entry.record.pool) {
                    pool.core.recount_waiting(uid, 0);
                }
                self.tell_job(uid, now)?;
            }
        }
        Ok(())
    }

    /// Checks the next slice of rows.
    pub(super) fn refit(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let mut left = SLICE_ROWS;
        while left > 0
            && let Some(uid) = self.refitting.pop_front()
        {
            let Some(entry) = self.jobs.get_mut(&uid) else { continue };
            let pool = self.pools.get(&entry.record.pool);
            // While the pool does not exist, everything fits; its creation checks again.
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

    /// All tasks of a job have been checked.
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
