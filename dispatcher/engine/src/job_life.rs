//! State changes of jobs without a request: the intermediate states, completion with the last task, time limits,
//! removal of deleted jobs.
//!
//! ```text
//! active ⇄ disabling ─quiet─► disabled ─► enabling ─tick─► active
//!    └──────────┴────────────────┴──► terminating ─quiet─► completed        any ─► deleting ─swept─► gone
//! ```

use contract::{
    clock::Moment,
    ids::{JobUid, TaskUid},
    state::JobState,
    time::Timestamp,
};
use model::job::Counts;
use scheduler::{Event, JobStop};
use store::{StoreError, errands::Errand};

use crate::{
    auto_pools,
    world::{JobEntry, World},
};

/// A job with `onAllTasksComplete` that has no tasks yet completes after this long, so that clients have time to add
/// some.
const EMPTY_MS: i64 = 10_000;
/// Rows of deleted jobs that one transaction removes at most, which bounds how long other inputs wait.
const SLICE_ROWS: usize = 500;

fn is_expired(job: &JobEntry, now: Moment) -> bool {
    let limit = job.record.max_wall_clock.and_then(|limit| limit.limit());
    limit.is_some_and(|limit| now.since(job.created_at) > limit.as_millis() as i64)
}

impl World {
    /// Changes a job's state and ends its released and running tasks accordingly.
    pub(super) fn stop_job(
        &mut self,
        uid: JobUid,
        state: JobState,
        reason: Option<String>,
        stop: JobStop,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let Some(entry) = self.jobs.get_mut(&uid) else { return Ok(()) };
        if !entry.record.state.may_become(state) {
            return Ok(());
        }
        entry.record.terminate_reason = reason.or(entry.record.terminate_reason.take());
        let pool = entry.record.pool.clone();
        self.enter(uid, state, now);
        self.step(&pool, Event::JobStopped { job: uid, stop }, now)?;
        if matches!(state, JobState::Terminating | JobState::Deleting) {
            self.release_job(uid, now)?;
        }
        Ok(())
    }

    /// Enters the next state. Entering the present state again only gives the job a new version.
    pub(super) fn enter(&mut self, uid: JobUid, state: JobState, now: Timestamp) {
        let version = self.next_version();
        let Some(entry) = self.jobs.get_mut(&uid) else { return };
        let record = &mut entry.record;
        if record.state != state {
            record.previous = Some((record.state, record.state_at));
            (record.state, record.state_at) = (state, now);
        }
        (record.version, record.modified_at) = (version, now);
        entry.is_dirty = true;
    }

    /// Completes a job with `onAllTasksComplete` when all its tasks have completed; one without tasks has [`EMPTY_MS`]
    /// to get some.
    pub(super) fn complete_if_done(&mut self, uid: JobUid, now: Timestamp) -> Result<(), StoreError> {
        let waits = |job: &JobEntry| job.record.tasks == Counts::default() && self.moment.since(job.loaded_at) <= EMPTY_MS;
        if self.jobs.get(&uid).is_none_or(waits) { Ok(()) } else { self.complete(uid, now) }
    }

    /// The same at once, for a client that has just requested it.
    pub(super) fn complete(&mut self, uid: JobUid, now: Timestamp) -> Result<(), StoreError> {
        let Some(entry) = self.jobs.get(&uid) else { return Ok(()) };
        let tasks = entry.record.tasks;
        if entry.record.state == JobState::Active && entry.record.terminate_when_complete && tasks.active + tasks.running == 0 {
            self.stop_job(uid, JobState::Terminating, Some("AllTasksComplete".to_owned()), JobStop::End, now)?;
        }
        Ok(())
    }

