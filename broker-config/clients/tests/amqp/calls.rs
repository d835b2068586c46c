//! Requests and replies.

use std::time::Duration;

use clients::amqp::{AmqpError, CALL_TIMEOUT, Link, LinkState, Outgoing, Subscription};
use contract::message::VERSION;
use serde::{Deserialize, Serialize};

use crate::{
    relay::Relay,
    test_broker::{TestBroker, in_time, name, queue, reconnected, settings},
};

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Sum {
    v: u32,
    terms: Vec<u32>,
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Total {
    v: u32,
    total: u32,
}

fn sum(terms: &[u32]) -> Sum {
    Sum { v: VERSION, terms: terms.to_vec() }
}

/// Answers with sums until its queue is closed; an empty list gets no reply.
async fn answer(link: Link, queue_name: String) {
    let mut questions = link.subscribe(Subscription::plain(queue_name, 64)).await.unwrap();
    while let Some(question) = questions.next().await {
        let sum: Sum = question.message().unwrap();
        if !sum.terms.is_empty() {
            let total = Total { v: VERSION, total: sum.terms.iter().sum() };
            let answer = Outgoing::message("", question.reply_to.clone().unwrap(), &total).unwrap().transient().optional();
            let answer = answer.correlation(question.correlation_id.clone().unwrap());
            if let Err(error) = link.publisher().publish(answer).await {
                assert!(error.is_transient(), "{error}");
            }
        }
        questions.acker().ack(question.tag);
    }
}

#[tokio::test]
async fn every_question_gets_its_own_answer() {
    in_time(async {
        let broker = TestBroker::start().await;
        let (link, queue_name) = (broker.link().await, name("asks"));
        link.declare(&queue(&queue_name)).await.unwrap();
        let answering = tokio::spawn(answer(link.clone(), queue_name.clone()));
        let caller = link.caller().await.unwrap();
        let asking: Vec<_> = (0..100u32)
            .map(|number| {
                let (caller, key) = (caller.clone(), queue_name.clone());
                tokio::spawn(async move { caller.call::<_, Total>("", key, &sum(&[number, 1]), CALL_TIMEOUT).await })
            })
            .collect();
        for (number, asked) in asking.into_iter().enumerate() {
            assert_eq!(asked.await.unwrap().unwrap().total, number as u32 + 1);
        }
        link.close().await;
        answering.await.unwrap();
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn nobody_there_is_told_at_once_and_silence_after_a_while() {
    in_time(async {
        let broker = TestBroker::start().await;
        let (link, queue_name) = (broker.link().await, name("silence"));
        let caller = link.caller().await.unwrap();
        let nobody = caller.call::<_, Total>("", queue_name.clone(), &sum(&[1]), crate::test_broker::PATIENCE).await;
        assert!(matches!(nobody, Err(AmqpError::Returned { .. })), "{nobody:?}");
        link.declare(&queue(&queue_name)).await.unwrap();
        let answering = tokio::spawn(answer(link.clone(), queue_name.clone()));
        let silence = caller.call::<_, Total>("", queue_name.clone(), &sum(&[]), Duration::from_millis(50)).await;
        assert!(matches!(silence, Err(AmqpError::Timeout { .. })), "{silence:?}");
        assert_eq!(caller.call::<_, Total>("", queue_name, &sum(&[2, 3]), CALL_TIMEOUT).await.unwrap().total, 5);
        link.close().await;
        answering.await.unwrap();
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_answer_of_another_version_is_named() {
    in_time(async {
        let broker = TestBroker::start().await;
        let (link, queue_name) = (broker.link().await, name("version"));
        link.declare(&queue(&queue_name)).await.unwrap();
        let mut questions = link.subscribe(Subscription::plain(&queue_name, 1)).await.unwrap();
        let caller = link.caller().await.unwrap();
        let asking = tokio::spawn(async move { caller.call::<_, Total>("", queue_name, &sum(&[1]), CALL_TIMEOUT).await });
        let question = questions.next().await.unwrap();
        let newer = Outgoing::message("", question.reply_to.unwrap(), &Total { v: VERSION + 1, total: 0 }).unwrap();
        link.publisher().publish(newer.correlation(question.correlation_id.unwrap())).await.unwrap();
        let error = asking.await.unwrap().unwrap_err();
        assert!(matches!(error, AmqpError::Body(_)), "{error}");
        link.close().await;
        broker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_private_queue_is_made_anew_and_old_questions_fail() {
    in_time(async {
        let broker = TestBroker::start().await;
        let relay = Relay::start(broker.address()).await;
        let link = Link::open(settings(&broker.url_through(relay.address()))).await.unwrap();
        let queue_name = name("private");
        link.declare(&queue(&queue_name)).await.unwrap();
        let answering = tokio::spawn(answer(link.clone(), queue_name.clone()));
        let caller = link.caller().await.unwrap();
        assert_eq!(caller.call::<_, Total>("", queue_name.clone(), &sum(&[1]), CALL_TIMEOUT).await.unwrap().total, 1);
        let mut reply_to = caller.reply_to();
        let old = reply_to.borrow_and_update().clone().unwrap();
        let (waiting, key) = (caller.clone(), queue_name.clone());
        let unanswered = tokio::spawn(async move { waiting.call::<_, Total>("", key, &sum(&[]), crate::test_broker::PATIENCE).await });
        while link.depth(&queue_name).await.unwrap().unwrap().ready > 0 {}
        relay.cut();
        link.state().wait_for(|state| *state == LinkState::Connecting).await.unwrap();
        let lost = unanswered.await.unwrap().unwrap_err();
        assert!(lost.is_transient(), "{lost}");
        relay.heal();
        reconnected(&link, 1).await;
        let new = reply_to.wait_for(|queue| queue.as_ref().is_some_and(|queue| *queue != old)).await.unwrap().clone();
        assert!(new.is_some());
        loop {
            match caller.call::<_, Total>("", queue_name.clone(), &sum(&[2, 2]), CALL_TIMEOUT).await {
                Ok(total) => break assert_eq!(total.total, 4),
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
        }
        link.close().await;
        answering.await.unwrap();
        broker.stop().await;
    })
    .await;
}
