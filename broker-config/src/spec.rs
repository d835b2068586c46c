//! What a task, a start task and a pool ask of a node, in Azure Batch's own field names.
//!
//! The door validates a document once; from then on these types are read from it without checks.
//! Unknown fields are ignored: a document may hold more than a node needs.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{ApplicationId, PackageVersion, TaskId},
    period::Period,
    state::DeallocationOption,
};

/// What a node needs to run a task.
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
    /// Environment variables, the job's common ones merged in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environment_settings: Vec<EnvironmentSetting>,
    /// Time and retry limits.
    pub constraints: TaskConstraints,
    /// Slots the task takes on its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required_slots: Option<u32>,
    /// Packages that people name; the dispatcher turns them into [`TaskSpec::packages`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub application_package_references: Vec<PackageReference>,
    /// Packages to unpack before the command runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<Package>,
    /// The name of the job's preparation task, whose folder the command is told; the dispatcher fills it in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preparation: Option<TaskId>,
}

/// A package as people name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PackageReference {
    /// The application.
    pub application_id: ApplicationId,
    /// Its version; the application's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<PackageVersion>,
}

/// A package as a node needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Package {
    /// The application.
    pub application: ApplicationId,
    /// The version, once it is known.
    pub version: Option<PackageVersion>,
    /// Whether the application was named without a version.
    pub is_default: bool,
    /// The zip in Piecework's own bucket; absent when the package does not exist any more.
    pub blob: Option<String>,
}

impl TaskSpec {
    /// Slots the task takes, at least one.
    pub fn slots(&self) -> u32 {
        self.required_slots.unwrap_or(1).max(1)
    }

    /// Whether the spec must not lie in a queue: environment values, or a URL with a query string.
    pub fn holds_secrets(&self) -> bool {
        let signed = |url: &Option<String>| url.as_deref().is_some_and(|url| url.contains('?'));
        !self.environment_settings.is_empty()
            || self.resource_files.iter().any(|file| signed(&file.http_url) || signed(&file.storage_container_url))
            || self.output_files.iter().any(|file| file.destination.container.container_url.contains('?'))
    }
}

/// One input: exactly one of the three sources is set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceFile {
    /// A container of the configured blob store, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_storage_container_name: Option<String>,
    /// A container (`s3://bucket/prefix`, or the endpoint's own URL) whose blobs are all fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_container_url: Option<String>,
    /// One file by HTTP or HTTPS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_url: Option<String>,
    /// Limits a container to blobs with this prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blob_prefix: Option<String>,
    /// Where it lands below the working directory: a file for `httpUrl`, else a directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_path: Option<String>,
    /// Octal mode, 0770 unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<String>,
}

/// One pattern of outputs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutputFile {
    /// Glob relative to the working directory, or absolute.
    pub file_pattern: String,
    /// Where matches go.
    pub destination: OutputDestination,
    /// When they go.
    pub upload_options: UploadOptions,
}

/// Where outputs go.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutputDestination {
    /// A container of the blob store.
    pub container: OutputContainer,
}

/// A container and the name inside it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutputContainer {
    /// `s3://bucket/prefix`, or the endpoint's own `http(s)://endpoint/bucket/prefix`.
    pub container_url: String,
    /// The blob's name without wildcards in the pattern, else a prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What the blobs keep and are served with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upload_headers: Vec<HttpHeader>,
}

/// A header.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpHeader {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// When outputs go.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UploadOptions {
    /// The condition.
    pub upload_condition: UploadCondition,
}

/// The end after which outputs are uploaded.
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

/// A name and its value.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvironmentSetting {
    /// The variable.
    pub name: String,
    /// Its value, empty when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// Limits of one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskConstraints {
    /// For one execution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_wall_clock_time: Option<Period>,
    /// How long the working directory stays after the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_time: Option<Period>,
    /// Retries after a non-zero exit: -1 is unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_task_retry_count: Option<i32>,
}

/// What a node runs when it joins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StartTask {
    /// Program and arguments.
    pub command_line: String,
    /// Inputs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_files: Vec<ResourceFile>,
    /// Environment variables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environment_settings: Vec<EnvironmentSetting>,
    /// Retries after a non-zero exit: -1 is unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_task_retry_count: Option<i32>,
    /// Whether tasks wait for it; yes unless told otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_for_success: Option<bool>,
}

/// How a pool's nodes are filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FillType {
    /// Every node a little.
    #[default]
    Spread,
    /// One node after the other.
    Pack,
}

/// The built-in scaling policy of a pool: follow the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueuePolicy {
    /// Never fewer nodes.
    pub min_nodes: u32,
    /// Never more nodes.
    pub max_nodes: u32,
    /// Tasks must wait this long before the pool grows.
    pub react_ms: u64,
    /// A node must be empty this long before it is removed.
    pub idle_ms: u64,
    /// What becomes of running tasks when the pool shrinks.
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
        spec.resource_files[0].http_url = Some("http://h/x?sig=1".into());
        assert!(spec.holds_secrets());
    }
}
