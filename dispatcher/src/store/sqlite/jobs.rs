//! Rows of jobs, as the engine writes and loads them.

use broker_config::{
    ids::{JobId, JobUid, TaskUid},
    state::JobState,
};
use rusqlite::{Connection, params};

use crate::store::{
    StoreError,
    records::JobRecord,
    rows::Counts,
    sqlite::{
        cells::{self, Cells},
        chores,
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

/// A record's columns, in the order that [`record`] reads.
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

/// Removes a job whose tasks are gone.
pub(super) fn delete(connection: &Connection, job: JobUid) -> Result<(), StoreError> {
    let uid = job.0.cast_signed();
    connection.prepare_cached("DELETE FROM dependencies WHERE job = ?1")?.execute([uid])?;
    connection.prepare_cached("DELETE FROM job_texts WHERE uid = ?1")?.execute([uid])?;
    connection.prepare_cached("DELETE FROM job_sums WHERE owner = ?1")?.execute([uid])?;
    chores::delete(connection, job)?;
    connection.prepare_cached("DELETE FROM jobs WHERE uid = ?1")?.execute([uid])?;
    Ok(())
}

/// One job by name, whatever its state.
pub(super) fn find(connection: &Connection, job: &JobId) -> Result<Option<JobRecord>, StoreError> {
    let mut statement = connection.prepare_cached(BY_NAME)?;
    let mut rows = statement.query([job.as_str()])?;
    match rows.next()? {
        Some(row) => record(&mut Cells::new(row, "jobs")).map(Some),
        None => Ok(None),
    }
}

/// All jobs that are not completed, with how many of their tasks may be released.
pub(super) fn load(connection: &Connection) -> Result<Vec<(JobRecord, u64)>, StoreError> {
    let mut statement = connection.prepare(ALIVE)?;
    let mut rows = statement.query([])?;
    let mut jobs = Vec::new();
    while let Some(row) = rows.next()? {
        let job = record(&mut Cells::new(row, "jobs"))?;
        let ready = ready(connection, job.uid)?;
        jobs.push((job, ready));
    }
    Ok(jobs)
}

/// How many tasks of a job may be released.
pub(super) fn ready(connection: &Connection, job: JobUid) -> Result<u64, StoreError> {
    let mut statement = connection.prepare_cached("SELECT count(*) FROM tasks INDEXED BY tasks_ready WHERE job = ?1 AND ready = 1")?;
    let count: i64 = statement.query_row([job.0.cast_signed()], |row| row.get(0))?;
    Ok(count.cast_unsigned())
}

fn record(cells: &mut Cells<'_>) -> Result<JobRecord, StoreError> {
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
        tasks: counts(cells)?,
        slots: counts(cells)?,
        ends_with: cells.get::<Option<i64>>("ends_with")?.map(|uid| TaskUid(uid.cast_unsigned())),
        auto_pool: cells.json_if("auto_pool")?,
        scheduling_error: cells.json_if("scheduling_error")?,
    })
}

/// The state before the present one, from two columns.
pub(super) fn previous(cells: &mut Cells<'_>) -> Result<Option<(JobState, broker_config::time::Timestamp)>, StoreError> {
    let state = cells.word_if("previous_state", JobState::parse)?;
    let at = cells.time_if("previous_at")?;
    Ok(state.zip(at))
}

/// Counts from four columns.
pub(super) fn counts(cells: &mut Cells<'_>) -> Result<Counts, StoreError> {
    Ok(Counts {
        active: cells.number("active")?,
        running: cells.number("running")?,
        succeeded: cells.number("succeeded")?,
        failed: cells.number("failed")?,
    })
}
