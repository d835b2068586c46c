//! Dead letters: why a message is one, where it came from, and the message as it was before.
//!
//! Two kinds lie in the queue: copies that a part of Piecework published with its reason (see [`refused`](super::refused)),
//! and messages that the broker itself moved there, which `x-death` tells. Headers of the latter are their publisher's own
//! and prove nothing.

use broker_config::topology;
use contract::{function::header, time::Timestamp};
use lapin::types::{AMQPValue, FieldTable};

use super::{
    outgoing::Outgoing,
    refused::{MESSAGE, ORIGINAL, REASON, TIME},
    subscription::Delivery,
};

/// What the way to the dead letters added to a message's headers.
const ADDED: [&str; 6] = [REASON, MESSAGE, TIME, ORIGINAL, header::POOL, header::FAILED];
/// Found in the names of queues in which failed invocations wait.
const RETRY: &str = ".retry.";

/// Where a message came from, and why it is a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Burial {
    /// The code of the error, or the broker's own word, such as `expired`; empty when nobody said why.
    pub reason: String,
    /// The text of the error; empty when the broker itself moved the message.
    pub message: String,
    pub at: Option<Timestamp>,
    /// The exchange that it was published to first.
    pub exchange: String,
    pub routing_key: String,
    /// The queue for replies.
    pub reply_to: Option<String>,
    /// Time to live in milliseconds, as text.
    pub expiration: Option<String>,
    pub priority: Option<u8>,
}

fn as_text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

fn text(table: &FieldTable, name: &str) -> Option<String> {
    as_text(table.inner().get(name)?)
}

fn first_text(table: &FieldTable, name: &str) -> Option<String> {
    match table.inner().get(name)? {
        AMQPValue::FieldArray(items) => as_text(items.as_slice().first()?),
        _ => None,
    }
}

/// How the broker moved the message here; nothing for a copy, which may still tell its way through a retry queue.
fn death(headers: &FieldTable) -> Option<&FieldTable> {
    let AMQPValue::FieldArray(deaths) = headers.inner().get("x-death")? else { return None };
    let AMQPValue::FieldTable(latest) = deaths.as_slice().first()? else { return None };
    let is_of_retry = text(latest, "queue").is_some_and(|queue| queue.contains(RETRY));
    (!is_of_retry).then_some(latest)
}

impl Delivery {
    /// Why a message from the queue of dead letters lies there.
    pub fn burial(&self) -> Burial {
        if let Some(death) = death(&self.headers) {
            let at = match death.inner().get("time") {
                Some(AMQPValue::Timestamp(seconds)) => i64::try_from(*seconds).ok().map(|seconds| Timestamp(seconds.saturating_mul(1_000))),
                _ => None,
            };
            let reason = text(death, "reason").unwrap_or_default();
            // A message that expired would expire again where nothing takes it at once.
            let expiration = text(death, "original-expiration").filter(|_| reason != "expired");
            return Burial {
                reason,
                message: String::new(),
                at,
                exchange: text(death, "exchange").unwrap_or_default(),
                routing_key: first_text(death, "routing-keys").unwrap_or_default(),
                reply_to: self.reply_to.clone(),
                expiration,
                priority: self.priority(),
            };
        }
        let Some(AMQPValue::FieldTable(original)) = self.headers.inner().get(ORIGINAL) else {
            let (exchange, routing_key) = (self.exchange.clone(), self.routing_key.clone());
            return Burial { exchange, routing_key, reply_to: self.reply_to.clone(), priority: self.priority(), ..Burial::default() };
        };
        let priority = match original.inner().get("priority") {
            Some(AMQPValue::LongInt(priority)) => u8::try_from(*priority).ok(),
            _ => None,
        };
        Burial {
            reason: text(&self.headers, REASON).unwrap_or_default(),
            message: text(&self.headers, MESSAGE).unwrap_or_default(),
            at: text(&self.headers, TIME).as_deref().and_then(Timestamp::parse),
            exchange: text(original, "exchange").unwrap_or_default(),
            routing_key: text(original, "routing-key").unwrap_or_default(),
            reply_to: text(original, "reply-to"),
            expiration: text(original, "expiration"),
            priority,
        }
    }

    /// The message as it was before it became a dead letter, for where it first came from; nothing unless that is an
    /// exchange that anybody may publish to.
    ///
    /// It does not tell earlier tries, its publisher's user, or further routing keys (`CC`), and it is persistent.
    pub fn revived(&self) -> Option<Outgoing> {
        let burial = self.burial();
        let exchange = [topology::SUBMIT, topology::INVOKE].into_iter().find(|known| *known == burial.exchange)?;
        let mut outgoing = Outgoing::again(exchange, burial.routing_key, self);
        let kept = outgoing.properties.headers().iter().flat_map(|headers| headers.inner());
        let kept = kept.filter(|(name, _)| !ADDED.contains(&name.as_str()) && !["CC", "BCC"].contains(&name.as_str()));
        let kept = kept.map(|(name, value)| (name.clone(), value.clone())).collect::<std::collections::BTreeMap<_, _>>();
        outgoing.properties = std::mem::take(&mut outgoing.properties).with_headers(kept.into());
        outgoing.reply_to = burial.reply_to;
        outgoing.priority = burial.priority;
        outgoing.expiration_ms = burial.expiration.and_then(|text| text.parse().ok());
        Some(outgoing)
    }

    /// Headers that are texts or whole numbers, as text, without those that the way to the dead letters added.
    pub fn plain_headers(&self) -> Vec<(String, String)> {
        let names = self.headers.inner().keys().map(|name| name.as_str()).filter(|name| !ADDED.contains(name) && !name.starts_with("x-"));
        names.filter_map(|name| Some((name.to_owned(), self.header_as_text(name)?))).collect()
    }
}
