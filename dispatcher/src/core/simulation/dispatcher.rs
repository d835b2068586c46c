//! The model dispatcher: many inputs, one commit, and only then does anything leave.
//!
//! It dies before a commit (the inputs and the core are lost) or after it (what would have left is lost);
//! then it is built anew from the rows.

use std::collections::VecDeque;

use broker_config::{
    ids::{AttemptKey, Epoch, JobUid, NodeId, RunKey},
    message::{AgentEvent, Beat, NodeOrder, Outcome, Verdict},
    state::{DeallocationOption, NodeState, TaskState},
};

use crate::{
    core::{
        AskAnswer, Core, Effect, EndCause, Event, JobStop,
        simulation::{
            agent::Mail,
            broker::{Message, Told},
            checker::{Fact, Violation},
            rows::{Counts, JobLife, JobRow, NodeRow},
            world::{What, World},
        },
    },
    store::records::RequeueCause,
};

/// Inputs of one commit at most, of each kind.
const BATCH_MAX: usize = 32;

/// The running dispatcher.
pub struct Dispatcher {
    core: Core,
    boot: u64,
    inbox: VecDeque<Input>,
    is_due: bool,
}

/// What reaches the dispatcher and is lost when it dies.
#[derive(Debug, Clone)]
pub enum Input {
    /// A second is over.
    Tick,
    /// The broker has a message.
    Confirmed(AttemptKey),
    /// The broker does not have it.
    Refused(AttemptKey),
    /// May this delivery run?
    Ask { from: From, run: RunKey, node: NodeId, epoch: Epoch },
    /// May this run upload?
    MayPublish { from: From, run: RunKey, node: NodeId, epoch: Epoch },
    /// An agent is alive.
    Beat { from: From, beat: Beat },
    /// An agent joins.
    Join { from: From, ticket: u64, node: NodeId, epoch: Option<Epoch> },
    /// Somebody wants something.
    Command { order: usize, command: Command },
}

/// An agent and the connection it asked on.
pub type From = (usize, u64);

/// What people and the provider want.
#[derive(Debug, Clone)]
pub enum Command {
    /// Add a job.
    Job(usize),
    /// Add tasks of one job.
    Tasks(Vec<usize>),
    /// End a task.
    Cancel(usize),
    /// Remove a task.
    Delete(usize),
    /// Change a job's priority and limit.
    Change(usize, i32, i32),
    /// Disable a job: 0 requeue, 1 terminate, 2 wait.
    Disable(usize, u8),
    /// Enable it.
    Enable(usize),
    /// End it.
    Terminate(usize),
    /// Remove it.
    DeleteJob(usize),
    /// Add a node.
    AddNode(NodeId),
    /// Empty it.
    Drain(NodeId, DeallocationOption),
    /// Switch its scheduling.
    Scheduling(NodeId, bool),
    /// It is gone.
    Gone(NodeId),
}

/// What they are told.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// Tasks that exist.
    pub created: Vec<usize>,
    /// A task that is ended.
    pub cancelled: Option<broker_config::ids::TaskUid>,
}

enum Outward {
    Publish(Message),
    Mail(From, Mail),
    Control(Option<NodeId>, Mail),
    Later(i64, What),
}

/// One commit in the making.
struct Turn<'a> {
    world: &'a mut World,
    core: Core,
    boot: u64,
    leaves: Vec<Outward>,
    from: Option<From>,
    ask: Option<RunKey>,
}

impl Dispatcher {
    /// The rules as they stand.
    pub fn core(&self) -> &Core {
        &self.core
    }
}

impl World {
    /// The number of a job of the plan.
    pub fn job(index: usize) -> JobUid {
        JobUid(index as u64 + 1)
    }

    /// The dispatcher starts from what the rows say.
    pub fn boot(&mut self) {
        if self.dispatcher.is_some() {
            return;
        }
        self.rows.boot += 1;
        let boot = self.rows.boot;
        let mut core = self.rows.restore(self.plan.slots, self.time());
        if let Some(bug) = self.bug {
            core.plant(bug);
        }
        self.dispatcher = Some(Dispatcher { core, boot, inbox: VecDeque::new(), is_due: false });
        let drained: Vec<NodeId> = self.rows.nodes.iter().filter(|(_, node)| node.is_drained).map(|(id, _)| id.clone()).collect();
        for node in drained {
            self.after(1_000, What::RemoveNode(node));
        }
        self.after(1_000, What::Tick(boot));
        self.wake_dispatcher();
    }

