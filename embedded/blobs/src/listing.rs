//! Ordered listing of keys with prefix, delimiter and resumption, shared by both versions of ListObjects.
//! Walks the key index and jumps over each common prefix with a new seek.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rusqlite::{Connection, params};

use crate::error::Error;
use crate::objects::bucket_id;

/// Most entries in one answer.
pub(crate) const ENTRIES_MAX: usize = 1000;
/// Rows fetched with one seek while a delimiter folds them.
const ROWS_PER_SEEK: usize = ENTRIES_MAX + 1;

const KEPT_IN_URLS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// What to list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Question {
    pub(crate) bucket: String,
    pub(crate) prefix: String,
    pub(crate) delimiter: String,
    /// Only keys and prefixes after this one.
    pub(crate) after: String,
    pub(crate) entries_max: usize,
}

/// One object of a listing.
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
    /// Where the next page starts, when there is one.
    pub(crate) next_after: Option<String>,
}

impl Page {
    /// The number of entries.
    pub(crate) fn len(&self) -> usize {
        self.objects.len() + self.prefixes.len()
    }
}

/// Reads one page.
pub(crate) fn list(connection: &Connection, question: &Question) -> Result<Page, Error> {
    let bucket = bucket_id(connection, &question.bucket)?;
    let mut page = Page::default();
    if question.entries_max == 0 {
        return Ok(page);
    }
    let mut statement = connection.prepare_cached(
        "SELECT key, size, etag, modified_ms FROM objects
         WHERE bucket = ?1 AND key >= ?2 AND (?3 IS NULL OR key < ?3) ORDER BY key LIMIT ?4",
    )?;
    let end = successor(question.prefix.as_bytes());
    let mut seek = Some(first_key(question));
    let mut last = String::new();
    while let Some(from) = seek.take() {
        let wanted = ROWS_PER_SEEK.min(question.entries_max - page.len() + 1);
        let mut rows = statement.query(params![bucket, from, end, wanted as i64])?;
        let mut fetched = 0;
        while let Some(row) = rows.next()? {
            fetched += 1;
            if page.len() == question.entries_max {
                page.next_after = Some(last);
                return Ok(page);
            }
            let key = text(row.get(0)?);
            if let Some(prefix) = common_prefix(&key, question) {
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

/// The lowest key that may stand in the page.
fn first_key(question: &Question) -> Vec<u8> {
    let prefix = question.prefix.as_bytes();
    if question.after.as_bytes() < prefix || question.after.is_empty() {
        return prefix.to_vec();
    }
    match common_prefix(&question.after, question) {
        Some(passed) => successor(passed.as_bytes()).unwrap_or_else(|| next_key(&question.after)),
        None => next_key(&question.after),
    }
}

fn common_prefix<'a>(key: &'a str, question: &Question) -> Option<&'a str> {
    if question.delimiter.is_empty() {
        return None;
    }
    let rest = key.strip_prefix(question.prefix.as_str())?;
    let at = rest.find(question.delimiter.as_str())?;
    Some(&key[..question.prefix.len() + at + question.delimiter.len()])
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

/// A stored key as text; keys come in as UTF-8, so nothing is lost.
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
