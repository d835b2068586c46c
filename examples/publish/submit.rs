//! Submits a task to a pool by a message and prints what it wrote: `cargo run --example publish -- BROKER_URL POOL`

use std::{error::Error, time::Duration};

use futures::StreamExt;
use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let [url, pool] =
        <[String; 2]>::try_from(std::env::args().skip(1).collect::<Vec<_>>()).map_err(|_| "usage: publish BROKER_URL POOL")?;
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare("".into(), exclusive, FieldTable::default()).await?;
    let no_ack = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut answers = channel.basic_consume(queue.name().clone(), "".into(), no_ack, FieldTable::default()).await?;

    let mut headers = FieldTable::default();
    headers.insert("piecework-wait".into(), AMQPValue::LongString("completed".into()));
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(2)
        .with_correlation_id("hello".into())
        .with_reply_to(queue.name().clone())
        .with_headers(headers);
    let task = json!({"commandLine": "/bin/sh -c 'echo hello from rust'"}).to_string();
    let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let confirm =
        channel.basic_publish("piecework.submit".into(), pool.as_str().into(), mandatory, task.as_bytes(), properties).await?.await?;
    if !confirm.is_ack() {
        return Err("the broker did not take the message".into());
    }

    let answer = tokio::time::timeout(PATIENCE, answers.next()).await?.ok_or("the channel was closed")??;
    let told: Value = serde_json::from_slice(&answer.data)?;
    if let Some(code) = told["code"].as_str() {
        return Err(format!("{code}: {}", told["message"]["value"]).into());
    }
    print!("{}", told["stdout"].as_str().unwrap_or_default());
    Ok(())
}
