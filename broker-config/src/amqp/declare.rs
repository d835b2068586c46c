//! Writes the topology into the broker, and asks the broker about queues.
//!
//! A refusal closes its channel, so every question has a channel of its own.

use lapin::{
    Channel, ExchangeKind as AmqpKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::time::timeout;

use crate::topology::{Argument, Exchange, ExchangeKind, Queue, Topology};

use super::{AmqpError, CLOSE_TIMEOUT, OPERATION_TIMEOUT, line::Live};

/// What the broker says about a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Messages that wait for a consumer.
    pub ready: u32,
    /// Consumers it has.
    pub consumers: u32,
}

/// The reply code for what does not exist.
pub(super) const NOT_FOUND: u16 = 404;

/// Awaits one exchange with the broker, for a bounded time.
pub(super) async fn bounded<T>(what: &'static str, operation: impl Future<Output = lapin::Result<T>>) -> Result<T, AmqpError> {
    match timeout(OPERATION_TIMEOUT, operation).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(AmqpError::Timeout { what }),
    }
}

/// Declares all of it, or says what was refused first.
pub(super) async fn declare(live: &Live, topology: &Topology) -> Result<(), AmqpError> {
    let channel = live.channel().await?;
    for exchange in &topology.exchanges {
        declare_exchange(&channel, exchange).await?;
    }
    for queue in &topology.queues {
        declare_queue(&channel, queue).await?;
    }
    release(channel).await;
    Ok(())
}

/// Declares what can be declared; a refusal is logged, since what worked before must not keep a connection down.
pub(super) async fn declare_again(live: &Live, topology: &Topology) -> Result<(), AmqpError> {
    if topology.exchanges.is_empty() && topology.queues.is_empty() {
        return Ok(());
    }
    match declare(live, topology).await {
        Err(AmqpError::Refused { .. }) => {}
        other => return other,
    }
    for exchange in &topology.exchanges {
        let one = Topology { exchanges: vec![exchange.clone()], queues: vec![] };
        tolerate(exchange.name, declare(live, &one).await)?;
    }
    for queue in &topology.queues {
        let one = Topology { exchanges: vec![], queues: vec![queue.clone()] };
        tolerate(&queue.name, declare(live, &one).await)?;
    }
    Ok(())
}

fn tolerate(name: &str, result: Result<(), AmqpError>) -> Result<(), AmqpError> {
    match result {
        Err(AmqpError::Refused { code, text }) => {
            tracing::error!(name, code, text, "the broker refused to declare this again");
            Ok(())
        }
        other => other,
    }
}

/// Remembers what is declared, one entry for each name.
pub(super) fn remember(topology: &mut Topology, more: &Topology) {
    for exchange in &more.exchanges {
        topology.exchanges.retain(|known| known.name != exchange.name);
        topology.exchanges.push(exchange.clone());
    }
    for queue in &more.queues {
        topology.queues.retain(|known| known.name != queue.name);
        topology.queues.push(queue.clone());
    }
}

/// Asks for a queue's depth; nothing when there is no such queue.
pub(super) async fn depth(live: &Live, queue: &str) -> Result<Option<Depth>, AmqpError> {
    let channel = live.channel().await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    match bounded("asking for a queue's depth", channel.queue_declare(queue.into(), options, FieldTable::default())).await {
        Ok(found) => {
            let depth = Depth { ready: found.message_count(), consumers: found.consumer_count() };
            release(channel).await;
            Ok(Some(depth))
        }
        Err(AmqpError::Refused { code: NOT_FOUND, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Deletes a queue, whatever it holds.
pub(super) async fn delete(live: &Live, queue: &str) -> Result<(), AmqpError> {
    let channel = live.channel().await?;
    match bounded("deleting a queue", channel.queue_delete(queue.into(), QueueDeleteOptions::default())).await {
        Ok(_) => release(channel).await,
        Err(AmqpError::Refused { code: NOT_FOUND, .. }) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Empties a queue of what waits in it and says how much that was.
pub(super) async fn purge(live: &Live, queue: &str) -> Result<u32, AmqpError> {
    let channel = live.channel().await?;
    let purged = bounded("emptying a queue", channel.queue_purge(queue.into(), QueuePurgeOptions::default())).await?;
    release(channel).await;
    Ok(purged)
}

/// Closes a channel that did its work.
pub(super) async fn release(channel: Channel) {
    match timeout(CLOSE_TIMEOUT, channel.close(200, "done".into())).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "channel closed uncleanly"),
        Err(_) => tracing::debug!("channel did not close in time"),
    }
}

async fn declare_exchange(channel: &Channel, exchange: &Exchange) -> Result<(), AmqpError> {
    let kind = match exchange.kind {
        ExchangeKind::Direct => AmqpKind::Direct,
        ExchangeKind::Fanout => AmqpKind::Fanout,
        ExchangeKind::Topic => AmqpKind::Topic,
    };
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    bounded("declaring an exchange", channel.exchange_declare(exchange.name.into(), kind, options, FieldTable::default())).await
}

async fn declare_queue(channel: &Channel, queue: &Queue) -> Result<(), AmqpError> {
    let mut arguments = FieldTable::default();
    for (name, value) in &queue.arguments {
        let value = match value {
            Argument::Number(number) => AMQPValue::LongLongInt(i64::from(*number)),
            Argument::Text(text) => AMQPValue::LongString(text.as_str().into()),
        };
        arguments.insert((*name).into(), value);
    }
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    bounded("declaring a queue", channel.queue_declare(queue.name.as_str().into(), options, arguments)).await?;
    bind(channel, &queue.name, &queue.bindings).await
}

/// Binds a queue to exchanges.
pub(super) async fn bind(channel: &Channel, queue: &str, bindings: &[(&'static str, String)]) -> Result<(), AmqpError> {
    for (exchange, key) in bindings {
        let bound =
            channel.queue_bind(queue.into(), (*exchange).into(), key.as_str().into(), QueueBindOptions::default(), FieldTable::default());
        bounded("binding a queue", bound).await?;
    }
    Ok(())
}
