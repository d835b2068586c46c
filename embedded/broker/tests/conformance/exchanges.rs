//! Exchanges: the four kinds, bindings between them, and refused operations.

use lapin::{
    BasicProperties, Channel, ExchangeKind,
    options::*,
    types::{AMQPValue, FieldTable},
};

use crate::test_broker::*;

#[tokio::test]
async fn direct_takes_the_exact_key() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let exchange = s.exchange(&channel, "x", ExchangeKind::Direct).await;
        let (a, b) = (s.queue(&channel, "a", FieldTable::default()).await, s.queue(&channel, "b", FieldTable::default()).await);
        bind(&channel, &a, &exchange, "k").await;
        bind(&channel, &b, &exchange, "k").await;
        bind(&channel, &b, &exchange, "other").await;
        publish(&channel, &exchange, "k", "1").await;
        publish(&channel, &exchange, "other", "2").await;
        assert_eq!(drain(&channel, &a).await, ["1"]);
        assert_eq!(drain(&channel, &b).await, ["1", "2"]);
    })
    .await;
}

#[tokio::test]
async fn fanout_ignores_keys_and_delivers_once_a_queue() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let exchange = s.exchange(&channel, "x", ExchangeKind::Fanout).await;
        let queue = s.queue(&channel, "q", FieldTable::default()).await;
        bind(&channel, &queue, &exchange, "one").await;
        bind(&channel, &queue, &exchange, "two").await;
        publish(&channel, &exchange, "whatever", "x").await;
        assert_eq!(drain(&channel, &queue).await, ["x"]);
    })
    .await;
}

#[tokio::test]
async fn topic_matches_words() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let exchange = s.exchange(&channel, "x", ExchangeKind::Topic).await;
        for (queue, pattern) in [("star", "a.*.c"), ("hash", "a.#"), ("exact", "a.b.c"), ("all", "#")] {
            let queue = s.queue(&channel, queue, FieldTable::default()).await;
            bind(&channel, &queue, &exchange, pattern).await;
        }
        for key in ["a.b.c", "a", "a.x.y.c", "b"] {
            publish(&channel, &exchange, key, key).await;
        }
        assert_eq!(drain(&channel, &s.name("star")).await, ["a.b.c"]);
        assert_eq!(drain(&channel, &s.name("hash")).await, ["a.b.c", "a", "a.x.y.c"]);
        assert_eq!(drain(&channel, &s.name("exact")).await, ["a.b.c"]);
        assert_eq!(drain(&channel, &s.name("all")).await, ["a.b.c", "a", "a.x.y.c", "b"]);
    })
    .await;
}

async fn publish_headers(channel: &Channel, exchange: &str, headers: FieldTable, body: &str) -> bool {
    publish_with(channel, exchange, "", body, BasicProperties::default().with_headers(headers)).await.take_message().is_none()
}

#[tokio::test]
async fn headers_match_all_or_any() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let exchange = s.exchange(&channel, "x", ExchangeKind::Headers).await;
        let (all, any) = (s.queue(&channel, "all", FieldTable::default()).await, s.queue(&channel, "any", FieldTable::default()).await);
        bind_with(&channel, &all, &exchange, "", table([("x-match", text("all")), ("a", int(1)), ("b", text("two"))])).await;
        bind_with(&channel, &any, &exchange, "", table([("x-match", text("any")), ("a", int(1)), ("b", text("two"))])).await;
        assert!(publish_headers(&channel, &exchange, table([("a", int(1)), ("b", text("two")), ("c", int(3))]), "both").await);
        assert!(publish_headers(&channel, &exchange, table([("a", int(1))]), "one").await);
        assert!(!publish_headers(&channel, &exchange, table([("a", int(2))]), "none").await);
        assert_eq!(drain(&channel, &all).await, ["both"]);
        assert_eq!(drain(&channel, &any).await, ["both", "one"]);
    })
    .await;
}

#[tokio::test]
async fn a_header_without_a_value_matches_any_value() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let exchange = s.exchange(&channel, "x", ExchangeKind::Headers).await;
        let queue = s.queue(&channel, "q", FieldTable::default()).await;
        bind_with(&channel, &queue, &exchange, "", table([("x-match", text("all")), ("a", AMQPValue::Void)])).await;
        assert!(publish_headers(&channel, &exchange, table([("a", int(5))]), "yes").await);
        assert!(!publish_headers(&channel, &exchange, table([("b", int(5))]), "no").await);
    })
    .await;
}

#[tokio::test]
async fn exchanges_can_be_bound_to_exchanges_even_in_circles() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let first = s.exchange(&channel, "first", ExchangeKind::Topic).await;
        let second = s.exchange(&channel, "second", ExchangeKind::Fanout).await;
        let queue = s.queue(&channel, "q", FieldTable::default()).await;
        bind(&channel, &queue, &second, "").await;
        for (to, from, key) in [(&second, &first, "a.#"), (&first, &second, "a.#")] {
            channel
                .exchange_bind(to.as_str().into(), from.as_str().into(), key.into(), ExchangeBindOptions::default(), FieldTable::default())
                .await
                .unwrap();
        }
        publish(&channel, &first, "a.b", "x").await;
        assert_eq!(drain(&channel, &queue).await, ["x"]);
        channel
            .exchange_unbind(
                second.as_str().into(),
                first.as_str().into(),
                "a.#".into(),
                ExchangeUnbindOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap();
        assert!(publish_or_404(&channel, &first, "a.b").await);
    })
    .await;
}

