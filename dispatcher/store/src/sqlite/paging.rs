//! Reads one row, or a page of rows in id order. Rows that cannot be read are left out.

use rusqlite::{Connection, Row, params_from_iter, types::Value as Bound};

use crate::{
    StoreError,
    read::Page,
    sqlite::conditions::{Condition, List},
};

/// Unreadable rows that a page skips before it becomes shorter than requested.
const SKIPPED_MAX: usize = 100;

/// Converts a row to a value.
pub(super) type Shape<T> = fn(&Row<'_>) -> Result<T, StoreError>;

/// The row of `select` with this id.
pub(super) fn one<T>(
    connection: &Connection,
    select: &str,
    scope: impl IntoIterator<Item = Bound>,
    id: &str,
    shape: Shape<T>,
) -> Result<Option<T>, StoreError> {
    let mut condition = Condition::default();
    condition.push(select, []);
    condition.values.extend(scope);
    condition.push(" AND id = ?", [id.to_owned().into()]);
    let mut statement = connection.prepare_cached(&condition.sql)?;
    let mut rows = statement.query(params_from_iter(condition.values))?;
    rows.next()?.map(shape).transpose()
}

/// A page of the rows of `select`.
pub(super) fn page<T>(
    connection: &Connection,
    (select, list): (&str, List),
    scope: impl IntoIterator<Item = Bound>,
    page: Page,
    shape: Shape<T>,
) -> Result<Vec<T>, StoreError> {
    let mut condition = Condition::default();
    condition.push(select, []);
    condition.values.extend(scope);
    if let Some(after) = page.after {
        condition.push(" AND id > ?", [after.into()]);
    }
    if let Some(filter) = &page.filter {
        condition.push(" AND ", []);
        condition.filter(list, filter);
    }
    condition.push(" ORDER BY id LIMIT ?", [limit(page.rows_max)]);
    rows(connection, condition, page.rows_max, shape)
}

/// LIMIT of a query, so that the page is full although some rows cannot be read.
pub(super) fn limit(rows_max: usize) -> Bound {
    ((rows_max + SKIPPED_MAX).cast_signed() as i64).into()
}

/// The first rows of a query, `most` at most, without unreadable ones.
pub(super) fn rows<T>(connection: &Connection, condition: Condition, most: usize, shape: Shape<T>) -> Result<Vec<T>, StoreError> {
    let mut statement = connection.prepare_cached(&condition.sql)?;
    let mut rows = statement.query(params_from_iter(condition.values))?;
    let mut found = Vec::with_capacity(most);
    while found.len() < most
        && let Some(row) = rows.next()?
    {
        match shape(row) {
            Ok(row) => found.push(row),
            Err(error @ StoreError::Corrupt { .. }) => tracing::error!(%error, "a row is left out of a list"),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
