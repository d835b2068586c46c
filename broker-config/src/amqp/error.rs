//! Why the road failed, in words that say what a caller may do about it.

use std::error::Error as StdError;

use lapin::ErrorKind;
use thiserror::Error;

use crate::body::BodyError;

/// Why something on the road did not work.
#[derive(Debug, Error)]
pub enum AmqpError {
    /// The URL is no broker's; it is not repeated, since it may hold a password.
    #[error("broker URL is not of the form amqp://user:password@host:port/vhost")]
    Url,
    /// The first connection failed.
    #[error("cannot connect to the broker at {host}")]
    Connect {
        /// Host and port.
        host: String,
        /// The cause.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// No queue is bound to that key: nobody got the message.
    #[error("no queue takes messages of exchange {exchange:?} with key {key:?}")]
    Returned {
        /// The exchange.
        exchange: String,
        /// The routing key.
        key: String,
    },
    /// The broker could not take the message, for instance because a queue is full.
    #[error("the broker refused to take the message")]
    Nacked,
    /// The broker did not answer in time.
    #[error("the broker did not answer in time: {what}")]
    Timeout {
        /// What was waited for.
        what: &'static str,
    },
    /// The connection is lost and being mended; what was under way may or may not have arrived.
    #[error("the connection to the broker is lost")]
    Disconnected,
    /// The broker is short of memory or disk and takes no messages for now.
    #[error("the broker is short of memory or disk and takes no messages")]
    Blocked,
    /// The link was closed on this side.
    #[error("the link to the broker is closed")]
    Closed,
    /// The broker refused, with the protocol's own code.
    #[error("the broker refused with {code}: {text}")]
    Refused {
        /// For instance 403, 404, 405 or 406.
        code: u16,
        /// The broker's words.
        text: String,
    },
    /// A body could not be written or read.
    #[error("message body")]
    Body(#[from] BodyError),
    /// A name or key is longer than the protocol's 255 bytes.
    #[error("{what} has {length} bytes, the most is 255")]
    TooLong {
        /// Which field.
        what: &'static str,
        /// Its length.
        length: usize,
    },
}

impl AmqpError {
    /// Whether the same thing may work a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            AmqpError::Connect { .. }
            | AmqpError::Returned { .. }
            | AmqpError::Nacked
            | AmqpError::Timeout { .. }
            | AmqpError::Disconnected
            | AmqpError::Blocked => true,
            // 320: the operator closed it; 541: the broker's own fault.
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
                tracing::debug!(error = ?other, "connection trouble");
                AmqpError::Disconnected
            }
        }
    }
}