    /// Continues jobs that are terminating, being deleted or out of time.
    pub(super) fn tick_jobs(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let jobs: Vec<(JobUid, JobState)> = self.jobs.iter().map(|(uid, job)| (*uid, job.record.state)).collect();
        self.sweeping.clear();
        for (uid, state) in jobs {
            match state {
                JobState::Terminating => self.finish_job(uid, now)?,
                JobState::Deleting if self.is_released(uid) => self.sweeping.push_back(uid),
                JobState::Deleting | JobState::Completed => {}
                _ if self.jobs.get(&uid).is_some_and(|job| is_expired(job, self.moment)) => {
                    self.stop_job(uid, JobState::Terminating, Some("MaxWallClockTimeExpiry".to_owned()), JobStop::End, now)?;
                }
                JobState::Disabling if self.is_quiet(uid) => self.enter(uid, JobState::Disabled, now),
                JobState::Enabling => {
                    self.enter(uid, JobState::Active, now);
                    self.tell_job(uid, now)?;
                    self.complete_if_done(uid, now)?;
                }
                JobState::Active => self.complete_if_done(uid, now)?,
                JobState::Disabling | JobState::Disabled => {}
            }
        }
        Ok(())
    }

    /// Whether none of the job's tasks is released or running.
    fn is_quiet(&self, uid: JobUid) -> bool {
        let pool = self.jobs.get(&uid).and_then(|entry| self.pools.get(&entry.record.pool));
        pool.is_none_or(|pool| pool.core.is_quiet(uid))
    }

    /// Completes a terminating job that is quiet and has no release to wait for, and removes it from memory.
    fn finish_job(&mut self, uid: JobUid, now: Timestamp) -> Result<(), StoreError> {
        if !self.is_quiet(uid) || !self.is_released(uid) {
            return Ok(());
        }
        let own_pool = self.jobs.get(&uid).and_then(auto_pools::that_ends_with);
        self.enter(uid, JobState::Completed, now);
        let Some(entry) = self.jobs.get_mut(&uid) else { return Ok(()) };
        entry.record.ended_at = Some(now);
        self.store.put_job(&entry.record, None)?;
        self.forget_job(uid);
        self.tell_waiting_of(uid);
        self.end_pool(own_pool, now)
    }

    fn forget_job(&mut self, uid: JobUid) {
        self.forget_job_tasks(uid);
        if let Some(entry) = self.jobs.remove(&uid) {
            self.job_names.remove(&entry.record.id);
            if let Some(pool) = self.pools.get_mut(&entry.record.pool) {
                pool.core.forget_job(uid);
            }
        }
    }

    /// Whether rows of deleted jobs are left, so that the loop starts the next transaction without waiting for input.
    pub(super) fn has_slices_left(&self) -> bool {
        !self.sweeping.is_empty() || !self.refitting.is_empty() || self.awaiting.has_slices_left()
    }

    /// Removes the next rows of deleted jobs, one job after the other.
    pub(super) fn sweep(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let Some(uid) = self.sweeping.pop_front() else { return Ok(()) };
        if self.sweep_job(uid, now)? {
            self.sweeping.push_back(uid);
        }
        Ok(())
    }

    /// Removes some rows of a deleted job and returns whether more may be left. The job's own row goes with the last of
    /// them.
    fn sweep_job(&mut self, uid: JobUid, now: Timestamp) -> Result<bool, StoreError> {
        if !self.is_released(uid) {
            return Ok(false);
        }
        if self.tell_job_end(uid)? {
            return Ok(true);
        }
        let (gone, blobs) = self.store.delete_rows(uid, SLICE_ROWS)?;
        self.discard(&blobs)?;
        let has_more = gone == SLICE_ROWS;
        if !has_more {
            self.store.delete_job(uid)?;
            if let Some(entry) = self.jobs.get(&uid) {
                let (pool, job) = (entry.record.pool.clone(), entry.record.id.clone());
                let last = Some(TaskUid(self.next_task.saturating_sub(1)));
                self.run_errand(&Errand::Forget { pool, job, task: None, last, job_uid: Some(uid) })?;
            }
            let own_pool = self.jobs.get(&uid).and_then(auto_pools::that_ends_with);
            self.forget_job(uid);
            self.end_pool(own_pool, now)?;
            self.used.remove(&uid);
        }
        Ok(has_more)
    }
}
