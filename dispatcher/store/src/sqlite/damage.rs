//! Task rows that this build cannot read: found by what the database itself can check, and overwritten so that they can
//! be read.
//!
//! Values that cannot be read get harmless defaults; the others stay.

use contract::{
    ids::{JobUid, TaskId, TaskUid},
    outcome::Stream,
};
use model::{
    health::Unreadable,
    task::{ExitConditions, Failure},
};
use rand::RngExt;
use rusqlite::Connection;

use crate::{
    StoreError,
    records::{Buried, Ending},
    sqlite::{
        cells::{self, Cells},
        dependencies, stream, tasks,
    },
};

const READY: &str = "SELECT uid FROM tasks INDEXED BY tasks_ready WHERE job = ?1 AND ready = 1 ORDER BY uid LIMIT ?2";

/// The rows among a job's next ready tasks that cannot be read.
pub(super) fn of_ready(connection: &Connection, job: JobUid, count: usize) -> Result<Vec<(TaskUid, Unreadable)>, StoreError> {
    let mut statement = connection.prepare_cached(READY)?;
    let uids = cells::task_uids(statement.query((job.0.cast_signed(), count.cast_signed()))?)?;
    let mut found = Vec::new();
    for uid in uids {
        match tasks::candidate_by_uid(connection, uid) {
            Err(StoreError::Corrupt { table, column }) => found.push((uid, Unreadable { table, row: uid.0.to_string(), column })),
            other => drop(other?),
        }
    }
    Ok(found)
}

/// A task's number by name.
pub(super) fn number_of(connection: &Connection, job: JobUid, task: &TaskId) -> Result<Option<TaskUid>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT uid FROM tasks WHERE job = ?1 AND id = ?2")?;
    let uids = cells::task_uids(statement.query((job.0.cast_signed(), task.as_str()))?)?;
    Ok(uids.first().copied())
}

const BEFORE: &str = "
SELECT CASE typeof(job) WHEN 'integer' THEN job END AS job,
    CASE WHEN typeof(slots) = 'integer' AND slots BETWEEN 1 AND 4294967295 THEN slots ELSE 1 END AS slots,
    ready IS 1 AS was_ready, state IS 1 OR state IS 2 AS was_running, state IS 3 AS was_completed, CAST(id AS TEXT) AS id
FROM tasks WHERE uid = ?1";

/// Numbers that cannot be read get the values of a new task.
const MEND: &str = "
UPDATE tasks SET job = ?5, id = ?2, plain = ?6, version = ?3, modified_at = ?4, ready = 0, rests_until = NULL, live = 0,
    run = NULL, node = NULL, pool = NULL, epoch = NULL,
    released_at = NULL, retried_at = NULL, requeued_at = NULL, previous_state = NULL, previous_at = NULL,
    fits = CASE WHEN fits IN (0, 1) THEN fits ELSE 1 END,
    satisfies = CASE WHEN satisfies IN (0, 1) THEN satisfies ELSE 0 END,
    slots = CASE WHEN typeof(slots) = 'integer' AND slots BETWEEN 1 AND 4294967295 THEN slots ELSE 1 END,
    attempt = CASE WHEN typeof(attempt) = 'integer' AND attempt BETWEEN 0 AND 4294967295 THEN attempt ELSE 0 END,
    crashes = CASE WHEN typeof(crashes) = 'integer' AND crashes BETWEEN 0 AND 4294967295 THEN crashes ELSE 0 END,
    retries = CASE WHEN typeof(retries) = 'integer' AND retries BETWEEN 0 AND 4294967295 THEN retries ELSE 0 END,
    requeues = CASE WHEN typeof(requeues) = 'integer' AND requeues BETWEEN 0 AND 4294967295 THEN requeues ELSE 0 END,
    retries_max = CASE WHEN typeof(retries_max) = 'integer' AND retries_max BETWEEN -1 AND 2147483647 THEN retries_max ELSE 0 END,
    fence = CASE WHEN typeof(fence) = 'integer' AND fence < 9223372036854775807 THEN fence + 1 ELSE 1 END,
    blockers = CASE typeof(blockers) WHEN 'integer' THEN blockers ELSE 0 END,
    created_at = CASE typeof(created_at) WHEN 'integer' THEN created_at ELSE ?4 END,
    state_at = CASE typeof(state_at) WHEN 'integer' THEN state_at ELSE ?4 END,
    started_at = CASE typeof(started_at) WHEN 'integer' THEN started_at END,
    ended_at = CASE typeof(ended_at) WHEN 'integer' THEN ended_at END,
    exit_code = CASE WHEN typeof(exit_code) = 'integer' AND exit_code BETWEEN -2147483648 AND 2147483647 THEN exit_code END,
    success = CASE WHEN success IN (0, 1) THEN success END
WHERE uid = ?1";

const TEXTS: &str = "SELECT document, exit_conditions, failure, stdout, stderr FROM task_texts WHERE uid = ?1";

const PUT_TEXTS: &str = "
INSERT OR REPLACE INTO task_texts (uid, document, exit_conditions, failure, stdout, stderr) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

