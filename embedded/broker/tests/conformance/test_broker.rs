//! The broker under test, with connections, unique names, and shorthand for frequent steps.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use embedded_broker::{Broker, Settings, Users};
use futures::{FutureExt, StreamExt};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ErrorKind, Queue,
    message::{BasicGetMessage, Delivery},
    options::*,
    types::{AMQPValue, FieldTable},
};

/// Time limit of one test.
const CASE_TIMEOUT: Duration = Duration::from_secs(60);

/// The broker and connections of a test.
pub struct TestBroker {
    pub url: String,
    prefix: String,
    broker: Option<Broker>,
    folder: tempfile::TempDir,
}

/// Runs a test on a broker of its own.
pub async fn with_broker(case: impl AsyncFnOnce(&TestBroker)) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let prefix = format!("case-{}-{number}-", std::process::id());
    let folder = tempfile::tempdir().unwrap();
    let mut broker = match std::env::var("PIECEWORK_TEST_AMQP_URL") {
        Ok(url) => TestBroker { url, prefix, broker: None, folder },
        Err(_) => {
            let settings = Settings::new("127.0.0.1:0".parse().unwrap(), folder.path(), "guest", "guest");
            let broker = Broker::start(settings).await.unwrap();
            TestBroker { url: broker.url(), prefix, broker: Some(broker), folder }
        }
    };
    tokio::time::timeout(CASE_TIMEOUT, case(&broker)).await.expect("the case hangs");
    if let Some(broker) = broker.broker.take() {
        tokio::time::timeout(CASE_TIMEOUT, broker.stop()).await.expect("the broker does not stop");
    }
    broker.folder.close().unwrap();
}

impl TestBroker {
    pub async fn connect(&self) -> Connection {
        Connection::connect(&self.url, ConnectionProperties::default()).await.unwrap()
    }

    /// The users of the embedded broker; nothing on another one.
    pub fn users(&self) -> Option<Users> {
        self.broker.as_ref().map(Broker::users)
    }

    /// A channel in confirm mode on a connection of its own.
    pub async fn channel(&self) -> Channel {
        let channel = self.connect().await.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        channel
    }

    /// A name that no other test uses.
    pub fn name(&self, short: &str) -> String {
        format!("{}{short}", self.prefix)
    }

    /// Declares a queue with a name of its own that is deleted with its connection.
    pub async fn queue(&self, channel: &Channel, short: &str, arguments: FieldTable) -> String {
        let name = self.name(short);
        declare(channel, &name, QueueDeclareOptions { exclusive: true, ..Default::default() }, arguments).await.unwrap();
        name
    }

    /// Declares an exchange that is deleted with its last binding.
    pub async fn exchange(&self, channel: &Channel, short: &str, kind: lapin::ExchangeKind) -> String {
        let name = self.name(short);
        let options = ExchangeDeclareOptions { auto_delete: true, ..Default::default() };
        channel.exchange_declare(name.as_str().into(), kind, options, FieldTable::default()).await.unwrap();
        name
    }
}

pub async fn declare(channel: &Channel, name: &str, options: QueueDeclareOptions, arguments: FieldTable) -> lapin::Result<Queue> {
    channel.queue_declare(name.into(), options, arguments).await
}

/// Ready messages and consumers of a queue.
pub async fn counts(channel: &Channel, name: &str) -> (u32, u32) {
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let queue = declare(channel, name, options, FieldTable::default()).await.unwrap();
    (queue.message_count(), queue.consumer_count())
}

pub async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) {
    bind_with(channel, queue, exchange, key, FieldTable::default()).await;
}

pub async fn bind_with(channel: &Channel, queue: &str, exchange: &str, key: &str, arguments: FieldTable) {
    channel.queue_bind(queue.into(), exchange.into(), key.into(), QueueBindOptions::default(), arguments).await.unwrap();
}

