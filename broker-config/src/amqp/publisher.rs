//! Publishes messages and says what became of each.
//!
//! `publish` and `publish_all` take a pooled channel each and run side by side; `send` keeps one order for all.

use std::sync::Arc;

use super::{
    AmqpError, Confirm, IN_FLIGHT_MAX, Outgoing,
    channels::{self, ChannelPool},
    lane::Lane,
    link::Lines,
    window,
};

/// Publishes on the link's publishing connection; cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    inner: Arc<Inner>,
}

struct Inner {
    lines: Arc<Lines>,
    pool: ChannelPool,
    lane: Lane,
}

impl Publisher {
    pub(super) fn new(lines: Arc<Lines>) -> Publisher {
        let lane = Lane::start(lines.publishing.clone());
        Publisher { inner: Arc::new(Inner { pool: channels::pool(lines.publishing.clone()), lines, lane }) }
    }

    /// Publishes one message; `Ok` means that the broker has it in a queue, or needs no queue for it.
    pub async fn publish(&self, outgoing: Outgoing) -> Result<(), AmqpError> {
        match channels::try_take(&self.inner.pool).await? {
            Some(mut taken) => {
                let mut results = window::publish(&mut taken, std::slice::from_ref(&outgoing).iter()).await;
                results.pop().unwrap_or(Err(AmqpError::Disconnected))
            }
            // All channels are busy: travelling with others is cheaper than waiting for one.
            None => self.send(outgoing).await?.wait().await,
        }
    }

    /// Publishes many in order on one channel; one result for each, in the same order.
    pub async fn publish_all(&self, outgoing: Vec<Outgoing>) -> Vec<Result<(), AmqpError>> {
        let mut results = Vec::with_capacity(outgoing.len());
        for batch in outgoing.chunks(IN_FLIGHT_MAX) {
            match channels::take(&self.inner.pool).await {
                Ok(mut taken) => results.extend(window::publish(&mut taken, batch.iter()).await),
                Err(error) => {
                    results.push(Err(error));
                    break;
                }
            }
        }
        // Whatever was not tried shares the fate of the last one tried.
        results.resize_with(outgoing.len(), || Err(AmqpError::Disconnected));
        results
    }

    /// Puts one message in line behind all that were sent before; its confirm may be awaited later.
    pub async fn send(&self, outgoing: Outgoing) -> Result<Confirm, AmqpError> {
        outgoing.check()?;
        self.inner.lane.send(outgoing).await
    }

    /// Whether the broker takes no messages for now.
    pub async fn is_blocked(&self) -> bool {
        match self.inner.lines.publishing.live().await {
            Ok(live) => live.is_blocked(),
            Err(_) => false,
        }
    }
}
