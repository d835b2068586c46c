//! Changes of jobs that clients request: add, disable, enable, update, terminate, delete.

use contract::{
    clock::Now,
    ids::{JobId, JobUid, PoolId, ScheduleId, TaskUid},
    state::{JobState, PoolState},
    time::Timestamp,
};
use model::{
    condition::Condition,
    document,
    health::Unreadable,
    job::{Counts, DisableOption, JobChange, NewJob, NewManager},
    refusal::{Code, Refusal},
};
use scheduler::JobStop;
use store::{StoreError, records::JobRecord};

use crate::{
    auto_pools,
    command::Done,
    command_error::CommandError,
    pools::POOL_GOES,
    refusals::{JOB_GOES, closed, illegible, invalid},
    world::{JobEntry, World},
};

fn missing(job: &JobId) -> Refusal {
    Refusal::new(Code::JobNotFound, "The specified job does not exist.").with("JobId", job)
}

impl World {
    pub(super) fn create_job(&mut self, job: NewJob, now: Timestamp) -> Result<Done, CommandError> {
        let exists = || Refusal::new(Code::JobExists, "The specified job already exists.").with("JobId", &job.id);
        if self.alive(&job.id).is_some() || self.stored_job(&job.id)?.is_some() {
            return Err(exists().into());
        }
        if let Ok(schedule) = job.id.as_str().parse::<ScheduleId>()
            && self.schedules.contains_key(&schedule)
        {
            let refusal = Refusal::new(
                Code::JobScheduleWithSameIdExists,
                "A job schedule with the same id exists; a job and a schedule may not share one.",
            );
            return Err(refusal.with("JobScheduleId", &schedule).into());
        }
        if let Some(manager) = &job.manager {
            self.check_packages(&manager.task.spec.application_package_references)?;
        }
        self.check_job(&job)?;
        let placed = self.place_job(&job.id, &job.pool, now)?;
        let manager_slots = placed.slots_per_node.filter(|_| job.takes_a_node());
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
        if let Some(job_tasks) = job.job_tasks {
            self.store.put_job_tasks(uid, &job_tasks)?;
            self.job_tasks.insert(uid, *job_tasks);
        }
        let is_lost = record.scheduling_error.is_some();
        self.job_names.insert(record.id.clone(), uid);
        self.jobs.insert(uid, JobEntry::new(record, 0, Now { time: now, moment: self.moment }));
        self.attach(uid, now);
        if let Some(manager) = job.manager {
            let NewManager { mut task, .. } = *manager;
            task.spec.required_slots = manager_slots.or(task.spec.required_slots);
            // Cannot be refused: packages, name and pool were checked above.
            self.insert_tasks(uid, vec![task], now)?;
        }
        if is_lost {
            self.stop_job(uid, JobState::Terminating, None, JobStop::End, now)?;
        }
        Ok(self.job_done(uid, now))
    }

    /// Slots per node of a pool that accepts jobs; `None` when the pool is not created yet.
    pub(super) fn slots_of_usable_pool(&self, pool: &PoolId) -> Result<Option<u32>, Refusal> {
        match self.pools.get(pool) {
            None => Ok(None),
            Some(entry) if entry.record.state == PoolState::Deleting => {
                Err(Refusal::new(Code::PoolBeingDeleted, POOL_GOES).with("PoolId", pool))
            }
            Some(entry) => Ok(Some(entry.record.slots_per_node)),
        }
    }

    /// A job in memory that may be changed, or the refusal.
    pub(super) fn open_job(&mut self, job: &JobId, condition: &Condition) -> Result<JobUid, CommandError> {
        let (uid, state, version, modified_at) = match self.alive(job).and_then(|uid| self.jobs.get(&uid)) {
            Some(entry) => (entry.record.uid, entry.record.state, entry.record.version, entry.record.modified_at),
            None => match self.stored_job(job)? {
                Some(record) => (record.uid, record.state, record.version, record.modified_at),
                None => return Err(missing(job).into()),
            },
        };
        condition.check(version, modified_at)?;
        match closed(state) {
            Some(refusal) => Err(refusal.with("JobId", job).into()),
            None => Ok(uid),
        }
    }

    pub(super) fn disable_job(
        &mut self,
        job: &JobId,
        option: DisableOption,
        condition: &Condition,
        now: Timestamp,
    ) -> Result<Done, CommandError> {
        let uid = self.open_job(job, condition)?;
        if let Some(state) = self.state_of(uid).filter(|state| !state.may_become(JobState::Disabling)) {
            return Err(invalid(state, "The job cannot be disabled in its present state.").with("JobId", job).into());
        }
        let stop = match option {
            DisableOption::Requeue => JobStop::Requeue,
            DisableOption::Terminate => JobStop::End,
            DisableOption::Wait => JobStop::Wait,
        };
        self.stop_job(uid, JobState::Disabling, None, stop, now)?;
        Ok(self.job_done(uid, now))
    }

    pub(super) fn enable_job(&mut self, job: &JobId, condition: &Condition, now: Timestamp) -> Result<Done, CommandError> {
        let uid = self.open_job(job, condition)?;
        if let Some(state) = self.state_of(uid).filter(|state| !state.may_become(JobState::Enabling)) {
            return Err(invalid(state, "Only a job that is disabled can be enabled.").with("JobId", job).into());
        }
        self.enter(uid, JobState::Enabling, now);
        Ok(self.job_done(uid, now))
    }