    /// The dispatcher dies and is started again.
    pub fn dispatcher_dies(&mut self) {
        self.dispatcher = None;
        let ms =
            if self.random.chance(100) && !self.is_quiet { self.random.between(1_000, 90_000) } else { self.random.between(50, 3_000) };
        self.note(format!("the dispatcher dies for {ms}"));
        self.after(ms, What::Boot);
    }

    /// A second of this dispatcher is over.
    pub fn on_tick(&mut self, boot: u64) {
        if self.dispatcher.as_ref().is_some_and(|dispatcher| dispatcher.boot == boot) {
            self.on_inbox(boot, Input::Tick);
            self.after(1_000, What::Tick(boot));
        }
    }

    /// Something arrives.
    pub fn on_inbox(&mut self, boot: u64, input: Input) {
        if let Some(dispatcher) = self.dispatcher.as_mut().filter(|dispatcher| boot == 0 || dispatcher.boot == boot) {
            dispatcher.inbox.push_back(input);
            self.wake_dispatcher();
        }
    }

    /// There is work for the dispatcher.
    pub fn wake_dispatcher(&mut self) {
        let ms = self.random.between(1, 5);
        if let Some(dispatcher) = self.dispatcher.as_mut().filter(|dispatcher| !dispatcher.is_due) {
            dispatcher.is_due = true;
            let boot = dispatcher.boot;
            self.after(ms, What::Batch(boot));
        }
    }

    /// One commit.
    pub fn on_batch(&mut self, boot: u64) {
        let Some(mut dispatcher) = self.dispatcher.take_if(|dispatcher| dispatcher.boot == boot) else { return };
        let dies = self.strikes(|rates| rates.crash);
        if dies && self.random.chance(500) {
            return self.dispatcher_dies();
        }
        let told: Vec<Told> = self.broker.events.iter().take(BATCH_MAX).cloned().collect();
        let read = told.len();
        let inputs: Vec<Input> = dispatcher.inbox.drain(..dispatcher.inbox.len().min(BATCH_MAX)).collect();
        let mut turn = Turn { world: self, core: dispatcher.core, boot, leaves: Vec::new(), from: None, ask: None };
        let (mut told, mut inputs) = (VecDeque::from(told), VecDeque::from(inputs));
        while told.len() + inputs.len() > 0 {
            if turn.world.random.below(told.len() + inputs.len()) < told.len() {
                if let Some(event) = told.pop_front() {
                    turn.tell(event);
                }
            } else if let Some(input) = inputs.pop_front() {
                turn.take(input, read);
            }
        }
        turn.step(Event::Fill);
        let Turn { core, leaves, .. } = turn;
        self.check_commit(&core);
        if dies {
            return self.dispatcher_dies();
        }
        self.broker.events.drain(..read);
        dispatcher.core = core;
        dispatcher.is_due = false;
        let is_busy = !dispatcher.inbox.is_empty() || !self.broker.events.is_empty();
        self.dispatcher = Some(dispatcher);
        for outward in leaves {
            self.leave(outward, boot);
        }
        if is_busy {
            self.wake_dispatcher();
        }
    }

    /// Counters, and whether the core is what a restart would build.
    fn check_commit(&mut self, core: &Core) {
        if let Some(difference) = self.rows.difference(core) {
            self.checker.fail(Violation::CoreAstray(difference));
        }
        for (job, counted) in self.rows.count() {
            let kept = self.rows.jobs.get(&job).map(|row| row.counts).unwrap_or_default();
            self.observe(Fact::Counted { job, kept, counted });
        }
    }

