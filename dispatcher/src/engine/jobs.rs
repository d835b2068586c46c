//! Changes of jobs that people ask for, and those that follow from their tasks.

use broker_config::{
    ids::{JobId, JobUid},
    message::ControlKind,
    state::{JobState, PoolState},
    time::Timestamp,
    topology,
};

use crate::{
    command::{Condition, Done, JobChange, NewJob},
    core::{Event, JobStop},
    engine::{
        pools::or_refuse,
        world::{JobEntry, World},
    },
    refusal::{Code, Refusal},
    store::{StoreError, records::JobRecord, rows::Counts},
};

type Outcome = Result<Result<Done, Refusal>, StoreError>;

/// Rows of a deleted job that go in one transaction at most.
const DELETE_ROWS_MAX: usize = 2_000;

fn missing(job: &JobId) -> Refusal {
    Refusal::new(Code::JobNotFound, "The specified job does not exist.").with("JobId", job)
}

/// Why a job in this state cannot be changed, if it cannot.
pub(super) fn closed(state: JobState) -> Option<Refusal> {
    let refusal = |code, message: &str| Some(Refusal::new(code, message).with("JobState", state));
    match state {
        JobState::Terminating => refusal(Code::JobBeingTerminated, "The specified job is being terminated."),
        JobState::Completed => refusal(Code::JobCompleted, "The specified job is completed."),
        JobState::Deleting => refusal(Code::JobBeingDeleted, "The specified job is being deleted."),
        _ => None,
    }
}

impl World {
    pub(super) fn create_job(&mut self, job: NewJob, now: Timestamp) -> Outcome {
        let exists = || Refusal::new(Code::JobExists, "The specified job already exists.").with("JobId", &job.id);
        if self.alive(&job.id).is_some() || self.store.find_job(&job.id)?.is_some() {
            return Ok(Err(exists()));
        }
        match self.pools.get(&job.pool) {
            None => {
                return Ok(Err(Refusal::new(Code::PoolNotFound, "The specified pool does not exist.")
                    .with("PoolId", &job.pool)
                    .hint("Add the pool first.")));
            }
            Some(pool) if pool.record.state == PoolState::Deleting => {
                return Ok(Err(Refusal::new(Code::PoolBeingDeleted, "The specified pool is being deleted.").with("PoolId", &job.pool)));
            }
            Some(_) => {}
        }
        let uid = JobUid(self.next_job);
        self.next_job += 1;
        let record = JobRecord {
            uid,
            id: job.id,
            version: self.next_version(),
            state: JobState::Active,
            state_at: now,
            previous: None,
            pool: job.pool,
            priority: job.priority,
            max_parallel: job.max_parallel,
            environment: job.environment,
            max_task_retry_count: job.max_task_retry_count,
            max_wall_clock: job.max_wall_clock,
            terminate_when_complete: job.terminate_when_complete,
            performs_exit_options: job.performs_exit_options,
            uses_dependencies: job.uses_dependencies,
            created_at: now,
            modified_at: now,
            ended_at: None,
            terminate_reason: None,
            tasks: Counts::default(),
            slots: Counts::default(),
        };
        self.store.put_job(&record, Some(&job.document))?;
        let done = Done::Changed { version: record.version, at: now };
        self.job_names.insert(record.id.clone(), uid);
        self.jobs.insert(uid, JobEntry { record, is_dirty: false, parked: 0 });
        self.attach(uid, now);
        Ok(Ok(done))
    }

    /// A job that is alive, or why it is not.
    pub(super) fn open_job(&mut self, job: &JobId, condition: &Condition) -> Result<Result<JobUid, Refusal>, StoreError> {
        let (uid, state, version, modified_at) = match self.alive(job).and_then(|uid| self.jobs.get(&uid)) {
            Some(entry) => (entry.record.uid, entry.record.state, entry.record.version, entry.record.modified_at),
            None => match self.store.find_job(job)? {
                Some(record) => (record.uid, record.state, record.version, record.modified_at),
                None => return Ok(Err(missing(job))),
            },
        };
        or_refuse!(condition.check(version, modified_at));
        Ok(match closed(state) {
            Some(refusal) => Err(refusal.with("JobId", job)),
            None => Ok(uid),
        })
    }

    pub(super) fn terminate_job(&mut self, job: &JobId, reason: Option<String>, condition: &Condition, now: Timestamp) -> Outcome {
        let uid = or_refuse!(self.open_job(job, condition)?);
        self.stop_job(uid, JobState::Terminating, Some(reason.unwrap_or_else(|| "UserTerminate".to_owned())), JobStop::End, now)?;
        Ok(Ok(self.job_done(uid, now)))
    }

