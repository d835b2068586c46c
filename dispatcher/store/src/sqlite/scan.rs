//! Scans all tables for rows that cannot be read, a slice at a time; reads only.
//!
//! Rows are read as the engine and API handlers read them; values that only the database compares (flags, dependencies)
//! are checked besides. Tables with a number as key are scanned by it, the others, which are small, by offset.

use contract::{
    ids::{NodeId, PoolId},
    outcome::JobTaskEnd,
};
use model::{
    health::Unreadable,
    job_tasks::{JobOnNode, JobTasks},
    submission::{Answer, DIGEST_BYTES},
    task::ExitConditions,
    task_document::TaskDocument,
    trigger::CONTENT_BYTES,
};
use rusqlite::{Connection, Row};
use serde_json::{Map, Value};

use crate::{
    StoreError,
    errands::Errand,
    read::{ScanFrom, Scanned},
    sqlite::{
        applications,
        cells::{self, Cells},
        functions, jobs, pages, pools, schedules, triggers,
    },
};

/// How the next slice of a table is found: `?1` is the position, `?2` the number of rows.
enum By {
    /// By the number in the first column.
    Number,
    /// By the number of rows before it.
    Count,
}

/// A table, and how its rows are read.
struct Table {
    by: By,
    select: fn() -> String,
    read: fn(&Row<'_>) -> Result<(), StoreError>,
}

fn in_order(select: &str) -> String {
    format!("{select} LIMIT ?2 OFFSET ?1")
}

const TABLES: &[Table] = &[
    Table { by: By::Count, select: || "SELECT key, value FROM meta LIMIT ?2 OFFSET ?1".to_owned(), read: meta },
    Table { by: By::Count, select: || in_order(pools::POOLS), read: |row| pools::pool(&Cells::new(row, "pools")).map(drop) },
    Table { by: By::Count, select: || "SELECT id, document FROM pools LIMIT ?2 OFFSET ?1".to_owned(), read: pool_document },
    Table { by: By::Count, select: || pools::NODE_SLICE.to_owned(), read: node },
    Table { by: By::Number, select: || jobs::SLICE.to_owned(), read: |row| jobs::record(&Cells::new(row, "jobs")).map(drop) },
    Table { by: By::Number, select: || numbered("uid, document FROM job_texts", "uid"), read: job_text },
    Table { by: By::Number, select: || numbered("uid, chores FROM job_chores", "uid"), read: job_tasks },
    Table { by: By::Count, select: || SITES.to_owned(), read: job_on_node },
    Table { by: By::Count, select: || in_order(schedules::SELECT), read: |row| schedules::row(row).map(drop) },
    Table { by: By::Count, select: || in_order(applications::SELECT), read: |row| applications::row(row).map(drop) },
    Table { by: By::Count, select: || functions::SLICE.to_owned(), read: |row| functions::row(row).map(drop) },
    Table { by: By::Count, select: || in_order(triggers::SELECT), read: |row| triggers::row(row).map(drop) },
    Table { by: By::Count, select: || SEEN.to_owned(), read: seen },
    Table { by: By::Number, select: shown_tasks, read: |row| pages::task_row(row).map(drop) },
    Table { by: By::Number, select: || TASKS.to_owned(), read: task },
    Table { by: By::Count, select: || DEPENDENCIES.to_owned(), read: need },
    Table { by: By::Count, select: || ERRANDS.to_owned(), read: errand },
    Table { by: By::Number, select: || numbered("number, pool, message_id, digest, at FROM submissions", "number"), read: submission },
    Table { by: By::Number, select: || numbered("number, job, task, answer FROM awaited", "number"), read: awaited },
    Table { by: By::Number, select: || numbered("* FROM task_sums", "owner"), read: |row| numbers(row, "task_sums", &SUMS) },
    Table {
        by: By::Number,
        select: || numbered("* FROM job_sums", "owner"),
        read: |row| {
            numbers(row, "job_sums", &SUMS)?;
            numbers(row, "job_sums", &["retries"])
        },
    },
    Table { by: By::Count, select: || "SELECT owner, dedicated_core_ms FROM pool_sums LIMIT ?2 OFFSET ?1".to_owned(), read: pool_sum },
    Table { by: By::Count, select: || USAGE.to_owned(), read: usage },
];

const SITES: &str = "
SELECT 'job ' || job || ' on ' || pool || '/' || node, job, pool, node, site, preparation_at, preparation, release_at, release
FROM sites LIMIT ?2 OFFSET ?1";

const TASKS: &str = "
SELECT t.uid, t.ready, t.live, t.fits, t.satisfies, t.blockers, t.fence, t.crashes, t.retries_max, t.released_at, t.rests_until,
    t.run, t.epoch, x.document, x.exit_conditions
FROM tasks t LEFT JOIN task_texts x ON x.uid = t.uid WHERE t.uid > ?1 ORDER BY t.uid LIMIT ?2";

const DEPENDENCIES: &str = "SELECT 'job ' || job || ' task ' || uid, job, needs, uid FROM dependencies LIMIT ?2 OFFSET ?1";

/// The owners and sums of usage.
const SUMS: [&str; 7] = ["owner", "user_ms", "kernel_ms", "wall_ms", "in_bytes", "out_bytes", "wait_ms"];

const ERRANDS: &str = "SELECT place || '/' || id, place, id, what FROM errands LIMIT ?2 OFFSET ?1";

const SEEN: &str = "SELECT 'trigger ' || owner || ' ' || key, owner, key, content, at FROM seen LIMIT ?2 OFFSET ?1";

const USAGE: &str = "SELECT pool || ' ' || interval, interval, pool, vm_size, core_ms FROM pool_usage LIMIT ?2 OFFSET ?1";

fn numbered(columns_from: &str, number: &str) -> String {
    format!("SELECT {columns_from} WHERE {number} > ?1 ORDER BY {number} LIMIT ?2")
}

fn shown_tasks() -> String {
    let (head, runs) = (pages::TASK_HEAD, pages::TASK_RUNS);
    format!(
        "SELECT {head}, x.document, {runs}, x.stdout, x.stderr FROM tasks t LEFT JOIN task_texts x ON x.uid = t.uid
        WHERE t.uid > ?1 ORDER BY t.uid LIMIT ?2"
    )
}

/// Scans the next slice.
pub(super) fn slice(connection: &Connection, from: ScanFrom, rows: usize) -> Result<Scanned, StoreError> {
    let (mut unreadable, mut at, mut left) = (Vec::new(), from, rows);
    while left > 0
        && let Some(table) = TABLES.get(at.table)
    {
        let looked_at = look(connection, table, &mut at, left, &mut unreadable)?;
        if looked_at < left {
            at = ScanFrom { table: at.table + 1, row: None };
        }
        left -= looked_at;
    }
    Ok(Scanned { unreadable, next: (at.table < TABLES.len()).then_some(at) })
}

fn look(
    connection: &Connection,
    table: &Table,
    at: &mut ScanFrom,
    most: usize,
    unreadable: &mut Vec<Unreadable>,
) -> Result<usize, StoreError> {
    let start = match table.by {
        By::Number => i64::MIN,
        By::Count => 0,
    };
    let mut last = at.row.unwrap_or(start);
    let mut statement = connection.prepare_cached(&(table.select)())?;
    let mut rows = statement.query((last, most.cast_signed()))?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        cells::or_note(row, (table.read)(row), unreadable)?;
        last = match table.by {
            By::Number => cells::key(row)?,
            By::Count => last + 1,
        };
        count += 1;
    }
    at.row = Some(last);
    Ok(count)
}

