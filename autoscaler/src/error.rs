//! Errors of the autoscaler.

use clients::amqp::AmqpError;
use contract::outcome::Fault;
use providers::{ProviderError, chain};
use thiserror::Error;

/// Errors of the autoscaler or its provider.
#[derive(Debug, Error)]
pub enum Error {
    #[error("cannot use the broker")]
    Broker(#[from] AmqpError),
    #[error("the dispatcher refused: {} ({})", fault.message, fault.code)]
    Refused { fault: Fault },
    /// The dispatcher's reply is of another kind than the request asks for.
    #[error("the dispatcher answered {found} to {requested}")]
    Answer {
        /// Kind of the request.
        requested: &'static str,
        /// Kind of the reply.
        found: &'static str,
    },
    #[error(transparent)]
    Provider(#[from] ProviderError),
}

impl Error {
    /// The fault that a pool shows to people.
    pub fn fault(&self) -> Fault {
        let code = match self {
            Error::Provider(error) => return error.fault(),
            Error::Broker(_) | Error::Refused { .. } | Error::Answer { .. } => "DispatcherUnavailable",
        };
        Fault { code: code.to_owned(), message: chain(self), details: vec![] }
    }
}
