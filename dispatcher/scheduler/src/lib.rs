//! The rules of one pool, pure: `step(event, now) → effects`. No clock, no I/O, no async.
//! Every timer counts moments; times are what people will read.
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
mod drain;
mod effect;
mod event;
mod faults;
mod job_tasks;
mod keep;
mod node_actions;
mod nodes;
mod planted;
mod questions;
mod reconcile;
mod retries;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod window;

use std::collections::{BTreeMap, HashMap};

use contract::{
    clock::{Moment, Now},
    ids::{JobUid, NodeId, TaskUid},
    message::HEARTBEAT_TTL_MS,
};

use model::{
    job_tasks::{JobOnNode, Rules},
    pool::JobOrder,
};

pub use attempts::{Attempt, Phase};
pub use effect::{Effect, EndCause};
pub use event::{Event, JobStop, Ready};
pub use job_tasks::RELEASE_MARGIN_MS;
pub use keep::{KEEP_MS, Keep};
pub use node_actions::RESTART_MS;
pub use nodes::Node;
pub use planted::Bug;
pub use questions::{AskAnswer, HeartbeatAnswer};
pub use window::Window;

/// A task whose node died under it is counted; from this count on it runs alone on a node.
pub const CRASHES_ALONE: u32 = 2;
/// At this count the task is completed as failed.
pub const CRASHES_MAX: u32 = 5;
/// A heartbeat that is read sooner than this after the dispatcher's own start may have been sent before it.
const HEARD_AFTER_MS: i64 = HEARTBEAT_TTL_MS as i64 + 5_000;
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
    /// A run that its node's heartbeats do not list for this long is lost.
    pub missing_ms: i64,
    /// Releases that stay unstarted for this long shrink the window.
    pub stalled_ms: i64,
    /// A task of several slots that was released for this long, longer than agents set slots aside, gets a node kept for it.
    pub aged_ms: i64,
}

impl Timers {
    /// A longer time between two ticks is a gap: the machine was suspended, the process stopped, or its disk did not
    /// answer. Nobody was heard in it, so it says nothing about those who were silent.
    pub fn gap_ms(&self) -> i64 {
        self.lease_ms.min(self.missing_ms) / 4
    }
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
            aged_ms: 45_000,
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
    jobs_on_nodes: BTreeMap<NodeId, BTreeMap<JobUid, JobOnNode>>,
    /// Releases that are waited for, and until when.
    releasing: BTreeMap<(JobUid, NodeId), Moment>,
    window: Window,
    job_order: JobOrder,
    /// The moment of the present step.
    moment: Moment,
    /// When the dispatcher started, as far as this pool was there.
    started_at: Option<Moment>,
    /// The last tick, or the start.
    ticked_at: Option<Moment>,
    keeping: keep::Keeping,
    /// Tasks that met faults of nodes.
    faulty: faults::FaultyTasks,
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
    /// Whether rows may pause before a retry: each tick looks for those that are due.
    pub rests: bool,
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
            jobs_on_nodes: BTreeMap::new(),
            releasing: BTreeMap::new(),
            window: Window::default(),
            job_order: JobOrder::default(),
            moment: Moment::default(),
            started_at: None,
            ticked_at: None,
            keeping: keep::Keeping::default(),
            faulty: faults::FaultyTasks::default(),
            bug: None,
        }
    }

    /// Begins an event or a question: the rules know the time from here on.
    fn begin(&mut self, now: Now) -> Now {
        let now = if self.has(Bug::LeasesByWallClock) { Now { moment: Moment(now.time.0), ..now } } else { now };
        self.moment = now.moment;
        now
    }

    /// Everything that happens to the pool but the questions of agents, each of which is a function of its own.
    pub fn step(&mut self, event: Event, now: Now, effects: &mut Vec<Effect>) {
        let now = self.begin(now);
        let moment = now.moment;
        match event {
            Event::Job { job, priority, max_parallel, runs } => {
                let job = self.jobs.entry(job).or_insert(Job {
                    priority,
                    max_parallel,
                    runs,
                    waiting: 0,
                    rests: false,
                    live: 0,
                    rules: None,
                    barred: 0,
                });
                (job.priority, job.max_parallel, job.runs) = (priority, max_parallel, runs);
            }
            Event::JobStopped { job, stop } => self.on_job_stopped(job, stop, effects),
            Event::Prepares { job, rules } => self.on_prepares(job, rules),
            Event::Release { job } => self.on_release(job, now, effects),
            Event::JobTaskEnded { node, epoch, end } => self.on_job_task_ended(&node, epoch, end, effects),
            Event::Added { job, tasks } => self.on_added(job, tasks, moment, effects),
            Event::Unblocked { job, count } => self.wait(job, count),
            Event::Withdrawn { job } => self.unwait(job, 1),
            Event::Fetched { job, asked, tasks } => self.on_fetched(job, asked, tasks, moment, effects),
            Event::Woken { job, count, more } => self.on_woken(job, count, more),
            Event::Fill => self.fill(moment, effects),
            Event::Published(key) => self.on_published(key, effects),
            Event::PublishFailed(key) => self.on_publish_failed(key, moment),
            Event::Started { node, epoch, started } => self.on_started(&node, epoch, started, moment, effects),
            Event::Finished { node, epoch, finished } => self.on_finished(node, epoch, finished, moment, effects),
            Event::Limits { uid, retries_max } => {
                if let Some(attempt) = self.live.get_mut(&uid) {
                    attempt.retries_max = retries_max;
                }
            }
            Event::Cancel { uid, delete } => self.on_cancel(uid, delete, effects),
            Event::NodeAdded { node } => {
                self.nodes.entry(node).or_insert_with(|| Node::asked_for(moment));
            }
            Event::Joined { node, epoch, keeps_runs } => self.on_joined(node, epoch, keeps_runs, moment, effects),
            Event::Reported { node, epoch, report } => self.on_reported(node, epoch, report, now, effects),
            Event::SlotsPerNode { slots } => self.on_slots_per_node(slots, effects),
            Event::Drain { node, option } => self.on_drain(node, option, effects),
            Event::Scheduling { node, enabled, option } => self.on_scheduling(node, enabled, option, effects),
            Event::NodeAction { node, action } => self.on_action(node, action, moment, effects),
            Event::NodeStopped { node } => self.on_node_stopped(node, now.time, effects),
            Event::NodeGone { node } => self.on_node_gone(node, now.time, effects),
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

    /// Slots of all nodes that can be given tasks.
    pub fn slots(&self) -> u32 {
        self.nodes.values().filter(|node| node.takes_tasks()).count() as u32 * self.slots_per_node
    }

    /// A job's rows when the dispatcher starts or the job comes to this pool; some may pause before a retry.
    pub fn restore_waiting(&mut self, job: JobUid, waiting: u64) {
        self.wait(job, waiting);
        self.note_rest(job);
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
