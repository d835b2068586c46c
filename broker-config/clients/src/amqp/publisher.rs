//! Publishes messages and reports the result of each.
//!
//! `publish` and `publish_all` use a pooled channel each and run concurrently; `send` keeps one order for all messages.

use std::{sync::Arc, time::Instant};

use broker_config::metrics::{NO_LABELS, PUBLISH_SECONDS};

use super::{
    channels::{self, ChannelPool},
    connections::Connections,
    error::AmqpError,
    limits::IN_FLIGHT_MAX,
    ordered::{Confirm, OrderedPublisher},
    outgoing::Outgoing,
    window,
};

/// Publishes on the link's publishing connection; cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    inner: Arc<Inner>,
}

struct Inner {
    connections: Arc<Connections>,
    pool: ChannelPool,
    ordered: OrderedPublisher,
}

impl Publisher {
    pub(super) fn new(connections: Arc<Connections>) -> Publisher {
        let ordered = OrderedPublisher::start(connections.publishing.clone());
        Publisher { inner: Arc::new(Inner { pool: channels::pool(connections.publishing.clone()), connections, ordered }) }
    }

    /// Publishes one message; `Ok` means that the broker has stored it in a queue, or needs no queue for it.
    pub async fn publish(&self, outgoing: Outgoing) -> Result<(), AmqpError> {
        let began = Instant::now();
        let result = self.publish_one(outgoing).await;
        if result.is_ok() {
            PUBLISH_SECONDS.of(NO_LABELS).record(began.elapsed());
        }
        result
    }

    async fn publish_one(&self, outgoing: Outgoing) -> Result<(), AmqpError> {
        match channels::try_take(&self.inner.pool).await? {
            Some(mut taken) => {
                let mut results = window::publish(&mut taken, std::slice::from_ref(&outgoing).iter()).await;
                results.pop().unwrap_or(Err(AmqpError::Disconnected))
            }
            // All channels are busy: the ordered publisher sends it sooner than a channel becomes free.
            None => self.send(outgoing).await?.wait().await,
        }
    }

    /// Publishes many messages in order on one channel; returns one result for each, in the same order.
    pub async fn publish_all(&self, outgoing: Vec<Outgoing>) -> Vec<Result<(), AmqpError>> {
        let began = Instant::now();
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
        if results.len() == outgoing.len() {
            PUBLISH_SECONDS.of(NO_LABELS).record(began.elapsed());
        }
        // Messages after a failed batch were not sent.
        results.resize_with(outgoing.len(), || Err(AmqpError::Disconnected));
        results
    }

    /// Queues one message behind all that were sent before; its confirm may be awaited later.
    pub async fn send(&self, outgoing: Outgoing) -> Result<Confirm, AmqpError> {
        outgoing.check()?;
        self.inner.ordered.send(outgoing).await
    }

    /// True while the broker blocks publishing for lack of memory or disk.
    pub async fn is_blocked(&self) -> bool {
        match self.inner.connections.publishing.live().await {
            Ok(live) => live.is_blocked(),
            Err(_) => false,
        }
    }
}
