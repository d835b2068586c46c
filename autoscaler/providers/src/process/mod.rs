//! The `process` provider: agents as child processes of this one.
//!
//! An agent has its own process group and a pipe from this process as its stdin. The first line brings the secrets;
//! then the pipe is only held open: an agent ends when it closes, so nothing outlives a parent that was killed. Each
//! agent has a supervising task here that starts it again within a second. At the start, agents of an earlier parent
//! are ended and their nodes started again, but for those that were stopped: these keep their folder and have no
//! supervisor.

mod record;

use std::{
    collections::HashMap,
    ffi::OsString,
    io,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use broker_config::{
    private,
    settings::{AgentSecrets, SECRET_VARIABLES, Secret},
};
use contract::{
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
    error::ProviderError,
    process::record::{Folder, Running},
    provider::{Instance, NodeProvider},
};

/// An agent that has not ended this long after its stdin was closed is killed.
const END_MAX: Duration = Duration::from_secs(5);
/// Period of the checks whether an agent of an earlier parent has ended: it is no child, so its end cannot be waited
/// for.
const CHECK_PERIOD: Duration = Duration::from_millis(20);
/// Shortest pause before an agent that died is started again.
const RESTART_MIN: Duration = Duration::from_millis(200);
/// Longest pause before an agent that keeps dying is started again.
const RESTART_MAX: Duration = Duration::from_secs(15);
/// An agent that lived this long is started again after the shortest pause.
const STEADY: Duration = Duration::from_secs(5);

/// Tries to record that a node is stopped, before whoever asked is told that it failed.
const RECORD_TRIES: u32 = 4;
/// Pause before the second of these tries; it doubles.
const RECORD_PAUSE: Duration = Duration::from_millis(100);

/// Longest line of secrets; a pipe takes that much without waiting.
const SECRETS_BYTES_MAX: usize = 32 * 1024;

/// Names the file by which agents on this machine's disk end one run at a time when the disk is full.
const DISK_TURN: &str = "PIECEWORK_DISK_TURN_FILE";

/// Settings of the `process` provider.
#[derive(Debug, Clone)]
pub struct ProcessSettings {
    /// The program; it gets `--pool P --node N --root R --leash --secrets-on-stdin` behind `arguments`.
    pub program: PathBuf,
    /// The program's first arguments.
    pub arguments: Vec<OsString>,
    /// Variables added to the agent's environment, which is no place for secrets.
    pub environment: Vec<(OsString, OsString)>,
    /// The broker's URL.
    pub broker: Secret,
    /// The blob store's URL, if there is a store.
    pub s3: Option<Secret>,
    /// The folder that holds the nodes' folders.
    pub state: PathBuf,
}

/// Makes nodes as child processes.
pub struct Process {
    settings: Arc<ProcessSettings>,
    nodes: Mutex<HashMap<(PoolId, NodeId), Supervisor>>,
    /// Stopped nodes with their join tokens.
    stopped: Mutex<HashMap<(PoolId, NodeId), Secret>>,
    /// All supervisors, also those of deleted nodes: the caller that waited for one may be gone while its agent still
    /// ends.
    supervisors: TaskTracker,
}

struct Supervisor {
    token: Secret,
    orders: watch::Sender<Order>,
    is_running: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Keep,
    /// Drain until this moment, then close the agent's stdin.
    Stop(Instant),
}

impl Process {
    /// Ends what an earlier parent left running, then starts its nodes again.
    pub async fn open(settings: ProcessSettings) -> Result<Process, ProviderError> {
        private::folder(&settings.state).map_err(|source| ProviderError::State { path: settings.state.clone(), source })?;
        let records = record::all(&settings.state)?;
        let left: Vec<_> = records.iter().filter_map(|record| Some((record.node.clone(), record.agent.clone()?))).collect();
        futures::future::try_join_all(left.into_iter().map(|(node, agent)| end_earlier_agent(node, agent))).await?;
        let provider =
            Process { settings: Arc::new(settings), nodes: Mutex::default(), stopped: Mutex::default(), supervisors: TaskTracker::new() };
        for record in records {
            let token = match Folder::of(&provider.settings.state, &record.pool, &record.node).token() {
                Ok(token) => Secret::new(token),
                Err(error) => {
                    let (error, pool, node) = (error.fault().message, &record.pool, &record.node);
                    tracing::error!(%pool, %node, error, "a node's join token cannot be read; its agent is not started, and its pool gets another node");
                    continue;
                }
            };
            if record.is_stopped {
                provider.stopped().insert((record.pool, record.node), token);
            } else {
                provider.resume(record.pool, record.node, token);
            }
        }
        Ok(provider)
    }

    /// Ends all agents: asks them to drain, and closes their stdin after `patience`. Their nodes are kept for the next
    /// start.
    pub async fn stop(&self, patience: Duration) {
        let until = Instant::now() + patience;
        {
            let mut nodes = self.lock();
            self.supervisors.close();
            for (_, supervisor) in nodes.drain() {
                supervisor.orders.send_replace(Order::Stop(until));
            }
        }
        self.supervisors.wait().await;
    }

    fn keep(&self, pool: &PoolId, node: &NodeId, token: Secret) -> Result<(), ProviderError> {
        let mut nodes = self.lock();
        if nodes.get(&(pool.clone(), node.clone())).is_some_and(|supervisor| !supervisor.orders.is_closed()) {
            return Ok(());
        }
        if self.supervisors.is_closed() {
            return Err(ProviderError::Stopping { node: node.clone() });
        }
        let starter = self.starter(pool.clone(), node.clone(), token);
        let agent = starter.start()?;
        nodes.insert((pool.clone(), node.clone()), self.supervisor(starter, Some(agent)));
        Ok(())
    }

    /// Starts the agent of an earlier parent's node; its supervisor tries again when that fails.
    fn resume(&self, pool: PoolId, node: NodeId, token: Secret) {
        let starter = self.starter(pool.clone(), node.clone(), token);
        let agent = starter.start().inspect_err(|error| {
            tracing::warn!(%pool, %node, error = error.fault().message, "cannot start the agent of a node; trying again");
        });
        let supervisor = self.supervisor(starter, agent.ok());
        self.lock().insert((pool, node), supervisor);
    }

    fn starter(&self, pool: PoolId, node: NodeId, token: Secret) -> AgentStarter {
        AgentStarter { settings: self.settings.clone(), pool, node, token, runs: watch::Sender::new(false) }
    }

    fn supervisor(&self, starter: AgentStarter, agent: Option<Agent>) -> Supervisor {
        let (orders, watched) = watch::channel(Order::Keep);
        let (is_running, token) = (starter.runs.subscribe(), starter.token.clone());
        Supervisor { token, orders, is_running, task: self.supervisors.spawn(starter.keep(agent, watched)) }
    }

    fn stopped(&self) -> std::sync::MutexGuard<'_, HashMap<(PoolId, NodeId), Secret>> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn record_stop(&self, pool: &PoolId, node: &NodeId) -> Result<(), ProviderError> {
        let folder = Folder::of(&self.settings.state, pool, node);
        let mut pause = RECORD_PAUSE;
        for _ in 1..RECORD_TRIES {
            match folder.stop(pool, node) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::warn!(%pool, %node, error = error.fault().message, "cannot record that a node is stopped; trying again")
                }
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        folder.stop(pool, node)
    }

    /// Ends a node's agent, if it has one.
    async fn end_agent(&self, pool: &PoolId, node: &NodeId) -> Result<(), ProviderError> {
        let supervisor = self.lock().remove(&(pool.clone(), node.clone()));
        if let Some(supervisor) = supervisor {
            supervisor.orders.send_replace(Order::Stop(Instant::now()));
            if supervisor.task.await.is_err() {
                return Err(ProviderError::Stuck { node: node.clone() });
            }
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(PoolId, NodeId), Supervisor>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl NodeProvider for Process {
    async fn create(&self, pool: &PoolId, ticket: &NodeTicket) -> Result<(), ProviderError> {
        let key = (pool.clone(), ticket.node.clone());
        if self.lock().contains_key(&key) || self.stopped().contains_key(&key) {
            return Ok(());
        }
        Folder::of(&self.settings.state, pool, &ticket.node).create(pool, &ticket.node, &ticket.token)?;
        self.keep(pool, &ticket.node, Secret::new(ticket.token.clone()))
    }

    async fn list(&self) -> Result<Vec<Instance>, ProviderError> {
        let instance = |((pool, node), supervisor): (&(PoolId, NodeId), &Supervisor)| Instance {
            pool: pool.clone(),
            node: node.clone(),
            is_running: *supervisor.is_running.borrow(),
            is_stopped: false,
        };
        let mut all: Vec<Instance> = self.lock().iter().map(instance).collect();
        let stopped: Vec<_> = self.stopped().keys().cloned().collect();
        all.extend(stopped.into_iter().map(|(pool, node)| Instance { pool, node, is_running: false, is_stopped: true }));
        Ok(all)
    }

    async fn stop(&self, pool: &PoolId, node: &NodeId) -> Result<(), ProviderError> {
        let key = (pool.clone(), node.clone());
        let Some((token, orders)) = self.lock().get(&key).map(|supervisor| (supervisor.token.clone(), supervisor.orders.clone())) else {
            return Ok(());
        };
        orders.send_replace(Order::Stop(Instant::now()));
        // The supervisor holds the other end until its agent has ended.
        orders.closed().await;
        // Recorded last, because the supervisor writes the record too. If this is cut off or fails, the node is not
        // forgotten, and is asked to stop again.
        self.record_stop(pool, node).await?;
        self.lock().remove(&key);
        self.stopped().insert(key, token);
        Ok(())
    }

    async fn start(&self, pool: &PoolId, node: &NodeId) -> Result<(), ProviderError> {
        let key = (pool.clone(), node.clone());
        let stopped = self.stopped().get(&key).cloned();
        // One whose agent ended by a stop that could not be recorded.
        let half_stopped =
            || self.lock().get(&key).filter(|supervisor| supervisor.orders.is_closed()).map(|supervisor| supervisor.token.clone());
        if let Some(token) = stopped.or_else(half_stopped) {
            self.keep(pool, node, token)?;
            self.stopped().remove(&key);
        }
        Ok(())
    }

    async fn delete(&self, pool: &PoolId, node: &NodeId) -> Result<(), ProviderError> {
        self.end_agent(pool, node).await?;
        self.stopped().remove(&(pool.clone(), node.clone()));
        let folder = Folder::of(&self.settings.state, pool, node);
        tokio::task::spawn_blocking(move || folder.remove()).await.unwrap_or_else(|_| Err(ProviderError::Stuck { node: node.clone() }))
    }
}

/// An agent and its stdin. They are apart because waiting for a child closes the stdin that it still has.
struct Agent {
    process: Child,
    stdin: Option<ChildStdin>,
}

/// Starts one node's agent and supervises it.
struct AgentStarter {
    settings: Arc<ProcessSettings>,
    pool: PoolId,
    node: NodeId,
    /// Kept here, because tasks may change the file.
    token: Secret,
    runs: watch::Sender<bool>,
}

impl AgentStarter {
    fn start(&self) -> Result<Agent, ProviderError> {
        let folder = Folder::of(&self.settings.state, &self.pool, &self.node);
        let failed = |source| ProviderError::Spawn { node: self.node.clone(), source };
        folder.restore(self.token.expose())?;
        let secrets = self.secrets().map_err(failed)?;
        let mut command = Command::new(&self.settings.program);
        for name in SECRET_VARIABLES {
            command.env_remove(name);
        }
        let mut process = command
            .args(&self.settings.arguments)
            .args(["--pool", self.pool.as_str(), "--node", self.node.as_str(), "--leash", "--secrets-on-stdin", "--root"])
            .arg(folder.root())
            .env(DISK_TURN, self.settings.state.join("disk-turn"))
            .envs(self.settings.environment.iter().map(|(name, value)| (name, value)))
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(folder.log()?)
            .spawn()
            .map_err(failed)?;
        let running = process.id().and_then(|pid| Running::of(pid as i32));
        let stdin = process.stdin.take();
        // The line fits into the pipe, so this does not wait. The supervisor notices an agent that has ended already.
        if let Some(Err(error)) = stdin.as_ref().map(|pipe| rustix::io::write(pipe, &secrets)) {
            tracing::warn!(pool = %self.pool, node = %self.node, %error, "cannot write the secrets to an agent's stdin; the agent ends and is started again");
        }
        folder.write(&self.pool, &self.node, running)?;
        self.runs.send_replace(true);
        Ok(Agent { process, stdin })
    }

    /// The first line of the agent's stdin.
    fn secrets(&self) -> io::Result<Vec<u8>> {
        let (token, broker, s3) = (self.token.clone(), self.settings.broker.clone(), self.settings.s3.clone());
        let mut line = serde_json::to_vec(&AgentSecrets { token, broker, s3 })?;
        line.push(b'\n');
        if line.len() > SECRETS_BYTES_MAX {
            return Err(io::Error::other(format!("the URLs of broker and blob store are longer than {SECRETS_BYTES_MAX} bytes")));
        }
        Ok(line)
    }

    async fn keep(self, mut agent: Option<Agent>, mut orders: watch::Receiver<Order>) {
        let (mut started, mut wait) = (Instant::now(), RESTART_MIN);
        loop {
            let Some(mut running) = agent.take() else {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = stopped(&mut orders) => return,
                }
                match self.start() {
                    Ok(next) => (agent, started) = (Some(next), Instant::now()),
                    Err(error) => {
                        tracing::warn!(node = %self.node, error = error.fault().message, "cannot start the agent of a node; trying again")
                    }
                }
                wait = (wait * 2).min(RESTART_MAX);
                continue;
            };
            tokio::select! {
                () = stopped(&mut orders) => return end(&self.node, running, orders).await,
                status = running.process.wait() => {
                    self.runs.send_replace(false);
                    let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                    tracing::warn!(pool = %self.pool, node = %self.node, status, "the agent of a node ended; starting it again");
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

/// Asks an agent to drain, closes its stdin when the patience is over, and kills it when even that does not help.
async fn end(node: &NodeId, Agent { mut process, stdin }: Agent, orders: watch::Receiver<Order>) {
    let patience = match *orders.borrow() {
        Order::Stop(until) => until.saturating_duration_since(Instant::now()),
        Order::Keep => Duration::ZERO,
    };
    let pid = process.id().and_then(|pid| Pid::from_raw(pid as i32));
    if let (Some(pid), false) = (pid, patience.is_zero()) {
        if let Err(error) = kill_process(pid, Signal::TERM) {
            tracing::debug!(%node, %error, "the agent has ended already");
        }
        if tokio::time::timeout(patience, process.wait()).await.is_ok() {
            return;
        }
    }
    drop(stdin);
    if tokio::time::timeout(END_MAX, process.wait()).await.is_ok() {
        return;
    }
    tracing::warn!(%node, "the agent did not end when its stdin was closed; killing it");
    if let Some(Err(error)) = pid.map(|pid| kill_process_group(pid, Signal::KILL)) {
        tracing::debug!(%node, %error, "the agent has ended already");
    }
    if let Err(error) = process.wait().await {
        tracing::warn!(%node, %error, "cannot wait for the end of a killed agent; going on without");
    }
}

/// Ends an agent that an earlier parent started.
async fn end_earlier_agent(node: NodeId, agent: Running) -> Result<(), ProviderError> {
    let pid = Pid::from_raw(agent.pid);
    for (signal, patience) in [(Signal::TERM, END_MAX), (Signal::KILL, END_MAX)] {
        let Some(pid) = pid.filter(|_| agent.is_alive()) else { return Ok(()) };
        tracing::info!(%node, pid = agent.pid, "ending an agent of an earlier start");
        if let Err(error) = kill_process(pid, signal) {
            tracing::debug!(%node, %error, "the agent has ended already");
        }
        let until = Instant::now() + patience;
        while agent.is_alive() && Instant::now() < until {
            tokio::time::sleep(CHECK_PERIOD).await;
        }
    }
    if agent.is_alive() { Err(ProviderError::Stuck { node }) } else { Ok(()) }
}
