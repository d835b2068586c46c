//! What comes in: events, beats and questions, decoded and handed to the engine.
//!
//! Events are acknowledged after the commit that holds them. What cannot be read goes to the dead queue.

use broker_config::{
    amqp::{Acker, Consumer, Delivery, Tag},
    message::{Beat, EventBatch, Request},
};
use tokio::sync::{mpsc, watch};
use tracing::warn;

use crate::engine::{Back, Engine, Input};

/// Acknowledges deliveries whose events are safe.
pub(super) async fn acks(acker: Acker, mut tags: mpsc::Receiver<Vec<Tag>>) {
    while let Some(tags) = tags.recv().await {
        for tag in tags {
            acker.ack(tag);
        }
    }
}

async fn next(consumer: &mut Consumer, stop: &mut watch::Receiver<bool>) -> Option<Delivery> {
    tokio::select! {
        delivery = consumer.next() => delivery,
        _ = stop.wait_for(|stop| *stop) => None,
    }
}

fn back(delivery: &Delivery) -> Option<Back> {
    let reply_to = delivery.reply_to.clone()?;
    Some(Back { reply_to, correlation_id: delivery.correlation_id.clone() })
}

pub(super) async fn events(mut consumer: Consumer, engine: Engine, mut stop: watch::Receiver<bool>) {
    let acker = consumer.acker();
    while let Some(delivery) = next(&mut consumer, &mut stop).await {
        match delivery.format.read_versioned::<EventBatch>(&delivery.body) {
            Ok(batch) => {
                if engine.put(Input::Events { batch, tag: delivery.tag }).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                warn!(%error, key = delivery.routing_key, "an event batch cannot be read; it goes to the dead queue");
                metrics::counter!("piecework_unreadable_messages").increment(1);
                acker.reject_to_dead(delivery.tag);
            }
        }
    }
}

pub(super) async fn beats(mut consumer: Consumer, engine: Engine, mut stop: watch::Receiver<bool>) {
    while let Some(delivery) = next(&mut consumer, &mut stop).await {
        match delivery.format.read_versioned::<Beat>(&delivery.body) {
            Ok(beat) => {
                let back = back(&delivery);
                if engine.put(Input::Beat(beat, back)).await.is_err() {
                    return;
                }
            }
            Err(error) => warn!(%error, "a beat cannot be read"),
        }
    }
}

pub(super) async fn requests(mut consumer: Consumer, engine: Engine, mut stop: watch::Receiver<bool>) {
    let acker = consumer.acker();
    while let Some(delivery) = next(&mut consumer, &mut stop).await {
        match (delivery.format.read_versioned::<Request>(&delivery.body), back(&delivery)) {
            (Ok(request), Some(back)) => {
                if engine.put(Input::Request(request.what, back)).await.is_err() {
                    return;
                }
                // A question that dies with the dispatcher is asked again.
                acker.ack(delivery.tag);
            }
            (Ok(_), None) => {
                warn!("a request without reply_to was refused");
                acker.reject_to_dead(delivery.tag);
            }
            (Err(error), _) => {
                warn!(%error, "a request cannot be read; it goes to the dead queue");
                acker.reject_to_dead(delivery.tag);
            }
        }
    }
}
