//! Builds answers: statuses, headers, and JSON objects written straight into the body.
//!
//! A stored document is copied into the body as it is, unless `$select` or the version leaves out a part of it.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt::Display,
    time::{Duration, UNIX_EPOCH},
};

use axum::body::Body;
use contract::time::Timestamp;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use model::condition::etag;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, value::RawValue};

use crate::odata::Select;

/// An answer of a handler.
#[derive(Debug)]
pub struct Answer {
    /// Success or redirect; refusals become answers in `error`.
    pub status: StatusCode,
    /// Headers of this answer; the pipeline adds those that every answer has.
    pub headers: HeaderMap,
    pub body: Body,
}

impl Answer {
    /// An answer without a body.
    pub fn empty(status: u16) -> Answer {
        let status = StatusCode::from_u16(status).expect("handlers name valid statuses");
        Answer { status, headers: HeaderMap::new(), body: Body::empty() }
    }

    /// 200 with JSON.
    pub fn json(text: Vec<u8>) -> Answer {
        let answer = Answer { body: Body::from(text), ..Answer::empty(200) };
        answer.with(header::CONTENT_TYPE, "application/json;odata=minimalmetadata")
    }

    /// JSON of Piecework's own resources, which knows no OData metadata.
    pub fn own_json(status: u16, text: Vec<u8>) -> Answer {
        let answer = Answer { body: Body::from(text), ..Answer::empty(status) };
        answer.with(header::CONTENT_TYPE, "application/json")
    }

    /// 200 with bytes.
    pub fn bytes(body: Body, length: u64, content_type: &str) -> Answer {
        let answer = Answer { body, ..Answer::empty(200) };
        answer.with(header::CONTENT_TYPE, content_type).with(header::CONTENT_LENGTH, &length.to_string())
    }

    /// Adds a header. A value that HTTP does not allow is left out and logged.
    pub fn with(mut self, name: HeaderName, value: &str) -> Answer {
        match HeaderValue::from_str(value) {
            Ok(value) => drop(self.headers.insert(name, value)),
            Err(_) => tracing::warn!(%name, value, "a response header is left out, because HTTP does not allow its value"),
        }
        self
    }

    /// Adds ETag and Last-Modified.
    pub fn changed(self, version: u64, at: Timestamp) -> Answer {
        self.with(header::ETAG, &etag(version)).with(header::LAST_MODIFIED, &http_date(at))
    }

    /// Adds the resource's URL as `DataServiceId`.
    pub fn about(self, url: &str) -> Answer {
        self.with(HeaderName::from_static("dataserviceid"), url)
    }

    /// Adds the new resource's URL as `Location`, too.
    pub fn created(self, url: &str) -> Answer {
        self.with(header::LOCATION, url).about(url)
    }
}

/// The last millisecond that RFC 1123 can show: the end of the year 9999.
const HTTP_DATE_MAX_MS: u64 = 253_402_300_799_999;

/// A time in the form of RFC 1123; one that has no such form, as tasks can give their files, becomes the nearest that has.
pub fn http_date(at: Timestamp) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(u64::try_from(at.0).unwrap_or(0).min(HTTP_DATE_MAX_MS)))
}

/// A time, as ISO 8601 in JSON.
#[derive(Debug, Clone, Copy)]
pub struct Iso(pub Timestamp);

impl Serialize for Iso {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

/// A JSON string written from its parts without putting them together first: `Text(format_args!(…))`.
pub struct Text<T>(pub T);

impl<T: Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

/// The text, escaped for use between the quotes of a JSON string.
pub fn escaped(text: &str) -> String {
    let quoted = serde_json::to_string(text).expect("a text has a JSON form");
    quoted[1..quoted.len() - 1].to_owned()
}

/// A JSON object under construction. Fields that were not selected are skipped.
pub struct Fields<'a> {
    text: Vec<u8>,
    /// Position in the body where the object's fields begin.
    start: usize,
    select: Option<&'a Select>,
    hidden: &'a [&'static str],
}

