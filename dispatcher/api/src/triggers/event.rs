//! What an event is, whoever sent it: an object of a bucket, a CloudEvent, or any other message.

use contract::time::Timestamp;
use model::trigger::{CONTENT_BYTES, SeenKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::triggers::template::{Values, encoded};

/// The longest key of an object, in bytes; S3's limit.
const KEY_BYTES_MAX: usize = 1024;

/// The name of the event of an object that was found by a listing.
pub const LISTED: &str = "ObjectCreated:Put";

/// The type of the CloudEvent of a schedule that is due.
const DUE: &str = "piecework.schedule.due";

/// An event that a trigger acts on.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What it is known by when it comes again; a message without an id is known by nothing.
    pub seen: Option<SeenKey>,
    /// When it happened, as far as its sender says so.
    pub at: Option<Timestamp>,
    /// What placeholders stand for.
    pub values: Values,
    pub payload: Payload,
}

/// What a function gets of an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// A record of an S3 event.
    Record(Value),
    /// A CloudEvent in structured mode.
    CloudEvent(Value),
    /// The body as it came.
    Plain { body: Vec<u8>, content_type: Option<String>, traceparent: Option<String> },
}

/// An object that was created.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Object {
    pub bucket: String,
    pub key: String,
    pub bytes: Option<u64>,
    /// Without quotes.
    pub etag: String,
    pub version: Option<String>,
    pub sequencer: Option<String>,
    pub at: Option<Timestamp>,
    /// Such as `ObjectCreated:Put`.
    pub what: String,
}

/// A digest of what an object is known by besides its key.
pub fn content(etag: &str) -> [u8; CONTENT_BYTES] {
    let mut short = [0; CONTENT_BYTES];
    short.copy_from_slice(&Sha256::digest(etag)[..CONTENT_BYTES]);
    short
}

impl Object {
    /// What it is known by: listings tell key and ETag, and nothing else that events tell, too.
    pub fn seen(&self) -> SeenKey {
        let version = self.version.as_ref().or(self.sequencer.as_ref());
        let known = if self.etag.is_empty() { version.map_or("", String::as_str) } else { &self.etag };
        SeenKey { key: self.key.clone(), content: content(known) }
    }

    /// The values of its placeholders.
    pub fn values(&self, trigger: &str, endpoint: &str) -> Values {
        let (folder, name) = self.key.rsplit_once('/').unwrap_or(("", &self.key));
        let (stem, extension) = name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()).unwrap_or((name, ""));
        let size = self.bytes.map(|bytes| bytes.to_string()).unwrap_or_default();
        let time = self.at.map(Timestamp::iso).unwrap_or_default();
        let url = format!("{}/{}/{}", endpoint.trim_end_matches('/'), self.bucket, encoded(&self.key));
        let pairs = [
            ("trigger", trigger),
            ("bucket", &self.bucket),
            ("key", &self.key),
            ("folder", folder),
            ("name", name),
            ("stem", stem),
            ("extension", extension),
            ("size", &size),
            ("etag", &self.etag),
            ("time", &time),
            ("url", &url),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// The record of an S3 event, in the form of AWS whatever store sent it.
    fn record(&self, trigger: &str) -> Value {
        let mut object = json!({"key": encoded(&self.key).replace("%20", "+"), "eTag": self.etag});
        let facts = [("size", self.bytes.map(Value::from)), ("versionId", self.version.clone().map(Value::from))];
        let sequencer = ("sequencer", self.sequencer.clone().map(Value::from));
        for (name, value) in facts.into_iter().chain([sequencer]) {
            if let Some(value) = value {
                object[name] = value;
            }
        }
        json!({
            "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "", "eventName": self.what,
            "eventTime": self.at.map(Timestamp::iso),
            "s3": {
                "s3SchemaVersion": "1.0", "configurationId": trigger,
                "bucket": {"name": self.bucket, "arn": format!("arn:aws:s3:::{}", self.bucket)},
                "object": object,
            },
        })
    }

    /// The event of its creation.
    pub fn event(self, trigger: &str, endpoint: &str) -> Event {
        let (values, record) = (self.values(trigger, endpoint), self.record(trigger));
        Event { seen: Some(self.seen()), at: self.at, values, payload: Payload::Record(record) }
    }
}

/// The event of a schedule that is due.
pub fn due(trigger: &str, at: Timestamp) -> Event {
    let (time, source) = (at.iso(), format!("/piecework/triggers/{trigger}"));
    let pairs = [("trigger", trigger), ("id", &time), ("type", DUE), ("source", &source), ("time", &time)];
    let payload = json!({"specversion": "1.0", "id": time, "source": source, "type": DUE, "time": time});
    Event {
        seen: Some(SeenKey { key: time.clone(), content: content("due") }),
        at: Some(at),
        values: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        payload: Payload::CloudEvent(payload),
    }
}

/// The objects that an S3 event says were created, of MinIO, Ceph, AWS or our own store. An error says what is wrong with it.
pub fn objects(body: &[u8]) -> Result<Vec<Object>, String> {
    let body: Value = serde_json::from_slice(body).map_err(|error| format!("The body is not JSON: {error}."))?;
    let Some(records) = body.get("Records") else {
        // AWS sends one when notifications are configured.
        return match body.get("Event").and_then(Value::as_str) {
            Some("s3:TestEvent") => Ok(Vec::new()),
            _ => Err("The body has no Records, so it is no S3 event.".to_owned()),
        };
    };
    let records = records.as_array().ok_or("Records is no list.")?;
    let mut objects = Vec::with_capacity(records.len());
    for record in records {
        objects.extend(object(record)?);
    }
    Ok(objects)
}

/// The object of one record; nothing when it was not created.
fn object(record: &Value) -> Result<Option<Object>, String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let what = record["eventName"].as_str().ok_or("A record has no eventName.")?;
    let what = what.strip_prefix("s3:").unwrap_or(what);
    if !what.starts_with("ObjectCreated:") {
        return Ok(None);
    }
    let (bucket, object) = (&record["s3"]["bucket"]["name"], &record["s3"]["object"]);
    let bucket = text(bucket).ok_or("A record names no bucket.")?;
    let key = object["key"].as_str().ok_or("A record names no key.")?;
    // Ceph sends keys as they are, MinIO and AWS as in a query.
    let key = match record["eventSource"].as_str() {
        Some("minio:s3" | "aws:s3") => decoded(key)?,
        _ => key.to_owned(),
    };
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(format!("A record's key has {} bytes; there are 1 to {KEY_BYTES_MAX}.", key.len()));
    }
    let size = &object["size"];
    Ok(Some(Object {
        bucket,
        key,
        bytes: size.as_u64().or_else(|| size.as_str()?.parse().ok()),
        etag: object["eTag"].as_str().or(object["etag"].as_str()).unwrap_or_default().trim_matches('"').to_owned(),
        version: text(&object["versionId"]).filter(|version| !version.is_empty()),
        sequencer: text(&object["sequencer"]).filter(|sequencer| !sequencer.is_empty()),
        at: record["eventTime"].as_str().and_then(Timestamp::parse),
        what: what.to_owned(),
    }))
}

