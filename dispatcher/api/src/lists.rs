//! Pages of lists: size, position, and the link to the next page.
//!
//! A page token holds the last id shown, so it stays valid while others add and remove rows.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use model::refusal::Refusal;
use store::{left_out::LeftOut, read::Page};

use crate::{answer::Answer, call::Call, filter::Compiled, odata::Select, query::wrong, schema};

/// Rows of a page at most, and by default.
pub const ROWS_MAX: usize = 1_000;

/// Extra capacity for the link to the next page.
const LINK_BYTES: usize = 1_024;
const TOKEN_VERSION: &str = "1:";
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// The page that a request asks for.
#[derive(Debug, Clone)]
pub struct Paging {
    pub rows_max: usize,
    /// Only rows after this one.
    pub after: Option<String>,
    /// Told of the rows that cannot be read.
    left_out: LeftOut,
}

impl Paging {
    /// Reads `maxresults` and `$skiptoken`.
    pub fn read(call: &Call, most: usize) -> Result<Paging, Refusal> {
        let rows_max = call.query.number("maxresults", 1, most as i64)?.map_or(most, |rows| rows as usize);
        let left_out = call.left_out.clone();
        let Some(token) = call.query.text("$skiptoken")? else { return Ok(Paging { rows_max, after: None, left_out }) };
        let after = Some(token)
            .filter(|token| token.len() <= TOKEN_BYTES_MAX)
            .and_then(|token| URL_SAFE_NO_PAD.decode(token).ok())
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .and_then(|text| text.strip_prefix(TOKEN_VERSION).map(str::to_owned))
            .ok_or_else(|| wrong("$skiptoken", token, "The token was not made by this server.").hint("List again from the start."))?;
        Ok(Paging { rows_max, after: Some(after), left_out })
    }

    /// The page to read from the store, with one row more to see whether others follow; `None` when no row can pass the
    /// filter.
    pub fn page(&self, filter: Compiled) -> Option<Page> {
        let filter = match filter {
            Compiled::Constant(false) => return None,
            Compiled::Constant(true) => None,
            Compiled::Store(filter) => Some(filter),
        };
        Some(Page { filter, ..self.all() })
    }

    /// The same of rows that no filter narrows.
    pub fn all(&self) -> Page {
        Page { after: self.after.clone(), rows_max: self.rows_max + 1, filter: None, left_out: self.left_out.clone() }
    }

    /// The rows to show, and the last of them when more follow.
    pub fn shown<'r, R>(&self, rows: &'r [R]) -> (&'r [R], Option<&'r R>) {
        let shown = &rows[..rows.len().min(self.rows_max)];
        (shown, if rows.len() > shown.len() { shown.last() } else { None })
    }

    /// Encodes rows that were read with [`Paging::page`].
    pub fn answer<R>(&self, call: &Call, kind: &str, rows: &[R], id: impl Fn(&R) -> &str, show: impl Fn(&R) -> Vec<u8>) -> Answer {
        let (shown, last) = self.shown(rows);
        list(call, kind, shown.iter().map(show), last.map(id))
    }
}

/// A list; `next` is the token of the next page, if there is one.
pub fn list(call: &Call, kind: &str, items: impl Iterator<Item = Vec<u8>>, next: Option<&str>) -> Answer {
    let write = |mut body: Vec<u8>, item: Vec<u8>| {
        body.extend_from_slice(&item);
        body
    };
    written(call, kind, items, write, next)
}

/// Like [`list`]; `write` appends each item to the body.
pub fn written<T>(
    call: &Call,
    kind: &str,
    items: impl Iterator<Item = T>,
    write: impl Fn(Vec<u8>, T) -> Vec<u8>,
    next: Option<&str>,
) -> Answer {
    let text = |value: &str| serde_json::to_string(value).expect("a text has a JSON form");
    let mut body = format!("{{\"odata.metadata\":{},\"value\":[", text(&format!("{}/$metadata#{kind}", call.base))).into_bytes();
    let rows = items.size_hint().0;
    for (index, item) in items.enumerate() {
        if index > 0 {
            body.push(b',');
        }
        let start = body.len();
        body = write(body, item);
        if index == 0 {
            body.reserve(rows * (body.len() - start + 1) + LINK_BYTES);
        }
    }
    body.push(b']');
    if let Some(after) = next {
        let token = URL_SAFE_NO_PAD.encode(format!("{TOKEN_VERSION}{after}"));
        let link = format!("{}{}?{}$skiptoken={token}", call.base, call.path, call.query.for_next_link());
        body.extend_from_slice(format!(",\"odata.nextLink\":{}", text(&link)).as_bytes());
    }
    body.push(b'}');
    Answer::json(body)
}

/// Reads `$select` and `$expand`. Properties that are always shown may be named in `$expand`, too.
pub fn shape(call: &Call, shape: &str) -> Result<Option<Select>, Refusal> {
    let known = &schema::shape(shape).select;
    if let Some(expand) = call.query.text("$expand")?
        && expand.split(',').map(str::trim).any(|name| name != "stats" && !known.contains(&name))
    {
        return Err(wrong("$expand", expand, "It names no property of this resource; stats can be expanded."));
    }
    call.query.text("$select")?.map(|text| Select::parse(text, known)).transpose()
}
