//! Rows of preparations and releases: what a job runs, and one row for each node that it was on.

use broker_config::{
    chore::{ChoreEnd, ChoreKind},
    ids::{JobId, JobUid, NodeId, PoolId},
    time::Timestamp,
};
use rusqlite::{Connection, Row, params};

use crate::{
    core::Site,
    store::{
        StoreError,
        chores::{JobChores, SiteRecord, SiteRow},
        read::Page,
        sqlite::{
            cells::{self, Cells},
            conditions::{Condition, List},
            pages,
        },
    },
};

const PUT_SITE: &str = "
INSERT INTO sites (job, pool, node, site) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (job, node, pool) DO UPDATE SET site = excluded.site";

/// A new preparation begins a new story on the node.
const BEGIN_PREPARATION: &str = "
UPDATE sites SET preparation_at = ?4, preparation = NULL, release_at = NULL, release = NULL
WHERE job = ?1 AND pool = ?2 AND node = ?3";

const BEGIN_RELEASE: &str = "UPDATE sites SET release_at = ?4, release = NULL WHERE job = ?1 AND pool = ?2 AND node = ?3";

const END_PREPARATION: &str = "
UPDATE sites SET preparation = ?4, preparation_at = COALESCE(?5, preparation_at) WHERE job = ?1 AND pool = ?2 AND node = ?3";

const END_RELEASE: &str = "
UPDATE sites SET release = ?4, release_at = COALESCE(?5, release_at) WHERE job = ?1 AND pool = ?2 AND node = ?3";

const PAGE: &str = "SELECT pool, node, preparation_at, preparation, release_at, release FROM sites WHERE job = ?";

/// Keeps what a job runs on nodes.
pub(super) fn put(connection: &Connection, job: JobUid, chores: &JobChores) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO job_chores (uid, chores) VALUES (?1, ?2)")?;
    statement.execute((job.0.cast_signed(), cells::json(chores)))?;
    Ok(())
}

/// Keeps how a job stands on a node.
pub(super) fn put_site(connection: &Connection, job: JobUid, pool: &PoolId, node: &NodeId, site: &Site) -> Result<(), StoreError> {
    connection.prepare_cached(PUT_SITE)?.execute((job.0.cast_signed(), pool.as_str(), node.as_str(), cells::json(site)))?;
    Ok(())
}

/// A chore was ordered.
pub(super) fn begin(
    connection: &Connection,
    job: JobUid,
    pool: &PoolId,
    node: &NodeId,
    kind: ChoreKind,
    at: Timestamp,
) -> Result<(), StoreError> {
    let sql = if kind == ChoreKind::Preparation { BEGIN_PREPARATION } else { BEGIN_RELEASE };
    connection.prepare_cached(sql)?.execute((job.0.cast_signed(), pool.as_str(), node.as_str(), at.0))?;
    Ok(())
}

/// A chore ended; the time of its beginning is the node's own when it told.
pub(super) fn end(connection: &Connection, pool: &PoolId, node: &NodeId, end: &ChoreEnd, is_told: bool) -> Result<(), StoreError> {
    let sql = if end.key.kind == ChoreKind::Preparation { END_PREPARATION } else { END_RELEASE };
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

/// Removes everything of a job.
pub(super) fn delete(connection: &Connection, job: JobUid) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM job_chores WHERE uid = ?1")?.execute([job.0.cast_signed()])?;
    connection.prepare_cached("DELETE FROM sites WHERE job = ?1")?.execute([job.0.cast_signed()])?;
    Ok(())
}

/// What all jobs that are not completed run on nodes.
pub(super) fn load(connection: &Connection) -> Result<Vec<(JobUid, JobChores)>, StoreError> {
    let mut statement =
        connection.prepare("SELECT c.uid, c.chores FROM jobs j CROSS JOIN job_chores c WHERE j.state <> 'completed' AND c.uid = j.uid")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let cells = &mut Cells::new(row, "job_chores");
        let job = JobUid(cells.number("uid")?);
        let chores = cells.json_if("chores")?.ok_or(StoreError::Corrupt { table: "job_chores", column: "chores" })?;
        found.push((job, chores));
    }
    Ok(found)
}

/// How all jobs that are not completed stand on nodes.
pub(super) fn load_sites(connection: &Connection) -> Result<Vec<SiteRecord>, StoreError> {
    let mut statement = connection
        .prepare("SELECT s.job, s.pool, s.node, s.site FROM jobs j CROSS JOIN sites s WHERE j.state <> 'completed' AND s.job = j.uid")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let cells = &mut Cells::new(row, "sites");
        let (job, pool, node) = (JobUid(cells.number("job")?), cells.name("pool")?, cells.name("node")?);
        let site = cells.json_if("site")?.ok_or(StoreError::Corrupt { table: "sites", column: "site" })?;
        found.push(SiteRecord { job, pool, node, site });
    }
    Ok(found)
}

/// A page of the nodes that a job was on; nothing when there is no such job.
pub(super) fn page(connection: &Connection, job: &JobId, wanted: Page) -> Result<Option<Vec<SiteRow>>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT uid FROM jobs WHERE id = ?1")?;
    let mut jobs = statement.query([job.as_str()])?;
    let Some(uid) = jobs.next()?.map(|row| row.get::<_, i64>(0)).transpose()? else { return Ok(None) };
    let mut condition = Condition::default();
    condition.push(PAGE, [uid.into()]);
    if let Some((node, pool)) = wanted.after.as_deref().map(|after| after.split_once('/').unwrap_or((after, ""))) {
        condition.push(" AND (node, pool) > (?, ?)", [node.to_owned().into(), pool.to_owned().into()]);
    }
    if let Some(filter) = &wanted.filter {
        condition.push(" AND ", []);
        condition.filter(List::Sites, filter);
    }
    condition.push(" ORDER BY node, pool LIMIT ?", [(wanted.rows_max.cast_signed() as i64).into()]);
    pages::rows(connection, condition, wanted.rows_max, site_row).map(Some)
}

fn site_row(row: &Row<'_>) -> Result<SiteRow, StoreError> {
    let cells = &mut Cells::new(row, "sites");
    Ok(SiteRow {
        pool: cells.name("pool")?,
        node: cells.name("node")?,
        preparation_at: cells.time_if("preparation_at")?,
        preparation: cells.json_if("preparation")?,
        release_at: cells.time_if("release_at")?,
        release: cells.json_if("release")?,
    })
}
