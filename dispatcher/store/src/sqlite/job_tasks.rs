//! Rows of job preparation and release tasks, and of their state on each node.

use std::collections::HashSet;

use contract::{
    ids::{JobId, JobUid, NodeId, PoolId},
    outcome::{JobTaskEnd, JobTaskKind},
    time::Timestamp,
};
use model::{
    health::Unreadable,
    job_tasks::{JobOnNode, JobOnNodeRecord, JobOnNodeRow, JobTasks},
};
use rusqlite::{Connection, Row, params};

use crate::{
    StoreError,
    read::Page,
    sqlite::{
        cells::{self, Cells},
        conditions::{Condition, List},
        paging,
    },
};

const PUT_JOB_ON_NODE: &str = "
INSERT INTO sites (job, pool, node, site) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (job, node, pool) DO UPDATE SET site = excluded.site";

/// A new preparation clears what is stored of the former one.
const BEGIN_PREPARATION: &str = "
UPDATE sites SET preparation_at = ?4, preparation = NULL, release_at = NULL, release = NULL
WHERE job = ?1 AND pool = ?2 AND node = ?3";

const BEGIN_RELEASE: &str = "UPDATE sites SET release_at = ?4, release = NULL WHERE job = ?1 AND pool = ?2 AND node = ?3";

const END_PREPARATION: &str = "
UPDATE sites SET preparation = ?4, preparation_at = COALESCE(?5, preparation_at) WHERE job = ?1 AND pool = ?2 AND node = ?3";

const END_RELEASE: &str = "
UPDATE sites SET release = ?4, release_at = COALESCE(?5, release_at) WHERE job = ?1 AND pool = ?2 AND node = ?3";

const PAGE: &str = "
SELECT 'job ' || job || ' on ' || pool || '/' || node, pool, node, preparation_at, preparation, release_at, release
FROM sites WHERE job = ?";

/// Stores a job's preparation and release tasks.
pub(super) fn put(connection: &Connection, job: JobUid, job_tasks: &JobTasks) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO job_chores (uid, chores) VALUES (?1, ?2)")?;
    statement.execute((job.0.cast_signed(), cells::json(job_tasks)))?;
    Ok(())
}

/// Stores the state of a job on a node.
pub(super) fn put_job_on_node(
    connection: &Connection,
    job: JobUid,
    pool: &PoolId,
    node: &NodeId,
    job_on_node: &JobOnNode,
) -> Result<(), StoreError> {
    connection.prepare_cached(PUT_JOB_ON_NODE)?.execute((job.0.cast_signed(), pool.as_str(), node.as_str(), cells::json(job_on_node)))?;
    Ok(())
}

/// A preparation or release was ordered.
pub(super) fn begin(
    connection: &Connection,
    job: JobUid,
    pool: &PoolId,
    node: &NodeId,
    kind: JobTaskKind,
    at: Timestamp,
) -> Result<(), StoreError> {
    let sql = if kind == JobTaskKind::Preparation { BEGIN_PREPARATION } else { BEGIN_RELEASE };
    connection.prepare_cached(sql)?.execute((job.0.cast_signed(), pool.as_str(), node.as_str(), at.0))?;
    Ok(())
}

/// A preparation or release has ended; the reported start time wins over the stored one.
pub(super) fn end(connection: &Connection, pool: &PoolId, node: &NodeId, end: &JobTaskEnd, is_told: bool) -> Result<(), StoreError> {
    let sql = if end.key.kind == JobTaskKind::Preparation { END_PREPARATION } else { END_RELEASE };
    let began_at = is_told.then_some(end.started_at.0);
    connection.prepare_cached(sql)?.execute(params![
        end.key.job.0.cast_signed(),
        pool.as_str(),
        node.as_str(),
        cells::json(end),
        began_at
    ])?;
    Ok(())
}

const DELETE_SOME: &str = "
DELETE FROM sites WHERE job = ?1 AND (node, pool) IN (SELECT node, pool FROM sites WHERE job = ?1 LIMIT ?2)";

/// Deletes rows of a job on nodes; returns how many.
pub(super) fn delete_some(connection: &Connection, job: JobUid, count: usize) -> Result<usize, StoreError> {
    Ok(connection.prepare_cached(DELETE_SOME)?.execute((job.0.cast_signed(), count.cast_signed()))?)
}

