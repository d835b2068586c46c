//! Arguments of queues, exchanges and consumers, parsed once into types. Every argument of RabbitMQ 3.10 to 4.x is accepted;
//! `docs/embedded-broker.md` lists their effects here. Arguments unknown to RabbitMQ are refused, never ignored.

mod reader;

use std::time::Duration;

use amq_protocol::types::{AMQPValue, FieldTable};

use crate::{
    arguments::reader::Reader,
    refusal::{Outcome, Refusal},
};

/// Arguments of classic queues, in the order in which RabbitMQ compares them.
const CLASSIC: [&str; 16] = [
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-version",
    "x-single-active-consumer",
    "x-queue-type",
    "x-queue-master-locator",
    "x-queue-leader-locator",
    "x-consumer-timeout",
    "x-quorum-target-group-size",
];

/// Arguments of quorum queues, in the order in which RabbitMQ compares them.
const QUORUM: [&str; 21] = [
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-in-memory-length",
    "x-max-in-memory-bytes",
    "x-overflow",
    "x-single-active-consumer",
    "x-queue-type",
    "x-quorum-initial-group-size",
    "x-delivery-limit",
    "x-message-ttl",
    "x-queue-leader-locator",
    "x-quorum-target-group-size",
    "x-consumer-timeout",
    "x-consumer-disconnected-timeout",
    "x-delayed-retry-type",
    "x-delayed-retry-min",
    "x-delayed-retry-max",
];

/// Arguments of streams, which RabbitMQ refuses on other queues.
const STREAM: [&str; 4] = ["x-max-age", "x-stream-max-segment-size-bytes", "x-stream-filter-size-bytes", "x-initial-cluster-size"];

/// Arguments of consumers.
const CONSUMER: [&str; 6] =
    ["x-priority", "x-cancel-on-ha-failover", "x-consumer-timeout", "x-credit", "x-stream-filter", "x-stream-match-unfiltered"];

/// Names of the arguments that a queue of this type has.
pub(crate) fn queue_argument_names(is_quorum: bool) -> impl Iterator<Item = &'static str> {
    if is_quorum { QUORUM.iter() } else { CLASSIC.iter() }.copied()
}

/// The handling of a message that a full queue cannot store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Overflow {
    #[default]
    DropHead,
    RejectPublish,
    /// As `RejectPublish`, and the refused message is dead-lettered.
    RejectPublishDlx,
}

/// The kinds of returned messages that wait before they are delivered again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetryKind {
    All,
    /// Rejected, or returned because the channel was closed.
    Failed,
    /// Returned by `basic.nack` or `basic.recover`.
    Returned,
}

/// The pause before a returned message is delivered again: `min` times the number of returns, up to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DelayedRetry {
    pub kind: RetryKind,
    pub min_ms: u64,
    pub max_ms: u64,
}

/// A queue's arguments.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueueArguments {
    pub message_ttl_ms: Option<u64>,
    pub expires_ms: Option<u64>,
    pub length_max: Option<u64>,
    pub bytes_max: Option<u64>,
    pub overflow: Overflow,
    pub dead_letter_exchange: Option<String>,
    pub dead_letter_key: Option<String>,
    /// Dead letters are kept until a queue accepts them.
    pub keeps_dead_letters: bool,
    pub priority_max: u8,
    pub delivery_limit: Option<u32>,
    pub delayed_retry: Option<DelayedRetry>,
    pub consumer_timeout: Option<Duration>,
    pub is_single_active: bool,
    pub is_quorum: bool,
}

impl QueueArguments {
    /// The arguments of a new queue.
    pub fn parse(queue: &str, table: &FieldTable) -> Outcome<QueueArguments> {
        let parsed = QueueArguments::read(queue, table)?;
        let (own, foreign, kind) = match parsed.is_quorum {
            true => (&QUORUM[..], &CLASSIC[..], "rabbit_quorum_queue"),
            false => (&CLASSIC[..], &QUORUM[..], "rabbit_classic_queue"),
        };
        match names(table).find(|name| !own.contains(name)) {
            None => Ok(parsed),
            Some(name) if foreign.contains(&name) || STREAM.contains(&name) => {
                Err(Refusal::precondition_failed(format!("invalid arg '{name}' for queue '{queue}' in vhost '/' of queue type {kind}")))
            }
            Some(name) => Err(unknown(name)),
        }
    }

