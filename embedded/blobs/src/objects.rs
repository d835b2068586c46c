//! Rows of objects: look up, write, delete. Plain functions over a connection, used inside reads and writes.
//! Every write queues the files of the content that it replaces for removal.

use rusqlite::{Connection, OptionalExtension, params};
use s3s::{S3Error, S3ErrorCode};

use crate::attributes::{Attributes, now_ms};
use crate::conditions::WriteConditions;
use crate::error::Error;
use crate::events::{Creation, Happening};
use crate::files::Fresh;
use crate::notifications;
use crate::reaper::Cleanup;
use crate::writer::After;

/// The row of one object.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) content: i64,
    pub(crate) size: u64,
    pub(crate) etag: String,
    pub(crate) modified_ms: i64,
    pub(crate) attributes: Attributes,
}

/// A file with bytes of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) file: String,
    pub(crate) size: u64,
}

/// The bytes of a new object.
#[derive(Debug)]
pub(crate) enum NewBytes {
    /// Bytes to be stored in the row.
    Inline(Vec<u8>),
    /// Files that become the object's pieces, in order.
    Files(Vec<(Fresh, u64)>),
    /// Files that rows already name; the caller deletes those rows in the same write.
    Named(Vec<Piece>),
}

/// An object to be written.
#[derive(Debug)]
pub(crate) struct NewObject {
    pub(crate) how: Creation,
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) number: i64,
    pub(crate) size: u64,
    pub(crate) etag: String,
    pub(crate) attributes: Attributes,
    pub(crate) bytes: NewBytes,
    pub(crate) conditions: WriteConditions,
}

/// The row number of a bucket.
pub(crate) fn bucket_id(connection: &Connection, bucket: &str) -> Result<i64, Error> {
    connection
        .prepare_cached("SELECT id FROM buckets WHERE name = ?1")?
        .query_row([bucket], |row| row.get(0))
        .optional()?
        .ok_or_else(no_such_bucket)
}

/// Finds an object, with its bytes when they are stored in the row.
pub(crate) fn find(connection: &Connection, bucket: &str, key: &str) -> Result<(Row, Option<Vec<u8>>), Error> {
    let mut statement = connection.prepare_cached(
        "SELECT o.content, o.size, o.etag, o.modified_ms, o.attributes, i.bytes
         FROM buckets b
         LEFT JOIN objects o ON o.bucket = b.id AND o.key = ?2
         LEFT JOIN inline i ON o.is_inline AND i.content = o.content
         WHERE b.name = ?1",
    )?;
    let mut rows = statement.query(params![bucket, key.as_bytes()])?;
    let row = rows.next()?.ok_or_else(no_such_bucket)?;
    let Some(content) = row.get(0)? else { return Err(no_such_key()) };
    let found = Row {
        content,
        size: row.get::<_, i64>(1)?.cast_unsigned(),
        etag: row.get(2)?,
        modified_ms: row.get(3)?,
        attributes: serde_json::from_str(row.get_ref(4)?.as_str().map_err(rusqlite::Error::from)?)?,
    };
    Ok((found, row.get(5)?))
}

/// The files of a content, in order.
pub(crate) fn pieces(connection: &Connection, content: i64) -> Result<Vec<Piece>, Error> {
    let mut statement = connection.prepare_cached("SELECT file, size FROM pieces WHERE content = ?1 ORDER BY number")?;
    let rows = statement.query_map([content], |row| Ok(Piece { file: row.get(0)?, size: row.get::<_, i64>(1)?.cast_unsigned() }))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Writes an object, replacing one of the same key, and returns its time.
pub(crate) fn write(connection: &Connection, after: &mut After, object: NewObject) -> Result<i64, Error> {
    let bucket = bucket_id(connection, &object.bucket)?;
    let present = present(connection, bucket, &object.key)?;
    object.conditions.check(present.as_ref().map(|present| present.etag.as_str()))?;
    if let Some(present) = present {
        retire(connection, after, &present)?;
    }
    let is_inline = matches!(object.bytes, NewBytes::Inline(_));
    write_bytes(connection, after, object.number, object.bytes)?;
    let modified_ms = now_ms();
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO objects (bucket, key, content, is_inline, size, etag, modified_ms, attributes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            bucket,
            object.key.as_bytes(),
            object.number,
            is_inline,
            object.size.cast_signed(),
            object.etag,
            modified_ms,
            serde_json::to_string(&object.attributes)?,
        ])?;
    notifications::note(connection, after, bucket, (Happening::Created(object.how), &object.key), Some((object.size, object.etag)))?;
    Ok(modified_ms)
}