/// Publishes and waits for the confirm.
pub async fn publish(channel: &Channel, exchange: &str, key: &str, body: impl AsRef<[u8]>) -> Confirmation {
    publish_with(channel, exchange, key, body, BasicProperties::default()).await
}

pub async fn publish_with(
    channel: &Channel,
    exchange: &str,
    key: &str,
    body: impl AsRef<[u8]>,
    properties: BasicProperties,
) -> Confirmation {
    channel
        .basic_publish(
            exchange.into(),
            key.into(),
            BasicPublishOptions { mandatory: true, ..Default::default() },
            body.as_ref(),
            properties,
        )
        .await
        .unwrap()
        .await
        .unwrap()
}

/// Gets one ready message without an ack; nothing when there is none.
pub async fn take(channel: &Channel, queue: &str) -> Option<BasicGetMessage> {
    channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.unwrap()
}

/// Gets one message that must be acked.
pub async fn get(channel: &Channel, queue: &str) -> BasicGetMessage {
    channel.basic_get(queue.into(), BasicGetOptions { no_ack: false }).await.unwrap().expect("a message is ready")
}

/// Gets all ready messages, as text.
pub async fn drain(channel: &Channel, queue: &str) -> Vec<String> {
    let mut bodies = Vec::new();
    while let Some(message) = take(channel, queue).await {
        bodies.push(String::from_utf8(message.data.clone()).unwrap());
    }
    bodies
}

/// Waits until a message is ready, then gets it; for work that a broker does later.
pub async fn await_message(channel: &Channel, queue: &str) -> Delivery {
    let mut consumer = consume(channel, queue, "").await;
    let delivery = next(&mut consumer).await;
    delivery.ack(BasicAckOptions::default()).await.unwrap();
    channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await.unwrap();
    delivery
}

pub async fn consume(channel: &Channel, queue: &str, tag: &str) -> Consumer {
    consume_with(channel, queue, tag, BasicConsumeOptions::default(), FieldTable::default()).await
}

pub async fn consume_with(channel: &Channel, queue: &str, tag: &str, options: BasicConsumeOptions, arguments: FieldTable) -> Consumer {
    channel.basic_consume(queue.into(), tag.into(), options, arguments).await.unwrap()
}

pub async fn next(consumer: &mut Consumer) -> Delivery {
    consumer.next().await.expect("the consumer goes on").unwrap()
}

/// The deliveries so far. A round trip on the channel comes first, so earlier deliveries are included.
pub async fn arrived(channel: &Channel, consumer: &mut Consumer) -> Option<Delivery> {
    channel.basic_qos_round_trip().await;
    consumer.next().now_or_never().flatten().map(Result::unwrap)
}

/// A method without effect that has an answer.
pub trait RoundTrip {
    async fn basic_qos_round_trip(&self);
}

impl RoundTrip for Channel {
    async fn basic_qos_round_trip(&self) {
        self.exchange_declare(
            "amq.direct".into(),
            lapin::ExchangeKind::Direct,
            ExchangeDeclareOptions { passive: true, ..Default::default() },
            FieldTable::default(),
        )
        .await
        .unwrap();
    }
}

pub async fn prefetch(channel: &Channel, count: u16) {
    channel.basic_qos(count, BasicQosOptions::default()).await.unwrap();
}

/// The reply code of a refusal.
pub fn code<T: std::fmt::Debug>(result: lapin::Result<T>) -> u16 {
    match result.expect_err("the broker refuses").kind() {
        ErrorKind::ProtocolError(error) => error.get_id(),
        other => panic!("not the protocol's error: {other:?}"),
    }
}

pub fn table<const N: usize>(pairs: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in pairs {
        table.insert(name.into(), value);
    }
    table
}

pub fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

pub fn int(value: i32) -> AMQPValue {
    AMQPValue::LongInt(value)
}

/// A header of a delivery.
pub fn header(properties: &BasicProperties, name: &str) -> Option<AMQPValue> {
    properties.headers().as_ref().and_then(|headers| headers.inner().get(name).cloned())
}
