//! Rows of jobs, as the engine writes and loads them.

use contract::{
    ids::{JobId, JobUid, TaskUid},
    state::JobState,
    time::Timestamp,
};
use model::{health::Unreadable, job::Counts};
use rand::RngExt;
use rusqlite::{Connection, params};

use crate::{
    StoreError,
    records::JobRecord,
    sqlite::{
        cells::{self, Cells},
        dependencies, job_tasks, tasks,
    },
};

const PUT: &str = "
INSERT INTO jobs (uid, id, version, state, state_at, previous_state, previous_at, pool, priority, max_parallel, environment,
    max_task_retry_count, max_wall_clock_ms, terminate_when_complete, performs_exit_options, uses_dependencies, created_at,
    modified_at, ended_at, terminate_reason, tasks_active, tasks_running, tasks_succeeded, tasks_failed,
    slots_active, slots_running, slots_succeeded, slots_failed, ends_with, auto_pool, scheduling_error)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24,
    ?25, ?26, ?27, ?28, ?29, ?30, ?31)
ON CONFLICT (uid) DO UPDATE SET version = ?3, state = ?4, state_at = ?5, previous_state = ?6, previous_at = ?7, pool = ?8,
    priority = ?9, max_parallel = ?10, environment = ?11, max_task_retry_count = ?12, max_wall_clock_ms = ?13,
    terminate_when_complete = ?14, performs_exit_options = ?15, uses_dependencies = ?16, created_at = ?17,
    modified_at = ?18, ended_at = ?19, terminate_reason = ?20, tasks_active = ?21, tasks_running = ?22,
    tasks_succeeded = ?23, tasks_failed = ?24, slots_active = ?25, slots_running = ?26, slots_succeeded = ?27,
    slots_failed = ?28, ends_with = ?29, auto_pool = ?30, scheduling_error = ?31";

/// The columns that [`record`] reads.
macro_rules! columns {
    () => {
        "uid, id, version, state, state_at, previous_state, previous_at, pool, priority, max_parallel, environment,
    max_task_retry_count, max_wall_clock_ms, terminate_when_complete, performs_exit_options, uses_dependencies, created_at,
    modified_at, ended_at, terminate_reason, tasks_active, tasks_running, tasks_succeeded, tasks_failed,
    slots_active, slots_running, slots_succeeded, slots_failed, ends_with, auto_pool, scheduling_error"
    };
}

const ALIVE: &str = concat!("SELECT ", columns!(), " FROM jobs WHERE state <> 'completed' ORDER BY uid");
const BY_NAME: &str = concat!("SELECT ", columns!(), " FROM jobs WHERE id = ?1");
const BY_UID: &str = concat!("SELECT ", columns!(), " FROM jobs WHERE uid = ?1");
/// Jobs after a number, for the scan.
pub(super) const SLICE: &str = concat!("SELECT ", columns!(), " FROM jobs WHERE uid > ?1 ORDER BY uid LIMIT ?2");

/// Stands in for the pool of a job whose own cannot be read; no pool has this name unless a client chooses it.
const UNREADABLE: &str = "unreadable";

/// Inserts or replaces a job; the document only when given.
pub(super) fn put(connection: &Connection, job: &JobRecord, document: Option<&str>) -> Result<(), StoreError> {
    connection.prepare_cached(PUT)?.execute(params![
        job.uid.0.cast_signed(),
        job.id.as_str(),
        job.version.cast_signed(),
        job.state.as_str(),
        job.state_at.0,
        job.previous.map(|(state, _)| state.as_str()),
        job.previous.map(|(_, at)| at.0),
        job.pool.as_str(),
        job.priority,
        job.max_parallel,
        cells::list(&job.environment),
        job.max_task_retry_count,
        job.max_wall_clock.map(|period| period.as_ms().cast_signed()),
        job.terminate_when_complete,
        job.performs_exit_options,
        job.uses_dependencies,
        job.created_at.0,
        job.modified_at.0,
        job.ended_at.map(|at| at.0),
        job.terminate_reason,
        job.tasks.active.cast_signed(),
        job.tasks.running.cast_signed(),
        job.tasks.succeeded.cast_signed(),
        job.tasks.failed.cast_signed(),
        job.slots.active.cast_signed(),
        job.slots.running.cast_signed(),
        job.slots.succeeded.cast_signed(),
        job.slots.failed.cast_signed(),
        job.ends_with.map(|uid| uid.0.cast_signed()),
        job.auto_pool.as_ref().map(cells::json),
        job.scheduling_error.as_ref().map(cells::json),
    ])?;
    if let Some(document) = document {
        let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO job_texts (uid, document) VALUES (?1, ?2)")?;
        statement.execute((job.uid.0.cast_signed(), document))?;
    }
    Ok(())
}