/// True when a publish reaches no queue; the exchange may also have been deleted with its last binding.
async fn publish_or_404(channel: &Channel, exchange: &str, key: &str) -> bool {
    let published = channel
        .basic_publish(
            exchange.into(),
            key.into(),
            BasicPublishOptions { mandatory: true, ..Default::default() },
            b"x",
            BasicProperties::default(),
        )
        .await
        .unwrap()
        .await;
    match published {
        Ok(confirm) => confirm.take_message().is_some(),
        Err(error) => code::<()>(Err(error)) == 404,
    }
}

#[tokio::test]
async fn the_standard_exchanges_are_there() {
    with_broker(async |s| {
        let channel = s.channel().await;
        for (name, kind) in [
            ("amq.direct", ExchangeKind::Direct),
            ("amq.fanout", ExchangeKind::Fanout),
            ("amq.topic", ExchangeKind::Topic),
            ("amq.headers", ExchangeKind::Headers),
            ("amq.match", ExchangeKind::Headers),
        ] {
            let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
            channel.exchange_declare(name.into(), kind, options, FieldTable::default()).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn passive_declare_of_a_missing_exchange_is_404() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
        let result = channel.exchange_declare(s.name("none").as_str().into(), ExchangeKind::Direct, options, FieldTable::default()).await;
        assert_eq!(code(result), 404);
    })
    .await;
}

#[tokio::test]
async fn declaring_an_exchange_again_another_way_is_406() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.exchange(&channel, "x", ExchangeKind::Direct).await;
        let options = ExchangeDeclareOptions { auto_delete: true, ..Default::default() };
        let result = channel.exchange_declare(name.as_str().into(), ExchangeKind::Fanout, options, FieldTable::default()).await;
        assert_eq!(code(result), 406);
        let channel = s.channel().await;
        channel.exchange_delete(name.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_unknown_exchange_type_closes_the_connection() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let kind = ExchangeKind::Custom("x-no-such-type".into());
        let result =
            channel.exchange_declare(s.name("x").as_str().into(), kind, ExchangeDeclareOptions::default(), FieldTable::default()).await;
        assert_eq!(code(result), 503);
    })
    .await;
}

#[tokio::test]
async fn reserved_exchange_names_are_403() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let result = channel
            .exchange_declare("amq.mine".into(), ExchangeKind::Direct, ExchangeDeclareOptions::default(), FieldTable::default())
            .await;
        assert_eq!(code(result), 403);
        let channel = s.channel().await;
        assert_eq!(code(channel.exchange_delete("amq.direct".into(), ExchangeDeleteOptions::default()).await), 403);
    })
    .await;
}

#[tokio::test]
async fn publishing_to_a_missing_exchange_is_404() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let result = channel
            .basic_publish(s.name("none").as_str().into(), "k".into(), BasicPublishOptions::default(), b"x", BasicProperties::default())
            .await
            .unwrap()
            .await;
        assert_eq!(code(result.map(drop)), 404);
    })
    .await;
}

#[tokio::test]
async fn publishing_to_an_internal_exchange_is_403() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.name("x");
        let options = ExchangeDeclareOptions { internal: true, auto_delete: true, ..Default::default() };
        channel.exchange_declare(name.as_str().into(), ExchangeKind::Fanout, options, FieldTable::default()).await.unwrap();
        let result = channel
            .basic_publish(name.as_str().into(), "k".into(), BasicPublishOptions::default(), b"x", BasicProperties::default())
            .await
            .unwrap()
            .await;
        assert_eq!(code(result.map(drop)), 403);
        let channel = s.channel().await;
        channel.exchange_delete(name.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn delete_if_unused_refuses_an_exchange_with_bindings() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let exchange = s.exchange(&channel, "x", ExchangeKind::Direct).await;
        let queue = s.queue(&channel, "q", FieldTable::default()).await;
        bind(&channel, &queue, &exchange, "k").await;
        let options = ExchangeDeleteOptions { if_unused: true, ..Default::default() };
        assert_eq!(code(channel.exchange_delete(exchange.as_str().into(), options).await), 406);
    })
    .await;
}

#[tokio::test]
async fn deleting_a_missing_exchange_is_fine() {
    with_broker(async |s| {
        let channel = s.channel().await;
        channel.exchange_delete(s.name("none").as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_auto_delete_exchange_goes_with_its_last_binding() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let exchange = s.exchange(&channel, "x", ExchangeKind::Direct).await;
        let queue = s.queue(&channel, "q", FieldTable::default()).await;
        bind(&channel, &queue, &exchange, "k").await;
        channel.queue_unbind(queue.as_str().into(), exchange.as_str().into(), "k".into(), FieldTable::default()).await.unwrap();
        let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
        let result = channel.exchange_declare(exchange.as_str().into(), ExchangeKind::Direct, options, FieldTable::default()).await;
        assert_eq!(code(result), 404);
    })
    .await;
}

#[tokio::test]
async fn what_no_binding_takes_goes_to_the_alternate_exchange() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let fallback = s.exchange(&channel, "fallback", ExchangeKind::Fanout).await;
        let queue = s.queue(&channel, "q", FieldTable::default()).await;
        bind(&channel, &queue, &fallback, "").await;
        let name = s.name("x");
        let options = ExchangeDeclareOptions { auto_delete: true, ..Default::default() };
        channel
            .exchange_declare(name.as_str().into(), ExchangeKind::Direct, options, table([("alternate-exchange", text(&fallback))]))
            .await
            .unwrap();
        assert!(publish(&channel, &name, "nobody", "x").await.take_message().is_none());
        assert_eq!(drain(&channel, &queue).await, ["x"]);
        channel.exchange_delete(name.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    })
    .await;
}
