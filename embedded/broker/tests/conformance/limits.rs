//! Length limits and message size.

use lapin::{BasicProperties, options::*, types::FieldTable};

use crate::test_broker::*;

#[tokio::test]
async fn drop_head_keeps_the_newest() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", table([("x-max-length", int(2)), ("x-overflow", text("drop-head"))])).await;
        for body in ["a", "b", "c", "d"] {
            assert!(publish(&channel, "", &name, body).await.is_ack());
        }
        assert_eq!(drain(&channel, &name).await, ["c", "d"]);
    })
    .await;
}

#[tokio::test]
async fn bytes_are_limited_too() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", table([("x-max-length-bytes", int(10))])).await;
        for body in ["aaaa", "bbbb", "cccc"] {
            publish(&channel, "", &name, body).await;
        }
        assert_eq!(drain(&channel, &name).await, ["bbbb", "cccc"]);
    })
    .await;
}

#[tokio::test]
async fn reject_publish_nacks_and_keeps_the_oldest() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", table([("x-max-length", int(2)), ("x-overflow", text("reject-publish"))])).await;
        let mut last_was_nack = false;
        // The limit is approximate on some brokers, so a few more are tried.
        for _ in 0..20 {
            last_was_nack = publish(&channel, "", &name, "x").await.is_nack();
        }
        assert!(last_was_nack);
        assert!(counts(&channel, &name).await.0 <= 4);
        drain(&channel, &name).await;
        assert!(publish(&channel, "", &name, "y").await.is_ack());
    })
    .await;
}

#[tokio::test]
async fn unacked_messages_do_not_count_for_the_length() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", table([("x-max-length", int(1))])).await;
        publish(&channel, "", &name, "a").await;
        let held = get(&channel, &name).await;
        publish(&channel, "", &name, "b").await;
        assert_eq!(counts(&channel, &name).await.0, 1);
        held.ack(BasicAckOptions::default()).await.unwrap();
        assert_eq!(drain(&channel, &name).await, ["b"]);
    })
    .await;
}

#[tokio::test]
async fn a_forged_user_id_is_406() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        let user = |name: &str| BasicProperties::default().with_user_id(name.into());
        assert!(publish_with(&channel, "", &name, "x", user("guest")).await.is_ack());
        let result = channel.basic_publish("".into(), name.as_str().into(), Default::default(), b"x", user("root")).await.unwrap().await;
        assert_eq!(code(result.map(drop)), 406);
    })
    .await;
}
