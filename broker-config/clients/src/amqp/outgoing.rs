//! A message on its way to the broker.

use contract::body::{BodyError, Format};
use lapin::{
    BasicProperties, PublisherConfirm,
    options::BasicPublishOptions,
    types::{AMQPValue, FieldTable},
};
use serde::Serialize;

use super::{error::AmqpError, subscription::Delivery};

const SHORT_MAX: usize = 255;
const PERSISTENT: u8 = 2;
const TRANSIENT: u8 = 1;
/// Headers that brokers add when they dead-letter; one that finds its own there takes the message for one that goes in a circle.
pub(super) const BROKERS_OWN: [&str; 8] = [
    "x-death",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
    "x-delivery-count",
];

/// A message to publish.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// The exchange; empty for the default one, where the key is a queue's name.
    pub exchange: &'static str,
    pub key: String,
    pub body: Vec<u8>,
    pub format: Format,
    pub message_id: Option<String>,
    /// The id of the request that this message answers, or of the request itself.
    pub correlation_id: Option<String>,
    /// The queue for replies.
    pub reply_to: Option<String>,
    /// The AMQP `type`.
    pub kind: Option<String>,
    /// Counts in queues with priorities only.
    pub priority: Option<u8>,
    /// The broker drops the message after this time in a queue.
    pub expiration_ms: Option<u32>,
    /// The message survives a restart of the broker.
    pub persistent: bool,
    /// Publishing fails when no queue takes the message.
    pub mandatory: bool,
    /// The content type where it is not the format's own; nothing inside when there is none.
    pub content_type: Option<Option<String>>,
    /// Further properties, with those above set in them.
    pub properties: BasicProperties,
}

impl Outgoing {
    /// A persistent and mandatory message in MessagePack.
    pub fn message<T: Serialize>(exchange: &'static str, key: impl Into<String>, value: &T) -> Result<Outgoing, BodyError> {
        Ok(Outgoing::raw(exchange, key, Format::MessagePack.write(value)?, Format::MessagePack))
    }

    /// A persistent and mandatory message whose body is already written.
    pub fn raw(exchange: &'static str, key: impl Into<String>, body: Vec<u8>, format: Format) -> Outgoing {
        Outgoing {
            exchange,
            key: key.into(),
            body,
            format,
            message_id: None,
            correlation_id: None,
            reply_to: None,
            kind: None,
            priority: None,
            expiration_ms: None,
            persistent: true,
            mandatory: true,
            content_type: None,
            properties: BasicProperties::default(),
        }
    }

    /// Publishes a delivery again elsewhere, with the properties it had but for those that bind it to its first way: its
    /// expiration, the broker's record of dead-lettering and the user who published it.
    pub fn again(exchange: &'static str, key: impl Into<String>, delivery: &Delivery) -> Outgoing {
        let mut headers = FieldTable::default();
        for (name, value) in delivery.headers.inner() {
            if !BROKERS_OWN.contains(&name.as_str()) {
                headers.insert(name.clone(), value.clone());
            }
        }
        let mut outgoing = Outgoing::raw(exchange, key, delivery.body.clone(), delivery.format);
        outgoing.content_type = Some(delivery.content_type().map(str::to_owned));
        outgoing.properties = carried(&delivery.properties).with_headers(headers);
        outgoing
    }

    /// Sets a header to a text.
    pub fn header(self, name: &str, text: &str) -> Outgoing {
        self.with_header(name, AMQPValue::LongString(text.into()))
    }

    /// Sets a header to a number.
    pub fn header_number(self, name: &str, number: i64) -> Outgoing {
        self.with_header(name, AMQPValue::LongLongInt(number))
    }

    fn with_header(mut self, name: &str, value: AMQPValue) -> Outgoing {
        let mut headers = self.properties.headers().clone().unwrap_or_default();
        headers.insert(name.into(), value);
        self.properties = std::mem::take(&mut self.properties).with_headers(headers);
        self
    }

    /// Makes the message one that may be lost when the broker restarts.
    pub fn transient(mut self) -> Outgoing {
        self.persistent = false;
        self
    }

