//! Connections and channels: login, closes, and channels that end without the others.

use lapin::{Connection, ConnectionProperties, options::*, types::FieldTable};

use crate::test_broker::*;

#[tokio::test]
async fn a_wrong_password_is_refused() {
    with_broker(async |s| {
        let url = s.url.replacen(":guest@", ":wrong@", 1);
        let result = Connection::connect(&url, ConnectionProperties::default()).await;
        assert_eq!(code(result.map(drop)), 403);
    })
    .await;
}

#[tokio::test]
async fn an_unknown_vhost_is_refused() {
    with_broker(async |s| {
        let url = s.url.replace("/%2f", "/nowhere");
        let result = Connection::connect(&url, ConnectionProperties::default()).await;
        assert_eq!(code(result.map(drop)), 530);
    })
    .await;
}

#[tokio::test]
async fn channels_are_apart() {
    with_broker(async |s| {
        let connection = s.connect().await;
        let one = connection.create_channel().await.unwrap();
        let two = connection.create_channel().await.unwrap();
        let name = s.queue(&one, "q", FieldTable::default()).await;
        for channel in [&one, &two] {
            channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
            publish(channel, "", &name, "x").await;
        }
        let (a, b) = (get(&one, &name).await, get(&two, &name).await);
        assert_eq!((a.delivery_tag, b.delivery_tag), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn a_closed_channels_number_can_be_used_again() {
    with_broker(async |s| {
        let connection = s.connect().await;
        for _ in 0..5 {
            let channel = connection.create_channel().await.unwrap();
            channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
            let name = s.queue(&channel, "q", FieldTable::default()).await;
            assert!(publish(&channel, "", &name, "x").await.is_ack());
            channel.close(200, "".into()).await.unwrap();
        }
        let channel = connection.create_channel().await.unwrap();
        assert_eq!(counts(&channel, &s.name("q")).await.0, 5);
    })
    .await;
}

#[tokio::test]
async fn after_a_channel_error_the_connection_goes_on() {
    with_broker(async |s| {
        let connection = s.connect().await;
        for _ in 0..3 {
            let channel = connection.create_channel().await.unwrap();
            let passive = QueueDeclareOptions { passive: true, ..Default::default() };
            assert_eq!(code(declare(&channel, &s.name("none"), passive, FieldTable::default()).await), 404);
        }
        let channel = connection.create_channel().await.unwrap();
        s.queue(&channel, "q", FieldTable::default()).await;
    })
    .await;
}

#[tokio::test]
async fn immediate_is_not_implemented() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let options = BasicPublishOptions { immediate: true, ..Default::default() };
        let result = channel.basic_publish("".into(), "k".into(), options, b"x", Default::default()).await.unwrap().await;
        assert_eq!(code(result.map(drop)), 540);
    })
    .await;
}

#[tokio::test]
async fn many_channels_work_side_by_side() {
    with_broker(async |s| {
        let connection = s.connect().await;
        let mut channels = Vec::new();
        for number in 0..100 {
            let channel = connection.create_channel().await.unwrap();
            channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
            let name = s.queue(&channel, &format!("q{number}"), FieldTable::default()).await;
            channels.push((channel, name));
        }
        for (channel, name) in &channels {
            assert!(publish(channel, "", name, "x").await.is_ack());
        }
        for (channel, name) in &channels {
            assert_eq!(drain(channel, name).await, ["x"]);
        }
    })
    .await;
}

#[tokio::test]
async fn a_heartbeat_can_be_asked_for() {
    with_broker(async |s| {
        let url = format!("{}?heartbeat=1", s.url);
        let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        s.queue(&channel, "q", FieldTable::default()).await;
    })
    .await;
}
