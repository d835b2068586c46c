//! Expiry of messages and queues.

use lapin::{BasicProperties, options::*, types::FieldTable};

use crate::test_broker::*;

fn expiring(ms: &str) -> BasicProperties {
    BasicProperties::default().with_expiration(ms.into())
}

/// A queue with a dead letter queue, so that an expiry can be waited for.
async fn with_dead_queue(s: &TestBroker, channel: &lapin::Channel, mut arguments: FieldTable) -> (String, String) {
    let dead_queue = s.queue(channel, "dead", FieldTable::default()).await;
    arguments.insert("x-dead-letter-exchange".into(), text(""));
    arguments.insert("x-dead-letter-routing-key".into(), text(&dead_queue));
    (s.queue(channel, "q", arguments).await, dead_queue)
}

#[tokio::test]
async fn a_message_expires_by_its_own_time() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let (queue, dead_queue) = with_dead_queue(s, &channel, FieldTable::default()).await;
        publish_with(&channel, "", &queue, "x", expiring("30")).await;
        let dead = await_message(&channel, &dead_queue).await;
        assert_eq!(header(&dead.properties, "x-first-death-reason"), Some(text("expired")));
        assert_eq!(dead.properties.expiration(), &None);
        assert_eq!(counts(&channel, &queue).await.0, 0);
    })
    .await;
}

#[tokio::test]
async fn a_message_expires_by_its_queues_time() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let (queue, dead_queue) = with_dead_queue(s, &channel, table([("x-message-ttl", int(30))])).await;
        publish(&channel, "", &queue, "x").await;
        assert_eq!(await_message(&channel, &dead_queue).await.data, b"x");
    })
    .await;
}

#[tokio::test]
async fn the_shorter_time_counts() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let (queue, dead_queue) = with_dead_queue(s, &channel, table([("x-message-ttl", int(3_600_000))])).await;
        publish_with(&channel, "", &queue, "x", expiring("20")).await;
        assert_eq!(await_message(&channel, &dead_queue).await.data, b"x");
        let arguments =
            table([("x-message-ttl", int(20)), ("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text(&dead_queue))]);
        let other = s.queue(&channel, "short", arguments).await;
        publish_with(&channel, "", &other, "y", expiring("3600000")).await;
        assert_eq!(await_message(&channel, &dead_queue).await.data, b"y");
    })
    .await;
}

#[tokio::test]
async fn time_zero_delivers_at_once_or_never() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        publish_with(&channel, "", &name, "late", expiring("0")).await;
        assert!(take(&channel, &name).await.is_none());
        let mut consumer = consume(&channel, &name, "").await;
        publish_with(&channel, "", &name, "now", expiring("0")).await;
        assert_eq!(next(&mut consumer).await.data, b"now");
    })
    .await;
}

#[tokio::test]
async fn a_message_behind_one_that_stays_expires_at_the_head() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let (queue, dead_queue) = with_dead_queue(s, &channel, FieldTable::default()).await;
        publish(&channel, "", &queue, "stays").await;
        publish_with(&channel, "", &queue, "goes", expiring("1")).await;
        assert_eq!(take(&channel, &queue).await.unwrap().data, b"stays");
        assert_eq!(await_message(&channel, &dead_queue).await.data, b"goes");
    })
    .await;
}

#[tokio::test]
async fn a_wrong_expiration_is_406() {
    with_broker(async |s| {
        for wrong in ["soon", "-1", ""] {
            let channel = s.channel().await;
            let name = s.queue(&channel, "q", FieldTable::default()).await;
            let result =
                channel.basic_publish("".into(), name.as_str().into(), Default::default(), b"x", expiring(wrong)).await.unwrap().await;
            assert_eq!(code(result.map(drop)), 406, "{wrong:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_unused_queue_expires() {
    with_broker(async |s| {
        let connection = s.connect().await;
        let channel = connection.create_channel().await.unwrap();
        let exchange = s.exchange(&channel, "x", lapin::ExchangeKind::Fanout).await;
        let name = s.name("q");
        declare(&channel, &name, QueueDeclareOptions::default(), table([("x-expires", int(50))])).await.unwrap();
        bind(&channel, &name, &exchange, "").await;
        // The exchange is deleted with its last binding, so its end shows the queue's.
        loop {
            let probe = connection.create_channel().await.unwrap();
            let passive = ExchangeDeclareOptions { passive: true, ..Default::default() };
            let seen = probe.exchange_declare(exchange.as_str().into(), lapin::ExchangeKind::Fanout, passive, FieldTable::default()).await;
            if seen.is_err() {
                assert_eq!(code(seen), 404);
                break;
            }
            probe.close(200, "".into()).await.unwrap();
        }
        let passive = QueueDeclareOptions { passive: true, ..Default::default() };
        assert_eq!(code(declare(&channel, &name, passive, FieldTable::default()).await), 404);
    })
    .await;
}

#[tokio::test]
async fn a_consumed_queue_does_not_expire() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", table([("x-expires", int(30))])).await;
        let mut consumer = consume(&channel, &name, "").await;
        let (other, dead_queue) = with_dead_queue_named(s, &channel).await;
        publish_with(&channel, "", &other, "tick", expiring("120")).await;
        await_message(&channel, &dead_queue).await;
        publish(&channel, "", &name, "x").await;
        assert_eq!(next(&mut consumer).await.data, b"x");
    })
    .await;
}

/// A message that expires, as a clock.
async fn with_dead_queue_named(s: &TestBroker, channel: &lapin::Channel) -> (String, String) {
    let dead_queue = s.queue(channel, "bell", FieldTable::default()).await;
    let arguments = table([("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text(&dead_queue))]);
    (s.queue(channel, "clock", arguments).await, dead_queue)
}
