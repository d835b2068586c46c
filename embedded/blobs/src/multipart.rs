//! Rows of multipart uploads and their parts: create, add, list, complete, abort.
//! Completing moves the parts' files to the object without touching their bytes.

use rusqlite::{Connection, OptionalExtension, Row as SqlRow, params};
use s3s::{S3Error, S3ErrorCode, s3_error};

use crate::attributes::{Attributes, now_ms};
use crate::conditions::WriteConditions;
use crate::crc;
use crate::digest::{self, Digests, Sums};
use crate::error::Error;
use crate::events::Creation;
use crate::files::Fresh;
use crate::objects::{self, NewBytes, NewObject, Piece, bucket_id};
use crate::reaper::Cleanup;
use crate::writer::After;

/// Highest part number.
pub(crate) const PARTS_MAX: i32 = 10_000;

/// An unfinished upload.
#[derive(Clone, Debug)]
pub(crate) struct Upload {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) key: String,
    pub(crate) initiated_ms: i64,
    pub(crate) attributes: Attributes,
}

/// A stored part.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) number: i32,
    pub(crate) file: String,
    pub(crate) size: u64,
    pub(crate) etag: String,
    pub(crate) modified_ms: i64,
    pub(crate) sums: Sums,
}

/// A part as the client names it when it completes the upload.
#[derive(Clone, Debug)]
pub(crate) struct NamedPart {
    pub(crate) number: i32,
    pub(crate) etag: String,
    pub(crate) sums: Sums,
}

/// The request to complete an upload.
#[derive(Debug)]
pub(crate) struct Completion {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) upload: String,
    pub(crate) parts: Vec<NamedPart>,
    pub(crate) sums: Sums,
    /// True or false when the client states whether its checksum covers the whole object.
    pub(crate) is_sum_of_whole: Option<bool>,
    pub(crate) size: Option<u64>,
    pub(crate) conditions: WriteConditions,
    pub(crate) number: i64,
    pub(crate) part_bytes_min: u64,
    pub(crate) object_bytes_max: u64,
}

/// The answer to a completed upload.
#[derive(Clone, Debug)]
pub(crate) struct Completed {
    pub(crate) etag: String,
    pub(crate) sums: Sums,
    pub(crate) is_sum_of_whole: bool,
}

/// Creates an upload under a fresh name.
pub(crate) fn create(connection: &Connection, bucket: &str, key: &str, name: &str, attributes: &Attributes) -> Result<(), Error> {
    let bucket = bucket_id(connection, bucket)?;
    connection
        .prepare_cached("INSERT INTO uploads (name, bucket, key, initiated_ms, attributes) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![name, bucket, key.as_bytes(), now_ms(), serde_json::to_string(attributes)?])?;
    Ok(())
}

/// Finds an upload by its id, which must belong to this bucket and key.
pub(crate) fn find(connection: &Connection, bucket: &str, key: &str, name: &str) -> Result<Upload, Error> {
    let bucket = bucket_id(connection, bucket)?;
    connection
        .prepare_cached(
            "SELECT id, name, key, initiated_ms, attributes FROM uploads
             WHERE name = ?1 AND bucket = ?2 AND key = ?3",
        )?
        .query_row(params![name, bucket, key.as_bytes()], |row| Ok(read_upload(row)))
        .optional()?
        .unwrap_or_else(|| {
            Err(S3Error::with_message(
                S3ErrorCode::NoSuchUpload,
                "The specified upload does not exist. The upload ID may be invalid, \
                 or the upload may have been aborted or completed.",
            )
            .into())
        })
}

/// Stores a part, replacing an earlier one of the same number, and returns its time.
pub(crate) fn put_part(
    connection: &Connection,
    after: &mut After,
    upload: i64,
    number: i32,
    part: (Fresh, u64, Digests),
) -> Result<i64, Error> {
    let (fresh, size, digests) = part;
    let is_open: Option<i64> =
        connection.prepare_cached("SELECT 1 FROM uploads WHERE id = ?1")?.query_row([upload], |row| row.get(0)).optional()?;
    if is_open.is_none() {
        return Err(S3ErrorCode::NoSuchUpload.into());
    }
    let replaced: Option<String> = connection
        .prepare_cached("SELECT file FROM parts WHERE upload = ?1 AND number = ?2")?
        .query_row(params![upload, number], |row| row.get(0))
        .optional()?;
    let modified_ms = now_ms();
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO parts (upload, number, file, size, etag, modified_ms, sums)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            upload,
            number,
            fresh.id(),
            size.cast_signed(),
            digests.etag(),
            modified_ms,
            serde_json::to_string(&digests.sums)?
        ])?;
    after.keep([fresh]);
    discard(after, upload, replaced.into_iter().collect());
    Ok(modified_ms)
}

