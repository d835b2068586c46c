//! Rows of usage: core time by half hour and pool.

use contract::{ids::PoolId, time::Timestamp};
use model::usage::{Charge, INTERVAL_MS, UsageRow};
use rusqlite::{Connection, Row};

use crate::{
    StoreError,
    sqlite::{
        cells::Cells,
        conditions::{Condition, List},
        paging,
    },
    usage::UsagePage,
};

const CHARGE: &str = "
INSERT INTO pool_usage (interval, pool, vm_size, core_ms)
SELECT ?1, id, COALESCE(json_extract(CASE WHEN json_valid(document) THEN document END, '$.vmSize'), ''), ?3 FROM pools WHERE id = ?2
ON CONFLICT (interval, pool) DO UPDATE SET core_ms = core_ms + excluded.core_ms, vm_size = excluded.vm_size";

const PAGE: &str = "SELECT pool || ' ' || interval, interval, pool, vm_size, core_ms FROM pool_usage WHERE interval >= ? AND interval <= ?";

/// Adds core time to a pool's interval.
pub(super) fn charge(connection: &Connection, pool: &PoolId, charge: &Charge) -> Result<(), StoreError> {
    connection.prepare_cached(CHARGE)?.execute((charge.interval.0, pool.as_str(), charge.core_ms.cast_signed()))?;
    Ok(())
}

/// Deletes intervals that started earlier.
pub(super) fn forget(connection: &Connection, before: Timestamp) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM pool_usage WHERE interval < ?1")?.execute([before.0])?;
    Ok(())
}

/// A page of intervals.
pub(super) fn page(connection: &Connection, wanted: UsagePage) -> Result<Vec<UsageRow>, StoreError> {
    let mut condition = Condition::default();
    condition.push(PAGE, [wanted.from.0.into(), wanted.until.plus_ms(-INTERVAL_MS).0.into()]);
    if let Some((interval, pool)) = wanted.after {
        condition.push(" AND (interval, pool) > (?, ?)", [interval.0.into(), pool.into()]);
    }
    if let Some(filter) = &wanted.filter {
        condition.push(" AND ", []);
        condition.filter(List::Usage, filter);
    }
    condition.push(" ORDER BY interval, pool LIMIT ?", [paging::limit(wanted.rows_max)]);
    paging::rows(connection, condition, (wanted.rows_max, &wanted.left_out), row)
}

fn row(row: &Row<'_>) -> Result<UsageRow, StoreError> {
    let cells = &Cells::new(row, "pool_usage");
    Ok(UsageRow {
        interval: cells.time("interval")?,
        pool: cells.name("pool")?,
        vm_size: cells.get("vm_size")?,
        core_ms: cells.number("core_ms")?,
    })
}
