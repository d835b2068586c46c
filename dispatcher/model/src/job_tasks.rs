//! A job's preparation and release tasks: what they run, and their state on each node.

use contract::{
    ids::{Epoch, JobId, JobUid, NodeId, PoolId, TaskId},
    job_task::JobTask,
    outcome::{JobTaskEnd, JobTaskKey, JobTaskKind},
    period::Period,
    spec::{EnvironmentSetting, TaskSpec},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

/// The parts of a job's preparation and release settings that the scheduler needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Whether the job's tasks wait until the preparation has succeeded (`waitForSuccess`).
    pub waits: bool,
    /// Whether the preparation runs again after the agent restarts (`rerunOnNodeRebootAfterSuccess`).
    pub reruns: bool,
    /// Time limit of the release task; `None` when the job has no release task.
    pub release_ms: Option<i64>,
}

/// State of a job preparation on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preparation {
    /// The node was asked to run it.
    Ordered,
    /// The job task exited with code zero.
    Succeeded,
    /// The job task exited with another code, or could not run.
    Failed,
    /// The job task was stopped, or the node lost what it had set up; it has to run again.
    Void,
}

/// State of a job release that was ordered on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Whether it has ended or was given up.
    pub is_over: bool,
}

/// State of one job on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOnNode {
    /// Counts the preparations on this node, from 1.
    pub number: u32,
    /// Epoch of the agent that was asked last.
    pub epoch: Epoch,
    pub preparation: Preparation,
    /// Preparations in a row that were lost because their agent died.
    pub lost: u32,
    /// The release; `None` until it is ordered.
    pub release: Option<Release>,
}

impl JobOnNode {
    /// Whether a release was ordered here and is not over.
    pub fn is_releasing(&self) -> bool {
        self.release.is_some_and(|release| !release.is_over)
    }

    /// Key of this node's present preparation or release.
    pub fn key(&self, job: JobUid, kind: JobTaskKind) -> JobTaskKey {
        JobTaskKey { job, kind, number: self.number }
    }
}

/// Default and longest time limit of a release task, as in Azure.
pub const RELEASE_MAX: Period = Period::from_secs(15 * 60);

/// The preparation and release tasks of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobTasks {
    pub preparation: PreparationTask,
    pub release: Option<ReleaseTask>,
}

/// A job's preparation task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparationTask {
    pub id: TaskId,
    /// The command and its files; the job's environment is merged in when it is sent.
    pub spec: TaskSpec,
    /// Whether tasks wait until it has succeeded.
    pub waits: bool,
    /// Whether it runs again after the agent restarts.
    pub reruns: bool,
}

/// A job's release task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseTask {
    pub id: TaskId,
    /// The command and its files; the job's environment is merged in when it is sent.
    pub spec: TaskSpec,
}

impl JobTasks {
    /// The settings that the scheduler needs.
    pub fn rules(&self) -> Rules {
        let limit = |release: &ReleaseTask| release.spec.constraints.max_wall_clock_time.unwrap_or(RELEASE_MAX).min(RELEASE_MAX);
        let release_ms = self.release.as_ref().map(|release| limit(release).as_ms().cast_signed());
        Rules { waits: self.preparation.waits, reruns: self.preparation.reruns, release_ms }
    }

    /// The job task as it is sent to a node; `None` for the release of a job without a release task.
    pub fn job_task(&self, key: JobTaskKey, job: &JobId, environment: &[EnvironmentSetting]) -> Option<JobTask> {
        let (task, mut spec) = match key.kind {
            JobTaskKind::Preparation => (&self.preparation.id, self.preparation.spec.clone()),
            JobTaskKind::Release => {
                let release = self.release.as_ref()?;
                (&release.id, TaskSpec { preparation: Some(self.preparation.id.clone()), ..release.spec.clone() })
            }
        };
        let own = std::mem::take(&mut spec.environment_settings);
        spec.environment_settings =
            environment.iter().filter(|setting| own.iter().all(|mine| mine.name != setting.name)).cloned().collect();
        spec.environment_settings.extend(own);
        Some(JobTask { key, job: job.clone(), task: task.clone(), is_awaited: self.preparation.waits, spec })
    }
}

/// The scheduler's state of a job on a node, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobOnNodeRecord {
    pub job: JobUid,
    pub pool: PoolId,
    pub node: NodeId,
    pub job_on_node: JobOnNode,
}

/// How a job's preparation and release went on a node, as the API shows it. The row outlives the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobOnNodeRow {
    pub pool: PoolId,
    pub node: NodeId,
    /// Start of the last preparation.
    pub preparation_at: Option<Timestamp>,
    /// The end of the last preparation; `None` while it runs.
    pub preparation: Option<JobTaskEnd>,
    /// Start of the release.
    pub release_at: Option<Timestamp>,
    /// The end of the release; `None` while it runs.
    pub release: Option<JobTaskEnd>,
}

impl JobOnNodeRow {
    /// The row's position in the list, as kept in a continuation token.
    pub fn place(&self) -> String {
        format!("{}/{}", self.node, self.pool)
    }
}
