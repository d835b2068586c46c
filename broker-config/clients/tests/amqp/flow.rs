//! Publishing, consuming and settling without faults.

use broker_config::topology::{Argument, Queue, Topology};
use clients::amqp::{AmqpError, Depth, Link, LinkState, Outgoing, Subscription};
use contract::body::Format;
use embedded_broker::{Broker, Settings};

use crate::test_broker::{TestBroker, embedded, in_time, name, queue, settings, text};

#[tokio::test]
async fn what_is_published_in_order_arrives_in_order_once() {
    in_time(async {
        let broker = TestBroker::start().await;
        let (link, queue_name) = (broker.link().await, name("order"));
        link.declare(&queue(&queue_name)).await.unwrap();
        let batch = (0..1000).map(|number| text(&queue_name, number.to_string())).collect();
        assert!(link.publisher().publish_all(batch).await.iter().all(Result::is_ok));
        let mut consumer = link.subscribe(Subscription::plain(&queue_name, 100)).await.unwrap();
        for number in 0..1000 {
            let delivery = consumer.next().await.unwrap();
            assert_eq!(delivery.body, number.to_string().into_bytes());
            assert!(!delivery.redelivered);
            consumer.acker().ack(delivery.tag);
        }
        link.close().await;
        assert!(consumer.next().await.is_none());
        let after = broker.link().await;
        assert_eq!(after.depth(&queue_name).await.unwrap(), Some(Depth { ready: 0, consumers: 0 }));
        after.close().await;
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_small_buffer_loses_nothing() {
    in_time(async {
        let broker = TestBroker::start().await;
        let (link, queue_name) = (broker.link().await, name("buffer"));
        link.declare(&queue(&queue_name)).await.unwrap();
        let batch = (0..2000).map(|number| text(&queue_name, number.to_string())).collect();
        assert!(link.publisher().publish_all(batch).await.iter().all(Result::is_ok));
        let plan = Subscription { buffer: 1, no_ack: true, ..Subscription::plain(&queue_name, 0) };
        let mut consumer = link.subscribe(plan).await.unwrap();
        for number in 0..2000 {
            assert_eq!(consumer.next().await.unwrap().body, number.to_string().into_bytes());
        }
        link.close().await;
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn sends_keep_their_order() {
    in_time(async {
        let broker = TestBroker::start().await;
        let (link, queue_name) = (broker.link().await, name("send"));
        link.declare(&queue(&queue_name)).await.unwrap();
        let publisher = link.publisher();
        let mut confirms = vec![];
        for number in 0..3000 {
            confirms.push(publisher.send(text(&queue_name, number.to_string())).await.unwrap());
        }
        for confirm in confirms {
            confirm.wait().await.unwrap();
        }
        let mut consumer = link.subscribe(Subscription::plain(&queue_name, 500)).await.unwrap();
        for number in 0..3000 {
            let delivery = consumer.next().await.unwrap();
            assert_eq!(delivery.body, number.to_string().into_bytes());
            consumer.acker().ack(delivery.tag);
        }
        link.close().await;
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn many_publishers_at_once_are_all_confirmed() {
    in_time(async {
        let broker = TestBroker::start().await;
        let (link, queue_name) = (broker.link().await, name("many"));
        link.declare(&queue(&queue_name)).await.unwrap();
        let tasks: Vec<_> = (0..200)
            .map(|number| {
                let (publisher, outgoing) = (link.publisher(), text(&queue_name, number.to_string()));
                tokio::spawn(async move { publisher.publish(outgoing).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        assert_eq!(link.depth(&queue_name).await.unwrap().unwrap().ready, 200);
        link.close().await;
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn exactly_the_unroutable_messages_of_a_batch_come_back() {
    in_time(async {
        let broker = TestBroker::start().await;
        let (link, queue_name) = (broker.link().await, name("mandatory"));
        link.declare(&queue(&queue_name)).await.unwrap();
        let nowhere = name("nowhere");
        let batch: Vec<Outgoing> =
            (0..500).map(|number| text(if number % 7 == 3 { &nowhere } else { &queue_name }, (number % 50).to_string())).collect();
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
        let lost = link.publisher().send(text(&nowhere, "y")).await.unwrap().wait().await;
        assert!(matches!(lost, Err(AmqpError::Returned { .. })), "{lost:?}");
        link.close().await;
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_publisher_that_gives_up_leaves_nothing_for_the_next() {
    in_time(async {
        let broker = TestBroker::start().await;
        let (link, queue_name, nowhere) = (broker.link().await, name("given-up"), name("nowhere"));
        link.declare(&queue(&queue_name)).await.unwrap();
        let publisher = link.publisher();
        for number in 0..200 {
            tokio::select! {
                biased;
                _ = publisher.publish(text(&nowhere, format!("lost {number}"))) => {}
                () = async { for _ in 0..number % 5 { tokio::task::yield_now().await } } => {}
            }
            publisher.publish(text(&queue_name, number.to_string())).await.unwrap();
        }
        assert_eq!(link.depth(&queue_name).await.unwrap().unwrap().ready, 200);
        link.close().await;
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn properties_travel_with_the_message() {
    in_time(async {
        let broker = TestBroker::start().await;
        let (link, queue_name) = (broker.link().await, name("properties"));
        link.declare(&queue(&queue_name)).await.unwrap();
        let mut outgoing = Outgoing::message("", &queue_name, &("body", 7)).unwrap().reply_to("back").correlation("c-1").id("m-1");
        outgoing.kind = Some("resize".to_owned());
        outgoing.priority = Some(3);
        link.publisher().publish(outgoing).await.unwrap();
        let mut consumer = link.subscribe(Subscription::plain(&queue_name, 1)).await.unwrap();
        let delivery = consumer.next().await.unwrap();
        assert_eq!(delivery.format, Format::MessagePack);
        assert_eq!(delivery.format.read::<(String, u32)>(&delivery.body).unwrap(), ("body".to_owned(), 7));
        assert_eq!((delivery.exchange.as_str(), &delivery.routing_key), ("", &queue_name));
        assert_eq!(delivery.reply_to.as_deref(), Some("back"));
        assert_eq!(delivery.correlation_id.as_deref(), Some("c-1"));
        assert_eq!(delivery.message_id.as_deref(), Some("m-1"));
        assert_eq!(delivery.kind.as_deref(), Some("resize"));
        link.close().await;
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_large_body_and_an_empty_one_arrive_whole() {
    in_time(async {
        let broker = TestBroker::start().await;
        let (link, queue_name) = (broker.link().await, name("sizes"));
        link.declare(&queue(&queue_name)).await.unwrap();
        let large: String = (0..3_000_000u32).map(|number| char::from(b'a' + (number % 26) as u8)).collect();
        for body in [large.as_str(), "", "x"] {
            link.publisher().publish(text(&queue_name, body)).await.unwrap();
        }
        let mut consumer = link.subscribe(Subscription::plain(&queue_name, 10)).await.unwrap();
        for body in [large.as_str(), "", "x"] {
            assert!(consumer.next().await.unwrap().body == body.as_bytes());
        }
        link.close().await;
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_nack_brings_it_back_and_a_reject_buries_it() {
    in_time(async {
        let broker = TestBroker::start().await;
        let (link, work, dead) = (broker.link().await, name("work"), name("dead"));
        let arguments =
            vec![("x-dead-letter-exchange", Argument::Text(String::new())), ("x-dead-letter-routing-key", Argument::Text(dead.clone()))];
        let mut topology: Topology = queue(&dead);
        topology.queues.push(Queue { name: work.clone(), arguments, bindings: vec![] });
        link.declare(&topology).await.unwrap();
        link.publisher().publish(text(&work, "poison")).await.unwrap();
        let mut consumer = link.subscribe(Subscription::plain(&work, 1)).await.unwrap();
        let first = consumer.next().await.unwrap();
        assert!(!first.redelivered);
        consumer.acker().nack(first.tag, true);
        let second = consumer.next().await.unwrap();
        assert!(second.redelivered);
        consumer.acker().reject_to_dead(second.tag);
        let mut graves = link.subscribe(Subscription::plain(&dead, 1)).await.unwrap();
        let buried = graves.next().await.unwrap();
        assert_eq!(buried.body, b"poison");
        assert!(buried.headers.inner().contains_key("x-death"));
        link.close().await;
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn settling_in_any_order_settles_each_once() {
    in_time(async {
        let broker = TestBroker::start().await;
        let (link, queue_name) = (broker.link().await, name("any-order"));
        link.declare(&queue(&queue_name)).await.unwrap();
        let batch = (0..600).map(|number| text(&queue_name, number.to_string())).collect();
        assert!(link.publisher().publish_all(batch).await.iter().all(Result::is_ok));
        let mut consumer = link.subscribe(Subscription::plain(&queue_name, 600)).await.unwrap();
        let mut tags = vec![];
        for _ in 0..600 {
            tags.push(consumer.next().await.unwrap().tag);
        }
        let acker = consumer.acker();
        // Later ones first, some twice, the middle as one, the first last.
        tags[400..].iter().rev().step_by(2).for_each(|tag| acker.ack(*tag));
        tokio::task::yield_now().await;
        tags[400..].iter().for_each(|tag| acker.ack(*tag));
        tags[100..200].iter().for_each(|tag| acker.ack(*tag));
        tokio::task::yield_now().await;
        acker.ack_multiple(tags[399]);
        link.close().await;
        let after = broker.link().await;
        assert_eq!(after.depth(&queue_name).await.unwrap().unwrap().ready, 0);
        after.close().await;
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_dropped_consumer_gives_back_what_it_did_not_settle() {
    in_time(async {
        let broker = TestBroker::start().await;
        let (link, queue_name) = (broker.link().await, name("given-back"));
        link.declare(&queue(&queue_name)).await.unwrap();
        let batch = (0..10).map(|number| text(&queue_name, number.to_string())).collect();
        assert!(link.publisher().publish_all(batch).await.iter().all(Result::is_ok));
        let mut first = link.subscribe(Subscription::plain(&queue_name, 10)).await.unwrap();
        let done = first.next().await.unwrap();
        first.acker().ack(done.tag);
        drop(first);
        let mut second = link.subscribe(Subscription::plain(&queue_name, 10)).await.unwrap();
        let mut rest = vec![];
        for _ in 0..9 {
            let delivery = second.next().await.unwrap();
            assert!(delivery.redelivered);
            rest.push(String::from_utf8(delivery.body).unwrap().parse::<u32>().unwrap());
        }
        rest.sort_unstable();
        assert_eq!(rest, (1..10).collect::<Vec<_>>());
        link.close().await;
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_queue_is_measured_emptied_and_missed() {
    in_time(async {
        let broker = TestBroker::start().await;
        let (link, queue_name) = (broker.link().await, name("depth"));
        assert_eq!(link.depth(&queue_name).await.unwrap(), None);
        link.declare(&queue(&queue_name)).await.unwrap();
        link.publisher().publish(text(&queue_name, "x")).await.unwrap();
        assert_eq!(link.depth(&queue_name).await.unwrap(), Some(Depth { ready: 1, consumers: 0 }));
        assert_eq!(link.purge(&queue_name).await.unwrap(), 1);
        assert_eq!(link.depth(&queue_name).await.unwrap(), Some(Depth { ready: 0, consumers: 0 }));
        link.close().await;
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_alarm_refuses_at_once_and_passes() {
    in_time(async {
        let data = tempfile::tempdir().unwrap();
        let mut limits = Settings::new(([127, 0, 0, 1], 0).into(), data.path(), "tester", "s3cret-pass");
        limits.memory_max_bytes = 1 << 20;
        let broker = Broker::start(limits).await.unwrap();
        let link = clients::amqp::Link::open(settings(&broker.url())).await.unwrap();
        link.declare(&queue("full")).await.unwrap();
        let body = "x".repeat(100_000);
        let mut state = link.state();
        let error = loop {
            match link.publisher().publish(text("full", &body)).await {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        assert!(matches!(error, AmqpError::Blocked), "{error}");
        state.wait_for(|state| matches!(state, LinkState::Blocked { .. })).await.unwrap();
        assert!(link.purge("full").await.unwrap() > 0, "the other connection goes on");
        state.wait_for(|state| matches!(state, LinkState::Connected { generation: 1 })).await.unwrap();
        link.publisher().publish(text("full", "y")).await.unwrap();
        link.close().await;
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_link_that_only_listens_learns_of_an_alarm_and_keeps_its_connections() {
    in_time(async {
        let folder = tempfile::tempdir().unwrap();
        let broker = embedded(folder.path(), 0).await;
        let link = Link::open(settings(&broker.url())).await.unwrap();
        broker.set_disk_free_min(u64::MAX);
        let mut state = link.state();
        // The broker sends the alarm to a connection after its first publishes.
        while !matches!(*state.borrow_and_update(), LinkState::Blocked { generation: 1 }) {
            tokio::select! {
                // A blocked link refuses at once.
                _ = link.probe() => tokio::task::yield_now().await,
                changed = state.changed() => changed.unwrap(),
            }
        }
        // More publishes than open channels: no channel may be opened on a connection that the broker does not read.
        let publisher = link.publisher();
        let refused = futures::future::join_all((0..3).map(|_| publisher.publish(text("nobody", "late").optional()))).await;
        assert!(refused.iter().all(|result| matches!(result, Err(AmqpError::Blocked))), "{refused:?}");
        assert!(matches!(link.probe().await, Err(AmqpError::Blocked)));
        broker.set_disk_free_min(0);
        state.wait_for(|state| matches!(state, LinkState::Connected { generation: 1 })).await.unwrap();
        link.probe().await.unwrap();
        link.close().await;
        broker.stop().await;
    })
    .await;
}
