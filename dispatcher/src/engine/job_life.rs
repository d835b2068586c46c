//! What becomes of jobs by themselves: the states between, the end with the last task, time limits, sweeping.
//!
//! ```text
//! active ⇄ disabling ─quiet─► disabled ─► enabling ─tick─► active
//!    └──────────┴────────────────┴──► terminating ─quiet─► completed        any ─► deleting ─swept─► gone
//! ```

use broker_config::{ids::JobUid, message::ControlKind, state::JobState, time::Timestamp, topology};

use crate::{
    core::{Event, JobStop},
    engine::{
        auto_pools,
        world::{JobEntry, World},
    },
    store::{StoreError, rows::Counts},
};

/// How long a job that ends with its last task waits for its first one: clients add tasks by requests of their own.
const EMPTY_MS: i64 = 10_000;
/// Rows of a deleted job that go in one transaction at most.
const DELETE_ROWS_MAX: usize = 2_000;

fn is_expired(job: &JobEntry, now: Timestamp) -> bool {
    let limit = job.record.max_wall_clock.and_then(|limit| limit.limit());
    limit.is_some_and(|limit| now.since(job.record.created_at) > limit.as_millis() as i64)
}

impl World {
    /// Changes a job's state and deals with what runs.
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

    /// A job is in its next state; in the same one again it only has a new version.
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

    /// A job that ends with its last task ends; one without tasks has some time to get them.
    pub(super) fn complete_if_done(&mut self, uid: JobUid, now: Timestamp) -> Result<(), StoreError> {
        let waits =
            |job: &JobEntry| job.record.tasks == Counts::default() && now.since(job.record.created_at.max(self.loaded_at)) <= EMPTY_MS;
        if self.jobs.get(&uid).is_none_or(waits) { Ok(()) } else { self.complete(uid, now) }
    }

    /// The same without any delay, for who asks for the end.
    pub(super) fn complete(&mut self, uid: JobUid, now: Timestamp) -> Result<(), StoreError> {
        let Some(entry) = self.jobs.get(&uid) else { return Ok(()) };
        let tasks = entry.record.tasks;
        if entry.record.state == JobState::Active && entry.record.terminate_when_complete && tasks.active + tasks.running == 0 {
            self.stop_job(uid, JobState::Terminating, Some("AllTasksComplete".to_owned()), JobStop::End, now)?;
        }
        Ok(())
    }

    /// Moves jobs on that are terminating, deleting or out of time.
    pub(super) fn tick_jobs(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let jobs: Vec<(JobUid, JobState)> = self.jobs.iter().map(|(uid, job)| (*uid, job.record.state)).collect();
        let mut rows = DELETE_ROWS_MAX;
        for (uid, state) in jobs {
            match state {
                JobState::Terminating => self.finish_job(uid, now)?,
                JobState::Deleting if rows > 0 => rows -= self.sweep_job(uid, rows, now)?,
                JobState::Deleting | JobState::Completed => {}
                _ if self.jobs.get(&uid).is_some_and(|job| is_expired(job, now)) => {
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

    /// Whether nothing of a job is released or runs.
    fn is_quiet(&self, uid: JobUid) -> bool {
        let pool = self.jobs.get(&uid).and_then(|entry| self.pools.get(&entry.record.pool));
        pool.is_none_or(|pool| pool.core.is_quiet(uid))
    }

    /// A terminating job of which nothing is live and no release is awaited is completed; it leaves memory.
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
        self.end_pool(own_pool, now)
    }

    fn forget_job(&mut self, uid: JobUid) {
        self.forget_chores(uid);
        if let Some(entry) = self.jobs.remove(&uid) {
            self.job_names.remove(&entry.record.id);
            if let Some(pool) = self.pools.get_mut(&entry.record.pool) {
                pool.core.forget_job(uid);
            }
        }
    }

    /// Removes some rows of a job that is being deleted; the job goes with the last of them.
    fn sweep_job(&mut self, uid: JobUid, rows_max: usize, now: Timestamp) -> Result<usize, StoreError> {
        if !self.is_released(uid) {
            return Ok(0);
        }
        let gone = self.store.delete_tasks(uid, rows_max)?;
        if gone < rows_max {
            self.store.delete_job(uid)?;
            if let Some(entry) = self.jobs.get(&uid) {
                let (pool, job) = (entry.record.pool.clone(), entry.record.id.clone());
                self.control(topology::pool_control_key(&pool), ControlKind::Forget { job, task: None });
            }
            let own_pool = self.jobs.get(&uid).and_then(auto_pools::that_ends_with);
            self.forget_job(uid);
            self.end_pool(own_pool, now)?;
            self.used.remove(&uid);
        }
        Ok(gone)
    }
}
