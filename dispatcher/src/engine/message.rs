//! From a task's row to what a node gets: the spec, with the job's environment and the task's token merged in.

use broker_config::{
    ids::{AttemptKey, JobUid, PoolId, TaskId},
    message::Start,
    spec::TaskSpec,
    time::Timestamp,
};
use tracing::error;

use crate::{
    engine::{
        Release,
        world::{World, merge},
    },
    store::{StoreError, records::Candidate},
    task_token,
};

impl World {
    /// The spec of a stored task.
    pub(super) fn spec(&self, candidate: &Candidate) -> Result<TaskSpec, StoreError> {
        let mut spec: TaskSpec = serde_json::from_str(&candidate.document).map_err(|cause| {
            error!(uid = candidate.uid.0, %cause, "a task's document cannot be read");
            StoreError::Corrupt { table: "task_texts", column: "document" }
        })?;
        if let Some(job) = self.jobs.get(&candidate.job) {
            spec.environment_settings = merge(&job.record.environment, std::mem::take(&mut spec.environment_settings));
            spec.preparation = self.chores.get(&candidate.job).map(|chores| chores.preparation.id.clone());
            if task_token::is_wanted(&candidate.document) {
                let token = self.identity.tokens.make(&job.record.id, &candidate.id, Timestamp::now());
                spec.environment_settings.retain(|setting| setting.name != task_token::VARIABLE);
                spec.environment_settings.push(task_token::setting(token));
            }
        }
        self.equip(&mut spec);
        Ok(spec)
    }

    /// Queues the publish of an attempt; secrets do not travel with it.
    pub(super) fn publish(
        &mut self,
        pool: &PoolId,
        job: JobUid,
        (key, slots): (AttemptKey, u32),
        start: Start,
        (task, spec): (TaskId, Option<TaskSpec>),
    ) {
        let is_wide = slots > 1;
        // Whether a node is prepared is asked, too.
        let spec = spec.filter(|spec| !spec.holds_secrets() && !self.chores.contains_key(&job));
        let start = if is_wide || spec.is_none() { Start::Ask } else { start };
        if let Some(message) = self.message(key, job, task, start, slots, spec) {
            self.releases.push(Release { pool: pool.clone(), is_wide, message });
        }
    }
}
