//! How a node's start task is shown; also the failures of preparation and release tasks.

use contract::{
    message::StartTaskEnd,
    outcome::{Fault, Outcome},
};
use serde::Serialize;
use store::rows::NodeRow;

use crate::answer::{Iso, NameValue, details};

/// The failure of a start task, preparation or release.
#[derive(Serialize)]
pub struct FailureInfo<'a> {
    category: &'static str,
    code: &'a str,
    message: String,
    details: Vec<NameValue<'a>>,
}

/// The state of a node's start task.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StartTaskInfo<'a> {
    state: &'static str,
    start_time: Iso,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<Iso>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_info: Option<FailureInfo<'a>>,
    retry_count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_retry_time: Option<Iso>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'static str>,
}

/// The state of a node's start task; `None` when it has none.
pub fn info(row: &NodeRow) -> Option<StartTaskInfo<'_>> {
    if let Some(end) = &row.start_task {
        return Some(ended(end));
    }
    let start_time = Iso(row.booted_with.as_ref().and(row.booted_at)?);
    Some(StartTaskInfo {
        state: "running",
        start_time,
        end_time: None,
        exit_code: None,
        failure_info: None,
        retry_count: 0,
        last_retry_time: None,
        result: None,
    })
}

fn ended(end: &StartTaskEnd) -> StartTaskInfo<'_> {
    let (exit_code, failure_info) = failure(&end.outcome, "start");
    StartTaskInfo {
        state: "completed",
        start_time: Iso(end.started_at),
        end_time: Some(Iso(end.ended_at)),
        exit_code,
        result: Some(if failure_info.is_none() { "success" } else { "failure" }),
        failure_info,
        retry_count: end.retries,
        last_retry_time: end.retried_at.map(Iso),
    }
}

/// Exit code and failure of such a task; `what` names it in the message.
pub fn failure<'a>(outcome: &'a Outcome, what: &str) -> (Option<i32>, Option<FailureInfo<'a>>) {
    let failed = |category, code, message: String| Some(FailureInfo { category, code, message, details: vec![] });
    let of_fault = |category, fault: &'a Fault| {
        Some(FailureInfo { category, code: fault.code.as_str(), message: fault.message.clone(), details: details(&fault.details) })
    };
    let user = "usererror";
    match outcome {
        Outcome::Exit { code: 0 } => (Some(0), None),
        Outcome::Exit { code } => (Some(*code), failed(user, "FailureExitCode", format!("The {what} task exited with code {code}."))),
        Outcome::Signal { number } => (None, failed(user, "FailureExitCode", format!("Signal {number} ended the {what} task."))),
        Outcome::Timeout { limit_ms } => (None, failed(user, "TaskEnded", format!("The {what} task ran longer than {limit_ms} ms."))),
        Outcome::Stopped => (None, failed("servererror", "TaskEnded", format!("The {what} task was stopped."))),
        Outcome::Staging(fault) | Outcome::Launch(fault) => (None, of_fault(user, fault)),
        Outcome::Upload { code, fault } => (*code, of_fault(user, fault)),
        Outcome::Node(fault) => (None, of_fault("servererror", fault)),
        Outcome::Unprepared(_) => (None, failed("servererror", "TaskEnded", format!("The {what} task did not begin."))),
    }
}
