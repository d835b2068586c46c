//! `GET /piecework/health`: 200 when the whole stack can run a task, else 503 with the reasons.

use serde::Serialize;

use crate::{
    http::{answer::Answer, call::Call, entrance::Door},
    refusal::Refusal,
};

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
}

impl Health {
    /// Unwell for one reason.
    pub fn problem(part: &str, reason: impl Into<String>) -> Health {
        Health { problems: vec![Problem { part: part.to_owned(), reason: reason.into() }] }
    }

    /// Whether a task could run.
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }
}

#[derive(Serialize)]
struct Report<'a> {
    status: &'static str,
    version: &'static str,
    #[serde(skip_serializing_if = "<[Problem]>::is_empty")]
    problems: &'a [Problem],
}

/// Answers with the present health.
pub async fn get(door: &Door, _call: &Call) -> Result<Answer, Refusal> {
    let health = door.health.borrow().clone();
    let status = if health.is_ok() { "ok" } else { "unavailable" };
    let report = Report { status, version: env!("CARGO_PKG_VERSION"), problems: &health.problems };
    let mut answer = Answer::json(serde_json::to_vec(&report).expect("a report has a JSON form"));
    answer = answer.with(http::header::CONTENT_TYPE, "application/json").with(http::header::CACHE_CONTROL, "no-store");
    if !health.is_ok() {
        answer.status = Answer::empty(503).status;
    }
    Ok(answer)
}
