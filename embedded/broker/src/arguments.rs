//! Arguments of queues, exchanges and consumers, read once into types. What is not known is refused, never ignored.

use amq_protocol::types::{AMQPValue, FieldTable};

use crate::{
    content::EXPIRATION_MAX_MS,
    exchange::integer,
    refusal::{Outcome, Refusal},
};

/// Highest `x-max-priority`.
const PRIORITY_MAX: i64 = 255;

/// What a queue does with a message it has no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Overflow {
    #[default]
    DropHead,
    RejectPublish,
    /// As `RejectPublish`, and the refused message is dead-lettered.
    RejectPublishDlx,
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
    pub priority_max: u8,
    pub delivery_limit: Option<u32>,
    pub is_single_active: bool,
    pub is_quorum: bool,
}

impl QueueArguments {
    pub fn parse(table: &FieldTable) -> Outcome<QueueArguments> {
        let mut parsed = QueueArguments::default();
        let mut has_overflow_dlx = false;
        for (name, value) in table {
            let name = name.as_str();
            match name {
                "x-message-ttl" => {
                    parsed.message_ttl_ms = Some(number(name, value, 0, EXPIRATION_MAX_MS as i64)?);
                }
                "x-expires" => {
                    parsed.expires_ms = Some(number(name, value, 1, EXPIRATION_MAX_MS as i64)?);
                }
                "x-max-length" => parsed.length_max = Some(number(name, value, 0, i64::MAX)?),
                "x-max-length-bytes" => parsed.bytes_max = Some(number(name, value, 0, i64::MAX)?),
                "x-overflow" => {
                    parsed.overflow = match text(name, value)?.as_str() {
                        "drop-head" => Overflow::DropHead,
                        "reject-publish" => Overflow::RejectPublish,
                        "reject-publish-dlx" => {
                            has_overflow_dlx = true;
                            Overflow::RejectPublishDlx
                        }
                        other => return Err(invalid(name, other)),
                    };
                }
                "x-dead-letter-exchange" => {
                    parsed.dead_letter_exchange = Some(short_text(name, value)?);
                }
                "x-dead-letter-routing-key" => {
                    parsed.dead_letter_key = Some(short_text(name, value)?);
                }
                "x-max-priority" => {
                    parsed.priority_max = number(name, value, 0, PRIORITY_MAX)? as u8;
                }
                "x-delivery-limit" => {
                    parsed.delivery_limit = Some(number(name, value, 0, i64::from(u32::MAX))? as u32);
                }
                "x-single-active-consumer" => parsed.is_single_active = boolean(name, value)?,
                "x-queue-type" => match text(name, value)?.as_str() {
                    "classic" => {}
                    "quorum" => parsed.is_quorum = true,
                    other => return Err(invalid(name, other)),
                },
                "x-queue-mode" => match text(name, value)?.as_str() {
                    "default" | "lazy" => {}
                    other => return Err(invalid(name, other)),
                },
                "x-queue-version" => drop(number(name, value, 1, 2)?),
                _ => refuse_unknown(name)?,
            }
        }
        if parsed.dead_letter_key.is_some() && parsed.dead_letter_exchange.is_none() {
            return Err(Refusal::precondition_failed("invalid arg 'x-dead-letter-routing-key': there is no dead letter exchange"));
        }
        if parsed.is_quorum && (parsed.priority_max > 0 || has_overflow_dlx) {
            return Err(Refusal::precondition_failed(
                "invalid arg for queue type quorum: x-max-priority and reject-publish-dlx are for classic queues",
            ));
        }
        Ok(parsed)
    }

    /// Whether deliveries tell and remember how often a message came back.
    pub fn counts_deliveries(&self) -> bool {
        self.is_quorum || self.delivery_limit.is_some()
    }
}

/// `alternate-exchange` of an exchange's arguments.
pub(crate) fn alternate_exchange(table: &FieldTable) -> Outcome<Option<String>> {
    let mut alternate = None;
    for (name, value) in table {
        match name.as_str() {
            "alternate-exchange" => alternate = Some(short_text(name.as_str(), value)?),
            other => refuse_unknown(other)?,
        }
    }
    Ok(alternate)
}

/// `x-priority` of a consumer's arguments.
pub(crate) fn consumer_priority(table: &FieldTable) -> Outcome<i32> {
    let mut priority = 0;
    for (name, value) in table {
        match name.as_str() {
            "x-priority" => {
                priority =
                    integer(value).and_then(|number| i32::try_from(number).ok()).ok_or_else(|| invalid("x-priority", "not a number"))?;
            }
            other => refuse_unknown(other)?,
        }
    }
    Ok(priority)
}

fn refuse_unknown(name: &str) -> Outcome {
    if name.starts_with("x-") {
        return Err(Refusal::precondition_failed(format!("unsupported argument '{name}'")));
    }
    Ok(())
}

fn invalid(name: &str, value: impl std::fmt::Display) -> Refusal {
    Refusal::precondition_failed(format!("invalid arg '{name}': {value}"))
}

fn number(name: &str, value: &AMQPValue, least: i64, most: i64) -> Outcome<u64> {
    match integer(value) {
        Some(number) if (least..=most).contains(&number) => Ok(number as u64),
        Some(number) => Err(invalid(name, number)),
        None => Err(invalid(name, "not a number")),
    }
}

fn text(name: &str, value: &AMQPValue) -> Outcome<String> {
    match value {
        AMQPValue::LongString(text) => Ok(text.to_string()),
        _ => Err(invalid(name, "not a string")),
    }
}

/// A text that must fit a short string, as names of exchanges and routing keys do.
fn short_text(name: &str, value: &AMQPValue) -> Outcome<String> {
    text(name, value).and_then(|text| if text.len() > 255 { Err(invalid(name, "longer than 255 bytes")) } else { Ok(text) })
}

fn boolean(name: &str, value: &AMQPValue) -> Outcome<bool> {
    match value {
        AMQPValue::Boolean(value) => Ok(*value),
        _ => Err(invalid(name, "not a boolean")),
    }
}
