//! Alarms, slow consumers, and limits.

use embedded_broker::Broker;
use futures::{FutureExt, StreamExt};
use lapin::{BasicProperties, Connection, ConnectionProperties, Event, options::*, types::FieldTable};

use crate::world::*;

#[tokio::test]
async fn the_memory_alarm_blocks_publishers_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.memory_max_bytes = 1 << 20;
    let broker = Broker::start(settings).await.unwrap();
    let publisher = Connection::connect(&broker.url(), ConnectionProperties::default()).await.unwrap();
    let mut events = publisher.events_listener();
    let channel_a = publisher.create_channel().await.unwrap();
    channel_a.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    channel_a.queue_declare("q".into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
    for _ in 0..3 {
        publish(&channel_a, "", "q", &vec![1; 400 << 10], 1).await;
    }
    let until = async |events: &mut (dyn futures::Stream<Item = Event> + Unpin + Send), wanted: fn(&Event) -> bool| {
        tokio::time::timeout(WAIT, async {
            while let Some(event) = events.next().await {
                if wanted(&event) {
                    return;
                }
            }
        })
        .await
        .expect("the broker tells");
    };
    until(&mut events, |event| matches!(event, Event::ConnectionBlocked(_))).await;
    // Held back while the alarm stands, taken once it is over.
    let held = tokio::spawn(async move { publish(&channel_a, "", "q", b"late", 1).await });
    let consumer = channel(&broker.url()).await;
    assert_eq!(consumer.queue_purge("q".into(), QueuePurgeOptions::default()).await.unwrap(), 3);
    assert!(tokio::time::timeout(WAIT, held).await.unwrap().unwrap().is_ack());
    until(&mut events, |event| matches!(event, Event::ConnectionUnblocked)).await;
    broker.stop().await;
}

#[tokio::test]
async fn a_consumer_that_does_not_read_does_not_stop_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    // A raw client that consumes without acks and never reads again.
    let stuck = crate::hostile::Raw::open(&broker).await.consume_everything("q").await;
    let a = channel(&broker.url()).await;
    a.queue_declare("other".into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
    let body = vec![1; 64 << 10];
    for _ in 0..300 {
        assert!(publish(&a, "", "q", &body, 1).await.is_ack());
    }
    let passive = QueueDeclareOptions { passive: true, ..Default::default() };
    let left = a.queue_declare("q".into(), passive, FieldTable::default()).await.unwrap().message_count();
    assert!(left > 0, "what the client does not take stays in the queue");
    assert!(publish(&a, "", "other", b"x", 1).await.is_ack());
    assert_eq!(drain(&a, "other").await.len(), 1);
    drop(stuck);
    broker.stop().await;
}

#[tokio::test]
async fn a_message_over_the_limit_is_406() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.message_max_bytes = 1_000;
    let broker = Broker::start(settings).await.unwrap();
    let a = channel(&broker.url()).await;
    assert!(publish(&a, "", "none", &[0; 1_000], 1).await.is_ack());
    let refused =
        a.basic_publish("".into(), "none".into(), Default::default(), &[0; 1_001], BasicProperties::default()).await.unwrap().await;
    assert!(format!("{:?}", refused.unwrap_err()).contains("PRECONDITION"));
    broker.stop().await;
}

#[tokio::test]
async fn one_connection_too_many_is_turned_away() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.connections_max = 2;
    let broker = Broker::start(settings).await.unwrap();
    let (_one, _two) = (channel(&broker.url()).await, channel(&broker.url()).await);
    let mut third = crate::hostile::Raw::open(&broker).await;
    third.send(b"AMQP\x00\x00\x09\x01").await;
    assert!(third.rest().await.is_empty());
    broker.stop().await;
}

#[tokio::test]
async fn a_client_that_never_logs_in_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.handshake_timeout = std::time::Duration::from_millis(10);
    let broker = Broker::start(settings).await.unwrap();
    let mut idle = crate::hostile::Raw::open(&broker).await;
    assert!(idle.rest().await.is_empty());
    broker.stop().await;
}

#[tokio::test]
async fn a_stop_tells_the_clients() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let a = channel(&broker.url()).await;
    a.queue_declare("q".into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
    let mut consumer = a.basic_consume("q".into(), "".into(), Default::default(), FieldTable::default()).await.unwrap();
    assert!(consumer.next().now_or_never().is_none());
    broker.stop().await;
    let end = tokio::time::timeout(WAIT, consumer.next()).await.expect("the consumer ends");
    assert!(end.is_none_or(|delivery| delivery.is_err()));
}
