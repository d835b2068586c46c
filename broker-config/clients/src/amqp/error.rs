//! Errors of the AMQP client, sorted by what a caller may do about them.

use std::error::Error as StdError;

use contract::body::BodyError;
use lapin::ErrorKind;
use thiserror::Error;

/// An operation at the broker that failed.
#[derive(Debug, Error)]
pub enum AmqpError {
    /// The URL is malformed; the error does not repeat it, since it may hold a password.
    #[error("broker URL is not of the form amqp://user:password@host:port/vhost")]
    Url,
    #[error("cannot connect to the broker at {host}")]
    Connect {
        host: String,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// No queue is bound to that key, so the message was not stored.
    #[error("no queue is bound to exchange {exchange:?} with key {key:?}")]
    Returned { exchange: String, key: String },
    /// The broker could not store the message, for instance because a queue is full.
    #[error("the broker refused to store the message")]
    Nacked,
    #[error("the broker did not answer in time: {what}")]
    Timeout {
        /// The operation that took too long.
        what: &'static str,
    },
    /// The connection is lost and reconnects; messages under way may or may not have arrived.
    #[error("the connection to the broker is lost")]
    Disconnected,
    /// The broker has too little memory or disk and accepts no messages for now.
    #[error("the broker is short of memory or disk and accepts no messages")]
    Blocked,
    /// The application closed the link.
    #[error("the link to the broker is closed")]
    Closed,
    /// The broker answered with an AMQP error code.
    #[error("the broker refused with {code}: {text}")]
    Refused {
        /// For instance 403, 404, 405 or 406.
        code: u16,
        text: String,
    },
    /// A body could not be encoded or decoded.
    #[error("the message body could not be encoded or decoded")]
    Body(#[from] BodyError),
    /// A name or key is longer than 255 bytes, the limit of AMQP.
    #[error("{what} has {length} bytes, at most 255 are allowed")]
    TooLong {
        /// The name of the field.
        what: &'static str,
        length: usize,
    },
}

impl AmqpError {
    /// True when a retry may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            AmqpError::Connect { .. }
            | AmqpError::Returned { .. }
            | AmqpError::Nacked
            | AmqpError::Timeout { .. }
            | AmqpError::Disconnected
            | AmqpError::Blocked => true,
            // 320: an operator closed the connection; 541: an internal error of the broker.
            AmqpError::Refused { code, .. } => matches!(code, 320 | 541),
            AmqpError::Url | AmqpError::Closed | AmqpError::Body(_) | AmqpError::TooLong { .. } => false,
        }
    }
}

impl From<lapin::Error> for AmqpError {
    fn from(error: lapin::Error) -> AmqpError {
        match error.kind() {
            ErrorKind::ProtocolError(refusal) => AmqpError::Refused { code: refusal.get_id(), text: refusal.get_message().to_string() },
            other => {
                tracing::debug!(error = ?other, "an AMQP operation failed; the connection counts as lost");
                AmqpError::Disconnected
            }
        }
    }
}
