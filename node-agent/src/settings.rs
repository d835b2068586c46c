//! Settings of an agent, as plain data.

use std::{ffi::OsString, path::PathBuf};

use broker_config::settings::{BlobSettings, BrokerSettings, Secret};
use contract::ids::{NodeId, PoolId};

use crate::disk_limits::DiskLimits;

/// Settings of an agent.
#[derive(Debug, Clone)]
pub struct Settings {
    pub broker: BrokerSettings,
    /// Without a blob store, tasks have no inputs or outputs there.
    pub blobs: Option<BlobSettings>,
    /// The pool to join.
    pub pool: PoolId,
    pub node: NodeId,
    /// The join token; a credential that is stored in the node's folder is tried first.
    pub token: Secret,
    /// The node's folder.
    pub root: PathBuf,
    /// The address other nodes reach this one at.
    pub address: String,
    /// The command line that starts the guardian process.
    pub guardian: Vec<OsString>,
    /// Whether the agent has its process for itself; then it adopts daemons of tasks, and ends them.
    pub is_alone: bool,
    /// The niceness of tasks; the agent's own when absent.
    pub nice: Option<i32>,
    /// The umask of tasks; the agent's own when absent.
    pub task_umask: Option<u32>,
    /// With fewer free bytes than this the node takes no tasks.
    pub file_reserve_bytes: u64,
    pub disk_limits: DiskLimits,
}

/// How `run` ends once its `shutdown` completes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Stops runs and reports their results first.
    Drain,
    /// Kills at once.
    Now,
}
