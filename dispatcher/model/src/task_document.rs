//! A task's properties as stored, which is also how GET shows them, in Azure's names.
//!
//! The [`TaskSpec`] that is sent to nodes is converted from it, so each can change its names without the other.

use contract::spec::{EnvironmentSetting, OutputFile, PackageReference, ResourceFile, TaskConstraints, TaskExtensions, TaskSpec};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The stored properties of a task.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskDocument {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    pub command_line: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_files: Vec<ResourceFile>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub output_files: Vec<OutputFile>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environment_settings: Vec<EnvironmentSetting>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub application_package_references: Vec<PackageReference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity_info: Option<Value>,
    pub constraints: TaskConstraints,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required_slots: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_identity: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depends_on: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_conditions: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication_token_settings: Option<Value>,
    #[serde(skip_serializing_if = "TaskExtensions::is_default")]
    pub piecework: TaskExtensions,
}

impl TaskDocument {
    /// The JSON text for the store.
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("a task has a JSON form")
    }

    /// Whether the task asked for an authentication token of its own.
    pub fn wants_token(&self) -> bool {
        self.authentication_token_settings.is_some()
    }
}

/// The spec for nodes. The engine adds the job's environment, packages and tokens later.
impl From<TaskDocument> for TaskSpec {
    fn from(document: TaskDocument) -> TaskSpec {
        TaskSpec {
            command_line: document.command_line,
            resource_files: document.resource_files,
            output_files: document.output_files,
            environment_settings: document.environment_settings,
            constraints: document.constraints,
            required_slots: document.required_slots,
            application_package_references: document.application_package_references,
            piecework: document.piecework,
            ..TaskSpec::default()
        }
    }
}

/// Serde form inside job schedules, which keep the document as a JSON string.
pub mod as_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::TaskDocument;

    /// Writes the document as a string.
    pub fn serialize<S: Serializer>(document: &TaskDocument, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&document.text())
    }

    /// Reads the document from a string.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<TaskDocument, D::Error> {
        serde_json::from_str(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::NewTask;

    /// The text as every build since the first has stored it.
    const STORED: &str = r#"{"displayName":"d","commandLine":"x","resourceFiles":[{"httpUrl":"http://h/x","filePath":"x","fileMode":"0700"}],"outputFiles":[{"filePattern":"*","destination":{"container":{"containerUrl":"s3://b","path":"p","uploadHeaders":[{"name":"content-type","value":"a/b"}]}},"uploadOptions":{"uploadCondition":"tasksuccess"}}],"environmentSettings":[{"name":"A","value":"b"}],"applicationPackageReferences":[{"applicationId":"app","version":"1"}],"affinityInfo":{"affinityId":"n"},"constraints":{"maxWallClockTime":"PT5M","retentionTime":"P7D","maxTaskRetryCount":3},"requiredSlots":2,"userIdentity":{"autoUser":{"scope":"pool"}},"dependsOn":{"taskIds":["a"]},"exitConditions":{"default":{"jobAction":"none"}},"authenticationTokenSettings":{"access":["job"]},"piecework":{"freshDirectory":true,"killGrace":"PT3S"}}"#;

    #[test]
    fn a_stored_task_is_read_and_written_in_the_spelling_of_every_build() {
        let document: TaskDocument = serde_json::from_str(STORED).unwrap();
        assert_eq!(document.text(), STORED);
        assert!(document.wants_token());
    }

    #[test]
    fn a_node_gets_what_concerns_it() {
        let document: TaskDocument = serde_json::from_str(STORED).unwrap();
        let spec = TaskSpec::from(document.clone());
        assert_eq!((spec.command_line.as_str(), spec.slots(), spec.constraints.max_task_retry_count), ("x", 2, Some(3)));
        assert_eq!((spec.resource_files, spec.output_files), (document.resource_files, document.output_files));
        assert!(spec.piecework.fresh_directory && spec.packages.is_empty() && spec.preparation.is_none());
    }

    #[test]
    fn a_schedule_keeps_the_document_of_its_manager_as_a_text() {
        let stored = r#"{"id":"m","document":"{\"commandLine\":\"x\",\"constraints\":{},\"requiredSlots\":1}","spec":{"commandLine":"x","constraints":{}},"depends_on":[],"exit_conditions":null}"#;
        let task: NewTask = serde_json::from_str(stored).unwrap();
        assert_eq!((task.document.command_line.as_str(), task.document.required_slots), ("x", Some(1)));
        assert_eq!(serde_json::to_string(&task).unwrap(), stored);
    }
}
