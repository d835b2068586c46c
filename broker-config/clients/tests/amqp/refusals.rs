//! Errors are reported at once, are readable, and never contain a password.

use clients::amqp::{AmqpError, Link, LinkState, SlotConsumer, Subscription};

use crate::test_broker::{TestBroker, in_time, name, queue, reconnected, settings, text};

fn words(error: &AmqpError) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text} {cause} {cause:?}");
        source = cause.source();
    }
    text
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_named_without_the_password() {
    in_time(async {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = Link::open(settings(&format!("amqp://user:hush@{free}/%2f"))).await.err().unwrap();
        assert!(matches!(&error, AmqpError::Connect { host, .. } if *host == free.to_string()), "{error:?}");
        assert!(!words(&error).contains("hush"));
    })
    .await;
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_not_repeated() {
    in_time(async {
        let broker = TestBroker::start().await;
        let error = Link::open(settings(&format!("amqp://guest:hush@{}/%2f", broker.address()))).await.err().unwrap();
        assert!(matches!(error, AmqpError::Connect { .. }), "{error:?}");
        assert!(!words(&error).contains("hush"), "{}", words(&error));
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn what_is_no_broker_url_is_refused() {
    for url in ["", "http://user:hush@host/", "amqp://user:hush@host:port/", "amqp://user:hush@host:99999/"] {
        let error = in_time(Link::open(settings(url))).await.err().unwrap();
        assert!(matches!(error, AmqpError::Url), "{url}: {error:?}");
        assert!(!words(&error).contains("hush"));
    }
}

#[tokio::test]
async fn a_missing_queue_refuses_its_consumer_and_harms_nobody() {
    in_time(async {
        let broker = TestBroker::start().await;
        let link = broker.link().await;
        let error = link.subscribe(Subscription::plain(name("missing"), 1)).await.err().unwrap();
        assert!(matches!(error, AmqpError::Refused { code: 404, .. }), "{error:?}");
        assert!(!error.is_transient());
        let error = link.purge(&name("missing")).await.unwrap_err();
        assert!(matches!(error, AmqpError::Refused { code: 404, .. }), "{error:?}");
        assert_eq!(*link.state().borrow(), LinkState::Connected { generation: 1 });
        link.close().await;
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_missing_exchange_refuses_the_message_and_the_link_mends() {
    in_time(async {
        let broker = TestBroker::start().await;
        let (link, queue_name) = (broker.link().await, name("missing-exchange"));
        link.declare(&queue(&queue_name)).await.unwrap();
        let mut outgoing = text(&queue_name, "x");
        outgoing.exchange = "test.missing";
        let error = link.publisher().publish(outgoing).await.unwrap_err();
        assert!(matches!(error, AmqpError::Refused { code: 404, .. }), "{error:?}");
        reconnected(&link, 1).await;
        link.publisher().publish(text(&queue_name, "y")).await.unwrap();
        link.close().await;
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_queue_of_another_kind_is_refused() {
    in_time(async {
        let broker = TestBroker::start().await;
        let (link, queue_name) = (broker.link().await, name("other-kind"));
        link.declare(&queue(&queue_name)).await.unwrap();
        let mut other = queue(&queue_name);
        other.queues[0].arguments.push(("x-max-length", broker_config::topology::Argument::Number(7)));
        let error = link.declare(&other).await.unwrap_err();
        assert!(matches!(error, AmqpError::Refused { code: 406, .. }), "{error:?}");
        link.close().await;
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn names_that_the_protocol_cannot_carry_are_refused_here() {
    in_time(async {
        let broker = TestBroker::start().await;
        let link = broker.link().await;
        let long = "k".repeat(256);
        let errors = [
            link.publisher().publish(text(&long, "x")).await.unwrap_err(),
            link.publisher().send(text(&long, "x")).await.unwrap_err(),
            link.publisher().publish_all(vec![text("q", "x").id(&long)]).await.remove(0).unwrap_err(),
            link.depth(&long).await.unwrap_err(),
            link.declare(&queue(&long)).await.unwrap_err(),
            link.subscribe(Subscription::plain(&long, 1)).await.err().unwrap(),
        ];
        for error in errors {
            assert!(matches!(error, AmqpError::TooLong { length: 256, .. }), "{error:?}");
        }
        link.close().await;
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_closed_link_says_so() {
    in_time(async {
        let broker = TestBroker::start().await;
        let (link, queue_name) = (broker.link().await, name("closed"));
        link.declare(&queue(&queue_name)).await.unwrap();
        let mut plan = Subscription::plain(&queue_name, 1);
        plan.slots = vec![SlotConsumer { slot: 7, priority: None }];
        let mut consumer = link.subscribe(plan).await.unwrap();
        link.close().await;
        link.close().await;
        assert_eq!(*link.state().borrow(), LinkState::Closed);
        assert!(consumer.next().await.is_none() && consumer.try_next().is_none());
        let error = link.publisher().publish(text(&queue_name, "x")).await.unwrap_err();
        assert!(matches!(error, AmqpError::Closed), "{error:?}");
        assert!(link.subscribe(Subscription::plain(&queue_name, 1)).await.is_err());
        assert!(consumer.slots().pause(7).await.is_err());
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn questions_for_missing_queues_never_use_up_the_channels_of_a_connection() {
    // A connection has 2,047 numbers of channels, and the broker ends the channel of each such question.
    const QUESTIONS: usize = 2_300;
    in_time(async {
        let broker = TestBroker::start().await;
        let link = broker.link().await;
        let there = name("there");
        link.declare(&queue(&there)).await.unwrap();
        for number in 0..QUESTIONS {
            // One of them may fall upon the moment in which the connection is replaced.
            let found = match link.depth(&format!("{there}.missing.{number}")).await {
                Err(AmqpError::Disconnected) => continue,
                found => found.unwrap(),
            };
            assert!(found.is_none(), "{number}");
        }
        for _ in 0..3 {
            assert!(link.depth(&there).await.unwrap().is_some());
        }
        link.close().await;
        broker.stop().await;
    })
    .await;
}
