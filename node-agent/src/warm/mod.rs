//! Warm functions: a host for each invocation that runs, kept for the next one.
//!
//! ```text
//! invocation ──► idle host of this version, or a new one ──► answer ──► host is idle again ──idle time──► ended
//!                                                        └── crash, deadline, memory: host ended
//! ```
//! `agent::invocations` calls it. A host is one program and one event at a time; `program` is its process, `host` what
//! it speaks. Hosts never outnumber twice the slots, and a version whose programs fail to start rests before each try.

mod event;
mod host;
mod http_program;
mod lambda;
mod lines;
mod peer;
mod program;
mod resting;

use std::{
    collections::{HashMap, HashSet},
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use broker_config::{
    metrics::{COLD_STARTS, INVOCATION_SECONDS, INVOCATIONS},
    private, removal,
};
use contract::{
    function::{Function, Runtime},
    spec::NOTHING,
};

pub use self::event::{Answered, Event, Failure};
use self::{host::Host, program::Programs, resting::Resting};
use crate::context::NodeContext;

/// Idle and busy hosts of a node at most, for each of its slots; the oldest idle one makes room.
const HOSTS_PER_SLOT: usize = 2;
const BYTES: &str = "application/octet-stream";

/// The hosts of a node.
pub struct Warm {
    hosts_max: usize,
    programs: Programs,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Ordered by the end of their last invocation.
    idle: Vec<Idle>,
    /// Hosts that start or run an invocation, by the version's uid.
    busy: HashMap<u64, u32>,
    resting: Resting,
    current: Vec<Arc<Function>>,
    is_over: bool,
}

struct Idle {
    uid: u64,
    host: Host,
    since: Instant,
}

/// Counts a host as busy until it is dropped.
struct Busy {
    warm: Arc<Warm>,
    uid: u64,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.warm.lock();
        if let Some(count) = state.busy.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                state.busy.remove(&self.uid);
            }
        }
    }
}

/// Whether the function is the built-in command that does nothing: its answer is empty.
fn is_nothing(function: &Function) -> bool {
    function.spec.runtime == Runtime::Exec && function.spec.command_line.as_deref() == Some(NOTHING)
}

/// Removes the folders of programs that a killed agent left.
pub fn clear(root: &Path) -> io::Result<()> {
    match removal::folder(&root.join(program::FOLDER)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => private::folder(&root.join(program::FOLDER)),
    }
}

