//! Runs rules and rows in one thread: many inputs to a transaction, outputs only after its commit.
//!
//! ```text
//! doors, road ──Input──► [ begin · rules · rows · commit ] ──Output──► road, doors
//! ```
//! While a commit syncs, inputs pile up and share the next one: group commit without lingering.
//! When a commit fails, everything in memory is loaded anew from the store and the inputs are refused.

mod applications;
mod apply;
mod auto_pools;
mod chores;
mod job_life;
mod jobs;
mod message;
mod metering;
mod node_life;
mod pool_changes;
mod pools;
mod requests;
mod scaling;
mod schedules;
mod task_changes;
mod tasks;
mod tick;
mod world;

use std::{collections::HashMap, thread, time::Duration};

use broker_config::{
    amqp::Tag,
    ids::{AttemptKey, PoolId},
    message::{Beat, BeatReply, Control, EventBatch, ReplyMessage, RequestKind, TaskMessage},
    time::Timestamp,
};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, warn};

pub use task_changes::shown_constraints;
pub use world::Identity;

use crate::{
    command::{Command, Done},
    core::Timers,
    engine::world::World,
    refusal::{Code, Refusal},
    store::{Store, StoreError},
};

/// Inputs waiting at most; doors answer busy beyond that.
const INPUTS_MAX: usize = 4_096;
/// Inputs in one transaction at most.
const BATCH_MAX: usize = 512;
/// How long a door waits for its answer.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(25);
/// Output batches waiting at most; publishes beyond that are repeated from the outbox.
const OUTPUTS_MAX: usize = 1_024;

/// Where an answer goes.
#[derive(Debug, Clone)]
pub struct Back {
    /// The asker's queue.
    pub reply_to: String,
    /// The asker's number for the question.
    pub correlation_id: Option<String>,
}

/// What the engine takes in.
#[derive(Debug)]
pub enum Input {
    /// A change that people ask for.
    Command {
        /// The change.
        command: Command,
        /// Its answer.
        reply: oneshot::Sender<Result<Done, Refusal>>,
    },
    /// What agents tell.
    Events {
        /// The events.
        batch: EventBatch,
        /// Acknowledged after the commit.
        tag: Tag,
    },
    /// A sign of life.
    Beat(Beat, Option<Back>),
    /// A question of an agent or the autoscaler.
    Request(RequestKind, Back),
    /// How publishes went.
    Published(Vec<(PoolId, AttemptKey, bool)>),
    /// Time passes.
    Tick {
        /// Events wait unread.
        events_behind: bool,
        /// Messages ready, by pool, when just measured.
        depths: HashMap<PoolId, u32>,
    },
    /// End after this batch.
    Stop,
}

/// A task on its way to the broker.
#[derive(Debug, Clone)]
pub struct Release {
    /// The pool.
    pub pool: PoolId,
    /// Whether it takes several slots.
    pub is_wide: bool,
    /// The message.
    pub message: TaskMessage,
}

/// What leaves after a commit.
#[derive(Debug)]
pub enum Output {
    /// Publish these, in order.
    Publish(Vec<Release>),
    /// Answer a question.
    Reply(Back, Box<ReplyMessage>),
    /// Answer a beat.
    Beaten(Back, Box<BeatReply>),
    /// Tell agents.
    Control {
        /// The routing key: a node or a pool.
        key: String,
        /// What.
        control: Control,
    },
    /// Declare a pool's queues, then answer the door.
    Declare(PoolId, Option<(oneshot::Sender<Result<Done, Refusal>>, Done)>),
    /// Delete a pool's queues.
    Undeclare(PoolId),
}

/// A handle to the engine's thread.
#[derive(Debug, Clone)]
pub struct Engine {
    inputs: mpsc::Sender<Input>,
    pools: watch::Receiver<Vec<PoolId>>,
}

/// What the engine hands to the road.
#[derive(Debug)]
pub struct Outlets {
    /// Publishes, answers, orders.
    pub outputs: mpsc::Receiver<Vec<Output>>,
    /// Deliveries whose events are committed; bounded by the event consumer's prefetch.
    pub acks: mpsc::Receiver<Vec<Tag>>,
}

