//! The rules of one pool, pure: `step(event, now) → effects`. No clock, no I/O, no async.
//!
//! The state is what is alive: nodes, jobs with their counters, and the attempts inside the window.
//! Waiting tasks are rows; the core says which job is next and the store hands over its next rows.
//! The engine applies all effects of a step in one transaction and tells the world only after its commit,
//! so a core that is ahead of the store is never seen: after a failed commit it is loaded anew.
//!
//! ```text
//! waiting ──fill──► released ──Started / Ask──► running ──Finished──► ended
//!    ▲                 │                           │
//!    └── unrelease ────┴───── requeue (retry, node lost, drain) ◄─┘
//! ```

mod attempts;
mod nodes;
mod planted;
mod reconcile;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod turns;
mod window;

use std::collections::{BTreeMap, HashMap};

use broker_config::{
    ids::{AttemptKey, Epoch, Fence, JobUid, NodeId, RunId, RunKey, TaskUid},
    message::{Answer, Beat, Finished, NodeOrder, NodeReport, Started, Verdict},
    state::{DeallocationOption, NodeState},
    time::Timestamp,
};

pub use attempts::{Attempt, Phase};
pub use nodes::Node;
pub use planted::Bug;
pub use turns::{RESTART_MS, Turn};
pub use window::{JobOrder, Window};

use crate::store::records::RequeueCause;

/// A task whose node died under it is counted; from this count on it runs alone on a node.
pub const CRASHES_ALONE: u32 = 2;
/// At this count the task is completed as failed.
pub const CRASHES_MAX: u32 = 5;

/// Times that the rules wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// A node that is not heard from for this long is lost.
    pub lease_ms: i64,
    /// A released attempt that nobody started for this long may have been lost by the broker.
    pub reconcile_ms: i64,
    /// After this long it is published again whatever the queue says.
    pub reconcile_max_ms: i64,
    /// A publish that failed is tried again after this long.
    pub republish_ms: i64,
    /// A run that its node's beats do not list for this long is lost.
    pub missing_ms: i64,
    /// Releases that stay unstarted for this long shrink the window.
    pub stalled_ms: i64,
}

impl Default for Timers {
    fn default() -> Timers {
        Timers {
            lease_ms: 60_000,
            reconcile_ms: 60_000,
            reconcile_max_ms: 900_000,
            republish_ms: 1_000,
            missing_ms: 30_000,
            stalled_ms: 5_000,
        }
    }
}

/// The live state of one pool.
#[derive(Debug, Clone)]
pub struct Core {
    slots_per_node: u32,
    timers: Timers,
    nodes: BTreeMap<NodeId, Node>,
    jobs: BTreeMap<JobUid, Job>,
    live: HashMap<TaskUid, Attempt>,
    window: Window,
    job_order: JobOrder,
    bug: Option<Bug>,
}

/// A job, as far as dispatching goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Larger first.
    pub priority: i32,
    /// -1 is no limit.
    pub max_parallel: i32,
    /// Whether its tasks may be released.
    pub runs: bool,
    /// Rows that are ready and not released.
    pub waiting: u64,
    /// Attempts that are released or run.
    pub live: u32,
}

/// A task that is about to be released, without what the rules do not need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The task.
    pub uid: TaskUid,
    /// Attempts so far.
    pub attempt: u32,
    /// Its present fence.
    pub fence: Fence,
    /// Slots it takes.
    pub slots: u32,
    /// Started attempts whose node died.
    pub crashes: u32,
    /// Retries spent.
    pub retries: u32,
    /// Retries allowed; -1 is no limit.
    pub retries_max: i32,
}

/// How a job stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobStop {
    /// Running tasks are queued again.
    Requeue,
    /// Running tasks are completed; waiting ones stay as they are.
    End,
    /// Running tasks go on; those that have not started are taken back.
    Wait,
    /// Everything goes.
    Delete,
}

