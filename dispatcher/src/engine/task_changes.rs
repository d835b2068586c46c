//! Changes of tasks that are there: new constraints, and another go for one that failed.

use broker_config::{
    ids::{JobId, JobUid, TaskId},
    period::Period,
    spec::TaskConstraints,
    state::TaskState,
    time::Timestamp,
};
use serde_json::{Map, Value};

use crate::{
    command::{Condition, Done, StreamName},
    core::Event,
    engine::{jobs::closed, pools::or_refuse, world::World},
    refusal::{Code, Refusal},
    store::{StoreError, records::TaskHead},
};

type Outcome = Result<Result<Done, Refusal>, StoreError>;

/// Where a task's document begins to tell its limits.
const CONSTRAINTS: &str = r#""constraints":{"#;
/// How long a task's directory stays unless it says otherwise.
pub const RETENTION: Period = Period::from_secs(7 * 24 * 3600);

/// Constraints as they are shown, with the defaults of what was left out.
pub fn shown_constraints(given: TaskConstraints) -> TaskConstraints {
    TaskConstraints {
        max_wall_clock_time: Some(given.max_wall_clock_time.unwrap_or(Period::UNLIMITED)),
        retention_time: Some(given.retention_time.unwrap_or(RETENTION)),
        max_task_retry_count: given.max_task_retry_count,
    }
}

/// A new task's document with the retries that its job gives to tasks without an own number.
pub(super) fn show_retries(document: &str, retries_max: i32) -> String {
    // Quotes inside of texts are escaped, so this is the task's own object.
    let Some((start, rest)) = document.split_once(CONSTRAINTS) else { return document.to_owned() };
    let comma = if rest.starts_with('}') { "" } else { "," };
    format!(r#"{start}{CONSTRAINTS}"maxTaskRetryCount":{retries_max}{comma}{rest}"#)
}

impl World {
    /// A task that meets the condition, in a job that is not about to end.
    fn open_task(&mut self, job: &JobId, task: &TaskId, condition: &Condition) -> Result<Result<(JobUid, TaskHead), Refusal>, StoreError> {
        let (uid, head) = or_refuse!(self.head(job, task)?);
        or_refuse!(condition.check(head.version, head.modified_at));
        let state = match self.jobs.get(&uid) {
            Some(entry) => entry.record.state,
            None => broker_config::state::JobState::Completed,
        };
        Ok(match closed(state) {
            Some(refusal) => Err(refusal.with("JobId", job)),
            None => Ok((uid, head)),
        })
    }

    pub(super) fn update_task(
        &mut self,
        job: &JobId,
        task: &TaskId,
        constraints: TaskConstraints,
        condition: &Condition,
        now: Timestamp,
    ) -> Outcome {
        let (uid, head) = or_refuse!(self.open_task(job, task, condition)?);
        if head.state == TaskState::Completed {
            return Ok(Err(Refusal::new(Code::TaskCompleted, "The specified task is already in a completed state.").with("TaskId", task)));
        }
        let Some(candidate) = self.store.candidate(head.uid)? else {
            return Ok(Err(Refusal::new(Code::TaskNotFound, "The specified task does not exist.").with("TaskId", task)));
        };
        let corrupt = |_| StoreError::Corrupt { table: "task_texts", column: "document" };
        let mut document: Map<String, Value> = serde_json::from_str(&candidate.document).map_err(corrupt)?;
        let default = self.jobs.get(&uid).map_or(0, |entry| entry.record.max_task_retry_count);
        let retries_max = constraints.max_task_retry_count.unwrap_or(default);
        let shown = shown_constraints(TaskConstraints { max_task_retry_count: Some(retries_max), ..constraints });
        document.insert("constraints".to_owned(), serde_json::to_value(shown).map_err(corrupt)?);
        let version = self.next_version();
        self.store.update_task(head.uid, &Value::Object(document).to_string(), retries_max, now, version)?;
        if let Some(pool) = self.pool_of(uid).filter(|_| head.is_live) {
            self.step(&pool, Event::Limits { uid: head.uid, retries_max }, now)?;
        }
        // What was read for a release in this transaction is old.
        self.fresh.remove(&head.uid);
        Ok(Ok(Done::Changed { version, at: now }))
    }

    /// A kept stream goes; a task that runs again meanwhile has none yet.
    pub(super) fn forget_stream(&mut self, job: &JobId, task: &TaskId, stream: StreamName, now: Timestamp) -> Outcome {
        let (_, head) = or_refuse!(self.head(job, task)?);
        if head.state == TaskState::Completed {
            self.store.forget_stream(head.uid, stream)?;
        }
        Ok(Ok(Done::Changed { version: head.version, at: now }))
    }

    pub(super) fn reactivate_task(&mut self, job: &JobId, task: &TaskId, condition: &Condition, now: Timestamp) -> Outcome {
        let (uid, head) = or_refuse!(self.open_task(job, task, condition)?);
        let refuse = |code, message: &str| Ok(Err(Refusal::new(code, message).with("TaskId", task).with("TaskState", head.state)));
        if head.state != TaskState::Completed {
            return refuse(Code::TaskNotCompleted, "The specified task is not completed.");
        }
        if head.has_succeeded == Some(true) {
            return refuse(Code::TaskSucceeded, "The specified task has succeeded.");
        }
        let version = self.next_version();
        let is_ready = self.store.reactivate(head.uid, head.fence.next(), now, version)?;
        self.count(uid, u64::from(head.slots), |counts, n| {
            (counts.active, counts.failed) = (counts.active + n, counts.failed.saturating_sub(n))
        });
        self.unblocked(uid, u64::from(is_ready), now)?;
        Ok(Ok(Done::Changed { version, at: now }))
    }
}
