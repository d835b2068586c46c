//! Rows of tasks: the hot path from insert to end.
//!
//! ```text
//! insert ─► ready ─release─► live ─start─► running ─end─► completed
//!             ▲  ◄─unrelease──┘             │
//!             └──────────────requeue────────┘      `ready` and `live` are never both set; see `rest` for pauses
//! ```

use contract::{
    ids::{Epoch, Fence, JobUid, NodeId, RunId, RunKey, TaskId, TaskUid},
    outcome::Stream,
    state::TaskState,
    time::Timestamp,
};
use model::task::ExitConditions;
use rusqlite::{Connection, Params, params};

use crate::{
    StoreError,
    records::{Candidate, Ending, Inserted, NewTaskRecord, Streams, TaskHead},
    sqlite::{
        cells::{self, Cells},
        dependencies, stream,
    },
};

const ACTIVE: i64 = 0;
const PREPARING: i64 = 1;
const RUNNING: i64 = 2;
const COMPLETED: i64 = 3;

/// A state's number in the table.
pub(super) fn code(state: TaskState) -> i64 {
    match state {
        TaskState::Active => ACTIVE,
        TaskState::Preparing => PREPARING,
        TaskState::Running => RUNNING,
        TaskState::Completed => COMPLETED,
    }
}

/// The state with this number.
pub(super) fn state_of(code_found: i64) -> Option<TaskState> {
    TaskState::ALL.iter().copied().find(|state| code(*state) == code_found)
}

const INSERT: &str = "
INSERT INTO tasks (uid, job, id, ready, fits, blockers, plain, fence, slots, retries_max, version, created_at, modified_at, state_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12, ?12) ON CONFLICT (job, id) DO NOTHING";

/// Adds a task unless its name is taken.
pub(super) fn insert(connection: &Connection, job: JobUid, task: &NewTaskRecord<'_>) -> Result<Inserted, StoreError> {
    let blockers = dependencies::open(connection, job, task.depends_on)?;
    let is_ready = task.fits && blockers.is_empty();
    let added = connection.prepare_cached(INSERT)?.execute(params![
        task.uid.0.cast_signed(),
        job.0.cast_signed(),
        task.id.as_str(),
        is_ready,
        task.fits,
        blockers.len().cast_signed(),
        dependencies::other_spelling(task.id.as_str()),
        task.fence.0.cast_signed(),
        task.slots,
        task.retries_max,
        task.version.cast_signed(),
        task.at.0,
    ])?;
    if added == 0 {
        return Ok(Inserted::Exists);
    }
    let mut texts = connection.prepare_cached("INSERT INTO task_texts (uid, document, exit_conditions) VALUES (?1, ?2, ?3)")?;
    texts.execute((task.uid.0.cast_signed(), task.document, task.exit_conditions.map(cells::json)))?;
    dependencies::insert(connection, job, task.uid, &blockers)?;
    Ok(if is_ready { Inserted::Ready } else { Inserted::Blocked })
}

/// The columns that [`head`] reads.
macro_rules! head {
    ($condition:literal) => {
        concat!("SELECT uid, id, state, ready, live, success, fence, slots, version, modified_at FROM tasks WHERE ", $condition)
    };
}

/// Finds a task by name.
pub(super) fn by_name(connection: &Connection, job: JobUid, task: &TaskId) -> Result<Option<TaskHead>, StoreError> {
    let mut statement = connection.prepare_cached(head!("job = ?1 AND id = ?2"))?;
    let mut rows = statement.query((job.0.cast_signed(), task.as_str()))?;
    rows.next()?.map(|row| head(&Cells::new(row, "tasks"))).transpose()
}

/// Finds a task by number.
pub(super) fn by_uid(connection: &Connection, uid: TaskUid) -> Result<Option<TaskHead>, StoreError> {
    let mut statement = connection.prepare_cached(head!("uid = ?1"))?;
    let mut rows = statement.query([uid.0.cast_signed()])?;
    rows.next()?.map(|row| head(&Cells::new(row, "tasks"))).transpose()
}

