//! The `process` provider: agents as child processes of this one.
//!
//! An agent has its own process group and a pipe from this process as its stdin, its leash: it ends when the
//! pipe closes, so nothing outlives a parent that was killed. Each agent has a keeper here that starts it again
//! within a second. At the start, agents of an earlier parent are ended and their nodes started again, but for
//! those that were stopped: these keep their folder and have no keeper.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use broker_config::{
    ids::{NodeId, PoolId},
    message::NodeTicket,
};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::{
    process::{Child, ChildStdin, Command},
    sync::watch,
    task::JoinHandle,
};
use tokio_util::task::TaskTracker;

use crate::{
    Error,
    provider::{Instance, NodeProvider},
    record::{self, Folder, Running},
};

/// An agent whose leash was cut is killed after this long.
const END_MAX: Duration = Duration::from_secs(5);
/// How often an ending process of an earlier parent is looked at; it is no child, so nothing tells.
const LOOK: Duration = Duration::from_millis(20);
/// An agent that died is started again after this long.
const RESTART_MIN: Duration = Duration::from_millis(200);
/// An agent that keeps dying is started again after this long.
const RESTART_MAX: Duration = Duration::from_secs(15);
/// An agent that lived this long starts with the shortest wait again.
const STEADY: Duration = Duration::from_secs(5);
/// A log larger than this is begun anew when its agent starts.
const LOG_BYTES_MAX: u64 = 1024 * 1024;

/// How agents are started.
#[derive(Debug, Clone)]
pub struct ProcessSettings {
    /// The program; it gets `--pool P --node N --token-file F --root R --leash` behind `arguments`.
    pub program: PathBuf,
    /// Its first arguments.
    pub arguments: Vec<OsString>,
    /// Added to its environment: what must not be seen in a list of processes.
    pub environment: Vec<(OsString, OsString)>,
    /// Where the nodes' folders are.
    pub state: PathBuf,
}

/// Agents as child processes.
pub struct Process {
    settings: Arc<ProcessSettings>,
    nodes: Mutex<HashMap<(PoolId, NodeId), Keeper>>,
    stopped: Mutex<HashSet<(PoolId, NodeId)>>,
    /// All keepers, those of deleted nodes as well: whoever waited for one may have gone, its agent has not.
    keepers: TaskTracker,
}

struct Keeper {
    orders: watch::Sender<Order>,
    is_running: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Keep,
    /// Ask politely, cut the leash at this moment.
    Stop(Instant),
}

impl Process {
    /// Ends what an earlier parent left running, then starts its nodes again.
    pub async fn open(settings: ProcessSettings) -> Result<Process, Error> {
        fs::create_dir_all(&settings.state).map_err(|source| Error::State { path: settings.state.clone(), source })?;
        let records = record::all(&settings.state)?;
        let left: Vec<_> = records.iter().filter_map(|record| Some((record.node.clone(), record.agent.clone()?))).collect();
        futures::future::try_join_all(left.into_iter().map(|(node, agent)| end_stranger(node, agent))).await?;
        let provider =
            Process { settings: Arc::new(settings), nodes: Mutex::default(), stopped: Mutex::default(), keepers: TaskTracker::new() };
        for record in records {
            if record.is_stopped {
                provider.stopped().insert((record.pool, record.node));
            } else {
                provider.keep(&record.pool, &record.node)?;
            }
        }
        Ok(provider)
    }

    /// Ends all agents: asks them to drain, and cuts their leashes after `patience`. Their nodes are kept for the next start.
    pub async fn stop(&self, patience: Duration) {
        let until = Instant::now() + patience;
        {
            let mut nodes = self.lock();
            self.keepers.close();
            for (_, keeper) in nodes.drain() {
                keeper.orders.send_replace(Order::Stop(until));
            }
        }
        self.keepers.wait().await;
    }

