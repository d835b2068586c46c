//! Commands of clients and of the provider, and how the model dispatcher carries them out.

use contract::{
    ids::{Epoch, NodeId, TaskUid},
    state::{DeallocationOption, NodeState, TaskState},
};
use model::node::NodeAction;

use crate::{
    Event, JobStop,
    simulation::{
        checker::{Fact, Violation},
        commit::Commit,
        dispatcher::Outward,
        plan::JobTasks,
        rows::{Counts, JobLife, JobRow, NodeRow},
        world::{What, World},
    },
};

/// A command of a client or of the provider.
#[derive(Debug, Clone)]
pub enum Command {
    Job(usize),
    /// Add tasks of one job.
    Tasks(Vec<usize>),
    Cancel(usize),
    /// Run a failed task again.
    Reactivate(usize),
    Delete(usize),
    /// Change a job's priority and limit.
    Change(usize, i32, i32),
    /// Disable a job: 0 requeue, 1 terminate, 2 wait.
    Disable(usize, u8),
    Enable(usize),
    Terminate(usize),
    DeleteJob(usize),
    AddNode(NodeId),
    /// Drain a node.
    Drain(NodeId, DeallocationOption),
    /// Request an action on a node.
    Action(NodeId, NodeAction),
    /// The provider has stopped a deallocated node.
    Stopped(NodeId),
    /// Enable or disable scheduling on a node.
    Scheduling(NodeId, bool),
    /// A node is gone for good.
    Gone(NodeId),
    /// Change the slots per node of a pool without nodes.
    Slots(u32),
}

/// The answer to a command.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub created: Vec<usize>,
    /// A task that is ended, and in which of its lives.
    pub cancelled: Option<(TaskUid, u32)>,
}

