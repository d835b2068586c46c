//! Pauses before retries. The row pauses in the store; the scheduler knows only whether a job has such rows.
//!
//! ```text
//! requeued with a pause ──► pausing row ──Wake, once it is due──► ready row, counted as waiting
//! ```

use contract::{backoff, ids::JobUid};
use model::task::RequeueCause;

use crate::{Attempt, Bug, Core, Effect};

impl Core {
    /// The pause of a requeued task: none the first time, then longer each time.
    pub(super) fn pause_ms(&self, attempt: &Attempt, cause: RequeueCause) -> u64 {
        let spent = match cause {
            RequeueCause::Retry => attempt.retries,
            RequeueCause::Recovery | RequeueCause::Requested | RequeueCause::Unprepared => return 0,
        };
        if self.has(Bug::RetriesAtOnce) { 0 } else { backoff::retry_pause_ms(attempt.key.uid.0, spent) }
    }

    /// Notes that rows of a job may be pausing.
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

    /// Counts rows that are ready again; `more` says whether others still pause.
    pub(super) fn on_woken(&mut self, job: JobUid, count: u64, more: bool) {
        self.wait(job, count);
        if more && !self.has(Bug::WakesOnce) {
            self.note_rest(job);
        }
    }
}