    pub(super) fn state_of(&self, uid: JobUid) -> Option<JobState> {
        self.jobs.get(&uid).map(|entry| entry.record.state)
    }

    pub(super) fn terminate_job(
        &mut self,
        job: &JobId,
        reason: Option<String>,
        condition: &Condition,
        now: Timestamp,
    ) -> Result<Done, CommandError> {
        let uid = self.open_job(job, condition)?;
        self.stop_job(uid, JobState::Terminating, Some(reason.unwrap_or_else(|| "UserTerminate".to_owned())), JobStop::End, now)?;
        Ok(self.job_done(uid, now))
    }

    pub(super) fn remove_job(&mut self, job: &JobId, condition: &Condition, now: Timestamp) -> Result<Done, CommandError> {
        let uid = match self.alive(job) {
            Some(uid) => uid,
            None => {
                // A completed job is loaded into memory again, because its rows are removed in slices.
                let Some(record) = self.job_to_remove(job, condition, now)? else { return Err(missing(job).into()) };
                let uid = record.uid;
                self.job_names.insert(record.id.clone(), uid);
                self.jobs.insert(uid, JobEntry::new(record, 0, Now { time: now, moment: self.moment }));
                uid
            }
        };
        if let Some(entry) = self.jobs.get(&uid) {
            condition.check(entry.record.version, entry.record.modified_at)?;
            if entry.record.state == JobState::Deleting {
                return Err(Refusal::new(Code::JobBeingDeleted, JOB_GOES).with("JobId", job).into());
            }
        }
        self.stop_job(uid, JobState::Deleting, None, JobStop::Delete, now)?;
        Ok(self.job_done(uid, now))
    }

    /// The job's document with the requested changes; `None` when nothing in it changes.
    fn merged_job_document(&mut self, uid: JobUid, change: &mut JobChange) -> Result<Option<String>, CommandError> {
        if change.fields.is_empty() && change.own_pool.is_none() {
            return Ok(None);
        }
        let text = match self.store.job_document(uid) {
            Err(StoreError::Corrupt { .. }) => String::new(),
            other => other?.unwrap_or_default(),
        };
        let Some(mut document) = document::read(&text) else {
            self.name_unreadable(Unreadable { table: "job_texts", row: uid.0.to_string(), column: "document" });
            return Err(illegible("job").with("JobUid", uid.0).into());
        };
        if let Some(own_pool) = &change.own_pool {
            change.keep_alive = own_pool.apply(&mut document)?;
        }
        Ok(Some(document::changed(document, std::mem::take(&mut change.fields))))
    }

    pub(super) fn update_job(
        &mut self,
        job: &JobId,
        mut change: JobChange,
        condition: &Condition,
        now: Timestamp,
    ) -> Result<Done, CommandError> {
        let uid = self.open_job(job, condition)?;
        let document = self.merged_job_document(uid, &mut change)?;
        let moved = change.pool.filter(|pool| self.pool_of(uid).as_ref() != Some(pool));
        if let Some(pool) = &moved {
            self.check_move(uid, pool)?;
        }
        if let Some(keep_alive) = change.keep_alive {
            self.check_keep(uid, keep_alive)?;
        }
        if let Some(pool) = moved {
            self.move_job(uid, pool, now)?;
        }
        if let Some(keep_alive) = change.keep_alive {
            self.keep_pool(uid, keep_alive);
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
            self.store.put_job(&entry.record, document.as_deref())?;
        }
        self.tell_job(uid, now)?;
        if change.terminate_when_complete == Some(true) {
            self.complete(uid, now)?;
        }
        Ok(Done::Changed { version, at: now })
    }

    /// Refuses to move a job unless it is disabled and the new pool accepts it.
    fn check_move(&self, uid: JobUid, pool: &PoolId) -> Result<(), Refusal> {
        let Some(entry) = self.jobs.get(&uid) else { return Ok(()) };
        auto_pools::may_move(entry)?;
        let state = entry.record.state;
        if state != JobState::Disabled {
            return Err(invalid(state, "The pool of a job can be changed only while the job is disabled.")
                .with("PoolId", &entry.record.pool)
                .hint("Disable the job and wait until its state is disabled."));
        }
        self.slots_of_usable_pool(pool).map(|_| ())
    }

    /// Moves a disabled job with its waiting tasks to another pool.
    fn move_job(&mut self, uid: JobUid, pool: PoolId, now: Timestamp) -> Result<(), StoreError> {
        let Some(from) = self.pool_of(uid) else { return Ok(()) };
        // The job uses the nodes of its old pool no longer.
        self.release_job(uid, now)?;
        self.store.leave_pool(uid, &from)?;
        let ready = self.store.count_ready(uid)?;
        if let Some(old) = self.pools.get_mut(&from) {
            old.core.forget_job(uid);
        }
        if let Some(entry) = self.jobs.get_mut(&uid) {
            (entry.record.pool, entry.parked, entry.is_dirty) = (pool, ready, true);
        }
        self.attach(uid, now);
        self.refit_jobs(vec![uid], now)
    }

    fn job_done(&self, uid: JobUid, now: Timestamp) -> Done {
        Done::Changed { version: self.jobs.get(&uid).map_or(self.version, |job| job.record.version), at: now }
    }
}
