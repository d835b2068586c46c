//! Common parts of answers with files: paths, ranges, headers, list entries.
//!
//! A ranged read is answered with status 200 and those bytes only, because clients of Azure Batch do not accept 206.

use std::ops;

use axum::body::Body;
use contract::message::FileEntry;
use http::{HeaderMap, HeaderName, header};
use model::refusal::{Code, Refusal};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use crate::{
    answer::{Answer, Iso, http_date},
    call::Call,
    conditional::unchanged,
    filter::holds,
    lists::{self, Paging, ROWS_MAX},
    odata::{self, Expression},
};

const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Bytes of a path.
const PATH_BYTES_MAX: usize = 4_096;

/// File mode shown for streams that are no longer files.
pub const STREAM_MODE: u32 = 0o100_644;

/// The bytes of a file that are requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// From the first byte to the last one, both inclusive; `None` means the end.
    From(u64, Option<u64>),
    /// The last bytes, this many.
    Last(u64),
}

impl Range {
    /// Reads `ocp-range`, or `Range`.
    pub fn read(headers: &HeaderMap) -> Result<Option<Range>, Refusal> {
        let Some(value) = headers.get("ocp-range").or_else(|| headers.get(header::RANGE)) else { return Ok(None) };
        let parse = |text: &str| -> Option<Range> {
            let (start, end) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
            let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
            match (start, end) {
                ("", last) => Some(Range::Last(number(last)?)),
                (start, "") => Some(Range::From(number(start)?, None)),
                (start, end) => Some(Range::From(number(start)?, Some(number(end)?)))
                    .filter(|range| !matches!(range, Range::From(start, Some(end)) if start > end)),
            }
        };
        match value.to_str().ok().and_then(parse) {
            Some(range) => Ok(Some(range)),
            None => {
                Err(Refusal::new(Code::InvalidHeaderValue, "The value provided for one of the HTTP headers was not in the correct format.")
                    .with("HeaderName", "ocp-range")
                    .with("Reason", "A single range such as bytes=0-99 is expected."))
            }
        }
    }

    /// The requested bytes of a file of this length.
    pub fn within(range: Option<Range>, length: u64) -> Result<ops::Range<u64>, Refusal> {
        let found = match range {
            None => return Ok(0..length),
            Some(Range::From(start, end)) => start..end.map_or(length, |end| end.saturating_add(1).min(length)),
            Some(Range::Last(count)) => length.saturating_sub(count)..length,
        };
        if found.start < found.end {
            return Ok(found);
        }
        Err(Refusal::new(Code::InvalidRange, "The range specified is invalid for the current size of the resource.")
            .with("ContentLength", length))
    }
}

/// Checks the decoded path of a file below a node's or task's directory.
pub fn path(text: &str) -> Result<&str, Refusal> {
    let text = text.strip_suffix('/').unwrap_or(text);
    match fault(text) {
        None => Ok(text),
        Some(reason) => Err(Refusal::new(Code::InvalidUri, "The requested URI does not represent any resource on the server.")
            .with("FilePath", text.chars().take(256).collect::<String>())
            .with("Reason", reason)),
    }
}

/// Why this is no path of a file that may exist. Names may hold all but a slash and a NUL, as tasks can make them.
fn fault(path: &str) -> Option<&'static str> {
    match path {
        "" => Some("The path is empty."),
        _ if path.len() > PATH_BYTES_MAX => Some("The path is longer than 4096 bytes."),
        _ if path.starts_with('/') => Some("The path must be relative."),
        _ if path.contains('\0') => Some("The path may not hold a NUL."),
        _ if path.split('/').any(|part| part == "..") => Some("The path may not hold '..'."),
        _ => None,
    }
}

/// The refusal for a missing file.
pub fn missing(path: &str) -> Refusal {
    Refusal::new(Code::FileNotFound, "The specified file does not exist.").with("FilePath", path)
}

/// The answer 304, or `None` when the file is to be shown.
pub fn not_modified(call: &Call, entry: &FileEntry) -> Result<Option<Answer>, Refusal> {
    let mut answer = unchanged(&call.condition, 0, entry.modified_at)?;
    if let Some(answer) = &mut answer {
        answer.headers.remove(header::ETAG);
    }
    Ok(answer)
}

/// Content type as Azure sends it: browsers show texts and save other files.
fn content_type(name: &str) -> &'static str {
    if name.to_ascii_lowercase().ends_with(".txt") { "text/plain" } else { "application/octet-stream" }
}