fn meta(row: &Row<'_>) -> Result<(), StoreError> {
    Cells::new(row, "meta").number("value").map(drop)
}

fn pool_document(row: &Row<'_>) -> Result<(), StoreError> {
    json::<Map<String, Value>>(&Cells::new(row, "pools"), "document", "pools")
}

fn node(row: &Row<'_>) -> Result<(), StoreError> {
    let cells = &Cells::new(row, "nodes");
    let _: PoolId = cells.name("pool")?;
    pools::node(cells).map(drop)
}

fn job_text(row: &Row<'_>) -> Result<(), StoreError> {
    json::<Map<String, Value>>(&Cells::new(row, "job_texts"), "document", "job_texts")
}

fn job_tasks(row: &Row<'_>) -> Result<(), StoreError> {
    json::<JobTasks>(&Cells::new(row, "job_chores"), "chores", "job_chores")
}

fn json<T: serde::de::DeserializeOwned>(cells: &Cells<'_>, column: &'static str, table: &'static str) -> Result<(), StoreError> {
    cells.json_if::<T>(column)?.map(drop).ok_or(StoreError::Corrupt { table, column })
}

fn job_on_node(row: &Row<'_>) -> Result<(), StoreError> {
    let cells = &Cells::new(row, "sites");
    let _: (u64, PoolId, NodeId) = (cells.number("job")?, cells.name("pool")?, cells.name("node")?);
    json::<JobOnNode>(cells, "site", "sites")?;
    cells.time_if("preparation_at")?;
    cells.json_if::<JobTaskEnd>("preparation")?;
    cells.time_if("release_at")?;
    cells.json_if::<JobTaskEnd>("release").map(drop)
}

