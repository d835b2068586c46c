//! Consumes events, heartbeats and questions, decodes them and hands them to the engine.
//!
//! Events are acknowledged after the commit that stores them. Unreadable ones go to the dead-letter queue.

use broker_config::{metrics::UNREADABLE_MESSAGES, topology};
use clients::amqp::{Acker, Consumer, Delivery};
use contract::message::{EventBatch, Heartbeat, Request};
use tokio::sync::{mpsc, watch};
use tracing::warn;

use crate::{
    Engine,
    messages::{Input, ReplyTo, Settled},
};

/// Acknowledges deliveries whose events are stored and dead-letters those that can never be.
pub(super) async fn settle(acker: Acker, mut settled: mpsc::Receiver<Vec<Settled>>) {
    while let Some(deliveries) = settled.recv().await {
        for delivery in deliveries {
            match delivery {
                Settled::Done(tag) => acker.ack(tag),
                Settled::Dead(tag) => acker.reject_to_dead(tag),
            }
        }
    }
}

async fn next(consumer: &mut Consumer, stop: &mut watch::Receiver<bool>) -> Option<Delivery> {
    tokio::select! {
        delivery = consumer.next() => delivery,
        _ = stop.wait_for(|stop| *stop) => None,
    }
}

/// Whether a message came by the exchange that its kind is published to; others may be allowed to publish elsewhere.
fn is_from(delivery: &Delivery, exchange: &str, queue: &'static str) -> bool {
    let is_from = delivery.exchange == exchange;
    if !is_from {
        warn!(from = delivery.exchange, key = delivery.routing_key, queue, "a message that did not come by {exchange} is refused");
        UNREADABLE_MESSAGES.of([queue]).increment(1);
    }
    is_from
}

fn back(delivery: &Delivery) -> Option<ReplyTo> {
    let reply_to = delivery.reply_to.clone()?;
    Some(ReplyTo { reply_to, correlation_id: delivery.correlation_id.clone() })
}

pub(super) async fn events(mut consumer: Consumer, engine: Engine, mut stop: watch::Receiver<bool>) {
    let acker = consumer.acker();
    while let Some(delivery) = next(&mut consumer, &mut stop).await {
        if !is_from(&delivery, topology::EVENTS, "events") {
            acker.reject_to_dead(delivery.tag);
            continue;
        }
        match delivery.format.read_versioned::<EventBatch>(&delivery.body) {
            Ok(batch) => {
                if engine.put(Input::Events { batch, tag: delivery.tag }).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                warn!(%error, key = delivery.routing_key, "an event batch cannot be read; it goes to the dead queue");
                UNREADABLE_MESSAGES.of(["events"]).increment(1);
                acker.reject_to_dead(delivery.tag);
            }
        }
    }
}

pub(super) async fn heartbeats(mut consumer: Consumer, engine: Engine, mut stop: watch::Receiver<bool>) {
    while let Some(delivery) = next(&mut consumer, &mut stop).await {
        if !is_from(&delivery, topology::HEARTBEATS, "heartbeats") {
            continue;
        }
        match delivery.format.read_versioned::<Heartbeat>(&delivery.body) {
            Ok(heartbeat) => {
                let back = back(&delivery);
                if engine.put(Input::Heartbeat(Box::new(heartbeat), back)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                warn!(%error, "a heartbeat cannot be read");
                UNREADABLE_MESSAGES.of(["heartbeats"]).increment(1);
            }
        }
    }
}

pub(super) async fn requests(mut consumer: Consumer, engine: Engine, mut stop: watch::Receiver<bool>) {
    let acker = consumer.acker();
    while let Some(delivery) = next(&mut consumer, &mut stop).await {
        if !is_from(&delivery, topology::REQUESTS, "requests") {
            acker.reject_to_dead(delivery.tag);
            continue;
        }
        match (delivery.format.read_versioned::<Request>(&delivery.body), back(&delivery)) {
            (Ok(request), Some(back)) => {
                if engine.put(Input::Request(request.what, back)).await.is_err() {
                    return;
                }
                // Acknowledged before it is answered: an agent repeats a question without an answer.
                acker.ack(delivery.tag);
            }
            (Ok(_), None) => {
                warn!("a request without reply_to was refused");
                acker.reject_to_dead(delivery.tag);
            }
            (Err(error), _) => {
                warn!(%error, "a request cannot be read; it goes to the dead queue");
                UNREADABLE_MESSAGES.of(["requests"]).increment(1);
                acker.reject_to_dead(delivery.tag);
            }
        }
    }
}
