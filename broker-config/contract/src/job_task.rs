//! Job preparation and job release tasks: a node runs the first before the job's first task there, the second after its last.
//!
//! ```text
//! ask ──► run, with the preparation ──► agent runs it once per job ──► ended (sent until it is over)
//! heartbeat ──► releases that are due    ──► agent runs each            ──► ended (sent until it is over)
//! ```
//! A job task is identified by its key; the dispatcher gives a larger number to run it anew.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{JobId, TaskId},
    outcome::JobTaskKey,
    spec::TaskSpec,
};

/// Job tasks in one heartbeat, or in its answer, at most; the rest follow in the next.
pub const JOB_TASKS_PER_HEARTBEAT_MAX: usize = 64;

/// A job preparation or job release task to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobTask {
    pub key: JobTaskKey,
    /// Names the directories, and goes into the environment.
    pub job: JobId,
    /// The job task's own name, for the same.
    pub task: TaskId,
    /// The job's tasks wait for its success.
    #[serde(default)]
    pub is_awaited: bool,
    /// Retries and the wall-clock limit are among its constraints.
    pub spec: TaskSpec,
}
