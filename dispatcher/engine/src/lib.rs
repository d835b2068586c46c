//! The engine: one thread that applies inputs to scheduler and store, many inputs in one transaction, and sends outputs
//! after the commit.
//!
//! ```text
//! API handlers, messaging ──Input──► [ begin · scheduler · rows · commit ] ──Output──► messaging, API handlers
//! ```
//! While a commit syncs, inputs pile up and share the next one: group commit without lingering.
//! When a commit fails, everything in memory is loaded again from the store, commands are refused and events are
//! applied again.

mod answers;
mod applications;
mod apply;
mod auto_pools;
mod awaiting;
pub mod command;
mod command_error;
mod creations;
mod damage;
mod decided;
mod errands;
mod errands_in_hand;
mod figures;
mod functions;
mod gathering;
mod job_life;
mod job_tasks;
mod jobs;
mod message;
mod messages;
pub mod messaging;
mod metering;
mod node_activity;
mod node_faults;
mod node_life;
mod pool_changes;
mod pools;
mod refits;
mod refusable;
mod refusals;
mod requests;
mod run_command;
mod scaling;
mod schedules;
mod shortage;
mod since;
mod streams;
mod submissions;
mod tally;
mod task_changes;
pub mod task_token;
mod tasks;
mod tick;
mod triggers;
mod turns;
mod world;

use std::{thread, time::Duration};

use contract::{clock::Clock, ids::PoolId};
use tokio::sync::{mpsc, oneshot, watch};

pub use figures::{Figures, PoolFigures};
pub use messages::{Activity, Input, Output, ReplyTo, Settled, TaskPublish};
pub use task_changes::shown_constraints;
pub use world::Identity;

use model::{
    health::Unreadable,
    refusal::{Code, Refusal},
    submission::NewSubmission,
    trigger::TriggerRow,
};
use scheduler::Timers;
use store::{Store, StoreError};

use crate::{
    command::{Command, Done},
    refusals::not_stored,
    shortage::Shortage,
    turns::Loop,
    world::World,
};

/// Inputs in the queue at most; API handlers answer 503 when it is full.
const INPUTS_MAX: usize = 4_096;
/// How long an API handler waits for the result of its command.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(25);
/// How long a submission waits for the store.
const SUBMIT_TIMEOUT: Duration = Duration::from_secs(120);
/// How long the metrics page waits for figures.
const FIGURES_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a reader of nodes waits for what the rows do not show yet.
const ACTIVITY_TIMEOUT: Duration = Duration::from_secs(1);
/// Output batches in the queue at most; publishes beyond that are repeated from the outbox.
const OUTPUTS_MAX: usize = 1_024;

/// Handle to the engine's thread; clones share it.
#[derive(Debug, Clone)]
pub struct Engine {
    inputs: mpsc::Sender<Input>,
    pools: watch::Receiver<Vec<PoolId>>,
    triggers: watch::Receiver<Vec<TriggerRow>>,
    refusal: watch::Receiver<Option<String>>,
    unreadable: watch::Receiver<Vec<Unreadable>>,
    shortage: Shortage,
}

/// Channels from the engine to messaging.
#[derive(Debug)]
pub struct Outlets {
    /// Publishes, answers and orders, one batch for each transaction.
    pub outputs: mpsc::Receiver<Vec<Output>>,
    /// Event deliveries to acknowledge or reject; bounded by the event consumer's prefetch.
    pub settled: mpsc::Receiver<Vec<Settled>>,
}