    pub(super) fn remove_job(&mut self, job: &JobId, condition: &Condition, now: Timestamp) -> Outcome {
        let uid = match self.alive(job) {
            Some(uid) => uid,
            None => {
                // A completed job comes back to memory to be deleted piece by piece.
                let Some(record) = self.store.find_job(job)? else { return Ok(Err(missing(job))) };
                or_refuse!(condition.check(record.version, record.modified_at));
                let uid = record.uid;
                self.job_names.insert(record.id.clone(), uid);
                self.jobs.insert(uid, JobEntry { record, is_dirty: false, parked: 0 });
                uid
            }
        };
        if let Some(entry) = self.jobs.get(&uid) {
            or_refuse!(condition.check(entry.record.version, entry.record.modified_at));
            if entry.record.state == JobState::Deleting {
                return Ok(Err(Refusal::new(Code::JobBeingDeleted, "The specified job is being deleted.").with("JobId", job)));
            }
        }
        self.stop_job(uid, JobState::Deleting, None, JobStop::Delete, now)?;
        Ok(Ok(self.job_done(uid, now)))
    }

    pub(super) fn update_job(&mut self, job: &JobId, change: JobChange, condition: &Condition, now: Timestamp) -> Outcome {
        let uid = or_refuse!(self.open_job(job, condition)?);
        let version = self.next_version();
        if let Some(entry) = self.jobs.get_mut(&uid) {
            let record = &mut entry.record;
            record.priority = change.priority.unwrap_or(record.priority);
            record.max_parallel = change.max_parallel.unwrap_or(record.max_parallel);
            record.terminate_when_complete = change.terminate_when_complete.unwrap_or(record.terminate_when_complete);
            record.max_task_retry_count = change.max_task_retry_count.unwrap_or(record.max_task_retry_count);
            record.max_wall_clock = change.max_wall_clock.unwrap_or(record.max_wall_clock);
            (record.version, record.modified_at) = (version, now);
            self.store.put_job(&entry.record, change.document.as_deref())?;
        }
        self.tell_job(uid, now)?;
        self.complete_if_done(uid, now)?;
        Ok(Ok(Done::Changed { version, at: now }))
    }

    fn job_done(&self, uid: JobUid, now: Timestamp) -> Done {
        Done::Changed { version: self.jobs.get(&uid).map_or(self.version, |job| job.record.version), at: now }
    }

    /// Changes a job's state and deals with what runs.
    pub(super) fn stop_job(
        &mut self,
        uid: JobUid,
        state: JobState,
        reason: Option<String>,
        stop: JobStop,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let version = self.next_version();
        let Some(entry) = self.jobs.get_mut(&uid) else { return Ok(()) };
        if entry.record.state == state || !entry.record.state.may_become(state) && state != JobState::Disabled {
            return Ok(());
        }
        entry.record.previous = Some((entry.record.state, entry.record.state_at));
        (entry.record.state, entry.record.state_at) = (state, now);
        (entry.record.version, entry.record.modified_at) = (version, now);
        entry.record.terminate_reason = reason.or(entry.record.terminate_reason.take());
        entry.is_dirty = true;
        let pool = entry.record.pool.clone();
        self.step(&pool, Event::JobStopped { job: uid, stop }, now)
    }

    /// A job that ends with its last task ends.
    pub(super) fn complete_if_done(&mut self, uid: JobUid, now: Timestamp) -> Result<(), StoreError> {
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
                JobState::Deleting if rows > 0 => rows -= self.sweep_job(uid, rows)?,
                JobState::Deleting | JobState::Completed => {}
                _ => {
                    let expired = |job: &JobEntry| {
                        job.record
                            .max_wall_clock
                            .and_then(|limit| limit.limit())
                            .is_some_and(|limit| now.since(job.record.created_at) > limit.as_millis() as i64)
                    };
                    if self.jobs.get(&uid).is_some_and(expired) {
                        self.stop_job(uid, JobState::Terminating, Some("MaxWallClockTimeExpiry".to_owned()), JobStop::End, now)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A terminating job of which nothing is live is completed; it leaves memory.
    fn finish_job(&mut self, uid: JobUid, now: Timestamp) -> Result<(), StoreError> {
        let version = self.next_version();
        let Some(entry) = self.jobs.get_mut(&uid) else { return Ok(()) };
        let pool = entry.record.pool.clone();
        if self.pools.get(&pool).is_some_and(|pool| !pool.core.is_quiet(uid)) {
            return Ok(());
        }
        let record = &mut entry.record;
        record.previous = Some((record.state, record.state_at));
        (record.state, record.state_at, record.ended_at) = (JobState::Completed, now, Some(now));
        (record.version, record.modified_at) = (version, now);
        self.store.put_job(&entry.record, None)?;
        self.forget_job(uid);
        Ok(())
    }

    fn forget_job(&mut self, uid: JobUid) {
        if let Some(entry) = self.jobs.remove(&uid) {
            self.job_names.remove(&entry.record.id);
            if let Some(pool) = self.pools.get_mut(&entry.record.pool) {
                pool.core.forget_job(uid);
            }
        }
    }

    /// Removes some rows of a job that is being deleted; the job goes with the last of them.
    fn sweep_job(&mut self, uid: JobUid, rows_max: usize) -> Result<usize, StoreError> {
        let gone = self.store.delete_tasks(uid, rows_max)?;
        if gone < rows_max {
            self.store.delete_job(uid)?;
            if let Some(entry) = self.jobs.get(&uid) {
                let (pool, job) = (entry.record.pool.clone(), entry.record.id.clone());
                self.control(topology::pool_control_key(&pool), ControlKind::Forget { job, task: None });
            }
            self.forget_job(uid);
        }
        Ok(gone)
    }
}
