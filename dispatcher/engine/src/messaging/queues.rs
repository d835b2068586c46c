//! Inspects the broker's queues for the API: depth, peek and purge.

use broker_config::topology;
use clients::amqp::{AmqpError, Depth, Link, Peeked};
use model::{
    refusal::{Code, Refusal},
    trigger::{Source, TriggerRow},
};

/// Client for the queues behind the pools.
#[derive(Clone)]
pub struct Queues {
    link: Link,
}

impl Queues {
    pub fn new(link: Link) -> Queues {
        Queues { link }
    }

    /// Depth of a queue; `None` when the broker has no such queue.
    pub async fn depth(&self, queue: &str) -> Result<Option<Depth>, Refusal> {
        self.link.depth(queue).await.map_err(failed)
    }

    /// Whether the broker has an exchange of this name.
    pub async fn has_exchange(&self, name: &str) -> Result<bool, Refusal> {
        self.link.has_exchange(name).await.map_err(failed)
    }

    /// Declares a trigger's queue, and binds it to where its events come from. Schedules and webhooks
    /// need none.
    pub async fn follow(&self, trigger: &TriggerRow) -> Result<(), AmqpError> {
        let (exchange, pattern) = match &trigger.spec.source {
            Source::Bucket(bucket) => (&bucket.exchange, &bucket.pattern),
            Source::Exchange(source) => (&source.name, &source.pattern),
            Source::Schedule(_) | Source::Webhook(_) => return Ok(()),
        };
        self.link.declare(&topology::trigger(trigger.queue())).await?;
        self.link.bind(&trigger.queue(), exchange, pattern).await
    }

    /// Empties a queue and returns the number of removed messages.
    pub async fn purge(&self, queue: &str) -> Result<u32, Refusal> {
        self.link.purge(queue).await.map_err(failed)
    }

    /// Returns the first messages of a queue without removing them.
    pub async fn peek(&self, queue: &str, count: usize) -> Result<Option<Vec<Peeked>>, Refusal> {
        self.link.peek(queue, count).await.map_err(failed)
    }
}

fn failed(error: AmqpError) -> Refusal {
    tracing::warn!(%error, "the broker failed a request about a queue; the client is asked to try again");
    Refusal::new(Code::ServerBusy, "The broker did not answer as expected.")
        .with("Reason", error)
        .hint("Try again; /piecework/health names what is wrong.")
}
