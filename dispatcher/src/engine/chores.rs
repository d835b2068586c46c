//! Preparations and releases of jobs: what nodes are told of them, and what jobs wait for.

use broker_config::{
    chore::{Chore, ChoreKey},
    ids::{JobUid, TaskId},
    time::Timestamp,
};

use crate::{
    core::Event,
    engine::world::World,
    refusal::{Code, Refusal},
    store::StoreError,
};

impl World {
    /// A chore as a node runs it; nothing when its job is gone.
    pub(super) fn chore(&self, key: ChoreKey) -> Option<Chore> {
        let record = &self.jobs.get(&key.job)?.record;
        self.chores.get(&key.job)?.chore(key, &record.id, &record.environment)
    }

    /// The nodes that a job was prepared on release it.
    pub(super) fn release_job(&mut self, job: JobUid, now: Timestamp) -> Result<(), StoreError> {
        if !self.chores.contains_key(&job) {
            return Ok(());
        }
        let Some(pool) = self.pool_of(job) else { return Ok(()) };
        self.step(&pool, Event::Release { job }, now)
    }

    /// Whether no release of a job is waited for, in its pool and those that it has left.
    pub(super) fn is_released(&self, job: JobUid) -> bool {
        !self.chores.contains_key(&job) || self.pools.values().all(|pool| pool.core.is_released(job))
    }

    /// A job leaves memory; what its chores did stays in the store.
    pub(super) fn forget_chores(&mut self, job: JobUid) {
        if self.chores.remove(&job).is_some() {
            self.pools.values_mut().for_each(|pool| pool.core.forget_sites(job));
        }
    }

    /// A task may not share its name, and so its folder, with a chore of its job.
    pub(super) fn check_name(&self, job: JobUid, task: &TaskId) -> Result<(), Refusal> {
        let Some(chores) = self.chores.get(&job) else { return Ok(()) };
        let refusal = |code, what: &str| {
            let message = format!("The specified task has the same id as the job's {what} task.");
            Err(Refusal::new(code, &message).with("TaskId", task).hint("Choose another id for the task."))
        };
        if chores.preparation.id == *task {
            return refusal(Code::TaskIdSameAsJobPreparationTask, "preparation");
        }
        match &chores.release {
            Some(release) if release.id == *task => refusal(Code::TaskIdSameAsJobReleaseTask, "release"),
            _ => Ok(()),
        }
    }
}
