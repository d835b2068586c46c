//! Consumers: tags, exclusivity, cancel, turns, priority, single active.

use lapin::{
    options::*,
    types::{AMQPValue, FieldTable},
};

use crate::test_broker::*;

#[tokio::test]
async fn messages_arrive_in_order() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        for number in 0..100_u8 {
            publish(&channel, "", &name, [number]).await;
        }
        let mut consumer = consume(&channel, &name, "").await;
        for number in 0..100_u8 {
            let delivery = next(&mut consumer).await;
            assert_eq!((delivery.data.as_slice(), delivery.delivery_tag), (&[number][..], u64::from(number) + 1));
            delivery.ack(BasicAckOptions::default()).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn consuming_from_a_missing_queue_is_404() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let result = channel.basic_consume(s.name("none").as_str().into(), "".into(), Default::default(), FieldTable::default()).await;
        assert_eq!(code(result.map(drop)), 404);
    })
    .await;
}

#[tokio::test]
async fn an_exclusive_consumer_keeps_others_out() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        let exclusive = BasicConsumeOptions { exclusive: true, ..Default::default() };
        let _first = consume_with(&channel, &name, "first", exclusive, FieldTable::default()).await;
        let second = channel.basic_consume(name.as_str().into(), "second".into(), Default::default(), FieldTable::default()).await;
        assert_eq!(code(second.map(drop)), 403);
    })
    .await;
}

#[tokio::test]
async fn exclusive_is_refused_where_others_consume() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        let _first = consume(&channel, &name, "first").await;
        let exclusive = BasicConsumeOptions { exclusive: true, ..Default::default() };
        let second = channel.basic_consume(name.as_str().into(), "second".into(), exclusive, FieldTable::default()).await;
        assert_eq!(code(second.map(drop)), 403);
    })
    .await;
}

#[tokio::test]
async fn after_cancel_nothing_is_delivered_and_unacked_stays_unacked() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        let mut consumer = consume(&channel, &name, "c").await;
        publish(&channel, "", &name, "a").await;
        let held = next(&mut consumer).await;
        channel.basic_cancel("c".into(), BasicCancelOptions::default()).await.unwrap();
        publish(&channel, "", &name, "b").await;
        assert_eq!(counts(&channel, &name).await, (1, 0));
        held.ack(BasicAckOptions::default()).await.unwrap();
        assert_eq!(drain(&channel, &name).await, ["b"]);
    })
    .await;
}

#[tokio::test]
async fn equal_consumers_take_turns() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        let (mut one, mut two) = (consume(&channel, &name, "one").await, consume(&channel, &name, "two").await);
        for body in ["a", "b", "c", "d"] {
            publish(&channel, "", &name, body).await;
        }
        for _ in 0..2 {
            next(&mut one).await;
            next(&mut two).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_higher_priority_is_served_first_while_it_has_room() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        prefetch(&channel, 2).await;
        let priority = |number| table([("x-priority", int(number))]);
        let mut low = consume_with(&channel, &name, "low", Default::default(), priority(-1)).await;
        let mut high = consume_with(&channel, &name, "high", Default::default(), priority(5)).await;
        for body in ["a", "b", "c"] {
            publish(&channel, "", &name, body).await;
        }
        assert_eq!(next(&mut high).await.data, b"a");
        let second = next(&mut high).await;
        assert_eq!(second.data, b"b");
        assert_eq!(next(&mut low).await.data, b"c");
        second.ack(BasicAckOptions::default()).await.unwrap();
        counts(&channel, &name).await;
        publish(&channel, "", &name, "d").await;
        assert_eq!(next(&mut high).await.data, b"d");
    })
    .await;
}

#[tokio::test]
async fn a_single_active_consumer_gets_everything_until_it_goes() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", table([("x-single-active-consumer", AMQPValue::Boolean(true))])).await;
        let mut first = consume(&channel, &name, "first").await;
        let mut second = consume(&channel, &name, "second").await;
        for body in ["a", "b"] {
            publish(&channel, "", &name, body).await;
            assert_eq!(next(&mut first).await.data, body.as_bytes());
        }
        assert!(arrived(&channel, &mut second).await.is_none());
        channel.basic_cancel("first".into(), BasicCancelOptions::default()).await.unwrap();
        publish(&channel, "", &name, "c").await;
        assert_eq!(next(&mut second).await.data, b"c");
    })
    .await;
}

#[tokio::test]
async fn cancelling_an_unknown_consumer_is_fine() {
    with_broker(async |s| {
        let channel = s.channel().await;
        channel.basic_cancel("never".into(), BasicCancelOptions::default()).await.unwrap();
        channel.basic_qos_round_trip().await;
    })
    .await;
}

#[tokio::test]
async fn large_bodies_and_empty_ones_arrive_whole() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        let mut consumer = consume(&channel, &name, "").await;
        for size in [0_usize, 1, 131_064, 131_065, 3_000_000] {
            let body: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
            publish(&channel, "", &name, &body).await;
            let delivery = next(&mut consumer).await;
            assert!(delivery.data == body, "a body of {size} bytes");
            delivery.ack(BasicAckOptions::default()).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_dead_connection_gives_its_messages_to_the_next_consumer() {
    with_broker(async |s| {
        let keeper = s.channel().await;
        let name = s.name("q");
        declare(&keeper, &name, QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
        for body in ["a", "b", "c"] {
            publish(&keeper, "", &name, body).await;
        }
        let connection = s.connect().await;
        let doomed = connection.create_channel().await.unwrap();
        let mut consumer = consume(&doomed, &name, "").await;
        next(&mut consumer).await;
        let mut heir = consume(&keeper, &name, "").await;
        connection.close(200, "".into()).await.unwrap();
        for body in ["a", "b", "c"] {
            let delivery = next(&mut heir).await;
            assert_eq!((delivery.data.as_slice(), delivery.redelivered), (body.as_bytes(), true));
        }
        keeper.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    })
    .await;
}
