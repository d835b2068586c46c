//! Rows of functions, each with all versions that are kept.

use contract::ids::{FunctionId, PoolId};
use model::{function::FunctionRow, health::Unreadable};
use rusqlite::{Connection, Row, params};

use crate::{
    StoreError,
    sqlite::cells::{self, Cells},
};

/// The columns that [`row`] reads, of one pool.
pub(super) const OF_POOL: &str = "
SELECT id, pool, version, active, versions, created_at, modified_at FROM functions WHERE pool = ?";
/// The same of all pools, after both names.
pub(super) const SLICE: &str = "
SELECT pool || '/' || id, id, pool, version, active, versions, created_at, modified_at FROM functions LIMIT ?2 OFFSET ?1";
const NAMED: &str = "
SELECT id, pool, version, active, versions, created_at, modified_at FROM functions WHERE id = ? LIMIT ?";
const ALL: &str = "
SELECT pool || '/' || id, id, pool, version, active, versions, created_at, modified_at FROM functions";

/// Inserts or replaces a function.
pub(super) fn put(connection: &Connection, function: &FunctionRow) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO functions (pool, id, version, active, versions, created_at, modified_at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    connection.prepare_cached(sql)?.execute(params![
        function.pool.as_str(),
        function.id.as_str(),
        function.version.cast_signed(),
        function.active,
        cells::list(&function.versions),
        function.created_at.0,
        function.modified_at.0,
    ])?;
    Ok(())
}

/// Removes a function with its versions.
pub(super) fn delete(connection: &Connection, pool: &PoolId, function: &FunctionId) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM functions WHERE pool = ?1 AND id = ?2")?.execute([pool.as_str(), function.as_str()])?;
    Ok(())
}

/// Removes all functions of a pool.
pub(super) fn delete_all(connection: &Connection, pool: &PoolId) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM functions WHERE pool = ?1")?.execute([pool.as_str()])?;
    Ok(())
}

/// All functions of all pools.
pub(super) fn load(connection: &Connection, noted: &mut Vec<Unreadable>) -> Result<Vec<FunctionRow>, StoreError> {
    let mut statement = connection.prepare(ALL)?;
    let mut rows = statement.query([])?;
    let mut functions = Vec::new();
    while let Some(found) = rows.next()? {
        functions.extend(cells::or_note(found, row(found), noted)?);
    }
    Ok(functions)
}

/// Functions of this name of all pools, so many at most.
pub(super) fn named(connection: &Connection, function: &FunctionId, rows_max: usize) -> Result<Vec<FunctionRow>, StoreError> {
    let mut statement = connection.prepare_cached(NAMED)?;
    let mut rows = statement.query(params![function.as_str(), rows_max as i64])?;
    let mut functions = Vec::new();
    while let Some(found) = rows.next()? {
        functions.push(row(found)?);
    }
    Ok(functions)
}

/// Reads a row with these columns.
pub(super) fn row(row: &Row<'_>) -> Result<FunctionRow, StoreError> {
    let cells = &Cells::new(row, "functions");
    Ok(FunctionRow {
        pool: cells.name("pool")?,
        id: cells.name("id")?,
        version: cells.number("version")?,
        active: cells.small("active")?,
        versions: cells.list("versions")?,
        created_at: cells.time("created_at")?,
        modified_at: cells.time("modified_at")?,
    })
}
