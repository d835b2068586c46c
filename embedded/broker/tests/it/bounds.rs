//! Alarms, slow consumers, and limits.

use embedded_broker::Broker;
use futures::{FutureExt, StreamExt};
use lapin::{BasicProperties, Connection, ConnectionProperties, Event, options::*, types::FieldTable};

use crate::servers::*;

/// Waits for an event of the client library.
async fn until(events: &mut (dyn futures::Stream<Item = Event> + Unpin + Send), wanted: fn(&Event) -> bool) {
    let seen = async {
        while let Some(event) = events.next().await {
            if wanted(&event) {
                return;
            }
        }
    };
    tokio::time::timeout(WAIT, seen).await.expect("the broker sends the event");
}

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
    until(&mut events, |event| matches!(event, Event::ConnectionBlocked(_))).await;
    // Blocked while the alarm is raised, accepted once it is cleared.
    let held = tokio::spawn(async move { publish(&channel_a, "", "q", b"late", 1).await });
    let consumer = channel(&broker.url()).await;
    assert_eq!(consumer.queue_purge("q".into(), QueuePurgeOptions::default()).await.unwrap(), 3);
    assert!(tokio::time::timeout(WAIT, held).await.unwrap().unwrap().is_ack());
    until(&mut events, |event| matches!(event, Event::ConnectionUnblocked)).await;
    broker.stop().await;
}

#[tokio::test]
async fn the_disk_alarm_blocks_publishers_lets_consumers_go_on_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let publisher = Connection::connect(&broker.url(), ConnectionProperties::default()).await.unwrap();
    let mut events = publisher.events_listener();
    let a = publisher.create_channel().await.unwrap();
    a.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    durable_queue(&a, "q", FieldTable::default()).await;
    for number in 0..3 {
        assert!(publish(&a, "", "q", format!("{number}").as_bytes(), 2).await.is_ack());
    }
    broker.set_disk_free_min(u64::MAX);
    until(&mut events, |event| matches!(event, Event::ConnectionBlocked(reason) if reason == "low on disk")).await;
    let held = tokio::spawn(async move {
        let mut confirms = Vec::new();
        for number in 3..6 {
            let properties = BasicProperties::default().with_delivery_mode(2);
            let body = format!("{number}");
            confirms.push(a.basic_publish("".into(), "q".into(), Default::default(), body.as_bytes(), properties).await.unwrap());
        }
        futures::future::join_all(confirms).await
    });
    // A consumer on another connection receives the messages, and its acks free the disk.
    let consumer = channel(&broker.url()).await;
    let mut deliveries = consumer.basic_consume("q".into(), "".into(), Default::default(), FieldTable::default()).await.unwrap();
    let mut next = async || {
        let delivery = tokio::time::timeout(WAIT, deliveries.next()).await.expect("a delivery").unwrap().unwrap();
        delivery.ack(BasicAckOptions::default()).await.unwrap();
        String::from_utf8(delivery.data).unwrap()
    };
    for number in 0..3 {
        assert_eq!(next().await, format!("{number}"));
    }
    // A client that connects and publishes during the alarm is blocked as well.
    let late = Connection::connect(&broker.url(), ConnectionProperties::default()).await.unwrap();
    let mut late_events = late.events_listener();
    let late_channel = late.create_channel().await.unwrap();
    let late_publish = late_channel.basic_publish("".into(), "q".into(), Default::default(), b"6", BasicProperties::default());
    late_publish.await.unwrap();
    until(&mut late_events, |event| matches!(event, Event::ConnectionBlocked(_))).await;
    let passive = QueueDeclareOptions { passive: true, ..Default::default() };
    let count = consumer.queue_declare("q".into(), passive, FieldTable::default()).await.unwrap().message_count();
    assert!(count <= 1, "at most the first publish of the late connection came through, not {count}");
    assert!(!held.is_finished(), "a confirm came through the alarm");

    broker.set_disk_free_min(0);
    until(&mut events, |event| matches!(event, Event::ConnectionUnblocked)).await;
    until(&mut late_events, |event| matches!(event, Event::ConnectionUnblocked)).await;
    let confirms = tokio::time::timeout(WAIT, held).await.expect("confirms").unwrap();
    assert!(confirms.into_iter().all(|confirm| confirm.unwrap().is_ack()));
    let mut rest = vec![next().await, next().await, next().await, next().await];
    rest.retain(|body| body != "6");
    assert_eq!(rest, ["3", "4", "5"], "what was held comes in its order, once");
    broker.stop().await;
}

#[tokio::test]
async fn a_consumer_that_does_not_read_costs_the_server_a_bounded_amount_of_memory() {
    /// 512 MiB, far more than the server may hold: 64 MiB of messages, 64 MiB being written to disk, and a full outbox.
    const PUBLISHED: usize = 8 << 10;
    const GROWTH_MAX: u64 = 256 << 20;
    let folder = tempfile::tempdir().unwrap();
    let victim = crate::crash::Victim::start(folder.path());
    let address = victim.url.rsplit_once('@').unwrap().1.split_once('/').unwrap().0.parse().unwrap();
    let a = channel(&victim.url).await;
    let stuck = crate::hostile::Raw::connect(address).await.consume_everything("q").await;
    let before = victim.resident_bytes();
    let body = vec![1; 64 << 10];
    for _ in 0..PUBLISHED / 8 {
        let confirms = (0..8).map(|_| publish(&a, "", "q", &body, 2));
        assert!(futures::future::join_all(confirms).await.into_iter().all(|confirm| confirm.is_ack()));
    }
    let growth = victim.resident_bytes().saturating_sub(before);
    assert!(growth < GROWTH_MAX, "{} MiB more than before", growth >> 20);
    let passive = QueueDeclareOptions { passive: true, ..Default::default() };
    let ready = a.queue_declare("q".into(), passive, FieldTable::default()).await.unwrap().message_count() as usize;
    assert!(ready > PUBLISHED / 2, "only {ready} of {PUBLISHED} wait: the rest is on its way to somebody who does not read");
    drop(stuck);
    victim.kill();
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
async fn silent_connections_make_room_for_clients_and_those_that_logged_in_never() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.connections_max = 8;
    // No time limit ends a connection in this test.
    settings.handshake_timeout = std::time::Duration::from_secs(600);
    let broker = Broker::start(settings).await.unwrap();
    let client = channel(&broker.url()).await;
    let mut silent = vec![];
    for number in 0..40 {
        let mut raw = crate::hostile::Raw::open(&broker).await;
        if number % 2 == 0 {
            // Some of them get one step further.
            raw.send(b"AMQP\x00\x00\x09\x01").await;
        }
        silent.push(raw);
    }
    let mut clients = vec![client];
    for _ in 0..6 {
        clients.push(channel(&broker.url()).await);
    }
    assert!(silent[1].rest().await.is_empty(), "the oldest of those that said nothing is gone");
    for client in &clients {
        client.queue_declare("q".into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
    }
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
