//! Arguments of queues and consumers: accepted values, refused types, and refused redeclarations.

use lapin::{
    BasicProperties, Channel,
    options::*,
    types::{AMQPValue, FieldTable},
};

use crate::test_broker::*;

const DURABLE: QueueDeclareOptions =
    QueueDeclareOptions { passive: false, durable: true, exclusive: false, auto_delete: false, nowait: false };

async fn drop_queue(channel: &Channel, name: &str) {
    channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.unwrap();
}

/// The text of a refusal.
fn refusal_text<T: std::fmt::Debug>(result: lapin::Result<T>) -> String {
    match result.expect_err("the broker refuses").kind() {
        lapin::ErrorKind::ProtocolError(error) => error.get_message().to_string(),
        other => panic!("not the protocol's error: {other:?}"),
    }
}

fn of_type(kind: &str, mut arguments: FieldTable) -> FieldTable {
    arguments.insert("x-queue-type".into(), text(kind));
    arguments
}

#[tokio::test]
async fn arguments_without_effect_on_one_node_are_taken_and_the_queue_works() {
    with_broker(async |s| {
        let quorum = [
            ("x-dead-letter-strategy", text("at-most-once")),
            ("x-dead-letter-strategy", text("at-least-once")),
            ("x-quorum-initial-group-size", int(3)),
            ("x-quorum-target-group-size", int(3)),
            ("x-queue-leader-locator", text("client-local")),
            ("x-queue-leader-locator", text("balanced")),
            ("x-max-in-memory-length", int(5)),
            ("x-max-in-memory-bytes", int(5)),
            ("x-consumer-timeout", int(60_000)),
            ("x-consumer-disconnected-timeout", int(60_000)),
            ("x-delayed-retry-type", text("all")),
            ("x-delivery-limit", int(-1)),
            ("x-overflow", text("reject-publish-dlx")),
        ];
        let classic = [
            ("x-queue-master-locator", text("client-local")),
            ("x-queue-mode", text("lazy")),
            ("x-queue-version", int(2)),
            ("x-consumer-timeout", int(60_000)),
        ];
        let cases = quorum.map(|case| ("quorum", case)).into_iter().chain(classic.map(|case| ("classic", case)));
        let channel = s.channel().await;
        for (kind, (argument, value)) in cases {
            let name = s.name(&format!("{kind}{argument}"));
            let arguments = of_type(kind, table([(argument, value.clone())]));
            declare(&channel, &name, DURABLE, arguments.clone())
                .await
                .unwrap_or_else(|error| panic!("{kind} {argument} {value:?}: {error}"));
            declare(&channel, &name, DURABLE, arguments).await.unwrap();
            assert!(publish(&channel, "", &name, argument).await.is_ack());
            assert_eq!(await_message(&channel, &name).await.data, argument.as_bytes());
            drop_queue(&channel, &name).await;
        }
    })
    .await;
}

