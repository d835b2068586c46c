//! Publishing, consuming and settling while nothing breaks.

use broker_config::amqp::{AmqpError, Outgoing};

use crate::stage::{in_time, link, name, plain, queue, text};

#[tokio::test]
async fn what_is_published_in_order_arrives_in_order_once() {
    in_time(async {
        let (link, queue_name) = (link().await, name("order"));
        link.declare(&queue(&queue_name)).await.unwrap();
        let batch = (0..1000).map(|number| text(&queue_name, number.to_string())).collect();
        assert!(link.publisher().publish_all(batch).await.iter().all(Result::is_ok));
        let mut consumer = link.subscribe(plain(&queue_name, 100)).await.unwrap();
        for number in 0..1000 {
            let delivery = consumer.next().await.unwrap();
            assert_eq!(delivery.body, number.to_string().into_bytes());
            assert!(!delivery.redelivered);
            consumer.acker().ack(delivery.tag);
        }
        drop(consumer);
        link.close().await;
        let after = crate::stage::link().await;
        assert_eq!(after.depth(&queue_name).await.unwrap().unwrap().ready, 0);
        after.close().await;
    })
    .await;
}

#[tokio::test]
async fn sends_keep_their_order() {
    in_time(async {
        let (link, queue_name) = (link().await, name("send"));
        link.declare(&queue(&queue_name)).await.unwrap();
        let publisher = link.publisher();
        let mut confirms = vec![];
        for number in 0..3000 {
            confirms.push(publisher.send(text(&queue_name, number.to_string())).await.unwrap());
        }
        for confirm in confirms {
            confirm.wait().await.unwrap();
        }
        let mut consumer = link.subscribe(plain(&queue_name, 500)).await.unwrap();
        for number in 0..3000 {
            let delivery = consumer.next().await.unwrap();
            assert_eq!(delivery.body, number.to_string().into_bytes());
            consumer.acker().ack(delivery.tag);
        }
        link.close().await;
    })
    .await;
}

#[tokio::test]
async fn exactly_the_unroutable_messages_of_a_batch_come_back() {
    in_time(async {
        let (link, queue_name) = (link().await, name("mandatory"));
        link.declare(&queue(&queue_name)).await.unwrap();
        let nowhere = name("nowhere");
        let batch: Vec<Outgoing> =
            (0..500).map(|number| text(if number % 7 == 3 { &nowhere } else { &queue_name }, number.to_string())).collect();
        for _ in 0..5 {
            let results = link.publisher().publish_all(batch.clone()).await;
            for (number, result) in results.iter().enumerate() {
                match (number % 7 == 3, result) {
                    (true, Err(AmqpError::Returned { key, .. })) => assert_eq!(*key, nowhere),
                    (false, Ok(())) => {}
                    other => panic!("message {number}: {other:?}"),
                }
            }
        }
        assert!(link.publisher().publish(text(&nowhere, "x").optional()).await.is_ok());
        link.close().await;
    })
    .await;
}
