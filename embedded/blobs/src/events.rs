//! What happens to objects, as the owner's callback hears of it, and its JSON in the shape that S3 sends.
//! Public; made inside writes by `notifications.rs`, handed over by `teller.rs`.

use std::sync::Arc;

use s3s::dto::{Timestamp, TimestampFormat};
use serde_json::{Value, json};

use crate::attributes::timestamp;
use crate::listing::encoded;

/// Called after the commit of each event that somebody asked for, on a thread of its own; `Blobs::stop` waits for it to return.
pub type OnEvent = Arc<dyn Fn(Event) + Send + Sync>;

/// Something that happened to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub what: Happening,
    /// The object's bucket.
    pub bucket: String,
    /// Its key, not encoded.
    pub key: String,
    /// Its size in bytes and its ETag without quotes; nothing when it is gone.
    pub content: Option<(u64, String)>,
    /// When it happened, in milliseconds since 1970.
    pub at_ms: i64,
    /// Grows with every write in the order of commits; compare as text.
    pub sequencer: String,
    /// The entry of the bucket's notification configuration that asked.
    pub asked: Asked,
    /// The server's region.
    pub region: String,
}

/// An entry of a notification configuration, as far as its owner needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The entry's id.
    pub id: String,
    /// The topic or queue it names.
    pub arn: String,
}

/// What can happen to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It was written.
    Created(Creation),
    /// A client deleted it.
    Deleted,
    /// A lifecycle rule deleted it.
    Expired,
}

/// How an object came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    /// One PUT.
    Put,
    /// A copy of another object.
    Copy,
    /// A completed multipart upload.
    CompleteMultipartUpload,
}

impl Happening {
    /// The name S3 gives this event in configurations.
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
    /// The message that S3 sends for this event.
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

/// A time as S3 writes it.
pub(crate) fn iso_of(time: &Timestamp) -> String {
    let mut text = Vec::new();
    time.format(TimestampFormat::DateTime, &mut text).expect("S3 times have a date, and a vector takes any text");
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
