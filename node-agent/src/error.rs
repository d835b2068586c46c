//! Reasons why an agent cannot start, or must stop.

use std::{io, path::PathBuf};

use clients::amqp::AmqpError;
use contract::outcome::Fault;
use thiserror::Error;

/// Reasons why an agent cannot start, or must stop.
#[derive(Debug, Error)]
pub enum AgentError {
    #[error("cannot use the node's folder at {path}")]
    Root { path: PathBuf, source: io::Error },
    #[error("another agent uses the node's folder {path}")]
    RootInUse { path: PathBuf },
    #[error("{count} processes of an earlier agent cannot be ended")]
    Leftovers { count: usize },
    #[error("cannot start the guardian process")]
    Guardian(#[source] io::Error),
    #[error("cannot start the thread for heartbeats")]
    HeartbeatThread(#[source] io::Error),
    /// The system does not let the agent become a subreaper, which adopts the daemons of tasks.
    #[error("cannot adopt the processes that tasks leave behind")]
    Orphans(#[source] io::Error),
    #[error("cannot use the broker")]
    Broker(#[from] AmqpError),
    #[error("cannot use the blob store")]
    Blobs(#[from] clients::blobs::BlobError),
    /// The dispatcher refused to let this node join.
    #[error("the dispatcher refused the node: {} ({})", .0.message, .0.code)]
    Refused(Fault),
    /// The dispatcher ordered a restart; the agent ends, and its supervisor starts it again.
    #[error("the dispatcher ordered this node to restart")]
    Restarts,
    #[error("the node was removed, or a newer agent of the same name has joined")]
    Dismissed,
}
