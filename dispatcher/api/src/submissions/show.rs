//! Answers to submissions, in the words of the API: a task that was accepted or has ended, or why nothing was added.

use contract::ids::{JobId, TaskId};
use model::refusal::Refusal;
use serde_json::{Value, json};
use store::rows::TaskRow;

use crate::{
    body::prune,
    error::{ErrorBody, RequestId},
    tasks::{execution, url},
};

/// Bytes of a stream's end that are told.
pub const TAIL_BYTES_MAX: usize = 4096;

/// Tasks that are stored.
pub fn accepted(base: &str, job: &JobId, tasks: &[TaskId], is_list: bool) -> Value {
    let task = |task: &TaskId| json!({"id": task, "url": url(base, job, task), "state": "active"});
    match tasks {
        [one] if !is_list => {
            let mut shown = task(one);
            shown["jobId"] = json!(job);
            shown
        }
        tasks => json!({"jobId": job, "tasks": tasks.iter().map(task).collect::<Vec<_>>()}),
    }
}

/// A task that has ended, with the ends of its streams.
pub fn ended(base: &str, job: &JobId, row: &TaskRow, stdout: &[u8], stderr: &[u8]) -> Value {
    let execution = serde_json::to_value(execution(row)).expect("an execution has a JSON form");
    let mut shown = json!({
        "jobId": job,
        "id": row.id,
        "url": url(base, job, &row.id),
        "state": row.state.as_str(),
        "result": execution["result"],
        "exitCode": row.exit_code,
        "reason": row.failure.as_ref().map(|failure| failure.fault.code.as_str()),
        "executionInfo": execution,
    });
    shown = prune(shown);
    shown["stdout"] = Value::String(end_of(stdout));
    shown["stderr"] = Value::String(end_of(stderr));
    shown
}

/// The error body of the API.
pub fn refused(base: &str, refusal: &Refusal) -> Value {
    serde_json::to_value(ErrorBody::new(refusal, Some(base), RequestId::random())).expect("an error has a JSON form")
}

/// The end of a stream as text, from the beginning of a character.
fn end_of(bytes: &[u8]) -> String {
    let from = bytes.len().saturating_sub(TAIL_BYTES_MAX);
    let end = &bytes[from..];
    let cut = if from > 0 { end.iter().take(3).take_while(|byte| **byte & 0xc0 == 0x80).count() } else { 0 };
    String::from_utf8_lossy(&end[cut..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_task_is_told_by_itself_and_a_list_as_a_list() {
        let (job, task): (JobId, TaskId) = ("j".parse().unwrap(), "t".parse().unwrap());
        let one = accepted("http://h", &job, std::slice::from_ref(&task), false);
        assert_eq!(one, json!({"jobId": "j", "id": "t", "url": "http://h/jobs/j/tasks/t", "state": "active"}));
        let list = accepted("http://h", &job, &[task], true);
        assert_eq!(list["tasks"][0]["id"], "t");
    }

    #[test]
    fn the_end_of_a_stream_begins_with_a_character() {
        assert_eq!(end_of(b"abc"), "abc");
        let long = "é".repeat(TAIL_BYTES_MAX);
        let end = end_of(&long.as_bytes()[..long.len() - 1]);
        assert!(end.starts_with('é') && end.len() <= TAIL_BYTES_MAX + 2, "{}", end.len());
    }
}