/// Deletes a job's preparation and release tasks.
pub(super) fn delete(connection: &Connection, job: JobUid) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM job_chores WHERE uid = ?1")?.execute([job.0.cast_signed()])?;
    Ok(())
}

/// Preparation and release tasks by job, and the jobs for which they cannot be read.
type LoadedJobTasks = (Vec<(JobUid, JobTasks)>, HashSet<JobUid>);

/// Loads the preparation and release tasks of all jobs that are not completed.
pub(super) fn load(connection: &Connection, noted: &mut Vec<Unreadable>) -> Result<LoadedJobTasks, StoreError> {
    let mut statement =
        connection.prepare("SELECT c.uid, c.chores FROM jobs j CROSS JOIN job_chores c WHERE j.state <> 'completed' AND c.uid = j.uid")?;
    let mut rows = statement.query([])?;
    let (mut found, mut unreadable) = (Vec::new(), HashSet::new());
    while let Some(row) = rows.next()? {
        let cells = &Cells::new(row, "job_chores");
        let job = JobUid(cells.number("uid")?);
        let read =
            cells.json_if("chores").and_then(|job_tasks| job_tasks.ok_or(StoreError::Corrupt { table: "job_chores", column: "chores" }));
        match cells::or_note(row, read, noted)? {
            Some(job_tasks) => found.push((job, job_tasks)),
            None => {
                unreadable.insert(job);
            }
        }
    }
    Ok((found, unreadable))
}

/// Loads the states of all jobs that are not completed on nodes. Where one cannot be read, the node is prepared again.
pub(super) fn load_jobs_on_nodes(connection: &Connection, noted: &mut Vec<Unreadable>) -> Result<Vec<JobOnNodeRecord>, StoreError> {
    let mut statement = connection
        .prepare("SELECT s.job, s.pool, s.node, s.site FROM jobs j CROSS JOIN sites s WHERE j.state <> 'completed' AND s.job = j.uid")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.extend(cells::or_note(row, job_on_node(row), noted)?);
    }
    Ok(found)
}

fn job_on_node(row: &Row<'_>) -> Result<JobOnNodeRecord, StoreError> {
    let cells = &Cells::new(row, "sites");
    let (job, pool, node) = (JobUid(cells.number("job")?), cells.name("pool")?, cells.name("node")?);
    let job_on_node = cells.json_if("site")?.ok_or(StoreError::Corrupt { table: "sites", column: "site" })?;
    Ok(JobOnNodeRecord { job, pool, node, job_on_node })
}

/// A page of the nodes that a job was on; `None` when the job does not exist.
pub(super) fn page(connection: &Connection, job: &JobId, wanted: Page) -> Result<Option<Vec<JobOnNodeRow>>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT uid FROM jobs WHERE id = ?1")?;
    let mut jobs = statement.query([job.as_str()])?;
    let Some(uid) = jobs.next()?.map(|row| Cells::new(row, "jobs").get::<i64>("uid")).transpose()? else { return Ok(None) };
    let mut condition = Condition::default();
    condition.push(PAGE, [uid.into()]);
    if let Some((node, pool)) = wanted.after.as_deref().map(|after| after.split_once('/').unwrap_or((after, ""))) {
        condition.push(" AND (node, pool) > (?, ?)", [node.to_owned().into(), pool.to_owned().into()]);
    }
    if let Some(filter) = &wanted.filter {
        condition.push(" AND ", []);
        condition.filter(List::JobsOnNodes, filter);
    }
    condition.push(" ORDER BY node, pool LIMIT ?", [paging::limit(wanted.rows_max)]);
    paging::rows(connection, condition, (wanted.rows_max, &wanted.left_out), job_on_node_row).map(Some)
}

fn job_on_node_row(row: &Row<'_>) -> Result<JobOnNodeRow, StoreError> {
    let cells = &Cells::new(row, "sites");
    Ok(JobOnNodeRow {
        pool: cells.name("pool")?,
        node: cells.name("node")?,
        preparation_at: cells.time_if("preparation_at")?,
        preparation: cells.json_if("preparation")?,
        release_at: cells.time_if("release_at")?,
        release: cells.json_if("release")?,
    })
}
