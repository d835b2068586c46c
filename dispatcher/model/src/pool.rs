//! A pool as it is asked for, and what may be changed of it later.

use contract::{
    ids::PoolId,
    period::Period,
    spec::{FillType, PackageReference, QueuePolicy, StartTask},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::document::Properties;

/// Plain properties of a pool: read from requests and shown in answers by their entries in the API's schema, under
/// Azure's names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PoolSettings {
    /// After this long a resize ends with an error.
    pub resize_timeout: Period,
}

impl Default for PoolSettings {
    fn default() -> PoolSettings {
        PoolSettings { resize_timeout: Period::from_secs(15 * 60) }
    }
}

/// How job schedules keep them, in the pools of their jobs.
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

/// A pool as asked for.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct NewPool {
    /// Its name.
    pub id: PoolId,
    /// The accepted Azure fields as JSON, without those that have a column.
    pub document: String,
    /// Slots of a node.
    pub slots_per_node: u32,
    /// Spread or pack.
    pub fill: FillType,
    /// How its jobs of one priority take turns.
    pub job_order: JobOrder,
    /// Dedicated nodes wanted.
    pub target_dedicated: u32,
    /// Low-priority nodes wanted.
    pub target_low_priority: u32,
    /// Its plain properties.
    #[serde(flatten, with = "stored")]
    pub settings: PoolSettings,
    /// What nodes run when they join.
    pub start_task: Option<StartTask>,
    /// What nodes unpack before.
    pub packages: Vec<PackageReference>,
    /// The built-in policy.
    pub policy: Option<QueuePolicy>,
    /// The formula its size follows, and the time between evaluations.
    pub scaling: Option<(String, Period)>,
}

/// Properties of a pool to change; absent ones stay.
#[derive(Debug, Clone, Default)]
pub struct PoolChange {
    /// Properties of the document; null removes one.
    pub fields: Properties,
    /// What nodes run when they join or start again from now on.
    pub start_task: Option<Option<StartTask>>,
    /// Packages that nodes unpack when they join or start again from now on.
    pub packages: Option<Vec<PackageReference>>,
    /// Slots of a node.
    pub slots_per_node: Option<u32>,
    /// How nodes are filled and jobs take turns.
    pub scheduling: Option<(FillType, JobOrder)>,
    /// A property that only a pool without nodes may change.
    pub needs_no_nodes: Option<&'static str>,
}

/// How jobs of one priority take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobOrder {
    /// Each gets its share.
    #[default]
    None,
    /// The oldest job first.
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
