//! Pools that jobs bring along: what is asked for, with whom they live, and what they are called.
//!
//! The door reads an [`AutoPool`], the engine makes a pool from it together with a job, the store keeps the job's [`Tie`] to it.

use broker_config::ids::PoolId;
use serde::{Deserialize, Serialize};

use crate::command::NewPool;

/// Characters of a prefix at most: prefix, `_` and a GUID stay below the length of an id.
pub const PREFIX_MAX: usize = 20;

/// With whom an automatic pool lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lifetime {
    /// With one job.
    Job,
    /// With a job schedule: all its jobs share the pool.
    JobSchedule,
}

impl Lifetime {
    /// The wire spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Lifetime::Job => "job",
            Lifetime::JobSchedule => "jobschedule",
        }
    }
}

/// What binds a job to the pool that was made for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tie {
    /// With whom the pool lives.
    pub lifetime: Lifetime,
    /// Whether the pool stays at the end of that life.
    pub keep_alive: bool,
}

/// A pool to be made with a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AutoPool {
    /// What its name begins with.
    pub prefix: Option<PoolId>,
    /// The tie of the jobs that are made with it.
    pub tie: Tie,
    /// The pool; its name is replaced.
    pub pool: NewPool,
}

impl AutoPool {
    /// The pool's name for a number that nobody else has.
    pub fn name(&self, number: u128) -> PoolId {
        let hex = format!("{number:032X}");
        let guid = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
        let name = match &self.prefix {
            Some(prefix) => format!("{prefix}_{guid}"),
            None => guid,
        };
        name.parse().expect("a prefix of at most 20 characters, '_' and 36 more are an id")
    }
}

/// Where a job's tasks are to run. A name is kept as a bare text, the form it had before there were automatic pools.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum JobPool {
    /// On a pool that is there.
    Named(PoolId),
    /// On one that is made for it.
    Auto(Box<AutoPool>),
}

impl JobPool {
    /// The tie of jobs that bring their pool along.
    pub fn tie(&self) -> Option<Tie> {
        match self {
            JobPool::Named(_) => None,
            JobPool::Auto(auto) => Some(auto.tie),
        }
    }
}

impl From<PoolId> for JobPool {
    fn from(pool: PoolId) -> JobPool {
        JobPool::Named(pool)
    }
}

#[cfg(test)]
mod tests {
    use broker_config::{ids::ID_LENGTH_MAX, period::Period};

    use super::*;

    fn auto(prefix: Option<&str>) -> AutoPool {
        let pool = NewPool {
            id: "template".parse().unwrap(),
            document: "{}".into(),
            slots_per_node: 2,
            fill: Default::default(),
            job_order: Default::default(),
            target_dedicated: 1,
            target_low_priority: 0,
            resize_timeout: Period::from_secs(900),
            start_task: None,
            packages: vec![],
            policy: None,
            scaling: None,
        };
        let tie = Tie { lifetime: Lifetime::JobSchedule, keep_alive: true };
        AutoPool { prefix: prefix.map(|prefix| prefix.parse().unwrap()), tie, pool }
    }

    #[test]
    fn a_name_is_the_prefix_and_a_guid_and_always_an_id() {
        assert_eq!(auto(None).name(0xAB).as_str(), "00000000-0000-0000-0000-0000000000AB");
        let longest = auto(Some(&"x".repeat(PREFIX_MAX))).name(u128::MAX);
        assert!(longest.as_str().starts_with("xxxx") && longest.as_str().len() <= ID_LENGTH_MAX, "{longest}");
    }

    #[test]
    fn what_was_stored_before_there_were_automatic_pools_is_a_name() {
        assert_eq!(serde_json::from_str::<JobPool>(r#""pool""#).unwrap(), JobPool::Named("pool".parse().unwrap()));
        for pool in [JobPool::Named("pool".parse().unwrap()), JobPool::Auto(Box::new(auto(Some("p"))))] {
            let text = serde_json::to_string(&pool).unwrap();
            assert_eq!(serde_json::from_str::<JobPool>(&text).unwrap(), pool, "{text}");
        }
    }
}
