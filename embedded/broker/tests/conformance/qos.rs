//! Prefetch: per consumer, and for the channel as a whole.

use lapin::{options::*, types::FieldTable};

use crate::test_broker::*;

#[tokio::test]
async fn a_consumer_gets_no_more_than_its_prefetch() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        prefetch(&channel, 2).await;
        let mut consumer = consume(&channel, &name, "").await;
        for body in ["a", "b", "c"] {
            publish(&channel, "", &name, body).await;
        }
        let first = next(&mut consumer).await;
        next(&mut consumer).await;
        assert!(arrived(&channel, &mut consumer).await.is_none());
        assert_eq!(counts(&channel, &name).await, (1, 1));
        first.ack(BasicAckOptions::default()).await.unwrap();
        assert_eq!(next(&mut consumer).await.data, b"c");
    })
    .await;
}

#[tokio::test]
async fn prefetch_holds_for_consumers_that_come_after_it() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        let mut free = consume(&channel, &name, "free").await;
        prefetch(&channel, 1).await;
        for body in ["a", "b", "c"] {
            publish(&channel, "", &name, body).await;
        }
        for _ in 0..3 {
            next(&mut free).await;
        }
    })
    .await;
}

#[tokio::test]
async fn each_consumer_has_a_prefetch_of_its_own() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        prefetch(&channel, 1).await;
        let (mut one, mut two) = (consume(&channel, &name, "one").await, consume(&channel, &name, "two").await);
        for body in ["a", "b", "c"] {
            publish(&channel, "", &name, body).await;
        }
        next(&mut one).await;
        next(&mut two).await;
        assert_eq!(counts(&channel, &name).await, (1, 2));
    })
    .await;
}

#[tokio::test]
async fn a_global_prefetch_is_shared_by_the_channels_consumers() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        channel.basic_qos(2, BasicQosOptions { global: true }).await.unwrap();
        let (mut one, mut two) = (consume(&channel, &name, "one").await, consume(&channel, &name, "two").await);
        for body in ["a", "b", "c"] {
            publish(&channel, "", &name, body).await;
        }
        let first = next(&mut one).await;
        next(&mut two).await;
        assert_eq!(counts(&channel, &name).await, (1, 2));
        first.ack(BasicAckOptions::default()).await.unwrap();
        tokio::select! {
            delivery = next(&mut one) => assert_eq!(delivery.data, b"c"),
            delivery = next(&mut two) => assert_eq!(delivery.data, b"c"),
        }
    })
    .await;
}

#[tokio::test]
async fn prefetch_does_not_bind_consumers_without_ack() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        prefetch(&channel, 1).await;
        let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let mut consumer = consume_with(&channel, &name, "", options, FieldTable::default()).await;
        for body in ["a", "b", "c"] {
            publish(&channel, "", &name, body).await;
        }
        for _ in 0..3 {
            next(&mut consumer).await;
        }
    })
    .await;
}

#[tokio::test]
async fn many_slots_of_one_each_share_the_work() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        prefetch(&channel, 1).await;
        let mut slots = Vec::new();
        for slot in 0..8 {
            slots.push(
                consume_with(&channel, &name, &format!("slot-{slot}"), Default::default(), table([("x-priority", int(-slot))])).await,
            );
        }
        for number in 0..8_u8 {
            publish(&channel, "", &name, [number]).await;
        }
        for (number, slot) in slots.iter_mut().enumerate() {
            assert_eq!(next(slot).await.data, [number as u8]);
        }
    })
    .await;
}
