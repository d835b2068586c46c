//! The model store: rows in maps, changed by effects exactly as a real store must change them.

use std::collections::BTreeMap;

use contract::{
    clock::Now,
    ids::{AttemptKey, Epoch, Fence, JobUid, NodeId, RunId, TaskUid},
    state::{DeallocationOption, NodeState, TaskState},
};
use model::{
    job_tasks::{JobOnNode, Rules},
    node::NodeAction,
};

use crate::{Attempt, CRASHES_ALONE, Core, Event, Node, Phase, Ready, Timers};

/// Everything that survives the dispatcher.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    /// Starts of the dispatcher so far.
    pub boot: u64,
    pub tasks: BTreeMap<TaskUid, TaskRow>,
    /// Numbers by name; a deleted task's name stays, as nobody uses it again.
    pub names: BTreeMap<usize, TaskUid>,
    pub jobs: BTreeMap<JobUid, JobRow>,
    pub nodes: BTreeMap<NodeId, NodeRow>,
    /// What jobs did to nodes.
    pub jobs_on_nodes: BTreeMap<(JobUid, NodeId), JobOnNode>,
}

/// One task.
#[derive(Debug, Clone)]
pub struct TaskRow {
    /// Its index in the plan.
    pub name: usize,
    pub job: JobUid,
    /// Where it is in its life.
    pub state: TaskState,
    /// It may run and is not released.
    pub is_ready: bool,
    /// Its pool's nodes have slots enough.
    pub fits: bool,
    /// It rests before it is tried again.
    pub rests_until: Option<i64>,
    /// It is released or runs.
    pub is_live: bool,
    /// Whether it ended well.
    pub has_succeeded: bool,
    /// What its node must succeed with first.
    pub blocked_by: Option<usize>,
    /// The numbers that rules use.
    pub facts: Ready,
    /// Released and not confirmed.
    pub is_in_outbox: bool,
    /// Who runs it.
    pub owner: Option<(RunId, NodeId, Epoch)>,
    /// The run that was ended by a decision and has not told what it wrote.
    pub unheard: Option<RunId>,
    /// How often it was reactivated.
    pub life: u32,
}

/// One job.
#[derive(Debug, Clone)]
pub struct JobRow {
    /// Larger first.
    pub priority: i32,
    /// -1 is no limit.
    pub max_parallel: i32,
    /// Where it is in its life.
    pub state: JobLife,
    /// Its tasks by state, kept from effects.
    pub counts: Counts,
}

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobLife {
    /// Tasks run.
    Active,
    /// Tasks wait.
    Disabled,
    /// Ended.
    Terminated,
    /// Gone.
    Deleted,
}

/// Tasks by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Waiting or released.
    pub active: i64,
    /// Owned by a run.
    pub running: i64,
    /// Ended.
    pub completed: i64,
}

/// One node.
#[derive(Debug, Clone)]
pub struct NodeRow {
    pub epoch: Epoch,
    /// As people see it.
    pub state: NodeState,
    /// Whether it may be given tasks.
    pub is_enabled: bool,
    /// How it is drained.
    pub drain: Option<DeallocationOption>,
    /// Whether it holds nothing.
    pub is_drained: bool,
    /// What it was asked for beside running tasks.
    pub action: Option<NodeAction>,
}

impl TaskRow {
    /// The attempt the row is about.
    pub fn key(&self) -> AttemptKey {
        AttemptKey { uid: self.facts.uid, attempt: self.facts.attempt, fence: self.facts.fence }
    }

    /// Not released, not running: ready or held back by a dependency.
    pub fn rest(&mut self, fence: Fence) {
        (self.is_ready, self.is_live, self.is_in_outbox, self.owner) = (self.fits, false, false, None);
        (self.state, self.facts.fence, self.rests_until) = (TaskState::Active, fence, None);
    }

    /// Active again, its retries and crashes unspent; what it waited for and has, it keeps.
    pub fn revive(&mut self) {
        let fence = self.facts.fence.next();
        self.rest(fence);
        (self.is_ready, self.life, self.unheard) = (self.blocked_by.is_none() && self.fits, self.life + 1, None);
        (self.facts.retries, self.facts.crashes) = (0, 0);
    }