fn head(cells: &Cells<'_>) -> Result<TaskHead, StoreError> {
    Ok(TaskHead {
        uid: TaskUid(cells.number("uid")?),
        id: cells.name("id")?,
        state: cells.code("state", state_of)?,
        is_ready: cells.flag("ready")?,
        is_live: cells.flag("live")?,
        has_succeeded: cells.get("success")?,
        fence: cells.fence("fence")?,
        slots: cells.small("slots")?,
        version: cells.number("version")?,
        modified_at: cells.time("modified_at")?,
    })
}

/// The columns that [`candidate`] reads.
macro_rules! candidate {
    ($index:literal, $condition:literal) => {
        concat!(
            "SELECT t.uid, t.job, t.id, t.attempt, t.fence, t.slots, t.crashes, t.retries, t.retries_max, x.document
             FROM tasks t ",
            $index,
            " JOIN task_texts x ON x.uid = t.uid WHERE ",
            $condition
        )
    };
}

/// The next tasks of a job that may run and are not released.
pub(super) fn next_ready(connection: &Connection, job: JobUid, count: usize) -> Result<Vec<Candidate>, StoreError> {
    let mut statement =
        connection.prepare_cached(candidate!("INDEXED BY tasks_ready", "t.job = ?1 AND t.ready = 1 ORDER BY t.uid LIMIT ?2"))?;
    let mut rows = statement.query((job.0.cast_signed(), count.cast_signed()))?;
    let mut candidates = Vec::new();
    while let Some(row) = rows.next()? {
        candidates.push(candidate(&Cells::new(row, "tasks"))?);
    }
    Ok(candidates)
}

/// Reads a task as a candidate for release, ready or not.
pub(super) fn candidate_by_uid(connection: &Connection, uid: TaskUid) -> Result<Option<Candidate>, StoreError> {
    let mut statement = connection.prepare_cached(candidate!("", "t.uid = ?1"))?;
    let mut rows = statement.query([uid.0.cast_signed()])?;
    rows.next()?.map(|row| candidate(&Cells::new(row, "tasks"))).transpose()
}

fn candidate(cells: &Cells<'_>) -> Result<Candidate, StoreError> {
    Ok(Candidate {
        uid: TaskUid(cells.number("uid")?),
        job: JobUid(cells.number("job")?),
        id: cells.name("id")?,
        attempt: cells.small("attempt")?,
        fence: cells.fence("fence")?,
        slots: cells.small("slots")?,
        crashes: cells.small("crashes")?,
        retries: cells.small("retries")?,
        retries_max: cells.get("retries_max")?,
        document: cells.get("document")?,
    })
}

const RELEASE: &str = "UPDATE tasks SET ready = 0, live = 1, attempt = ?2, fence = ?3, released_at = ?4 WHERE uid = ?1";

/// Stores an attempt that is handed to the broker.
pub(super) fn release(connection: &Connection, uid: TaskUid, attempt: u32, fence: Fence, at: Timestamp) -> Result<(), StoreError> {
    let number = uid.0.cast_signed();
    connection.prepare_cached(RELEASE)?.execute((number, attempt, fence.0.cast_signed(), at.0))?;
    connection.prepare_cached("INSERT OR IGNORE INTO outbox (uid) VALUES (?1)")?.execute([number])?;
    Ok(())
}

/// Deletes the outbox row of a confirmed publish.
pub(super) fn published(connection: &Connection, uid: TaskUid) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM outbox WHERE uid = ?1")?.execute([uid.0.cast_signed()])?;
    Ok(())
}

/// Takes back an attempt that never started. It becomes ready unless it no longer fits its pool's nodes.
pub(super) fn unrelease(connection: &Connection, uid: TaskUid, fence: Fence) -> Result<(), StoreError> {
    let mut statement =
        connection.prepare_cached("UPDATE tasks SET ready = fits, live = 0, fence = ?2, released_at = NULL WHERE uid = ?1")?;
    statement.execute((uid.0.cast_signed(), fence.0.cast_signed()))?;
    published(connection, uid)
}

const START: &str = "
UPDATE tasks SET state = 2, run = ?2, node = ?3, pool = NULL, epoch = ?4, started_at = ?5, version = ?6, modified_at = ?5, state_at = ?5,
    previous_state = CASE state WHEN 2 THEN previous_state ELSE state END,
    previous_at = CASE state WHEN 2 THEN previous_at ELSE state_at END
