//! Ack, nack, reject, recover, and the order and flag of what comes back.

use lapin::{options::*, types::FieldTable};

use crate::test_broker::*;

const REQUEUE: BasicNackOptions = BasicNackOptions { multiple: false, requeue: true };

#[tokio::test]
async fn an_unacked_message_comes_back_flagged_when_its_channel_closes() {
    with_broker(async |s| {
        let keeper = s.channel().await;
        let name = s.name("q");
        declare(&keeper, &name, QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
        publish(&keeper, "", &name, "x").await;
        let channel = s.channel().await;
        assert!(!get(&channel, &name).await.redelivered);
        channel.close(200, "".into()).await.unwrap();
        let again = await_message(&keeper, &name).await;
        assert!(again.redelivered);
        keeper.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_was_only_waiting_is_not_flagged() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        publish(&channel, "", &name, "a").await;
        publish(&channel, "", &name, "b").await;
        get(&channel, &name).await.nack(REQUEUE).await.unwrap();
        let (first, second) = (get(&channel, &name).await, get(&channel, &name).await);
        assert_eq!((first.data.as_slice(), first.redelivered), (&b"a"[..], true));
        assert_eq!((second.data.as_slice(), second.redelivered), (&b"b"[..], false));
    })
    .await;
}

#[tokio::test]
async fn returned_messages_take_their_old_places() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        for body in ["a", "b", "c", "d"] {
            publish(&channel, "", &name, body).await;
        }
        let (a, b, c) = (get(&channel, &name).await, get(&channel, &name).await, get(&channel, &name).await);
        for message in [&b, &a, &c] {
            message.nack(REQUEUE).await.unwrap();
        }
        assert_eq!(drain(&channel, &name).await, ["a", "b", "c", "d"]);
    })
    .await;
}

#[tokio::test]
async fn ack_multiple_takes_all_before() {
    with_broker(async |s| {
        let connection = s.connect().await;
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        for body in ["a", "b", "c"] {
            publish(&channel, "", &name, body).await;
        }
        let worker = connection.create_channel().await.unwrap();
        get(&worker, &name).await;
        get(&worker, &name).await.ack(BasicAckOptions { multiple: true }).await.unwrap();
        get(&worker, &name).await;
        worker.close(200, "".into()).await.unwrap();
        assert_eq!(await_message(&channel, &name).await.data, b"c");
        assert_eq!(counts(&channel, &name).await.0, 0);
    })
    .await;
}

#[tokio::test]
async fn nack_multiple_returns_all_before() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        for body in ["a", "b", "c"] {
            publish(&channel, "", &name, body).await;
        }
        get(&channel, &name).await;
        get(&channel, &name).await.nack(BasicNackOptions { multiple: true, requeue: true }).await.unwrap();
        assert_eq!(drain(&channel, &name).await, ["a", "b", "c"]);
    })
    .await;
}

#[tokio::test]
async fn tag_zero_with_multiple_means_everything() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        for body in ["a", "b"] {
            publish(&channel, "", &name, body).await;
            get(&channel, &name).await;
        }
        channel.basic_nack(0, BasicNackOptions { multiple: true, requeue: true }).await.unwrap();
        assert_eq!(drain(&channel, &name).await, ["a", "b"]);
        channel.basic_ack(0, BasicAckOptions { multiple: true }).await.unwrap();
        assert_eq!(counts(&channel, &name).await.0, 0);
    })
    .await;
}

#[tokio::test]
async fn reject_without_requeue_drops() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        publish(&channel, "", &name, "x").await;
        get(&channel, &name).await.reject(BasicRejectOptions { requeue: false }).await.unwrap();
        assert_eq!(counts(&channel, &name).await.0, 0);
    })
    .await;
}

#[tokio::test]
async fn reject_with_requeue_returns() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        publish(&channel, "", &name, "x").await;
        get(&channel, &name).await.reject(BasicRejectOptions { requeue: true }).await.unwrap();
        assert!(get(&channel, &name).await.redelivered);
    })
    .await;
}

#[tokio::test]
async fn an_unknown_tag_is_406_and_returns_the_channels_other_messages() {
    with_broker(async |s| {
        let connection = s.connect().await;
        let keeper = connection.create_channel().await.unwrap();
        keeper.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let name = s.queue(&keeper, "q", FieldTable::default()).await;
        publish(&keeper, "", &name, "x").await;
        let channel = connection.create_channel().await.unwrap();
        get(&channel, &name).await;
        channel.basic_ack(99, BasicAckOptions::default()).await.unwrap();
        let refused = channel.queue_purge(name.as_str().into(), QueuePurgeOptions::default()).await;
        assert!(refused.is_err());
        assert!(await_message(&keeper, &name).await.redelivered);
    })
    .await;
}

#[tokio::test]
async fn acking_twice_is_406() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        publish(&channel, "", &name, "x").await;
        let tag = get(&channel, &name).await.delivery_tag;
        channel.basic_ack(tag, BasicAckOptions::default()).await.unwrap();
        counts(&channel, &name).await;
        channel.basic_ack(tag, BasicAckOptions::default()).await.unwrap();
        assert!(channel.queue_purge(name.as_str().into(), QueuePurgeOptions::default()).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn recover_returns_everything_unacked() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        for body in ["a", "b"] {
            publish(&channel, "", &name, body).await;
            get(&channel, &name).await;
        }
        channel.basic_recover(BasicRecoverOptions { requeue: true }).await.unwrap();
        let again = get(&channel, &name).await;
        assert_eq!((again.data.as_slice(), again.redelivered), (&b"a"[..], true));
    })
    .await;
}

#[tokio::test]
async fn without_ack_a_message_is_gone_when_delivered() {
    with_broker(async |s| {
        let connection = s.connect().await;
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        publish(&channel, "", &name, "x").await;
        let worker = connection.create_channel().await.unwrap();
        assert_eq!(take(&worker, &name).await.unwrap().data, b"x");
        worker.close(200, "".into()).await.unwrap();
        assert_eq!(counts(&channel, &name).await.0, 0);
    })
    .await;
}

#[tokio::test]
async fn get_tells_how_many_are_left() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        assert!(take(&channel, &name).await.is_none());
        for body in ["a", "b", "c"] {
            publish(&channel, "", &name, body).await;
        }
        let message = take(&channel, &name).await.unwrap();
        assert_eq!(message.message_count, 2);
        assert_eq!(message.routing_key.as_str(), name);
        assert_eq!(message.exchange.as_str(), "");
    })
    .await;
}
