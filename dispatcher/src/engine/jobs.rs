//! Changes of jobs that people ask for: add, disable, enable, change, end, remove.

use broker_config::{
    ids::{JobId, JobUid, PoolId, ScheduleId, TaskUid},
    state::{JobState, PoolState},
    time::Timestamp,
};

use crate::{
    command::{Condition, DisableOption, Done, JobChange, NewJob, NewManager},
    core::JobStop,
    engine::{
        auto_pools,
        pools::{POOL_GOES, or_refuse},
        world::{JobEntry, World},
    },
    refusal::{Code, Refusal},
    store::{StoreError, records::JobRecord, rows::Counts},
};

type Outcome = Result<Result<Done, Refusal>, StoreError>;

const JOB_GOES: &str = "The specified job has been marked for deletion and is being garbage collected.";

fn missing(job: &JobId) -> Refusal {
    Refusal::new(Code::JobNotFound, "The specified job does not exist.").with("JobId", job)
}

/// Why a job in this state cannot be changed, if it cannot.
pub(super) fn closed(state: JobState) -> Option<Refusal> {
    let refusal = |code, message: &str| Some(Refusal::new(code, message).with("JobState", state));
    match state {
        JobState::Terminating => refusal(Code::JobBeingTerminated, "The specified job is being terminated."),
        JobState::Completed => refusal(Code::JobCompleted, "The specified job is already in a completed state."),
        JobState::Deleting => refusal(Code::JobBeingDeleted, JOB_GOES),
        _ => None,
    }
}

pub(super) fn invalid(state: JobState, message: &str) -> Refusal {
    Refusal::new(Code::OperationInvalidForCurrentState, message).with("JobState", state)
}

impl World {
    pub(super) fn create_job(&mut self, job: NewJob, now: Timestamp) -> Outcome {
        let exists = || Refusal::new(Code::JobExists, "The specified job already exists.").with("JobId", &job.id);
        if self.alive(&job.id).is_some() || self.store.find_job(&job.id)?.is_some() {
            return Ok(Err(exists()));
        }
        if let Ok(schedule) = job.id.as_str().parse::<ScheduleId>()
            && self.schedules.contains_key(&schedule)
        {
            let refusal = Refusal::new(
                Code::JobScheduleWithSameIdExists,
                "A job schedule with the same id exists; a job and a schedule may not share one.",
            );
            return Ok(Err(refusal.with("JobScheduleId", &schedule)));
        }
        if let Some(manager) = &job.manager {
            or_refuse!(self.check_packages(&manager.task.spec.application_package_references));
        }
        let placed = or_refuse!(self.place_job(&job.id, &job.pool, now)?);
        let manager_slots = match (job.takes_a_node(), placed.slots_per_node) {
            (false, _) => None,
            (true, Some(slots)) => Some(slots),
            (true, None) => return Ok(Err(auto_pools::whole_node_nowhere(&placed.pool))),
        };
        let uid = JobUid(self.next_job);
        self.next_job += 1;
        let record = JobRecord {
            uid,
            id: job.id,
            version: self.next_version(),
            state: JobState::Active,
            state_at: now,
            previous: None,
            pool: placed.pool,
            auto_pool: placed.tie,
            scheduling_error: placed.fault,
            priority: job.priority,
            max_parallel: job.max_parallel,
            environment: job.environment,
            max_task_retry_count: job.max_task_retry_count,
            max_wall_clock: job.max_wall_clock,
            terminate_when_complete: job.terminate_when_complete,
            performs_exit_options: job.performs_exit_options,
            uses_dependencies: job.uses_dependencies,
            ends_with: job.manager.as_ref().filter(|manager| manager.ends_job).map(|_| TaskUid(self.next_task)),
            created_at: now,
            modified_at: now,
            ended_at: None,
            terminate_reason: None,
            tasks: Counts::default(),
            slots: Counts::default(),
        };
        self.store.put_job(&record, Some(&job.document))?;
        if let Some(chores) = job.chores {
            self.store.put_chores(uid, &chores)?;
            self.chores.insert(uid, *chores);
        }
        let is_lost = record.scheduling_error.is_some();
        self.job_names.insert(record.id.clone(), uid);
        self.jobs.insert(uid, JobEntry { record, is_dirty: false, parked: 0 });
        self.attach(uid, now);
        if let Some(manager) = job.manager {
            let NewManager { mut task, .. } = *manager;
            task.spec.required_slots = manager_slots.or(task.spec.required_slots);
            self.insert_tasks(uid, vec![task], now)?;
        }
        if is_lost {
            self.stop_job(uid, JobState::Terminating, None, JobStop::End, now)?;
        }
        Ok(Ok(self.job_done(uid, now)))
    }

