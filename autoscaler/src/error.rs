//! What can go wrong while nodes are made and removed.

use std::{io, path::PathBuf};

use broker_config::{amqp::AmqpError, ids::NodeId, message::Fault};
use thiserror::Error;

/// Why the autoscaler or a provider failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The broker could not be reached, or refused.
    #[error("broker")]
    Broker(#[from] AmqpError),
    /// The dispatcher said no.
    #[error("dispatcher refused: {} ({})", fault.message, fault.code)]
    Refused {
        /// Its reason.
        fault: Fault,
    },
    /// The dispatcher answered something else than what was asked.
    #[error("dispatcher answered {found} to {asked}")]
    Answer {
        /// The question.
        asked: &'static str,
        /// The kind of answer.
        found: &'static str,
    },
    /// A file of the provider's state could not be read or written.
    #[error("provider state {}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A node's agent could not be started.
    #[error("agent of node {node} did not start")]
    Spawn {
        /// The node.
        node: NodeId,
        /// The reason.
        source: io::Error,
    },
    /// A node's agent is not started because the provider stops.
    #[error("agent of node {node} not started: its provider stops")]
    Stopping {
        /// The node.
        node: NodeId,
    },
    /// A node's agent does not end.
    #[error("agent of node {node} does not end")]
    Stuck {
        /// The node.
        node: NodeId,
    },
    /// The user's script failed.
    #[error("provider script {verb} ended with {status}: {stderr}")]
    Script {
        /// `create`, `list` or `delete`.
        verb: &'static str,
        /// Its exit status.
        status: String,
        /// The end of its stderr.
        stderr: String,
    },
    /// The user's script could not be run in time.
    #[error("provider script {verb} did not run")]
    ScriptRun {
        /// `create`, `list` or `delete`.
        verb: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// The user's script listed something that is not `POOL NODE`.
    #[error("provider script listed {line:?}, expected `POOL NODE` or `POOL NODE stopped`")]
    ScriptLine {
        /// The line.
        line: String,
    },
}

impl Error {
    /// The reason as a pool shows it to people.
    pub fn fault(&self) -> Fault {
        let code = match self {
            Error::Spawn { .. }
            | Error::Script { .. }
            | Error::ScriptRun { .. }
            | Error::ScriptLine { .. }
            | Error::Stopping { .. }
            | Error::Stuck { .. } => "AllocationFailed",
            Error::State { .. } => "ProviderStateUnavailable",
            Error::Broker(_) | Error::Refused { .. } | Error::Answer { .. } => "DispatcherUnavailable",
        };
        let mut message = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        Fault { code: code.to_owned(), message, details: vec![] }
    }
}
