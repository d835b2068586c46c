//! A job's preparation and release: what they run, and how they went on each node.

use broker_config::{
    chore::{Chore, ChoreEnd, ChoreKey, ChoreKind},
    ids::{JobId, JobUid, NodeId, PoolId, TaskId},
    period::Period,
    spec::{EnvironmentSetting, TaskSpec},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::core::{Rules, Site};

/// How long a release may run at most, and unless told otherwise.
pub const RELEASE_MAX: Period = Period::from_secs(15 * 60);

/// What a job runs on a node before its first task there and after its last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobChores {
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

impl JobChores {
    /// What the rules need to know.
    pub fn rules(&self) -> Rules {
        let limit = |release: &ReleaseTask| release.spec.constraints.max_wall_clock_time.unwrap_or(RELEASE_MAX).min(RELEASE_MAX);
        let release_ms = self.release.as_ref().map(|release| limit(release).as_ms().cast_signed());
        Rules { waits: self.preparation.waits, reruns: self.preparation.reruns, release_ms }
    }

    /// What a node runs; nothing for the release of a job that has none.
    pub fn chore(&self, key: ChoreKey, job: &JobId, environment: &[EnvironmentSetting]) -> Option<Chore> {
        let (task, mut spec) = match key.kind {
            ChoreKind::Preparation => (&self.preparation.id, self.preparation.spec.clone()),
            ChoreKind::Release => {
                let release = self.release.as_ref()?;
                (&release.id, TaskSpec { preparation: Some(self.preparation.id.clone()), ..release.spec.clone() })
            }
        };
        let own = std::mem::take(&mut spec.environment_settings);
        spec.environment_settings =
            environment.iter().filter(|setting| own.iter().all(|mine| mine.name != setting.name)).cloned().collect();
        spec.environment_settings.extend(own);
        Some(Chore { key, job: job.clone(), task: task.clone(), is_awaited: self.preparation.waits, spec })
    }
}

/// A job on a node, as the rules left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteRecord {
    /// The job.
    pub job: JobUid,
    /// The node's pool.
    pub pool: PoolId,
    /// The node.
    pub node: NodeId,
    /// How it stands.
    pub site: Site,
}

/// How a job's chores went on a node, for people; it stays when the node goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteRow {
    /// The node's pool.
    pub pool: PoolId,
    /// The node.
    pub node: NodeId,
    /// When the last preparation began.
    pub preparation_at: Option<Timestamp>,
    /// How it ended, once it has.
    pub preparation: Option<ChoreEnd>,
    /// When the release began.
    pub release_at: Option<Timestamp>,
    /// How it ended, once it has.
    pub release: Option<ChoreEnd>,
}

impl SiteRow {
    /// What a page's link remembers of its last row.
    pub fn place(&self) -> String {
        format!("{}/{}", self.node, self.pool)
    }
}
