//! Copies of messages that were refused, for the exchange of dead letters: the message as it was, and why it lies there.
//!
//! A plain reject tells nobody the reason, so the refuser publishes this copy and then acknowledges the original.

use broker_config::topology;
use contract::{body::Format, time::Timestamp};
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::{outgoing::Outgoing, subscription::Delivery};

/// Bytes of a message's own headers that are copied; one with more goes to the dead letters by a plain reject instead,
/// for all headers of a message must fit into one frame.
const HEADERS_BYTES_MAX: usize = 48 * 1024;
/// Characters of the reason's text.
const MESSAGE_CHARS_MAX: usize = 2_048;

/// Why a message was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The error's code, in the header `piecework-reason`.
    pub code: String,
    /// What happened, in the header `piecework-message`.
    pub message: String,
}

impl Delivery {
    /// The copy for the dead letters; nothing when the message's headers are too large to be copied.
    ///
    /// Body, message id, type and the like stay as they are, so the copy can be published again as it is. What would
    /// act upon the copy itself (expiration, priority, user id, reply-to, routing headers) stands in `piecework-original`.
    pub fn refused(&self, reason: &Reason, at: Timestamp) -> Option<Outgoing> {
        if table_bytes(&self.headers, 0) > HEADERS_BYTES_MAX {
            return None;
        }
        let mut headers = self.headers.clone();
        let mut own = FieldTable::default();
        let mut routing = Vec::new();
        for name in ["CC", "BCC"] {
            if let Some(value) = headers.inner().get(name).cloned() {
                routing.push((name, value));
            }
        }
        if !routing.is_empty() {
            let kept = headers.inner().iter().filter(|(name, _)| !["CC", "BCC"].contains(&name.as_str()));
            headers = kept.map(|(name, value)| (name.clone(), value.clone())).collect::<std::collections::BTreeMap<_, _>>().into();
        }
        for (name, value) in routing {
            own.insert(name.into(), value);
        }
        let text = |text: &str| AMQPValue::LongString(text.into());
        own.insert("exchange".into(), text(&self.exchange));
        own.insert("routing-key".into(), text(&self.routing_key));
        let properties = &self.properties;
        let texts = [
            ("reply-to", properties.reply_to()),
            ("correlation-id", properties.correlation_id()),
            ("expiration", properties.expiration()),
            ("user-id", properties.user_id()),
        ];
        for (name, value) in texts {
            if let Some(value) = value {
                own.insert(name.into(), text(value.as_str()));
            }
        }
        if let Some(priority) = *properties.priority() {
            own.insert("priority".into(), AMQPValue::LongInt(i32::from(priority)));
        }
        if let Some(mode) = *properties.delivery_mode() {
            own.insert("delivery-mode".into(), AMQPValue::LongInt(i32::from(mode)));
        }
        headers.insert("piecework-reason".into(), text(&reason.code));
        let message: String = reason.message.chars().take(MESSAGE_CHARS_MAX).collect();
        headers.insert("piecework-message".into(), text(&message));
        headers.insert("piecework-time".into(), text(&at.iso()));
        headers.insert("piecework-original".into(), AMQPValue::FieldTable(own));
        let mut copy = lapin::BasicProperties::default().with_headers(headers);
        if let Some(encoding) = properties.content_encoding() {
            copy = copy.with_content_encoding(encoding.clone());
        }
        if let Some(app) = properties.app_id() {
            copy = copy.with_app_id(app.clone());
        }
        if let Some(time) = *properties.timestamp() {
            copy = copy.with_timestamp(time);
        }
        let mut outgoing = Outgoing::raw(topology::DEAD, self.routing_key.clone(), self.body.clone(), Format::Json);
        outgoing.content_type = Some(self.content_type().map(str::to_owned));
        outgoing.message_id = self.message_id.clone();
        outgoing.correlation_id = self.correlation_id.clone();
        outgoing.kind = self.kind.clone();
        outgoing.properties = copy;
        Some(outgoing)
    }

    /// The content type as the publisher gave it.
    pub fn content_type(&self) -> Option<&str> {
        self.properties.content_type().as_ref().map(ShortString::as_str)
    }

    /// The AMQP priority as the publisher gave it.
    pub fn priority(&self) -> Option<u8> {
        *self.properties.priority()
    }

    /// A header that is a text.
    pub fn header(&self, name: &str) -> Option<String> {
        match self.headers.inner().get(name)? {
            AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok().map(str::to_owned),
            AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
            _ => None,
        }
    }

    /// Whether there is a header of this name, of whatever type.
    pub fn has_header(&self, name: &str) -> bool {
        self.headers.inner().contains_key(name)
    }
}

/// Tables inside each other that are looked into.
const DEPTH_MAX: usize = 16;

/// About how many bytes a table has on the wire; too many when it is nested deeper than anybody needs.
fn table_bytes(table: &FieldTable, depth: usize) -> usize {
    table.inner().iter().map(|(name, value)| name.as_str().len() + 2 + value_bytes(value, depth)).sum::<usize>() + 4
}

fn value_bytes(value: &AMQPValue, depth: usize) -> usize {
    match value {
        _ if depth > DEPTH_MAX => HEADERS_BYTES_MAX + 1,
        AMQPValue::LongString(text) => text.as_bytes().len() + 4,
        AMQPValue::ShortString(text) => text.as_str().len() + 1,
        AMQPValue::ByteArray(bytes) => bytes.as_slice().len() + 4,
        AMQPValue::FieldTable(table) => table_bytes(table, depth + 1),
        AMQPValue::FieldArray(items) => items.as_slice().iter().map(|item| 1 + value_bytes(item, depth + 1)).sum::<usize>() + 4,
        _ => 8,
    }
}
