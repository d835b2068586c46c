//! Declares the topology at the broker, and asks the broker about queues.
//!
//! A refusal closes its channel, so every operation opens a channel of its own.

use broker_config::topology::{Argument, Exchange, ExchangeKind, Queue, Topology};
use lapin::{
    Channel, ExchangeKind as AmqpKind,
    options::{
        ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tokio::time::timeout;

use super::{
    error::AmqpError,
    limits::{CLOSE_TIMEOUT, OPERATION_TIMEOUT},
    live::Live,
};

/// The fill level of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Messages that wait for a consumer.
    pub ready: u32,
    pub consumers: u32,
}

/// The reply code of a missing queue or exchange.
pub(super) const NOT_FOUND: u16 = 404;

/// Waits for one operation at the broker, at most [`OPERATION_TIMEOUT`].
pub(super) async fn bounded<T>(what: &'static str, operation: impl Future<Output = lapin::Result<T>>) -> Result<T, AmqpError> {
    match timeout(OPERATION_TIMEOUT, operation).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(AmqpError::Timeout { what }),
    }
}

/// Declares the whole topology; the error names the first refusal.
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

/// Declares the topology again after reconnecting. A refusal is only logged: the connection is of use without that queue.
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
            tracing::error!(
                name,
                code,
                text,
                "the broker refused to declare this exchange or queue again after reconnecting; it is left as it is"
            );
            Ok(())
        }
        other => other,
    }
}

/// Adds to the topology that is declared again after reconnecting; a later entry replaces one of the same name.
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

/// Whether an exchange exists.
pub(super) async fn has_exchange(live: &Live, name: &str) -> Result<bool, AmqpError> {
    let channel = live.channel().await?;
    let options = ExchangeDeclareOptions { passive: true, durable: true, ..ExchangeDeclareOptions::default() };
    // The kind is not compared.
    let asked = channel.exchange_declare(name.into(), AmqpKind::Topic, options, FieldTable::default());
    match bounded("asking for an exchange", asked).await {
        Ok(()) => {
            release(channel).await;
            Ok(true)
        }
        Err(AmqpError::Refused { code: NOT_FOUND, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Binds a queue to one exchange.
pub(super) async fn bind_to(live: &Live, queue: &str, exchange: &str, key: &str) -> Result<(), AmqpError> {
    let channel = live.channel().await?;
    let bound = channel.queue_bind(queue.into(), exchange.into(), key.into(), QueueBindOptions::default(), FieldTable::default());
    bounded("binding a queue", bound).await?;
    release(channel).await;
    Ok(())
}

/// Deletes a queue with its messages.
pub(super) async fn delete(live: &Live, queue: &str) -> Result<(), AmqpError> {
    let channel = live.channel().await?;
    match bounded("deleting a queue", channel.queue_delete(queue.into(), QueueDeleteOptions::default())).await {
        Ok(_) => release(channel).await,
        Err(AmqpError::Refused { code: NOT_FOUND, .. }) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Deletes queues without consumers and exchanges without bindings; those in use stay.
pub(super) async fn delete_unused(live: &Live, topology: &Topology) -> Result<(), AmqpError> {
    for queue in &topology.queues {
        let channel = live.channel().await?;
        let options = QueueDeleteOptions { if_unused: true, ..QueueDeleteOptions::default() };
        let deleted = bounded("deleting a queue", channel.queue_delete(queue.name.as_str().into(), options)).await;
        settle(&queue.name, deleted.map(drop), channel).await?;
    }
    for exchange in &topology.exchanges {
        let channel = live.channel().await?;
        let options = ExchangeDeleteOptions { if_unused: true, ..ExchangeDeleteOptions::default() };
        let deleted = bounded("deleting an exchange", channel.exchange_delete(exchange.name.into(), options)).await;
        settle(exchange.name, deleted, channel).await?;
    }
    Ok(())
}

async fn settle(name: &str, deleted: Result<(), AmqpError>, channel: Channel) -> Result<(), AmqpError> {
    match deleted {
        Ok(()) => release(channel).await,
        Err(AmqpError::Refused { code, text }) => {
            tracing::debug!(name, code, text, "the queue or exchange is still in use or already gone; it is not deleted")
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Removes the ready messages of a queue and returns their number.
pub(super) async fn purge(live: &Live, queue: &str) -> Result<u32, AmqpError> {
    let channel = live.channel().await?;
    let purged = bounded("emptying a queue", channel.queue_purge(queue.into(), QueuePurgeOptions::default())).await?;
    release(channel).await;
    Ok(purged)
}

/// Closes a channel that is no longer needed.
pub(super) async fn release(channel: Channel) {
    match timeout(CLOSE_TIMEOUT, channel.close(200, "done".into())).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "closing a channel failed; the broker forgets it with its connection"),
        Err(_) => tracing::debug!("the broker did not confirm the close of a channel in time"),
    }
}

async fn declare_exchange(channel: &Channel, exchange: &Exchange) -> Result<(), AmqpError> {
    let kind = match exchange.kind {
        ExchangeKind::Direct => AmqpKind::Direct,
        ExchangeKind::Fanout => AmqpKind::Fanout,
        ExchangeKind::Topic => AmqpKind::Topic,
    };
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    if let Some(alternate) = exchange.alternate {
        arguments.insert("alternate-exchange".into(), AMQPValue::LongString(alternate.into()));
    }
    bounded("declaring an exchange", channel.exchange_declare(exchange.name.into(), kind, options, arguments)).await
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
