//! Rows of sums: usage of tasks and jobs, updated in the transaction that stores a run's end, and core time of pools.

use contract::{
    ids::{JobUid, PoolId, ScheduleId, TaskUid},
    time::Timestamp,
};
use model::usage::{Share, Sums, Work};
use rusqlite::{Connection, Params};

use crate::{StoreError, sqlite::cells::Cells};

const BEFORE: &str = "
SELECT t.created_at, COALESCE(s.wait_ms, 0) AS wait_ms FROM tasks t LEFT JOIN task_sums s ON s.owner = t.uid WHERE t.uid = ?1";

const ADD_TASK: &str = "
INSERT INTO task_sums (owner, user_ms, kernel_ms, wall_ms, in_bytes, out_bytes, wait_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
ON CONFLICT (owner) DO UPDATE SET user_ms = user_ms + excluded.user_ms, kernel_ms = kernel_ms + excluded.kernel_ms,
    wall_ms = wall_ms + excluded.wall_ms, in_bytes = in_bytes + excluded.in_bytes, out_bytes = out_bytes + excluded.out_bytes,
    wait_ms = excluded.wait_ms";

const ADD_JOB: &str = "
INSERT INTO job_sums (owner, user_ms, kernel_ms, wall_ms, in_bytes, out_bytes, wait_ms, retries) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
ON CONFLICT (owner) DO UPDATE SET user_ms = user_ms + excluded.user_ms, kernel_ms = kernel_ms + excluded.kernel_ms,
    wall_ms = wall_ms + excluded.wall_ms, in_bytes = in_bytes + excluded.in_bytes, out_bytes = out_bytes + excluded.out_bytes,
    wait_ms = wait_ms + excluded.wait_ms, retries = retries + excluded.retries";

const CHARGE: &str = "
INSERT INTO pool_sums (owner, dedicated_core_ms) SELECT id, ?2 FROM pools WHERE id = ?1
ON CONFLICT (owner) DO UPDATE SET dedicated_core_ms = dedicated_core_ms + excluded.dedicated_core_ms";

const OF_TASK: &str = "
SELECT user_ms, kernel_ms, wall_ms, in_bytes, out_bytes, wait_ms, 0 AS retries, 0 AS succeeded, 0 AS failed
FROM task_sums WHERE owner = ?1";
const OF_JOB: &str = "
SELECT user_ms, kernel_ms, wall_ms, in_bytes, out_bytes, wait_ms, retries, 0 AS succeeded, 0 AS failed
FROM job_sums WHERE owner = ?1";
const OF_POOL: &str = "SELECT dedicated_core_ms FROM pool_sums WHERE owner = ?1";
/// A sum of integers fails where it overflows, and a total does not. '.' follows '-', so the range holds exactly the
/// jobs that the schedule created.
const OF_SCHEDULE: &str = "
SELECT CAST(total(s.user_ms) AS INTEGER) AS user_ms, CAST(total(s.kernel_ms) AS INTEGER) AS kernel_ms,
    CAST(total(s.wall_ms) AS INTEGER) AS wall_ms, CAST(total(s.in_bytes) AS INTEGER) AS in_bytes,
    CAST(total(s.out_bytes) AS INTEGER) AS out_bytes, CAST(total(s.wait_ms) AS INTEGER) AS wait_ms,
    CAST(total(s.retries) AS INTEGER) AS retries, CAST(total(j.tasks_succeeded) AS INTEGER) AS succeeded,
    CAST(total(j.tasks_failed) AS INTEGER) AS failed
FROM jobs j LEFT JOIN job_sums s ON s.owner = j.uid WHERE j.id > ?1 || ':job-' AND j.id < ?1 || ':job.'";

type Numbers = (i64, i64, i64, i64, i64);

fn numbers(work: &Work) -> Numbers {
    let Work { user_ms, kernel_ms, wall_ms, in_bytes, out_bytes } = *work;
    let cell = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    (cell(user_ms), cell(kernel_ms), cell(wall_ms), cell(in_bytes), cell(out_bytes))
}

/// Adds a run's usage to a task; returns the change of the time that the task is known to have waited.
pub(super) fn add_run(connection: &Connection, task: TaskUid, work: &Work, started_at: Timestamp) -> Result<i64, StoreError> {
    let owner = task.0.cast_signed();
    let mut before = connection.prepare_cached(BEFORE)?;
    let mut rows = before.query([owner])?;
    let Some(row) = rows.next()? else { return Ok(0) };
    let created_at = Cells::new(row, "tasks").time("created_at")?;
    let waited: i64 = Cells::new(row, "task_sums").get("wait_ms")?;
    let wait = started_at.since(created_at);
    let (user, kernel, wall, input, output) = numbers(work);
    connection.prepare_cached(ADD_TASK)?.execute((owner, user, kernel, wall, input, output, wait))?;
    Ok(wait - waited)
}

/// Adds to a job's sums.
pub(super) fn add_to_job(connection: &Connection, job: JobUid, share: &Share) -> Result<(), StoreError> {
    let (user, kernel, wall, input, output) = numbers(&share.work);
    let row = (job.0.cast_signed(), user, kernel, wall, input, output, share.wait_ms, share.retries.cast_signed());
    connection.prepare_cached(ADD_JOB)?.execute(row)?;
    Ok(())
}

/// Adds core time of dedicated nodes to a pool's sum.
pub(super) fn charge(connection: &Connection, pool: &PoolId, dedicated_core_ms: u64) -> Result<(), StoreError> {
    connection.prepare_cached(CHARGE)?.execute((pool.as_str(), dedicated_core_ms.cast_signed()))?;
    Ok(())
}

fn one(connection: &Connection, select: &str, owner: impl Params) -> Result<Sums, StoreError> {
    let mut statement = connection.prepare_cached(select)?;
    let mut rows = statement.query(owner)?;
    let Some(row) = rows.next()? else { return Ok(Sums::default()) };
    // Statistics lack what cannot be read; `piecework doctor` names the row.
    Ok(read(&Cells::new(row, "sums")).unwrap_or_default())
}

fn read(cells: &Cells<'_>) -> Result<Sums, StoreError> {
    Ok(Sums {
        work: Work {
            user_ms: cells.number("user_ms")?,
            kernel_ms: cells.number("kernel_ms")?,
            wall_ms: cells.number("wall_ms")?,
            in_bytes: cells.number("in_bytes")?,
            out_bytes: cells.number("out_bytes")?,
        },
        wait_ms: cells.number("wait_ms")?,
        retries: cells.number("retries")?,
        succeeded: cells.number("succeeded")?,
        failed: cells.number("failed")?,
    })
}

/// The sums of tasks, in their order.
pub(super) fn of_tasks(connection: &Connection, tasks: &[TaskUid]) -> Result<Vec<Sums>, StoreError> {
    tasks.iter().map(|task| one(connection, OF_TASK, [task.0.cast_signed()])).collect()
}

/// The sums of jobs, in their order.
pub(super) fn of_jobs(connection: &Connection, jobs: &[JobUid]) -> Result<Vec<Sums>, StoreError> {
    jobs.iter().map(|job| one(connection, OF_JOB, [job.0.cast_signed()])).collect()
}

/// The core time of pools' dedicated nodes, in the pools' order.
pub(super) fn of_pools(connection: &Connection, pools: &[PoolId]) -> Result<Vec<u64>, StoreError> {
    let mut statement = connection.prepare_cached(OF_POOL)?;
    let mut of_pool = |pool: &PoolId| -> Result<u64, StoreError> {
        let mut rows = statement.query([pool.as_str()])?;
        Ok(rows.next()?.and_then(|row| Cells::new(row, "pool_sums").number("dedicated_core_ms").ok()).unwrap_or(0))
    };
    pools.iter().map(&mut of_pool).collect()
}

/// The sums of schedules' jobs that still exist, in the schedules' order.
pub(super) fn of_schedules(connection: &Connection, schedules: &[ScheduleId]) -> Result<Vec<Sums>, StoreError> {
    schedules.iter().map(|schedule| one(connection, OF_SCHEDULE, [schedule.as_str()])).collect()
}
