//! Whether the whole stack can run a task.

use serde::Serialize;

/// The part that a full disk is a problem of.
pub const DISK: &str = "disk";

/// One reason why a task could not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The part: `store`, `broker`, `events`, `blobs`, `engine`, …
    pub part: String,
    /// What is wrong with it, and what to do.
    pub reason: String,
}

/// Whether the whole stack can run a task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// None when it can.
    pub problems: Vec<Problem>,
    /// Age of the oldest event of a node that is not stored yet.
    pub oldest_event_ms: u64,
    /// Rows that cannot be read: they harm no other, so they are no problem of the whole.
    pub unreadable: Vec<Unreadable>,
}

impl Health {
    /// Unwell for one reason.
    pub fn problem(part: &str, reason: impl Into<String>) -> Health {
        Health { problems: vec![Problem { part: part.to_owned(), reason: reason.into() }], ..Health::default() }
    }

    /// Whether the server has come up: it serves, though a full disk keeps it from taking more work.
    pub fn is_up(&self) -> bool {
        self.is_ok() || self.problems.iter().any(|problem| problem.part == DISK)
    }

    /// Whether a task could run.
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }
}

/// A row that this build cannot read; it harms no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// The table.
    pub table: &'static str,
    /// The row's key.
    pub row: String,
    /// The column.
    pub column: &'static str,
}
