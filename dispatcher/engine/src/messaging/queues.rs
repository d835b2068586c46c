//! Questions to the broker about its queues, for people: how full, what waits, and emptying one.

use clients::amqp::{AmqpError, Depth, Link, Peeked};
use model::refusal::{Code, Refusal};

/// The queues behind the pools.
#[derive(Clone)]
pub struct Queues {
    link: Link,
}

impl Queues {
    /// Asks over this link.
    pub fn new(link: Link) -> Queues {
        Queues { link }
    }

    /// How full a queue is; nothing while the broker has no such queue.
    pub async fn depth(&self, queue: &str) -> Result<Option<Depth>, Refusal> {
        self.link.depth(queue).await.map_err(failed)
    }

    /// Empties a queue and says how many messages that were.
    pub async fn purge(&self, queue: &str) -> Result<u32, Refusal> {
        self.link.purge(queue).await.map_err(failed)
    }

    /// The first messages of a queue, which stay there.
    pub async fn peek(&self, queue: &str, count: usize) -> Result<Option<Vec<Peeked>>, Refusal> {
        self.link.peek(queue, count).await.map_err(failed)
    }
}

fn failed(error: AmqpError) -> Refusal {
    tracing::warn!(%error, "the broker did not answer a question about a queue");
    Refusal::new(Code::ServerBusy, "The broker did not answer as expected.")
        .with("Reason", error)
        .hint("Try again; /piecework/health names what is wrong.")
}
