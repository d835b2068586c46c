//! One commit in the making: inputs become steps, steps effects, effects changed rows and what leaves later.

use std::collections::VecDeque;

use contract::{
    clock::Now,
    ids::{AttemptKey, Epoch, Fence, JobUid, NodeId, RunId, RunKey, TaskUid},
    message::{AgentEvent, Finished, NodeOrder, Verdict},
    outcome::{JobTaskEnd, JobTaskKind, Outcome},
    state::TaskState,
};
use model::{job_tasks::Preparation, node::NodeAction, task::RequeueCause};

use crate::{
    AskAnswer, Core, Effect, EndCause, Event, HeartbeatAnswer, Node,
    simulation::{
        agent::{Agent, Mail},
        broker::{Message, Told},
        checker::{Fact, Violation},
        dispatcher::{From, Input, Outward},
        rows::{Counts, JobLife, JobRow},
        world::{What, World},
    },
};

/// A run that was in so many milliseconds' heartbeats is known.
const HEARD_MS: i64 = 45_000;

/// One commit in the making.
pub struct Commit<'a> {
    pub world: &'a mut World,
    pub core: Core,
    boot: u64,
    pub leaves: Vec<Outward>,
    /// The start of an agent whose event or heartbeat is taken.
    speaker: Option<(NodeId, Epoch)>,
}