    fn leave(&mut self, outward: Outward, boot: u64) {
        let ms = self.travel();
        match outward {
            Outward::Publish(message) => {
                if self.strikes(|rates| rates.refuse) {
                    return self.after(ms, What::Inbox(boot, Box::new(Input::Refused(message.key))));
                }
                self.after(ms, What::Arrive(message));
                let back = ms + self.travel();
                let answer = match self.strikes(|rates| rates.unconfirmed) {
                    false => Input::Confirmed(message.key),
                    true if self.random.chance(500) => Input::Refused(message.key),
                    true => return,
                };
                self.after(back, What::Inbox(boot, Box::new(answer)));
            }
            Outward::Mail((agent, connection), mail) => {
                if !self.strikes(|rates| rates.mute) {
                    self.after(ms, What::Mail(agent, Some(connection), mail));
                }
            }
            Outward::Control(node, mail) => {
                for index in 0..self.agents.len() {
                    let agent = &self.agents[index];
                    if agent.is_alive && node.as_ref().is_none_or(|node| *node == agent.node) {
                        let connection = agent.connection;
                        if !self.strikes(|rates| rates.mute) {
                            let ms = self.travel();
                            self.after(ms, What::Mail(index, Some(connection), mail.clone()));
                        }
                    }
                }
            }
            Outward::Later(ms, what) => self.after(ms, what),
        }
    }
}

