//! Reads objects: get, head, tags. Also opens the bytes of a copy's source.
//! Called by the S3 trait; rows are in `objects.rs`, the stream of bytes in `download.rs`.

use std::ops;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use rusqlite::Connection;
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::Service;
use super::refuse::{unsupported, version};
use crate::attributes::{put_attributes, timestamp};
use crate::conditions::ReadConditions;
use crate::digest::put_sums;
use crate::download::{self, Outflow};
use crate::error::Error;
use crate::files::Files;
use crate::objects::{self, Piece, Row};
use crate::reaper::{Pin, Reaper};

/// An object whose bytes stay readable while this value exists.
pub(super) struct Opened {
    pub(super) row: Row,
    pub(super) bytes: OpenedBytes,
}

/// The place of an opened object's bytes.
pub(super) enum OpenedBytes {
    Inline(Vec<u8>),
    Files(Vec<Piece>, Pin),
}

impl Opened {
    /// Streams a range of the object.
    pub(super) fn stream(self, files: &Files, range: ops::Range<u64>) -> S3Result<StreamingBlob> {
        match self.bytes {
            OpenedBytes::Inline(bytes) => {
                let end = usize::try_from(range.end).map_err(S3Error::internal_error)?;
                let start = usize::try_from(range.start).map_err(S3Error::internal_error)?;
                Ok(download::whole(Bytes::from(bytes).slice(start..end)))
            }
            OpenedBytes::Files(pieces, pin) => Ok(StreamingBlob::new(Outflow::new(files.clone(), pieces, range, pin))),
        }
    }

    fn piece_range(&self, number: i32) -> S3Result<ops::Range<u64>> {
        let invalid = || s3_error!(InvalidRange, "The requested partnumber is not satisfiable");
        let at = usize::try_from(number - 1).map_err(|_| invalid())?;
        match &self.bytes {
            OpenedBytes::Files(pieces, _) if self.row.attributes.parts.is_some() => {
                let piece = pieces.get(at).ok_or_else(invalid)?;
                let start = pieces[..at].iter().map(|piece| piece.size).sum::<u64>();
                Ok(start..start + piece.size)
            }
            _ if at == 0 => Ok(0..self.row.size),
            _ => Err(invalid()),
        }
    }
}

impl Service {
    pub(super) async fn get(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        version(input.version_id.as_deref())?;
        unsupported(input.sse_customer_algorithm.is_some(), "Server-side encryption")?;
        let conditions = ReadConditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        let opened = self.open(input.bucket, input.key, conditions).await?;
        let part = Selection::new(&opened, input.range.as_ref(), input.part_number)?;
        let row = opened.row.clone();
        let is_part_wanted = input.part_number.is_some();
        let mut output = GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            body: Some(opened.stream(&self.files, part.range.clone())?),
            content_length: Some(part.length()),
            content_range: part.content_range(row.size),
            e_tag: Some(ETag::Strong(row.etag.clone())),
            last_modified: Some(timestamp(row.modified_ms)),
            parts_count: row.attributes.parts.filter(|_| is_part_wanted).map(|parts| parts.cast_signed()),
            version_id: input.version_id,
            tag_count: (!row.attributes.tags.is_empty()).then_some(row.attributes.tags.len() as i32),
            ..Default::default()
        };
        put_attributes!(output, &row.attributes);
        // A checksum of the whole object would be wrong for a part of it.
        if part.is_whole && input.checksum_mode.is_some() {
            put_sums!(output, &row.attributes.sums);
            output.checksum_type = checksum_type(&row);
        }
        Ok(S3Response::new(output))
    }

    pub(super) async fn head(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        version(input.version_id.as_deref())?;
        unsupported(input.sse_customer_algorithm.is_some(), "Server-side encryption")?;
        let conditions = ReadConditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        let opened = self.open(input.bucket, input.key, conditions).await?;
        let part = Selection::new(&opened, input.range.as_ref(), input.part_number)?;
        let row = opened.row;
        let mut output = HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(part.length()),
            content_range: part.content_range(row.size),
            version_id: input.version_id,
            e_tag: Some(ETag::Strong(row.etag.clone())),
            last_modified: Some(timestamp(row.modified_ms)),
            parts_count: row.attributes.parts.filter(|_| input.part_number.is_some()).map(|parts| parts.cast_signed()),
            ..Default::default()
        };
        put_attributes!(output, &row.attributes);
        if part.is_whole && input.checksum_mode.is_some() {
            put_sums!(output, &row.attributes.sums);
            output.checksum_type = checksum_type(&row);
        }
        let status = if part.is_whole { StatusCode::OK } else { StatusCode::PARTIAL_CONTENT };
        Ok(S3Response::with_status(output, status))
    }

    pub(super) async fn tags(&self, request: S3Request<GetObjectTaggingInput>) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        let input = request.input;
        version(input.version_id.as_deref())?;
        let (bucket, key) = (input.bucket, input.key);
        let (row, _) = self.readers.run(move |connection| objects::find(connection, &bucket, &key)).await?;
        let tag_set = row.attributes.tags.into_iter().map(|(key, value)| Tag { key: Some(key), value: Some(value) }).collect();
        Ok(S3Response::new(GetObjectTaggingOutput { tag_set, version_id: None }))
    }

    /// Finds an object, checks the conditions, and pins its bytes.
    pub(super) async fn open(&self, bucket: String, key: String, conditions: ReadConditions) -> S3Result<Opened> {
        let reaper = self.reaper.clone();
        let opened = self.readers.run(move |connection| open(connection, &reaper, &bucket, &key, &conditions)).await?;
        Ok(opened)
    }
}

