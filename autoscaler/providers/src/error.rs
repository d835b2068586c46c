//! Errors of providers that make, list, stop or remove nodes.

use std::{io, path::PathBuf};

use contract::{ids::NodeId, outcome::Fault};
use thiserror::Error;

/// Errors of a provider.
#[derive(Debug, Error)]
pub enum ProviderError {
    /// A file of the provider's state could not be read or written.
    #[error("cannot read or write the provider's state file {}", path.display())]
    State { path: PathBuf, source: io::Error },
    #[error("the agent of node {node} cannot be started")]
    Spawn { node: NodeId, source: io::Error },
    #[error("the agent of node {node} is not started, because its provider stops")]
    Stopping { node: NodeId },
    /// A node's agent survived SIGKILL.
    #[error("the agent of node {node} does not end")]
    Stuck { node: NodeId },
    /// The user's script ended with a failure.
    #[error("the provider script ended `{verb}` with {status}: {stderr}")]
    Script {
        /// The script's first argument, such as `create`.
        verb: &'static str,
        /// The script's exit status.
        status: String,
        /// The end of its stderr.
        stderr: String,
    },
    /// The user's script could not be started, or did not end in time.
    #[error("the provider script did not run `{verb}`")]
    ScriptRun {
        /// The script's first argument, such as `create`.
        verb: &'static str,
        source: io::Error,
    },
    #[error("the provider script listed {line:?}, expected `POOL NODE` or `POOL NODE stopped`")]
    ScriptLine { line: String },
}

impl ProviderError {
    /// The fault that a pool shows to people.
    pub fn fault(&self) -> Fault {
        let code = match self {
            ProviderError::Spawn { .. }
            | ProviderError::Script { .. }
            | ProviderError::ScriptRun { .. }
            | ProviderError::ScriptLine { .. }
            | ProviderError::Stopping { .. }
            | ProviderError::Stuck { .. } => "AllocationFailed",
            ProviderError::State { .. } => "ProviderStateUnavailable",
        };
        Fault { code: code.to_owned(), message: chain(self), details: vec![] }
    }
}

/// Joins an error and its sources into one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    message
}
