//! Builds the message for a node from a task's row: the spec with the job's environment and the task's token.

use contract::{
    ids::{AttemptKey, JobUid, PoolId, TaskId},
    message::Start,
    spec::TaskSpec,
    time::Timestamp,
};
use model::task_document::TaskDocument;
use store::{StoreError, records::Candidate};
use tracing::error;

use crate::{
    messages::TaskPublish,
    task_token::{self, Bearer},
    world::{World, merge},
};

fn read(candidate: &Candidate) -> Result<TaskDocument, StoreError> {
    serde_json::from_str(&candidate.document).map_err(|cause| {
        error!(uid = candidate.uid.0, %cause, "a task's document cannot be read");
        StoreError::Corrupt { table: "task_texts", column: "document" }
    })
}

impl World {
    /// The spec of a stored task.
    pub(super) fn spec(&self, candidate: &Candidate) -> Result<TaskSpec, StoreError> {
        let document = read(candidate)?;
        let wants_token = document.wants_token();
        let mut spec = TaskSpec::from(document);
        if let Some(job) = self.jobs.get(&candidate.job) {
            spec.environment_settings = merge(&job.record.environment, std::mem::take(&mut spec.environment_settings));
            spec.preparation = self.job_tasks.get(&candidate.job).map(|job_tasks| job_tasks.preparation.id.clone());
            if wants_token {
                // Only marked here; the token is made for the attempt that asks.
                spec.environment_settings.retain(|setting| setting.name != task_token::VARIABLE);
                spec.environment_settings.push(task_token::setting(String::new()));
            }
        }
        self.equip(&mut spec);
        Ok(spec)
    }

    /// Puts a token for this attempt into the spec of a task that asks for one.
    pub(super) fn equip_with_token(&self, spec: &mut TaskSpec, candidate: &Candidate, attempt: u32) {
        // `spec` leaves a mark when the task asks for a token, so most documents are not parsed twice.
        let is_marked = spec.environment_settings.iter().any(|setting| setting.name == task_token::VARIABLE);
        let wants_token = is_marked && read(candidate).is_ok_and(|document| document.wants_token());
        let Some(job) = self.jobs.get(&candidate.job).filter(|_| wants_token) else { return };
        let bearer = Bearer { job: job.record.id.clone(), task: candidate.id.clone(), uid: candidate.uid, attempt };
        let token = self.identity.tokens.make(&bearer, Timestamp::now());
        spec.environment_settings.retain(|setting| setting.name != task_token::VARIABLE);
        spec.environment_settings.push(task_token::setting(token));
    }

    /// Queues an attempt for publishing. A spec with secrets is left out; the agent asks for it.
    pub(super) fn publish(
        &mut self,
        pool: &PoolId,
        job: JobUid,
        (key, slots): (AttemptKey, u32),
        start: Start,
        (task, spec): (TaskId, Option<TaskSpec>),
    ) {
        let is_wide = slots > 1;
        // Tasks of jobs with a preparation are sent without spec too, so that the agent asks first.
        let spec = spec.filter(|spec| !spec.holds_secrets() && !self.job_tasks.contains_key(&job));
        let start = if is_wide || spec.is_none() { Start::Ask } else { start };
        if let Some(message) = self.message(key, job, task, start, slots, spec) {
            self.releases.push(TaskPublish { pool: pool.clone(), is_wide, message });
        }
    }
}