WHERE uid = ?1 RETURNING previous_at";

const PREPARE: &str = "
UPDATE tasks SET state = 1, run = ?2, node = ?3, pool = NULL, epoch = ?4, started_at = ?5, version = ?6, modified_at = ?5, state_at = ?5,
    previous_state = state, previous_at = state_at
WHERE uid = ?1 RETURNING previous_at";

const BEGIN: &str = "
UPDATE tasks SET state = 2, started_at = ?2, version = ?3, modified_at = ?2, state_at = ?2,
    previous_state = CASE state WHEN 1 THEN state ELSE previous_state END,
    previous_at = CASE state WHEN 1 THEN state_at ELSE previous_at END
WHERE uid = ?1 AND state IN (1, 2)";

/// A run owns the attempt and waits for its job's preparation.
pub(super) fn prepare(
    connection: &Connection,
    (uid, run): (TaskUid, RunId),
    (node, epoch): (&NodeId, Epoch),
    at: Timestamp,
    version: u64,
) -> Result<Option<Timestamp>, StoreError> {
    let number = uid.0.cast_signed();
    let row = (number, cells::run(run), node.as_str(), epoch.0.cast_signed(), at.0, version.cast_signed());
    active_since(connection, PREPARE, row)
}

/// Runs an update that returns since when its task was active before; `None` when the row is gone.
fn active_since(connection: &Connection, update: &str, row: impl Params) -> Result<Option<Timestamp>, StoreError> {
    let mut statement = connection.prepare_cached(update)?;
    let mut rows = statement.query(row)?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let since = Cells::new(row, "tasks").time_if("previous_at");
    // SQLite has completed an UPDATE with RETURNING only when its last row was read.
    while rows.next()?.is_some() {}
    since
}

/// A run that waited for its job's preparation has begun.
pub(super) fn begin(connection: &Connection, uid: TaskUid, at: Timestamp, version: u64) -> Result<(), StoreError> {
    connection.prepare_cached(BEGIN)?.execute((uid.0.cast_signed(), at.0, version.cast_signed()))?;
    Ok(())
}

/// A run owns the attempt.
pub(super) fn start(
    connection: &Connection,
    uid: TaskUid,
    run: RunId,
    node: &NodeId,
    epoch: Epoch,
    at: Timestamp,
    version: u64,
) -> Result<Option<Timestamp>, StoreError> {
    let number = uid.0.cast_signed();
    let row = (number, cells::run(run), node.as_str(), epoch.0.cast_signed(), at.0, version.cast_signed());
    active_since(connection, START, row)
}

const END: &str = "
UPDATE tasks SET state = 3, ready = 0, live = 0, rests_until = NULL, fence = ?2, success = ?3, exit_code = ?4,
    run = CASE ?9 WHEN 1 THEN run END,
    started_at = COALESCE(?5, started_at), node = COALESCE(?6, node), ended_at = ?7, version = ?8, modified_at = ?7, state_at = ?7,
    previous_state = state, previous_at = state_at
WHERE uid = ?1 AND state <> 3 RETURNING attempt > 1 AS ran_before";

/// Completes a task; one that is completed already stays as it is.
pub(super) fn end(connection: &Connection, uid: TaskUid, ending: &Ending, version: u64) -> Result<(), StoreError> {
    let number = uid.0.cast_signed();
    let mut statement = connection.prepare_cached(END)?;
    let row = (
        number,
        ending.fence.0.cast_signed(),
        ending.has_succeeded,
        ending.exit_code,
        ending.started_at.map(|at| at.0),
        ending.node.as_ref().map(NodeId::as_str),
        ending.at.0,
        version.cast_signed(),
        ending.streams == Streams::Awaited,
    );
    let mut rows = statement.query(row)?;
    let ended = rows.next()?.map(|row| Cells::new(row, "tasks").flag("ran_before")).transpose()?;
    // SQLite has completed an UPDATE with RETURNING only when its last row was read.
    while rows.next()?.is_some() {}
    let Some(ran_before) = ended else {
        tracing::warn!(uid = uid.0, "ignored the end of a task that is already completed or deleted");
        return Ok(());
    };
    let (failure, stdout, stderr) =
        (ending.failure.as_ref().map(cells::json), stream::encode(&ending.stdout), stream::encode(&ending.stderr));
    if ending.streams == Streams::Earlier {
        let mut texts = connection.prepare_cached("UPDATE task_texts SET failure = ?2 WHERE uid = ?1")?;
        texts.execute((number, failure))?;
    } else if failure.is_some() || stdout.is_some() || stderr.is_some() || ran_before {
        let mut texts = connection.prepare_cached("UPDATE task_texts SET failure = ?2, stdout = ?3, stderr = ?4 WHERE uid = ?1")?;
        texts.execute((number, failure, stdout, stderr))?;
    }
    published(connection, uid)
}