fn decoded(key: &str) -> Result<String, String> {
    let spaced = key.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&spaced).decode_utf8();
    decoded.map(|key| key.into_owned()).map_err(|_| "A record's key is not UTF-8.".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(source: &str, name: &str, key: &str, size: Value) -> Value {
        json!({"eventSource": source, "eventName": name, "eventTime": "2026-11-23T19:00:00.000Z", "future": {"x": 1},
            "s3": {"bucket": {"name": "b"}, "object": {"key": key, "size": size, "eTag": "\"e\"", "sequencer": "01"}}})
    }

    fn read(records: Vec<Value>) -> Result<Vec<Object>, String> {
        objects(json!({"EventName": "x", "Records": records}).to_string().as_bytes())
    }

    #[test]
    fn events_of_every_store_are_read_alike() {
        let minio = record("minio:s3", "s3:ObjectCreated:Put", "a+dir%2F%C3%BC%2B1.txt", json!(5));
        let aws = record("aws:s3", "ObjectCreated:CompleteMultipartUpload", "a+dir/%C3%BC%2B1.txt", json!(5));
        let ceph = record("ceph:s3", "ObjectCreated:Copy", "a dir/ü+1.txt", json!("5"));
        let gone = record("aws:s3", "ObjectRemoved:Delete", "x", Value::Null);
        let found = read(vec![minio, aws, gone, ceph]).unwrap();
        assert_eq!(found.len(), 3);
        for object in &found {
            assert_eq!((object.key.as_str(), object.bytes, object.etag.as_str()), ("a dir/ü+1.txt", Some(5), "e"));
            assert_eq!(object.seen(), found[0].seen());
        }
        assert_eq!(objects(br#"{"Event":"s3:TestEvent","Bucket":"b"}"#), Ok(vec![]));
    }

    #[test]
    fn a_function_gets_the_record_of_aws() {
        let object = read(vec![record("ceph:s3", "ObjectCreated:Put", "a dir/ü+1.tar.gz", json!(5))]).unwrap().remove(0);
        let event = object.event("t", "http://store:9000/");
        let Payload::Record(record) = &event.payload else { panic!("a record") };
        assert_eq!(record["s3"]["object"]["key"], "a+dir/%C3%BC%2B1.tar.gz");
        assert_eq!((&record["eventSource"], &record["s3"]["object"]["size"]), (&json!("aws:s3"), &json!(5)));
        let value = |name: &str| event.values[name].as_str();
        assert_eq!((value("folder"), value("name"), value("stem"), value("extension")), ("a dir", "ü+1.tar.gz", "ü+1.tar", "gz"));
        assert_eq!(value("url"), "http://store:9000/b/a%20dir/%C3%BC%2B1.tar.gz");
    }

    #[test]
    fn what_is_no_event_is_an_error() {
        for body in ["", "[]", "{}", "{\"Records\":5}", "{\"Records\":[5]}", "{\"Records\":[{\"eventName\":\"ObjectCreated:Put\"}]}"] {
            assert!(objects(body.as_bytes()).is_err(), "{body}");
        }
        assert!(read(vec![record("aws:s3", "ObjectCreated:Put", "%ff", json!(1))]).is_err());
        assert!(read(vec![record("aws:s3", "ObjectCreated:Put", "", json!(1))]).is_err());
        assert!(read(vec![record("aws:s3", "ObjectCreated:Put", &"k".repeat(1025), json!(1))]).is_err());
    }
}