    /// Makes a missing queue no error.
    pub fn optional(mut self) -> Outgoing {
        self.mandatory = false;
        self
    }

    /// Sets the queue for replies.
    pub fn reply_to(mut self, queue: impl Into<String>) -> Outgoing {
        self.reply_to = Some(queue.into());
        self
    }

    /// Sets the correlation id.
    pub fn correlation(mut self, id: impl Into<String>) -> Outgoing {
        self.correlation_id = Some(id.into());
        self
    }

    /// Sets the message id.
    pub fn id(mut self, id: impl Into<String>) -> Outgoing {
        self.message_id = Some(id.into());
        self
    }

    /// Sets the AMQP `type`.
    pub fn of_kind(mut self, kind: impl Into<String>) -> Outgoing {
        self.kind = Some(kind.into());
        self
    }

    /// AMQP's short strings hold 255 bytes; the client library would cut longer ones or panic.
    pub(super) fn check(&self) -> Result<(), AmqpError> {
        let fields = [
            ("routing key", Some(&self.key)),
            ("message id", self.message_id.as_ref()),
            ("correlation id", self.correlation_id.as_ref()),
            ("reply-to", self.reply_to.as_ref()),
            ("type", self.kind.as_ref()),
            ("content type", self.content_type.as_ref().and_then(Option::as_ref)),
        ];
        match fields.into_iter().find_map(|(what, text)| text.filter(|text| text.len() > SHORT_MAX).map(|text| (what, text.len()))) {
            Some((what, length)) => Err(AmqpError::TooLong { what, length }),
            None => Ok(()),
        }
    }

    /// Publishes the message; the order of first polls is the order on the wire.
    pub(super) async fn write(&self, channel: &lapin::Channel) -> lapin::Result<PublisherConfirm> {
        let options = BasicPublishOptions { mandatory: self.mandatory, immediate: false };
        channel.basic_publish(self.exchange.into(), self.key.as_str().into(), options, &self.body, self.properties()).await
    }

    fn properties(&self) -> BasicProperties {
        let mode = if self.persistent { PERSISTENT } else { TRANSIENT };
        let mut properties = self.properties.clone().with_delivery_mode(mode);
        let own = self.content_type.as_ref().map(Option::as_deref);
        if let Some(content_type) = own.unwrap_or(Some(self.format.content_type())) {
            properties = properties.with_content_type(content_type.into());
        }
        if let Some(id) = &self.message_id {
            properties = properties.with_message_id(id.as_str().into());
        }
        if let Some(id) = &self.correlation_id {
            properties = properties.with_correlation_id(id.as_str().into());
        }
        if let Some(queue) = &self.reply_to {
            properties = properties.with_reply_to(queue.as_str().into());
        }
        if let Some(kind) = &self.kind {
            properties = properties.with_type(kind.as_str().into());
        }
        if let Some(priority) = self.priority {
            properties = properties.with_priority(priority);
        }
        if let Some(expiration_ms) = self.expiration_ms {
            properties = properties.with_expiration(expiration_ms.to_string().into());
        }
        properties
    }
}

/// Properties that a message keeps when it is published again.
fn carried(from: &BasicProperties) -> BasicProperties {
    let mut to = BasicProperties::default();
    if let Some(encoding) = from.content_encoding() {
        to = to.with_content_encoding(encoding.clone());
    }
    if let Some(priority) = from.priority() {
        to = to.with_priority(*priority);
    }
    if let Some(id) = from.correlation_id() {
        to = to.with_correlation_id(id.clone());
    }
    if let Some(queue) = from.reply_to() {
        to = to.with_reply_to(queue.clone());
    }
    if let Some(id) = from.message_id() {
        to = to.with_message_id(id.clone());
    }
    if let Some(timestamp) = from.timestamp() {
        to = to.with_timestamp(*timestamp);
    }
    if let Some(kind) = from.kind() {
        to = to.with_type(kind.clone());
    }
    if let Some(app) = from.app_id() {
        to = to.with_app_id(app.clone());
    }
    to
}
