//! Queues: declare, bind, purge, delete, and refused operations.

use futures::StreamExt;
use lapin::{options::*, types::FieldTable};

use crate::test_broker::*;

#[tokio::test]
async fn the_server_names_a_nameless_queue() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
        let first = declare(&channel, "", options, FieldTable::default()).await.unwrap();
        let second = declare(&channel, "", options, FieldTable::default()).await.unwrap();
        assert!(first.name().as_str().starts_with("amq.gen-"));
        assert_ne!(first.name(), second.name());
    })
    .await;
}

#[tokio::test]
async fn an_empty_name_means_the_last_declared_queue() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        publish(&channel, "", &name, "x").await;
        assert_eq!(channel.queue_purge("".into(), QueuePurgeOptions::default()).await.unwrap(), 1);
    })
    .await;
}

#[tokio::test]
async fn an_empty_name_without_a_declared_queue_is_refused() {
    with_broker(async |s| {
        let channel = s.channel().await;
        assert_eq!(code(channel.queue_purge("".into(), QueuePurgeOptions::default()).await), 404);
    })
    .await;
}

#[tokio::test]
async fn passive_declare_of_a_missing_queue_is_404_and_closes_only_the_channel() {
    with_broker(async |s| {
        let connection = s.connect().await;
        let channel = connection.create_channel().await.unwrap();
        let other = connection.create_channel().await.unwrap();
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        assert_eq!(code(declare(&channel, &s.name("none"), options, FieldTable::default()).await), 404);
        assert!(!channel.status().connected());
        s.queue(&other, "q", FieldTable::default()).await;
        connection.create_channel().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn declaring_again_the_same_way_is_fine_and_counts() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        publish(&channel, "", &name, "x").await;
        let _consumer_less = s.queue(&channel, "q", FieldTable::default()).await;
        assert_eq!(counts(&channel, &name).await, (1, 0));
    })
    .await;
}

#[tokio::test]
async fn declaring_again_another_way_is_406() {
    with_broker(async |s| {
        let name = s.name("q");
        let keeper = s.channel().await;
        declare(&keeper, &name, QueueDeclareOptions { auto_delete: true, durable: true, ..Default::default() }, FieldTable::default())
            .await
            .unwrap();
        for options in [
            QueueDeclareOptions { auto_delete: true, durable: false, ..Default::default() },
            QueueDeclareOptions { auto_delete: false, durable: true, ..Default::default() },
        ] {
            let channel = s.channel().await;
            assert_eq!(code(declare(&channel, &name, options, FieldTable::default()).await), 406);
        }
        let channel = s.channel().await;
        let options = QueueDeclareOptions { auto_delete: true, durable: true, ..Default::default() };
        assert_eq!(code(declare(&channel, &name, options, table([("x-max-length", int(3))])).await), 406);
        keeper.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_width_of_a_number_is_no_difference() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", table([("x-max-length", int(3))])).await;
        let wide = table([("x-max-length", lapin::types::AMQPValue::LongLongInt(3))]);
        let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
        declare(&channel, &name, options, wide).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn names_of_the_server_are_reserved() {
    with_broker(async |s| {
        let channel = s.channel().await;
        assert_eq!(code(declare(&channel, "amq.mine", QueueDeclareOptions::default(), FieldTable::default()).await), 403);
    })
    .await;
}

#[tokio::test]
async fn another_connection_cannot_use_an_exclusive_queue() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        let other = s.channel().await;
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        assert_eq!(code(declare(&other, &name, options, FieldTable::default()).await), 405);
        let other = s.channel().await;
        let consumer = other.basic_consume(name.as_str().into(), "".into(), Default::default(), FieldTable::default()).await;
        assert_eq!(code(consumer.map(drop)), 405);
    })
    .await;
}

#[tokio::test]
async fn an_exclusive_queue_goes_with_its_connection() {
    with_broker(async |s| {
        let connection = s.connect().await;
        let channel = connection.create_channel().await.unwrap();
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        connection.close(200, "".into()).await.unwrap();
        let other = s.channel().await;
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        assert_eq!(code(declare(&other, &name, options, FieldTable::default()).await), 404);
    })
    .await;
}

#[tokio::test]
async fn an_auto_delete_queue_goes_with_its_last_consumer() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.name("q");
        let options = QueueDeclareOptions { auto_delete: true, ..Default::default() };
        declare(&channel, &name, options, FieldTable::default()).await.unwrap();
        let _one = consume(&channel, &name, "one").await;
        let _two = consume(&channel, &name, "two").await;
        channel.basic_cancel("one".into(), BasicCancelOptions::default()).await.unwrap();
        assert_eq!(counts(&channel, &name).await, (0, 1));
        channel.basic_cancel("two".into(), BasicCancelOptions::default()).await.unwrap();
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        assert_eq!(code(declare(&channel, &name, options, FieldTable::default()).await), 404);
    })
    .await;
}

