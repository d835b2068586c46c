//! Slots: one consumer each on one channel, paused and resumed one by one.

use clients::amqp::{Consumer, Delivery, Link, SlotConsumer, Subscription};

use crate::{
    relay::Relay,
    test_broker::{TestBroker, in_time, name, queue, reconnected, settings, text},
};

fn plan(queue: &str, slots: u32) -> Subscription {
    let slots = (0..slots).map(|slot| SlotConsumer { slot, priority: Some(-(slot as i32)) }).collect();
    Subscription { slots, buffer: 64, ..Subscription::plain(queue, 1) }
}

async fn fill(link: &Link, queue_name: &str, count: u32) {
    let batch = (0..count).map(|number| text(queue_name, number.to_string())).collect();
    assert!(link.publisher().publish_all(batch).await.iter().all(Result::is_ok));
}

/// Receives deliveries until the queue has `ready` messages left, and not one more.
async fn settle_down(link: &Link, consumer: &mut Consumer, queue_name: &str, ready: u32) -> Vec<Delivery> {
    let mut taken = vec![];
    loop {
        while let Some(delivery) = consumer.try_next() {
            taken.push(delivery);
        }
        if link.depth(queue_name).await.unwrap().unwrap().ready == ready {
            break;
        }
    }
    // The broker answers in order, so what it sent before this answer is here after one more.
    link.depth(queue_name).await.unwrap();
    tokio::task::yield_now().await;
    while let Some(delivery) = consumer.try_next() {
        taken.push(delivery);
    }
    taken
}

#[tokio::test]
async fn every_slot_holds_one_and_gets_the_next_after_its_ack() {
    in_time(async {
        let broker = TestBroker::start().await;
        let (link, queue_name) = (broker.link().await, name("slots"));
        link.declare(&queue(&queue_name)).await.unwrap();
        fill(&link, &queue_name, 10).await;
        let mut consumer = link.subscribe(plan(&queue_name, 4)).await.unwrap();
        let mut held = settle_down(&link, &mut consumer, &queue_name, 6).await;
        held.sort_by_key(|delivery| delivery.slot);
        assert_eq!(held.iter().map(|delivery| delivery.slot).collect::<Vec<_>>(), [0, 1, 2, 3]);
        consumer.acker().ack(held[2].tag);
        assert_eq!(consumer.next().await.unwrap().slot, 2);
        link.close().await;
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_higher_priority_is_served_first() {
    in_time(async {
        let broker = TestBroker::start().await;
        let (link, queue_name) = (broker.link().await, name("priority"));
        link.declare(&queue(&queue_name)).await.unwrap();
        let mut consumer = link.subscribe(plan(&queue_name, 3)).await.unwrap();
        for wanted in 0..3 {
            link.publisher().publish(text(&queue_name, "x")).await.unwrap();
            assert_eq!(consumer.next().await.unwrap().slot, wanted);
        }
        link.close().await;
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_paused_slot_gets_nothing_until_it_is_resumed() {
    in_time(async {
        let broker = TestBroker::start().await;
        let (link, queue_name) = (broker.link().await, name("pause"));
        link.declare(&queue(&queue_name)).await.unwrap();
        let mut consumer = link.subscribe(plan(&queue_name, 3)).await.unwrap();
        let slots = consumer.slots();
        slots.pause(0).await.unwrap();
        slots.pause(2).await.unwrap();
        slots.pause(2).await.unwrap();
        assert_eq!(link.depth(&queue_name).await.unwrap().unwrap().consumers, 1);
        fill(&link, &queue_name, 5).await;
        for _ in 0..3 {
            let delivery = consumer.next().await.unwrap();
            assert_eq!(delivery.slot, 1);
            consumer.acker().ack(delivery.tag);
        }
        slots.pause(1).await.unwrap();
        slots.resume(2).await.unwrap();
        slots.resume(2).await.unwrap();
        // The broker decides whether the last ack came before the pause and brought slot 1 one more.
        let mut rest = vec![];
        while rest.len() < 2 {
            let delivery = consumer.next().await.unwrap();
            consumer.acker().ack(delivery.tag);
            rest.push(delivery.slot);
        }
        assert!(matches!(rest[..], [1 | 2, 2] | [2, 1]), "nothing is lost, and a paused slot gets nothing new: {rest:?}");
        assert!(slots.check().await.unwrap());
        assert_eq!(*consumer.generation().borrow(), 1, "pausing breaks nothing");
        link.close().await;
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_slot_can_be_paused_while_the_buffer_is_full() {
    in_time(async {
        let broker = TestBroker::start().await;
        let (link, queue_name) = (broker.link().await, name("full-buffer"));
        link.declare(&queue(&queue_name)).await.unwrap();
        fill(&link, &queue_name, 50).await;
        let mut consumer = link.subscribe(Subscription { buffer: 1, prefetch: 10, ..plan(&queue_name, 2) }).await.unwrap();
        let first = consumer.next().await.unwrap();
        // Both slots hold as many deliveries as they may before they are paused.
        while link.depth(&queue_name).await.unwrap().unwrap().ready > 30 {
            tokio::task::yield_now().await;
        }
        consumer.slots().pause(0).await.unwrap();
        consumer.slots().pause(1).await.unwrap();
        consumer.acker().ack(first.tag);
        for _ in 0..19 {
            let delivery = consumer.next().await.unwrap();
            consumer.acker().ack(delivery.tag);
        }
        assert_eq!(link.depth(&queue_name).await.unwrap().unwrap().ready, 30);
        link.close().await;
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_paused_slot_stays_paused_after_a_reconnect() {
    in_time(async {
        let broker = TestBroker::start().await;
        let relay = Relay::start(broker.address()).await;
        let link = Link::open(settings(&broker.url_through(relay.address()))).await.unwrap();
        let queue_name = name("paused-reconnecting");
        link.declare(&queue(&queue_name)).await.unwrap();
        let mut consumer = link.subscribe(plan(&queue_name, 3)).await.unwrap();
        consumer.slots().pause(1).await.unwrap();
        let mut generation = consumer.generation();
        relay.cut();
        link.state().wait_for(|state| *state == clients::amqp::LinkState::Connecting).await.unwrap();
        relay.heal();
        reconnected(&link, 1).await;
        generation.wait_for(|generation| *generation >= 2).await.unwrap();
        fill(&link, &queue_name, 3).await;
        let mut taken = settle_down(&link, &mut consumer, &queue_name, 1).await;
        taken.sort_by_key(|delivery| delivery.slot);
        assert_eq!(taken.iter().map(|delivery| delivery.slot).collect::<Vec<_>>(), [0, 2]);
        consumer.slots().resume(1).await.unwrap();
        assert_eq!(consumer.next().await.unwrap().slot, 1);
        link.close().await;
        broker.stop().await;
    })
    .await;
}
