//! Tasks that are queued again, some of them after a pause.
//!
//! ```text
//! live ──requeue──► ready
//!          └──► pausing (`rests_until` is set, `ready` is not) ──wake──► ready
//! ```

use contract::{
    backoff::RETRY_PAUSE_LIMIT_MS,
    ids::{Fence, JobUid, TaskUid},
    time::Timestamp,
};
use model::task::RequeueCause;
use rusqlite::{Connection, params};

use crate::{
    StoreError,
    records::Requeue,
    sqlite::{cells::Cells, tasks},
};

/// Tasks that one call makes ready at most.
const WAKE_MAX: i64 = 4_096;

const REQUEUE: &str = "
UPDATE tasks SET state = 0, ready = (?8 IS NULL AND fits = 1), rests_until = ?8, live = 0, satisfies = 0,
    fence = ?2, crashes = ?3, version = ?4, modified_at = ?5, state_at = ?5,
    previous_state = CASE state WHEN 0 THEN previous_state ELSE state END,
    previous_at = CASE state WHEN 0 THEN previous_at ELSE state_at END,
    retries = retries + ?6, retried_at = CASE ?6 WHEN 1 THEN ?5 ELSE retried_at END,
    requeues = requeues + ?7, requeued_at = CASE ?7 WHEN 1 THEN ?5 ELSE requeued_at END,
    node = NULL, pool = NULL, epoch = NULL, released_at = NULL, started_at = NULL, ended_at = NULL, exit_code = NULL, success = NULL
WHERE uid = ?1";

/// Clears the former end and run.
const FORGET_END: &str = "
UPDATE task_texts SET failure = NULL, stdout = NULL, stderr = NULL
WHERE uid = ?1 AND (failure IS NOT NULL OR stdout IS NOT NULL OR stderr IS NOT NULL)";

/// A task that would pause for longer than the longest pause was stored under another clock; it is due, too.
const WAKE: &str = "
UPDATE tasks SET ready = (fits IS NOT 0), rests_until = NULL WHERE uid IN (
    SELECT uid FROM tasks INDEXED BY tasks_resting
    WHERE job = ?1 AND rests_until IS NOT NULL AND (rests_until <= ?2 OR rests_until > ?3) LIMIT ?4)
RETURNING ready";

const RESTS: &str = "SELECT EXISTS (SELECT 1 FROM tasks INDEXED BY tasks_resting WHERE job = ?1 AND rests_until IS NOT NULL) AS rest";

/// Makes a task active again: ready, pausing, or not ready because it fits no node. The row keeps the run until the
/// next release, because its streams may still arrive.
pub(super) fn requeue(connection: &Connection, uid: TaskUid, fence: Fence, requeue: &Requeue, version: u64) -> Result<(), StoreError> {
    connection.prepare_cached(FORGET_END)?.execute([uid.0.cast_signed()])?;
    connection.prepare_cached(REQUEUE)?.execute((
        uid.0.cast_signed(),
        fence.0.cast_signed(),
        requeue.crashes,
        version.cast_signed(),
        requeue.at.0,
        i64::from(requeue.cause == RequeueCause::Retry),
        i64::from(requeue.cause == RequeueCause::Requested),
        requeue.rests_until.map(|at| at.0),
    ))?;
    tasks::published(connection, uid)
}

/// Makes tasks of a job ready whose pause is over; returns how many, and whether others still pause.
pub(super) fn wake(connection: &Connection, job: JobUid, now: Timestamp) -> Result<(u64, bool), StoreError> {
    let number = job.0.cast_signed();
    let latest = now.plus_ms(RETRY_PAUSE_LIMIT_MS.cast_signed());
    let mut statement = connection.prepare_cached(WAKE)?;
    let mut rows = statement.query(params![number, now.0, latest.0, WAKE_MAX])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        count += u64::from(Cells::new(row, "tasks").flag("ready")?);
    }
    let mut rests = connection.prepare_cached(RESTS)?;
    let mut rows = rests.query([number])?;
    let more = rows.next()?.map_or(Ok(false), |row| Cells::new(row, "tasks").flag("rest"))?;
    Ok((count, more))
}