const HEARD: &str = "UPDATE tasks SET run = NULL WHERE uid = ?1 AND attempt = ?2 AND run = ?3 AND live = 0 AND COALESCE(node, ?4) = ?4";

/// Stores the streams of a run that were reported after its task was ended or queued again.
pub(super) fn keep_streams(
    connection: &Connection,
    run: &RunKey,
    node: &NodeId,
    (stdout, stderr): (&Stream, &Stream),
) -> Result<(), StoreError> {
    let number = run.uid.0.cast_signed();
    if connection.prepare_cached(HEARD)?.execute((number, run.attempt, cells::run(run.run), node.as_str()))? == 0 {
        return Ok(());
    }
    let mut texts = connection.prepare_cached("UPDATE task_texts SET stdout = ?2, stderr = ?3 WHERE uid = ?1")?;
    texts.execute((number, stream::encode(stdout), stream::encode(stderr)))?;
    Ok(())
}

/// The task's exit conditions.
pub(super) fn exit_conditions(connection: &Connection, uid: TaskUid) -> Result<Option<ExitConditions>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT exit_conditions FROM task_texts WHERE uid = ?1")?;
    let mut rows = statement.query([uid.0.cast_signed()])?;
    match rows.next()? {
        Some(row) => Cells::new(row, "task_texts").json_if("exit_conditions"),
        None => Ok(None),
    }
}

/// Removes one task.
pub(super) fn delete(connection: &Connection, uid: TaskUid) -> Result<(), StoreError> {
    // Its rows in `dependencies` stay until the dependencies are met or the job is deleted. Numbers are not reused, so
    // they affect no other task.
    for statement in [
        "DELETE FROM tasks WHERE uid = ?1",
        "DELETE FROM task_texts WHERE uid = ?1",
        "DELETE FROM task_sums WHERE owner = ?1",
        "DELETE FROM outbox WHERE uid = ?1",
    ] {
        connection.prepare_cached(statement)?.execute([uid.0.cast_signed()])?;
    }
    Ok(())
}

/// Blob keys of a task's streams; an unreadable stream has none.
pub(super) fn blobs(connection: &Connection, uid: TaskUid) -> Result<[Option<String>; 2], StoreError> {
    let mut statement = connection.prepare_cached("SELECT stdout, stderr FROM task_texts WHERE uid = ?1")?;
    let mut rows = statement.query([uid.0.cast_signed()])?;
    let Some(row) = rows.next()? else { return Ok([None, None]) };
    let texts = Cells::new(row, "task_texts");
    Ok(["stdout", "stderr"].map(|column| match stream::read(&texts, column) {
        Ok(Stream::Blob { key, .. }) => Some(key),
        _ => None,
    }))
}

/// Deletes tasks of a job in the order of their names; returns how many, and the blobs of their streams.
pub(super) fn delete_some(connection: &Connection, job: JobUid, count: usize) -> Result<(usize, Vec<String>), StoreError> {
    let mut statement = connection.prepare_cached("SELECT uid FROM tasks WHERE job = ?1 ORDER BY id LIMIT ?2")?;
    let uids = cells::task_uids(statement.query((job.0.cast_signed(), count.cast_signed()))?)?;
    let mut keys = Vec::new();
    for uid in &uids {
        keys.extend(blobs(connection, *uid)?.into_iter().flatten());
        delete(connection, *uid)?;
    }
    Ok((uids.len(), keys))
}
