//! Changes of existing tasks: new constraints, reactivation, deletion of streams.

use contract::{
    ids::{JobId, JobUid, TaskId},
    period::Period,
    spec::TaskConstraints,
    state::TaskState,
    time::Timestamp,
};
use model::{
    condition::Condition,
    document::{self, Properties},
    refusal::{Code, Refusal},
    task::StreamName,
};
use scheduler::Event;
use store::{StoreError, records::TaskHead};

use crate::{
    command::Done,
    command_error::CommandError,
    refusals::{closed, illegible},
    world::World,
};

/// Default `retentionTime` of a task's directory.
pub const RETENTION: Period = Period::from_secs(7 * 24 * 3600);

/// Constraints as GET shows them, with defaults for those that were not given.
pub fn shown_constraints(given: TaskConstraints) -> TaskConstraints {
    TaskConstraints {
        max_wall_clock_time: Some(given.max_wall_clock_time.unwrap_or(Period::UNLIMITED)),
        retention_time: Some(given.retention_time.unwrap_or(RETENTION)),
        max_task_retry_count: given.max_task_retry_count,
    }
}

impl World {
    /// A task that meets the condition, in a job that accepts changes.
    fn open_task(&mut self, job: &JobId, task: &TaskId, condition: &Condition) -> Result<(JobUid, TaskHead), CommandError> {
        let (uid, head) = self.head(job, task)?;
        condition.check(head.version, head.modified_at)?;
        let state = match self.jobs.get(&uid) {
            Some(entry) => entry.record.state,
            None => contract::state::JobState::Completed,
        };
        match closed(state) {
            Some(refusal) => Err(refusal.with("JobId", job).into()),
            None => Ok((uid, head)),
        }
    }

    pub(super) fn update_task(
        &mut self,
        job: &JobId,
        task: &TaskId,
        constraints: TaskConstraints,
        condition: &Condition,
        now: Timestamp,
    ) -> Result<Done, CommandError> {
        let (uid, head) = self.open_task(job, task, condition)?;
        if head.state == TaskState::Completed {
            return Err(Refusal::new(Code::TaskCompleted, "The specified task is already in a completed state.")
                .with("TaskId", task)
                .into());
        }
        let candidate = self.store.candidate(head.uid);
        let Some(candidate) = self.legible(head.uid, candidate)? else {
            return Err(Refusal::new(Code::TaskNotFound, "The specified task does not exist.").with("TaskId", task).into());
        };
        let corrupt = || StoreError::Corrupt { table: "task_texts", column: "document" };
        let document = document::read(&candidate.document).map(Some).ok_or_else(corrupt);
        let Some(document) = self.legible(head.uid, document)? else {
            return Err(illegible("task").with("TaskId", task).into());
        };
        let default = self.jobs.get(&uid).map_or(0, |entry| entry.record.max_task_retry_count);
        let retries_max = constraints.max_task_retry_count.unwrap_or(default);
        let shown = shown_constraints(TaskConstraints { max_task_retry_count: Some(retries_max), ..constraints });
        let changes = Properties::from_iter([("constraints".to_owned(), serde_json::to_value(shown).map_err(|_| corrupt())?)]);
        let document = document::changed(document, changes);
        let version = self.next_version();
        self.store.update_task(head.uid, &document, retries_max, now, version)?;
        if let Some(pool) = self.pool_of(uid).filter(|_| head.is_live) {
            self.step(&pool, Event::Limits { uid: head.uid, retries_max }, now)?;
        }
        // The spec that was kept for a release in this transaction is outdated.
        self.fresh.remove(&head.uid);
        Ok(Done::Changed { version, at: now })
    }

    /// Deletes a stored stream; a task that was reactivated meanwhile has none.
    pub(super) fn forget_stream(&mut self, job: &JobId, task: &TaskId, stream: StreamName, now: Timestamp) -> Result<Done, CommandError> {
        let (_, head) = self.head(job, task)?;
        if head.state == TaskState::Completed {
            let [stdout, stderr] = self.store.blobs_of(head.uid)?;
            let kept = if stream == StreamName::Stdout { stdout } else { stderr };
            self.discard(&kept.into_iter().collect::<Vec<_>>())?;
            self.store.forget_stream(head.uid, stream)?;
        }
        Ok(Done::Changed { version: head.version, at: now })
    }

    pub(super) fn reactivate_task(
        &mut self,
        job: &JobId,
        task: &TaskId,
        condition: &Condition,
        now: Timestamp,
    ) -> Result<Done, CommandError> {
        let (uid, head) = self.open_task(job, task, condition)?;
        let refuse = |code, message: &str| Err(Refusal::new(code, message).with("TaskId", task).with("TaskState", head.state).into());
        if head.state != TaskState::Completed {
            return refuse(Code::TaskNotCompleted, "The specified task is not completed.");
        }
        if head.has_succeeded == Some(true) {
            return refuse(Code::TaskSucceeded, "The specified task has succeeded.");
        }
        let version = self.next_version();
        let blobs = self.store.blobs_of(head.uid)?;
        self.discard(&blobs.into_iter().flatten().collect::<Vec<_>>())?;
        let is_ready = self.store.reactivate(head.uid, head.fence.next(), now, version)?;
        self.count(uid, u64::from(head.slots), |counts, n| {
            (counts.active, counts.failed) = (counts.active + n, counts.failed.saturating_sub(n))
        });
        self.unblocked(uid, u64::from(is_ready), now)?;
        Ok(Done::Changed { version, at: now })
    }
}
