//! Servers and clients for these tests.

use std::{path::Path, time::Duration};

use embedded_broker::{Broker, Settings};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, options::*, types::FieldTable};

/// Time limit of one wait.
pub const WAIT: Duration = Duration::from_secs(30);

pub fn settings(folder: &Path) -> Settings {
    Settings::new("127.0.0.1:0".parse().unwrap(), folder, "guest", "guest")
}

pub async fn start(folder: &Path) -> Broker {
    Broker::start(settings(folder)).await.unwrap()
}

/// A channel in confirm mode.
pub async fn channel(url: &str) -> Channel {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    channel
}

pub async fn durable_queue(channel: &Channel, name: &str, arguments: FieldTable) -> u32 {
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(name.into(), options, arguments).await.unwrap().message_count()
}

pub async fn publish(channel: &Channel, exchange: &str, key: &str, body: &[u8], mode: u8) -> Confirmation {
    let properties = BasicProperties::default().with_delivery_mode(mode).with_message_id("id".into());
    channel.basic_publish(exchange.into(), key.into(), Default::default(), body, properties).await.unwrap().await.unwrap()
}

/// All ready messages of a queue: body and redelivered flag.
pub async fn drain(channel: &Channel, queue: &str) -> Vec<(String, bool)> {
    let mut seen = Vec::new();
    while let Some(message) = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.unwrap() {
        seen.push((String::from_utf8(message.data.clone()).unwrap(), message.redelivered));
    }
    seen
}