impl<'a> Fields<'a> {
    /// An empty object with only the selected properties and without the hidden ones; a slash in a name leads into an
    /// object.
    pub fn new(select: Option<&'a Select>, hidden: &'a [&'static str]) -> Fields<'a> {
        Fields::after(Vec::new(), select, hidden)
    }

    /// An empty object at the end of a text.
    pub fn after(mut text: Vec<u8>, select: Option<&'a Select>, hidden: &'a [&'static str]) -> Fields<'a> {
        text.push(b'{');
        Fields { start: text.len(), text, select, hidden }
    }

    fn is_shown(&self, name: &str) -> bool {
        self.select.is_none_or(|select| select.has(name)) && !self.hidden.contains(&name)
    }

    fn separate(&mut self) {
        if self.text.len() > self.start {
            self.text.push(b',');
        }
    }

    fn write_name(&mut self, name: &str) {
        self.separate();
        serde_json::to_writer(&mut self.text, name).expect("a name has a JSON form");
        self.text.push(b':');
    }

    fn write<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        self.write_name(name);
        serde_json::to_writer(&mut self.text, value).expect("plain values have a JSON form");
    }

    /// Adds a field.
    pub fn add<T: Serialize + ?Sized>(mut self, name: &str, value: &T) -> Self {
        if self.is_shown(name) {
            self.write(name, value);
        }
        self
    }

    /// Adds a field; the value is computed only when the field was selected.
    pub fn add_with<T: Serialize>(mut self, name: &str, value: impl FnOnce() -> Option<T>) -> Self {
        if self.is_shown(name)
            && let Some(value) = value()
        {
            self.write(name, &value);
        }
        self
    }

    /// Adds a field whose JSON is given in parts; computed only when the field was selected.
    pub fn add_parts<'p, const PARTS: usize>(mut self, name: &str, parts: impl FnOnce() -> Option<[&'p str; PARTS]>) -> Self {
        if self.is_shown(name)
            && let Some(parts) = parts()
        {
            self.write_name(name);
            parts.iter().for_each(|part| self.text.extend_from_slice(part.as_bytes()));
        }
        self
    }

    /// Adds a field that `$select` cannot leave out, such as `odata.metadata`.
    pub fn always(mut self, name: &str, value: &str) -> Self {
        self.write(name, value);
        self
    }

    /// Adds a field unless the value is `None`.
    pub fn add_some<T: Serialize>(self, name: &str, value: Option<T>) -> Self {
        match value {
            Some(value) => self.add(name, &value),
            None => self,
        }
    }

    /// Adds the plain properties of a model type, under their own names.
    pub fn plain<T: Serialize>(mut self, properties: &T) -> Self {
        if let Ok(Value::Object(fields)) = serde_json::to_value(properties) {
            for (name, value) in fields {
                self = self.add(&name, &value);
            }
        }
        self
    }

    /// Adds all properties of a stored document.
    pub fn document(self, document: &str) -> Self {
        match (self.select, self.hidden) {
            (None, []) => self.spliced(document),
            _ => self.parts(document, &read(document)),
        }
    }

    /// Adds all properties of a parsed document.
    pub fn parts(mut self, document: &str, parts: &Parts<'_>) -> Self {
        let is_in = |path: &&&str| match path.split_once('/') {
            None => parts.contains_key(**path),
            Some((head, rest)) => parts.get(head).is_some_and(|part| object(part).is_some_and(|mut fields| remove(&mut fields, rest))),
        };
        let hidden: Vec<&str> = self.hidden.iter().filter(is_in).copied().collect();
        if self.select.is_none() && hidden.is_empty() {
            return self.spliced(document);
        }
        for (name, part) in parts.iter().filter(|(name, _)| self.is_shown(name)).collect::<Vec<_>>() {
            let inside: Vec<&str> = hidden.iter().filter_map(|path| path.strip_prefix(&**name)?.strip_prefix('/')).collect();
            let changed = if inside.is_empty() { None } else { object(part) };
            self = match changed {
                None => self.add_some(name, serde_json::from_str::<Value>(part.get()).ok()),
                Some(mut fields) => {
                    for path in inside {
                        remove(&mut fields, path);
                    }
                    self.add(name, &fields)
                }
            };
        }
        self
    }

    fn spliced(mut self, document: &str) -> Self {
        let inner = document.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default();
        if !inner.is_empty() {
            self.separate();
            self.text.extend_from_slice(inner.as_bytes());
        }
        self
    }

    /// The text with the finished object at its end.
    pub fn finish(mut self) -> Vec<u8> {
        self.text.push(b'}');
        self.text
    }
}

/// The properties of a document, each still as JSON text.
pub type Parts<'d> = BTreeMap<Cow<'d, str>, &'d RawValue>;

/// Parses a stored document; the empty text of a row read without its document gives no properties.
pub fn read(document: &str) -> Parts<'_> {
    if document.is_empty() {
        return Parts::new();
    }
    serde_json::from_str(document).unwrap_or_else(|error| {
        tracing::warn!(%error, "a stored document is not JSON; the response shows none of its properties");
        Parts::new()
    })
}

