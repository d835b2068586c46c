//! One commit in the making: inputs become steps, steps effects, effects changed rows and what leaves later.

use std::collections::VecDeque;

use broker_config::{
    chore::ChoreKind,
    ids::{AttemptKey, Epoch, Fence, JobUid, NodeId, RunKey, TaskUid},
    message::{AgentEvent, NodeOrder, Outcome, Verdict},
    state::TaskState,
};

use crate::{
    core::{
        AskAnswer, Core, Effect, EndCause, Event, Node, Preparation,
        simulation::{
            agent::Mail,
            broker::{Message, Told},
            checker::Fact,
            dispatcher::{From, Input, Outward},
            rows::{Counts, JobLife, JobRow},
            world::{What, World},
        },
    },
    store::records::RequeueCause,
};

/// One commit in the making.
pub struct Turn<'a> {
    pub world: &'a mut World,
    pub core: Core,
    boot: u64,
    pub leaves: Vec<Outward>,
    from: Option<From>,
    ask: Option<RunKey>,
}

impl Turn<'_> {
    /// Nothing has been done yet.
    pub fn new(world: &mut World, core: Core, boot: u64) -> Turn<'_> {
        Turn { world, core, boot, leaves: Vec::new(), from: None, ask: None }
    }

    /// An agent's event.
    pub fn tell(&mut self, told: Told) {
        let Told { node, epoch, event } = told;
        self.step(match event {
            AgentEvent::Started(started) => Event::Started { node, epoch, started },
            AgentEvent::Finished(finished) => Event::Finished { node, epoch, finished },
            AgentEvent::Node(report) => Event::Reported { node, epoch, report },
            AgentEvent::Chore(end) => Event::ChoreEnded { node, epoch, end },
        });
    }

    /// Anything else.
    pub fn take(&mut self, input: Input, read: usize) {
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
                self.step(Event::Ask { run, node, epoch, prepares: true });
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
        let is_off = self.core.nodes().get(&node).is_some_and(Node::is_off);
        let row = self.world.rows.nodes.get_mut(&node).filter(|row| !is_off && epoch.is_none_or(|epoch| epoch == row.epoch));
        let Some(row) = row else { return self.leaves.push(Outward::Mail(from, Mail::Leave)) };
        let keeps_runs = epoch.is_some();
        if !keeps_runs {
            row.epoch = Epoch(row.epoch.0 + 1);
            row.is_drained = false;
        }
        let epoch = row.epoch;
        self.step(Event::Joined { node: node.clone(), epoch, keeps_runs });
        let order = self.core.order(&node);
        let is_reimaged = self.core.nodes().get(&node).is_some_and(Node::is_reimaged);
        self.leaves.push(Outward::Mail(from, Mail::Joined { ticket, epoch, order, is_reimaged }));
    }

    /// The rules, the rows, and the rules again until nothing follows.
    pub fn step(&mut self, event: Event) {
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
                self.check_ceilings(&effects);
            }
            for effect in effects {
                self.mark_effect(&effect);
                if !matches!(effect, Effect::Beaten { .. }) {
                    self.world.note(format!("  -> {effect:?}"));
                }
                self.apply(effect, &mut pending);
            }
        }
    }

    /// Where a preparation failed on some nodes, only so much is released as the others can soon take.
    fn check_ceilings(&mut self, effects: &[Effect]) {
        for effect in effects {
            let Effect::Release { job, .. } = effect else { continue };
            let is_barred = |id: &NodeId| {
                let site = self.world.rows.sites.get(&(*job, id.clone()));
                site.is_some_and(|site| site.preparation == Preparation::Failed)
            };
            if !self.world.chores_of(*job).is_some_and(|chores| chores.waits) || !self.core.nodes().keys().any(is_barred) {
                continue;
            }
            let nodes = self.core.nodes().iter().filter(|(id, node)| node.takes_tasks() && !is_barred(id)).count() as u32;
            let live = self.core.jobs().get(job).map_or(0, |facts| facts.live);
            self.world.observe(Fact::Window { live, most: nodes * self.world.plan.slots * 2 });
        }
    }

    fn mark_effect(&mut self, effect: &Effect) {
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
            Effect::Answer(AskAnswer::Prepare(_)) => "answered prepare",
            Effect::Requeue { cause: RequeueCause::Unprepared, .. } => "requeued as unprepared",
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

    /// A job's counters.
    pub fn counts(&mut self, job: JobUid) -> &mut Counts {
        let row = self.world.rows.jobs.entry(job);
        &mut row.or_insert(JobRow { priority: 0, max_parallel: -1, state: JobLife::Deleted, counts: Counts::default() }).counts
    }

    /// Nothing of a job that does not run may be released or start.
    fn check_job(&mut self, job: JobUid, key: AttemptKey) {
        if self.world.rows.jobs.get(&job).is_none_or(|row| row.state != JobLife::Active) {
            self.world.observe(Fact::Disobeyed { key });
        }
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
            Effect::Release { job, key, slots } => {
                self.world.observe(Fact::Released { key });
                self.check_job(job, key);
                if let Some(row) = self.world.rows.tasks.get_mut(&key.uid) {
                    (row.is_ready, row.is_live, row.is_in_outbox) = (false, true, true);
                    (row.facts.attempt, row.facts.fence) = (key.attempt, key.fence);
                }
                let may_start = self.world.chores_of(job).is_none();
                self.publish(key, slots, slots == 1 && may_start);
            }
            Effect::Republish { key, slots } => self.publish(key, slots, false),
            Effect::Published { uid } => {
                if let Some(row) = self.world.rows.tasks.get_mut(&uid) {
                    row.is_in_outbox = false;
                }
            }
            Effect::Start { job, run, node, epoch, is_preparing, .. } => {
                self.world.observe(Fact::Owned { run });
                self.check_job(job, run.key());
                if let Some(row) = self.world.rows.tasks.get_mut(&run.uid) {
                    row.state = if is_preparing { TaskState::Preparing } else { TaskState::Running };
                    row.owner = Some((run.run, node, epoch));
                }
                self.counts(job).active -= 1;
                self.counts(job).running += 1;
            }
            Effect::Begin { run, .. } => {
                if let Some(row) = self.world.rows.tasks.get_mut(&run.uid) {
                    row.state = TaskState::Running;
                }
            }
            Effect::Site { job, node, site } => {
                self.world.rows.sites.insert((job, node), site);
            }
            Effect::ChoreBegun { .. } => {}
            Effect::ChoreEnded { end, is_told, .. } => {
                if end.key.kind == ChoreKind::Release && !is_told {
                    self.world.mark("release given up");
                    self.world.observe(Fact::ReleaseGivenUp { job: end.key.job });
                }
            }
            Effect::Nudge { node } => self.leaves.push(Outward::Control(Some(node), Mail::BeatSoon)),
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
            Effect::Used { run, .. } => self.world.observe(Fact::Used { run }),
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
            Effect::Turned { node, turn } => {
                self.world.mark(if turn.is_some() { "turn begun" } else { "turn over" });
                if let Some(row) = self.world.rows.nodes.get_mut(&node) {
                    (row.turn, row.is_drained) = (turn, false);
                }
            }
            Effect::Drained { node } => {
                if let Some(row) = self.world.rows.nodes.get_mut(&node) {
                    row.is_drained = true;
                    let what = if row.drain.is_some() { What::RemoveNode(node) } else { What::StopNode(node) };
                    self.leaves.push(Outward::Later(2_000, what));
                }
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
            Effect::Beaten { verdicts, order, over, releases } => {
                if let Some(from) = self.from {
                    self.leaves.push(Outward::Mail(from, Mail::BeatReply { boot: self.boot, verdicts, order, over, releases }));
                }
            }
        }
    }

    fn end(&mut self, job: JobUid, uid: TaskUid, fence: Fence, was_running: bool, cause: EndCause, pending: &mut VecDeque<Event>) {
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
}
