//! Job preparations and releases: the orders for nodes, and the jobs that wait for them.

use contract::{
    ids::{JobId, JobUid, ScheduleId, TaskId},
    job_task::JobTask,
    outcome::JobTaskKey,
    state::JobState,
    time::Timestamp,
};
use model::{
    job_tasks::JobTasks,
    refusal::{Code, Refusal},
};
use scheduler::Event;
use store::StoreError;

use crate::{
    command::Done,
    command_error::CommandError,
    world::{JobEntry, World},
};

impl World {
    /// The job task as it is sent to a node; `None` when the job is gone.
    pub(super) fn job_task(&self, key: JobTaskKey) -> Option<JobTask> {
        let record = &self.jobs.get(&key.job)?.record;
        self.job_tasks.get(&key.job)?.job_task(key, &record.id, &record.environment)
    }

    /// Orders the job's release on every node on which it was prepared.
    pub(super) fn release_job(&mut self, job: JobUid, now: Timestamp) -> Result<(), StoreError> {
        if !self.job_tasks.contains_key(&job) {
            return Ok(());
        }
        let Some(pool) = self.pool_of(job) else { return Ok(()) };
        self.step(&pool, Event::Release { job }, now)
    }

    /// Whether no node still has to release the job, in its pool and in pools that it has left.
    pub(super) fn is_released(&self, job: JobUid) -> bool {
        !self.job_tasks.contains_key(&job) || self.forced.contains(&job) || self.pools.values().all(|pool| pool.core.is_released(job))
    }

    /// Lets a terminating or deleted job end without waiting for its nodes. Agents are told with their next heartbeat
    /// to end what they still run of it.
    pub(super) fn force_job(&mut self, job: &JobId, now: Timestamp) -> Result<Done, CommandError> {
        let ends = |state| matches!(state, JobState::Terminating | JobState::Deleting);
        if let Some(uid) = self.alive(job).filter(|uid| self.state_of(*uid).is_some_and(ends)) {
            self.forced.insert(uid);
            self.tick_jobs(now)?;
        }
        Ok(Done::Changed { version: self.version, at: now })
    }

    /// The same for all jobs of a schedule, including jobs that terminate later.
    pub(super) fn force_schedule(&mut self, schedule: &ScheduleId, now: Timestamp) -> Result<Done, CommandError> {
        let of_schedule = |job: &JobEntry| job.record.id.schedule().as_ref() == Some(schedule);
        let jobs: Vec<JobUid> = self.jobs.values().filter(|job| of_schedule(job)).map(|job| job.record.uid).collect();
        self.forced.extend(jobs);
        self.tick_jobs(now)?;
        Ok(Done::Changed { version: self.version, at: now })
    }

    /// Removes a job's preparation and release from memory; their results stay in the store.
    pub(super) fn forget_job_tasks(&mut self, job: JobUid) {
        self.forced.remove(&job);
        if self.job_tasks.remove(&job).is_some() {
            self.pools.values_mut().for_each(|pool| pool.core.forget_jobs_on_nodes(job));
        }
    }
}

/// Refuses a task with the id of its job's preparation or release task, as they would share a folder on nodes.
pub(super) fn check_name(job_tasks: Option<&JobTasks>, task: &TaskId) -> Result<(), Refusal> {
    let Some(job_tasks) = job_tasks else { return Ok(()) };
    let refusal = |code, what: &str| {
        let message = format!("The specified task has the same id as the job's {what} task.");
        Err(Refusal::new(code, &message).with("TaskId", task).hint("Choose another id for the task."))
    };
    if job_tasks.preparation.id == *task {
        return refusal(Code::TaskIdSameAsJobPreparationTask, "preparation");
    }
    match &job_tasks.release {
        Some(release) if release.id == *task => refusal(Code::TaskIdSameAsJobReleaseTask, "release"),
        _ => Ok(()),
    }
}
