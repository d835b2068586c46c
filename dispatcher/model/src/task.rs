//! A task as requested, its exit conditions, and the reasons why it failed or was queued again.

use contract::{ids::TaskId, outcome::Fault, spec::TaskSpec};

use crate::{
    refusal::{Code, Refusal},
    task_document::{TaskDocument, as_text},
};

/// An output stream of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamName {
    /// `stdout.txt`.
    Stdout,
    /// `stderr.txt`.
    Stderr,
}

/// A task as requested.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct NewTask {
    pub id: TaskId,
    /// Accepted properties, as stored and shown by GET.
    #[serde(with = "as_text")]
    pub document: TaskDocument,
    /// The same properties as they are sent to nodes; the job's environment is merged in later.
    pub spec: TaskSpec,
    /// Ids of tasks that must succeed first; numbers of `taskIdRanges` are written as plain decimals.
    pub depends_on: Vec<String>,
    /// Actions after the task's end, by exit code and failure.
    pub exit_conditions: Option<ExitConditions>,
}

impl NewTask {
    /// Whether its end is asked to do something to its job.
    pub fn acts_on_job(&self) -> bool {
        self.exit_conditions.as_ref().is_some_and(ExitConditions::acts_on_job)
    }

    /// The refusal of an action on the job that its `onTaskFailure` says will never be looked at.
    pub fn unheard(&self) -> Refusal {
        Refusal::new(Code::InvalidPropertyValue, "The value provided for one of the properties in the request body is invalid.")
            .with("PropertyName", "exitConditions")
            .with("TaskId", &self.id)
            .with("Reason", "A jobAction needs a job whose onTaskFailure is performexitoptionsjobaction.")
    }
}

/// Actions after a task's end, as Azure defines them.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExitConditions {
    pub exit_codes: Vec<ExitCode>,
    /// Options for ranges of exit codes, both bounds included.
    pub exit_code_ranges: Vec<ExitCodeRange>,
    /// Options when the command could not be started.
    pub pre_processing_error: Option<ExitOptions>,
    /// Options when outputs could not be uploaded.
    pub file_upload_error: Option<ExitOptions>,
    /// Options for all other failures.
    #[serde(rename = "default")]
    pub otherwise: Option<ExitOptions>,
}

impl ExitConditions {
    /// Whether any of the options disables or terminates the job.
    pub fn acts_on_job(&self) -> bool {
        let codes = self.exit_codes.iter().map(|mapping| mapping.exit_options);
        let ranges = self.exit_code_ranges.iter().map(|mapping| mapping.exit_options);
        let others = [self.pre_processing_error, self.file_upload_error, self.otherwise].into_iter().flatten();
        codes.chain(ranges).chain(others).any(|options| options.job_action.is_some_and(|action| action != JobAction::None))
    }
}

/// Options for one exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExitCode {
    pub code: i32,
    pub exit_options: ExitOptions,
}

/// Options for a range of exit codes, both bounds included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExitCodeRange {
    pub start: i32,
    pub end: i32,
    pub exit_options: ExitOptions,
}

/// Actions on the job and on dependent tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExitOptions {
    pub job_action: Option<JobAction>,
    pub dependency_action: Option<DependencyAction>,
}

/// Action on the job of the ended task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobAction {
    None,
    /// The job is disabled and its tasks are queued again.
    Disable,
    Terminate,
}

/// Action on the tasks that depend on the ended one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DependencyAction {
    /// They may run.
    Satisfy,
    Block,
}

/// The failure of a task as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    /// Whether the user's input caused it (Azure's `UserError`) or the service (`ServerError`).
    pub is_user_error: bool,
    #[serde(flatten)]
    pub fault: Fault,
}

/// Why a task is queued again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequeueCause {
    /// The task exited with a non-zero code and has retries left; counts as a retry.
    Retry,
    /// The task's node was lost or failed; counts neither as retry nor as requeue.
    Recovery,
    /// A client drained its node or disabled its job; counts as a requeue.
    Requested,
    /// The job preparation failed on its node; counts neither as retry nor as requeue.
    Unprepared,
}