impl Commit<'_> {
    /// Carries out a command.
    pub fn command(&mut self, command: Command) -> Reply {
        let mut reply = Reply::default();
        match command {
            Command::Job(index) => {
                let (priority, max_parallel) = self.world.plan.jobs[index];
                let counts = Counts::default();
                let row = JobRow { priority, max_parallel, state: JobLife::Active, counts };
                self.world.rows.jobs.entry(World::job(index)).or_insert(row);
                self.tell_job(index);
            }
            Command::Tasks(names) => reply.created = self.create(names),
            Command::Cancel(name) => reply.cancelled = self.cancel(name),
            Command::Reactivate(name) => self.reactivate(name),
            Command::Delete(name) => self.delete(name),
            Command::Change(index, priority, max_parallel) => {
                if let Some(row) = self.world.rows.jobs.get_mut(&World::job(index)) {
                    (row.priority, row.max_parallel) = (priority, max_parallel);
                    self.tell_job(index);
                }
            }
            Command::Disable(index, how) => {
                if self.set_life(index, JobLife::Disabled) {
                    let stop = [JobStop::Requeue, JobStop::End, JobStop::Wait][usize::from(how)];
                    self.world.mark(["disabled, requeued", "disabled, ended", "disabled, waited for"][usize::from(how)]);
                    self.step(Event::JobStopped { job: World::job(index), stop });
                }
            }
            Command::Enable(index) => {
                if self.set_life(index, JobLife::Active) {
                    self.tell_job(index);
                }
            }
            Command::Terminate(index) => {
                if self.set_life(index, JobLife::Terminated) {
                    self.step(Event::JobStopped { job: World::job(index), stop: JobStop::End });
                    self.step(Event::Release { job: World::job(index) });
                }
            }
            Command::DeleteJob(index) => self.delete_job(index),
            Command::AddNode(node) => {
                let row =
                    NodeRow { epoch: Epoch(0), state: NodeState::Creating, is_enabled: true, drain: None, is_drained: false, action: None };
                self.world.rows.nodes.entry(node.clone()).or_insert(row);
                self.step(Event::NodeAdded { node: node.clone() });
                self.leaves.push(Outward::Later(500, What::StartAgent(node)));
            }
            Command::Drain(node, option) => {
                if let Some(row) = self.world.rows.nodes.get_mut(&node) {
                    row.drain = Some(option);
                    self.step(Event::Drain { node, option });
                }
            }
            Command::Scheduling(node, enabled) => {
                if let Some(row) = self.world.rows.nodes.get_mut(&node) {
                    row.is_enabled = enabled;
                    self.step(Event::Scheduling { node, enabled, option: DeallocationOption::TaskCompletion });
                }
            }
            Command::Action(node, action) => {
                let facts = self.core.nodes().get(&node);
                let Some((state, since)) = facts.map(|facts| (facts.state(), facts.epoch)) else { return reply };
                let action = match action {
                    NodeAction::Reboot { option, .. } => NodeAction::Reboot { option, since },
                    NodeAction::Reimage { option, .. } => NodeAction::Reimage { option, since },
                    other => other,
                };
                let is_allowed = match action {
                    NodeAction::Start => state == NodeState::Deallocated,
                    _ => matches!(state, NodeState::Idle | NodeState::Running | NodeState::Offline),
                };
                if is_allowed {
                    self.step(Event::NodeAction { node: node.clone(), action });
                }
            }
            Command::Slots(slots) => {
                if self.world.rows.nodes.is_empty() {
                    self.world.mark("slots changed");
                    self.world.plan.slots = slots;
                    self.world.rows.refit(slots);
                    for job in self.core.jobs().keys().copied().collect::<Vec<_>>() {
                        self.core.recount_waiting(job, self.world.rows.ready_count(job));
                    }
                    self.step(Event::SlotsPerNode { slots });
                }
            }
            Command::Stopped(node) => self.step(Event::NodeStopped { node }),
            Command::Gone(node) => {
                self.step(Event::NodeGone { node: node.clone() });
                self.world.rows.nodes.remove(&node);
            }
        }
        reply
    }

    fn tell_job(&mut self, index: usize) {
        let job = World::job(index);
        if let Some(row) = self.world.rows.jobs.get(&job) {
            let (priority, max_parallel, runs) = (row.priority, row.max_parallel, row.state == JobLife::Active);
            if matches!(row.state, JobLife::Active | JobLife::Disabled) {
                self.step(Event::Job { job, priority, max_parallel, runs });
                if let Some(rules) = self.world.job_tasks_of(job).map(JobTasks::rules) {
                    self.step(Event::Prepares { job, rules });
                }
            }
        }
    }

    fn set_life(&mut self, index: usize, life: JobLife) -> bool {
        match self.world.rows.jobs.get_mut(&World::job(index)) {
            Some(row) if matches!(row.state, JobLife::Active | JobLife::Disabled) => {
                row.state = life;
                true
            }
            _ => false,
        }
    }

    fn create(&mut self, names: Vec<usize>) -> Vec<usize> {
        let mut ready = Vec::new();
        let mut created = Vec::new();
        let Some(job) = names.first().map(|name| World::job(self.world.plan.tasks[*name].job)) else { return created };
        let is_open = self.world.rows.jobs.get(&job).is_some_and(|row| matches!(row.state, JobLife::Active | JobLife::Disabled));
        for name in names {
            if self.world.rows.names.contains_key(&name) {
                created.push(name);
            } else if is_open {
                let spec = self.world.plan.tasks[name];
                let rows = &mut self.world.rows;
                let is_met =
                    |earlier: &usize| rows.names.get(earlier).and_then(|uid| rows.tasks.get(uid)).is_some_and(|row| row.has_succeeded);
                let blocked_by = spec.depends_on.filter(|earlier| !is_met(earlier));
                let slots = (spec.slots, self.world.plan.slots);
                let row = rows.insert(name, job, slots, spec.retries_max, blocked_by);
                let uid = row.facts.uid;
                if row.is_ready {
                    ready.push(row.facts);
                }
                self.world.observe(Fact::Created { uid, name, retries_max: spec.retries_max });
                self.counts(job).active += 1;
                created.push(name);
            }
        }
        if !ready.is_empty() {
            self.step(Event::Added { job, tasks: ready });
        }
        created
    }

    fn cancel(&mut self, name: usize) -> Option<(TaskUid, u32)> {
        let uid = *self.world.rows.names.get(&name)?;
        let row = self.world.rows.tasks.get_mut(&uid).filter(|row| row.state != TaskState::Completed)?;
        let life = row.life;
        if row.is_live {
            self.step(Event::Cancel { uid, delete: false });
        } else {
            let (job, was_ready, fence) = (row.job, row.is_ready, row.facts.fence.next());
            row.complete(fence, false);
            self.world.observe(Fact::Ended { uid, fence, by: None, has_succeeded: false });
            self.counts(job).active -= 1;
            self.counts(job).completed += 1;
            if was_ready {
                self.step(Event::Withdrawn { job });
            }
        }
        Some((uid, life))
    }

    fn reactivate(&mut self, name: usize) {
        let rows = &mut self.world.rows;
        let Some(uid) = rows.names.get(&name).copied() else { return };
        let Some(row) = rows.tasks.get_mut(&uid).filter(|row| row.state == TaskState::Completed && !row.has_succeeded) else { return };
        let job = row.job;
        if !rows.jobs.get(&job).is_some_and(|job| matches!(job.state, JobLife::Active | JobLife::Disabled)) {
            return;
        }
        row.revive();
        let (fence, is_ready, life) = (row.facts.fence, row.is_ready, row.life);
        self.world.mark("reactivated");
        self.world.observe(Fact::Reactivated { uid, fence, life });
        let counts = self.counts(job);
        (counts.completed, counts.active) = (counts.completed - 1, counts.active + 1);
        self.step(Event::Unblocked { job, count: u64::from(is_ready) });
    }

    fn delete(&mut self, name: usize) {
        let Some(uid) = self.world.rows.names.get(&name).copied() else { return };
        let Some(row) = self.world.rows.tasks.get(&uid) else { return };
        if row.is_live {
            return self.step(Event::Cancel { uid, delete: true });
        }
        let (job, was_ready, is_completed) = (row.job, row.is_ready, row.state == TaskState::Completed);
        self.world.rows.tasks.remove(&uid);
        self.world.observe(Fact::Deleted { uid });
        let counts = self.counts(job);
        if is_completed {
            counts.completed -= 1
        } else {
            counts.active -= 1
        }
        if was_ready {
            self.step(Event::Withdrawn { job });
        }
    }

    fn delete_job(&mut self, index: usize) {
        let job = World::job(index);
        let Some(row) = self.world.rows.jobs.get_mut(&job) else { return };
        row.state = JobLife::Deleted;
        self.step(Event::JobStopped { job, stop: JobStop::Delete });
        self.step(Event::Release { job });
        let names: Vec<usize> = self.world.rows.tasks.values().filter(|row| row.job == job).map(|row| row.name).collect();
        for name in names {
            self.delete(name);
        }
        if !self.core.is_quiet(job) {
            self.world.checker.fail(Violation::NotSettled(format!("deleted {job:?} is not quiet")));
        }
        self.core.forget_job(job);
    }
}