impl Turn<'_> {
    fn tell(&mut self, told: Told) {
        let Told { node, epoch, event } = told;
        self.step(match event {
            AgentEvent::Started(started) => Event::Started { node, epoch, started },
            AgentEvent::Finished(finished) => Event::Finished { node, epoch, finished },
            AgentEvent::Node(report) => Event::Reported { node, epoch, report },
        });
    }

    fn take(&mut self, input: Input, read: usize) {
        match input {
            Input::Tick => {
                let events_behind = self.world.broker.events.len() > read;
                let queue_ready = (!self.world.random.chance(100)).then_some(self.world.broker.tasks.len() as u32);
                self.step(Event::Tick { events_behind, queue_ready });
            }
            Input::Confirmed(key) => self.step(Event::Published(key)),
            Input::Refused(key) => self.step(Event::PublishFailed(key)),
            Input::Ask { from, run, node, epoch } => {
                (self.from, self.ask) = (Some(from), Some(run));
                self.step(Event::Ask { run, node, epoch });
            }
            Input::MayPublish { from, run, node, epoch } => {
                (self.from, self.ask) = (Some(from), Some(run));
                self.step(Event::MayPublish { run, node, epoch });
            }
            Input::Beat { from, beat } => {
                self.from = Some(from);
                self.step(Event::Beat(beat));
            }
            Input::Join { from, ticket, node, epoch } => self.join(from, ticket, node, epoch),
            Input::Command { order, command } => {
                let reply = self.command(command);
                let ms = self.world.travel();
                if !self.world.strikes(|rates| rates.mute) {
                    self.leaves.push(Outward::Later(ms, What::Answered(order, reply)));
                }
            }
        }
    }

    fn join(&mut self, from: From, ticket: u64, node: NodeId, epoch: Option<Epoch>) {
        let row = self.world.rows.nodes.get_mut(&node).filter(|row| epoch.is_none_or(|epoch| epoch == row.epoch));
        let Some(row) = row else { return self.leaves.push(Outward::Mail(from, Mail::Leave)) };
        let keeps_runs = epoch.is_some();
        if !keeps_runs {
            row.epoch = Epoch(row.epoch.0 + 1);
            row.is_drained = false;
        }
        let epoch = row.epoch;
        self.step(Event::Joined { node: node.clone(), epoch, keeps_runs });
        let order = self.core.order(&node);
        self.leaves.push(Outward::Mail(from, Mail::Joined { ticket, epoch, order }));
    }

    fn step(&mut self, event: Event) {
        let mut pending = VecDeque::from([event]);
        while let Some(event) = pending.pop_front() {
            let before = match event {
                Event::Added { .. } | Event::Fetched { .. } => Some((self.live_slots(), self.core.room())),
                _ => None,
            };
            let mut effects = Vec::new();
            self.core.step(event, self.world.time(), &mut effects);
            if let Some((live, room)) = before
                && effects.iter().any(|effect| matches!(effect, Effect::Release { .. }))
            {
                let (now, most) = (self.live_slots(), live + room + self.world.plan.slots - 1);
                self.world.observe(Fact::Window { live: now, most });
            }
            for effect in effects {
                self.mark(&effect);
                if !matches!(effect, Effect::Beaten { .. }) {
                    self.world.note(format!("  -> {effect:?}"));
                }
                self.apply(effect, &mut pending);
            }
        }
    }

    fn mark(&mut self, effect: &Effect) {
        let kind = match effect {
            Effect::Republish { .. } => "published again",
            Effect::Release { slots, .. } if *slots > 1 => "released wide",
            Effect::Requeue { cause: RequeueCause::Retry, .. } => "requeued as retry",
            Effect::Requeue { cause: RequeueCause::Recovery, .. } => "requeued as lost",
            Effect::Requeue { cause: RequeueCause::Requested, .. } => "requeued as asked",
            Effect::Unrelease { .. } => "taken back",
            Effect::Delete { .. } => "deleted while live",
            Effect::End { cause: EndCause::Ended, .. } => "ended by decision",
            Effect::End { cause: EndCause::Crashes(_), .. } => "ended by crashes",
            Effect::Answer(AskAnswer::Run) => "answered run",
            Effect::Answer(AskAnswer::Resume(_)) => "answered resume",
            Effect::Answer(AskAnswer::Drop) => "answered drop",
            Effect::Answer(AskAnswer::Wait(_)) => "answered wait",
            Effect::MayPublish(false) => "upload refused",
            Effect::Beaten { order: NodeOrder::Rejoin | NodeOrder::Leave, .. } => "stranger's beat",
            Effect::Beaten { verdicts, .. } if verdicts.iter().any(|(_, verdict)| *verdict == Verdict::Recorded) => "end recorded",
            _ => return,
        };
        self.world.mark(kind);
    }

    fn live_slots(&self) -> u32 {
        self.core.live().values().map(|attempt| attempt.slots).sum()
    }

    fn counts(&mut self, job: JobUid) -> &mut Counts {
        let row = self.world.rows.jobs.entry(job);
        &mut row.or_insert(JobRow { priority: 0, max_parallel: -1, state: JobLife::Deleted, counts: Counts::default() }).counts
    }

    fn publish(&mut self, key: AttemptKey, slots: u32, starts_now: bool) {
        self.leaves.push(Outward::Publish(Message { key, slots, starts_now, is_redelivered: false }));
    }

    fn apply(&mut self, effect: Effect, pending: &mut VecDeque<Event>) {
        match effect {
            Effect::Fetch { job, count } => {
                let tasks = self.world.rows.next_ready(job, count as usize);
                pending.push_back(Event::Fetched { job, asked: count, tasks });
            }
            Effect::Release { key, slots, .. } => {
                self.world.observe(Fact::Released { key });
                if let Some(row) = self.world.rows.tasks.get_mut(&key.uid) {
                    (row.is_ready, row.is_live, row.is_in_outbox) = (false, true, true);
                    (row.facts.attempt, row.facts.fence) = (key.attempt, key.fence);
                }
                self.publish(key, slots, slots == 1);
            }
            Effect::Republish { key, slots } => self.publish(key, slots, false),
            Effect::Published { uid } => {
                if let Some(row) = self.world.rows.tasks.get_mut(&uid) {
                    row.is_in_outbox = false;
                }
            }
            Effect::Start { job, run, node, epoch, .. } => {
                self.world.observe(Fact::Owned { run });
                if let Some(row) = self.world.rows.tasks.get_mut(&run.uid) {
                    (row.state, row.owner) = (TaskState::Running, Some((run.run, node, epoch)));
                }
                self.counts(job).active -= 1;
                self.counts(job).running += 1;
            }
            Effect::Requeue { job, uid, fence, cause, crashes } => {
                self.world.observe(Fact::Requeued { uid, fence, cause });
                if let Some(row) = self.world.rows.tasks.get_mut(&uid) {
                    row.rest(fence);
                    row.facts.crashes = crashes;
                    row.facts.retries += u32::from(cause == RequeueCause::Retry);
                }
                self.counts(job).running -= 1;
                self.counts(job).active += 1;
            }
            Effect::Unrelease { uid, fence, .. } => {
                self.world.observe(Fact::Unreleased { uid, fence });
                if let Some(row) = self.world.rows.tasks.get_mut(&uid) {
                    row.rest(fence);
                }
            }
            Effect::End { job, uid, fence, was_running, cause, .. } => self.end(job, uid, fence, was_running, cause, pending),
            Effect::Delete { job, uid, was_running } => {
                self.world.observe(Fact::Deleted { uid });
                self.world.rows.tasks.remove(&uid);
                let counts = self.counts(job);
                if was_running { counts.running -= 1 } else { counts.active -= 1 }
            }
            Effect::Revoke(key) => self.leaves.push(Outward::Control(None, Mail::Revoke(key))),
            Effect::Stop { node, run, verdict } => self.leaves.push(Outward::Control(Some(node), Mail::Verdict(run, verdict))),
            Effect::NodeState { node, state } => {
                if let Some(row) = self.world.rows.nodes.get_mut(&node) {
                    row.state = state;
                }
            }
            Effect::Drained { node } => {
                if let Some(row) = self.world.rows.nodes.get_mut(&node) {
                    row.is_drained = true;
                }
                self.leaves.push(Outward::Later(2_000, What::RemoveNode(node)));
            }
            Effect::Answer(answer) => {
                if let (Some(from), Some(run)) = (self.from, self.ask) {
                    self.leaves.push(Outward::Mail(from, Mail::Answer(run, answer)));
                }
            }
            Effect::MayPublish(allowed) => {
                if let (Some(from), Some(run)) = (self.from, self.ask) {
                    if allowed {
                        self.world.observe(Fact::Granted { run });
                    }
                    self.leaves.push(Outward::Mail(from, Mail::MayPublish(run.run, allowed)));
                }
            }
            Effect::Beaten { verdicts, order } => {
                if let Some(from) = self.from {
                    self.leaves.push(Outward::Mail(from, Mail::BeatReply { boot: self.boot, verdicts, order }));
                }
            }
        }
    }

    fn end(
        &mut self,
        job: JobUid,
        uid: broker_config::ids::TaskUid,
        fence: broker_config::ids::Fence,
        was_running: bool,
        cause: EndCause,
        pending: &mut VecDeque<Event>,
    ) {
        let (by, has_succeeded) = match &cause {
            EndCause::Finished(finished) => (Some(finished.run_key()), finished.outcome == Outcome::Exit { code: 0 }),
            EndCause::Ended | EndCause::Crashes(_) => (None, false),
        };
        self.world.observe(Fact::Ended { uid, fence, by, has_succeeded });
        let counts = self.counts(job);
        if was_running {
            counts.running -= 1
        } else {
            counts.active -= 1
        }
        counts.completed += 1;
        let Some(row) = self.world.rows.tasks.get_mut(&uid) else { return };
        let (name, attempt) = (row.name, row.facts.attempt);
        row.complete(fence, has_succeeded);
        if let (true, Some(by)) = (has_succeeded, by) {
            self.publish_outputs(name, attempt, by);
            let count = self.world.rows.satisfy(name);
            if count > 0 {
                pending.push_back(Event::Unblocked { job, count });
            }
        }
    }

    /// Copies what the winner's manifest names from its staging place to the final one.
    fn publish_outputs(&mut self, name: usize, attempt: u32, by: RunKey) {
        let files = self.world.plan.tasks[name].files;
        if !self.world.plan.is_staged || files == 0 {
            return;
        }
        let staged = self.world.blobs.remove(&(by.uid, attempt)).unwrap_or_default();
        let files = (0..files).map(|file| staged.get(&file).copied()).collect();
        self.world.observe(Fact::Final { uid: by.uid, by: by.run, files });
    }

    fn command(&mut self, command: Command) -> Reply {
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
            Command::Delete(name) => self.delete(name),
            Command::Change(index, priority, max_parallel) => {
                if let Some(row) = self.world.rows.jobs.get_mut(&World::job(index)) {
                    (row.priority, row.max_parallel) = (priority, max_parallel);
                    self.tell_job(index);
                }
            }
            Command::Disable(index, how) => {
                if self.set_life(index, JobLife::Disabled) {
                    match how {
                        0 => self.step(Event::JobStopped { job: World::job(index), stop: JobStop::Requeue }),
                        1 => self.step(Event::JobStopped { job: World::job(index), stop: JobStop::End }),
                        _ => self.tell_job(index),
                    }
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
                }
            }
            Command::DeleteJob(index) => self.delete_job(index),
            Command::AddNode(node) => {
                let row = NodeRow { epoch: Epoch(0), state: NodeState::Creating, is_enabled: true, drain: None, is_drained: false };
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
                    self.step(Event::Scheduling { node, enabled });
                }
            }
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
                let row = rows.insert(name, job, spec.slots, spec.retries_max, blocked_by);
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

    fn cancel(&mut self, name: usize) -> Option<broker_config::ids::TaskUid> {
        let uid = *self.world.rows.names.get(&name)?;
        let row = self.world.rows.tasks.get_mut(&uid).filter(|row| row.state != TaskState::Completed)?;
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
        Some(uid)
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