/// What happens to a pool.
#[derive(Debug, Clone)]
pub enum Event {
    /// A job is there, or changed.
    Job {
        /// The job.
        job: JobUid,
        /// Larger first.
        priority: i32,
        /// -1 is no limit.
        max_parallel: i32,
        /// Whether its tasks may be released.
        runs: bool,
    },
    /// A job's live attempts end.
    JobStopped {
        /// The job.
        job: JobUid,
        /// In which way.
        stop: JobStop,
    },
    /// Tasks were added and are ready, in their order.
    Added {
        /// The job.
        job: JobUid,
        /// The tasks.
        tasks: Vec<Ready>,
    },
    /// Rows became ready in the store: dependencies were satisfied.
    Unblocked {
        /// The job.
        job: JobUid,
        /// How many.
        count: u64,
    },
    /// A waiting, ready row is gone: ended or deleted.
    Withdrawn {
        /// The job.
        job: JobUid,
    },
    /// The store hands over what a `Fetch` asked for; fewer rows than asked means no more are ready.
    Fetched {
        /// The job.
        job: JobUid,
        /// How many were asked for.
        asked: u32,
        /// The tasks, lowest number first.
        tasks: Vec<Ready>,
    },
    /// The window may have opened: release what fits.
    Fill,
    /// The broker has confirmed an attempt's publish.
    Published(AttemptKey),
    /// It has not.
    PublishFailed(AttemptKey),
    /// A run began.
    Started {
        /// The node.
        node: NodeId,
        /// Its start.
        epoch: Epoch,
        /// The run.
        started: Started,
    },
    /// A run ended.
    Finished {
        /// The node.
        node: NodeId,
        /// Its start.
        epoch: Epoch,
        /// The end.
        finished: Box<Finished>,
    },
    /// May this delivery run?
    Ask {
        /// The run that would.
        run: RunKey,
        /// The node.
        node: NodeId,
        /// Its start.
        epoch: Epoch,
    },
    /// May this run upload?
    MayPublish {
        /// The run.
        run: RunKey,
        /// The node.
        node: NodeId,
        /// Its start.
        epoch: Epoch,
    },
    /// How often a task that is released or runs may be tried again has changed.
    Limits {
        /// The task.
        uid: TaskUid,
        /// -1 is no limit.
        retries_max: i32,
    },
    /// A person ends a task that is released or runs.
    Cancel {
        /// The task.
        uid: TaskUid,
        /// Its record goes, too.
        delete: bool,
    },
    /// A node was asked for.
    NodeAdded {
        /// The node.
        node: NodeId,
    },
    /// An agent joined.
    Joined {
        /// The node.
        node: NodeId,
        /// Its new start, or the old one when the process goes on.
        epoch: Epoch,
        /// Whether the process, and so its runs, go on.
        keeps_runs: bool,
    },
    /// An agent tells its own state.
    Reported {
        /// The node.
        node: NodeId,
        /// Its start.
        epoch: Epoch,
        /// What it says.
        report: NodeReport,
    },
    /// An agent is alive.
    Beat(Beat),
    /// A node shall be emptied.
    Drain {
        /// The node.
        node: NodeId,
        /// How.
        option: DeallocationOption,
    },
    /// Scheduling on a node is switched.
    Scheduling {
        /// The node.
        node: NodeId,
        /// On or off.
        enabled: bool,
        /// What becomes of what runs when it is switched off.
        option: DeallocationOption,
    },
    /// A node is asked to start again or to rest.
    Turn {
        /// The node.
        node: NodeId,
        /// For what.
        turn: Turn,
    },
    /// The provider has stopped a node that rests.
    NodeStopped {
        /// The node.
        node: NodeId,
    },
    /// A node is gone for good.
    NodeGone {
        /// The node.
        node: NodeId,
    },
    /// Time passes.
    Tick {
        /// Events wait unread: nobody is reaped meanwhile.
        events_behind: bool,
        /// Messages ready in the pool's queue, when known.
        queue_ready: Option<u32>,
    },
}

