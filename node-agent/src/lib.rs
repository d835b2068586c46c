//! Runs what the pool's queue delivers and keeps nothing worth keeping.
//!
//! `run` is an agent from its join to its end; `guardian` is the body of the small process that cleans up
//! after an agent that was killed. `agent` holds the loop, `execution` one run, `process` what the system does.

mod agent;
mod beneath;
mod capacity;
mod chore_execution;
mod chores;
mod cleanup;
mod error;
mod execution;
mod fetch;
mod files;
mod gate;
mod guardian;
mod join;
mod logs;
mod outbox;
mod outputs;
mod packages;
mod path;
mod pattern;
mod process;
mod reimage;
mod revoked;
mod room;
mod root;
mod settings;
mod staging;
mod streams;

use std::{future::Future, time::Duration};

use broker_config::{
    amqp::{Link, Subscription},
    blobs::Blobs,
    topology,
};
use tokio::time::{MissedTickBehavior, interval};

pub use self::{
    error::AgentError,
    guardian::guardian,
    settings::{Ending, Settings},
};

use crate::{
    agent::{Agent, Parts},
    guardian::Guard,
    process::{environment::NodeFacts, threads::Threads},
    room::Room,
    root::Root,
};

/// Control messages on their way to the agent.
const CONTROL_BUFFER: usize = 256;
/// Between two sweeps of old folders.
const SWEEP_PERIOD: Duration = Duration::from_secs(3600);
/// Processes at once beside those of the slots: the start task.
const THREADS_EXTRA: usize = 1;

/// Joins the pool and runs its tasks until `shutdown` says how to end.
pub async fn run(settings: Settings, shutdown: impl Future<Output = Ending>) -> Result<(), AgentError> {
    let root = Root::open(&settings.root).await?;
    tokio::pin!(shutdown);
    let parts = tokio::select! {
        parts = begin(settings, root.clone()) => parts?,
        _ = &mut shutdown => return Ok(()),
    };
    let sweeping = tokio::spawn(sweep(root));
    let link = parts.link.clone();
    let (agent, ended) = Agent::new(parts);
    let result = agent.run(ended, shutdown).await;
    sweeping.abort();
    link.close().await;
    result
}

async fn begin(settings: Settings, root: Root) -> Result<Parts, AgentError> {
    match cleanup::end_processes(&root) {
        0 => {}
        count => return Err(AgentError::Leftovers { count }),
    }
    let guard = Guard::start(settings.guardian.clone(), root.marker().to_owned()).map_err(AgentError::Guardian)?;
    let link = Link::open(settings.broker.clone()).await?;
    let keys = [topology::node_key(&settings.pool, &settings.node), topology::pool_control_key(&settings.pool)];
    let bindings = keys.into_iter().map(|key| (topology::CONTROL, key)).collect();
    let control = link.subscribe(Subscription::private(bindings, CONTROL_BUFFER)).await?;
    let caller = link.caller().await?;
    let blobs = settings.blobs.clone().map(Blobs::new).transpose()?;
    let joined = join::join(caller.clone(), settings.clone(), root.clone(), None).await?;
    if joined.is_reimaged {
        reimage::empty(&root).map_err(|source| AgentError::Root { path: root.path().to_path_buf(), source })?;
    }
    packages::clear_incoming(root.path()).map_err(|source| AgentError::Root { path: root.path().to_path_buf(), source })?;
    let facts = NodeFacts {
        pool: settings.pool.clone(),
        node: settings.node.clone(),
        account: joined.account.clone(),
        account_url: joined.account_url.clone(),
        is_dedicated: joined.is_dedicated,
        root: root.path().clone(),
        marker: root.marker().to_owned(),
        file_reserve_bytes: settings.file_reserve_bytes,
    };
    let threads = Threads::new(joined.slots as usize + THREADS_EXTRA, settings.nice);
    tracing::info!(pool = %settings.pool, node = %settings.node, epoch = joined.epoch.0, slots = joined.slots, "joined");
    let room = Room::new(root, facts, blobs, caller.clone(), threads, joined.epoch);
    Ok(Parts { settings, room, link, caller, joined, guard, control })
}

async fn sweep(root: Root) {
    let mut sweeps = interval(SWEEP_PERIOD);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        sweeps.tick().await;
        let root = root.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || cleanup::sweep(&root)).await {
            tracing::warn!(%error, "a sweep of old folders was lost");
        }
    }
}
