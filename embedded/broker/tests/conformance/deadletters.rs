//! Dead letters: their causes, their routes, and their `x-death` header.

use lapin::{
    BasicProperties,
    options::*,
    types::{AMQPValue, FieldTable},
};

use crate::test_broker::*;

fn to(exchange: &str, key: &str) -> FieldTable {
    table([("x-dead-letter-exchange", text(exchange)), ("x-dead-letter-routing-key", text(key))])
}

/// The latest death: queue, reason, count.
fn death(properties: &BasicProperties) -> (AMQPValue, AMQPValue, AMQPValue) {
    let Some(AMQPValue::FieldArray(deaths)) = header(properties, "x-death") else { panic!("no x-death") };
    let AMQPValue::FieldTable(death) = deaths.as_slice()[0].clone() else { panic!("no table") };
    let field = |name: &str| death.inner().get(name).unwrap().clone();
    (field("queue"), field("reason"), field("count"))
}

async fn reject(channel: &lapin::Channel, queue: &str) {
    get(channel, queue).await.reject(BasicRejectOptions { requeue: false }).await.unwrap();
}

#[tokio::test]
async fn a_rejected_message_goes_to_the_dead_letter_exchange() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let dead_queue = s.queue(&channel, "dead", FieldTable::default()).await;
        let queue = s.queue(&channel, "q", to("", &dead_queue)).await;
        publish_with(&channel, "", &queue, "x", BasicProperties::default().with_correlation_id("c".into())).await;
        reject(&channel, &queue).await;
        let dead = await_message(&channel, &dead_queue).await;
        assert_eq!(death(&dead.properties), (text(&queue), text("rejected"), AMQPValue::LongLongInt(1)));
        assert_eq!(header(&dead.properties, "x-first-death-queue"), Some(text(&queue)));
        assert_eq!(dead.properties.correlation_id().as_ref().unwrap().as_str(), "c");
    })
    .await;
}

#[tokio::test]
async fn without_a_key_the_old_one_is_kept() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let exchange = s.exchange(&channel, "x", lapin::ExchangeKind::Topic).await;
        let dead_queue = s.queue(&channel, "dead", FieldTable::default()).await;
        let queue = s.queue(&channel, "q", table([("x-dead-letter-exchange", text(&exchange))])).await;
        bind(&channel, &dead_queue, &exchange, &queue).await;
        publish(&channel, "", &queue, "x").await;
        reject(&channel, &queue).await;
        assert_eq!(await_message(&channel, &dead_queue).await.routing_key.as_str(), queue);
    })
    .await;
}

#[tokio::test]
async fn the_same_death_again_counts_up() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let (a, b) = (s.name("a"), s.name("b"));
        s.queue(&channel, "a", to("", &b)).await;
        s.queue(&channel, "b", to("", &a)).await;
        publish(&channel, "", &a, "x").await;
        reject(&channel, &a).await;
        reject_when_ready(&channel, &b).await;
        reject_when_ready(&channel, &a).await;
        let dead = await_message(&channel, &b).await;
        assert_eq!(death(&dead.properties), (text(&a), text("rejected"), AMQPValue::LongLongInt(2)));
    })
    .await;
}

async fn reject_when_ready(channel: &lapin::Channel, queue: &str) {
    let mut consumer = consume(channel, queue, "").await;
    next(&mut consumer).await.reject(BasicRejectOptions { requeue: false }).await.unwrap();
    channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await.unwrap();
}

#[tokio::test]
async fn a_circle_of_expiries_ends() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.name("q");
        let mut arguments = to("", &name);
        arguments.insert("x-message-ttl".into(), int(1));
        s.queue(&channel, "q", arguments).await;
        let bell = s.queue(&channel, "bell", FieldTable::default()).await;
        let mut clock = to("", &bell);
        clock.insert("x-message-ttl".into(), int(150));
        let clock = s.queue(&channel, "clock", clock).await;
        publish(&channel, "", &name, "x").await;
        publish(&channel, "", &clock, "tick").await;
        await_message(&channel, &bell).await;
        assert_eq!(counts(&channel, &name).await.0, 0);
    })
    .await;
}

#[tokio::test]
async fn too_many_messages_push_the_oldest_out() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let dead_queue = s.queue(&channel, "dead", FieldTable::default()).await;
        let mut arguments = to("", &dead_queue);
        arguments.insert("x-max-length".into(), int(2));
        let queue = s.queue(&channel, "q", arguments).await;
        for body in ["a", "b", "c"] {
            publish(&channel, "", &queue, body).await;
        }
        let dead = await_message(&channel, &dead_queue).await;
        assert_eq!((dead.data.as_slice(), death(&dead.properties).1), (&b"a"[..], text("maxlen")));
        assert_eq!(drain(&channel, &queue).await, ["b", "c"]);
    })
    .await;
}

#[tokio::test]
async fn a_missing_dead_letter_exchange_drops() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let queue = s.queue(&channel, "q", table([("x-dead-letter-exchange", text(&s.name("none")))])).await;
        publish(&channel, "", &queue, "x").await;
        reject(&channel, &queue).await;
        assert_eq!(counts(&channel, &queue).await.0, 0);
    })
    .await;
}

#[tokio::test]
async fn a_delivery_limit_ends_in_the_dead_letter_queue() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let dead_queue = s.queue(&channel, "dead", FieldTable::default()).await;
        let name = s.name("q");
        let mut arguments = to("", &dead_queue);
        arguments.insert("x-queue-type".into(), text("quorum"));
        arguments.insert("x-delivery-limit".into(), int(2));
        declare(&channel, &name, QueueDeclareOptions { durable: true, ..Default::default() }, arguments).await.unwrap();
        prefetch(&channel, 1).await;
        publish(&channel, "", &name, "x").await;
        let mut consumer = consume(&channel, &name, "").await;
        for expected in [None, Some(1), Some(2)] {
            let delivery = next(&mut consumer).await;
            assert_eq!(header(&delivery.properties, "x-delivery-count"), expected.map(AMQPValue::LongLongInt));
            assert_eq!(delivery.redelivered, expected.is_some());
            delivery.nack(BasicNackOptions { requeue: true, ..Default::default() }).await.unwrap();
        }
        let dead = await_message(&channel, &dead_queue).await;
        assert_eq!(death(&dead.properties).1, text("delivery_limit"));
        channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    })
    .await;
}
