//! The dispatcher's side of the broker: consumes events, heartbeats and questions, and publishes the engine's outputs.

pub mod dead_letters;
mod declarer;
mod errands;
pub mod files;
mod inbound;
pub mod invocations;
mod outbound;
mod queues;
mod starts;
mod sweep;
mod ticker;

use std::sync::Arc;

use broker_config::topology;
use clients::{
    amqp::{Acker, AmqpError, Link, Subscription},
    blobs::Blobs,
};
use model::submission::Answer;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

pub use files::Files;
pub use invocations::{Invocation, Invocations};
pub use queues::Queues;

use store::read::Read;

use self::declarer::Declarer;
use crate::{Engine, Outlets};

/// Unacknowledged event deliveries at most.
const EVENTS_PREFETCH: u16 = 256;
/// Questions that are being answered at most.
const REQUESTS_PREFETCH: u16 = 256;

/// Batches of answers to submissions that wait to be sent; the engine bounds how many answers are in hand.
const ANSWERS_MAX: usize = 128;

/// Loops that run once the broker is connected, and the handles to them.
pub struct Running {
    /// Every loop.
    pub loops: JoinSet<()>,
    /// Settles events.
    pub events: Acker,
    /// Answers to submissions, with the numbers of their errands: how they went is told by [`Input::Errands`](crate::Input).
    pub answers: mpsc::Receiver<Vec<(u64, Answer)>>,
}

/// Declares the topology and starts all loops, which end with the engine or with `stop`. `store` is this store's id,
/// which marks the bucket as its own.
pub async fn run(
    link: &Link,
    (blobs, read, store): (&Blobs, Arc<dyn Read>, String),
    engine: &Engine,
    outlets: Outlets,
    stop: watch::Receiver<bool>,
) -> Result<Running, AmqpError> {
    link.declare(&topology::base()).await?;
    let events = link.subscribe(Subscription::plain(topology::EVENT_QUEUE, EVENTS_PREFETCH)).await?;
    let mut heartbeats = Subscription::plain(topology::HEARTBEAT_QUEUE, EVENTS_PREFETCH);
    heartbeats.no_ack = true;
    let heartbeats = link.subscribe(heartbeats).await?;
    let asks = link.subscribe(Subscription::plain(topology::ASK_QUEUE, REQUESTS_PREFETCH)).await?;
    let scale = link.subscribe(Subscription::plain(topology::SCALE_QUEUE, REQUESTS_PREFETCH)).await?;
    let mut loops = JoinSet::new();
    let acker = events.acker();
    loops.spawn(inbound::settle(acker.clone(), outlets.settled));
    loops.spawn(inbound::events(events, engine.clone(), stop.clone()));
    loops.spawn(inbound::heartbeats(heartbeats, engine.clone(), stop.clone()));
    loops.spawn(inbound::requests(asks, engine.clone(), stop.clone()));
    loops.spawn(inbound::requests(scale, engine.clone(), stop.clone()));
    let (declarer, declaring) = Declarer::new(link.clone(), engine.clone());
    loops.spawn(declaring);
    let (answers, told) = mpsc::channel(ANSWERS_MAX);
    loops.spawn(outbound::run(link.clone(), blobs.clone(), (declarer, answers), engine.clone(), outlets.outputs));
    loops.spawn(sweep::run(blobs.clone(), read, engine.clone(), store, stop.clone()));
    let (looks, look) = watch::channel(ticker::Look::none());
    loops.spawn(ticker::run(engine.clone(), link.state(), look, stop.clone()));
    loops.spawn(ticker::look(link.clone(), engine.clone(), looks, stop.clone()));
    loops.spawn(ticker::probe(link.clone(), stop));
    Ok(Running { loops, events: acker, answers: told })
}