/// The parts of an upload with numbers above `after`, in order.
pub(crate) fn parts(connection: &Connection, upload: i64, after: i32, parts_max: i64) -> Result<Vec<Part>, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT number, file, size, etag, modified_ms, sums FROM parts
         WHERE upload = ?1 AND number > ?2 ORDER BY number LIMIT ?3",
    )?;
    let mut rows = statement.query(params![upload, after, parts_max])?;
    let mut parts = Vec::new();
    while let Some(row) = rows.next()? {
        parts.push(Part {
            number: row.get(0)?,
            file: row.get(1)?,
            size: row.get::<_, i64>(2)?.cast_unsigned(),
            etag: row.get(3)?,
            modified_ms: row.get(4)?,
            sums: serde_json::from_str(row.get_ref(5)?.as_str().map_err(rusqlite::Error::from)?)?,
        });
    }
    Ok(parts)
}

/// The unfinished uploads of a bucket after the marker, in order of key.
pub(crate) fn list(
    connection: &Connection,
    bucket: &str,
    prefix: &str,
    marker: (&str, &str),
    uploads_max: i64,
) -> Result<Vec<Upload>, Error> {
    let bucket = bucket_id(connection, bucket)?;
    let (key, name) = marker;
    let mut statement = connection.prepare_cached(
        "SELECT id, name, key, initiated_ms, attributes FROM uploads
         WHERE bucket = ?1 AND key >= ?2 AND (?3 IS NULL OR key < ?3)
           AND (key > ?4 OR (?5 <> '' AND key = ?4 AND name > ?5))
         ORDER BY key, name LIMIT ?6",
    )?;
    let end = crate::listing::successor(prefix.as_bytes());
    // The empty marker sorts before every key, since no key is empty.
    let rows =
        statement.query_map(params![bucket, prefix.as_bytes(), end, key.as_bytes(), name, uploads_max], |row| Ok(read_upload(row)))?;
    rows.map(|row| row?).collect()
}

/// Turns an upload into an object; a repeated request gets the same answer.
pub(crate) fn complete(connection: &Connection, after: &mut After, completion: Completion) -> Result<Completed, Error> {
    let upload = match find(connection, &completion.bucket, &completion.key, &completion.upload) {
        Err(Error::Refused(refusal)) if *refusal.code() == S3ErrorCode::NoSuchUpload => {
            return completed_before(connection, &completion).ok_or(Error::Refused(refusal));
        }
        found => found?,
    };
    let is_sum_of_whole = upload.attributes.is_sum_of_whole;
    if completion.is_sum_of_whole.is_some_and(|wanted| wanted != is_sum_of_whole) {
        return Err(s3_error!(InvalidRequest, "The upload was created using another checksum type.").into());
    }
    let stored = parts(connection, upload.id, 0, i64::from(PARTS_MAX))?;
    let (chosen, rest) = choose(stored, &completion)?;
    let size = chosen.iter().map(|part| part.size).sum::<u64>();
    if size > completion.object_bytes_max {
        return Err(s3_error!(EntityTooLarge, "The completed object would be too large.").into());
    }
    if completion.size.is_some_and(|announced| announced != size) {
        return Err(s3_error!(InvalidRequest, "The provided 'x-amz-mp-object-size' header does not match.").into());
    }
    let etags: Vec<_> = chosen.iter().map(|part| part.etag.clone()).collect();
    let etag = digest::etag_of_parts(&etags);
    let sums = sums_of_parts(&upload, &chosen);
    if !completion.sums.agrees_with(&sums) {
        return Err(s3_error!(BadDigest, "The checksum you specified did not match the calculated checksum.").into());
    }
    connection.prepare_cached("DELETE FROM parts WHERE upload = ?1")?.execute([upload.id])?;
    connection.prepare_cached("DELETE FROM uploads WHERE id = ?1")?.execute([upload.id])?;
    discard(after, upload.id, rest.into_iter().map(|part| part.file).collect());
    let attributes = Attributes {
        sums: sums.clone(),
        upload: Some(upload.name),
        parts: Some(u32::try_from(chosen.len()).expect("part numbers bound their count")),
        ..upload.attributes
    };
    let pieces = chosen.into_iter().map(|part| Piece { file: part.file, size: part.size }).collect();
    let object = NewObject {
        how: Creation::CompleteMultipartUpload,
        bucket: completion.bucket,
        key: completion.key,
        number: completion.number,
        size,
        etag: etag.clone(),
        attributes,
        bytes: NewBytes::Named(pieces),
        conditions: completion.conditions,
    };
    objects::write(connection, after, object)?;
    Ok(Completed { etag, sums, is_sum_of_whole })
}

