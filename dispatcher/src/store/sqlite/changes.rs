//! Changes of tasks that people ask for after they were added: new limits, another go, another pool.

use broker_config::{
    ids::{Fence, JobUid, PoolId, TaskUid},
    message::Stream,
    time::Timestamp,
};
use rusqlite::{Connection, params};

use crate::{
    command::StreamName,
    store::{StoreError, sqlite::stream},
};

const UPDATE: &str = "UPDATE tasks SET retries_max = ?2, version = ?3, modified_at = ?4 WHERE uid = ?1";

/// Replaces a task's document and what follows from its constraints.
pub(super) fn update(
    connection: &Connection,
    uid: TaskUid,
    document: &str,
    retries_max: i32,
    at: Timestamp,
    version: u64,
) -> Result<(), StoreError> {
    let number = uid.0.cast_signed();
    connection.prepare_cached(UPDATE)?.execute((number, retries_max, version.cast_signed(), at.0))?;
    connection.prepare_cached("UPDATE task_texts SET document = ?2 WHERE uid = ?1")?.execute((number, document))?;
    Ok(())
}

/// A kept stream goes; what is left of it, if anything, is on the node.
pub(super) fn forget_stream(connection: &Connection, uid: TaskUid, stream: StreamName) -> Result<(), StoreError> {
    let update = match stream {
        StreamName::Stdout => "UPDATE task_texts SET stdout = ?2 WHERE uid = ?1",
        StreamName::Stderr => "UPDATE task_texts SET stderr = ?2 WHERE uid = ?1",
    };
    connection.prepare_cached(update)?.execute((uid.0.cast_signed(), stream::encode(&Stream::Node { bytes: 0 })))?;
    Ok(())
}

const REACTIVATE: &str = "
UPDATE tasks SET state = 0, ready = (blockers = 0 AND fits = 1), live = 0, satisfies = 0, fence = ?2, version = ?3,
    modified_at = ?4, state_at = ?4, previous_state = state, previous_at = state_at, retries = 0, retried_at = NULL, crashes = 0,
    node = NULL, pool = NULL, run = NULL, epoch = NULL, released_at = NULL, started_at = NULL, ended_at = NULL,
    exit_code = NULL, success = NULL
WHERE uid = ?1 AND state = 3 AND success = 0 RETURNING ready";

/// A failed task is active again and may spend its retries anew; whether it may run at once.
pub(super) fn reactivate(connection: &Connection, uid: TaskUid, fence: Fence, at: Timestamp, version: u64) -> Result<bool, StoreError> {
    let number = uid.0.cast_signed();
    let mut statement = connection.prepare_cached(REACTIVATE)?;
    let mut rows = statement.query((number, fence.0.cast_signed(), version.cast_signed(), at.0))?;
    let Some(row) = rows.next()? else {
        tracing::warn!(uid = uid.0, "only a failed task can be reactivated");
        return Ok(false);
    };
    let is_ready = row.get(0)?;
    // The update is complete only when its last row was taken.
    while rows.next()?.is_some() {}
    let mut texts = connection.prepare_cached("UPDATE task_texts SET failure = NULL, stdout = NULL, stderr = NULL WHERE uid = ?1")?;
    texts.execute([number])?;
    Ok(is_ready)
}

/// Where the last run was, for tasks whose job is about to be elsewhere.
const NOTE_POOL: &str = "UPDATE tasks SET pool = ?2 WHERE job = ?1 AND node IS NOT NULL AND pool IS NULL";

const REFIT: &str = "
UPDATE tasks SET fits = slots <= ?2, ready = (state = 0 AND blockers = 0 AND slots <= ?2)
WHERE job = ?1 AND live = 0 AND fits <> (slots <= ?2)";

/// A job of which nothing is live leaves a pool.
pub(super) fn leave_pool(connection: &Connection, job: JobUid, pool: &PoolId) -> Result<(), StoreError> {
    connection.prepare_cached(NOTE_POOL)?.execute(params![job.0.cast_signed(), pool.as_str()])?;
    Ok(())
}

/// The nodes of a job's pool have so many slots now; how many of its tasks are ready.
pub(super) fn refit(connection: &Connection, job: JobUid, slots_max: u32) -> Result<u64, StoreError> {
    connection.prepare_cached(REFIT)?.execute((job.0.cast_signed(), slots_max))?;
    super::jobs::ready(connection, job)
}