/// An answer with bytes and the file's properties.
pub fn content(call: &Call, entry: &FileEntry, body: Body, length: u64) -> Answer {
    let own = |name| HeaderName::from_static(name);
    Answer::bytes(body, length, content_type(&entry.name))
        .with(header::LAST_MODIFIED, &http_date(entry.modified_at))
        .with(own("ocp-creation-time"), &http_date(entry.created_at))
        .with(own("ocp-batch-file-isdirectory"), if entry.is_directory { "true" } else { "false" })
        .with(own("ocp-batch-file-url"), &format!("{}{}", call.base, call.path))
        .with(own("ocp-batch-file-mode"), &format!("0o{:o}", entry.mode))
}

/// An answer with the file's properties only.
pub fn properties(call: &Call, entry: &FileEntry) -> Answer {
    content(call, entry, Body::empty(), entry.length)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Properties {
    creation_time: Iso,
    last_modified: Iso,
    content_length: u64,
    content_type: &'static str,
    file_mode: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeFile<'a> {
    name: &'a str,
    url: String,
    is_directory: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    properties: Option<Properties>,
}

/// Parameters of a list of files.
pub struct Wanted {
    /// How many, and from where.
    pub paging: Paging,
    /// Whether subdirectories are included.
    pub recursive: bool,
    filter: Option<Expression>,
}

impl Wanted {
    /// Reads the parameters of a list.
    pub fn read(call: &Call) -> Result<Wanted, Refusal> {
        let filter = call.query.text("$filter")?.map(|text| {
            let expression = odata::parse(text)?;
            passes(&expression, "").map_err(|reason| odata::refused(text, &reason))?;
            Ok(expression)
        });
        Ok(Wanted { paging: Paging::read(call, ROWS_MAX)?, recursive: call.query.flag("recursive")?, filter: filter.transpose()? })
    }
}

fn passes(filter: &Expression, name: &str) -> Result<bool, String> {
    holds(filter, &|path| (path == "name").then(|| name.to_owned()))
}

/// A page of entries.
pub fn list(call: &Call, wanted: &Wanted, entries: &[FileEntry], has_more: bool) -> Answer {
    let shown = entries.iter().filter(|entry| wanted.filter.as_ref().is_none_or(|filter| passes(filter, &entry.name).unwrap_or(false)));
    let items = shown.map(|entry| {
        let properties = (!entry.is_directory).then(|| Properties {
            creation_time: Iso(entry.created_at),
            last_modified: Iso(entry.modified_at),
            content_length: entry.length,
            content_type: content_type(&entry.name),
            file_mode: format!("0o{:o}", entry.mode),
        });
        let url = format!("{}{}/{}", call.base, call.path, utf8_percent_encode(&entry.name, KEPT));
        serde_json::to_vec(&NodeFile { name: &entry.name, url, is_directory: entry.is_directory, properties })
            .expect("an entry has a JSON form")
    });
    let next = if has_more { entries.last().map(|entry| entry.name.as_str()) } else { None };
    lists::list(call, "files", items, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Result<Option<Range>, Code> {
        let headers = HeaderMap::from_iter([(HeaderName::from_static("ocp-range"), text.parse().unwrap())]);
        Range::read(&headers).map_err(|refusal| refusal.code)
    }

    #[test]
    fn ranges_are_cut_to_the_file() {
        let within = |text, length| Range::within(range(text).unwrap(), length).map_err(|refusal| refusal.code);
        assert_eq!(within("bytes=0-4", 10), Ok(0..5));
        assert_eq!(within("bytes=5-", 10), Ok(5..10));
        assert_eq!(within("bytes=5-99", 10), Ok(5..10));
        assert_eq!(within("bytes=-3", 10), Ok(7..10));
        assert_eq!(within("bytes=-30", 10), Ok(0..10));
        assert_eq!(within("bytes=10-", 10), Err(Code::InvalidRange));
        assert_eq!(within("bytes=0-", 0), Err(Code::InvalidRange));
        assert_eq!(Range::within(None, 0).unwrap(), 0..0);
    }

    #[test]
    fn what_is_no_single_range_is_refused() {
        for text in [
            "bytes",
            "bytes=",
            "bytes=a-b",
            "bytes=5-4",
            "bytes=0-1,3-4",
            "items=0-1",
            "bytes=-",
            "bytes=+1-2",
            "bytes=99999999999999999999-",
        ] {
            assert_eq!(range(text), Err(Code::InvalidHeaderValue), "{text}");
        }
    }

    #[test]
    fn paths_stay_below_their_directory() {
        assert_eq!(path("wd/a.txt").unwrap(), "wd/a.txt");
        assert_eq!(path("wd/").unwrap(), "wd");
        for text in ["wd/a\tb", "line\nbreak", "back\\slash", "C:\\x", "..\\x"] {
            assert_eq!(path(text).unwrap(), text, "a task may have made it");
        }
        for text in ["", "/", "../x", "a/../../x", "a/..", "/etc/passwd", "a\0b"] {
            assert_eq!(path(text).unwrap_err().code, Code::InvalidUri, "{text:?}");
        }
    }
}