/// What follows; all effects of a step belong in one transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Read the next ready rows of a job and come back with [`Event::Fetched`].
    Fetch {
        /// The job.
        job: JobUid,
        /// Rows at most.
        count: u32,
    },
    /// Store the attempt with an outbox row, then publish it with `start: now`.
    Release {
        /// The job.
        job: JobUid,
        /// The attempt.
        key: AttemptKey,
        /// Slots it reserves; more than one travels on the wide queue.
        slots: u32,
    },
    /// Publish it again with `start: ask`.
    Republish {
        /// The attempt.
        key: AttemptKey,
        /// Slots it reserves.
        slots: u32,
    },
    /// The outbox row goes.
    Published {
        /// The task.
        uid: TaskUid,
    },
    /// A run owns the attempt.
    Start {
        /// The job.
        job: JobUid,
        /// The run.
        run: RunKey,
        /// Its node.
        node: NodeId,
        /// The node's start.
        epoch: Epoch,
        /// When.
        at: Timestamp,
    },
    /// Ready again.
    Requeue {
        /// The job.
        job: JobUid,
        /// The task.
        uid: TaskUid,
        /// Its new fence.
        fence: Fence,
        /// Why.
        cause: RequeueCause,
        /// Started attempts whose node died, so far.
        crashes: u32,
    },
    /// Ready again, or held, as if it had never been released.
    Unrelease {
        /// The job.
        job: JobUid,
        /// The task.
        uid: TaskUid,
        /// Its new fence.
        fence: Fence,
    },
    /// Completed.
    End {
        /// The job.
        job: JobUid,
        /// The task.
        uid: TaskUid,
        /// Its last fence.
        fence: Fence,
        /// Whether it counted as running.
        was_running: bool,
        /// The node that ran it.
        node: Option<NodeId>,
        /// Why.
        cause: EndCause,
    },
    /// The row of a live task goes.
    Delete {
        /// The job.
        job: JobUid,
        /// The task.
        uid: TaskUid,
        /// Whether it counted as running.
        was_running: bool,
    },
    /// Tell the pool's agents not to start an attempt.
    Revoke(AttemptKey),
    /// Tell a node to end a run.
    Stop {
        /// The node.
        node: NodeId,
        /// The run.
        run: RunId,
        /// Why.
        verdict: Verdict,
    },
    /// A node's state changed.
    NodeState {
        /// The node.
        node: NodeId,
        /// Its new state.
        state: NodeState,
    },
    /// A node was asked for something beside running tasks, or has done it.
    Turned {
        /// The node.
        node: NodeId,
        /// What, or nothing when it is over.
        turn: Option<Turn>,
    },
    /// A node confirmed that it holds nothing.
    Drained {
        /// The node.
        node: NodeId,
    },
    /// The answer to an ask.
    Answer(AskAnswer),
    /// The answer to a may-publish.
    MayPublish(bool),
    /// The answer to a beat.
    Beaten {
        /// One for each run that is not simply fine.
        verdicts: Vec<(RunId, Verdict)>,
        /// What the node shall do.
        order: NodeOrder,
    },
}

/// An answer without the spec, which is the engine's to add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskAnswer {
    /// Run it.
    Run,
    /// That run of yours has it.
    Resume(RunId),
    /// Forget it.
    Drop,
    /// Ask again later.
    Wait(u64),
}

impl From<AskAnswer> for Answer {
    fn from(answer: AskAnswer) -> Answer {
        match answer {
            AskAnswer::Run => Answer::Run { spec: None },
            AskAnswer::Resume(run) => Answer::Resume { run },
            AskAnswer::Drop => Answer::Drop,
            AskAnswer::Wait(ms) => Answer::Wait { ms },
        }
    }
}

/// Why a task is completed.
#[derive(Debug, Clone, PartialEq)]
pub enum EndCause {
    /// Its run ended.
    Finished(Box<Finished>),
    /// A person, its job or its node's drain ended it.
    Ended,
    /// Its node died under it too often.
    Crashes(u32),
}

impl Core {
    /// An empty pool.
    pub fn new(slots_per_node: u32, timers: Timers) -> Core {
        Core {
            slots_per_node,
            timers,
            nodes: BTreeMap::new(),
            jobs: BTreeMap::new(),
            live: HashMap::new(),
            window: Window::default(),
            job_order: JobOrder::default(),
            bug: None,
        }
    }