#[tokio::test]
async fn purge_tells_how_many_and_leaves_the_unacked() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        for body in ["a", "b", "c"] {
            publish(&channel, "", &name, body).await;
        }
        let held = get(&channel, &name).await;
        assert_eq!(channel.queue_purge(name.as_str().into(), QueuePurgeOptions::default()).await.unwrap(), 2);
        held.nack(BasicNackOptions { requeue: true, ..Default::default() }).await.unwrap();
        assert_eq!(drain(&channel, &name).await, ["a"]);
    })
    .await;
}

#[tokio::test]
async fn delete_if_empty_refuses_a_queue_with_messages() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        publish(&channel, "", &name, "x").await;
        let options = QueueDeleteOptions { if_empty: true, ..Default::default() };
        assert_eq!(code(channel.queue_delete(name.as_str().into(), options).await), 406);
    })
    .await;
}

#[tokio::test]
async fn delete_if_unused_refuses_a_queue_with_consumers() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        let _consumer = consume(&channel, &name, "").await;
        let options = QueueDeleteOptions { if_unused: true, ..Default::default() };
        assert_eq!(code(channel.queue_delete(name.as_str().into(), options).await), 406);
    })
    .await;
}

#[tokio::test]
async fn delete_tells_how_many_and_a_missing_queue_is_no_error() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        publish(&channel, "", &name, "x").await;
        publish(&channel, "", &name, "y").await;
        assert_eq!(channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap(), 2);
        assert_eq!(channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn deleting_a_queue_cancels_its_consumers() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        let mut consumer = consume(&channel, &name, "").await;
        channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
        assert!(consumer.next().await.is_none());
        s.queue(&channel, "again", FieldTable::default()).await;
    })
    .await;
}

#[tokio::test]
async fn deleting_a_queue_takes_its_bindings_along() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let exchange = s.exchange(&channel, "x", lapin::ExchangeKind::Direct).await;
        let keeper = s.queue(&channel, "keeper", FieldTable::default()).await;
        bind(&channel, &keeper, &exchange, "other").await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        bind(&channel, &name, &exchange, "k").await;
        channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
        s.queue(&channel, "q", FieldTable::default()).await;
        assert!(publish(&channel, &exchange, "k", "x").await.take_message().is_some());
    })
    .await;
}

#[tokio::test]
async fn binding_needs_both_ends() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        let missing = s.name("missing");
        let bound =
            channel.queue_bind(name.as_str().into(), missing.as_str().into(), "k".into(), Default::default(), FieldTable::default()).await;
        assert_eq!(code(bound), 404);
        let channel = s.channel().await;
        let bound =
            channel.queue_bind(missing.as_str().into(), "amq.direct".into(), "k".into(), Default::default(), FieldTable::default()).await;
        assert_eq!(code(bound), 404);
    })
    .await;
}

#[tokio::test]
async fn the_default_exchange_cannot_be_bound() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        let bound = channel.queue_bind(name.as_str().into(), "".into(), "k".into(), Default::default(), FieldTable::default()).await;
        assert_eq!(code(bound), 403);
    })
    .await;
}

#[tokio::test]
async fn unbinding_what_is_not_bound_is_fine() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        channel.queue_unbind(name.as_str().into(), "amq.direct".into(), "never".into(), FieldTable::default()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn wrong_arguments_are_406() {
    with_broker(async |s| {
        for arguments in [
            table([("x-message-ttl", int(-1))]),
            table([("x-message-ttl", text("soon"))]),
            table([("x-expires", int(0))]),
            table([("x-max-length", int(-1))]),
            table([("x-overflow", text("explode"))]),
            table([("x-max-priority", int(256))]),
            table([("x-queue-type", text("stream-of-consciousness"))]),
            table([("x-dead-letter-exchange", int(1))]),
            table([("x-dead-letter-routing-key", text("k"))]),
        ] {
            let channel = s.channel().await;
            let result =
                declare(&channel, &s.name("q"), QueueDeclareOptions { exclusive: true, ..Default::default() }, arguments.clone()).await;
            assert_eq!(code(result), 406, "{arguments:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_quorum_queue_is_durable() {
    with_broker(async |s| {
        let quorum = || table([("x-queue-type", text("quorum"))]);
        let channel = s.channel().await;
        let name = s.name("q");
        assert_eq!(code(declare(&channel, &name, QueueDeclareOptions::default(), quorum()).await), 406);
        let channel = s.channel().await;
        declare(&channel, &name, QueueDeclareOptions { durable: true, ..Default::default() }, quorum()).await.unwrap();
        assert!(publish(&channel, "", &name, "x").await.is_ack());
        assert_eq!(await_message(&channel, &name).await.data, b"x");
        channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    })
    .await;
}
