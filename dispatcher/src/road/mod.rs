//! The dispatcher's side of the road: consumes events, beats and questions, and publishes what the engine says.

pub mod files;
mod inbound;
mod outbound;
mod queues;
mod ticker;

use std::time::Duration;

use broker_config::{
    amqp::{AmqpError, Link, Subscription},
    topology,
};
use tokio::{sync::watch, task::JoinSet};

pub use files::Files;
pub use queues::Queues;

use crate::engine::{Engine, Outlets};

/// Unacknowledged events at most.
const EVENTS_PREFETCH: u16 = 256;
/// Questions in hand at most.
const REQUESTS_PREFETCH: u16 = 256;
/// How long a declaration may take.
const DECLARE_TIMEOUT: Duration = Duration::from_secs(10);

/// Declares the topology and starts every loop; they end with the engine or with `stop`.
pub async fn run(link: &Link, engine: &Engine, outlets: Outlets, stop: watch::Receiver<bool>) -> Result<JoinSet<()>, AmqpError> {
    link.declare(&topology::base()).await?;
    let events = link.subscribe(Subscription::plain(topology::EVENT_QUEUE, EVENTS_PREFETCH)).await?;
    let mut beats = Subscription::plain(topology::BEAT_QUEUE, EVENTS_PREFETCH);
    beats.no_ack = true;
    let beats = link.subscribe(beats).await?;
    let asks = link.subscribe(Subscription::plain(topology::ASK_QUEUE, REQUESTS_PREFETCH)).await?;
    let scale = link.subscribe(Subscription::plain(topology::SCALE_QUEUE, REQUESTS_PREFETCH)).await?;
    let mut loops = JoinSet::new();
    loops.spawn(inbound::acks(events.acker(), outlets.acks));
    loops.spawn(inbound::events(events, engine.clone(), stop.clone()));
    loops.spawn(inbound::beats(beats, engine.clone(), stop.clone()));
    loops.spawn(inbound::requests(asks, engine.clone(), stop.clone()));
    loops.spawn(inbound::requests(scale, engine.clone(), stop.clone()));
    loops.spawn(outbound::run(link.clone(), engine.clone(), outlets.outputs));
    loops.spawn(ticker::run(link.clone(), engine.clone(), stop));
    Ok(loops)
}
