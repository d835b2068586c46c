//! One request, taken apart: what handlers read.

use broker_config::ids::{ApplicationId, JobId, NodeId, PackageVersion, PoolId, ScheduleId, TaskId};
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Map, Value};

use crate::{
    command::Condition,
    http::{
        error::RequestId,
        json,
        query::Query,
        version::{Kind, Lacks, Version},
    },
    refusal::{Code, Refusal},
};

/// A request that was let in and has found its operation.
#[derive(Debug)]
pub struct Call {
    /// The request's number.
    pub id: RequestId,
    /// The version of the API that it names.
    pub version: Version,
    /// What that version lacks, once it was looked up.
    pub lacks: Lacks,
    /// `http://host:port` as the client reached us.
    pub base: String,
    /// The path as it was sent.
    pub path: String,
    /// The decoded values of the path, in order.
    pub values: Vec<String>,
    /// Its parameters.
    pub query: Query,
    /// Its condition.
    pub condition: Condition,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
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
    /// Fields that answers of this kind leave out.
    pub fn lacks(&self, kind: Kind) -> &[&'static str] {
        self.lacks.of(self.version, kind)
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
    pub fn json(&self) -> Result<Map<String, Value>, Refusal> {
        json::object(&self.body)
    }

    /// The body as a JSON object, empty when there is none.
    pub fn optional_json(&self) -> Result<Map<String, Value>, Refusal> {
        if self.body.iter().all(u8::is_ascii_whitespace) { Ok(Map::new()) } else { self.json() }
    }
}
