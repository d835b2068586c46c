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
mod chores;
mod effect;
mod event;
mod nodes;
mod planted;
mod reconcile;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod turns;
mod window;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use broker_config::{
    ids::{JobUid, NodeId, TaskUid},
    time::Timestamp,
};

pub use attempts::{Attempt, Phase};
pub use chores::{Preparation, RELEASE_MARGIN_MS, Release, Rules, Site};
pub use effect::{AskAnswer, Effect, EndCause};
pub use event::{Event, JobStop, Ready};
pub use nodes::Node;
pub use planted::Bug;
pub use turns::{RESTART_MS, Turn};
pub use window::{JobOrder, Window};

/// A task whose node died under it is counted; from this count on it runs alone on a node.
pub const CRASHES_ALONE: u32 = 2;
/// At this count the task is completed as failed.
pub const CRASHES_MAX: u32 = 5;
/// How long an agent waits before it asks again.
const WAIT_MS: u64 = 1_000;

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
    sites: BTreeMap<NodeId, BTreeMap<JobUid, Site>>,
    releasing: BTreeSet<(JobUid, NodeId)>,
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
    /// What it asks of nodes around its tasks.
    pub rules: Option<Rules>,
    /// Nodes on which its preparation failed.
    pub barred: u32,
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
            sites: BTreeMap::new(),
            releasing: BTreeSet::new(),
            window: Window::default(),
            job_order: JobOrder::default(),
            bug: None,
        }
    }

    /// The one door to the rules.
    pub fn step(&mut self, event: Event, now: Timestamp, effects: &mut Vec<Effect>) {
        match event {
            Event::Job { job, priority, max_parallel, runs } => {
                let job = self.jobs.entry(job).or_insert(Job { priority, max_parallel, runs, waiting: 0, live: 0, rules: None, barred: 0 });
                (job.priority, job.max_parallel, job.runs) = (priority, max_parallel, runs);
            }
            Event::JobStopped { job, stop } => self.on_job_stopped(job, stop, effects),
            Event::Prepares { job, rules } => self.on_prepares(job, rules),
            Event::Release { job } => self.on_release(job, now, effects),
            Event::ChoreEnded { node, epoch, end } => self.on_chore_ended(&node, epoch, end, effects),
            Event::Added { job, tasks } => self.on_added(job, tasks, now, effects),
            Event::Unblocked { job, count } => self.wait(job, count),
            Event::Withdrawn { job } => self.unwait(job, 1),
            Event::Fetched { job, asked, tasks } => self.on_fetched(job, asked, tasks, now, effects),
            Event::Fill => self.fill(now, effects),
            Event::Published(key) => self.on_published(key, effects),
            Event::PublishFailed(key) => self.on_publish_failed(key, now),
            Event::Started { node, epoch, started } => self.on_started(&node, epoch, started, now, effects),
            Event::Finished { node, epoch, finished } => self.on_finished(node, epoch, finished, now, effects),
            Event::Ask { run, node, epoch, prepares } => self.on_ask(run, node, epoch, prepares, now, effects),
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
            Event::NodeStopped { node } => self.on_node_stopped(node, now, effects),
            Event::NodeGone { node } => self.on_node_gone(node, now, effects),
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

    /// A job's rows after the pool's nodes have other slots.
    pub fn recount_waiting(&mut self, job: JobUid, waiting: u64) {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.waiting = waiting;
        }
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