    /// The one door to the rules.
    pub fn step(&mut self, event: Event, now: Timestamp, effects: &mut Vec<Effect>) {
        match event {
            Event::Job { job, priority, max_parallel, runs } => {
                let job = self.jobs.entry(job).or_insert(Job { priority, max_parallel, runs, waiting: 0, live: 0 });
                (job.priority, job.max_parallel, job.runs) = (priority, max_parallel, runs);
            }
            Event::JobStopped { job, stop } => self.on_job_stopped(job, stop, effects),
            Event::Added { job, tasks } => self.on_added(job, tasks, now, effects),
            Event::Unblocked { job, count } => self.wait(job, count),
            Event::Withdrawn { job } => self.unwait(job, 1),
            Event::Fetched { job, asked, tasks } => self.on_fetched(job, asked, tasks, now, effects),
            Event::Fill => self.fill(now, effects),
            Event::Published(key) => self.on_published(key, effects),
            Event::PublishFailed(key) => self.on_publish_failed(key, now),
            Event::Started { node, epoch, started } => self.on_started(&node, epoch, started, now, effects),
            Event::Finished { node, epoch, finished } => self.on_finished(node, epoch, finished, now, effects),
            Event::Ask { run, node, epoch } => self.on_ask(run, node, epoch, now, effects),
            Event::MayPublish { run, node, epoch } => self.on_may_publish(run, &node, epoch, now, effects),
            Event::Limits { uid, retries_max } => {
                if let Some(attempt) = self.live.get_mut(&uid) {
                    attempt.retries_max = retries_max;
                }
            }
            Event::Cancel { uid, delete } => self.on_cancel(uid, delete, effects),
            Event::NodeAdded { node } => {
                self.nodes.entry(node).or_insert_with(|| Node::asked_for(now));
            }
            Event::Joined { node, epoch, keeps_runs } => self.on_joined(node, epoch, keeps_runs, now, effects),
            Event::Reported { node, epoch, report } => self.on_reported(node, epoch, report, now, effects),
            Event::Beat(beat) => self.on_beat(beat, now, effects),
            Event::Drain { node, option } => self.on_drain(node, option, effects),
            Event::Scheduling { node, enabled, option } => self.on_scheduling(node, enabled, option, effects),
            Event::Turn { node, turn } => self.on_turn(node, turn, now, effects),
            Event::NodeStopped { node } => self.on_node_stopped(node, effects),
            Event::NodeGone { node } => self.on_node_gone(node, effects),
            Event::Tick { events_behind, queue_ready } => self.on_tick(events_behind, queue_ready, now, effects),
        }
    }

    /// The nodes, by name.
    pub fn nodes(&self) -> &BTreeMap<NodeId, Node> {
        &self.nodes
    }

    /// The jobs, by number.
    pub fn jobs(&self) -> &BTreeMap<JobUid, Job> {
        &self.jobs
    }

    /// The attempts inside the window, by task.
    pub fn live(&self) -> &HashMap<TaskUid, Attempt> {
        &self.live
    }

    /// Slots of a node.
    pub fn slots_per_node(&self) -> u32 {
        self.slots_per_node
    }

    /// Changes the slots of a node; the pool has none.
    pub fn set_slots_per_node(&mut self, slots: u32) {
        self.slots_per_node = slots;
    }

    /// Slots of all nodes that can be given tasks.
    pub fn slots(&self) -> u32 {
        self.nodes.values().filter(|node| node.takes_tasks()).count() as u32 * self.slots_per_node
    }

    /// A job's rows when the dispatcher starts.
    pub fn restore_waiting(&mut self, job: JobUid, waiting: u64) {
        self.wait(job, waiting);
    }

    /// A job that is gone.
    pub fn forget_job(&mut self, job: JobUid) {
        self.jobs.remove(&job);
    }

    /// Whether nothing of a job is live.
    pub fn is_quiet(&self, job: JobUid) -> bool {
        self.jobs.get(&job).is_none_or(|job| job.live == 0)
    }

    fn wait(&mut self, job: JobUid, count: u64) {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.waiting += count;
        }
    }

    fn unwait(&mut self, job: JobUid, count: u64) {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.waiting = job.waiting.saturating_sub(count);
        }
    }

    fn has(&self, bug: Bug) -> bool {
        cfg!(test) && self.bug == Some(bug)
    }
}