/// Removes an upload and its parts.
pub(crate) fn abort(connection: &Connection, after: &mut After, upload: i64) -> Result<(), Error> {
    let files = parts(connection, upload, 0, i64::from(PARTS_MAX))?.into_iter().map(|part| part.file).collect();
    connection.prepare_cached("DELETE FROM parts WHERE upload = ?1")?.execute([upload])?;
    connection.prepare_cached("DELETE FROM uploads WHERE id = ?1")?.execute([upload])?;
    discard(after, upload, files);
    Ok(())
}

/// Removes every upload of a bucket.
pub(crate) fn abort_all(connection: &Connection, after: &mut After, bucket: i64) -> Result<(), Error> {
    let ids = upload_ids(connection, "SELECT id FROM uploads WHERE bucket = ?1", bucket)?;
    ids.into_iter().try_for_each(|upload| abort(connection, after, upload))
}

/// Removes the rows of uploads started before a time; their files are removed by the sweep at start.
pub(crate) fn drop_stale(connection: &Connection, before_ms: i64) -> Result<usize, Error> {
    let ids = upload_ids(connection, "SELECT id FROM uploads WHERE initiated_ms < ?1", before_ms)?;
    for upload in &ids {
        abort(connection, &mut After::default(), *upload)?;
    }
    Ok(ids.len())
}

fn upload_ids(connection: &Connection, query: &str, value: i64) -> Result<Vec<i64>, Error> {
    let mut statement = connection.prepare_cached(query)?;
    let rows = statement.query_map([value], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn read_upload(row: &SqlRow<'_>) -> Result<Upload, Error> {
    Ok(Upload {
        id: row.get(0)?,
        name: row.get(1)?,
        key: crate::listing::text(row.get(2)?),
        initiated_ms: row.get(3)?,
        attributes: serde_json::from_str(row.get_ref(4)?.as_str().map_err(rusqlite::Error::from)?)?,
    })
}

fn completed_before(connection: &Connection, completion: &Completion) -> Option<Completed> {
    let (row, _) = objects::find(connection, &completion.bucket, &completion.key).ok()?;
    let is_same = row.attributes.upload.as_deref() == Some(completion.upload.as_str());
    is_same.then_some(Completed { etag: row.etag, sums: row.attributes.sums, is_sum_of_whole: row.attributes.is_sum_of_whole })
}

/// Selects the parts that the client names, in its order, and returns the others separately.
fn choose(stored: Vec<Part>, completion: &Completion) -> Result<(Vec<Part>, Vec<Part>), Error> {
    if completion.parts.is_empty() {
        return Err(s3_error!(MalformedXML, "You must specify at least one part.").into());
    }
    if !completion.parts.is_sorted_by(|one, next| one.number < next.number) {
        return Err(s3_error!(InvalidPartOrder, "The list of parts was not in ascending order.").into());
    }
    let mut chosen = Vec::with_capacity(completion.parts.len());
    let mut rest = Vec::new();
    let mut named = completion.parts.iter().peekable();
    for part in stored {
        match named.next_if(|named| named.number == part.number) {
            Some(named) if named.etag == part.etag && named.sums.agrees_with(&part.sums) => chosen.push(part),
            Some(_) => return Err(invalid_part()),
            None => rest.push(part),
        }
    }
    if named.next().is_some() {
        return Err(invalid_part());
    }
    let but_last = &chosen[..chosen.len() - 1];
    if but_last.iter().any(|part| part.size < completion.part_bytes_min) {
        return Err(s3_error!(EntityTooSmall, "Your proposed upload is smaller than the minimum allowed object size.").into());
    }
    Ok((chosen, rest))
}

fn sums_of_parts(upload: &Upload, chosen: &[Part]) -> Sums {
    let mut sums = Sums::default();
    if let Some(algorithm) = upload.attributes.algorithm {
        let of_parts: Option<Vec<_>> = chosen.iter().map(|part| part.sums.get(algorithm).cloned()).collect();
        let sum = of_parts.and_then(|of_parts| {
            if upload.attributes.is_sum_of_whole {
                crc::joined(algorithm, of_parts.iter().map(String::as_str).zip(chosen.iter().map(|part| part.size)))
            } else {
                digest::composite(algorithm, &of_parts)
            }
        });
        sums.set(algorithm, sum);
    }
    sums
}

fn discard(after: &mut After, upload: i64, files: Vec<String>) {
    if !files.is_empty() {
        // Pins count up from one, so the negated number never equals a reader's.
        after.cleanup(Cleanup::Retire { content: -upload, files });
    }
}

fn invalid_part() -> Error {
    s3_error!(
        InvalidPart,
        "One or more of the specified parts could not be found. The part may not have been uploaded, \
         or the specified entity tag may not match the part's entity tag."
    )
    .into()
}
