//! A trigger: a rule that turns what happens elsewhere (an object in a bucket, a message) into an invocation or a task.
//!
//! [`TriggerSpec`] is stored and shown as one document in camelCase. What a trigger has acted on is kept in rows of its own
//! ([`Seen`]), so that no event acts twice.

use std::collections::BTreeMap;

use contract::{
    ids::{FunctionId, JobId, PoolId, TriggerId},
    period::Period,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Time between two listings of a bucket where its trigger says nothing.
pub const LISTING_DEFAULT: Period = Period::from_secs(15 * 60);
/// Time that an event waits for others of its batch where its trigger says nothing.
pub const BATCH_TIME_DEFAULT: Period = Period::from_secs(1);
/// How names of triggers' queues begin.
const QUEUES: &str = "piecework.trigger.";
/// Bytes of a digest of an object's content.
pub const CONTENT_BYTES: usize = 8;

/// A trigger; the engine keeps it in memory, API handlers and the trigger's worker read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriggerRow {
    pub id: TriggerId,
    /// Belongs to this trigger alone, also when another one of its name comes later.
    pub uid: u64,
    /// For the ETag.
    pub version: u64,
    /// A paused trigger leaves its events where they wait.
    pub is_paused: bool,
    pub spec: TriggerSpec,
    pub progress: Progress,
    pub created_at: Timestamp,
    pub modified_at: Timestamp,
}

impl TriggerRow {
    /// The queue in which its events wait. Its number keeps it apart from that of a former trigger of its name.
    pub fn queue(&self) -> String {
        format!("{QUEUES}{}.{}", self.id.as_str().to_ascii_lowercase(), self.uid)
    }

    /// The trigger to which a queue of this name may belong.
    pub fn of_queue(name: &str) -> Option<TriggerId> {
        name.strip_prefix(QUEUES)?.rsplit_once('.')?.0.parse().ok()
    }
}

/// What a trigger watches and starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TriggerSpec {
    #[serde(flatten)]
    pub source: Source,
    #[serde(flatten)]
    pub target: Target,
    /// Events in one invocation, or tasks in one submission, at most.
    pub batch_size: u32,
    /// Time that an event waits for others at most.
    pub batch_time: Period,
}

/// Where events come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// Objects that are created in a bucket.
    Bucket(BucketSource),
    /// Messages of an exchange.
    Exchange(ExchangeSource),
    /// Times.
    Schedule(ScheduleSource),
    /// Signed requests.
    Webhook(WebhookSource),
}

/// A watched bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BucketSource {
    pub name: String,
    /// Only keys that begin with it.
    #[serde(default)]
    pub prefix: String,
    /// Only keys that end with it.
    #[serde(default)]
    pub suffix: String,
    /// Only objects of at least this size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_bytes: Option<u64>,
    /// Only objects of at most this size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// The exchange to which the store sends the bucket's events.
    pub exchange: String,
    /// The routing key of those events.
    pub pattern: String,
    /// Time between two listings; zero lists on request alone.
    pub listing_interval: Period,
    /// Objects that are older than the trigger count, too.
    #[serde(default)]
    pub include_existing: bool,
}

impl BucketSource {
    /// Whether an object of this name and size is meant.
    pub fn takes(&self, key: &str, bytes: Option<u64>) -> bool {
        key.starts_with(&self.prefix)
            && key.ends_with(&self.suffix)
            && bytes
                .is_none_or(|bytes| self.min_bytes.is_none_or(|least| bytes >= least) && self.max_bytes.is_none_or(|most| bytes <= most))
    }
}

/// A followed exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExchangeSource {
    pub name: String,
    /// The routing key that its queue is bound by.
    pub pattern: String,
    /// Names of placeholders, and where in a message's JSON body their values are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
}

/// Times at which something is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleSource {
    /// A cron expression of five fields.
    pub expression: String,
    /// The name of a time zone.
    pub time_zone: String,
}

/// Requests that are signed with a secret of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookSource {
    pub secret: HookSecret,
    /// Names of placeholders, and where in a request's JSON body their values are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
}

/// The secret of a webhook, which logs do not show.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HookSecret(pub String);

impl std::fmt::Debug for HookSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(a secret)")
    }
}

/// What an event starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    /// A function.
    Function(FunctionTarget),
    /// A task.
    Task(TaskTarget),
}

impl Target {
    /// The pool on which it runs.
    pub fn pool(&self) -> &PoolId {
        match self {
            Target::Function(function) => &function.pool_id,
            Target::Task(task) => &task.pool_id,
        }
    }
}

/// The function that a trigger invokes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionTarget {
    pub pool_id: PoolId,
    pub id: FunctionId,
}

/// The task that a trigger submits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskTarget {
    pub pool_id: PoolId,
    /// Its job; the pool's standing job when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// The task as a request would add it, with placeholders.
    pub template: Map<String, Value>,
}

