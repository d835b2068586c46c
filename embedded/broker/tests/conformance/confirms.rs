//! Confirms and returns.

use futures::future::join_all;
use lapin::{BasicProperties, options::*, types::FieldTable};

use crate::test_broker::*;

#[tokio::test]
async fn every_publish_is_confirmed_once() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        let mut waiting = Vec::new();
        for number in 0..500_u16 {
            let persistent = BasicProperties::default().with_delivery_mode(1 + (number % 2) as u8);
            waiting.push(channel.basic_publish("".into(), name.as_str().into(), Default::default(), b"x", persistent).await.unwrap());
        }
        for confirm in join_all(waiting).await {
            assert!(confirm.unwrap().is_ack());
        }
        assert_eq!(counts(&channel, &name).await.0, 500);
    })
    .await;
}

#[tokio::test]
async fn an_unroutable_publish_is_confirmed() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let confirm = channel
            .basic_publish("".into(), s.name("none").as_str().into(), BasicPublishOptions::default(), b"x", BasicProperties::default())
            .await
            .unwrap()
            .await
            .unwrap();
        assert!(confirm.is_ack());
        assert!(confirm.take_message().is_none());
    })
    .await;
}

#[tokio::test]
async fn a_mandatory_unroutable_publish_is_returned_before_its_confirm() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let confirm = publish_with(&channel, "", &s.name("none"), "body", BasicProperties::default().with_message_id("m1".into())).await;
        assert!(confirm.is_ack());
        let returned = confirm.take_message().expect("it was returned");
        assert_eq!((returned.reply_code, returned.data.as_slice()), (312, &b"body"[..]));
        assert_eq!(returned.properties.message_id().as_ref().unwrap().as_str(), "m1");
    })
    .await;
}

#[tokio::test]
async fn persistent_messages_to_durable_queues_are_confirmed_in_any_mix() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let durable = s.name("durable");
        declare(&channel, &durable, QueueDeclareOptions { durable: true, ..Default::default() }, FieldTable::default()).await.unwrap();
        let transient = s.queue(&channel, "transient", FieldTable::default()).await;
        let exchange = s.exchange(&channel, "x", lapin::ExchangeKind::Fanout).await;
        bind(&channel, &durable, &exchange, "").await;
        bind(&channel, &transient, &exchange, "").await;
        for mode in [1, 2] {
            assert!(publish_with(&channel, &exchange, "", "x", BasicProperties::default().with_delivery_mode(mode)).await.is_ack());
        }
        assert_eq!(counts(&channel, &durable).await.0, 2);
        channel.queue_delete(durable.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_publish_is_confirmed_while_its_message_is_held_unacked() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.name("q");
        declare(&channel, &name, QueueDeclareOptions { durable: true, ..Default::default() }, FieldTable::default()).await.unwrap();
        let mut consumer = consume(&channel, &name, "").await;
        assert!(publish_with(&channel, "", &name, "x", BasicProperties::default().with_delivery_mode(2)).await.is_ack());
        next(&mut consumer).await;
        channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    })
    .await;
}