impl Engine {
    /// Loads the store and starts the thread.
    pub fn start(
        store: Box<dyn Store>,
        identity: Identity,
        timers: Timers,
        clock: Clock,
    ) -> Result<(Engine, Outlets, thread::JoinHandle<()>), StoreError> {
        let mut world = World::load(store, identity, timers, clock.now())?;
        let shortage = Shortage::default();
        world.shortage = shortage.clone();
        let (inputs, input) = mpsc::channel(INPUTS_MAX);
        let (output, outputs) = mpsc::channel(OUTPUTS_MAX);
        let (settle, settled) = mpsc::channel(OUTPUTS_MAX);
        let (names, pools) = watch::channel(world.pool_names());
        let (rules, triggers) = watch::channel(Vec::new());
        let (refuse, refusal) = watch::channel(None);
        let (name, unreadable) = watch::channel(Vec::new());
        let turns = Loop::new(world, clock, input, (output, settle), (names, rules), (refuse, name));
        let thread = thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || turns.run())
            .map_err(|source| StoreError::File { path: "engine thread".to_owned(), source })?;
        Ok((Engine { inputs, pools, triggers, refusal, unreadable, shortage }, Outlets { outputs, settled }, thread))
    }

    /// A handle without a thread, and the inputs that are sent to it; for tests.
    #[cfg(test)]
    pub(crate) fn detached() -> (Engine, mpsc::Receiver<Input>) {
        let (inputs, input) = mpsc::channel(INPUTS_MAX);
        let (pools, refusal, unreadable) = (watch::channel(Vec::new()).1, watch::channel(None).1, watch::channel(Vec::new()).1);
        let triggers = watch::channel(Vec::new()).1;
        (Engine { inputs, pools, triggers, refusal, unreadable, shortage: Shortage::default() }, input)
    }

    /// Sends a command and waits until its change is stored.
    pub async fn call(&self, command: Command) -> Result<Done, Refusal> {
        if command.adds()
            && let Some(reason) = self.shortage()
        {
            let refusal = Refusal::new(Code::ServerBusy, "The server's disk is full: nothing can be added until there is room.");
            return Err(refusal.with("Reason", reason).hint("Deleting jobs and tasks makes room; running tasks go on meanwhile."));
        }
        let (reply, answer) = oneshot::channel();
        let busy = || Refusal::new(Code::ServerBusy, "The server is busy.").hint("Try again after a few seconds.");
        self.inputs.try_send(Input::Command { command, reply }).map_err(|_| busy())?;
        match tokio::time::timeout(COMMAND_TIMEOUT, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(not_stored()),
            Err(_) => Err(Refusal::new(Code::OperationTimedOut, "The change was not stored in time; it may still be.")
                .hint("Read the resource to see whether it happened.")),
        }
    }

    /// Adds the tasks of a message, and waits until that holds; whether it had been done before. A refusal with a status of
    /// 500 and above is no judgement of the message, which may be taken another time.
    pub async fn submit(&self, submission: NewSubmission) -> Result<bool, Refusal> {
        let (reply, answer) = oneshot::channel();
        let stopped = || Refusal::new(Code::ServerBusy, "The dispatcher is stopping.");
        let command = Command::Submit(Box::new(submission));
        self.inputs.send(Input::Command { command, reply }).await.map_err(|_| stopped())?;
        match tokio::time::timeout(SUBMIT_TIMEOUT, answer).await {
            Ok(Ok(Ok(Done::Submitted { is_repeated }))) => Ok(is_repeated),
            Ok(Ok(Ok(_))) => Err(Refusal::new(Code::InternalError, "The engine answered another question.")),
            Ok(Ok(Err(refusal))) => Err(refusal),
            Ok(Err(_)) => Err(stopped()),
            Err(_) => Err(Refusal::new(Code::OperationTimedOut, "The tasks were not stored in time; they may still be.")),
        }
    }

    /// Sends an input from the broker; waits while the queue is full.
    pub async fn put(&self, input: Input) -> Result<(), EngineStopped> {
        self.inputs.send(input).await.map_err(|_| EngineStopped)
    }

    /// Refuses additions while the watched reason is set, from clients and from job schedules.
    pub fn unless_short(self, shortage: watch::Receiver<Option<String>>) -> Engine {
        self.shortage.follow(shortage);
        self
    }

    /// Present totals for the metrics page; `None` when the engine is busy or the store refuses transactions.
    pub async fn figures(&self) -> Option<Figures> {
        let (reply, answer) = oneshot::channel();
        self.inputs.try_send(Input::Measure(reply)).ok()?;
        tokio::time::timeout(FIGURES_TIMEOUT, answer).await.ok()?.ok()
    }

    /// What the rows of these pools' nodes do not show yet; empty when the engine is busy or the store refuses
    /// transactions, as the rows are hardly older than a second.
    pub async fn node_activity(&self, pools: Vec<PoolId>) -> Activity {
        let (reply, answer) = oneshot::channel();
        if self.inputs.try_send(Input::NodeActivity(pools, reply)).is_err() {
            return Activity::default();
        }
        match tokio::time::timeout(ACTIVITY_TIMEOUT, answer).await {
            Ok(Ok(activity)) => activity,
            _ => {
                tracing::debug!("nodes are shown as they were last written: the engine is busy, or the store refuses transactions");
                Activity::default()
            }
        }
    }

    /// Why additions are refused at present.
    pub fn shortage(&self) -> Option<String> {
        self.shortage.reason()
    }

    /// Names of all pools.
    pub fn pools(&self) -> Vec<PoolId> {
        self.pools.borrow().clone()
    }

    /// All triggers; it changes when one is added, changed or deleted, and not with what they do.
    pub fn triggers(&self) -> watch::Receiver<Vec<TriggerRow>> {
        self.triggers.clone()
    }

    /// Why the store refuses transactions at present.
    pub fn refusal(&self) -> Option<String> {
        self.refusal.borrow().clone()
    }

    /// Rows that could not be read since the start; the list is bounded.
    pub fn unreadable(&self) -> Vec<Unreadable> {
        self.unreadable.borrow().clone()
    }

    /// Fill level of the input queue, from 0 to 1.
    pub fn load(&self) -> f64 {
        1.0 - self.inputs.capacity() as f64 / INPUTS_MAX as f64
    }
}

/// The engine's thread has ended; the log says why.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the engine has stopped")]
pub struct EngineStopped;
