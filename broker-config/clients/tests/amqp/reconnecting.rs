//! Reconnects after faults of connections, channels, queues and the broker itself.

use std::collections::BTreeSet;

use broker_config::topology::{Exchange, ExchangeKind, Topology};
use clients::amqp::{Link, LinkState, QueueTarget, Subscription};

use crate::{
    relay::Relay,
    test_broker::{TestBroker, embedded, in_time, name, publish_until_confirmed, queue, reconnected, settings, text},
};

async fn down(link: &Link) {
    link.state().wait_for(|state| *state == LinkState::Connecting).await.unwrap();
}

#[tokio::test]
async fn deliveries_in_hand_come_again_and_their_old_acks_do_nothing() {
    in_time(async {
        let broker = TestBroker::start().await;
        let relay = Relay::start(broker.address()).await;
        let link = Link::open(settings(&broker.url_through(relay.address()))).await.unwrap();
        let queue_name = name("stale");
        link.declare(&queue(&queue_name)).await.unwrap();
        let batch = (0..8).map(|number| text(&queue_name, number.to_string())).collect();
        assert!(link.publisher().publish_all(batch).await.iter().all(Result::is_ok));
        let mut consumer = link.subscribe(Subscription::plain(&queue_name, 8)).await.unwrap();
        let mut old = vec![];
        for _ in 0..8 {
            old.push(consumer.next().await.unwrap());
        }
        relay.cut();
        down(&link).await;
        relay.heal();
        reconnected(&link, 1).await;
        let mut new = vec![];
        for _ in 0..8 {
            let delivery = consumer.next().await.unwrap();
            assert!(delivery.redelivered && delivery.tag.generation > old[0].tag.generation);
            new.push(delivery);
        }
        // On the new channel these tags belong to other deliveries.
        old.iter().for_each(|delivery| consumer.acker().ack(delivery.tag));
        consumer.acker().ack_multiple(old[7].tag);
        consumer.acker().ack(new[3].tag);
        link.close().await;
        let after = broker.link().await;
        assert_eq!(after.depth(&queue_name).await.unwrap().unwrap().ready, 7);
        after.close().await;
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn nothing_confirmed_is_lost_over_many_cuts() {
    in_time(async {
        let broker = TestBroker::start().await;
        let relay = Relay::start(broker.address()).await;
        let link = Link::open(settings(&broker.url_through(relay.address()))).await.unwrap();
        let queue_name = name("cuts");
        link.declare(&queue(&queue_name)).await.unwrap();
        let mut consumer = link.subscribe(Subscription::plain(&queue_name, 20)).await.unwrap();
        let publishing = {
            let (link, queue_name) = (link.clone(), queue_name.clone());
            tokio::spawn(async move {
                for number in 0..600 {
                    publish_until_confirmed(&link, text(&queue_name, number.to_string())).await;
                }
            })
        };
        let mut seen = BTreeSet::new();
        while seen.len() < 600 {
            let delivery = consumer.next().await.unwrap();
            consumer.acker().ack(delivery.tag);
            let is_new = seen.insert(String::from_utf8(delivery.body).unwrap());
            if is_new && seen.len() % 150 == 100 {
                relay.cut();
                down(&link).await;
                relay.heal();
            }
        }
        publishing.await.unwrap();
        link.close().await;
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_half_open_connection_is_noticed_and_replaced() {
    in_time(async {
        let broker = TestBroker::start().await;
        let relay = Relay::start(broker.address()).await;
        let link = Link::open(settings(&broker.url_through(relay.address()))).await.unwrap();
        let queue_name = name("half-open");
        link.declare(&queue(&queue_name)).await.unwrap();
        relay.stall();
        let error = link.publisher().publish(text(&queue_name, "x")).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        down(&link).await;
        relay.cut();
        relay.heal();
        publish_until_confirmed(&link, text(&queue_name, "y")).await;
        assert!(link.depth(&queue_name).await.unwrap().unwrap().ready >= 1);
        link.close().await;
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_returns_is_found_again_with_all_it_confirmed() {
    in_time(async {
        let data = tempfile::tempdir().unwrap();
        let broker = embedded(data.path(), 0).await;
        let (url, port) = (broker.url(), broker.address().port());
        let link = Link::open(settings(&url)).await.unwrap();
        link.declare(&queue("kept")).await.unwrap();
        let mut consumer = link.subscribe(Subscription::plain("kept", 5)).await.unwrap();
        for number in 0..20 {
            link.publisher().publish(text("kept", number.to_string())).await.unwrap();
        }
        let first = consumer.next().await.unwrap();
        broker.stop().await;
        down(&link).await;
        let broker = embedded(data.path(), port).await;
        reconnected(&link, 1).await;
        publish_until_confirmed(&link, text("kept", "20")).await;
        consumer.acker().ack(first.tag);
        let mut seen = BTreeSet::new();
        while seen.len() < 21 {
            let delivery = consumer.next().await.unwrap();
            consumer.acker().ack(delivery.tag);
            seen.insert(String::from_utf8(delivery.body).unwrap().parse::<u32>().unwrap());
        }
        assert_eq!(seen, (0..=20).collect());
        link.close().await;
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_forgot_everything_is_told_again() {
    in_time(async {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let broker = embedded(old.path(), 0).await;
        let port = broker.address().port();
        let link = Link::open(settings(&broker.url())).await.unwrap();
        let mut topology = queue("told");
        topology.exchanges.push(Exchange { name: "test.told", kind: ExchangeKind::Direct, alternate: None });
        topology.queues[0].bindings.push(("test.told", "key".to_owned()));
        link.declare(&topology).await.unwrap();
        let mut consumer = link.subscribe(Subscription::plain("told", 5)).await.unwrap();
        broker.stop().await;
        down(&link).await;
        let broker = embedded(new.path(), port).await;
        reconnected(&link, 1).await;
        let mut outgoing = text("key", "again");
        outgoing.exchange = "test.told";
        publish_until_confirmed(&link, outgoing).await;
        assert_eq!(consumer.next().await.unwrap().body, b"again");
        link.close().await;
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_queue_deleted_under_its_consumer_is_made_and_consumed_again() {
    in_time(async {
        let broker = TestBroker::start().await;
        let (link, other, queue_name) = (broker.link().await, broker.link().await, name("deleted"));
        let pool: contract::ids::PoolId = queue_name.replace('.', "-").parse().unwrap();
        let topology: Topology = broker_config::topology::pool(&pool, broker_config::topology::QueueKind::Classic);
        link.declare(&broker_config::topology::base()).await.unwrap();
        link.declare(&topology).await.unwrap();
        let pool_queue = broker_config::topology::pool_queue(&pool);
        let mut consumer = link.subscribe(Subscription::plain(&pool_queue, 1)).await.unwrap();
        let mut generation = consumer.generation();
        other.undeclare_pool(&pool).await.unwrap();
        generation.wait_for(|generation| *generation >= 2).await.unwrap();
        publish_until_confirmed(&other, text(&pool_queue, "back")).await;
        let delivery = consumer.next().await.unwrap();
        assert_eq!(delivery.body, b"back");
        consumer.acker().ack(delivery.tag);
        assert!(consumer.slots().check().await.unwrap());
        drop(consumer);
        link.undeclare_pool(&pool).await.unwrap();
        assert_eq!(other.depth(&pool_queue).await.unwrap(), None);
        link.close().await;
        other.close().await;
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_private_queue_keeps_its_bindings_after_a_reconnect() {
    in_time(async {
        let broker = TestBroker::start().await;
        let relay = Relay::start(broker.address()).await;
        let link = Link::open(settings(&broker.url_through(relay.address()))).await.unwrap();
        link.declare(&broker_config::topology::base()).await.unwrap();
        let key = name("orders");
        let bindings = vec![(broker_config::topology::CONTROL, key.clone())];
        let plan = Subscription { queue: QueueTarget::Private { bindings }, ..Subscription::private(vec![], 16) };
        let mut orders = link.subscribe(plan).await.unwrap();
        for round in 0..2 {
            let mut order = text(&key, round.to_string()).transient();
            order.exchange = broker_config::topology::CONTROL;
            publish_until_confirmed(&link, order).await;
            assert_eq!(orders.next().await.unwrap().body, round.to_string().into_bytes());
            if round == 0 {
                relay.cut();
                down(&link).await;
                relay.heal();
                reconnected(&link, 1).await;
                orders.queue_name().wait_for(Option::is_some).await.unwrap();
            }
        }
        link.close().await;
        broker.stop().await;
    })
    .await;
}