/// What became of a trigger's events so far.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Progress {
    /// Events that were acted on.
    pub fired: u64,
    /// Events that came again, and so were not.
    pub repeated: u64,
    /// Events that nothing could be made of; they are dead letters.
    pub failed: u64,
    /// Of those acted on, how many were found by listing the bucket.
    pub listed: u64,
    /// When the last event was acted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_event: Option<Timestamp>,
    /// The time between that event and its invocation or task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_lag_ms: Option<i64>,
    /// The last thing that went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<Fault>,
    /// The last due time of a schedule that was acted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_due: Option<Timestamp>,
    /// When somebody last asked it to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<Timestamp>,
    /// When the last whole listing began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_listing: Option<Timestamp>,
}

/// Something that went wrong with a trigger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub time: Timestamp,
    pub message: String,
}

/// An object or a message that a trigger acts on once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeenKey {
    /// The object's key, or the id of a message.
    pub key: String,
    /// A digest of the object's ETag.
    pub content: [u8; CONTENT_BYTES],
}

/// One that it has acted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub key: SeenKey,
    pub at: Timestamp,
}

/// A trigger as requested.
#[derive(Debug, Clone)]
pub struct NewTrigger {
    pub id: TriggerId,
    pub spec: TriggerSpec,
}

/// A change of a trigger.
#[derive(Debug, Clone)]
pub enum TriggerChange {
    /// Other settings; the source stays.
    Settings {
        target: Option<Target>,
        batch_size: Option<u32>,
        batch_time: Option<Period>,
    },
    Pause,
    Resume,
    /// Its bucket is listed now, or its schedule is due now.
    Run,
}

/// An invocation or a submission that a trigger starts; kept until the broker has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Start {
    pub trigger: TriggerId,
    pub pool: PoolId,
    /// The function to invoke; a submission of tasks when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionId>,
    /// The same for the same events, so that whoever gets the message twice can tell.
    pub message_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    pub body: StartBody,
}

/// The body of a message; a text where it is one, because it is stored as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum StartBody {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<Vec<u8>> for StartBody {
    fn from(bytes: Vec<u8>) -> StartBody {
        String::from_utf8(bytes).map_or_else(|error| StartBody::Bytes(error.into_bytes()), StartBody::Text)
    }
}

impl From<StartBody> for Vec<u8> {
    fn from(body: StartBody) -> Vec<u8> {
        match body {
            StartBody::Text(text) => text.into_bytes(),
            StartBody::Bytes(bytes) => bytes,
        }
    }
}

/// What a trigger's worker did, stored as a whole or not at all.
#[derive(Debug, Clone, Default)]
pub struct Advance {
    /// What is started, and the events that it stands for. One whose events have all been seen is left out.
    pub starts: Vec<(Start, Vec<SeenKey>)>,
    /// What is noted as seen without starting anything.
    pub passed: Vec<SeenKey>,
    /// What is forgotten.
    pub forgotten: Vec<SeenKey>,
    /// Added to the numbers of the trigger's progress.
    pub repeated: u64,
    pub failed: u64,
    /// Whether the events were found by a listing.
    pub is_listing: bool,
    /// The time of the oldest event.
    pub event_at: Option<Timestamp>,
    /// When a listing began that is now done.
    pub listed_at: Option<Timestamp>,
    /// The due time of a schedule that this acts on.
    pub due: Option<Timestamp>,
    /// What went wrong.
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_spec_is_shown_as_it_is_asked_for() {
        let shown = json!({
            "bucket": {"name": "b", "prefix": "in/", "suffix": "", "exchange": "x", "pattern": "#", "listingInterval": "PT1M", "includeExisting": false},
            "function": {"poolId": "p", "id": "f"}, "batchSize": 1, "batchTime": "PT1S",
        });
        let spec: TriggerSpec = serde_json::from_value(shown.clone()).unwrap();
        assert_eq!(serde_json::to_value(&spec).unwrap(), shown);
        let Source::Bucket(bucket) = spec.source else { panic!("a bucket") };
        let bucket = BucketSource { suffix: ".txt".into(), min_bytes: Some(2), max_bytes: Some(3), ..bucket };
        assert!(bucket.takes("in/a.txt", Some(2)) && bucket.takes("in/a.txt", None));
        assert!(!bucket.takes("in/a.txt", Some(1)) && !bucket.takes("in/a.txt", Some(4)));
        assert!(!bucket.takes("a.txt", Some(2)) && !bucket.takes("in/a.md", Some(2)));
    }

    #[test]
    fn bytes_that_are_no_text_are_kept() {
        for bytes in [b"text".to_vec(), vec![0, 255, 3]] {
            let stored = serde_json::to_string(&StartBody::from(bytes.clone())).unwrap();
            assert_eq!(Vec::from(serde_json::from_str::<StartBody>(&stored).unwrap()), bytes);
        }
    }
}