#[tokio::test]
async fn consumer_arguments_without_effect_are_taken() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        for (argument, value) in [
            ("x-cancel-on-ha-failover", AMQPValue::Boolean(true)),
            ("x-consumer-timeout", int(60_000)),
            ("x-priority", int(-5)),
            ("x-stream-filter", text("f")),
            ("x-stream-match-unfiltered", AMQPValue::Boolean(true)),
        ] {
            let mut consumer = consume_with(&channel, &name, argument, Default::default(), table([(argument, value)])).await;
            publish(&channel, "", &name, argument).await;
            let delivery = next(&mut consumer).await;
            assert_eq!(delivery.data, argument.as_bytes());
            delivery.ack(BasicAckOptions::default()).await.unwrap();
            channel.basic_cancel(argument.into(), BasicCancelOptions::default()).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn arguments_of_another_type_of_queue_are_refused() {
    with_broker(async |s| {
        for (kind, argument, value) in [
            ("classic", "x-dead-letter-strategy", text("at-least-once")),
            ("classic", "x-delivery-limit", int(5)),
            ("classic", "x-quorum-initial-group-size", int(1)),
            ("classic", "x-max-in-memory-length", int(1)),
            ("classic", "x-max-age", text("1D")),
            ("quorum", "x-max-priority", int(5)),
            ("quorum", "x-queue-mode", text("lazy")),
            ("quorum", "x-queue-version", int(2)),
            ("quorum", "x-queue-master-locator", text("client-local")),
            ("quorum", "x-initial-cluster-size", int(1)),
        ] {
            let (channel, name) = (s.channel().await, s.name("q"));
            let refused = refusal_text(declare(&channel, &name, DURABLE, of_type(kind, table([(argument, value)]))).await);
            let wanted =
                format!("PRECONDITION_FAILED - invalid arg '{argument}' for queue '{name}' in vhost '/' of queue type rabbit_{kind}_queue");
            assert_eq!(refused, wanted);
        }
        let channel = s.channel().await;
        let name = s.queue(&channel, "consumed", FieldTable::default()).await;
        let arguments = table([("x-stream-offset", text("first"))]);
        let refused = channel.basic_consume(name.as_str().into(), "".into(), Default::default(), arguments).await;
        assert!(refusal_text(refused.map(drop)).ends_with("of queue type rabbit_classic_queue"));
    })
    .await;
}

#[tokio::test]
async fn a_wrong_value_is_told_in_the_brokers_words() {
    with_broker(async |s| {
        for (kind, argument, value, reason) in [
            ("classic", "x-expires", int(0), "{value_zero,0}"),
            ("classic", "x-message-ttl", int(-1), "{value_negative,-1}"),
            ("classic", "x-max-length", text("a"), "\"expected integer, got longstr\""),
            ("classic", "x-max-priority", int(256), "{max_value_exceeded,256}"),
            ("classic", "x-overflow", text("x"), "invalid_overflow"),
            ("classic", "x-overflow", int(1), "{unacceptable_type,signedint}"),
            ("classic", "x-queue-mode", text("x"), "\"unsupported queue mode 'x'\""),
            ("classic", "x-queue-version", int(3), "\"unsupported queue version '3'\""),
            ("classic", "x-single-active-consumer", int(1), "{unacceptable_type,signedint}"),
            ("classic", "x-dead-letter-routing-key", text("k"), "routing_key_but_no_dlx_defined"),
            ("quorum", "x-dead-letter-strategy", text("x"), "invalid_dlx_strategy"),
            ("quorum", "x-queue-leader-locator", text("x"), "invalid_queue_locator_arg"),
            ("quorum", "x-quorum-initial-group-size", int(0), "{value_zero,0}"),
            ("quorum", "x-max-in-memory-bytes", int(-1), "{value_negative,-1}"),
        ] {
            let (channel, name) = (s.channel().await, s.name("q"));
            let refused = refusal_text(declare(&channel, &name, DURABLE, of_type(kind, table([(argument, value)]))).await);
            assert_eq!(refused, format!("PRECONDITION_FAILED - invalid arg '{argument}' for queue '{name}' in vhost '/': {reason}"));
        }
    })
    .await;
}

#[tokio::test]
async fn quorum_queues_tell_which_property_they_cannot_have() {
    with_broker(async |s| {
        let options = |durable, exclusive, auto_delete| QueueDeclareOptions { durable, exclusive, auto_delete, ..Default::default() };
        for (options, property) in [
            (options(false, false, false), "non-durable"),
            (options(true, true, false), "exclusive-owner"),
            (options(true, false, true), "auto-delete"),
        ] {
            let (channel, name) = (s.channel().await, s.name("q"));
            let refused = refusal_text(declare(&channel, &name, options, of_type("quorum", FieldTable::default())).await);
            assert_eq!(refused, format!("PRECONDITION_FAILED - invalid property '{property}' for queue '{name}' in vhost '/'"));
        }
        let channel = s.channel().await;
        let refused = refusal_text(declare(&channel, "", DURABLE, of_type("quorum", FieldTable::default())).await);
        assert_eq!(refused, "PRECONDITION_FAILED - Cannot declare a server-named queue for type rabbit_quorum_queue");
    })
    .await;
}

#[tokio::test]
async fn a_redeclare_with_another_value_tells_both() {
    with_broker(async |s| {
        let name = s.name("q");
        let keeper = s.channel().await;
        let length = |value| table([("x-max-length", value)]);
        for (old, new, difference) in [
            (length(int(3)), FieldTable::default(), "'x-max-length' received none but current is the value '3' of type 'signedint'"),
            (FieldTable::default(), length(int(3)), "'x-max-length' received the value '3' of type 'signedint' but current is none"),
            (length(int(3)), length(AMQPValue::LongLongInt(4)), "'x-max-length' received '4' but current is '3'"),
            (
                table([("x-overflow", text("drop-head"))]),
                table([("x-overflow", text("reject-publish"))]),
                "'x-overflow' received 'reject-publish' but current is 'drop-head'",
            ),
            (
                FieldTable::default(),
                table([("x-single-active-consumer", AMQPValue::Boolean(false))]),
                "'x-single-active-consumer' received the value 'false' of type 'bool' but current is none",
            ),
            (
                FieldTable::default(),
                of_type("quorum", FieldTable::default()),
                "'x-queue-type' received the value 'quorum' of type 'longstr' but current is none",
            ),
            (
                of_type("quorum", table([("x-dead-letter-strategy", text("at-most-once"))])),
                of_type("quorum", table([("x-dead-letter-strategy", text("at-least-once"))])),
                "'x-dead-letter-strategy' received 'at-least-once' but current is 'at-most-once'",
            ),
        ] {
            declare(&keeper, &name, DURABLE, old).await.unwrap();
            let refused = refusal_text(declare(&s.channel().await, &name, DURABLE, new).await);
            let (argument, values) = difference.split_once(' ').unwrap();
            assert_eq!(refused, format!("PRECONDITION_FAILED - inequivalent arg {argument} for queue '{name}' in vhost '/': {values}"));
            drop_queue(&keeper, &name).await;
        }
        declare(&keeper, &name, DURABLE, FieldTable::default()).await.unwrap();
        let transient = QueueDeclareOptions { durable: false, ..DURABLE };
        let refused = refusal_text(declare(&s.channel().await, &name, transient, FieldTable::default()).await);
        assert!(refused.ends_with("received 'false' but current is 'true'"), "{refused}");
        drop_queue(&keeper, &name).await;
    })
    .await;
}

#[tokio::test]
async fn what_means_nothing_to_a_queue_is_not_compared() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", table([("note", text("one"))])).await;
        let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
        declare(&channel, &name, options, table([("note", text("two"))])).await.unwrap();
        declare(&channel, &name, options, of_type("classic", FieldTable::default())).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_exclusive_queue_declared_otherwise_is_locked() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        let refused = refusal_text(declare(&channel, &name, QueueDeclareOptions::default(), FieldTable::default()).await);
        let wanted = format!(
            "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{name}' in vhost '/'. It could be originally declared \
             on another connection or the exclusive property value does not match that of the original declaration."
        );
        // A reply text has room for 255 bytes.
        assert!(wanted.starts_with(refused.trim_end_matches('.')), "{refused}");
    })
    .await;
}