impl Engine {
    /// Loads the store and starts the thread.
    pub fn start(
        store: Box<dyn Store>,
        identity: Identity,
        timers: Timers,
    ) -> Result<(Engine, Outlets, thread::JoinHandle<()>), StoreError> {
        let mut world = World::load(store, identity, timers, Timestamp::now())?;
        let (inputs, input) = mpsc::channel(INPUTS_MAX);
        let (output, outputs) = mpsc::channel(OUTPUTS_MAX);
        let (ack, acks) = mpsc::channel(OUTPUTS_MAX);
        let (names, pools) = watch::channel(world.pool_names());
        let thread = thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || run(&mut world, input, &output, &ack, &names))
            .map_err(|source| StoreError::File { path: "engine thread".to_owned(), source })?;
        Ok((Engine { inputs, pools }, Outlets { outputs, acks }, thread))
    }

    /// Asks for a change and waits until it holds.
    pub async fn call(&self, command: Command) -> Result<Done, Refusal> {
        let (reply, answer) = oneshot::channel();
        let busy = || Refusal::new(Code::ServerBusy, "The server is busy.").hint("Try again after a few seconds.");
        self.inputs.try_send(Input::Command { command, reply }).map_err(|_| busy())?;
        match tokio::time::timeout(COMMAND_TIMEOUT, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Refusal::new(Code::ServerBusy, "The server could not store the change.")
                .hint("Try again; creating with the same id is safe.")),
            Err(_) => Err(Refusal::new(Code::OperationTimedOut, "The change was not stored in time; it may still be.")
                .hint("Read the resource to see whether it happened.")),
        }
    }

    /// Hands in something from the road; waits while the engine is behind.
    pub async fn put(&self, input: Input) -> Result<(), EngineStopped> {
        self.inputs.send(input).await.map_err(|_| EngineStopped)
    }

    /// The pools there are.
    pub fn pools(&self) -> Vec<PoolId> {
        self.pools.borrow().clone()
    }

    /// How full the inputs are, from 0 to 1.
    pub fn load(&self) -> f64 {
        1.0 - self.inputs.capacity() as f64 / INPUTS_MAX as f64
    }
}

/// The engine's thread has ended.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the engine has stopped")]
pub struct EngineStopped;

fn run(
    world: &mut World,
    mut input: mpsc::Receiver<Input>,
    output: &mpsc::Sender<Vec<Output>>,
    ack: &mpsc::Sender<Vec<Tag>>,
    names: &watch::Sender<Vec<PoolId>>,
) {
    let first = world.take_outputs();
    if output.try_send(first).is_err() {
        warn!("the first publishes wait in the outbox");
    }
    let mut stop = false;
    while !stop {
        let Some(first) = input.blocking_recv() else { break };
        let mut next = Some(first);
        let mut acks = Vec::new();
        let mut count = 0;
        let now = Timestamp::now();
        let mut result = world.begin();
        while let Some(item) = next.take() {
            stop |= matches!(item, Input::Stop);
            if result.is_ok() {
                result = world.take(item, now, &mut acks);
            } else {
                world.refuse(item);
            }
            count += 1;
            if count < BATCH_MAX && !stop {
                next = input.try_recv().ok();
            }
        }
        let result = result.and_then(|()| world.finish(now)).and_then(|()| world.commit());
        metrics::counter!("piecework_engine_batches").increment(1);
        metrics::histogram!("piecework_engine_batch_inputs").record(count as f64);
        match result {
            Ok(()) => {
                if !world.has_pools(&names.borrow()) {
                    names.send_replace(world.pool_names());
                }
                send(world, output);
                world.answer();
                if !acks.is_empty() && ack.blocking_send(acks).is_err() {
                    break;
                }
            }
            Err(error) => {
                error!(%error, source = ?std::error::Error::source(&error), "the store refused a transaction; loading anew");
                world.abandon();
                if let Err(error) = world.reload(Timestamp::now()) {
                    error!(%error, "the store cannot be loaded; the dispatcher stops");
                    break;
                }
                send(world, output);
            }
        }
    }
}

/// Publishes that find no room stay in the outbox and are tried again as questions.
fn send(world: &mut World, output: &mpsc::Sender<Vec<Output>>) {
    let outputs = world.take_outputs();
    if outputs.is_empty() {
        return;
    }
    if let Err(mpsc::error::TrySendError::Full(outputs)) = output.try_send(outputs) {
        warn!("the road is behind; publishes wait in the outbox");
        world.not_sent(outputs, Timestamp::now());
    }
}
