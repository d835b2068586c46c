//! Changes of existing tasks that clients request: limits, reactivation, another pool.

use contract::{
    ids::{Fence, JobUid, PoolId, TaskUid},
    outcome::Stream,
    time::Timestamp,
};
use model::task::StreamName;
use rusqlite::{Connection, params};

use crate::{
    StoreError,
    sqlite::{cells::Cells, stream},
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

/// Forgets a stored stream; what is left of it is on the node.
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

/// Makes a failed task active again with all its retries; returns whether it may run at once.
pub(super) fn reactivate(connection: &Connection, uid: TaskUid, fence: Fence, at: Timestamp, version: u64) -> Result<bool, StoreError> {
    let number = uid.0.cast_signed();
    let mut statement = connection.prepare_cached(REACTIVATE)?;
    let mut rows = statement.query((number, fence.0.cast_signed(), version.cast_signed(), at.0))?;
    let Some(row) = rows.next()? else {
        tracing::warn!(uid = uid.0, "a task that was to be reactivated has not failed; it stays as it is");
        return Ok(false);
    };
    let is_ready = Cells::new(row, "tasks").flag("ready")?;
    // SQLite has completed an UPDATE with RETURNING only when its last row was read.
    while rows.next()?.is_some() {}
    let mut texts = connection.prepare_cached("UPDATE task_texts SET failure = NULL, stdout = NULL, stderr = NULL WHERE uid = ?1")?;
    texts.execute([number])?;
    Ok(is_ready)
}

/// Records the pool of the last runs of a job that is about to move.
const NOTE_POOL: &str = "UPDATE tasks SET pool = ?2 WHERE job = ?1 AND node IS NOT NULL AND pool IS NULL";

/// Only rows that change are visited; a task of one slot fits every node. For released and running tasks it takes
/// effect later.
const FIT: &str = "
UPDATE tasks SET fits = 1, ready = (state = 0 AND blockers = 0 AND rests_until IS NULL AND live = 0) WHERE uid IN (
    SELECT uid FROM tasks INDEXED BY tasks_wide WHERE job = ?1 AND fits = 0 AND slots > 1 AND slots <= ?2 LIMIT ?3)";

const UNFIT: &str = "
UPDATE tasks SET fits = 0, ready = 0 WHERE uid IN (
    SELECT uid FROM tasks INDEXED BY tasks_wide WHERE job = ?1 AND fits = 1 AND slots > 1 AND slots > ?2 LIMIT ?3)";

/// Jobs with tasks to change after the slots per node changed; in a pool that does not exist yet, every task fits.
const UNFITTED: &str = "
SELECT j.uid FROM jobs j LEFT JOIN pools p ON p.id = j.pool WHERE j.state <> 'completed' AND (
    EXISTS (SELECT 1 FROM tasks t INDEXED BY tasks_wide WHERE t.job = j.uid AND t.fits = 0 AND t.slots > 1
        AND t.slots <= COALESCE(p.slots_per_node, 4294967295))
    OR EXISTS (SELECT 1 FROM tasks t INDEXED BY tasks_wide WHERE t.job = j.uid AND t.fits = 1 AND t.slots > 1
        AND t.slots > COALESCE(p.slots_per_node, 4294967295)))";

/// A job without released or running tasks leaves a pool.
pub(super) fn leave_pool(connection: &Connection, job: JobUid, pool: &PoolId) -> Result<(), StoreError> {
    connection.prepare_cached(NOTE_POOL)?.execute(params![job.0.cast_signed(), pool.as_str()])?;
    Ok(())
}

/// Updates which tasks fit nodes with this many slots; returns how many changed, `count` at most.
pub(super) fn refit(connection: &Connection, job: JobUid, slots_max: u32, count: usize) -> Result<usize, StoreError> {
    let mut changed = 0;
    for update in [FIT, UNFIT] {
        let left = (count - changed).cast_signed();
        changed += connection.prepare_cached(update)?.execute((job.0.cast_signed(), slots_max, left))?;
    }
    Ok(changed)
}

/// Jobs for which [`refit`] would change something.
pub(super) fn unfitted(connection: &Connection) -> Result<Vec<JobUid>, StoreError> {
    let mut statement = connection.prepare(UNFITTED)?;
    let mut rows = statement.query([])?;
    let mut jobs = Vec::new();
    while let Some(row) = rows.next()? {
        jobs.push(JobUid(Cells::new(row, "jobs").number("uid")?));
    }
    Ok(jobs)
}
