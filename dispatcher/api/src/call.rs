//! A request that was authenticated, routed and decoded; the input of handlers.

use std::{sync::OnceLock, time::Duration};

use bytes::Bytes;
use clients::blobs::Blobs;
use contract::ids::{ApplicationId, FunctionId, JobId, NodeId, PackageVersion, PoolId, ScheduleId, TaskId, TriggerId};
use http::HeaderMap;
use model::{
    condition::Condition,
    refusal::{Code, Refusal},
};
use serde_json::{Map, Value};
use store::left_out::LeftOut;

use crate::{
    body::Body,
    document::{
        operations::Operation,
        unknown::{self, Unknown},
    },
    error::RequestId,
    json,
    query::Query,
    version::Version,
};

/// Left of a request's time for its answer, where a handler waits for somebody else.
const ANSWER_MARGIN: Duration = Duration::from_secs(1);

/// A request whose operation is known.
pub struct Call {
    pub id: RequestId,
    /// The API version that it names.
    pub version: Version,
    /// `http://host:port`, as the client addressed the server.
    pub base: String,
    /// The path as it was sent.
    pub path: String,
    /// The decoded values of the path, in order.
    pub values: Vec<String>,
    pub query: Query,
    pub condition: Condition,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The name of its operation.
    pub operation: &'static str,
    /// Whether unknown properties are refused (`piecework-strict`).
    pub is_strict: bool,
    /// Unknown properties of its body; set once the body was read.
    pub unknown: OnceLock<Unknown>,
    /// Rows that were left out of the answer because they cannot be read.
    pub left_out: LeftOut,
    /// How long the handler may take for the client.
    pub patience: Duration,
    /// Containers of the blob store that its body may name.
    pub blobs: Blobs,
}

fn id<T: std::str::FromStr>(what: &str, text: &str) -> Result<T, Refusal>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|reason: T::Err| {
        Refusal::new(Code::InvalidUri, "The requested URI does not represent any resource on the server.")
            .with(what, text.chars().take(128).collect::<String>())
            .with("Reason", reason)
    })
}

impl Call {
    /// How long a handler may wait for a function or a store of blobs: at the end of `patience` the pipeline would answer,
    /// and say less.
    pub fn patience_with_others(&self) -> Duration {
        self.patience.saturating_sub(ANSWER_MARGIN).max(self.patience / 2)
    }

    /// The path's value at an index.
    pub fn value(&self, index: usize) -> &str {
        self.values.get(index).map_or("", String::as_str)
    }

    /// The pool in the path.
    pub fn pool(&self) -> Result<PoolId, Refusal> {
        id("PoolId", self.value(0))
    }

    /// The node in the path.
    pub fn node(&self) -> Result<NodeId, Refusal> {
        id("NodeId", self.value(1))
    }

    /// The function in the path.
    pub fn function(&self) -> Result<FunctionId, Refusal> {
        id("FunctionId", self.value(1))
    }

    /// The function in a path that names no pool.
    pub fn function_alone(&self) -> Result<FunctionId, Refusal> {
        id("FunctionId", self.value(0))
    }

    /// The job in the path.
    pub fn job(&self) -> Result<JobId, Refusal> {
        id("JobId", self.value(0))
    }

    /// The job schedule in the path.
    pub fn schedule(&self) -> Result<ScheduleId, Refusal> {
        id("JobScheduleId", self.value(0))
    }

    /// The application in the path.
    pub fn application(&self) -> Result<ApplicationId, Refusal> {
        id("ApplicationId", self.value(0))
    }

    /// The trigger in the path.
    pub fn trigger(&self) -> Result<TriggerId, Refusal> {
        id("TriggerId", self.value(0))
    }

    /// The queue in the path.
    pub fn queue(&self) -> &str {
        self.value(0)
    }

    /// The version of a package in the path.
    pub fn package_version(&self) -> Result<PackageVersion, Refusal> {
        id("Version", self.value(1))
    }

    /// The task in the path.
    pub fn task(&self) -> Result<TaskId, Refusal> {
        id("TaskId", self.value(1))
    }

    /// The body as a JSON object.
    pub fn json(&self) -> Result<Body<'_>, Refusal> {
        let fields = json::object(&self.body)?;
        let found = self.unknown.get_or_init(|| unknown::find(self.operation, &fields));
        if let Some(name) = found.named.first().filter(|_| self.is_strict) {
            let refusal = Refusal::new(Code::UnsupportedProperty, "One of the properties specified in the request body is not supported.");
            let refusal = refusal.with("PropertyName", name).with("UnknownProperties", found.count);
            return Err(refusal.hint("Nothing reads it; leave it out, or send the request without piecework-strict."));
        }
        self.checked(fields)
    }

    /// Checks the body against its operation's shape.
    fn checked(&self, fields: Map<String, Value>) -> Result<Body<'_>, Refusal> {
        let nothing_said = || Refusal::new(Code::InternalError, "The operation takes no body.");
        Body::new(Operation::body(self.operation).ok_or_else(nothing_said)?, fields, self.blobs.places())
    }

    /// The body as a JSON object; empty when there is none.
    pub fn optional_json(&self) -> Result<Body<'_>, Refusal> {
        if self.body.iter().all(u8::is_ascii_whitespace) { self.checked(Map::new()) } else { self.json() }
    }
}