/// A job's document.
pub(super) fn document(connection: &Connection, job: JobUid) -> Result<Option<String>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT document FROM job_texts WHERE uid = ?1")?;
    let mut rows = statement.query([job.0.cast_signed()])?;
    rows.next()?.map(|row| Cells::new(row, "job_texts").get("document")).transpose()
}

/// Deletes rows of a job, its tasks first; returns how many, and the blobs of the tasks' streams.
pub(super) fn delete_rows(connection: &Connection, job: JobUid, count: usize) -> Result<(usize, Vec<String>), StoreError> {
    let (mut gone, blobs) = tasks::delete_some(connection, job, count)?;
    // One task may depend on thousands, and one job may have been on as many nodes.
    for delete in [dependencies::delete_some, job_tasks::delete_some] {
        gone += delete(connection, job, count - gone)?;
    }
    Ok((gone, blobs))
}

/// Deletes a job whose other rows are gone.
pub(super) fn delete(connection: &Connection, job: JobUid) -> Result<(), StoreError> {
    let uid = job.0.cast_signed();
    connection.prepare_cached("DELETE FROM job_texts WHERE uid = ?1")?.execute([uid])?;
    connection.prepare_cached("DELETE FROM job_sums WHERE owner = ?1")?.execute([uid])?;
    job_tasks::delete(connection, job)?;
    connection.prepare_cached("DELETE FROM jobs WHERE uid = ?1")?.execute([uid])?;
    Ok(())
}

/// A job by name, in whatever state.
pub(super) fn find(connection: &Connection, job: &JobId) -> Result<Option<JobRecord>, StoreError> {
    let mut statement = connection.prepare_cached(BY_NAME)?;
    let mut rows = statement.query([job.as_str()])?;
    match rows.next()? {
        Some(row) => record(&Cells::new(row, "jobs")).map(Some),
        None => Ok(None),
    }
}

/// All jobs that are not completed, with the number of their ready tasks.
pub(super) fn load(connection: &Connection, noted: &mut Vec<Unreadable>) -> Result<Vec<(JobRecord, u64)>, StoreError> {
    let mut statement = connection.prepare(ALIVE)?;
    let mut rows = statement.query([])?;
    let mut jobs = Vec::new();
    let mut nameless = Vec::new();
    while let Some(row) = rows.next()? {
        let cells = &Cells::new(row, "jobs");
        let uid = JobUid(cells.number("uid")?);
        if cells.name::<JobId>("id").is_err() {
            nameless.push(uid);
        }
        let Some(job) = cells::or_note(row, record(cells), noted)? else { continue };
        jobs.push((job, ready(connection, uid)?));
    }
    drop(rows);
    for uid in nameless {
        rename(connection, uid)?;
        let mut statement = connection.prepare_cached(BY_UID)?;
        let mut rows = statement.query([uid.0.cast_signed()])?;
        let Some(row) = rows.next()? else { continue };
        if let Some(job) = cells::or_note(row, record(&Cells::new(row, "jobs")), noted)? {
            jobs.push((job, ready(connection, uid)?));
        }
    }
    Ok(jobs)
}

/// Gives a job whose name cannot be read another one, so that it can be deleted.
fn rename(connection: &Connection, uid: JobUid) -> Result<(), StoreError> {
    let mut name = format!("{UNREADABLE}-{}", uid.0);
    let mut others = connection.prepare_cached("SELECT uid FROM jobs WHERE id = ?1")?;
    if others.query([&name])?.next()?.is_some() {
        name = format!("{name}-{:032x}", rand::rng().random::<u128>());
    }
    connection.prepare_cached("UPDATE jobs SET id = ?2 WHERE uid = ?1")?.execute((uid.0.cast_signed(), &name))?;
    tracing::error!(uid = uid.0, name, "the name of a job cannot be read; the job gets a new one");
    Ok(())
}

