//! A pool as requested, and the changes that are possible later.

use contract::{
    ids::PoolId,
    period::Period,
    spec::{FillType, PackageReference, QueuePolicy, StartTask},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::document::Properties;

/// Plain properties of a pool. Their entries in the API's schema read them from requests and show them in answers,
/// under Azure's names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PoolSettings {
    /// A resize that takes longer ends with an error.
    pub resize_timeout: Period,
}

impl Default for PoolSettings {
    fn default() -> PoolSettings {
        PoolSettings { resize_timeout: Period::from_secs(15 * 60) }
    }
}

/// The stored form inside a job schedule, which keeps the pool of its future jobs as JSON.
mod stored {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Stored {
        resize_timeout: Period,
    }

    pub fn serialize<S: Serializer>(settings: &PoolSettings, to: S) -> Result<S::Ok, S::Error> {
        let PoolSettings { resize_timeout } = settings.clone();
        Stored { resize_timeout }.serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PoolSettings, D::Error> {
        Stored::deserialize(from).map(|Stored { resize_timeout }| PoolSettings { resize_timeout })
    }
}

/// A pool as requested.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct NewPool {
    pub id: PoolId,
    /// Accepted properties as JSON, in Azure's names, without those that have a column.
    pub document: String,
    /// `taskSlotsPerNode`.
    pub slots_per_node: u32,
    /// Whether tasks are spread over nodes or packed on few.
    pub fill: FillType,
    /// How jobs of the same priority share the pool.
    pub job_order: JobOrder,
    pub target_dedicated: u32,
    pub target_low_priority: u32,
    #[serde(flatten, with = "stored")]
    pub settings: PoolSettings,
    /// Runs on every node when it joins.
    pub start_task: Option<StartTask>,
    /// Application packages that nodes unpack before the start task.
    pub packages: Vec<PackageReference>,
    /// Piecework's own queue-depth policy.
    pub policy: Option<QueuePolicy>,
    /// The autoscale formula and the time between evaluations.
    pub scaling: Option<(String, Period)>,
}

/// A change of a pool; `None` leaves a property as it is.
#[derive(Debug, Clone, Default)]
pub struct PoolChange {
    /// Properties of the document; null removes one.
    pub fields: Properties,
    /// The new start task, used by nodes that join or restart later; `Some(None)` removes it.
    pub start_task: Option<Option<StartTask>>,
    /// The new packages, used by nodes that join or restart later.
    pub packages: Option<Vec<PackageReference>>,
    /// `taskSlotsPerNode`; only a pool without nodes can change it.
    pub slots_per_node: Option<u32>,
    /// How nodes are filled, and how jobs of the same priority share the pool.
    pub scheduling: Option<(FillType, JobOrder)>,
    /// Name of a given property that only a pool without nodes can change; for the refusal.
    pub needs_no_nodes: Option<&'static str>,
}

/// How jobs of the same priority share a pool (`jobDefaultOrder`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobOrder {
    /// Each job gets an equal share.
    #[default]
    None,
    /// The job that was created first goes first.
    CreationTime,
}

impl JobOrder {
    /// The wire spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            JobOrder::None => "none",
            JobOrder::CreationTime => "creationtime",
        }
    }

    /// Reads the wire spelling in any letter case.
    pub fn parse(text: &str) -> Option<JobOrder> {
        [JobOrder::None, JobOrder::CreationTime].into_iter().find(|order| order.as_str().eq_ignore_ascii_case(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_of_a_schedule_is_stored_in_the_spelling_of_every_build() {
        let stored = r#"{"id":"p","document":"{}","slots_per_node":1,"fill":"spread","job_order":"none","target_dedicated":0,"target_low_priority":2,"resize_timeout":"PT15M","start_task":null,"packages":[],"policy":null,"scaling":["$a=1;","PT5M"]}"#;
        let pool: NewPool = serde_json::from_str(stored).unwrap();
        assert_eq!(pool.settings, PoolSettings::default());
        assert_eq!(serde_json::to_string(&pool).unwrap(), stored);
        assert_eq!(serde_json::to_string(&pool.settings).unwrap(), r#"{"resizeTimeout":"PT15M"}"#, "as the API shows it");
    }
}
