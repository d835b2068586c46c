//! Rows of buckets: create, list, delete. Plain functions over a connection.
//! Used by the service; deleting a bucket aborts its unfinished uploads.

use rusqlite::{Connection, OptionalExtension, params};
use s3s::{S3Error, S3ErrorCode};

use crate::attributes::now_ms;
use crate::configurations;
use crate::error::Error;
use crate::multipart;
use crate::objects::bucket_id;
use crate::writer::After;

/// A bucket of a listing.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    pub(crate) name: String,
    pub(crate) created_ms: i64,
}

/// Creates a bucket.
pub(crate) fn create(connection: &Connection, name: &str) -> Result<(), Error> {
    let created = connection
        .prepare_cached("INSERT INTO buckets (name, created_ms) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute(params![name, now_ms()])?;
    if created == 0 {
        return Err(S3Error::with_message(
            S3ErrorCode::BucketAlreadyOwnedByYou,
            "Your previous request to create the named bucket succeeded and you already own it.",
        )
        .into());
    }
    Ok(())
}

/// Lists every bucket whose name starts with `prefix`.
pub(crate) fn list(connection: &Connection, prefix: &str) -> Result<Vec<Bucket>, Error> {
    let mut statement = connection.prepare_cached("SELECT name, created_ms FROM buckets ORDER BY name")?;
    let rows = statement.query_map([], |row| Ok(Bucket { name: row.get(0)?, created_ms: row.get(1)? }))?;
    let buckets: Vec<Bucket> = rows.collect::<Result<_, _>>()?;
    Ok(buckets.into_iter().filter(|bucket| bucket.name.starts_with(prefix)).collect())
}

/// Deletes an empty bucket.
pub(crate) fn delete(connection: &Connection, after: &mut After, name: &str) -> Result<(), Error> {
    let bucket = bucket_id(connection, name)?;
    let object: Option<i64> =
        connection.prepare_cached("SELECT 1 FROM objects WHERE bucket = ?1 LIMIT 1")?.query_row([bucket], |row| row.get(0)).optional()?;
    if object.is_some() {
        return Err(S3Error::with_message(S3ErrorCode::BucketNotEmpty, "The bucket you tried to delete is not empty").into());
    }
    multipart::abort_all(connection, after, bucket)?;
    configurations::remove_all(connection, bucket)?;
    connection.prepare_cached("DELETE FROM buckets WHERE id = ?1")?.execute([bucket])?;
    Ok(())
}
