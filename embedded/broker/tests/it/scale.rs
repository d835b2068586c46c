//! Many clients and many queues on one server.

use futures::{StreamExt, future::join_all};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind, options::*, types::FieldTable};

use crate::servers::*;

const CONNECTIONS: usize = 1_000;
const QUEUES: usize = 10_000;
/// Requests on their way at once.
const TOGETHER: usize = 500;

async fn publish_and_consume(url: &str, number: usize) -> Connection {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let name = format!("own-{number}");
    let own = QueueDeclareOptions { exclusive: true, ..Default::default() };
    channel.queue_declare(name.as_str().into(), own, FieldTable::default()).await.unwrap();
    let mut consumer = channel.basic_consume(name.as_str().into(), "c".into(), Default::default(), FieldTable::default()).await.unwrap();
    assert!(publish(&channel, "", &name, name.as_bytes(), 1).await.is_ack());
    let delivery = tokio::time::timeout(WAIT, consumer.next()).await.expect("a delivery").unwrap().unwrap();
    assert_eq!(delivery.data, name.as_bytes());
    delivery.ack(BasicAckOptions::default()).await.unwrap();
    connection
}

#[tokio::test]
async fn a_thousand_connections_publish_and_consume_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let url = broker.url();
    let mut open = Vec::new();
    for start in (0..CONNECTIONS).step_by(50) {
        open.extend(join_all((start..start + 50).map(|number| publish_and_consume(&url, number))).await);
    }
    assert_eq!(open.len(), CONNECTIONS);
    assert!(open.iter().all(|connection| connection.status().connected()));
    drop(open);
    broker.stop().await;
}

fn name(number: usize) -> String {
    format!("q{number:05}")
}

async fn declare_and_bind(channel: &Channel, number: usize) {
    let name = name(number);
    durable_queue(channel, &name, FieldTable::default()).await;
    for exchange in ["all", "one"] {
        let key = if exchange == "one" { name.as_str() } else { "" };
        channel.queue_bind(name.as_str().into(), exchange.into(), key.into(), Default::default(), FieldTable::default()).await.unwrap();
    }
}

#[tokio::test]
async fn ten_thousand_queues_are_bound_filled_and_found_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let a = channel(&broker.url()).await;
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    for (exchange, kind) in [("all", ExchangeKind::Fanout), ("one", ExchangeKind::Direct)] {
        a.exchange_declare(exchange.into(), kind, durable, FieldTable::default()).await.unwrap();
    }
    for start in (0..QUEUES).step_by(TOGETHER) {
        join_all((start..start + TOGETHER).map(|number| declare_and_bind(&a, number))).await;
    }
    assert!(publish(&a, "all", "", b"to all", 2).await.is_ack());
    for start in (0..QUEUES).step_by(TOGETHER) {
        let mut waiting = Vec::new();
        for number in start..start + TOGETHER {
            let properties = BasicProperties::default().with_delivery_mode(2);
            let name = name(number);
            waiting
                .push(a.basic_publish("one".into(), name.as_str().into(), Default::default(), name.as_bytes(), properties).await.unwrap());
        }
        for confirm in join_all(waiting).await {
            assert!(confirm.unwrap().is_ack());
        }
    }
    broker.stop().await;

    let broker = start(folder.path()).await;
    let a = channel(&broker.url()).await;
    for number in (0..QUEUES).step_by(97) {
        let name = name(number);
        assert_eq!(drain(&a, &name).await, [("to all".to_owned(), false), (name.clone(), false)]);
    }
    let last = name(QUEUES - 1);
    assert!(publish(&a, "one", &last, b"again", 2).await.is_ack());
    assert_eq!(drain(&a, &last).await.last(), Some(&("again".to_owned(), false)));
    broker.stop().await;
}
