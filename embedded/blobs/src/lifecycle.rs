//! Lifecycle rules of a bucket, stored as JSON, and the objects and uploads that they delete.
//! Times are whole days, as in S3: an object is due at the midnight after its last day.
//! Set by the service, applied by `expiry.rs`.

use rusqlite::{Connection, params};
use s3s::dto::Timestamp;
use serde::{Deserialize, Serialize};

use crate::attributes::timestamp;
use crate::error::Error;
use crate::listing::{successor, text};

const DAY_MS: i64 = 24 * 3600 * 1000;

/// A bucket's lifecycle configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Lifecycle {
    pub(crate) rules: Vec<Rule>,
}

/// A rule of a bucket's lifecycle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rule {
    pub(crate) id: String,
    pub(crate) is_enabled: bool,
    pub(crate) prefix: String,
    /// True when the prefix was given inside a filter, and is returned in one.
    pub(crate) is_filter: bool,
    pub(crate) expiration: Option<Expiration>,
    /// Days after which an unfinished upload is aborted.
    pub(crate) abort_days: Option<i32>,
}

/// The time at which objects are deleted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Expiration {
    /// Days after the object was written.
    Days(i32),
    /// From this time on.
    Date(Timestamp),
}

impl Rule {
    /// Objects last written at or before this time are due; absent when the rule expires none.
    fn written_until_ms(&self, now_ms: i64) -> Option<i64> {
        match self.expiration.as_ref()? {
            Expiration::Days(days) => Some(days_before(now_ms, *days)),
            Expiration::Date(date) => (*date <= timestamp(now_ms)).then_some(now_ms),
        }
    }

    /// Uploads started at or before this time are due; absent when the rule aborts none.
    fn begun_until_ms(&self, now_ms: i64) -> Option<i64> {
        Some(days_before(now_ms, self.abort_days?))
    }
}

/// The last midnight, minus some days.
fn days_before(now_ms: i64, days: i32) -> i64 {
    now_ms - now_ms.rem_euclid(DAY_MS) - i64::from(days) * DAY_MS
}

/// An object to be deleted by a rule, in the version that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) key: String,
    pub(crate) content: i64,
}

/// The first objects of a bucket, after a key, that a rule deletes.
pub(crate) fn due_objects(
    connection: &Connection,
    bucket: i64,
    rule: &Rule,
    now_ms: i64,
    above: &str,
    max: usize,
) -> Result<Vec<Due>, Error> {
    let Some(until_ms) = rule.written_until_ms(now_ms) else { return Ok(Vec::new()) };
    let mut statement = connection.prepare_cached(
        "SELECT key, content FROM objects
         WHERE bucket = ?1 AND key >= ?2 AND key > ?3 AND (?4 IS NULL OR key < ?4) AND modified_ms <= ?5 ORDER BY key LIMIT ?6",
    )?;
    let prefix = rule.prefix.as_bytes();
    let rows = statement.query_map(params![bucket, prefix, above.as_bytes(), successor(prefix), until_ms, max as i64], |row| {
        Ok(Due { key: text(row.get(0)?), content: row.get(1)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The first uploads of a bucket that a rule aborts.
pub(crate) fn due_uploads(connection: &Connection, bucket: i64, rule: &Rule, now_ms: i64, max: usize) -> Result<Vec<i64>, Error> {
    let Some(until_ms) = rule.begun_until_ms(now_ms) else { return Ok(Vec::new()) };
    let mut statement = connection.prepare_cached(
        "SELECT id FROM uploads
         WHERE bucket = ?1 AND key >= ?2 AND (?3 IS NULL OR key < ?3) AND initiated_ms <= ?4 ORDER BY id LIMIT ?5",
    )?;
    let prefix = rule.prefix.as_bytes();
    let rows = statement.query_map(params![bucket, prefix, successor(prefix), until_ms, max as i64], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_end_at_midnight() {
        let rule = |expiration| Rule {
            id: "r".to_owned(),
            is_enabled: true,
            prefix: String::new(),
            is_filter: true,
            expiration: Some(expiration),
            abort_days: Some(2),
        };
        let one = rule(Expiration::Days(1));
        // Written at noon of day 10, an object is a day old at noon of day 11, and due at the midnight after that.
        let written = 10 * DAY_MS + DAY_MS / 2;
        assert!(one.written_until_ms(12 * DAY_MS - 1) < Some(written));
        assert!(one.written_until_ms(12 * DAY_MS) >= Some(written));
        assert_eq!(one.begun_until_ms(12 * DAY_MS + 5), Some(10 * DAY_MS));
        let dated = rule(Expiration::Date(timestamp(5 * DAY_MS)));
        assert_eq!(dated.written_until_ms(5 * DAY_MS - 1), None);
        assert_eq!(dated.written_until_ms(5 * DAY_MS), Some(5 * DAY_MS));
    }
}
