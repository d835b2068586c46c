//! A part's link to the broker: two connections, the topology it declared, its publisher and its consumers.

use std::sync::{Arc, Mutex, PoisonError};

use broker_config::{
    settings::BrokerSettings,
    topology::{self, QueueKind, Topology},
};
use contract::{body::Format, ids::PoolId};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::{
    browser::Browser,
    caller::Caller,
    connection::Connection,
    connections::Connections,
    consumer::Consumer,
    declare::{self, Depth},
    error::AmqpError,
    limits::{CALLS_MAX, CLOSE_TIMEOUT, FRAME_BYTES_MAX, FRAME_BYTES_MAX_OF_ANY},
    outgoing::Outgoing,
    peek::{self, Peeked},
    publisher::Publisher,
    status::{LinkState, Role, Status},
    subscription::{QueueTarget, Subscription},
};

/// A routing key of the default exchange for which no queue exists.
const PROBE: &str = "piecework.probe";

/// Reconnects until it is closed, or dropped together with its publishers and consumers; cheap to clone.
#[derive(Clone)]
pub struct Link {
    inner: Arc<Inner>,
}

struct Inner {
    connections: Arc<Connections>,
    topology: Arc<Mutex<Topology>>,
    publisher: Publisher,
    /// Every consumer task holds a sender, so that closing can wait for their last acks.
    alive: Mutex<Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>>,
}

impl Link {
    /// Opens both connections, each within [`super::CONNECT_TIMEOUT`].
    pub async fn open(settings: BrokerSettings) -> Result<Link, AmqpError> {
        Link::open_both(&settings, FRAME_BYTES_MAX).await
    }

    /// Opens both connections of a part that takes messages of any publisher, whose headers may be as large as brokers let them be.
    pub async fn open_to_any(settings: BrokerSettings) -> Result<Link, AmqpError> {
        Link::open_both(&settings, FRAME_BYTES_MAX_OF_ANY).await
    }

    async fn open_both(settings: &BrokerSettings, frame_bytes: u32) -> Result<Link, AmqpError> {
        let topology = Arc::new(Mutex::new(Topology::default()));
        let status = Arc::new(Status::new(&settings.name));
        let consuming = Connection::open(Role::Consuming, settings, topology.clone(), status.clone(), frame_bytes).await?;
        let publishing = match Connection::open(Role::Publishing, settings, topology.clone(), status.clone(), frame_bytes).await {
            Ok(connection) => connection,
            Err(error) => {
                consuming.close();
                return Err(error);
            }
        };
        Ok(Link::over(Connections { publishing, consuming, status }, topology))
    }

    /// Opens one connection for publishing and consuming, for a part with little traffic.
    pub async fn open_single(settings: BrokerSettings) -> Result<Link, AmqpError> {
        let topology = Arc::new(Mutex::new(Topology::default()));
        let status = Arc::new(Status::new(&settings.name));
        let connection = Connection::open(Role::Publishing, &settings, topology.clone(), status.clone(), FRAME_BYTES_MAX).await?;
        Ok(Link::over(Connections { publishing: connection.clone(), consuming: connection, status }, topology))
    }

    fn over(connections: Connections, topology: Arc<Mutex<Topology>>) -> Link {
        let connections = Arc::new(connections);
        let publisher = Publisher::new(connections.clone());
        let alive = Mutex::new(Some(mpsc::channel(1)));
        Link { inner: Arc::new(Inner { connections, topology, publisher, alive }) }
    }

    /// Declares exchanges, queues and bindings, and declares them again after each reconnect.
    pub async fn declare(&self, topology: &Topology) -> Result<(), AmqpError> {
        for queue in &topology.queues {
            name_fits(&queue.name)?;
        }
        // The broker blocks declarations, too, on a publishing connection, so the consuming one declares.
        declare::declare(&self.inner.connections.consuming.live().await?, topology).await?;
        declare::remember(&mut self.inner.topology.lock().unwrap_or_else(PoisonError::into_inner), topology);
        Ok(())
    }

    /// Publishes a message that reaches no queue. RabbitMQ reports an alarm only to connections that publish, and only when
    /// they do, so a part that mostly consumes learns in this way that the broker blocks publishing: see [`Link::state`].
    pub async fn probe(&self) -> Result<(), AmqpError> {
        if matches!(*self.state().borrow(), LinkState::Blocked { .. }) {
            return Err(AmqpError::Blocked);
        }
        self.inner.publisher.publish(Outgoing::raw("", PROBE, vec![], Format::Json).transient().optional()).await
    }

    /// Deletes all queues of a pool with their messages.
    pub async fn undeclare_pool(&self, pool: &PoolId) -> Result<(), AmqpError> {
        let names: Vec<String> = topology::pool(pool, QueueKind::Classic).queues.into_iter().map(|queue| queue.name).collect();
        self.inner.topology.lock().unwrap_or_else(PoisonError::into_inner).queues.retain(|queue| !names.contains(&queue.name));
        let live = self.inner.connections.consuming.live().await?;
        for name in names {
            declare::delete(&live, &name).await?;
        }
        Ok(())
    }

