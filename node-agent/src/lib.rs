//! The node agent: runs the tasks that the pool's queue delivers, and keeps no state that matters.
//!
//! `run` is an agent from its join to its end; `guardian` is the body of the small process that cleans up after an
//! agent that was killed. `agent` holds the loop, `execution` one run, `process` the use of system calls.

mod agent;
mod beneath;
mod capacity;
mod cleanup;
mod conclusion;
mod consumer_pause;
mod context;
mod disk_blame;
mod disk_limits;
mod disk_turn;
mod disk_usage;
mod disk_watch;
mod error;
mod execution;
mod fetch;
mod files;
mod folder_bytes;
mod folders;
mod free_space;
mod functions;
mod glob;
mod guardian;
mod heartbeat;
mod job_task_execution;
mod job_tasks;
mod join;
mod limits;
mod listing;
mod logs;
mod off_loop;
mod open_streams;
mod outbox;
mod outputs;
mod owner;
mod packages;
mod path;
mod pattern;
mod process;
mod reimage;
mod retention;
mod revoked;
mod root;
mod search;
mod settings;
mod shortage;
mod silence;
mod staging;
mod streams;
mod warm;

use std::{
    future::Future,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use broker_config::topology;
use clients::{
    amqp::{Link, Subscription},
    blobs::Blobs,
};
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

pub use self::{
    disk_limits::{DiskLimits, STREAM_BYTES_MAX},
    error::AgentError,
    guardian::guardian,
    limits::raise as raise_limits,
    settings::{Ending, Settings},
};

use crate::{
    agent::{Agent, Parts},
    context::NodeContext,
    guardian::Guard,
    heartbeat::{HEARTBEAT_MIN_MS, HeartbeatThread},
    off_loop::{off_loop, try_off_loop},
    process::{
        environment::{NodeFacts, User},
        orphans::Orphans,
        threads::Threads,
    },
    root::Root,
};

/// Control messages that wait for the agent's loop at most.
const CONTROL_BUFFER: usize = 256;
/// Period of the search for processes that outlive their runs.
const ORPHANS_POLL_PERIOD: Duration = Duration::from_millis(500);
/// Threads for processes beside those of the slots: one for the start task.
const THREADS_EXTRA: usize = 1;

/// Joins the pool and runs its tasks until `shutdown` completes; its value says how to end.
pub async fn run(settings: Settings, shutdown: impl Future<Output = Ending>) -> Result<(), AgentError> {
    limits::raise();
    let root = Root::open(&settings.root).await?;
    tokio::pin!(shutdown);
    let parts = tokio::select! {
        parts = begin(settings, root.clone()) => parts?,
        _ = &mut shutdown => return Ok(()),
    };
    let (retention, trash) = (parts.context.retention.clone(), parts.context.trash.clone());
    let aside = [
        tokio::spawn(parts.context.disk.clone().run(root.path().to_path_buf())),
        tokio::spawn(cleanup::serve(root.clone(), retention.clone(), trash)),
        tokio::spawn(free_space::measure(root, parts.free_bytes.clone())),
        tokio::spawn(poll_orphans(parts.context.orphans.clone())),
    ];
    let link = parts.link.clone();
    let (agent, ended) = Agent::new(parts);
    let result = agent.run(ended, shutdown).await;
    aside.iter().for_each(JoinHandle::abort);
    if let Err(error) = try_off_loop(move || retention.persist()).await {
        tracing::warn!(%error, "cannot write the retention times of the last tasks; their folders are kept for the default time");
    }
    link.close().await;
    result
}

async fn begin(settings: Settings, root: Root) -> Result<Parts, AgentError> {
    match cleanup::end_processes(&root) {
        0 => {}
        count => return Err(AgentError::Leftovers { count }),
    }
    let orphans = if settings.is_alone { Orphans::adopt(root.marker()).map_err(AgentError::Orphans)? } else { Orphans::leave() };
    let guard = Guard::start(settings.guardian.clone(), root.marker().to_owned(), orphans.clone()).map_err(AgentError::Guardian)?;
    // Whoever may invoke a function chooses its headers.
    let link = Link::open_to_any(settings.broker.clone()).await?;
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
    warm::clear(root.path()).map_err(|source| AgentError::Root { path: root.path().to_path_buf(), source })?;
    let facts = NodeFacts {
        pool: settings.pool.clone(),
        node: settings.node.clone(),
        account: joined.account.clone(),
        account_url: joined.account_url.clone(),
        is_dedicated: joined.is_dedicated,
        root: root.path().clone(),
        marker: root.marker().to_owned(),
        file_reserve_bytes: settings.file_reserve_bytes,
        disk_limits: settings.disk_limits.clone(),
        user: User::own(),
    };
    let threads = Threads::new(joined.slots as usize + THREADS_EXTRA, settings.nice, settings.task_umask);
    tracing::info!(pool = %settings.pool, node = %settings.node, epoch = joined.epoch.0, slots = joined.slots, "joined the pool");
    let context = NodeContext::new(root, facts, blobs, caller.clone(), (threads, orphans), joined.epoch);
    let heartbeat_thread =
        HeartbeatThread::start(settings.broker.clone(), Duration::from_millis(joined.heartbeat_ms.max(HEARTBEAT_MIN_MS)));
    let heartbeat_thread = heartbeat_thread.map_err(AgentError::HeartbeatThread)?;
    let free_bytes = Arc::new(AtomicU64::new(u64::MAX));
    Ok(Parts { settings, context, link, caller, joined, guard, control, heartbeat_thread, free_bytes })
}

/// Records and reaps processes that outlive their parents, and ends those that appear after their runs.
async fn poll_orphans(orphans: Orphans) {
    let mut polls = interval(ORPHANS_POLL_PERIOD);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        polls.tick().await;
        let orphans = orphans.clone();
        if let Err(error) = off_loop(move || orphans.tidy()).await {
            tracing::warn!(%error, "the search for processes that tasks left behind failed inside the agent; trying again");
        }
    }
}
