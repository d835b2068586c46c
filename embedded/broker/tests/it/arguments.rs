//! Arguments that only later releases of RabbitMQ act on: delayed retries, dead letters that must arrive, consumer timeouts.

use std::time::{Duration, Instant};

use futures::StreamExt;
use lapin::{
    Channel, Consumer,
    message::Delivery,
    options::*,
    types::{AMQPValue, FieldTable},
};

use crate::servers::*;

fn quorum<const N: usize>(pairs: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    table.insert("x-queue-type".into(), text("quorum"));
    for (name, value) in pairs {
        table.insert(name.into(), value);
    }
    table
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn int(value: i32) -> AMQPValue {
    AMQPValue::LongInt(value)
}

async fn consume(channel: &Channel, queue: &str, tag: &str, arguments: FieldTable) -> Consumer {
    channel.basic_consume(queue.into(), tag.into(), BasicConsumeOptions::default(), arguments).await.unwrap()
}

async fn next(consumer: &mut Consumer) -> Delivery {
    tokio::time::timeout(WAIT, consumer.next()).await.expect("a delivery").expect("the consumer goes on").unwrap()
}

#[tokio::test]
async fn a_rejected_message_waits_longer_each_time_and_a_nacked_one_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let a = channel(&broker.url()).await;
    let retry = [("x-delayed-retry-type", text("failed")), ("x-delayed-retry-min", int(200)), ("x-delayed-retry-max", int(300))];
    durable_queue(&a, "q", quorum(retry)).await;
    publish(&a, "", "q", b"x", 2).await;
    let mut consumer = consume(&a, "q", "c", FieldTable::default()).await;
    next(&mut consumer).await.nack(BasicNackOptions { requeue: true, ..Default::default() }).await.unwrap();
    let second = next(&mut consumer).await;
    // The pauses are 200 ms for each time it came back, at most 300.
    let rejected = Instant::now();
    second.reject(BasicRejectOptions { requeue: true }).await.unwrap();
    let third = next(&mut consumer).await;
    assert!(rejected.elapsed() >= Duration::from_millis(300), "{:?}", rejected.elapsed());
    assert!(third.redelivered);
    third.ack(BasicAckOptions::default()).await.unwrap();
    broker.stop().await;
}

#[tokio::test]
async fn a_message_that_waits_counts_towards_the_length_and_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let a = channel(&broker.url()).await;
    let arguments = [
        ("x-delayed-retry-type", text("all")),
        ("x-delayed-retry-min", int(3_600_000)),
        ("x-max-length", int(1)),
        ("x-overflow", text("reject-publish")),
    ];
    durable_queue(&a, "q", quorum(arguments.clone())).await;
    publish(&a, "", "q", b"kept", 2).await;
    let mut consumer = consume(&a, "q", "c", FieldTable::default()).await;
    next(&mut consumer).await.reject(BasicRejectOptions { requeue: true }).await.unwrap();
    a.basic_cancel("c".into(), BasicCancelOptions::default()).await.unwrap();
    assert_eq!(durable_queue(&a, "q", quorum(arguments.clone())).await, 0, "it is not ready");
    assert!(publish(&a, "", "q", b"refused", 2).await.is_nack());
    broker.stop().await;
    let broker = start(folder.path()).await;
    let a = channel(&broker.url()).await;
    assert_eq!(drain(&a, "q").await, [("kept".to_owned(), true)]);
    broker.stop().await;
}

#[tokio::test]
async fn a_dead_letter_that_must_arrive_waits_for_its_queue() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let a = channel(&broker.url()).await;
    let to_morgue = |strategy: &str| {
        [
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text("dead")),
            ("x-dead-letter-strategy", text(strategy)),
            ("x-overflow", text("reject-publish")),
        ]
    };
    durable_queue(&a, "kept", quorum(to_morgue("at-least-once"))).await;
    durable_queue(&a, "lost", quorum(to_morgue("at-most-once"))).await;
    for queue in ["kept", "lost"] {
        publish(&a, "", queue, queue.as_bytes(), 2).await;
        let message = a.basic_get(queue.into(), BasicGetOptions::default()).await.unwrap().unwrap();
        message.reject(BasicRejectOptions { requeue: false }).await.unwrap();
    }
    durable_queue(&a, "dead", FieldTable::default()).await;
    let mut dead_queue = consume(&a, "dead", "m", FieldTable::default()).await;
    let dead = next(&mut dead_queue).await;
    assert_eq!(dead.data, b"kept");
    dead.ack(BasicAckOptions::default()).await.unwrap();
    assert_eq!(durable_queue(&a, "kept", quorum(to_morgue("at-least-once"))).await, 0);
    broker.stop().await;
    // Neither was the copy lost with the restart, nor did the original stay behind.
    let broker = start(folder.path()).await;
    let a = channel(&broker.url()).await;
    for queue in ["kept", "lost", "dead"] {
        assert!(drain(&a, queue).await.is_empty(), "{queue}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_consumer_that_takes_too_long_is_cancelled_and_its_message_goes_to_another() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let a = channel(&broker.url()).await;
    durable_queue(&a, "q", quorum([("x-consumer-timeout", int(300))])).await;
    let mut slow = consume(&a, "q", "slow", FieldTable::default()).await;
    publish(&a, "", "q", b"x", 2).await;
    let held = next(&mut slow).await;
    let mut patient = FieldTable::default();
    patient.insert("x-consumer-timeout".into(), int(3_600_000));
    let mut other = consume(&a, "q", "other", patient).await;
    let again = next(&mut other).await;
    assert!(again.redelivered);
    assert!(tokio::time::timeout(WAIT, slow.next()).await.expect("the slow consumer ends").is_none());
    // Too late, but no error: the channel goes on.
    held.ack(BasicAckOptions::default()).await.unwrap();
    again.ack(BasicAckOptions::default()).await.unwrap();
    publish(&a, "", "q", b"y", 2).await;
    assert_eq!(next(&mut other).await.data, b"y");
    broker.stop().await;
}

#[tokio::test]
async fn a_classic_queues_timeout_closes_the_channel() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let a = channel(&broker.url()).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-consumer-timeout".into(), int(300));
    durable_queue(&a, "q", arguments).await;
    publish(&a, "", "q", b"x", 2).await;
    let mut slow = consume(&a, "q", "slow", FieldTable::default()).await;
    next(&mut slow).await;
    let ended = tokio::time::timeout(WAIT, slow.next()).await.expect("the channel closes");
    assert!(ended.is_none_or(|delivery| delivery.is_err()));
    let b = channel(&broker.url()).await;
    assert_eq!(drain(&b, "q").await, [("x".to_owned(), true)]);
    broker.stop().await;
}
