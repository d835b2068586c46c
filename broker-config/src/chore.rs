//! Chores: what a job does to a node before its first task there, and after its last.
//!
//! ```text
//! ask ──► run, with the preparation ──► agent runs it once per job ──► ended (told until it is over)
//! beat ──► releases that are due    ──► agent runs each            ──► ended (told until it is over)
//! ```
//! A chore is known by its key; the dispatcher gives a larger number whenever it shall run anew.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{JobId, JobUid, TaskId},
    message::Outcome,
    spec::TaskSpec,
    time::Timestamp,
};

/// Chores in one beat, or in its answer, at most; the rest follows with the next.
pub const CHORES_PER_BEAT_MAX: usize = 64;

/// When a chore runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChoreKind {
    /// Before the job's first task on the node.
    Preparation,
    /// After its last one.
    Release,
}

/// Names a chore on its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChoreKey {
    /// The job.
    pub job: JobUid,
    /// Before or after its tasks.
    pub kind: ChoreKind,
    /// How often the node was asked so far, from 1.
    pub number: u32,
}

/// A chore to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chore {
    /// Which.
    pub key: ChoreKey,
    /// The job's name, for directories and the environment.
    pub job: JobId,
    /// The chore's own name, for the same.
    pub task: TaskId,
    /// Whether the job's tasks wait for its success.
    #[serde(default)]
    pub is_awaited: bool,
    /// What to run; retries and the wall clock are among its constraints.
    pub spec: TaskSpec,
}

/// How a chore ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChoreEnd {
    /// Which.
    pub key: ChoreKey,
    /// When it began, by the node's clock.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// How the last try ended.
    pub outcome: Outcome,
    /// Tries after the first.
    #[serde(default)]
    pub retries: u32,
    /// When the last of them began.
    #[serde(default)]
    pub retried_at: Option<Timestamp>,
}

impl ChoreEnd {
    /// Whether the command exited with zero.
    pub fn has_succeeded(&self) -> bool {
        self.outcome == Outcome::Exit { code: 0 }
    }
}