fn object(part: &RawValue) -> Option<Map<String, Value>> {
    serde_json::from_str(part.get()).ok()
}

/// Removes a property, or one inside the objects on its path; returns whether it existed.
fn remove(fields: &mut Map<String, Value>, path: &str) -> bool {
    match path.split_once('/') {
        None => fields.remove(path).is_some(),
        Some((head, rest)) => match fields.get_mut(head) {
            Some(Value::Object(inner)) => remove(inner, rest),
            _ => false,
        },
    }
}

/// A name and a value, as in Azure's lists of details.
#[derive(Serialize)]
pub struct NameValue<'a> {
    pub name: &'a str,
    pub value: &'a str,
}

/// Details of a fault in Azure's form.
pub fn details(pairs: &[(String, String)]) -> Vec<NameValue<'_>> {
    pairs.iter().map(|(name, value)| NameValue { name, value }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_beyond_what_a_header_can_show_become_the_nearest() {
        assert_eq!(http_date(Timestamp(i64::MAX)), "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(http_date(Timestamp(i64::MIN)), "Thu, 01 Jan 1970 00:00:00 GMT");
    }

    #[test]
    fn a_document_is_spliced_in_and_selected_from() {
        let document = r#"{"commandLine":"x","requiredSlots":2}"#;
        let text = Fields::new(None, &[]).add("id", "t").document(document).finish();
        assert_eq!(text, br#"{"id":"t","commandLine":"x","requiredSlots":2}"#);
        let select = Select::parse("id, requiredSlots", &["id", "requiredSlots"]).unwrap();
        let text = Fields::new(Some(&select), &[]).add("id", "t").add("url", "u").document(document).finish();
        assert_eq!(text, br#"{"id":"t","requiredSlots":2}"#);
        assert_eq!(Fields::new(None, &[]).document("{}").finish(), b"{}");
    }

    #[test]
    fn what_is_hidden_is_left_out_wherever_it_comes_from() {
        let document = r#"{"policy":{"fill":"pack","order":"none"},"tags":{"order":"mine"}}"#;
        let fields = |select| Fields::new(select, &["policy/order", "slots"]).add("slots", &2).add("id", "t");
        assert_eq!(fields(None).document(document).finish(), br#"{"id":"t","policy":{"fill":"pack"},"tags":{"order":"mine"}}"#);
        let select = Select::parse("policy,slots", &["policy", "slots"]).unwrap();
        assert_eq!(fields(Some(&select)).document(document).finish(), br#"{"policy":{"fill":"pack"}}"#);
        assert_eq!(fields(None).document(r#"{"a":1}"#).finish(), br#"{"id":"t","a":1}"#);
    }
}