/// Makes the row of a job readable that is about to be deleted; other values get those of a new job.
pub(super) fn salvage(connection: &Connection, job: &JobId, at: Timestamp, version: u64) -> Result<Option<JobRecord>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT uid, pool, auto_pool FROM jobs WHERE id = ?1")?;
    let mut rows = statement.query([job.as_str()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let uid = JobUid(Cells::new(row, "jobs").number("uid")?);
    let stored_pool = Cells::new(row, "jobs").name("pool").ok();
    let pool = stored_pool.unwrap_or_else(|| UNREADABLE.parse().expect("the word is a name"));
    let auto_pool = Cells::new(row, "jobs").json_if("auto_pool").unwrap_or_default();
    drop(rows);
    let record = JobRecord {
        uid,
        id: job.clone(),
        version,
        state: JobState::Active,
        state_at: at,
        previous: None,
        pool,
        auto_pool,
        scheduling_error: None,
        priority: 0,
        max_parallel: -1,
        environment: vec![],
        max_task_retry_count: 0,
        max_wall_clock: None,
        terminate_when_complete: false,
        performs_exit_options: false,
        uses_dependencies: false,
        ends_with: None,
        created_at: at,
        modified_at: at,
        ended_at: None,
        terminate_reason: None,
        tasks: Counts::default(),
        slots: Counts::default(),
    };
    put(connection, &record, None)?;
    Ok(Some(record))
}

/// Number of ready tasks of a job.
pub(super) fn ready(connection: &Connection, job: JobUid) -> Result<u64, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT count(*) AS waiting FROM tasks INDEXED BY tasks_ready WHERE job = ?1 AND ready = 1")?;
    let mut rows = statement.query([job.0.cast_signed()])?;
    rows.next()?.map_or(Ok(0), |row| Cells::new(row, "tasks").number("waiting"))
}

/// A record from the columns of [`SLICE`].
pub(super) fn record(cells: &Cells<'_>) -> Result<JobRecord, StoreError> {
    Ok(JobRecord {
        uid: JobUid(cells.number("uid")?),
        id: cells.name("id")?,
        version: cells.number("version")?,
        state: cells.word("state", JobState::parse)?,
        state_at: cells.time("state_at")?,
        previous: previous(cells)?,
        pool: cells.name("pool")?,
        priority: cells.get("priority")?,
        max_parallel: cells.get("max_parallel")?,
        environment: cells.list("environment")?,
        max_task_retry_count: cells.get("max_task_retry_count")?,
        max_wall_clock: cells.period_if("max_wall_clock_ms")?,
        terminate_when_complete: cells.flag("terminate_when_complete")?,
        performs_exit_options: cells.flag("performs_exit_options")?,
        uses_dependencies: cells.flag("uses_dependencies")?,
        created_at: cells.time("created_at")?,
        modified_at: cells.time("modified_at")?,
        ended_at: cells.time_if("ended_at")?,
        terminate_reason: cells.get("terminate_reason")?,
        tasks: task_counts(cells)?,
        slots: slot_counts(cells)?,
        ends_with: cells.get::<Option<i64>>("ends_with")?.map(|uid| TaskUid(uid.cast_unsigned())),
        auto_pool: cells.json_if("auto_pool")?,
        scheduling_error: cells.json_if("scheduling_error")?,
    })
}

/// The state before the present one, from two columns.
pub(super) fn previous(cells: &Cells<'_>) -> Result<Option<(JobState, contract::time::Timestamp)>, StoreError> {
    let state = cells.word_if("previous_state", JobState::parse)?;
    let at = cells.time_if("previous_at")?;
    Ok(state.zip(at))
}

/// Number of a job's tasks by state.
pub(super) fn task_counts(cells: &Cells<'_>) -> Result<Counts, StoreError> {
    Ok(Counts {
        active: cells.number("tasks_active")?,
        running: cells.number("tasks_running")?,
        succeeded: cells.number("tasks_succeeded")?,
        failed: cells.number("tasks_failed")?,
    })
}

/// Number of their slots by state.
pub(super) fn slot_counts(cells: &Cells<'_>) -> Result<Counts, StoreError> {
    Ok(Counts {
        active: cells.number("slots_active")?,
        running: cells.number("slots_running")?,
        succeeded: cells.number("slots_succeeded")?,
        failed: cells.number("slots_failed")?,
    })
}
