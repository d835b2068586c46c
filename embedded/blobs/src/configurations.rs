//! Rows of bucket configurations: one JSON text for each bucket and kind. Plain functions over a connection.
//! Written by the service; read by `notifications.rs` inside writes and by `expiry.rs`.

use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// The kinds of bucket configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Lifecycle,
    Notifications,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Lifecycle => "lifecycle",
            Self::Notifications => "notifications",
        }
    }
}

/// A bucket's configuration of a kind, if it was set.
pub(crate) fn read<T: DeserializeOwned>(connection: &Connection, bucket: i64, kind: Kind) -> Result<Option<T>, Error> {
    let found: Option<String> = connection
        .prepare_cached("SELECT body FROM configurations WHERE bucket = ?1 AND kind = ?2")?
        .query_row(params![bucket, kind.name()], |row| row.get(0))
        .optional()?;
    Ok(found.map(|body| serde_json::from_str(&body)).transpose()?)
}

/// Sets a bucket's configuration of a kind.
pub(crate) fn write<T: Serialize>(connection: &Connection, bucket: i64, kind: Kind, body: &T) -> Result<(), Error> {
    connection.prepare_cached("INSERT OR REPLACE INTO configurations (bucket, kind, body) VALUES (?1, ?2, ?3)")?.execute(params![
        bucket,
        kind.name(),
        serde_json::to_string(body)?
    ])?;
    Ok(())
}

/// Removes a bucket's configuration of a kind.
pub(crate) fn remove(connection: &Connection, bucket: i64, kind: Kind) -> Result<(), Error> {
    connection.prepare_cached("DELETE FROM configurations WHERE bucket = ?1 AND kind = ?2")?.execute(params![bucket, kind.name()])?;
    Ok(())
}

/// Removes all configurations of a bucket.
pub(crate) fn remove_all(connection: &Connection, bucket: i64) -> Result<(), Error> {
    connection.prepare_cached("DELETE FROM configurations WHERE bucket = ?1")?.execute([bucket])?;
    Ok(())
}

/// The configurations of a kind of all buckets.
pub(crate) fn all<T: DeserializeOwned>(connection: &Connection, kind: Kind) -> Result<Vec<(i64, T)>, Error> {
    let mut statement = connection.prepare_cached("SELECT bucket, body FROM configurations WHERE kind = ?1 ORDER BY bucket")?;
    let mut rows = statement.query([kind.name()])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push((row.get(0)?, serde_json::from_str(row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?)?));
    }
    Ok(found)
}