fn write_bytes(connection: &Connection, after: &mut After, number: i64, bytes: NewBytes) -> Result<(), Error> {
    let mut insert_piece = connection.prepare_cached("INSERT INTO pieces (content, number, file, size) VALUES (?1, ?2, ?3, ?4)")?;
    match bytes {
        NewBytes::Inline(bytes) => {
            connection.prepare_cached("INSERT INTO inline (content, bytes) VALUES (?1, ?2)")?.execute(params![number, bytes])?;
        }
        NewBytes::Files(files) => {
            for (at, (fresh, size)) in files.into_iter().enumerate() {
                insert_piece.execute(params![number, at as i64, fresh.id(), size.cast_signed()])?;
                after.keep([fresh]);
            }
        }
        NewBytes::Named(pieces) => {
            for (at, piece) in pieces.into_iter().enumerate() {
                insert_piece.execute(params![number, at as i64, piece.file, piece.size.cast_signed()])?;
            }
        }
    }
    Ok(())
}

/// Deletes an object; returns false when there was none.
pub(crate) fn delete(
    connection: &Connection,
    after: &mut After,
    bucket: i64,
    key: &str,
    conditions: &WriteConditions,
) -> Result<bool, Error> {
    let present = present(connection, bucket, key)?;
    conditions.check(present.as_ref().map(|present| present.etag.as_str()))?;
    let Some(present) = present else { return Ok(false) };
    remove(connection, after, bucket, key, &present)?;
    notifications::note(connection, after, bucket, (Happening::Deleted, key), None)?;
    Ok(true)
}

/// Deletes an object by a lifecycle rule, unless it was replaced since it was found.
pub(crate) fn expire(connection: &Connection, after: &mut After, bucket: i64, key: &str, content: i64) -> Result<bool, Error> {
    let Some(present) = present(connection, bucket, key)?.filter(|present| present.content == content) else { return Ok(false) };
    remove(connection, after, bucket, key, &present)?;
    notifications::note(connection, after, bucket, (Happening::Expired, key), None)?;
    Ok(true)
}

fn remove(connection: &Connection, after: &mut After, bucket: i64, key: &str, present: &Present) -> Result<(), Error> {
    retire(connection, after, present)?;
    connection.prepare_cached("DELETE FROM objects WHERE bucket = ?1 AND key = ?2")?.execute(params![bucket, key.as_bytes()])?;
    Ok(())
}

/// Changes the attributes of the object with this key.
pub(crate) fn change_attributes(
    connection: &Connection,
    bucket: &str,
    key: &str,
    change: impl FnOnce(&mut Attributes),
) -> Result<(), Error> {
    let (row, _) = find(connection, bucket, key)?;
    let mut attributes = row.attributes;
    change(&mut attributes);
    connection
        .prepare_cached("UPDATE objects SET attributes = ?3 WHERE key = ?2 AND bucket = (SELECT id FROM buckets WHERE name = ?1)")?
        .execute(params![bucket, key.as_bytes(), serde_json::to_string(&attributes)?])?;
    Ok(())
}

struct Present {
    content: i64,
    is_inline: bool,
    etag: String,
}

fn present(connection: &Connection, bucket: i64, key: &str) -> Result<Option<Present>, Error> {
    let found = connection
        .prepare_cached("SELECT content, is_inline, etag FROM objects WHERE bucket = ?1 AND key = ?2")?
        .query_row(params![bucket, key.as_bytes()], |row| Ok(Present { content: row.get(0)?, is_inline: row.get(1)?, etag: row.get(2)? }))
        .optional()?;
    Ok(found)
}

fn retire(connection: &Connection, after: &mut After, present: &Present) -> Result<(), Error> {
    if present.is_inline {
        connection.prepare_cached("DELETE FROM inline WHERE content = ?1")?.execute([present.content])?;
        return Ok(());
    }
    let files = pieces(connection, present.content)?.into_iter().map(|piece| piece.file).collect();
    connection.prepare_cached("DELETE FROM pieces WHERE content = ?1")?.execute([present.content])?;
    after.cleanup(Cleanup::Retire { content: present.content, files });
    Ok(())
}

fn no_such_bucket() -> Error {
    S3Error::with_message(S3ErrorCode::NoSuchBucket, "The specified bucket does not exist").into()
}

fn no_such_key() -> Error {
    S3Error::with_message(S3ErrorCode::NoSuchKey, "The specified key does not exist.").into()
}
