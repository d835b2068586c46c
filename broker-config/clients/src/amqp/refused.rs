//! Copies of messages that were refused, for the exchange of dead letters: the message as it was, and why it lies there.
//!
//! A plain reject tells nobody the reason, so the refuser publishes this copy and then acknowledges the original.

use broker_config::topology;
use contract::{body::Format, time::Timestamp};
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::{
    outgoing::{BROKERS_OWN, Outgoing},
    subscription::Delivery,
};

/// Bytes of a message's own headers that are passed on: all headers of a message are one frame, which is 128 KiB at most
/// where messages of any publisher are taken, and the reason needs room in it, too.
const HEADERS_BYTES_MAX: usize = 96 * 1024;
/// Headers that say why a copy is a dead letter, and the table of what its message was.
pub(super) const REASON: &str = "piecework-reason";
pub(super) const MESSAGE: &str = "piecework-message";
pub(super) const TIME: &str = "piecework-time";
pub(super) const ORIGINAL: &str = "piecework-original";
/// Characters of the reason's text.
const MESSAGE_CHARS_MAX: usize = 2_048;

/// Why a message was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The error's code, in the header `piecework-reason`.
    pub code: String,
    /// A sentence about the error, in the header `piecework-message`.
    pub message: String,
}

impl Delivery {
    /// Whether the message's headers are small enough to be published once more with some of Piecework's own.
    pub fn headers_fit(&self) -> bool {
        table_bytes(&self.headers, 0) <= HEADERS_BYTES_MAX
    }

    /// The copy for the dead letters; nothing when the message's headers are too large to be copied.
    pub fn refused(&self, reason: &Reason, at: Timestamp) -> Option<Outgoing> {
        self.headers_fit().then(|| self.refused_with(&self.headers, reason, at))
    }

    /// The copy without the message's own headers, for one whose headers are too large.
    pub fn refused_without_headers(&self, reason: &Reason, at: Timestamp) -> Outgoing {
        self.refused_with(&FieldTable::default(), reason, at)
    }

    /// Body, message id, type and the like stay as they are, so the copy can be published again as it is. What would
    /// act upon the copy itself (expiration, priority, user id, reply-to, routing headers) stands in `piecework-original`.
    fn refused_with(&self, from: &FieldTable, reason: &Reason, at: Timestamp) -> Outgoing {
        let (mut headers, mut own) = (FieldTable::default(), FieldTable::default());
        for (name, value) in from.inner() {
            match name.as_str() {
                "CC" | "BCC" => {
                    own.insert(name.clone(), value.clone());
                }
                // Only a message that the broker itself moves to the dead letters tells its way there by these.
                known if BROKERS_OWN.contains(&known) => {}
                _ => {
                    headers.insert(name.clone(), value.clone());
                }
            }
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
        headers.insert(REASON.into(), text(&reason.code));
        let message: String = reason.message.chars().take(MESSAGE_CHARS_MAX).collect();
        headers.insert(MESSAGE.into(), text(&message));
        headers.insert(TIME.into(), text(&at.iso()));
        headers.insert(ORIGINAL.into(), AMQPValue::FieldTable(own));
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
        outgoing
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
