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

/// What a job asks of nodes around its tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Whether its tasks wait for the preparation's success.
    pub waits: bool,
    /// Whether the preparation runs again after a newer start of the agent.
    pub reruns: bool,
    /// How long its release may run, if it has one.
    pub release_ms: Option<i64>,
}

/// How far a preparation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preparation {
    /// The node was told to run it.
    Ordered,
    /// It exited with zero.
    Succeeded,
    /// It did not.
    Failed,
    /// It was stopped, or what it did is gone.
    Void,
}

/// A release that was ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// It ended, or was given up.
    pub is_over: bool,
}

/// A job on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOnNode {
    /// How often the node was asked to prepare, from 1.
    pub number: u32,
    /// The agent's start that was asked last.
    pub epoch: Epoch,
    /// How far the preparation is.
    pub preparation: Preparation,
    /// Preparations in a row that their agent did not survive.
    pub lost: u32,
    /// The release, once it was ordered.
    pub release: Option<Release>,
}

impl JobOnNode {
    /// Whether the job's release was ordered here and has neither ended nor been given up.
    pub fn is_releasing(&self) -> bool {
        self.release.is_some_and(|release| !release.is_over)
    }

    /// The key of this node's present preparation or release.
    pub fn key(&self, job: JobUid, kind: JobTaskKind) -> JobTaskKey {
        JobTaskKey { job, kind, number: self.number }
    }
}

/// How long a release may run at most, and unless told otherwise.
pub const RELEASE_MAX: Period = Period::from_secs(15 * 60);

/// What a job runs on a node before its first task there and after its last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobTasks {
    /// Before.
    pub preparation: PreparationTask,
    /// After.
    pub release: Option<ReleaseTask>,
}

/// A job's preparation task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparationTask {
    /// Its name.
    pub id: TaskId,
    /// What it runs, the job's environment not merged in.
    pub spec: TaskSpec,
    /// Whether tasks wait for its success.
    pub waits: bool,
    /// Whether it runs again after a newer start of the agent.
    pub reruns: bool,
}

/// A job's release task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseTask {
    /// Its name.
    pub id: TaskId,
    /// What it runs, the job's environment not merged in.
    pub spec: TaskSpec,
}

impl JobTasks {
    /// What the rules need to know.
    pub fn rules(&self) -> Rules {
        let limit = |release: &ReleaseTask| release.spec.constraints.max_wall_clock_time.unwrap_or(RELEASE_MAX).min(RELEASE_MAX);
        let release_ms = self.release.as_ref().map(|release| limit(release).as_ms().cast_signed());
        Rules { waits: self.preparation.waits, reruns: self.preparation.reruns, release_ms }
    }

    /// What a node runs; nothing for the release of a job that has none.
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

/// A job on a node, as the rules left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobOnNodeRecord {
    /// The job.
    pub job: JobUid,
    /// The node's pool.
    pub pool: PoolId,
    /// The node.
    pub node: NodeId,
    /// How it stands.
    pub job_on_node: JobOnNode,
}

/// How a job's job tasks went on a node, for people; it stays when the node goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobOnNodeRow {
    /// The node's pool.
    pub pool: PoolId,
    /// The node.
    pub node: NodeId,
    /// When the last preparation began.
    pub preparation_at: Option<Timestamp>,
    /// How it ended, once it has.
    pub preparation: Option<JobTaskEnd>,
    /// When the release began.
    pub release_at: Option<Timestamp>,
    /// How it ended, once it has.
    pub release: Option<JobTaskEnd>,
}

impl JobOnNodeRow {
    /// What a page's link remembers of its last row.
    pub fn place(&self) -> String {
        format!("{}/{}", self.node, self.pool)
    }
}
