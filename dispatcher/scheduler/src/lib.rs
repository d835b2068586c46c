//! The scheduler of one pool, a pure state machine: `step(event, now) → effects`. No clock, no I/O, no async. Timers
//! use monotonic moments; timestamps are for people.
//!
//! The state is what is alive: nodes, jobs with their counters, and the attempts inside the window. Waiting tasks are
//! rows; the scheduler decides which job is next, and the store returns the job's next rows. The engine applies all
//! effects of a step in one transaction and sends outputs only after its commit. After a failed commit the state is
//! loaded again from the store, so a state ahead of the store is never seen.
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
pub mod gangs;
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

/// A task whose node died during this many of its attempts runs alone on a node.
pub const CRASHES_ALONE: u32 = 2;
/// A task whose node died during this many of its attempts is completed as failed.
pub const CRASHES_MAX: u32 = 5;
/// A heartbeat that is read sooner than this after the dispatcher's start may have been sent before it.
const HEARD_AFTER_MS: i64 = HEARTBEAT_TTL_MS as i64 + 5_000;
/// How long an agent waits before it asks again.
const WAIT_MS: u64 = 1_000;

/// The scheduler's time limits and pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// A node without a sign of life for this long is lost.
    pub lease_ms: i64,
    /// An attempt that was released for this long and not started may have been lost by the broker.
    pub reconcile_ms: i64,
    /// After this long it is published again, whatever the queue's depth.
    pub reconcile_max_ms: i64,
    /// A failed publish is repeated after this long.
    pub republish_ms: i64,
    /// A run that its node's heartbeats have not listed for this long is lost.
    pub missing_ms: i64,
    /// Attempts that stay released for this long shrink the window.
    pub stalled_ms: i64,
    /// An attempt of several slots that was released for this long gets a node kept for it. Longer than agents set
    /// slots aside by themselves.
    pub aged_ms: i64,
}

impl Timers {
    /// A longer time between two ticks is a gap: the machine was suspended, the process stopped, or the disk did not
    /// answer. No heartbeat could be read in it, so the silence of nodes means nothing.
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

/// The state of one pool.
#[derive(Debug, Clone)]
pub struct Core {
    slots_per_node: u32,
    timers: Timers,
    nodes: BTreeMap<NodeId, Node>,
    jobs: BTreeMap<JobUid, Job>,
    live: HashMap<TaskUid, Attempt>,
    jobs_on_nodes: BTreeMap<NodeId, BTreeMap<JobUid, JobOnNode>>,
    /// Releases that are awaited, and when each is given up.
    releasing: BTreeMap<(JobUid, NodeId), Moment>,
    window: Window,
    job_order: JobOrder,
    /// Time of the present step.
    moment: Moment,
    /// When the dispatcher started; `None` for a pool created since.
    started_at: Option<Moment>,
    /// Time of the last tick, or of the start.
    ticked_at: Option<Moment>,
    keeping: keep::Keeping,
    /// Node faults by task.
    faulty: faults::FaultyTasks,
    bug: Option<Bug>,
}

/// A job, as far as the scheduler needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Jobs with a larger value go first.
    pub priority: i32,
    /// -1 means no limit.
    pub max_parallel: i32,
    /// Whether its tasks may be released.
    pub runs: bool,
    /// Rows that are ready and not released.
    pub waiting: u64,
    /// Whether rows may be pausing before a retry; then each tick asks for those that are due.
    pub rests: bool,
    /// Attempts that are released or running.
    pub live: u32,
    /// Settings of its preparation and release; `None` when it has neither.
    pub rules: Option<Rules>,
    /// Nodes on which its preparation failed.
    pub barred: u32,
}

impl Core {
    /// A pool without nodes and jobs.
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

    /// Begins an event or a question at this time.
    fn begin(&mut self, now: Now) -> Now {
        let now = if self.has(Bug::LeasesByWallClock) { Now { moment: Moment(now.time.0), ..now } } else { now };
        self.moment = now.moment;
        now
    }

    /// Handles an event. Questions of agents have functions of their own, which return the answer.
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

    /// Nodes by name.
    pub fn nodes(&self) -> &BTreeMap<NodeId, Node> {
        &self.nodes
    }

    pub fn jobs(&self) -> &BTreeMap<JobUid, Job> {
        &self.jobs
    }

    /// Released and running attempts by task.
    pub fn live(&self) -> &HashMap<TaskUid, Attempt> {
        &self.live
    }

    pub fn slots_per_node(&self) -> u32 {
        self.slots_per_node
    }

    /// Slots of all nodes that take tasks.
    pub fn slots(&self) -> u32 {
        self.nodes.values().filter(|node| node.takes_tasks()).count() as u32 * self.slots_per_node
    }

    /// Sets a job's number of ready rows, when the dispatcher starts or the job comes to this pool; further rows may be
    /// pausing before a retry.
    pub fn restore_waiting(&mut self, job: JobUid, waiting: u64) {
        self.wait(job, waiting);
        self.note_rest(job);
    }

    /// Sets a job's number of ready rows, after the slots per node have changed.
    pub fn recount_waiting(&mut self, job: JobUid, waiting: u64) {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.waiting = waiting;
        }
    }

    /// Forgets a job that is gone.
    pub fn forget_job(&mut self, job: JobUid) {
        self.jobs.remove(&job);
    }

    /// Whether no attempt of the job is released or running.
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