impl Warm {
    /// A node without any host yet.
    pub fn new(slots: u32) -> Arc<Warm> {
        let hosts_max = (slots as usize).max(1) * HOSTS_PER_SLOT;
        Arc::new(Warm { hosts_max, programs: Programs::default(), state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over the functions of the pool; idle hosts of other versions end with the next [`tidy`](Warm::tidy).
    pub fn set_functions(&self, functions: Vec<Arc<Function>>) {
        let mut state = self.lock();
        let uids: HashSet<u64> = functions.iter().map(|function| function.uid).collect();
        state.resting.retain(&uids);
        state.current = functions;
    }

    /// The process groups of all programs, for the guardian.
    pub fn groups(&self) -> Vec<i32> {
        self.programs.groups()
    }

    /// Ends all programs at once and starts no more.
    pub fn end(&self) {
        let idle = {
            let mut state = self.lock();
            state.is_over = true;
            std::mem::take(&mut state.idle)
        };
        drop(idle);
        self.programs.kill_all();
    }

    /// Runs one invocation to its end.
    pub async fn invoke(self: &Arc<Self>, context: &Arc<NodeContext>, function: &Function, event: Event) -> Result<Answered, Failure> {
        let result = self.call(context, function, event).await;
        let name = function.name.to_string();
        let (code, duration) = match &result {
            Ok(answered) => ("ok", answered.duration),
            Err(failure) => (failure.code, failure.duration),
        };
        INVOCATIONS.of([name.clone(), code.to_owned()]).increment(1);
        if result.as_ref().is_ok_and(|answered| answered.is_cold) {
            COLD_STARTS.of([name.clone()]).increment(1);
        }
        INVOCATION_SECONDS.of([name]).record(duration);
        result
    }

    async fn call(self: &Arc<Self>, context: &Arc<NodeContext>, function: &Function, event: Event) -> Result<Answered, Failure> {
        if is_nothing(function) {
            return Ok(Answered { body: vec![], content_type: BYTES.to_owned(), duration: Duration::ZERO, is_cold: false });
        }
        let busy = self.busy(function.uid)?;
        if function.spec.runtime == Runtime::Exec {
            return Box::pin(host::exec(context, &self.programs, function, event)).await;
        }
        let (mut host, is_cold) = match self.take(function.uid) {
            Some(host) => (host, false),
            None => (Box::pin(self.start(context, function)).await?, true),
        };
        let result = Box::pin(host.call(function, &event)).await;
        if host.is_usable() {
            self.put_back(function.uid, host);
        }
        drop(busy);
        result.map(|answered| Answered { is_cold, ..answered })
    }

    /// Ends hosts that nobody needs and starts those that shall be warm. Called periodically; it does not wait.
    pub fn tidy(self: &Arc<Self>, context: &Arc<NodeContext>, may_start: bool) {
        let now = Instant::now();
        let mut wanted = Vec::new();
        let ended: Vec<Idle> = {
            let mut state = self.lock();
            let State { idle, busy, current, resting, is_over } = &mut *state;
            let mut kept: HashMap<u64, u32> = HashMap::new();
            let mut ended = Vec::new();
            // The youngest come first, so that those over the warm minimum that end are the oldest.
            for host in std::mem::take(idle).into_iter().rev() {
                let function = current.iter().find(|function| function.uid == host.uid).filter(|_| host.host.is_usable());
                let count = kept.entry(host.uid).or_default();
                let is_kept = function.is_some_and(|function| {
                    let idle_max = Duration::from_millis(function.spec.idle_time.as_ms());
                    *count < function.spec.warm_instances || now.duration_since(host.since) < idle_max
                });
                if is_kept {
                    *count += 1;
                    idle.push(host);
                } else {
                    ended.push(host);
                }
            }
            idle.reverse();
            for function in current.iter().filter(|function| may_start && !*is_over && function.spec.runtime != Runtime::Exec) {
                let hosts = kept.get(&function.uid).copied().unwrap_or(0) + busy.get(&function.uid).copied().unwrap_or(0);
                if hosts < function.spec.warm_instances && resting.failure(function.uid, now).is_none() {
                    wanted.push(function.clone());
                }
            }
            ended
        };
        drop(ended);
        for function in wanted {
            // Counted before the task begins, so that the next call does not start it again.
            let Ok(busy) = self.busy(function.uid) else { continue };
            let (warm, context) = (self.clone(), context.clone());
            tokio::spawn(async move {
                let _busy = busy;
                if let Ok(host) = warm.start(&context, &function).await {
                    warm.put_back(function.uid, host);
                }
            });
        }
    }

    fn busy(self: &Arc<Self>, uid: u64) -> Result<Busy, Failure> {
        let mut state = self.lock();
        if state.is_over {
            return Err(Failure::new("NodeEnding", "the node ends".to_owned()));
        }
        *state.busy.entry(uid).or_default() += 1;
        Ok(Busy { warm: self.clone(), uid })
    }

    /// The host of this version that was used last.
    fn take(&self, uid: u64) -> Option<Host> {
        let mut state = self.lock();
        loop {
            let at = state.idle.iter().rposition(|idle| idle.uid == uid)?;
            let idle = state.idle.remove(at);
            if idle.host.is_usable() {
                return Some(idle.host);
            }
        }
    }

    fn put_back(&self, uid: u64, host: Host) {
        let mut state = self.lock();
        if !state.is_over {
            state.idle.push(Idle { uid, host, since: Instant::now() });
        }
    }

    async fn start(&self, context: &Arc<NodeContext>, function: &Function) -> Result<Host, Failure> {
        let evicted = {
            let mut state = self.lock();
            if let Some(failure) = state.resting.failure(function.uid, Instant::now()) {
                return Err(failure);
            }
            let hosts = state.idle.len() + state.busy.values().sum::<u32>() as usize;
            (hosts > self.hosts_max && !state.idle.is_empty()).then(|| state.idle.remove(0))
        };
        drop(evicted);
        let started = Host::start(context, &self.programs, function).await;
        let mut state = self.lock();
        match &started {
            Ok(_) => state.resting.succeeded(function.uid),
            Err(failure) => {
                let pause = state.resting.failed(function.uid, failure, Instant::now());
                if let Some(pause) = pause {
                    tracing::warn!(function = %function.name, version = function.version, code = failure.code, message = failure.message, pause_s = pause.as_secs(), "a function's program cannot start; its invocations fail, and each further try waits longer, up to a minute");
                }
            }
        }
        started
    }
}
