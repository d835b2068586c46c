//! An open connection to the broker, with its generation.

use std::sync::Arc;

use tokio::{sync::Notify, time::timeout};

use super::{error::AmqpError, limits::OPERATION_TIMEOUT};

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
        match timeout(OPERATION_TIMEOUT, self.connection.create_channel()).await {
            Ok(channel) => Ok(channel?),
            Err(_) => {
                self.discard("opening a channel took too long");
                Err(AmqpError::Timeout { what: "opening a channel" })
            }
        }
    }
}
