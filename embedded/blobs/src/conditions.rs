//! Conditional requests: `If-Match` and the three related headers, for reads, copies and writes.
//! Pure; called by the service with the object's row.

use std::time::SystemTime;

use http::StatusCode;
use s3s::dto::{ETag, ETagCondition, Timestamp};
use s3s::{S3Error, S3ErrorCode, S3Result};

use crate::attributes::timestamp;
use crate::objects::Row;

/// The four conditions of a read.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReadConditions {
    pub(crate) if_match: Option<ETagCondition>,
    pub(crate) if_none_match: Option<ETagCondition>,
    pub(crate) if_modified_since: Option<Timestamp>,
    pub(crate) if_unmodified_since: Option<Timestamp>,
}

impl ReadConditions {
    /// Refuses with 412 or 304, in the order that RFC 9110 gives.
    pub(crate) fn check(&self, row: &Row) -> S3Result<()> {
        if let Some(condition) = &self.if_match {
            if !matches(condition, &row.etag) {
                return Err(precondition_failed());
            }
        } else if self.if_unmodified_since.as_ref().is_some_and(|since| is_later(row, since)) {
            return Err(precondition_failed());
        }
        if let Some(condition) = &self.if_none_match {
            if matches(condition, &row.etag) {
                return Err(not_modified(row));
            }
        } else if self.if_modified_since.as_ref().is_some_and(|since| !is_later(row, since)) {
            return Err(not_modified(row));
        }
        Ok(())
    }

    /// As `check`, for the source of a copy, where every refusal is 412.
    pub(crate) fn check_source(&self, row: &Row) -> S3Result<()> {
        self.check(row).map_err(|_| precondition_failed())
    }
}

/// The two conditions of a write.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteConditions {
    pub(crate) if_match: Option<ETagCondition>,
    pub(crate) if_none_match: Option<ETagCondition>,
}

impl WriteConditions {
    /// Compares with the ETag of the present object, if there is one.
    pub(crate) fn check(&self, etag: Option<&str>) -> S3Result<()> {
        match (&self.if_match, etag) {
            (Some(_), None) => return Err(S3ErrorCode::NoSuchKey.into()),
            (Some(condition), Some(etag)) if !matches(condition, etag) => return Err(precondition_failed()),
            _ => {}
        }
        match (&self.if_none_match, etag) {
            (Some(condition), Some(etag)) if matches(condition, etag) => Err(precondition_failed()),
            _ => Ok(()),
        }
    }
}

fn matches(condition: &ETagCondition, etag: &str) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(wanted) => wanted.value() == etag,
    }
}

// HTTP dates count whole seconds, so the row's time is cut to them.
fn is_later(row: &Row, since: &Timestamp) -> bool {
    timestamp(row.modified_ms / 1000 * 1000) > *since && *since <= Timestamp::from(SystemTime::now())
}

fn precondition_failed() -> S3Error {
    S3Error::with_message(S3ErrorCode::PreconditionFailed, "At least one of the pre-conditions you specified did not hold")
}

fn not_modified(row: &Row) -> S3Error {
    let mut answer = S3Error::new(S3ErrorCode::NotModified);
    answer.set_status_code(StatusCode::NOT_MODIFIED);
    let etag = ETag::Strong(row.etag.clone()).to_http_header();
    if let Ok(etag) = etag {
        answer.set_headers([(http::header::ETAG, etag)].into_iter().collect());
    }
    answer
}