    /// Completed.
    pub fn complete(&mut self, fence: Fence, has_succeeded: bool) {
        self.rest(fence);
        (self.is_ready, self.has_succeeded, self.state) = (false, has_succeeded, TaskState::Completed);
    }
}

impl Rows {
    /// A new task's row; its number grows with creation.
    pub fn insert(
        &mut self,
        name: usize,
        job: JobUid,
        (slots, slots_per_node): (u32, u32),
        retries_max: i32,
        blocked_by: Option<usize>,
    ) -> &TaskRow {
        let fits = slots <= slots_per_node;
        let uid = TaskUid(self.names.len() as u64 + 1);
        let facts = Ready { uid, attempt: 0, fence: Fence(0), slots, crashes: 0, retries: 0, retries_max };
        self.names.insert(name, uid);
        self.tasks.entry(uid).or_insert(TaskRow {
            name,
            job,
            state: TaskState::Active,
            is_ready: blocked_by.is_none() && fits,
            fits,
            rests_until: None,
            is_live: false,
            has_succeeded: false,
            blocked_by,
            facts,
            is_in_outbox: false,
            owner: None,
            unheard: None,
            life: 0,
        })
    }

    /// The next rows of a job that may be released.
    pub fn next_ready(&self, job: JobUid, count: usize) -> Vec<Ready> {
        self.tasks.values().filter(|row| row.job == job && row.is_ready).take(count).map(|row| row.facts).collect()
    }

    /// How many rows of a job may be released.
    pub fn ready_count(&self, job: JobUid) -> u64 {
        self.tasks.values().filter(|row| row.job == job && row.is_ready).count() as u64
    }

    /// Rows of a job whose rest is over are ready; how many, and whether others rest still.
    pub fn wake(&mut self, job: JobUid, now: i64) -> (u64, bool) {
        let (mut count, mut more) = (0, false);
        for row in self.tasks.values_mut().filter(|row| row.job == job) {
            if row.rests_until.take_if(|until| *until <= now).is_some() {
                row.is_ready = row.fits;
                count += u64::from(row.fits);
            }
            more |= row.rests_until.is_some();
        }
        (count, more)
    }

    /// Rows that a success lets go; how many.
    pub fn satisfy(&mut self, name: usize) -> u64 {
        let mut count = 0;
        for row in self.tasks.values_mut().filter(|row| row.blocked_by == Some(name)) {
            row.blocked_by = None;
            if row.state == TaskState::Active {
                row.is_ready = row.fits;
                count += u64::from(row.fits);
            }
        }
        count
    }

    /// Nodes have other slots from now on: what fits them.
    pub fn refit(&mut self, slots_per_node: u32) {
        for row in self.tasks.values_mut() {
            row.fits = row.facts.slots <= slots_per_node;
            let may_run = row.state == TaskState::Active && row.blocked_by.is_none() && row.rests_until.is_none();
            row.is_ready = row.fits && may_run && !row.is_live;
        }
    }

    /// The counters as the rows have them.
    pub fn count(&self) -> BTreeMap<JobUid, Counts> {
        let mut all: BTreeMap<JobUid, Counts> = self.jobs.keys().map(|job| (*job, Counts::default())).collect();
        for row in self.tasks.values() {
            let counts = all.entry(row.job).or_default();
            match row.state {
                TaskState::Running | TaskState::Preparing => counts.running += 1,
                TaskState::Completed => counts.completed += 1,
                TaskState::Active => counts.active += 1,
            }
        }
        all
    }

