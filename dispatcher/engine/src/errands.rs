//! Work outside the store that a change requires, such as deleting queues or blobs. It is stored as a row together with
//! the change, run after the commit, and the row is deleted when it is done.
//!
//! ```text
//! change ─► row ─commit─► run ─done─► row deleted
//!                          ▲ └─failed─► waits ─┐
//!                          └───────tick────────┘
//! ```

use store::{
    StoreError,
    errands::{Errand, Place},
};

use crate::{errands_in_hand::Hand, messages::Output, world::World};

/// Errands of one kind of place in memory at most; further ones stay in the store.
const IN_HAND_MAX: usize = 128;
/// Blob keys in one errand at most.
const KEYS_MAX: usize = 100;
/// The first pause after an errand failed; doubled with each try.
const PAUSE_MS: i64 = 1_000;
/// The longest pause.
const PAUSE_MAX_MS: i64 = 60_000;

impl World {
    /// Stores an errand and runs it after the commit.
    pub(super) fn run_errand(&mut self, errand: &Errand) -> Result<(), StoreError> {
        self.store.put_errand(self.errands.next, errand)?;
        self.errands.next += 1;
        self.errands.lane(errand.place()).has_more = true;
        Ok(())
    }

    /// Deletes blobs that no row refers to any more.
    pub(super) fn discard(&mut self, keys: &[String]) -> Result<(), StoreError> {
        for keys in keys.chunks(KEYS_MAX) {
            self.run_errand(&Errand::Discard { keys: keys.to_vec() })?;
        }
        Ok(())
    }

    /// Adds errands to the outputs of this transaction, as many as may run at once.
    pub(super) fn send_errands(&mut self) -> Result<(), StoreError> {
        let mut out = Vec::new();
        for lane in &mut self.errands.lanes {
            while lane.has_more && lane.in_hand.len() < IN_HAND_MAX {
                let room = IN_HAND_MAX - lane.in_hand.len();
                let (found, reached) = self.store.errands(lane.place, lane.reached, room)?;
                lane.has_more = reached > lane.reached;
                lane.reached = reached;
                for (id, errand) in found {
                    out.push((id, errand.clone()));
                    lane.in_hand.insert(id, Hand { errand, tries: 0, retry_at: None });
                }
            }
        }
        self.hand_over(out)
    }

    /// Runs failed errands again whose pause is over.
    pub(super) fn tick_errands(&mut self) -> Result<(), StoreError> {
        let mut due = Vec::new();
        for lane in &mut self.errands.lanes {
            for (id, hand) in &mut lane.in_hand {
                if hand.retry_at.is_some_and(|at| at <= self.moment) {
                    hand.retry_at = None;
                    due.push((*id, hand.errand.clone()));
                }
            }
        }
        self.hand_over(due)
    }

    /// Hands errands to messaging, except those for a pool, job or task that exists again under the same name.
    fn hand_over(&mut self, errands: Vec<(u64, Errand)>) -> Result<(), StoreError> {
        let mut out = Vec::with_capacity(errands.len());
        for (id, errand) in errands {
            if self.is_back(&errand)? {
                self.errand_ended(errand.place(), id)?;
            } else {
                out.push((id, errand));
            }
        }
        if !out.is_empty() {
            self.outputs.push(Output::Errands(out));
        }
        Ok(())
    }

    /// Whether the name that an errand would clean up is in use again. Present agents recognise an old task by its
    /// number; agents of earlier builds know only the name.
    fn is_back(&mut self, errand: &Errand) -> Result<bool, StoreError> {
        let (job, task, last, job_uid) = match errand {
            Errand::Undeclare { pool } => return Ok(self.pools.contains_key(pool)),
            Errand::Discard { .. } | Errand::Tell(_) | Errand::Start(_) | Errand::DeleteQueue { .. } => return Ok(false),
            Errand::Forget { job, task, last, job_uid, .. } => (job, task, *last, *job_uid),
        };
        let uid = match self.alive(job) {
            Some(uid) => uid,
            None => match self.refusable(|world| world.stored_job(job))? {
                Ok(Some(record)) => record.uid,
                Ok(None) => return Ok(false),
                // The resource exists, although its row cannot be read.
                Err(_) => return Ok(true),
            },
        };
        let Some(task) = task else { return Ok(job_uid != Some(uid)) };
        Ok(self.store.number_of(uid, task)?.is_some_and(|number| last.is_none_or(|last| number > last)))
    }

    fn errand_ended(&mut self, place: Place, id: u64) -> Result<(), StoreError> {
        self.errands.lane(place).in_hand.remove(&id);
        self.store.end_errand(place, id)
    }

    /// Handles the results of errands.
    pub(super) fn on_errands(&mut self, results: Vec<(Place, u64, bool)>) -> Result<(), StoreError> {
        for (place, id, is_done) in results {
            if is_done {
                self.errand_ended(place, id)?;
            } else {
                self.errand_failed(place, id);
            }
        }
        Ok(())
    }

    /// Schedules a failed errand again, also one for which the publisher queue had no room.
    pub(super) fn errand_failed(&mut self, place: Place, id: u64) {
        let now = self.moment;
        if let Some(hand) = self.errands.lane(place).in_hand.get_mut(&id) {
            let pause = PAUSE_MAX_MS.min(PAUSE_MS << hand.tries.min(16));
            hand.tries += 1;
            hand.retry_at = Some(now.plus_ms(pause));
        }
    }

    /// Deletes what is left of a former pool's queues before a new pool of that name declares its own.
    pub(super) fn undeclare_first(&mut self, pool: &contract::ids::PoolId) {
        let lane = self.errands.lane(Place::Broker);
        let is_it = |hand: &Hand| matches!(&hand.errand, Errand::Undeclare { pool: gone } if gone == pool);
        let found: Vec<(u64, Errand)> =
            lane.in_hand.iter().filter(|(_, hand)| is_it(hand)).map(|(id, hand)| (*id, hand.errand.clone())).collect();
        if !found.is_empty() {
            self.outputs.push(Output::Errands(found));
        }
    }
}
