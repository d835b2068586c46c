//! A task as it is asked for, its exit conditions, and why it failed or was queued again.

use contract::{ids::TaskId, outcome::Fault, spec::TaskSpec};

use crate::task_document::{TaskDocument, as_text};

/// Which of a task's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamName {
    /// `stdout.txt`.
    Stdout,
    /// `stderr.txt`.
    Stderr,
}

/// A task as asked for.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct NewTask {
    /// Its name.
    pub id: TaskId,
    /// The accepted properties, as the store keeps and GET shows them.
    #[serde(with = "as_text")]
    pub document: TaskDocument,
    /// The same for the node, the job's environment not merged in yet.
    pub spec: TaskSpec,
    /// Tasks that must end well first; numbers of ranges are written as plain decimals.
    pub depends_on: Vec<String>,
    /// What follows from its end.
    pub exit_conditions: Option<ExitConditions>,
}

/// What follows from a task's end, as Azure defines it.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExitConditions {
    /// Single codes.
    pub exit_codes: Vec<ExitCode>,
    /// Ranges, both ends included.
    pub exit_code_ranges: Vec<ExitCodeRange>,
    /// The command never ran.
    pub pre_processing_error: Option<ExitOptions>,
    /// Outputs could not be uploaded.
    pub file_upload_error: Option<ExitOptions>,
    /// Everything else that is not zero.
    #[serde(rename = "default")]
    pub otherwise: Option<ExitOptions>,
}

impl ExitConditions {
    /// Whether any end is asked to do something to the job.
    pub fn acts_on_job(&self) -> bool {
        let codes = self.exit_codes.iter().map(|mapping| mapping.exit_options);
        let ranges = self.exit_code_ranges.iter().map(|mapping| mapping.exit_options);
        let others = [self.pre_processing_error, self.file_upload_error, self.otherwise].into_iter().flatten();
        codes.chain(ranges).chain(others).any(|options| options.job_action.is_some_and(|action| action != JobAction::None))
    }
}

/// One code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExitCode {
    /// The code.
    pub code: i32,
    /// What follows.
    pub exit_options: ExitOptions,
}

/// A range of codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExitCodeRange {
    /// First.
    pub start: i32,
    /// Last.
    pub end: i32,
    /// What follows.
    pub exit_options: ExitOptions,
}

/// What follows from an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExitOptions {
    /// For the job.
    pub job_action: Option<JobAction>,
    /// For those that depend on the task.
    pub dependency_action: Option<DependencyAction>,
}

/// What an end does to the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobAction {
    /// Nothing.
    None,
    /// Disable it, requeueing its tasks.
    Disable,
    /// Terminate it.
    Terminate,
}

/// What an end does to dependants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DependencyAction {
    /// They may run.
    Satisfy,
    /// They wait.
    Block,
}

/// Why a task failed, as people see it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    /// Whose fault it is.
    pub is_user_error: bool,
    /// Code, message and details.
    #[serde(flatten)]
    pub fault: Fault,
}

/// Why a task runs again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequeueCause {
    /// A non-zero exit with retries left: counted as retry.
    Retry,
    /// Its node was lost or broke: counted for nobody.
    Recovery,
    /// Somebody wanted its node or job to stop: counted as requeue.
    Requested,
    /// The job's preparation failed on its node: counted for nobody.
    Unprepared,
}