    /// In what a core differs from its rows after a commit.
    pub fn difference(&self, core: &Core) -> Option<String> {
        let mut held: BTreeMap<&NodeId, u32> = BTreeMap::new();
        let mut ready: BTreeMap<JobUid, u64> = BTreeMap::new();
        let mut live = 0;
        for row in self.tasks.values() {
            if row.is_ready {
                *ready.entry(row.job).or_default() += 1;
            }
            if !row.is_live {
                continue;
            }
            live += 1;
            let attempt = core.live().get(&row.facts.uid);
            let owner = row.owner.as_ref().map(|(run, node, _)| (*run, node));
            if attempt.is_none_or(|attempt| attempt.key != row.key() || attempt.owner() != owner) {
                return Some(format!("{row:?} is {attempt:?} to the core"));
            }
            let waits = |attempt: &Attempt| matches!(attempt.phase, Phase::Running { is_preparing: true, .. });
            if attempt.is_some_and(waits) != (row.state == TaskState::Preparing) {
                return Some(format!("{row:?} is {attempt:?} to the core"));
            }
            if let Some((_, node, _)) = &row.owner {
                *held.entry(node).or_default() += 1;
            }
        }
        let known = core
            .jobs_on_nodes()
            .iter()
            .flat_map(|(node, jobs_on_nodes)| jobs_on_nodes.iter().map(move |(job, job_on_node)| ((*job, node.clone()), *job_on_node)));
        let there = self
            .jobs_on_nodes
            .iter()
            .filter(|((_, node), _)| core.nodes().contains_key(node))
            .map(|(key, job_on_node)| (key.clone(), *job_on_node));
        if known.collect::<BTreeMap<_, _>>() != there.collect() {
            return Some(format!("sites are {:?}, to the core {:?}", self.jobs_on_nodes, core.jobs_on_nodes()));
        }
        if core.live().len() != live {
            return Some(format!("{live} live rows, {} live attempts", core.live().len()));
        }
        let job = core.jobs().iter().find(|(job, facts)| facts.waiting != ready.get(job).copied().unwrap_or_default());
        if let Some((job, facts)) = job {
            return Some(format!("{:?} rows of {job:?} are ready, the core says {facts:?}", ready.get(job)));
        }
        let node = core.nodes().iter().find(|(id, node)| node.run_count() != held.get(id).copied().unwrap_or_default());
        node.map(|(id, node)| format!("{id} holds {:?} runs, the core says {node:?}", held.get(id)))
    }

    /// A core as a starting dispatcher builds it.
    pub fn restore(&self, slots_per_node: u32, rules: &BTreeMap<JobUid, Rules>, now: Now) -> Core {
        let moment = now.moment;
        let mut core = Core::new(slots_per_node, Timers::default());
        for (id, node) in &self.nodes {
            let restored =
                Node::restored(node.epoch, node.state, node.is_enabled, (node.drain, node.is_drained), node.action, (moment, moment));
            core.restore_node(id.clone(), restored);
        }
        for (uid, job) in self.jobs.iter().filter(|(_, job)| !matches!(job.state, JobLife::Terminated | JobLife::Deleted)) {
            let runs = job.state == JobLife::Active;
            core.step(Event::Job { job: *uid, priority: job.priority, max_parallel: job.max_parallel, runs }, now, &mut Vec::new());
            core.restore_waiting(*uid, self.ready_count(*uid));
            if let Some(rules) = rules.get(uid).copied() {
                core.step(Event::Prepares { job: *uid, rules }, now, &mut Vec::new());
            }
        }
        for ((job, node), job_on_node) in &self.jobs_on_nodes {
            core.restore_job_on_node(*job, node, *job_on_node, moment);
        }
        for row in self.tasks.values().filter(|row| row.is_live) {
            let phase = match &row.owner {
                Some((run, node, epoch)) => {
                    let is_preparing = row.state == TaskState::Preparing;
                    Phase::Running { run: *run, node: node.clone(), epoch: *epoch, seen_at: moment, is_preparing, is_seen_only: false }
                }
                None => Phase::Released { at: moment, is_published: !row.is_in_outbox, retry_at: row.is_in_outbox.then_some(moment) },
            };
            let Ready { crashes, retries, retries_max, .. } = row.facts;
            let slots = if crashes >= CRASHES_ALONE { slots_per_node } else { row.facts.slots };
            core.restore_attempt(
                row.job,
                Attempt { job: row.job, key: row.key(), needs: row.facts.slots, slots, crashes, retries, retries_max, phase },
            );
        }
        core.restore_window(moment);
        core
    }
}