    /// The arguments of a stored queue; those that its type would not get today still count.
    pub fn read(queue: &str, table: &FieldTable) -> Outcome<QueueArguments> {
        let reader = Reader { queue, table };
        let queue_type = reader.one_of("x-queue-type", &["classic", "quorum"], |word| format!("\"unsupported queue type '{word}'\""))?;
        let is_quorum = queue_type == Some("quorum");
        reader.check_without_effect()?;
        let overflow =
            reader.one_of("x-overflow", &["drop-head", "reject-publish", "reject-publish-dlx"], |_| "invalid_overflow".into())?;
        let overflow = match overflow {
            Some("reject-publish") => Overflow::RejectPublish,
            // RabbitMQ's quorum queues accept the name only and drop from the head.
            Some("reject-publish-dlx") if !is_quorum => Overflow::RejectPublishDlx,
            _ => Overflow::DropHead,
        };
        let strategy = reader.one_of("x-dead-letter-strategy", &["at-most-once", "at-least-once"], |_| "invalid_dlx_strategy".into())?;
        let parsed = QueueArguments {
            message_ttl_ms: reader.milliseconds("x-message-ttl", 0)?,
            expires_ms: reader.milliseconds("x-expires", 1)?,
            length_max: reader.count("x-max-length")?,
            bytes_max: reader.count("x-max-length-bytes")?,
            overflow,
            dead_letter_exchange: reader.dead_letter_exchange()?,
            dead_letter_key: reader.short_text("x-dead-letter-routing-key")?,
            // As in RabbitMQ, it needs publishers that can be refused.
            keeps_dead_letters: is_quorum && strategy == Some("at-least-once") && overflow == Overflow::RejectPublish,
            priority_max: reader.priority()?,
            // A negative limit means no limit.
            delivery_limit: reader.integer("x-delivery-limit")?.and_then(|limit| u32::try_from(limit).ok()),
            delayed_retry: reader.delayed_retry()?,
            consumer_timeout: reader.milliseconds("x-consumer-timeout", 1)?.map(Duration::from_millis),
            is_single_active: reader.boolean("x-single-active-consumer")?.unwrap_or(false),
            is_quorum,
        };
        if parsed.dead_letter_key.is_some() && parsed.dead_letter_exchange.is_none() {
            return Err(reader.invalid("x-dead-letter-routing-key", "routing_key_but_no_dlx_defined"));
        }
        Ok(parsed)
    }

    /// True when deliveries carry the number of earlier returns.
    pub fn counts_deliveries(&self) -> bool {
        self.is_quorum || self.delivery_limit.is_some()
    }
}

/// A consumer's arguments.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ConsumerArguments {
    pub priority: i32,
    /// Overrides the queue's timeout.
    pub timeout: Option<Duration>,
}

impl ConsumerArguments {
    pub fn parse(queue: &str, is_quorum: bool, table: &FieldTable) -> Outcome<ConsumerArguments> {
        let reader = Reader { queue, table };
        match names(table).find(|name| !CONSUMER.contains(name)) {
            None => {}
            Some(name @ "x-stream-offset") => {
                let kind = if is_quorum { "rabbit_quorum_queue" } else { "rabbit_classic_queue" };
                return Err(Refusal::precondition_failed(format!(
                    "invalid arg '{name}' for queue '{queue}' in vhost '/' of queue type {kind}"
                )));
            }
            Some(name) => return Err(unknown(name)),
        }
        reader.boolean("x-cancel-on-ha-failover")?;
        let priority = reader.integer("x-priority")?.unwrap_or(0);
        Ok(ConsumerArguments {
            priority: priority.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32,
            timeout: reader.milliseconds("x-consumer-timeout", 1)?.map(Duration::from_millis),
        })
    }
}

/// `alternate-exchange` of an exchange's arguments.
pub(crate) fn alternate_exchange(table: &FieldTable) -> Outcome<Option<String>> {
    if let Some(name) = names(table).next() {
        return Err(unknown(name));
    }
    match table.inner().get("alternate-exchange") {
        None => Ok(None),
        Some(AMQPValue::LongString(text)) if text.as_bytes().len() <= 255 => Ok(Some(text.to_string())),
        Some(_) => Err(Refusal::precondition_failed("invalid arg 'alternate-exchange': not the name of an exchange")),
    }
}

/// Argument names of a table, checked against the known ones.
fn names(table: &FieldTable) -> impl Iterator<Item = &str> {
    table.inner().keys().map(|name| name.as_str()).filter(|name| name.starts_with("x-"))
}

fn unknown(name: &str) -> Refusal {
    Refusal::precondition_failed(format!("unsupported argument '{name}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_argument_stands_in_the_documentation() {
        let page = include_str!("../../../../docs/embedded-broker.md");
        for name in CLASSIC.iter().chain(&QUORUM).chain(&STREAM).chain(&CONSUMER).chain(&["x-stream-offset"]) {
            assert!(page.lines().any(|line| line.starts_with("| `") && line.contains(&format!("`{name}`"))), "{name}");
        }
    }
}
