//! Pauses before retries: the row rests, and the rules know only that some rows of a job do.
//!
//! ```text
//! requeued with a pause ──► resting row ──Wake, once it is due──► ready row, counted as waiting
//! ```

use contract::{backoff, ids::JobUid};
use model::task::RequeueCause;

use crate::{Attempt, Bug, Core, Effect};

impl Core {
    /// How long a requeued task rests: not at all the first time, then longer each time.
    pub(super) fn pause_ms(&self, attempt: &Attempt, cause: RequeueCause) -> u64 {
        let spent = match cause {
            RequeueCause::Retry => attempt.retries,
            RequeueCause::Recovery | RequeueCause::Requested | RequeueCause::Unprepared => return 0,
        };
        if self.has(Bug::RetriesAtOnce) { 0 } else { backoff::retry_pause_ms(attempt.key.uid.0, spent) }
    }

    /// Rows of a job may rest.
    pub(super) fn note_rest(&mut self, job: JobUid) {
        if let Some(facts) = self.jobs.get_mut(&job) {
            facts.rests = true;
        }
    }

    /// Asks for the rows whose pause is over.
    pub(super) fn wake(&mut self, effects: &mut Vec<Effect>) {
        for (uid, job) in &mut self.jobs {
            if std::mem::take(&mut job.rests) {
                effects.push(Effect::Wake { job: *uid });
            }
        }
    }

    /// Rows of a job are ready again; others may rest still.
    pub(super) fn on_woken(&mut self, job: JobUid, count: u64, more: bool) {
        self.wait(job, count);
        if more && !self.has(Bug::WakesOnce) {
            self.note_rest(job);
        }
    }
}
