//! Direct reply-to.

use lapin::{BasicProperties, options::*, types::FieldTable};

use crate::test_broker::*;

const REPLY_QUEUE: &str = "amq.rabbitmq.reply-to";

fn no_ack() -> BasicConsumeOptions {
    BasicConsumeOptions { no_ack: true, ..Default::default() }
}

#[tokio::test]
async fn an_answer_comes_straight_back() {
    with_broker(async |s| {
        let server = s.channel().await;
        let requests = s.name("requests");
        declare(&server, &requests, QueueDeclareOptions { auto_delete: true, ..Default::default() }, FieldTable::default()).await.unwrap();
        let mut incoming = consume(&server, &requests, "").await;
        let client = s.channel().await;
        let mut answers = consume_with(&client, REPLY_QUEUE, "", no_ack(), FieldTable::default()).await;
        let asking = BasicProperties::default().with_reply_to(REPLY_QUEUE.into()).with_correlation_id("7".into());
        publish_with(&client, "", &requests, "question", asking).await;
        let request = next(&mut incoming).await;
        let reply_to = request.properties.reply_to().clone().unwrap();
        assert!(reply_to.as_str().starts_with("amq.rabbitmq.reply-to."));
        let answer = BasicProperties::default().with_correlation_id("7".into());
        publish_with(&server, "", reply_to.as_str(), "answer", answer).await;
        let answer = next(&mut answers).await;
        assert_eq!((answer.data.as_slice(), answer.properties.correlation_id().as_ref().unwrap().as_str()), (&b"answer"[..], "7"));
    })
    .await;
}

#[tokio::test]
async fn replies_cannot_be_acked() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let result = channel.basic_consume(REPLY_QUEUE.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await;
        assert_eq!(code(result.map(drop)), 406);
    })
    .await;
}

#[tokio::test]
async fn asking_without_consuming_replies_is_406() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        let asking = BasicProperties::default().with_reply_to(REPLY_QUEUE.into());
        let result = channel.basic_publish("".into(), name.as_str().into(), Default::default(), b"x", asking).await.unwrap().await;
        assert_eq!(code(result.map(drop)), 406);
    })
    .await;
}

#[tokio::test]
async fn an_answer_to_nobody_is_returned() {
    with_broker(async |s| {
        let channel = s.channel().await;
        assert!(publish(&channel, "", "amq.rabbitmq.reply-to.gone", "x").await.take_message().is_some());
    })
    .await;
}