#[tokio::test]
async fn an_exchange_declared_otherwise_tells_both() {
    with_broker(async |s| {
        let name = s.name("x");
        let keeper = s.channel().await;
        let declare = async |channel: &Channel, kind, durable, arguments| {
            let options = ExchangeDeclareOptions { durable, ..Default::default() };
            channel.exchange_declare(name.as_str().into(), kind, options, arguments).await
        };
        declare(&keeper, lapin::ExchangeKind::Direct, false, FieldTable::default()).await.unwrap();
        let other = table([("alternate-exchange", text("a"))]);
        for (kind, durable, arguments, difference) in [
            (lapin::ExchangeKind::Fanout, false, FieldTable::default(), "'type' received 'fanout' but current is 'direct'"),
            (lapin::ExchangeKind::Direct, true, FieldTable::default(), "'durable' received 'true' but current is 'false'"),
            (
                lapin::ExchangeKind::Direct,
                false,
                other,
                "'alternate-exchange' received the value 'a' of type 'longstr' but current is none",
            ),
        ] {
            let refused = refusal_text(declare(&s.channel().await, kind, durable, arguments).await);
            let (argument, values) = difference.split_once(' ').unwrap();
            assert_eq!(refused, format!("PRECONDITION_FAILED - inequivalent arg {argument} for exchange '{name}' in vhost '/': {values}"));
        }
        keeper.exchange_delete(name.as_str().into(), Default::default()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn dead_letters_of_a_quorum_queue_arrive_with_either_strategy() {
    with_broker(async |s| {
        let channel = s.channel().await;
        for strategy in ["at-most-once", "at-least-once"] {
            let (name, dead_queue) = (s.name(strategy), s.name(&format!("{strategy}-dead")));
            declare(&channel, &dead_queue, DURABLE, of_type("quorum", FieldTable::default())).await.unwrap();
            let arguments = table([
                ("x-dead-letter-exchange", text("")),
                ("x-dead-letter-routing-key", text(&dead_queue)),
                ("x-dead-letter-strategy", text(strategy)),
                ("x-overflow", text("reject-publish")),
                ("x-message-ttl", int(50)),
            ]);
            declare(&channel, &name, DURABLE, of_type("quorum", arguments)).await.unwrap();
            publish_with(&channel, "", &name, "x", BasicProperties::default().with_delivery_mode(2)).await;
            assert_eq!(await_message(&channel, &dead_queue).await.data, b"x");
            drop_queue(&channel, &name).await;
            drop_queue(&channel, &dead_queue).await;
        }
    })
    .await;
}