    fn keep(&self, pool: &PoolId, node: &NodeId) -> Result<(), Error> {
        let mut nodes = self.lock();
        if nodes.contains_key(&(pool.clone(), node.clone())) {
            return Ok(());
        }
        if self.keepers.is_closed() {
            return Err(Error::Stopping { node: node.clone() });
        }
        let (orders, watched) = watch::channel(Order::Keep);
        let (runs, is_running) = watch::channel(false);
        let post = Post { settings: self.settings.clone(), pool: pool.clone(), node: node.clone(), runs };
        let child = post.start()?;
        let task = self.keepers.spawn(post.keep(child, watched));
        nodes.insert((pool.clone(), node.clone()), Keeper { orders, is_running, task });
        Ok(())
    }

    fn stopped(&self) -> std::sync::MutexGuard<'_, HashSet<(PoolId, NodeId)>> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a node's agent, if it has one.
    async fn end_agent(&self, pool: &PoolId, node: &NodeId) -> Result<(), Error> {
        let keeper = self.lock().remove(&(pool.clone(), node.clone()));
        if let Some(keeper) = keeper {
            keeper.orders.send_replace(Order::Stop(Instant::now()));
            if keeper.task.await.is_err() {
                return Err(Error::Stuck { node: node.clone() });
            }
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(PoolId, NodeId), Keeper>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl NodeProvider for Process {
    async fn create(&self, pool: &PoolId, ticket: &NodeTicket) -> Result<(), Error> {
        let key = (pool.clone(), ticket.node.clone());
        if self.lock().contains_key(&key) || self.stopped().contains(&key) {
            return Ok(());
        }
        Folder::of(&self.settings.state, pool, &ticket.node).create(pool, &ticket.node, &ticket.token)?;
        self.keep(pool, &ticket.node)
    }

    async fn list(&self) -> Result<Vec<Instance>, Error> {
        let instance = |((pool, node), keeper): (&(PoolId, NodeId), &Keeper)| Instance {
            pool: pool.clone(),
            node: node.clone(),
            is_running: *keeper.is_running.borrow(),
            is_stopped: false,
        };
        let mut all: Vec<Instance> = self.lock().iter().map(instance).collect();
        let stopped = self.stopped().clone();
        all.extend(stopped.into_iter().map(|(pool, node)| Instance { pool, node, is_running: false, is_stopped: true }));
        Ok(all)
    }

    async fn stop(&self, pool: &PoolId, node: &NodeId) -> Result<(), Error> {
        let key = (pool.clone(), node.clone());
        if self.lock().contains_key(&key) {
            // Noted last: its keeper writes as well. If this is cut off, the node is asked to stop again.
            self.end_agent(pool, node).await?;
            Folder::of(&self.settings.state, pool, node).stop()?;
            self.stopped().insert(key);
        }
        Ok(())
    }

    async fn start(&self, pool: &PoolId, node: &NodeId) -> Result<(), Error> {
        let is_stopped = self.stopped().contains(&(pool.clone(), node.clone()));
        if is_stopped {
            self.keep(pool, node)?;
            self.stopped().remove(&(pool.clone(), node.clone()));
        }
        Ok(())
    }

    async fn delete(&self, pool: &PoolId, node: &NodeId) -> Result<(), Error> {
        self.end_agent(pool, node).await?;
        self.stopped().remove(&(pool.clone(), node.clone()));
        let folder = Folder::of(&self.settings.state, pool, node);
        tokio::task::spawn_blocking(move || folder.remove()).await.unwrap_or_else(|_| Err(Error::Stuck { node: node.clone() }))
    }
}

/// An agent and its leash. They are apart because waiting for a child closes the stdin that it still has.
struct Agent {
    process: Child,
    leash: Option<ChildStdin>,
}

/// One node's place: knows how to start its agent, and stays with it.
struct Post {
    settings: Arc<ProcessSettings>,
    pool: PoolId,
    node: NodeId,
    runs: watch::Sender<bool>,
}

impl Post {
    fn start(&self) -> Result<Agent, Error> {
        let folder = Folder::of(&self.settings.state, &self.pool, &self.node);
        let mut process = Command::new(&self.settings.program)
            .args(&self.settings.arguments)
            .args(["--pool", self.pool.as_str(), "--node", self.node.as_str(), "--leash", "--token-file"])
            .arg(folder.token())
            .arg("--root")
            .arg(folder.root())
            .envs(self.settings.environment.iter().map(|(name, value)| (name, value)))
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log(&folder.log())?)
            .spawn()
            .map_err(|source| Error::Spawn { node: self.node.clone(), source })?;
        let running = process.id().and_then(|pid| Running::of(pid as i32));
        let leash = process.stdin.take();
        folder.write(&self.pool, &self.node, running)?;
        self.runs.send_replace(true);
        Ok(Agent { process, leash })
    }

    async fn keep(self, first: Agent, mut orders: watch::Receiver<Order>) {
        let (mut agent, mut started, mut wait) = (Some(first), Instant::now(), RESTART_MIN);
        loop {
            let Some(mut running) = agent.take() else {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = stopped(&mut orders) => return,
                }
                match self.start() {
                    Ok(next) => (agent, started) = (Some(next), Instant::now()),
                    Err(error) => tracing::warn!(node = %self.node, error = error.fault().message, "agent not started again"),
                }
                wait = (wait * 2).min(RESTART_MAX);
                continue;
            };
            tokio::select! {
                () = stopped(&mut orders) => return end(&self.node, running, orders).await,
                status = running.process.wait() => {
                    self.runs.send_replace(false);
                    let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                    tracing::warn!(pool = %self.pool, node = %self.node, status, "agent ended; it is started again");
                }
            }
            if started.elapsed() >= STEADY {
                wait = RESTART_MIN;
            }
        }
    }
}

async fn stopped(orders: &mut watch::Receiver<Order>) {
    // A closed channel means that the provider was dropped, which ends its agents as well.
    if orders.wait_for(|order| *order != Order::Keep).await.is_err() {
        tracing::debug!("a provider was dropped with its agents running");
    }
}

/// Asks an agent to drain, cuts its leash when the patience is over, and kills it when even that does not help.
async fn end(node: &NodeId, Agent { mut process, leash }: Agent, orders: watch::Receiver<Order>) {
    let patience = match *orders.borrow() {
        Order::Stop(until) => until.saturating_duration_since(Instant::now()),
        Order::Keep => Duration::ZERO,
    };
    let pid = process.id().and_then(|pid| Pid::from_raw(pid as i32));
    if let (Some(pid), false) = (pid, patience.is_zero()) {
        if let Err(error) = kill_process(pid, Signal::TERM) {
            tracing::debug!(%node, %error, "agent is gone already");
        }
        if tokio::time::timeout(patience, process.wait()).await.is_ok() {
            return;
        }
    }
    drop(leash);
    if tokio::time::timeout(END_MAX, process.wait()).await.is_ok() {
        return;
    }
    tracing::warn!(%node, "agent did not end when its leash was cut; killing it");
    if let Some(Err(error)) = pid.map(|pid| kill_process_group(pid, Signal::KILL)) {
        tracing::debug!(%node, %error, "agent is gone already");
    }
    if let Err(error) = process.wait().await {
        tracing::warn!(%node, %error, "agent cannot be waited for");
    }
}

/// Ends an agent that an earlier parent started.
async fn end_stranger(node: NodeId, agent: Running) -> Result<(), Error> {
    let pid = Pid::from_raw(agent.pid);
    for (signal, patience) in [(Signal::TERM, END_MAX), (Signal::KILL, END_MAX)] {
        let Some(pid) = pid.filter(|_| agent.is_alive()) else { return Ok(()) };
        tracing::info!(%node, pid = agent.pid, "ending an agent of an earlier start");
        if let Err(error) = kill_process(pid, signal) {
            tracing::debug!(%node, %error, "agent is gone already");
        }
        let until = Instant::now() + patience;
        while agent.is_alive() && Instant::now() < until {
            tokio::time::sleep(LOOK).await;
        }
    }
    if agent.is_alive() { Err(Error::Stuck { node }) } else { Ok(()) }
}

fn log(path: &Path) -> Result<fs::File, Error> {
    let is_long = fs::metadata(path).is_ok_and(|file| file.len() > LOG_BYTES_MAX);
    let mut options = fs::OpenOptions::new();
    options.create(true);
    if is_long {
        options.write(true).truncate(true)
    } else {
        options.append(true)
    };
    options.open(path).map_err(|source| Error::State { path: path.to_owned(), source })
}
