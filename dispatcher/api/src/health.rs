//! `GET /piecework/health`: 200 when the whole stack can run a task, else 503 with the reasons.

use model::{
    health::{Problem, Unreadable},
    refusal::Refusal,
};
use serde::Serialize;

use crate::{answer::Answer, call::Call, state::ApiState};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    status: &'static str,
    version: &'static str,
    oldest_unsettled_event_ms: u64,
    #[serde(skip_serializing_if = "<[Problem]>::is_empty")]
    problems: &'a [Problem],
    #[serde(skip_serializing_if = "<[Unreadable]>::is_empty")]
    unreadable_rows: &'a [Unreadable],
}

/// Answers with the present health.
pub async fn get(api: &ApiState, _call: &Call) -> Result<Answer, Refusal> {
    let health = api.health.borrow().clone();
    let status = if health.is_ok() { "ok" } else { "unavailable" };
    let report = Report {
        status,
        version: env!("CARGO_PKG_VERSION"),
        oldest_unsettled_event_ms: health.oldest_event_ms,
        problems: &health.problems,
        unreadable_rows: &health.unreadable,
    };
    let text = serde_json::to_vec(&report).expect("a report has a JSON form");
    Ok(Answer::own_json(if health.is_ok() { 200 } else { 503 }, text).with(http::header::CACHE_CONTROL, "no-store"))
}