    /// Slots of the nodes of a pool that jobs may be put on; a pool that is still to come has none yet.
    pub(super) fn slots_of_usable_pool(&self, pool: &PoolId) -> Result<Option<u32>, Refusal> {
        match self.pools.get(pool) {
            None => Ok(None),
            Some(entry) if entry.record.state == PoolState::Deleting => {
                Err(Refusal::new(Code::PoolBeingDeleted, POOL_GOES).with("PoolId", pool))
            }
            Some(entry) => Ok(Some(entry.record.slots_per_node)),
        }
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

    pub(super) fn disable_job(&mut self, job: &JobId, option: DisableOption, condition: &Condition, now: Timestamp) -> Outcome {
        let uid = or_refuse!(self.open_job(job, condition)?);
        if let Some(state) = self.state_of(uid).filter(|state| !state.may_become(JobState::Disabling)) {
            return Ok(Err(invalid(state, "The job cannot be disabled in its present state.").with("JobId", job)));
        }
        let stop = match option {
            DisableOption::Requeue => JobStop::Requeue,
            DisableOption::Terminate => JobStop::End,
            DisableOption::Wait => JobStop::Wait,
        };
        self.stop_job(uid, JobState::Disabling, None, stop, now)?;
        Ok(Ok(self.job_done(uid, now)))
    }

    pub(super) fn enable_job(&mut self, job: &JobId, condition: &Condition, now: Timestamp) -> Outcome {
        let uid = or_refuse!(self.open_job(job, condition)?);
        if let Some(state) = self.state_of(uid).filter(|state| !state.may_become(JobState::Enabling)) {
            return Ok(Err(invalid(state, "Only a job that is disabled can be enabled.").with("JobId", job)));
        }
        self.enter(uid, JobState::Enabling, now);
        Ok(Ok(self.job_done(uid, now)))
    }

    fn state_of(&self, uid: JobUid) -> Option<JobState> {
        self.jobs.get(&uid).map(|entry| entry.record.state)
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
                return Ok(Err(Refusal::new(Code::JobBeingDeleted, JOB_GOES).with("JobId", job)));
            }
        }
        self.stop_job(uid, JobState::Deleting, None, JobStop::Delete, now)?;
        Ok(Ok(self.job_done(uid, now)))
    }

    pub(super) fn update_job(&mut self, job: &JobId, change: JobChange, condition: &Condition, now: Timestamp) -> Outcome {
        let uid = or_refuse!(self.open_job(job, condition)?);
        if let Some(pool) = change.pool {
            or_refuse!(self.move_job(uid, pool, now)?);
        }
        if let Some(keep_alive) = change.keep_alive {
            or_refuse!(self.keep_pool(uid, keep_alive));
        }
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
        if change.terminate_when_complete == Some(true) {
            self.complete(uid, now)?;
        }
        Ok(Ok(Done::Changed { version, at: now }))
    }

    /// Puts a disabled job on another pool, with everything that waits.
    fn move_job(&mut self, uid: JobUid, pool: PoolId, now: Timestamp) -> Result<Result<(), Refusal>, StoreError> {
        let Some(entry) = self.jobs.get(&uid) else { return Ok(Ok(())) };
        let (from, state) = (entry.record.pool.clone(), entry.record.state);
        if from == pool {
            return Ok(Ok(()));
        }
        or_refuse!(auto_pools::may_move(entry));
        if state != JobState::Disabled {
            return Ok(Err(invalid(state, "The pool of a job can be changed only while the job is disabled.")
                .with("PoolId", &from)
                .hint("Disable the job and wait until its state is disabled.")));
        }
        let slots_per_node = or_refuse!(self.slots_of_usable_pool(&pool));
        // The nodes of the old pool are of no use to the job any more.
        self.release_job(uid, now)?;
        self.store.leave_pool(uid, &from)?;
        // The pool looks again at what fits when it comes.
        let ready = self.store.refit(uid, slots_per_node.unwrap_or(u32::MAX))?;
        if let Some(old) = self.pools.get_mut(&from) {
            old.core.forget_job(uid);
        }
        if let Some(entry) = self.jobs.get_mut(&uid) {
            (entry.record.pool, entry.parked, entry.is_dirty) = (pool, ready, true);
        }
        self.attach(uid, now);
        Ok(Ok(()))
    }

    /// Tasks that a pool's nodes had no room for may fit now, or the other way round.
    pub(super) fn refit_jobs(&mut self, pool: &PoolId) -> Result<(), StoreError> {
        let Some(entry) = self.pools.get_mut(pool) else { return Ok(()) };
        for uid in self.jobs.iter().filter(|(_, job)| job.record.pool == *pool).map(|(uid, _)| *uid) {
            let ready = self.store.refit(uid, entry.record.slots_per_node)?;
            entry.core.recount_waiting(uid, ready);
            entry.is_touched = true;
        }
        Ok(())
    }

    fn job_done(&self, uid: JobUid, now: Timestamp) -> Done {
        Done::Changed { version: self.jobs.get(&uid).map_or(self.version, |job| job.record.version), at: now }
    }
}