/// Checks what only the engine reads of a task, and what only the database compares.
fn task(row: &Row<'_>) -> Result<(), StoreError> {
    let cells = &Cells::new(row, "tasks");
    for column in ["ready", "live", "fits", "satisfies"] {
        cells.code(column, |value| (0..=1).contains(&value).then_some(value))?;
    }
    cells.get::<i64>("blockers")?;
    cells.fence("fence")?;
    cells.small("crashes")?;
    cells.get::<i32>("retries_max")?;
    cells.time_if("released_at")?;
    cells.time_if("rests_until")?;
    cells.run_if("run")?;
    cells.get::<Option<i64>>("epoch")?;
    let texts = &Cells::new(row, "task_texts");
    json::<TaskDocument>(texts, "document", "task_texts")?;
    texts.json_if::<ExitConditions>("exit_conditions").map(drop)
}

fn need(row: &Row<'_>) -> Result<(), StoreError> {
    let cells = &Cells::new(row, "dependencies");
    let _: (u64, String, u64) = (cells.number("job")?, cells.get("needs")?, cells.number("uid")?);
    Ok(())
}

fn errand(row: &Row<'_>) -> Result<(), StoreError> {
    let cells = &Cells::new(row, "errands");
    cells.code("place", |place| (0..=2).contains(&place).then_some(place))?;
    cells.number("id")?;
    json::<Errand>(cells, "what", "errands")
}

fn submission(row: &Row<'_>) -> Result<(), StoreError> {
    let cells = &Cells::new(row, "submissions");
    let _: (PoolId, String) = (cells.name("pool")?, cells.get("message_id")?);
    cells.time("at")?;
    let digest = cells.bytes("digest")?;
    let is_one = digest.is_some_and(|digest| digest.len() == DIGEST_BYTES);
    is_one.then_some(()).ok_or(StoreError::Corrupt { table: "submissions", column: "digest" })
}

fn seen(row: &Row<'_>) -> Result<(), StoreError> {
    let cells = &Cells::new(row, "seen");
    let _: (u64, String) = (cells.number("owner")?, cells.get("key")?);
    cells.time("at")?;
    let is_digest = cells.bytes("content")?.is_some_and(|content| content.len() == CONTENT_BYTES);
    is_digest.then_some(()).ok_or(StoreError::Corrupt { table: "seen", column: "content" })
}

fn awaited(row: &Row<'_>) -> Result<(), StoreError> {
    let cells = &Cells::new(row, "awaited");
    let _: (u64, u64) = (cells.number("job")?, cells.number("task")?);
    json::<Answer>(cells, "answer", "awaited")
}

fn numbers(row: &Row<'_>, table: &'static str, columns: &[&'static str]) -> Result<(), StoreError> {
    let cells = Cells::new(row, table);
    columns.iter().copied().try_for_each(|column| cells.number(column).map(drop))
}

fn pool_sum(row: &Row<'_>) -> Result<(), StoreError> {
    let cells = &Cells::new(row, "pool_sums");
    let _: (PoolId, u64) = (cells.name("owner")?, cells.number("dedicated_core_ms")?);
    Ok(())
}

fn usage(row: &Row<'_>) -> Result<(), StoreError> {
    let cells = &Cells::new(row, "pool_usage");
    let _: (u64, PoolId, String, u64) = (cells.number("interval")?, cells.name("pool")?, cells.get("vm_size")?, cells.number("core_ms")?);
    Ok(())
}