    /// Deletes a queue with its messages.
    pub async fn delete_queue(&self, queue: &str) -> Result<(), AmqpError> {
        name_fits(queue)?;
        self.inner.topology.lock().unwrap_or_else(PoisonError::into_inner).queues.retain(|known| known.name != queue);
        declare::delete(&self.inner.connections.consuming.live().await?, queue).await
    }

    /// Deletes queues, with their messages, and exchanges; those in use stay.
    pub async fn undeclare_unused(&self, topology: &Topology) -> Result<(), AmqpError> {
        {
            let mut remembered = self.inner.topology.lock().unwrap_or_else(PoisonError::into_inner);
            remembered.queues.retain(|queue| !topology.queues.iter().any(|gone| gone.name == queue.name));
            remembered.exchanges.retain(|exchange| !topology.exchanges.iter().any(|gone| gone.name == exchange.name));
        }
        declare::delete_unused(&self.inner.connections.consuming.live().await?, topology).await
    }

    /// The fill level of a queue; nothing when the queue does not exist.
    pub async fn depth(&self, queue: &str) -> Result<Option<Depth>, AmqpError> {
        name_fits(queue)?;
        declare::depth(&self.inner.connections.consuming.live().await?, queue).await
    }

    /// Whether an exchange exists.
    pub async fn has_exchange(&self, name: &str) -> Result<bool, AmqpError> {
        name_fits(name)?;
        declare::has_exchange(&self.inner.connections.consuming.live().await?, name).await
    }

    /// Binds a queue to an exchange of whatever name. Unlike what [`Link::declare`] binds, it is not bound again after a
    /// reconnect; a durable queue keeps its bindings as long as the broker keeps its data.
    pub async fn bind(&self, queue: &str, exchange: &str, key: &str) -> Result<(), AmqpError> {
        name_fits(exchange)?;
        declare::bind_to(&self.inner.connections.consuming.live().await?, queue, exchange, key).await
    }

    /// Removes the ready messages of a queue and returns their number.
    pub async fn purge(&self, queue: &str) -> Result<u32, AmqpError> {
        name_fits(queue)?;
        declare::purge(&self.inner.connections.consuming.live().await?, queue).await
    }

    /// Copies of the first messages of a queue, which stay there; nothing when the queue does not exist.
    pub async fn peek(&self, queue: &str, count: usize) -> Result<Option<Vec<Peeked>>, AmqpError> {
        name_fits(queue)?;
        peek::peek(&self.inner.connections.consuming.live().await?, queue, count).await
    }

    /// Reads a queue from its front; what the reader does not remove goes back to its place.
    pub async fn browse(&self, queue: &str) -> Result<Browser, AmqpError> {
        name_fits(queue)?;
        Browser::open(&self.inner.connections.consuming.live().await?, queue).await
    }

    /// A publisher on this link.
    pub fn publisher(&self) -> Publisher {
        self.inner.publisher.clone()
    }

    /// Starts to consume; an error when the first subscription fails, for instance because the queue does not exist.
    pub async fn subscribe(&self, subscription: Subscription) -> Result<Consumer, AmqpError> {
        let alive = {
            let alive = self.inner.alive.lock().unwrap_or_else(PoisonError::into_inner);
            alive.as_ref().map(|(sender, _)| sender.clone()).ok_or(AmqpError::Closed)?
        };
        if let QueueTarget::Named(name) = &subscription.queue {
            name_fits(name)?;
        }
        Consumer::start(self.inner.connections.clone(), subscription, alive).await
    }

    /// Makes a caller with a private queue for replies.
    pub async fn caller(&self) -> Result<Caller, AmqpError> {
        let answers = self.subscribe(Subscription::private(vec![], CALLS_MAX)).await?;
        Ok(Caller::start(self.publisher(), answers))
    }

    /// Watches the link's state.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.inner.connections.status.watch()
    }

    /// Writes the last acks and closes both connections.
    pub async fn close(&self) {
        let Some((sender, mut receiver)) = self.inner.alive.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        drop(sender);
        self.inner.connections.status.close();
        self.inner.connections.consuming.finish();
        if timeout(CLOSE_TIMEOUT * 2, receiver.recv()).await.is_err() {
            tracing::warn!("a consumer did not write its last acks in time; the broker delivers those messages again");
        }
        self.inner.connections.consuming.close();
        self.inner.connections.publishing.close();
        let both = async {
            self.inner.connections.consuming.closed().await;
            self.inner.connections.publishing.closed().await;
        };
        if timeout(CLOSE_TIMEOUT * 2, both).await.is_err() {
            tracing::warn!("a broker connection did not close in time; it is dropped");
        }
    }
}

fn name_fits(queue: &str) -> Result<(), AmqpError> {
    match queue.len() {
        0..=255 => Ok(()),
        length => Err(AmqpError::TooLong { what: "queue name", length }),
    }
}
