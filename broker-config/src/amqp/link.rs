//! A part's link to the broker: two connections, what it declared, and all that runs on them.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use crate::{
    ids::PoolId,
    settings::BrokerSettings,
    topology::{self, Topology},
};

use super::{
    AmqpError, CALLS_MAX, CLOSE_TIMEOUT, Caller, Consumer, Depth, LinkState, Peeked, Publisher, QueueTarget, Subscription,
    board::{Board, Role},
    declare,
    line::Line,
    peek,
};

/// A link that mends itself until it is closed, or dropped with all that was made from it; cheap to clone.
#[derive(Clone)]
pub struct Link {
    inner: Arc<Inner>,
}

struct Inner {
    lines: Arc<Lines>,
    topology: Arc<Mutex<Topology>>,
    publisher: Publisher,
    /// Every consumer's task holds one end, so that closing can wait for their last acks.
    alive: Mutex<Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>>,
}

/// Both connections; they stand as long as a link, a publisher or a consumer needs them.
pub(super) struct Lines {
    pub(super) publishing: Arc<Line>,
    pub(super) consuming: Arc<Line>,
    board: Arc<Board>,
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.board.close();
        self.consuming.close();
        self.publishing.close();
    }
}

impl Link {
    /// Connects twice, each within [`super::CONNECT_TIMEOUT`].
    pub async fn open(settings: BrokerSettings) -> Result<Link, AmqpError> {
        let topology = Arc::new(Mutex::new(Topology::default()));
        let board = Arc::new(Board::new());
        let consuming = Line::open(Role::Consuming, &settings, topology.clone(), board.clone()).await?;
        let publishing = match Line::open(Role::Publishing, &settings, topology.clone(), board.clone()).await {
            Ok(line) => line,
            Err(error) => {
                consuming.close();
                return Err(error);
            }
        };
        let lines = Arc::new(Lines { publishing, consuming, board });
        let publisher = Publisher::new(lines.clone());
        let alive = Mutex::new(Some(mpsc::channel(1)));
        Ok(Link { inner: Arc::new(Inner { lines, topology, publisher, alive }) })
    }

    /// Declares exchanges, queues and bindings, and again after every mending.
    pub async fn declare(&self, topology: &Topology) -> Result<(), AmqpError> {
        for queue in &topology.queues {
            name_fits(&queue.name)?;
        }
        // A blocked connection would not even declare, so this is the consuming one's work.
        declare::declare(&self.inner.lines.consuming.live().await?, topology).await?;
        declare::remember(&mut self.inner.topology.lock().unwrap_or_else(PoisonError::into_inner), topology);
        Ok(())
    }

    /// Deletes both queues of a pool, whatever they hold.
    pub async fn undeclare_pool(&self, pool: &PoolId) -> Result<(), AmqpError> {
        let names = [topology::pool_queue(pool), topology::wide_queue(pool)];
        self.inner.topology.lock().unwrap_or_else(PoisonError::into_inner).queues.retain(|queue| !names.contains(&queue.name));
        let live = self.inner.lines.consuming.live().await?;
        for name in names {
            declare::delete(&live, &name).await?;
        }
        Ok(())
    }

    /// What waits in a queue and who consumes it; nothing when there is no such queue.
    pub async fn depth(&self, queue: &str) -> Result<Option<Depth>, AmqpError> {
        name_fits(queue)?;
        declare::depth(&self.inner.lines.consuming.live().await?, queue).await
    }

    /// Empties a queue and says how many messages that were.
    pub async fn purge(&self, queue: &str) -> Result<u32, AmqpError> {
        name_fits(queue)?;
        declare::purge(&self.inner.lines.consuming.live().await?, queue).await
    }

    /// The first messages of a queue, which stay there; nothing when there is no such queue.
    pub async fn peek(&self, queue: &str, count: usize) -> Result<Option<Vec<Peeked>>, AmqpError> {
        name_fits(queue)?;
        peek::peek(&self.inner.lines.consuming.live().await?, queue, count).await
    }

    /// Publishes on this link.
    pub fn publisher(&self) -> Publisher {
        self.inner.publisher.clone()
    }

    /// Consumes; an error when the first subscription fails, for instance because there is no such queue.
    pub async fn subscribe(&self, subscription: Subscription) -> Result<Consumer, AmqpError> {
        let alive = {
            let alive = self.inner.alive.lock().unwrap_or_else(PoisonError::into_inner);
            alive.as_ref().map(|(sender, _)| sender.clone()).ok_or(AmqpError::Closed)?
        };
        if let QueueTarget::Named(name) = &subscription.queue {
            name_fits(name)?;
        }
        Consumer::start(self.inner.lines.clone(), subscription, alive).await
    }

    /// Asks and is answered over a private queue.
    pub async fn caller(&self) -> Result<Caller, AmqpError> {
        let answers = self.subscribe(Subscription::private(vec![], CALLS_MAX)).await?;
        Ok(Caller::start(self.publisher(), answers))
    }

    /// The link's state, for whoever watches.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.inner.lines.board.watch()
    }

    /// Writes the last acks and closes both connections.
    pub async fn close(&self) {
        let Some((sender, mut receiver)) = self.inner.alive.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        drop(sender);
        self.inner.lines.board.close();
        self.inner.lines.consuming.finish();
        if timeout(CLOSE_TIMEOUT * 2, receiver.recv()).await.is_err() {
            tracing::warn!("a consumer did not end in time");
        }
        self.inner.lines.consuming.close();
        self.inner.lines.publishing.close();
        let both = async {
            self.inner.lines.consuming.closed().await;
            self.inner.lines.publishing.closed().await;
        };
        if timeout(CLOSE_TIMEOUT * 2, both).await.is_err() {
            tracing::warn!("a connection did not close in time");
        }
    }
}

fn name_fits(queue: &str) -> Result<(), AmqpError> {
    match queue.len() {
        0..=255 => Ok(()),
        length => Err(AmqpError::TooLong { what: "queue name", length }),
    }
}
