//! Rows of triggers, and of what each of them has acted on.

use contract::{ids::TriggerId, time::Timestamp};
use model::{
    health::Unreadable,
    trigger::{CONTENT_BYTES, Seen, SeenKey, TriggerRow},
};
use rusqlite::{Connection, Row, params};

use crate::{
    StoreError,
    sqlite::cells::{self, Cells},
};

/// The columns that [`row`] reads.
pub(super) const SELECT: &str = "
SELECT id, uid, version, is_paused, spec, progress, created_at, modified_at FROM triggers WHERE 1";

/// Inserts or replaces a trigger.
pub(super) fn put(connection: &Connection, trigger: &TriggerRow) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO triggers (id, uid, version, is_paused, spec, progress, created_at, modified_at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    connection.prepare_cached(sql)?.execute(params![
        trigger.id.as_str(),
        trigger.uid.cast_signed(),
        trigger.version.cast_signed(),
        trigger.is_paused,
        cells::json(&trigger.spec),
        cells::json(&trigger.progress),
        trigger.created_at.0,
        trigger.modified_at.0,
    ])?;
    Ok(())
}

/// Removes a trigger.
pub(super) fn delete(connection: &Connection, trigger: &TriggerId) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM triggers WHERE id = ?1")?.execute([trigger.as_str()])?;
    Ok(())
}

/// All triggers.
pub(super) fn load(connection: &Connection, noted: &mut Vec<Unreadable>) -> Result<Vec<TriggerRow>, StoreError> {
    let mut statement = connection.prepare(SELECT)?;
    let mut rows = statement.query([])?;
    let mut triggers = Vec::new();
    while let Some(found) = rows.next()? {
        triggers.extend(cells::or_note(found, row(found), noted)?);
    }
    Ok(triggers)
}

/// One row of [`SELECT`].
pub(super) fn row(row: &Row<'_>) -> Result<TriggerRow, StoreError> {
    let corrupt = |column| StoreError::Corrupt { table: "triggers", column };
    let cells = &Cells::new(row, "triggers");
    Ok(TriggerRow {
        id: cells.name("id")?,
        uid: cells.number("uid")?,
        version: cells.number("version")?,
        is_paused: cells.flag("is_paused")?,
        spec: cells.json_if("spec")?.ok_or_else(|| corrupt("spec"))?,
        progress: cells.json_if("progress")?.ok_or_else(|| corrupt("progress"))?,
        created_at: cells.time("created_at")?,
        modified_at: cells.time("modified_at")?,
    })
}

/// Notes that a trigger has acted on something; false when that was noted before.
pub(super) fn see(connection: &Connection, trigger: u64, seen: &SeenKey, at: Timestamp) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached("INSERT OR IGNORE INTO seen (owner, key, content, at) VALUES (?1, ?2, ?3, ?4)")?;
    Ok(statement.execute((trigger.cast_signed(), &seen.key, &seen.content[..], at.0))? > 0)
}

/// Forgets that a trigger has acted on something.
pub(super) fn forget(connection: &Connection, trigger: u64, seen: &SeenKey) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached("DELETE FROM seen WHERE owner = ?1 AND key = ?2 AND content = ?3")?;
    statement.execute((trigger.cast_signed(), &seen.key, &seen.content[..]))?;
    Ok(())
}

/// Forgets what a trigger has seen, `count` rows at most; how many.
pub(super) fn forget_all(connection: &Connection, trigger: u64, count: usize) -> Result<usize, StoreError> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM seen WHERE owner = ?1 AND (key, content) IN (SELECT key, content FROM seen WHERE owner = ?1 LIMIT ?2)",
    )?;
    Ok(statement.execute((trigger.cast_signed(), count.cast_signed()))?)
}

/// The next number of a trigger that has seen something.
pub(super) fn next_seer(connection: &Connection, after: Option<u64>) -> Result<Option<u64>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT min(owner) AS owner FROM seen WHERE owner > ?1")?;
    let mut rows = statement.query([after.map_or(-1, u64::cast_signed)])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Cells::new(row, "seen").get::<Option<i64>>("owner")?.map(i64::cast_unsigned))
}

/// Those of these that a trigger has seen.
pub(super) fn seen_of(connection: &Connection, trigger: u64, keys: Vec<SeenKey>) -> Result<Vec<SeenKey>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM seen WHERE owner = ?1 AND key = ?2 AND content = ?3")?;
    let mut found = Vec::new();
    for seen in keys {
        if statement.exists((trigger.cast_signed(), &seen.key, &seen.content[..]))? {
            found.push(seen);
        }
    }
    Ok(found)
}

/// What a trigger has seen after one key, up to another one or the end, in the order of the keys' bytes. A row that cannot
/// be read is left out: what it stands for is seen again once at most.
pub(super) fn seen_between(
    connection: &Connection,
    trigger: u64,
    after: Option<&SeenKey>,
    last: Option<&str>,
    count: usize,
) -> Result<Vec<Seen>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT key, content, at FROM seen WHERE owner = ?1 AND (key, content) > (?2, ?3) AND (?4 IS NULL OR key <= ?4)
         ORDER BY key, content LIMIT ?5",
    )?;
    let (key, content) = after.map_or(("", &[][..]), |after| (after.key.as_str(), &after.content[..]));
    let mut rows = statement.query((trigger.cast_signed(), key, content, last, count.cast_signed()))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let cells = &Cells::new(row, "seen");
        let content: Option<[u8; CONTENT_BYTES]> = cells.bytes("content").ok().flatten().and_then(|bytes| bytes.try_into().ok());
        if let (Ok(key), Some(content), Ok(at)) = (cells.get("key"), content, cells.time("at")) {
            found.push(Seen { key: SeenKey { key, content }, at });
        }
    }
    Ok(found)
}
