//! Reads one row, or a page of rows in id order. Rows that cannot be read are left out.

use rusqlite::{Connection, Row, params_from_iter, types::Value as Bound};

use crate::{
    StoreError,
    left_out::LeftOut,
    read::Page,
    sqlite::{
        cells,
        conditions::{Condition, List},
    },
};

/// Rows of one page that may be left out; with more of them the page fails, as a shorter one would look like the last.
const SKIPPED_MAX: usize = 10_000;

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
    rows(connection, condition, (page.rows_max, &page.left_out), shape)
}

/// LIMIT of a query, so that the page is full although some rows cannot be read.
pub(super) fn limit(rows_max: usize) -> Bound {
    ((rows_max + SKIPPED_MAX).cast_signed() as i64).into()
}

/// The first rows of a query, so many at most; those that cannot be read are noted by their first column and left out,
/// as they harm no other.
pub(super) fn rows<T>(
    connection: &Connection,
    condition: Condition,
    (most, left_out): (usize, &LeftOut),
    shape: Shape<T>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection.prepare_cached(&condition.sql)?;
    let mut rows = statement.query(params_from_iter(condition.values))?;
    let (mut found, mut noted) = (Vec::with_capacity(most), Vec::new());
    while found.len() < most
        && let Some(row) = rows.next()?
    {
        found.extend(cells::or_note(row, shape(row), &mut noted)?);
        if noted.len() >= SKIPPED_MAX
            && let Some(last) = noted.last()
        {
            return Err(StoreError::Corrupt { table: last.table, column: last.column });
        }
    }
    left_out.note(noted);
    Ok(found)
}
