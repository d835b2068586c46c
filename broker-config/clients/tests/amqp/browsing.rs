//! Reading a queue without consuming it, and dead letters on their way back.

use broker_config::topology::{self, Topology};
use clients::amqp::{Browser, Delivery, Outgoing, Reason, Subscription};
use contract::{body::Format, function::header, time::Timestamp};

use crate::test_broker::{TestBroker, in_time, name, queue, text};

async fn all(browser: &mut Browser) -> Vec<(Delivery, u32)> {
    let mut found = Vec::new();
    while let Some(next) = browser.next().await.unwrap() {
        found.push(next);
    }
    found
}

fn bodies(found: &[(Delivery, u32)]) -> Vec<String> {
    found.iter().map(|(message, _)| String::from_utf8(message.body.clone()).unwrap()).collect()
}

#[tokio::test]
async fn what_a_reader_does_not_remove_goes_back_to_its_place() {
    in_time(async {
        let broker = TestBroker::start().await;
        let (link, queue_name) = (broker.link().await, name("browsed"));
        link.declare(&queue(&queue_name)).await.unwrap();
        for number in 0..6 {
            link.publisher().publish(text(&queue_name, number.to_string())).await.unwrap();
        }
        let mut browser = link.browse(&queue_name).await.unwrap();
        let found = all(&mut browser).await;
        assert_eq!(bodies(&found), ["0", "1", "2", "3", "4", "5"]);
        assert_eq!(found.iter().map(|(_, left)| *left).collect::<Vec<_>>(), [5, 4, 3, 2, 1, 0]);
        browser.remove(&found[1].0).await.unwrap();
        browser.remove(&found[4].0).await.unwrap();
        browser.finish().await.unwrap();
        let mut browser = link.browse(&queue_name).await.unwrap();
        assert_eq!(bodies(&all(&mut browser).await), ["0", "2", "3", "5"]);
        // A reader that goes away in between loses nothing.
        drop(browser);
        while link.depth(&queue_name).await.unwrap().is_none_or(|depth| depth.ready < 4) {
            tokio::task::yield_now().await;
        }
        assert!(link.browse(&name("missing")).await.unwrap().next().await.unwrap().is_none());
        link.purge(&queue_name).await.unwrap();
        link.close().await;
        broker.stop().await;
    })
    .await;
}

/// A queue of its own for what the pool's queue would get.
fn invoked(queue_name: &str, key: &str) -> Topology {
    let mut bound = queue(queue_name);
    bound.queues[0].bindings = vec![(topology::INVOKE, key.to_owned())];
    bound
}

#[tokio::test]
async fn a_dead_letter_becomes_the_message_that_it_was() {
    in_time(async {
        let broker = TestBroker::start().await;
        let (link, queue_name, key) = (broker.link().await, name("invoked"), name("pool"));
        link.declare(&topology::base()).await.unwrap();
        link.declare(&invoked(&queue_name, &key)).await.unwrap();
        let mut first = Outgoing::raw(topology::INVOKE, key.clone(), b"{}".to_vec(), Format::Json).of_kind("f").id("the id");
        first = first.header("mine", "kept").header_number(header::FAILED, 2).reply_to("answers").correlation("c");
        (first.priority, first.expiration_ms) = (Some(3), Some(600_000));
        link.publisher().publish(first).await.unwrap();
        let mut consumer = link.subscribe(Subscription::plain(&queue_name, 1)).await.unwrap();
        let delivery = consumer.next().await.unwrap();
        let reason = Reason { code: "FunctionCrashed".into(), message: "it crashed".into() };
        let at = Timestamp(1_700_000_000_123);
        let mut dead = delivery.refused(&reason, at).unwrap();
        // As it would lie in the queue of dead letters, where other tests do not find it.
        (dead.exchange, dead.key) = ("", name("dead"));
        link.declare(&queue(&dead.key)).await.unwrap();
        let dead_queue = dead.key.clone();
        link.publisher().publish(dead.header_number(header::FAILED, 3).header(header::POOL, "pool")).await.unwrap();
        consumer.acker().ack(delivery.tag);

        let mut browser = link.browse(&dead_queue).await.unwrap();
        let (letter, _) = browser.next().await.unwrap().unwrap();
        let burial = letter.burial();
        assert_eq!((burial.reason.as_str(), burial.message.as_str(), burial.at), ("FunctionCrashed", "it crashed", Some(at)));
        assert_eq!((burial.exchange.as_str(), burial.routing_key.as_str()), (topology::INVOKE, key.as_str()));
        assert_eq!((letter.reply_to.as_deref(), letter.priority()), (None, None), "nothing acts upon the copy");
        assert_eq!(letter.plain_headers(), [("mine".to_owned(), "kept".to_owned())]);
        link.publisher().publish(letter.revived().unwrap()).await.unwrap();
        browser.remove(&letter).await.unwrap();
        browser.finish().await.unwrap();

        let again = consumer.next().await.unwrap();
        assert_eq!((again.message_id.as_deref(), again.kind.as_deref(), again.body.as_slice()), (Some("the id"), Some("f"), &b"{}"[..]));
        assert_eq!((again.reply_to.as_deref(), again.correlation_id.as_deref(), again.priority()), (Some("answers"), Some("c"), Some(3)));
        assert_eq!(again.headers.inner().keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["mine"]);
        consumer.acker().ack(again.tag);
        drop(consumer);
        for (exchange, key) in [(topology::TASKS, "pool"), (topology::EVENTS, "node.x"), ("", "piecework.asks")] {
            let mut forged = delivery.clone();
            (forged.exchange, forged.routing_key) = (exchange.to_owned(), key.to_owned());
            let copy = forged.refused(&reason, at).unwrap();
            link.publisher().publish(Outgoing { exchange: "", key: dead_queue.clone(), ..copy }).await.unwrap();
            let mut browser = link.browse(&dead_queue).await.unwrap();
            let (letter, _) = browser.next().await.unwrap().unwrap();
            assert_eq!(letter.revived(), None, "{exchange}: only what anybody may publish to");
            browser.remove(&letter).await.unwrap();
            browser.finish().await.unwrap();
        }
        link.close().await;
        broker.stop().await;
    })
    .await;
}
