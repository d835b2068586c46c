//! Priority queues.

use lapin::{BasicProperties, options::*, types::FieldTable};

use crate::test_broker::*;

fn priority(level: u8) -> BasicProperties {
    BasicProperties::default().with_priority(level)
}

#[tokio::test]
async fn higher_priorities_come_first_and_equal_ones_in_order() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", table([("x-max-priority", int(10))])).await;
        for (body, level) in [("low-1", 1), ("high-1", 9), ("low-2", 1), ("high-2", 9), ("none", 0)] {
            publish_with(&channel, "", &name, body, priority(level)).await;
        }
        assert_eq!(drain(&channel, &name).await, ["high-1", "high-2", "low-1", "low-2", "none"]);
    })
    .await;
}

#[tokio::test]
async fn above_the_maximum_counts_as_the_maximum() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", table([("x-max-priority", int(5))])).await;
        publish_with(&channel, "", &name, "five", priority(5)).await;
        publish_with(&channel, "", &name, "two hundred", priority(200)).await;
        publish_with(&channel, "", &name, "none", BasicProperties::default()).await;
        assert_eq!(drain(&channel, &name).await, ["five", "two hundred", "none"]);
    })
    .await;
}

#[tokio::test]
async fn a_returned_message_keeps_its_priority() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", table([("x-max-priority", int(5))])).await;
        publish_with(&channel, "", &name, "high", priority(5)).await;
        publish_with(&channel, "", &name, "low", priority(1)).await;
        get(&channel, &name).await.nack(BasicNackOptions { requeue: true, ..Default::default() }).await.unwrap();
        assert_eq!(drain(&channel, &name).await, ["high", "low"]);
    })
    .await;
}

#[tokio::test]
async fn without_the_argument_priorities_mean_nothing() {
    with_broker(async |s| {
        let channel = s.channel().await;
        let name = s.queue(&channel, "q", FieldTable::default()).await;
        publish_with(&channel, "", &name, "low", priority(1)).await;
        publish_with(&channel, "", &name, "high", priority(9)).await;
        assert_eq!(drain(&channel, &name).await, ["low", "high"]);
    })
    .await;
}
