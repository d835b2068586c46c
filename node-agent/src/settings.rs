//! What an agent must be told, as plain data.

use std::{ffi::OsString, path::PathBuf};

use broker_config::{
    ids::{NodeId, PoolId},
    settings::{BlobSettings, BrokerSettings, Secret},
};

/// What an agent must be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the broker is.
    pub broker: BrokerSettings,
    /// Where the blobs are; without, tasks have no inputs or outputs of their own store.
    pub blobs: Option<BlobSettings>,
    /// The pool to join.
    pub pool: PoolId,
    /// The node's name.
    pub node: NodeId,
    /// The join token; a credential kept in the node's folder goes first.
    pub token: Secret,
    /// The node's folder.
    pub root: PathBuf,
    /// The address other nodes reach this one at.
    pub address: String,
    /// The command line that starts the guardian process.
    pub guardian: Vec<OsString>,
    /// The niceness of tasks.
    pub nice: Option<i32>,
    /// With less free space than this the node takes no tasks.
    pub file_reserve_bytes: u64,
}

/// How an agent ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Give everything back first.
    Drain,
    /// At once.
    Now,
}
