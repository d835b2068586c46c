//! Events of objects, as passed to the owner's callback, and their JSON in S3's form.
//! Public; created inside writes by `notifications.rs`, passed on by `notifier.rs`.

use std::sync::Arc;

use s3s::dto::{Timestamp, TimestampFormat};
use serde_json::{Value, json};

use crate::attributes::timestamp;
use crate::listing::encoded;

/// Called after the commit of each requested event, on a thread of its own; `Blobs::stop` waits for it to return.
pub type OnEvent = Arc<dyn Fn(Event) + Send + Sync>;

/// An event of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub what: Happening,
    pub bucket: String,
    /// The object's key, not URL-encoded.
    pub key: String,
    /// Size in bytes and ETag without quotes; absent when the object was deleted.
    pub content: Option<(u64, String)>,
    /// In milliseconds since 1970.
    pub at_ms: i64,
    /// Grows with every write in the order of commits; to be compared as text.
    pub sequencer: String,
    /// The entry of the bucket's notification configuration that requested the event.
    pub asked: Asked,
    pub region: String,
}

/// The parts of a notification configuration's entry that its owner needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub id: String,
    /// The topic or queue of the entry.
    pub arn: String,
}

/// The kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    Created(Creation),
    /// Deleted by a client.
    Deleted,
    /// Deleted by a lifecycle rule.
    Expired,
}

/// The operation that created an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    Put,
    Copy,
    CompleteMultipartUpload,
}

impl Happening {
    /// S3's name of this event in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created(Creation::Put) => "s3:ObjectCreated:Put",
            Self::Created(Creation::Copy) => "s3:ObjectCreated:Copy",
            Self::Created(Creation::CompleteMultipartUpload) => "s3:ObjectCreated:CompleteMultipartUpload",
            Self::Deleted => "s3:ObjectRemoved:Delete",
            Self::Expired => "s3:LifecycleExpiration:Delete",
        }
    }
}

impl Event {
    /// S3's message for this event.
    pub fn to_json(&self) -> Value {
        let mut object = json!({ "key": encoded(&self.key, true).replace("%20", "+"), "sequencer": self.sequencer });
        if let Some((size, etag)) = &self.content {
            object["size"] = json!(size);
            object["eTag"] = json!(etag);
        }
        let owner = json!({ "principalId": "piecework" });
        let name = self.what.name();
        json!({ "Records": [{
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "awsRegion": self.region,
            "eventTime": iso_of(&timestamp(self.at_ms)),
            "eventName": name.strip_prefix("s3:").unwrap_or(name),
            "userIdentity": owner,
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": self.asked.id,
                "bucket": { "name": self.bucket, "ownerIdentity": owner, "arn": format!("arn:aws:s3:::{}", self.bucket) },
                "object": object,
            },
        }] })
    }
}

/// A time in S3's form.
pub(crate) fn iso_of(time: &Timestamp) -> String {
    let mut text = Vec::new();
    time.format(TimestampFormat::DateTime, &mut text).expect("S3 times have a date, and writing to a vector cannot fail");
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_has_the_common_shape() {
        let event = Event {
            what: Happening::Created(Creation::Put),
            bucket: "b".to_owned(),
            key: "a dir/ü+1".to_owned(),
            content: Some((5, "etag".to_owned())),
            at_ms: 1_500,
            sequencer: "0F".to_owned(),
            asked: Asked { id: "mine".to_owned(), arn: "arn:x".to_owned() },
            region: "us-east-1".to_owned(),
        };
        let message = event.to_json();
        let record = &message["Records"][0];
        assert_eq!(record["eventName"], "ObjectCreated:Put");
        assert_eq!(record["eventTime"], "1970-01-01T00:00:01.500Z");
        assert_eq!(record["s3"]["configurationId"], "mine");
        assert_eq!(record["s3"]["object"], json!({ "key": "a+dir/%C3%BC%2B1", "size": 5, "eTag": "etag", "sequencer": "0F" }));
        let gone = Event { what: Happening::Deleted, content: None, ..event };
        assert_eq!(gone.to_json()["Records"][0]["s3"]["object"].get("size"), None);
    }
}
