//! Why an agent cannot start, or must stop.

use std::{io, path::PathBuf};

use broker_config::{amqp::AmqpError, message::Fault};
use thiserror::Error;

/// Why an agent cannot start, or must stop.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The node's folder cannot be used.
    #[error("cannot use the node's folder at {path}")]
    Root {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another agent holds the folder.
    #[error("another agent uses the node's folder {path}")]
    RootInUse {
        /// The folder.
        path: PathBuf,
    },
    /// Processes of an earlier agent would not die.
    #[error("{count} processes of an earlier agent cannot be ended")]
    Leftovers {
        /// How many.
        count: usize,
    },
    /// The process that cleans up after a crash cannot be started.
    #[error("cannot start the guardian process")]
    Guardian(#[source] io::Error),
    /// The broker cannot be used.
    #[error("cannot use the broker")]
    Broker(#[from] AmqpError),
    /// The blob store cannot be used.
    #[error("cannot use the blob store")]
    Blobs(#[from] broker_config::blobs::BlobError),
    /// The dispatcher does not want this node.
    #[error("the dispatcher refused the node: {} ({})", .0.message, .0.code)]
    Refused(Fault),
    /// The dispatcher wants the node to start again; its supervisor does that.
    #[error("the node was told to start again")]
    Restarts,
    /// A newer agent has this node's name, or the node was removed.
    #[error("the node was removed, or a newer agent has its name")]
    Dismissed,
}
