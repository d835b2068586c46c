//! Rows of errands, by place and in their order.

use model::health::Unreadable;
use rusqlite::Connection;

use crate::{
    StoreError,
    errands::{Errand, Place},
    sqlite::cells::{self, Cells},
};

fn code(place: Place) -> i64 {
    match place {
        Place::Broker => 0,
        Place::Bucket => 1,
        Place::Replies => 2,
        Place::Starts => 3,
    }
}

/// Adds one.
pub(super) fn insert(connection: &Connection, id: u64, errand: &Errand) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached("INSERT INTO errands (place, id, what) VALUES (?1, ?2, ?3)")?;
    statement.execute((code(errand.place()), id.cast_signed(), cells::json(errand)))?;
    Ok(())
}

/// The next ones of a place, and the last number that was looked at; those that cannot be read are left where they are.
pub(super) fn after(connection: &Connection, place: Place, id: u64, count: usize) -> Result<(Vec<(u64, Errand)>, u64), StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT id, what FROM errands WHERE place = ?1 AND id > ?2 AND typeof(id) = 'integer' ORDER BY id LIMIT ?3")?;
    let mut rows = statement.query((code(place), id.cast_signed(), count.cast_signed()))?;
    let (mut found, mut last, mut noted) = (Vec::new(), id, Vec::new());
    while let Some(row) = rows.next()? {
        let cells = &Cells::new(row, "errands");
        last = cells.number("id")?;
        let errand = cells.json_if("what").and_then(|what| what.ok_or(StoreError::Corrupt { table: "errands", column: "what" }));
        found.extend(cells::or_note(row, errand, &mut noted)?.map(|errand| (last, errand)));
    }
    for Unreadable { row, .. } in noted {
        tracing::error!(id = row, "an errand cannot be read and is not run");
    }
    Ok((found, last))
}

/// Deletes the row of an errand that is done.
pub(super) fn delete(connection: &Connection, place: Place, id: u64) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM errands WHERE place = ?1 AND id = ?2")?.execute((code(place), id.cast_signed()))?;
    Ok(())
}

/// A number that none has.
pub(super) fn next(connection: &Connection) -> Result<u64, StoreError> {
    let mut statement = connection.prepare("SELECT max(id) AS last FROM errands WHERE typeof(id) = 'integer'")?;
    let mut rows = statement.query([])?;
    let last: Option<i64> = rows.next()?.map_or(Ok(None), |row| Cells::new(row, "errands").get("last"))?;
    Ok(last.map_or(1, |last| last.cast_unsigned().saturating_add(1)))
}
