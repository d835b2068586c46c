//! An open connection to the broker, with its generation.

use std::sync::Arc;

use lapin::{ErrorKind, protocol::AMQPErrorKind};
use tokio::{sync::Notify, time::timeout};

use super::{error::AmqpError, limits::OPERATION_TIMEOUT};

/// Numbers of channels that are tried.
const OPENINGS_MAX: u32 = 256;

/// A connection that was open when it was handed out.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) connection: Arc<lapin::Connection>,
    pub(super) generation: u64,
    pub(super) discarded: Arc<Notify>,
}

impl Live {
    /// Asks for this connection to be dropped and a new one to be opened.
    pub(super) fn discard(&self, reason: &str) {
        tracing::warn!(reason, "discarding the broker connection, a new one is opened");
        self.discarded.notify_one();
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Opens a channel.
    pub(super) async fn channel(&self) -> Result<lapin::Channel, AmqpError> {
        for _ in 0..OPENINGS_MAX {
            match timeout(OPERATION_TIMEOUT, self.connection.create_channel()).await {
                Ok(Ok(channel)) => return Ok(channel),
                Ok(Err(error)) if is_of_another_channel(&error) => {}
                Ok(Err(error)) if matches!(error.kind(), ErrorKind::ChannelsLimitReached) => break,
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => {
                    self.discard("opening a channel took too long");
                    return Err(AmqpError::Timeout { what: "opening a channel" });
                }
            }
        }
        self.discard("it opens no channels any more");
        Err(AmqpError::Disconnected)
    }
}

/// The client library keeps the error that ended a channel with the channel's number, and gives it to every later channel of
/// that number; the next number may be a good one. A broker never refuses an open with the error of a channel.
fn is_of_another_channel(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(error) if matches!(error.kind(), AMQPErrorKind::Soft(_)))
}
