//! The parts of tasks, start tasks and pools that a node needs, in Azure Batch's own field names.
//!
//! The API validates a document once; later readers of these types check nothing again.
//! Unknown fields are ignored: a document may hold more than a node needs.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{ApplicationId, PackageVersion, TaskId},
    period::Period,
    state::DeallocationOption,
    url::user_of,
};

/// A command line that nodes complete at once, without a process.
pub const NOTHING: &str = ":";

/// The parts of a task that a node needs to run it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskSpec {
    /// Program and arguments, split without a shell.
    pub command_line: String,
    /// Inputs to stage into the working directory.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_files: Vec<ResourceFile>,
    /// Outputs to stage out afterwards.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub output_files: Vec<OutputFile>,
    /// Includes the job's common ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environment_settings: Vec<EnvironmentSetting>,
    /// Time and retry limits.
    pub constraints: TaskConstraints,
    /// Slots the task takes on its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required_slots: Option<u32>,
    /// Packages that users name; the dispatcher turns them into [`TaskSpec::packages`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub application_package_references: Vec<PackageReference>,
    /// Packages to unpack before the command runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<Package>,
    /// The name of the job's preparation task, whose folder goes into the environment; the dispatcher fills it in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preparation: Option<TaskId>,
    /// Settings without a property in Azure Batch.
    #[serde(skip_serializing_if = "TaskExtensions::is_default")]
    pub piecework: TaskExtensions,
}

/// Piecework's own settings of a task, below `piecework` in its body.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskExtensions {
    /// Every run begins with an empty working directory, also after an earlier run on the same node.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub fresh_directory: bool,
    /// Time between SIGTERM and SIGKILL when a run is ended; two seconds when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kill_grace: Option<Period>,
    /// W3C trace context of what asked for the task; kept and shown, and never interpreted here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

impl TaskExtensions {
    /// True when no setting is given.
    pub fn is_default(&self) -> bool {
        *self == TaskExtensions::default()
    }
}

/// A package as users name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PackageReference {
    pub application_id: ApplicationId,
    /// Absent means the application's default version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<PackageVersion>,
}

/// A package as a node needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Package {
    pub application: ApplicationId,
    /// Absent until the dispatcher has chosen it.
    pub version: Option<PackageVersion>,
    /// The user named the application without a version.
    pub is_default: bool,
    /// The zip in Piecework's own bucket; absent when the package was deleted.
    pub blob: Option<String>,
}

impl TaskSpec {
    /// Slots the task takes, at least one.
    pub fn slots(&self) -> u32 {
        self.required_slots.unwrap_or(1).max(1)
    }

    /// True for a spec that must not be stored in a queue: environment values, or a URL with a query string or a password.
    pub fn holds_secrets(&self) -> bool {
        let opens = |url: &str| url.contains('?') || user_of(url).is_some();
        let signed = |url: &Option<String>| url.as_deref().is_some_and(opens);
        !self.environment_settings.is_empty()
            || self.resource_files.iter().any(|file| signed(&file.http_url) || signed(&file.storage_container_url))
            || self.output_files.iter().any(|file| opens(&file.destination.container.container_url))
    }
}

/// An input of a task; exactly one of the three sources is set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceFile {
    /// A container of the configured blob store, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_storage_container_name: Option<String>,
    /// A container (`s3://bucket/prefix`, or the endpoint's own URL) whose blobs are all fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_container_url: Option<String>,
    /// URL of one file, fetched by HTTP or HTTPS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_url: Option<String>,
    /// Selects the blobs of a container with this prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blob_prefix: Option<String>,
    /// The target below the working directory: a file for `httpUrl`, else a directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_path: Option<String>,
    /// Octal mode; 0770 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<String>,
}

/// A pattern of output files.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutputFile {
    /// A glob, relative to the working directory or absolute.
    pub file_pattern: String,
    pub destination: OutputDestination,
    pub upload_options: UploadOptions,
}

/// The target of an upload.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutputDestination {
    pub container: OutputContainer,
}

/// A container and the name inside it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutputContainer {
    /// `s3://bucket/prefix`, or the endpoint's own `http(s)://endpoint/bucket/prefix`.
    pub container_url: String,
    /// The blob's name when the pattern has no wildcards, else a prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Headers that the blobs store and are served with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upload_headers: Vec<HttpHeader>,
}

/// A header of an upload.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpHeader {
    pub name: String,
    pub value: String,
}

/// When outputs are uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UploadOptions {
    pub upload_condition: UploadCondition,
}

/// The outcomes after which outputs are uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UploadCondition {
    /// Exit code zero.
    TaskSuccess,
    /// Any other end.
    TaskFailure,
    /// Every end.
    #[default]
    TaskCompletion,
}

/// An environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvironmentSetting {
    pub name: String,
    /// Absent means empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// Limits of one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskConstraints {
    /// Limit of one execution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_wall_clock_time: Option<Period>,
    /// How long the working directory is kept after the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_time: Option<Period>,
    /// Retries after a non-zero exit; -1 is unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_task_retry_count: Option<i32>,
}

/// The task that a node runs when it joins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StartTask {
    /// Program and arguments.
    pub command_line: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_files: Vec<ResourceFile>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environment_settings: Vec<EnvironmentSetting>,
    /// Retries after a non-zero exit; -1 is unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_task_retry_count: Option<i32>,
    /// Tasks wait for its success; absent means true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_for_success: Option<bool>,
}

/// How tasks are placed on a pool's nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FillType {
    /// Evenly over all nodes.
    #[default]
    Spread,
    /// On as few nodes as possible.
    Pack,
}

/// The built-in scaling policy of a pool, which follows its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueuePolicy {
    pub min_nodes: u32,
    pub max_nodes: u32,
    /// The pool grows once tasks have waited this long.
    pub react_ms: u64,
    /// A node is removed once it was empty this long.
    pub idle_ms: u64,
    /// How to handle running tasks when the pool shrinks.
    pub deallocation: DeallocationOption,
}

impl Default for QueuePolicy {
    fn default() -> Self {
        QueuePolicy { min_nodes: 0, max_nodes: 1, react_ms: 0, idle_ms: 60_000, deallocation: DeallocationOption::TaskCompletion }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_with_more_fields_than_a_node_needs_is_read() {
        let spec: TaskSpec = serde_json::from_str(
            r#"{"id":"t","displayName":"x","commandLine":"/bin/true","constraints":{"maxWallClockTime":"PT5M"},"requiredSlots":2}"#,
        )
        .unwrap();
        assert_eq!((spec.slots(), spec.command_line.as_str()), (2, "/bin/true"));
        assert_eq!(spec.constraints.max_wall_clock_time.unwrap().as_ms(), 300_000);
    }

    #[test]
    fn environment_values_and_signed_urls_are_secrets() {
        let mut spec = TaskSpec {
            resource_files: vec![ResourceFile { http_url: Some("http://h/x".into()), ..Default::default() }],
            ..Default::default()
        };
        assert!(!spec.holds_secrets());
        spec.resource_files[0].http_url = Some("http://me:hush@h/x".into());
        assert!(spec.holds_secrets());
        spec.resource_files[0].http_url = Some("http://h/x?sig=1".into());
        assert!(spec.holds_secrets());
    }
}