impl Commit<'_> {
    /// Nothing has been done yet.
    pub fn new(world: &mut World, core: Core, boot: u64) -> Commit<'_> {
        Commit { world, core, boot, leaves: Vec::new(), speaker: None }
    }

    /// An agent's event.
    pub fn tell(&mut self, told: Told) {
        let Told { node, epoch, event } = told;
        self.speaker = Some((node.clone(), epoch));
        if let AgentEvent::Finished(finished) = &event {
            self.note_outcome(&node, epoch, finished);
        }
        self.step(match event {
            AgentEvent::Started(started) => Event::Started { node, epoch, started },
            AgentEvent::Finished(finished) => Event::Finished { node, epoch, finished },
            AgentEvent::Node(report) => Event::Reported { node, epoch, report },
            AgentEvent::JobTask(end) => Event::JobTaskEnded { node, epoch, end },
        });
        self.speaker = None;
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
                let answer = self.question(|core, now, effects| core.ask(run, (&node, epoch), true, now, effects));
                self.world.note(format!("  -> {answer:?}"));
                self.world.mark(match answer {
                    AskAnswer::Run => "answered run",
                    AskAnswer::Prepare(_) => "answered prepare",
                    AskAnswer::Resume(_) => "answered resume",
                    AskAnswer::Drop => "answered drop",
                    AskAnswer::Wait(_) => "answered wait",
                });
                self.leaves.push(Outward::Mail(from, Mail::Answer(run, answer)));
            }
            Input::MayPublish { from, run, node, epoch } => {
                let allowed = self.question(|core, now, effects| core.may_publish(run, (&node, epoch), now, effects));
                self.world.note(format!("  -> may publish: {allowed}"));
                if allowed {
                    self.world.observe(Fact::Granted { run });
                } else {
                    self.world.mark("upload refused");
                }
                self.leaves.push(Outward::Mail(from, Mail::MayPublish(run.run, allowed)));
            }
            Input::Heartbeat { from, heartbeat } => {
                let node = heartbeat.node.clone();
                self.speaker = Some((node.clone(), heartbeat.epoch));
                let (invocations, is_of_node) = (heartbeat.invocations, heartbeat.node.clone());
                let (answer, slots) = self.question(|core, now, effects| {
                    let answer = core.heartbeat(*heartbeat, now, effects);
                    (answer, core.nodes().get(&is_of_node).filter(|node| !node.is_empty()).map_or(0, Node::running_slots))
                });
                self.speaker = None;
                if !matches!(answer.order, NodeOrder::Rejoin | NodeOrder::Leave) && slots < invocations {
                    self.world.checker.fail(Violation::InvocationsUnseen(node.clone()));
                }
                let HeartbeatAnswer { verdicts, order, over, releases, keep, .. } = answer;
                if matches!(order, NodeOrder::Rejoin | NodeOrder::Leave) {
                    self.world.mark("stranger's heartbeat");
                } else if verdicts.iter().any(|(_, verdict)| *verdict == Verdict::Recorded) {
                    self.world.mark("end recorded");
                }
                self.check_order(&node, order);
                self.leaves.push(Outward::Mail(from, Mail::HeartbeatReply { boot: self.boot, verdicts, order, over, releases, keep }));
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
        if !keeps_runs {
            self.world.observe(Fact::NodeJoined { node: node.clone() });
        }
        self.step(Event::Joined { node: node.clone(), epoch, keeps_runs });
        let order = self.core.order(&node);
        self.check_order(&node, order);
        let is_reimaged = self.core.nodes().get(&node).is_some_and(Node::is_reimaged);
        self.leaves.push(Outward::Mail(from, Mail::Joined { ticket, epoch, order, is_reimaged }));
    }

    /// The rules, the rows, and the rules again until nothing follows.
    pub fn step(&mut self, event: Event) {
        self.follow(VecDeque::from([event]));
    }

    /// A question to the rules, answered when all that follows is in the rows.
    fn question<T>(&mut self, ask: impl FnOnce(&mut Core, Now, &mut Vec<Effect>) -> T) -> T {
        let (mut effects, mut pending) = (Vec::new(), VecDeque::new());
        let answer = ask(&mut self.core, self.world.present(), &mut effects);
        self.carry_out(effects, &mut pending);
        self.follow(pending);
        answer
    }

    fn follow(&mut self, mut pending: VecDeque<Event>) {
        while let Some(event) = pending.pop_front() {
            let before = match event {
                Event::Added { .. } | Event::Fetched { .. } => Some((self.live_slots(), self.core.room())),
                _ => None,
            };
            let mut effects = Vec::new();
            self.core.step(event, self.world.present(), &mut effects);
            if let Some((live, room)) = before
                && effects.iter().any(|effect| matches!(effect, Effect::Release { .. }))
            {
                let (now, most) = (self.live_slots(), live + room + self.world.plan.slots - 1);
                self.world.observe(Fact::Window { live: now, most });
                self.check_ceilings(&effects);
            }
            self.carry_out(effects, &mut pending);
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>, pending: &mut VecDeque<Event>) {
        for effect in effects {
            self.mark_effect(&effect);
            self.world.note(format!("  -> {effect:?}"));
            self.apply(effect, pending);
        }
    }

    /// Where a preparation failed on some nodes, only so much is released as the others can soon take.
    fn check_ceilings(&mut self, effects: &[Effect]) {
        for effect in effects {
            let Effect::Release { job, .. } = effect else { continue };
            let is_barred = |id: &NodeId| {
                let job_on_node = self.world.rows.jobs_on_nodes.get(&(*job, id.clone()));
                job_on_node.is_some_and(|job_on_node| job_on_node.preparation == Preparation::Failed)
            };
            if !self.world.job_tasks_of(*job).is_some_and(|job_tasks| job_tasks.waits) || !self.core.nodes().keys().any(is_barred) {
                continue;
            }
            let nodes = self.core.nodes().iter().filter(|(id, node)| node.takes_tasks() && !is_barred(id)).count() as u32;
            let live = self.core.jobs().get(job).map_or(0, |facts| facts.live);
            self.world.observe(Fact::Window { live, most: nodes * self.world.plan.slots * 2 });
        }
    }

    /// What a node has listed in its heartbeats for long is not handed out again.
    fn check_heard(&mut self, key: AttemptKey) {
        let since = self.world.now - HEARD_MS;
        let rows = &self.world.rows;
        let is_present = |agent: &Agent| {
            rows.nodes.get(&agent.node).is_some_and(|row| agent.epoch == Some(row.epoch) && row.action != Some(NodeAction::Off))
        };
        let lists = |agent: &Agent| agent.runs.values().any(|run| run.key.key() == key && run.listed_since <= since);
        let is_heard = |agent: &Agent| agent.is_alive && agent.is_connected && !agent.is_paused && agent.well_since <= since;
        let is_forgotten = self.world.agents.iter().any(|agent| is_heard(agent) && is_present(agent) && lists(agent));
        if is_forgotten && self.world.awake_since <= since {
            self.world.observe(Fact::Forgotten { key });
        }
    }

    /// A faulty node is not told to work before its time.
    fn check_order(&mut self, node: &NodeId, order: NodeOrder) {
        if order == NodeOrder::Work {
            let (node, at) = (node.clone(), self.world.now);
            self.world.observe(Fact::ToldToWork { node, at });
        }
    }

    /// Tells the checker of an end that counts, as the rows have it, what it says of its node.
    fn note_outcome(&mut self, node: &NodeId, epoch: Epoch, finished: &Finished) {
        let run = finished.run_key();
        let row = self.world.rows.tasks.get(&run.uid).filter(|row| row.is_live && row.key() == run.key());
        let counts = row.is_some_and(|row| match &row.owner {
            Some((owner, held_by, held_in)) => (*owner, held_by, *held_in) == (run.run, node, epoch),
            None => self.world.rows.nodes.get(node).is_some_and(|row| row.epoch == epoch),
        });
        let (node, at) = (node.clone(), self.world.now);
        match finished.outcome {
            Outcome::Node(_) if counts => {
                self.world.mark("node at fault");
                self.world.observe(Fact::NodeFault { uid: run.uid, node, at });
            }
            Outcome::Exit { .. } | Outcome::Signal { .. } if counts => self.world.observe(Fact::NodeWorked { node }),
            _ => {}
        }
    }

    /// Of preparations only the present start of an agent is believed.
    fn check_speaker(&mut self, node: &NodeId, end: &JobTaskEnd, is_told: bool) {
        if let Some((_, of)) = self.speaker.clone().filter(|_| is_told && end.key.kind == JobTaskKind::Preparation)
            && let Some(row) = self.world.rows.nodes.get(node)
        {
            let present = row.epoch;
            self.world.observe(Fact::Believed { key: end.key, of, present });
        }
    }

    /// A node that speaks for itself is not drained while it keeps the end of a run whose task nobody else has.
    fn check_drained(&mut self, node: &NodeId) {
        let Some((_, epoch)) = self.speaker.clone().filter(|(speaker, _)| speaker == node) else { return };
        let is_speaker = |agent: &&Agent| agent.is_alive && agent.node == *node && agent.epoch == Some(epoch);
        let kept = self.world.agents.iter().filter(is_speaker).flat_map(|agent| agent.kept.values());
        let is_open = |run: &RunKey| {
            let row = self.world.rows.tasks.get(&run.uid).filter(|row| row.is_live && row.key() == run.key());
            row.is_some_and(|row| row.owner.as_ref().is_none_or(|(owner, ..)| *owner == run.run))
        };
        let open = kept.map(|kept| kept.finished.run_key()).find(is_open);
        if let Some(run) = open {
            self.world.observe(Fact::DrainedEarly { run });
        }
    }

    fn mark_effect(&mut self, effect: &Effect) {
        let kind = match effect {
            Effect::Republish { .. } => "published again",
            Effect::Requeue { pause_ms: 1.., .. } => "put to rest",
            Effect::Release { slots, .. } if *slots > 1 => "released wide",
            Effect::Requeue { cause: RequeueCause::Retry, .. } => "requeued as retry",
            Effect::Requeue { cause: RequeueCause::Recovery, .. } => "requeued as lost",
            Effect::Requeue { cause: RequeueCause::Requested, .. } => "requeued as asked",
            Effect::Unrelease { .. } => "taken back",
            Effect::Delete { .. } => "deleted while live",
            Effect::End { cause: EndCause::Ended, .. } => "ended by decision",
            Effect::End { cause: EndCause::Crashes(_), .. } => "ended by crashes",
            Effect::End { cause: EndCause::Unreadable, .. } => "ended unread",
            Effect::End { cause: EndCause::Faults { .. }, .. } => "given up by faults",
            Effect::Requeue { cause: RequeueCause::Unprepared, .. } => "requeued as unprepared",
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
                let at = self.world.now;
                self.world.observe(Fact::Released { key, at });
                self.check_job(job, key);
                if let Some(row) = self.world.rows.tasks.get_mut(&key.uid) {
                    (row.is_ready, row.is_live, row.is_in_outbox) = (false, true, true);
                    (row.facts.attempt, row.facts.fence) = (key.attempt, key.fence);
                }
                if slots > 1 {
                    self.world.wide.insert(key, (at, None));
                }
                let may_start = self.world.job_tasks_of(job).is_none();
                self.publish(key, slots, slots == 1 && may_start);
            }
            Effect::Republish { key, slots } => {
                self.check_heard(key);
                self.publish(key, slots, false)
            }
            Effect::Published { uid } => {
                if let Some(row) = self.world.rows.tasks.get_mut(&uid) {
                    row.is_in_outbox = false;
                }
            }
            Effect::Start { job, run, node, epoch, is_preparing, .. } => {
                self.world.observe(Fact::Owned { run });
                if let Some((at, _)) = self.world.wide.get(&run.key()) {
                    let waited_ms = self.world.now - at;
                    self.world.observe(Fact::WideStarted { run, waited_ms });
                }
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
            Effect::JobOnNode { job, node, job_on_node } => {
                self.world.rows.jobs_on_nodes.insert((job, node), job_on_node);
            }
            Effect::JobTaskBegun { .. } => {}
            Effect::JobTaskEnded { node, end, is_told } => {
                self.check_speaker(&node, &end, is_told);
                if end.key.kind == JobTaskKind::Release && !is_told {
                    self.world.mark("release given up");
                    self.world.observe(Fact::ReleaseGivenUp { job: end.key.job });
                }
            }
            Effect::Keep { node, key, .. } => {
                self.world.mark("slots kept");
                let now = self.world.now;
                self.world.wide.entry(key).or_insert((now, None)).1 = Some(now);
                self.leaves.push(Outward::Control(Some(node), Mail::HeartbeatSoon));
            }
            Effect::GiveBack { node, key } => {
                self.world.mark("slots given back");
                let since = self.world.wide.get(&key).and_then(|(_, since)| *since);
                let kept_ms = since.map_or(0, |since| self.world.now - since);
                self.world.observe(Fact::GivenBack { key, kept_ms });
                self.leaves.push(Outward::Control(Some(node), Mail::HeartbeatSoon));
            }
            Effect::NodePaused { .. } => self.world.mark("node paused"),
            Effect::NodeResumed { .. } => self.world.mark("node resumed"),
            Effect::Nudge { node } => self.leaves.push(Outward::Control(Some(node), Mail::HeartbeatSoon)),
            Effect::Requeue { job, uid, fence, cause, crashes, pause_ms } => {
                let at = self.world.now;
                if self.world.rows.tasks.get(&uid).is_some_and(|row| row.facts.crashes < crashes) {
                    self.world.observe(Fact::Crashed { uid });
                }
                self.world.observe(Fact::Requeued { uid, fence, cause, at });
                if let Some(row) = self.world.rows.tasks.get_mut(&uid) {
                    row.rest(fence);
                    row.rests_until = (pause_ms > 0).then(|| at + pause_ms.cast_signed());
                    row.is_ready = pause_ms == 0;
                    row.facts.crashes = crashes;
                    row.facts.retries += u32::from(cause == RequeueCause::Retry);
                }
                self.counts(job).running -= 1;
                self.counts(job).active += 1;
            }
            Effect::Wake { job } => {
                let (count, more) = self.world.rows.wake(job, self.world.now);
                pending.push_back(Event::Woken { job, count, more });
            }
            Effect::Unrelease { uid, fence, .. } => {
                self.world.observe(Fact::Unreleased { uid, fence });
                if let Some(row) = self.world.rows.tasks.get_mut(&uid) {
                    row.rest(fence);
                }
            }
            Effect::Used { run, .. } => self.world.observe(Fact::Used { run }),
            Effect::KeepStreams { finished, .. } => {
                let run = finished.run_key();
                if let Some(row) = self.world.rows.tasks.get_mut(&run.uid)
                    && !row.is_live
                    && row.unheard.take_if(|unheard| *unheard == run.run).is_some()
                {
                    self.world.mark("streams kept");
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
            Effect::NodeActionChanged { node, action } => {
                self.world.mark(if action.is_some() { "turn begun" } else { "turn over" });
                if let Some(row) = self.world.rows.nodes.get_mut(&node) {
                    (row.action, row.is_drained) = (action, false);
                }
            }
            Effect::Drained { node } => {
                self.check_drained(&node);
                if let Some(row) = self.world.rows.nodes.get_mut(&node) {
                    row.is_drained = true;
                    let what = if row.drain.is_some() { What::RemoveNode(node) } else { What::StopNode(node) };
                    self.leaves.push(Outward::Later(2_000, what));
                }
            }
        }
    }

    fn end(&mut self, job: JobUid, uid: TaskUid, fence: Fence, was_running: bool, cause: EndCause, pending: &mut VecDeque<Event>) {
        let (by, has_succeeded) = match &cause {
            EndCause::Finished(finished) => (Some(finished.run_key()), finished.outcome == Outcome::Exit { code: 0 }),
            EndCause::Ended | EndCause::Crashes(_) | EndCause::Faults { .. } | EndCause::Unreadable => (None, false),
        };
        match cause {
            EndCause::Crashes(_) => self.world.observe(Fact::Crashed { uid }),
            EndCause::Faults { .. } => self.world.observe(Fact::GivenUp { uid }),
            _ => {}
        }
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
        let has_it = |run: &RunId| self.world.agents.iter().any(|agent| agent.runs.contains_key(run) || agent.kept.contains_key(run));
        row.unheard = row.owner.as_ref().filter(|_| by.is_none()).map(|(run, _, _)| *run).filter(has_it);
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
