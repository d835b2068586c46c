//! Ordered listing of keys with prefix, delimiter and continuation, shared by both versions of ListObjects.
//! Reads the key index and skips each common prefix with a new seek.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rusqlite::{Connection, params};

use crate::error::Error;
use crate::objects::bucket_id;

/// Entries in one answer, at most.
pub(crate) const ENTRIES_MAX: usize = 1000;
/// Rows fetched with one seek while a delimiter folds them.
const ROWS_PER_SEEK: usize = ENTRIES_MAX + 1;

const KEPT_IN_URLS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// The parameters of a listing.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListQuery {
    pub(crate) bucket: String,
    pub(crate) prefix: String,
    pub(crate) delimiter: String,
    /// Selects keys and prefixes after this one.
    pub(crate) after: String,
    pub(crate) entries_max: usize,
}

/// An object of a listing.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) key: String,
    pub(crate) size: u64,
    pub(crate) etag: String,
    pub(crate) modified_ms: i64,
}

/// A page of a listing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    pub(crate) objects: Vec<Listed>,
    pub(crate) prefixes: Vec<String>,
    /// The `after` of the next page, when there is one.
    pub(crate) next_after: Option<String>,
}

impl Page {
    /// The number of entries.
    pub(crate) fn len(&self) -> usize {
        self.objects.len() + self.prefixes.len()
    }
}

/// Reads one page.
pub(crate) fn list(connection: &Connection, query: &ListQuery) -> Result<Page, Error> {
    let bucket = bucket_id(connection, &query.bucket)?;
    let mut page = Page::default();
    if query.entries_max == 0 {
        return Ok(page);
    }
    let mut statement = connection.prepare_cached(
        "SELECT key, size, etag, modified_ms FROM objects
         WHERE bucket = ?1 AND key >= ?2 AND (?3 IS NULL OR key < ?3) ORDER BY key LIMIT ?4",
    )?;
    let end = successor(query.prefix.as_bytes());
    let mut seek = Some(first_key(query));
    let mut last = String::new();
    while let Some(from) = seek.take() {
        let wanted = ROWS_PER_SEEK.min(query.entries_max - page.len() + 1);
        let mut rows = statement.query(params![bucket, from, end, wanted as i64])?;
        let mut fetched = 0;
        while let Some(row) = rows.next()? {
            fetched += 1;
            if page.len() == query.entries_max {
                page.next_after = Some(last);
                return Ok(page);
            }
            let key = text(row.get(0)?);
            if let Some(prefix) = common_prefix(&key, query) {
                last = prefix.to_owned();
                page.prefixes.push(last.clone());
                seek = successor(last.as_bytes());
                break;
            }
            last.clone_from(&key);
            page.objects.push(Listed { key, size: row.get::<_, i64>(1)?.cast_unsigned(), etag: row.get(2)?, modified_ms: row.get(3)? });
        }
        if seek.is_none() && fetched == wanted {
            seek = Some(next_key(&last));
        }
    }
    Ok(page)
}

/// The lowest key that may be on the page.
fn first_key(query: &ListQuery) -> Vec<u8> {
    let prefix = query.prefix.as_bytes();
    if query.after.as_bytes() < prefix || query.after.is_empty() {
        return prefix.to_vec();
    }
    match common_prefix(&query.after, query) {
        Some(passed) => successor(passed.as_bytes()).unwrap_or_else(|| next_key(&query.after)),
        None => next_key(&query.after),
    }
}

fn common_prefix<'a>(key: &'a str, query: &ListQuery) -> Option<&'a str> {
    if query.delimiter.is_empty() {
        return None;
    }
    let rest = key.strip_prefix(query.prefix.as_str())?;
    let at = rest.find(query.delimiter.as_str())?;
    Some(&key[..query.prefix.len() + at + query.delimiter.len()])
}

fn next_key(key: &str) -> Vec<u8> {
    let mut next = key.as_bytes().to_vec();
    next.push(0);
    next
}

/// The lowest byte string above everything that starts with `prefix`; nothing for the empty prefix.
pub(crate) fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut above = prefix.to_vec();
    while let Some(last) = above.pop() {
        if last < u8::MAX {
            above.push(last + 1);
            return Some(above);
        }
    }
    None
}

/// A stored key as text; keys are received as UTF-8, so nothing is lost.
pub(crate) fn text(key: Vec<u8>) -> String {
    String::from_utf8(key).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Encodes a name when the client asked for `encoding-type=url`.
pub(crate) fn encoded(name: &str, is_encoded: bool) -> String {
    if is_encoded { utf8_percent_encode(name, KEPT_IN_URLS).to_string() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_successor_is_above_all_that_share_the_prefix() {
        assert_eq!(successor(b"a/"), Some(b"a0".to_vec()));
        assert_eq!(successor(&[b'a', 0xff]), Some(b"b".to_vec()));
        assert_eq!(successor(b""), None);
    }

    #[test]
    fn encoding_keeps_slashes_and_escapes_the_rest() {
        assert_eq!(encoded("a/b c+ü", true), "a/b%20c%2B%C3%BC");
        assert_eq!(encoded("a b", false), "a b");
    }
}
