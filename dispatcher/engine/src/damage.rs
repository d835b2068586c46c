//! Rows that cannot be read. Such a task ends as failed and shows why; other rows are left out and listed in the
//! health. Nothing else is affected.

use contract::{
    clock::Now,
    ids::{JobId, JobUid, PoolId, TaskUid},
    outcome::{Fault, Stream},
    time::Timestamp,
};
use model::{condition::Condition, health::Unreadable, task::Failure};
use scheduler::{Effect, EndCause, Event};
use store::{
    StoreError,
    records::{Candidate, Ending, JobRecord, Streams},
};
use tracing::error;

use crate::{command_error::CommandError, refusals::illegible, world::World};

/// Unreadable rows that the health lists at most.
const NAMED_MAX: usize = 100;

impl World {
    /// Adds an unreadable row to those that the health lists.
    pub(super) fn name_unreadable(&mut self, what: Unreadable) {
        if self.named.len() < NAMED_MAX && !self.named.contains(&what) {
            self.named.push(what);
        }
    }

    /// Unwraps the result of reading a task. A task whose row cannot be read is ended at the end of the transaction.
    pub(super) fn legible<T>(&mut self, uid: TaskUid, read: Result<Option<T>, StoreError>) -> Result<Option<T>, StoreError> {
        match read {
            Err(StoreError::Corrupt { table, column }) => {
                self.unreadable.push((uid, Unreadable { table, row: uid.0.to_string(), column }));
                Ok(None)
            }
            other => other,
        }
    }

    /// A job that is no longer in memory; `None` when it does not exist or cannot be read.
    pub(super) fn stored_job(&mut self, job: &JobId) -> Result<Option<JobRecord>, CommandError> {
        match self.store.find_job(job) {
            Err(StoreError::Corrupt { table, column }) => {
                self.name_unreadable(Unreadable { table, row: job.to_string(), column });
                Err(illegible("job").with("JobId", job).into())
            }
            other => Ok(other?),
        }
    }

    /// A job that is no longer in memory, meets the condition and is about to be deleted. A row that cannot be read is
    /// overwritten so that it can be, which gives it a new version.
    pub(super) fn job_to_remove(&mut self, job: &JobId, condition: &Condition, now: Timestamp) -> Result<Option<JobRecord>, CommandError> {
        match self.store.find_job(job) {
            Err(StoreError::Corrupt { table, column }) => {
                condition.check(self.version + 1, now)?;
                error!(%job, table, column, "a job's row cannot be read; the job is deleted with its tasks");
                self.name_unreadable(Unreadable { table, row: job.to_string(), column });
                let version = self.next_version();
                Ok(self.store.salvage_job(job, now, version)?)
            }
            Ok(Some(record)) => {
                condition.check(record.version, record.modified_at)?;
                Ok(Some(record))
            }
            other => Ok(other?),
        }
    }

    /// The next rows of a job that can run. Unreadable ones are ended and replaced by later rows. Returns `None` when
    /// ending them stopped the job.
    pub(super) fn fetch(&mut self, pool: &PoolId, job: JobUid, count: usize, now: Timestamp) -> Result<Option<Vec<Candidate>>, StoreError> {
        loop {
            let (mut unreadable, mut candidates) = (Vec::new(), Vec::new());
            match self.store.next_ready(job, count) {
                Ok(found) => candidates = found,
                Err(error @ StoreError::Corrupt { .. }) => {
                    unreadable = self.store.unreadable_ready(job, count)?;
                    if unreadable.is_empty() {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
            for candidate in &candidates {
                match self.spec(candidate) {
                    Ok(spec) => drop(self.fresh.insert(candidate.uid, (candidate.id.clone(), spec))),
                    Err(StoreError::Corrupt { table, column }) => {
                        unreadable.push((candidate.uid, Unreadable { table, row: candidate.uid.0.to_string(), column }));
                    }
                    Err(error) => return Err(error),
                }
            }
            if unreadable.is_empty() {
                return Ok(Some(candidates));
            }
            // Each round takes rows out of those that are ready, so the loop ends.
            for (uid, what) in unreadable {
                self.bury(uid, what, now)?;
            }
            let runs = |job: &scheduler::Job| job.runs;
            if !self.pools.get(pool).and_then(|entry| entry.core.jobs().get(&job)).is_some_and(runs) {
                return Ok(None);
            }
        }
    }

    /// Ends the tasks whose rows were found unreadable in this transaction or when the store was loaded.
    pub(super) fn bury_all(&mut self, now: Timestamp) -> Result<(), StoreError> {
        while let Some((uid, what)) = self.unreadable.pop() {
            self.bury(uid, what, now)?;
        }
        Ok(())
    }

    /// Ends a task whose row cannot be read, and overwrites the row so that it can be.
    fn bury(&mut self, uid: TaskUid, what: Unreadable, now: Timestamp) -> Result<(), StoreError> {
        let Unreadable { table, column, .. } = what;
        error!(uid = uid.0, table, column, "a task's row cannot be read; the task ends as failed");
        self.name_unreadable(what);
        self.fresh.remove(&uid);
        let (mut was_live, mut known_job) = (false, None);
        if let Some(entry) = self.pools.values_mut().find(|entry| entry.core.live().contains_key(&uid)) {
            let (pool, mut effects) = (entry.record.id.clone(), Vec::new());
            known_job = entry.core.live().get(&uid).map(|attempt| attempt.job);
            entry.core.step(Event::Cancel { uid, delete: false }, Now { time: now, moment: self.moment }, &mut effects);
            entry.is_touched = true;
            // The row is ended below, by a statement that reads nothing from it.
            effects.retain(|effect| !matches!(effect, Effect::End { .. }));
            self.apply(&pool, effects, now)?;
            was_live = true;
        }
        let fault = Fault {
            code: "TaskUnreadable".to_owned(),
            message: "The task is stored in a form that cannot be read, and cannot run.".to_owned(),
            details: vec![("Table".to_owned(), table.to_owned()), ("Column".to_owned(), column.to_owned())],
        };
        let ending = Ending {
            fence: contract::ids::Fence(self.first_fence),
            has_succeeded: false,
            exit_code: None,
            failure: Some(Failure { is_user_error: false, fault }),
            streams: Streams::Told,
            stdout: Stream::Empty,
            stderr: Stream::Empty,
            started_at: None,
            node: None,
            at: now,
        };
        let version = self.next_version();
        let Some(was) = self.store.bury(uid, known_job, &ending, version)? else { return Ok(()) };
        let Some(job) = was.job else {
            error!(
                uid = uid.0,
                "the row of a task names no readable job: the task is left out, but its job's counters still include it; delete that job"
            );
            return Ok(());
        };
        if was.was_completed {
            return Ok(());
        }
        if was.was_ready && !was_live {
            self.withdraw(job, now)?;
        }
        self.ended(job, uid, was.was_running, &EndCause::Unreadable, false, now)
    }
}