/// Replaces a document that cannot be read.
const NO_DOCUMENT: &str = r#"{"commandLine":""}"#;

/// Sums that cannot be read restart at zero.
const MEND_SUMS: &str = "
DELETE FROM task_sums WHERE owner = ?1 AND NOT (typeof(user_ms) = 'integer' AND typeof(kernel_ms) = 'integer'
    AND typeof(wall_ms) = 'integer' AND typeof(in_bytes) = 'integer' AND typeof(out_bytes) = 'integer' AND typeof(wait_ms) = 'integer')";

/// Takes a task of unknown job out of all lists of work, and changes nothing else.
const SET_ASIDE: &str = "UPDATE tasks SET ready = 0, live = 0, rests_until = NULL WHERE uid = ?1";

const END: &str =
    "UPDATE tasks SET state = 3, state_at = ?2, success = 0, exit_code = NULL, started_at = NULL, ended_at = ?2 WHERE uid = ?1";

const END_TEXTS: &str = "UPDATE task_texts SET failure = ?2, stdout = NULL, stderr = NULL WHERE uid = ?1";

/// Makes a row readable and completes its task unless it is. `job` is used when the row's own cannot be read.
pub(super) fn bury(
    connection: &Connection,
    (uid, known_job): (TaskUid, Option<JobUid>),
    ending: &Ending,
    version: u64,
) -> Result<Option<Buried>, StoreError> {
    let number = uid.0.cast_signed();
    let Some((mut buried, stored_name)) = before(connection, uid)? else { return Ok(None) };
    buried.job = buried.job.or(known_job);
    tasks::published(connection, uid)?;
    let Some(job) = buried.job else {
        connection.prepare_cached(SET_ASIDE)?.execute([number])?;
        return Ok(Some(buried));
    };
    let name = free_name(connection, job, uid, stored_name)?;
    let plain = dependencies::other_spelling(&name);
    connection.prepare_cached(MEND)?.execute((number, &name, version.cast_signed(), ending.at.0, job.0.cast_signed(), plain))?;
    connection.prepare_cached(MEND_SUMS)?.execute([number])?;
    mend_texts(connection, number)?;
    if !buried.was_completed {
        connection.prepare_cached(END)?.execute((number, ending.at.0))?;
        connection.prepare_cached(END_TEXTS)?.execute((number, ending.failure.as_ref().map(cells::json)))?;
    }
    Ok(Some(buried))
}

/// The task's former state, and its name if it can be read.
fn before(connection: &Connection, uid: TaskUid) -> Result<Option<(Buried, Option<TaskId>)>, StoreError> {
    let mut statement = connection.prepare_cached(BEFORE)?;
    let mut rows = statement.query([uid.0.cast_signed()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let cells = &Cells::new(row, "tasks");
    let buried = Buried {
        job: cells.get::<Option<i64>>("job")?.map(|job| JobUid(job.cast_unsigned())),
        slots: cells.small("slots")?,
        was_ready: cells.flag("was_ready")?,
        was_running: cells.flag("was_running")?,
        was_completed: cells.flag("was_completed")?,
    };
    Ok(Some((buried, cells.name("id").ok())))
}

/// A name that no other task of the job has: its own if it can be read.
fn free_name(connection: &Connection, job: JobUid, uid: TaskUid, stored: Option<TaskId>) -> Result<String, StoreError> {
    let mut others = connection.prepare_cached("SELECT uid FROM tasks WHERE job = ?1 AND id = ?2 AND uid <> ?3")?;
    let fallback = format!("unreadable-{}", uid.0);
    for name in stored.map(|name| name.to_string()).into_iter().chain([fallback.clone()]) {
        if others.query((job.0.cast_signed(), &name, uid.0.cast_signed()))?.next()?.is_none() {
            return Ok(name);
        }
    }
    // A random name, which nobody can have taken.
    Ok(format!("{fallback}-{:032x}", rand::rng().random::<u128>()))
}

fn mend_texts(connection: &Connection, number: i64) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(TEXTS)?;
    let mut rows = statement.query([number])?;
    let (mut document, mut conditions, mut failure) = (None, None, None);
    let mut streams = [Stream::Empty, Stream::Empty];
    if let Some(row) = rows.next()? {
        let texts = Cells::new(row, "task_texts");
        let text = |column| texts.get::<String>(column).ok();
        document = text("document").filter(|text| serde_json::from_str::<serde_json::Map<_, serde_json::Value>>(text).is_ok());
        conditions = text("exit_conditions").filter(|text| serde_json::from_str::<ExitConditions>(text).is_ok());
        failure = text("failure").filter(|text| serde_json::from_str::<Failure>(text).is_ok());
        streams = ["stdout", "stderr"].map(|column| stream::read(&texts, column).unwrap_or(Stream::Empty));
    }
    drop(rows);
    let document = document.unwrap_or_else(|| NO_DOCUMENT.to_owned());
    let [stdout, stderr] = streams.map(|stream| stream::encode(&stream));
    connection.prepare_cached(PUT_TEXTS)?.execute((number, document, conditions, failure, stdout, stderr))?;
    Ok(())
}
