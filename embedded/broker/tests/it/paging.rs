//! Queues larger than memory: messages on disk come back whole and in order.

use embedded_broker::{Broker, Settings};
use futures::{StreamExt, future::join_all};
use lapin::{BasicProperties, Channel, ExchangeKind, options::*, types::*};

use crate::servers::*;

/// A server that keeps almost nothing in memory.
fn tight(folder: &std::path::Path) -> Settings {
    let mut settings = settings(folder);
    settings.resident_max_bytes = 8 << 10;
    settings.memory_max_bytes = 1 << 20;
    settings.segment_max_bytes = 256 << 10;
    settings
}

fn body(number: usize) -> Vec<u8> {
    let mut body = format!("{number:06}").into_bytes();
    body.resize(1_000 + number % 500, b'x');
    body
}

/// Publishes in the given mode, many at a time, each with its confirm.
async fn fill(channel: &Channel, exchange: &str, key: &str, numbers: std::ops::Range<usize>, mode: u8) {
    for start in numbers.clone().step_by(100) {
        let mut waiting = Vec::new();
        for number in start..(start + 100).min(numbers.end) {
            let properties = BasicProperties::default().with_delivery_mode(mode).with_message_id(number.to_string().into());
            waiting.push(channel.basic_publish(exchange.into(), key.into(), Default::default(), &body(number), properties).await.unwrap());
        }
        for confirm in join_all(waiting).await {
            assert!(confirm.unwrap().is_ack());
        }
    }
}

/// Consumes with acks and checks that exactly these numbers come, in order.
async fn expect(channel: &Channel, queue: &str, numbers: std::ops::Range<usize>) {
    channel.basic_qos(100, BasicQosOptions::default()).await.unwrap();
    let mut consumer = channel.basic_consume(queue.into(), queue.into(), Default::default(), FieldTable::default()).await.unwrap();
    for number in numbers {
        let delivery = tokio::time::timeout(WAIT, consumer.next()).await.expect("a delivery").unwrap().unwrap();
        assert!(delivery.data == body(number), "message {number} of {queue}");
        assert_eq!(delivery.properties.message_id().as_ref().unwrap().as_str(), number.to_string());
        delivery.ack(BasicAckOptions::default()).await.unwrap();
    }
    channel.basic_cancel(queue.into(), BasicCancelOptions::default()).await.unwrap();
    // Messages that were delivered ahead return to their place.
    channel.basic_recover(BasicRecoverOptions { requeue: true }).await.unwrap();
}

#[tokio::test]
async fn a_queue_larger_than_memory_comes_back_whole_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(tight(folder.path())).await.unwrap();
    let a = channel(&broker.url()).await;
    durable_queue(&a, "kept", FieldTable::default()).await;
    a.queue_declare("loose".into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
    // Twice the memory at which publishers would be blocked, so most of it must be on disk.
    fill(&a, "", "kept", 0..2_000, 2).await;
    fill(&a, "", "loose", 0..2_000, 1).await;
    expect(&a, "kept", 0..1_000).await;
    // Messages that arrive while a part is on disk are queued behind it.
    fill(&a, "", "kept", 2_000..2_300, 2).await;
    expect(&a, "kept", 1_000..2_300).await;
    expect(&a, "loose", 0..2_000).await;
    broker.stop().await;
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with("spill")), "{left:?}");
}

#[tokio::test]
async fn what_was_on_disk_alone_survives_a_restart_and_a_compaction() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(tight(folder.path())).await.unwrap();
    let a = channel(&broker.url()).await;
    durable_queue(&a, "old", FieldTable::default()).await;
    durable_queue(&a, "busy", FieldTable::default()).await;
    fill(&a, "", "old", 0..300, 2).await;
    // Enough messages pass behind the old ones that these are written again more than once.
    for _ in 0..6 {
        fill(&a, "", "busy", 0..600, 2).await;
        a.queue_purge("busy".into(), QueuePurgeOptions::default()).await.unwrap();
    }
    let bytes: u64 = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes < 5 << 20, "{bytes} bytes on disk");
    expect(&a, "old", 0..50).await;
    broker.stop().await;
    let broker = Broker::start(tight(folder.path())).await.unwrap();
    let a = channel(&broker.url()).await;
    assert_eq!(durable_queue(&a, "old", FieldTable::default()).await, 250);
    for _ in 0..6 {
        fill(&a, "", "busy", 0..600, 2).await;
        a.queue_purge("busy".into(), QueuePurgeOptions::default()).await.unwrap();
    }
    expect(&a, "old", 50..300).await;
    broker.stop().await;
}

#[tokio::test]
async fn messages_on_disk_are_shared_returned_and_dead_lettered_as_others_are() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(tight(folder.path())).await.unwrap();
    let a = channel(&broker.url()).await;
    let fan = ExchangeDeclareOptions { durable: true, ..Default::default() };
    a.exchange_declare("fan".into(), ExchangeKind::Fanout, fan, FieldTable::default()).await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("".into()));
    arguments.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString("dead".into()));
    durable_queue(&a, "one", arguments).await;
    durable_queue(&a, "two", FieldTable::default()).await;
    durable_queue(&a, "dead", FieldTable::default()).await;
    for queue in ["one", "two"] {
        a.queue_bind(queue.into(), "fan".into(), "".into(), Default::default(), FieldTable::default()).await.unwrap();
    }
    fill(&a, "fan", "", 0..400, 2).await;
    // Delivered to a consumer without a limit, and returned.
    let b = channel(&broker.url()).await;
    let mut consumer = b.basic_consume("one".into(), "c".into(), Default::default(), FieldTable::default()).await.unwrap();
    for _ in 0..400 {
        tokio::time::timeout(WAIT, consumer.next()).await.expect("a delivery").unwrap().unwrap();
    }
    b.close(200, "".into()).await.unwrap();
    let got = a.basic_get("one".into(), BasicGetOptions::default()).await.unwrap().unwrap();
    assert!(got.redelivered && got.data == body(0));
    got.nack(BasicNackOptions { requeue: false, ..Default::default() }).await.unwrap();
    let dead = a.basic_get("dead".into(), BasicGetOptions { no_ack: true }).await.unwrap().unwrap();
    assert!(dead.data == body(0));
    assert!(dead.properties.headers().as_ref().unwrap().contains_key("x-death"));
    expect(&a, "one", 1..400).await;
    expect(&a, "two", 0..400).await;
    broker.stop().await;
}

#[tokio::test]
async fn delivery_counts_outlive_a_restart_of_a_quorum_queue() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(tight(folder.path())).await.unwrap();
    let quorum = || {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        arguments
    };
    let a = channel(&broker.url()).await;
    durable_queue(&a, "work", quorum()).await;
    fill(&a, "", "work", 0..1, 2).await;
    for _ in 0..2 {
        let got = a.basic_get("work".into(), BasicGetOptions::default()).await.unwrap().unwrap();
        got.nack(BasicNackOptions { requeue: true, ..Default::default() }).await.unwrap();
    }
    broker.stop().await;
    let broker = Broker::start(tight(folder.path())).await.unwrap();
    let a = channel(&broker.url()).await;
    let got = a.basic_get("work".into(), BasicGetOptions::default()).await.unwrap().unwrap();
    assert!(got.redelivered);
    let headers = got.properties.headers().clone().unwrap();
    assert_eq!(headers.inner().get("x-delivery-count"), Some(&AMQPValue::LongLongInt(2)));
    broker.stop().await;
}
