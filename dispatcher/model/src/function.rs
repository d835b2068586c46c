//! A function of a pool with the versions that were deployed.

use contract::{
    function::{Function, FunctionSpec},
    ids::{FunctionId, PoolId},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Versions of one function that are kept; the oldest one that takes no invocations makes room.
pub const VERSIONS_MAX: usize = 20;

/// A function; the engine keeps it in memory, API handlers read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionRow {
    pub pool: PoolId,
    pub id: FunctionId,
    /// For the ETag.
    pub version: u64,
    /// The number of the version that takes new invocations.
    pub active: u32,
    /// By number, from the oldest that is kept.
    pub versions: Vec<FunctionVersion>,
    pub created_at: Timestamp,
    pub modified_at: Timestamp,
}

/// A version of a function; it never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionVersion {
    /// Counts the function's versions from 1.
    pub number: u32,
    /// Belongs to this version alone, in the whole account.
    pub uid: u64,
    pub spec: FunctionSpec,
    pub created_at: Timestamp,
}

/// A change of a function.
#[derive(Debug, Clone, PartialEq)]
pub enum FunctionChange {
    /// A new version: the active one with these properties set, or removed where they are null. It becomes active.
    Deploy(Map<String, Value>),
    /// Another version takes the new invocations.
    Activate(u32),
}

impl FunctionRow {
    /// The version that takes new invocations.
    pub fn active(&self) -> Option<&FunctionVersion> {
        self.versions.iter().find(|version| version.number == self.active)
    }

    /// The part of the function that agents receive; nothing while it has no version to run.
    pub fn for_agents(&self) -> Option<Function> {
        let active = self.active()?;
        Some(Function { name: self.id.clone(), version: active.number, uid: active.uid, spec: active.spec.clone() })
    }

    /// Adds a version, which becomes active, and forgets the oldest ones beyond [`VERSIONS_MAX`].
    pub fn deploy(&mut self, version: FunctionVersion) {
        self.active = version.number;
        self.versions.push(version);
        let surplus = self.versions.len().saturating_sub(VERSIONS_MAX);
        self.versions.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use contract::{
        function::{Runtime, TIMEOUT_DEFAULT},
        period::Period,
    };

    use super::*;

    #[test]
    fn old_versions_make_room_and_the_newest_is_active() {
        let spec = FunctionSpec {
            runtime: Runtime::Lines,
            handler: None,
            command_line: Some("cat".into()),
            package: None,
            memory_mib: None,
            timeout: TIMEOUT_DEFAULT,
            concurrency_per_node: None,
            environment_settings: vec![],
            warm_instances: 0,
            max_retry_count: 0,
            idle_time: Period::from_secs(1),
        };
        let (at, pool, id) = (Timestamp(0), "p".parse().unwrap(), "f".parse().unwrap());
        let mut row = FunctionRow { pool, id, version: 1, active: 0, versions: vec![], created_at: at, modified_at: at };
        assert!(row.for_agents().is_none());
        for number in 1..=25 {
            row.deploy(FunctionVersion { number, uid: number.into(), spec: spec.clone(), created_at: at });
        }
        assert_eq!((row.versions.len(), row.versions[0].number, row.active), (VERSIONS_MAX, 6, 25));
        assert_eq!(row.for_agents().unwrap().uid, 25);
    }
}
