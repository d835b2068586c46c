//! Submits a task, waits for its end, then invokes a function: `cargo run --example publish -- BROKER_URL POOL FUNCTION`

use std::{error::Error, time::Duration};

use futures::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer,
    message::Delivery,
    options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use serde_json::{Value, json};

const ANSWERS: &str = "amq.rabbitmq.reply-to";
const PATIENCE: Duration = Duration::from_secs(120);

struct Client {
    channel: Channel,
    answers: Consumer,
    asked: u32,
}

impl Client {
    /// Publishes a message and returns what comes back for it.
    async fn ask(&mut self, exchange: &str, pool: &str, body: &Value, properties: BasicProperties) -> Result<Delivery, Box<dyn Error>> {
        self.asked += 1;
        let id = ShortString::from(self.asked.to_string());
        let properties = properties
            .with_content_type("application/json".into())
            .with_delivery_mode(2)
            .with_correlation_id(id.clone())
            .with_reply_to(ANSWERS.into());
        let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let body = body.to_string();
        let confirm = self.channel.basic_publish(exchange.into(), pool.into(), mandatory, body.as_bytes(), properties).await?.await?;
        if !confirm.is_ack() {
            return Err("the broker did not take the message".into());
        }
        loop {
            let answer = tokio::time::timeout(PATIENCE, self.answers.next()).await?.ok_or("the channel was closed")??;
            if answer.properties.correlation_id() == &Some(id.clone()) {
                return Ok(answer);
            }
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let [url, pool, function] =
        <[String; 3]>::try_from(std::env::args().skip(1).collect::<Vec<_>>()).map_err(|_| "usage: publish BROKER_URL POOL FUNCTION")?;
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let no_ack = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let answers = channel.basic_consume(ANSWERS.into(), "".into(), no_ack, FieldTable::default()).await?;
    let mut client = Client { channel, answers, asked: 0 };

    let mut headers = FieldTable::default();
    headers.insert("piecework-wait".into(), AMQPValue::LongString("completed".into()));
    let task = json!({"commandLine": "/bin/sh -c 'echo hello from rust'"});
    let ended = client.ask("piecework.submit", &pool, &task, BasicProperties::default().with_headers(headers)).await?;
    let told: Value = serde_json::from_slice(&ended.data)?;
    if let Some(code) = told["code"].as_str() {
        return Err(format!("{code}: {}", told["message"]["value"]).into());
    }
    print!("{}", told["stdout"].as_str().unwrap_or_default());
    if told["exitCode"] != 0 {
        return Err(format!("the task ended with {}", told["exitCode"]).into());
    }

    let named = BasicProperties::default().with_type(function.into());
    let answer = client.ask("piecework.invoke", &pool, &json!({"name": "rust"}), named).await?;
    let header = |name: &str| match answer.properties.headers().as_ref().and_then(|headers| headers.inner().get(name)) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        _ => String::new(),
    };
    if header("piecework-status") != "ok" {
        return Err(format!("{}: {}", header("piecework-error"), header("piecework-message")).into());
    }
    println!("{}", String::from_utf8_lossy(&answer.data));
    Ok(())
}