fn open(connection: &Connection, reaper: &Reaper, bucket: &str, key: &str, conditions: &ReadConditions) -> Result<Opened, Error> {
    let (mut row, mut inline) = objects::find(connection, bucket, key)?;
    loop {
        conditions.check(&row)?;
        if let Some(bytes) = inline {
            return Ok(Opened { row, bytes: OpenedBytes::Inline(bytes) });
        }
        // The pin holds only if the row still exists after it was taken.
        let pin = reaper.pin(row.content);
        let pieces = objects::pieces(connection, row.content)?;
        let (now, bytes) = objects::find(connection, bucket, key)?;
        if now.content == row.content {
            return Ok(Opened { row, bytes: OpenedBytes::Files(pieces, pin) });
        }
        (row, inline) = (now, bytes);
    }
}

/// The bytes of an object that a request selects.
struct Selection {
    range: ops::Range<u64>,
    is_whole: bool,
}

impl Selection {
    fn new(opened: &Opened, range: Option<&Range>, part_number: Option<i32>) -> S3Result<Self> {
        let size = opened.row.size;
        match (range, part_number) {
            (Some(_), Some(_)) => Err(s3_error!(InvalidRequest, "Cannot specify both Range header and partNumber query parameter")),
            (Some(range), None) => {
                let range = range.check(size).map_err(|_| not_satisfiable(size))?;
                Ok(Self { range, is_whole: false })
            }
            (None, Some(number)) => {
                let range = opened.piece_range(number)?;
                Ok(Self { is_whole: range == (0..size), range })
            }
            (None, None) => Ok(Self { range: 0..size, is_whole: true }),
        }
    }

    fn length(&self) -> i64 {
        (self.range.end - self.range.start).cast_signed()
    }

    fn content_range(&self, size: u64) -> Option<String> {
        (!self.is_whole).then(|| format!("bytes {}-{}/{size}", self.range.start, self.range.end.saturating_sub(1)))
    }
}

fn not_satisfiable(size: u64) -> S3Error {
    let mut answer = S3Error::with_message(S3ErrorCode::InvalidRange, "The requested range is not satisfiable");
    if let Ok(value) = HeaderValue::try_from(format!("bytes */{size}")) {
        answer.set_headers(HeaderMap::from_iter([(http::header::CONTENT_RANGE, value)]));
    }
    answer
}

fn checksum_type(row: &Row) -> Option<ChecksumType> {
    let is_composite = row.attributes.parts.is_some() && !row.attributes.is_sum_of_whole;
    (!row.attributes.sums.is_empty()).then(|| super::upload::checksum_type(!is_composite))
}
