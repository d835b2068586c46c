//! Health of the dispatcher and its parts, as `/health` shows it: can a new task run?

use serde::Serialize;

/// Name of the part that is reported for a full disk.
pub const DISK: &str = "disk";

/// A reason why new tasks could not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Name of the part: `store`, `broker`, `events`, `blobs`, `engine`, …
    pub part: String,
    /// A text for operators: what is wrong and what to do.
    pub reason: String,
}

/// The health of the whole system.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// Empty when a task could run.
    pub problems: Vec<Problem>,
    /// Age of the oldest event of a node that is not stored yet; zero when none waits.
    pub oldest_event_ms: u64,
    /// Rows that cannot be read. They affect nothing else, so they do not make the system unhealthy.
    pub unreadable: Vec<Unreadable>,
}

impl Health {
    /// A state with a single problem.
    pub fn problem(part: &str, reason: impl Into<String>) -> Health {
        Health { problems: vec![Problem { part: part.to_owned(), reason: reason.into() }], ..Health::default() }
    }

    /// Whether the server answers requests. It counts as up with a full disk, when it refuses new work only.
    pub fn is_up(&self) -> bool {
        self.is_ok() || self.problems.iter().any(|problem| problem.part == DISK)
    }

    /// Whether a new task could run.
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }
}

/// A row that this build cannot read; other rows are not affected.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Unreadable {
    pub table: &'static str,
    pub row: String,
    pub column: &'static str,
}
