//! The model agents: they follow the protocol, die, stand still, are cut off, and come back from the dead.
//!
//! ```text
//! delivery ──now──► run ──may publish?──► write files ──► end, kept until recorded
//!     └──ask──► run / resume / wait / drop
//! ```

use std::collections::BTreeMap;

use contract::{
    ids::{AttemptKey, Epoch, JobUid, NodeId, PoolId, RunId, RunKey},
    message::{AgentEvent, Heartbeat, NodeOrder, NodeReport, REVOKE_MS, VERSION, Verdict},
    outcome::{JobTaskKey, JobTaskKind, Outcome},
    state::{DeallocationOption, NodeState},
    time::Timestamp,
};

use crate::{
    AskAnswer,
    simulation::{
        broker::{Message, Told},
        dispatcher::Input,
        job_tasks::JobTask,
        runs::{Kept, Run},
        world::{What, World},
    },
};

/// Time between heartbeats.
const HEARTBEAT_MS: i64 = 5_000;
/// An unanswered question is repeated after this long.
pub const ASK_AGAIN_MS: i64 = 2_000;
/// An end that is not recorded is reported again after this long.
pub const TELL_AGAIN_MS: i64 = 20_000;
/// The broker drops the connection of an agent that stands still for this long.
const BROKER_LEASE_MS: i64 = 15_000;

/// One process of an agent; a node may have several, one after the other or side by side.
#[derive(Debug)]
pub struct Agent {
    pub node: NodeId,
    pub is_alive: bool,
    pub is_paused: bool,
    pub is_connected: bool,
    /// Counts connections; a message that was sent on an older one is lost.
    pub connection: u64,
    pub slots: u32,
    pub epoch: Option<Epoch>,
    ticket: u64,
    boot: u64,
    pub order: NodeOrder,
    skew: i64,
    /// Its heartbeats are lost until then.
    pub deaf_until: i64,
    /// Since when it has been running, connected and able to send heartbeats.
    pub well_since: i64,
    /// Whether it uses a new run id for every question.
    is_naive: bool,
    pub next_tag: u64,
    pub held: BTreeMap<u64, Held>,
    pub runs: BTreeMap<RunId, Run>,
    pub kept: BTreeMap<RunId, Kept>,
    pub job_tasks: BTreeMap<(JobUid, JobTaskKind), JobTask>,
    revoked: BTreeMap<AttemptKey, i64>,
    unsent: Vec<AgentEvent>,
    asleep: Vec<Mail>,
    /// Its last report about itself.
    report: Option<NodeReport>,
    is_drained_told: bool,
    /// The attempt that slots are kept for, and how many.
    pub keep: Option<(AttemptKey, u32)>,
}

/// A delivery that is not acknowledged.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    pub message: Message,
    /// Whether there is no delivery, and the dispatcher keeps slots for it instead.
    pub is_kept: bool,
    pub run: Option<RunId>,
    /// The run that would execute it; kept for every question, so that a lost answer costs nothing.
    pub candidate: RunId,
}

/// A message or timer for an agent.
#[derive(Debug, Clone)]
pub enum Mail {
    JoinNow,
    Joined {
        ticket: u64,
        epoch: Epoch,
        order: NodeOrder,
        is_reimaged: bool,
    },
    Leave,
    HeartbeatNow,
    HeartbeatReply {
        boot: u64,
        verdicts: Vec<(RunId, Verdict)>,
        order: NodeOrder,
        over: Vec<JobTaskKey>,
        releases: Vec<JobTaskKey>,
        keep: Option<(AttemptKey, u32)>,
    },
    JobTaskNow(JobTaskKey),
    HeartbeatSoon,
    Delivery(u64),
    AskNow(u64),
    Answer(RunKey, AskAnswer),
    RunNow(RunId, u32),
    MayPublish(RunId, bool),
    Confirmed(RunId),
    Verdict(RunId, Verdict),
    Revoke(AttemptKey),
    Wake,
    Cut,
    Reconnect,
    Die,
}

impl Agent {
    /// Slots that the broker may fill.
    pub fn room(&self) -> u32 {
        let consumes = self.is_alive && self.is_connected && self.epoch.is_some() && self.order == NodeOrder::Work;
        let set_aside = self.keep.filter(|(key, _)| !self.knows(*key)).map_or(0, |(_, slots)| slots);
        if consumes { self.slots.saturating_sub(self.used() + set_aside) } else { 0 }
    }

    pub fn used(&self) -> u32 {
        let held: u32 = self.held.values().map(|held| held.message.slots).sum();
        let alone = self.runs.keys().filter(|run| !self.held.values().any(|held| held.run == Some(**run)));
        held + alone.count() as u32
    }

    pub fn knows(&self, key: AttemptKey) -> bool {
        self.held.values().any(|held| held.message.key == key) || self.run_of(key).is_some()
    }

    /// Whether it has a run, an end or a delivery.
    pub fn holds_something(&self) -> bool {
        let works = self.job_tasks.values().any(JobTask::is_running);
        self.is_alive && (works || !(self.runs.is_empty() && self.kept.is_empty() && self.held.is_empty()))
    }

    /// Whether it has nothing but ends that the broker has accepted.
    fn has_told_all(&self) -> bool {
        let works = self.job_tasks.values().any(JobTask::is_running);
        !works && self.runs.is_empty() && self.held.is_empty() && self.kept.values().all(|kept| kept.is_confirmed)
    }

    /// The run of an attempt that it knows.
    fn run_of(&self, key: AttemptKey) -> Option<RunId> {
        let run = self.runs.values().find(|run| run.key.key() == key).map(|run| run.key.run);
        run.or_else(|| self.kept.iter().find(|(_, kept)| kept.finished.run_key().key() == key).map(|(run, _)| *run))
    }
}

impl World {
    /// A supervisor starts an agent, unless one is there or the node is gone.
    pub fn start_agent(&mut self, node: NodeId) {
        let is_wanted = self.rows.nodes.contains_key(&node) && !self.abandoned.contains(&node);
        let is_there = self.agents.iter().any(|agent| agent.is_alive && !agent.is_paused && agent.node == node);
        if !is_wanted || is_there {
            return;
        }
        if self.agents.iter().any(|agent| agent.is_alive && agent.node == node) {
            self.mark("twin");
        }
        let skew = if self.random.chance(300) { self.random.between(-90_000_000, 90_000_000) } else { 0 };
        self.agents.push(Agent {
            node,
            is_alive: true,
            is_paused: false,
            is_connected: true,
            connection: 1,
            slots: self.plan.slots,
            epoch: None,
            ticket: 0,
            boot: 0,
            order: NodeOrder::Hold,
            skew,
            deaf_until: 0,
            well_since: self.now,
            is_naive: self.random.chance(100),
            next_tag: 1,
            held: BTreeMap::new(),
            runs: BTreeMap::new(),
            kept: BTreeMap::new(),
            job_tasks: BTreeMap::new(),
            revoked: BTreeMap::new(),
            unsent: Vec::new(),
            asleep: Vec::new(),
            report: None,
            is_drained_told: false,
            keep: None,
        });
        let agent = self.agents.len() - 1;
        self.timer(agent, 1, Mail::JoinNow);
        self.timer(agent, 100, Mail::HeartbeatNow);
    }

    pub fn timer(&mut self, agent: usize, ms: i64, mail: Mail) {
        self.after(ms, What::Mail(agent, None, mail));
    }

    pub fn ask_dispatcher(&mut self, agent: usize, input: Input) {
        if self.agents[agent].is_connected && !self.strikes(|rates| rates.mute) {
            let ms = self.travel();
            self.after(ms, What::Inbox(0, Box::new(input)));
        }
    }

    pub fn tell(&mut self, agent: usize, event: AgentEvent) {
        let facts = &mut self.agents[agent];
        let Some(epoch) = facts.epoch else { return };
        if !facts.is_connected {
            facts.unsent.push(event);
            return;
        }
        let node = facts.node.clone();
        let confirmed = match &event {
            AgentEvent::Finished(finished) => Some(finished.run),
            _ => None,
        };
        let ms = self.travel();
        if let Some(run) = confirmed {
            let connection = self.agents[agent].connection;
            let back = ms + self.travel();
            self.after(back, What::Mail(agent, Some(connection), Mail::Confirmed(run)));
        }
        self.after(ms, What::Told(Told { node, epoch, event }));
    }

    pub fn clock(&self, agent: usize) -> Timestamp {
        self.time().plus_ms(self.agents[agent].skew)
    }

    /// The broker delivers a message to an agent.
    pub fn hand_over(&mut self, agent: usize, message: Message) {
        let candidate = self.new_run();
        let facts = &mut self.agents[agent];
        let tag = facts.next_tag;
        facts.next_tag += 1;
        facts.held.insert(tag, Held { message, is_kept: false, run: None, candidate });
        let connection = facts.connection;
        let ms = self.travel();
        self.after(ms, What::Mail(agent, Some(connection), Mail::Delivery(tag)));
    }

    /// Handles a message or timer.
    pub fn on_mail(&mut self, agent: usize, connection: Option<u64>, mail: Mail) {
        let facts = &mut self.agents[agent];
        if !facts.is_alive || connection.is_some_and(|sent_on| !facts.is_connected || facts.connection != sent_on) {
            return;
        }
        if facts.is_paused && !matches!(mail, Mail::Wake | Mail::Cut | Mail::Die | Mail::Reconnect) {
            facts.asleep.push(mail);
            return;
        }
        match mail {
            Mail::JoinNow => self.join(agent),
            Mail::Joined { ticket, epoch, order, is_reimaged } => self.on_joined(agent, ticket, epoch, order, is_reimaged),
            Mail::Leave => self.leave_pool(agent),
            Mail::HeartbeatNow => {
                self.heartbeat(agent);
                let ms = HEARTBEAT_MS + self.random.between(-200, 200);
                self.timer(agent, ms, Mail::HeartbeatNow);
            }
            Mail::HeartbeatSoon => self.heartbeat(agent),
            Mail::HeartbeatReply { boot, verdicts, order, over, releases, keep } => {
                self.on_job_tasks(agent, over, releases);
                self.on_heartbeat_reply(agent, boot, verdicts, order);
                self.on_keep(agent, keep);
            }
            Mail::JobTaskNow(key) => self.on_job_task(agent, key),
            Mail::Delivery(tag) => self.on_delivery(agent, tag),
            Mail::AskNow(tag) => self.ask(agent, tag),
            Mail::Answer(run, answer) => self.on_answer(agent, run, answer),
            Mail::RunNow(run, turn) => self.on_run(agent, run, turn),
            Mail::MayPublish(run, allowed) => self.on_may_publish(agent, run, allowed),
            Mail::Confirmed(run) => {
                if let Some(kept) = self.agents[agent].kept.get_mut(&run) {
                    kept.is_confirmed = true;
                    self.acknowledge(agent, run);
                }
            }
            Mail::Verdict(run, verdict) => self.on_verdict(agent, run, verdict),
            Mail::Revoke(key) => {
                let until = self.now + REVOKE_MS as i64;
                self.agents[agent].revoked.insert(key, until);
            }
            Mail::Wake => self.wake(agent),
            Mail::Cut => self.cut(agent),
            Mail::Reconnect => self.reconnect(agent),
            Mail::Die => self.agent_dies(agent, Some(2_000)),
        }
    }

    fn join(&mut self, agent: usize) {
        let facts = &mut self.agents[agent];
        if facts.epoch.is_some() {
            return;
        }
        facts.ticket += 1;
        let (from, ticket, node) = ((agent, facts.connection), facts.ticket, facts.node.clone());
        self.ask_dispatcher(agent, Input::Join { from, ticket, node, epoch: None });
        self.timer(agent, ASK_AGAIN_MS * 2, Mail::JoinNow);
    }

    fn on_joined(&mut self, agent: usize, ticket: u64, epoch: Epoch, order: NodeOrder, is_reimaged: bool) {
        let facts = &mut self.agents[agent];
        if facts.ticket != ticket {
            return;
        }
        let is_first = facts.epoch.is_none();
        facts.epoch = Some(epoch);
        self.take_order(agent, order);
        if is_first {
            if is_reimaged {
                *self.folders.entry(self.agents[agent].node.clone()).or_default() += 1;
            }
            self.report(agent, false);
        }
        self.obey(agent);
        self.deliver_soon();
    }

    fn heartbeat(&mut self, agent: usize) {
        let facts = &self.agents[agent];
        if let Some(epoch) = facts.epoch.filter(|_| facts.deaf_until <= self.now) {
            let heartbeat = Heartbeat {
                v: VERSION,
                pool: "pool".parse::<PoolId>().unwrap(),
                node: facts.node.clone(),
                epoch,
                live: facts.runs.values().map(|run| run.key).collect(),
                kept: facts.kept.values().map(|kept| kept.finished.run_key()).collect(),
                free_slots: facts.slots.saturating_sub(facts.used()),
                is_consuming: true,
                job_tasks: facts.job_tasks.values().filter_map(JobTask::shown).collect(),
                report: facts.report.clone(),
                sets_aside: None,
                invocations: u32::from(self.now / ASK_AGAIN_MS % 2 == 1), // They come and go.
            };
            let from = (agent, facts.connection);
            self.ask_dispatcher(agent, Input::Heartbeat { from, heartbeat: Box::new(heartbeat) });
            let late = self.now - TELL_AGAIN_MS;
            let due: Vec<RunId> = self.agents[agent].kept.iter().filter(|(_, kept)| kept.told_at <= late).map(|(run, _)| *run).collect();
            self.tell_ends(agent, due);
            self.tell_job_tasks(agent, false);
        }
    }

    pub fn tell_ends(&mut self, agent: usize, runs: Vec<RunId>) {
        for run in runs {
            let now = self.now;
            if let Some(kept) = self.agents[agent].kept.get_mut(&run) {
                kept.told_at = now;
                let event = AgentEvent::Finished(kept.finished.clone());
                self.tell(agent, event);
            }
        }
    }

    fn on_heartbeat_reply(&mut self, agent: usize, boot: u64, verdicts: Vec<(RunId, Verdict)>, order: NodeOrder) {
        for (run, verdict) in verdicts {
            self.on_verdict(agent, run, verdict);
        }
        let facts = &mut self.agents[agent];
        if facts.boot != boot {
            facts.boot = boot;
            let all = facts.kept.keys().copied().collect();
            self.tell_ends(agent, all);
            self.tell_job_tasks(agent, true);
        }
        self.take_order(agent, order);
        self.obey(agent);
    }

    /// Reports the node's state once; from then on its heartbeats carry it.
    fn report(&mut self, agent: usize, is_drained: bool) {
        let at = self.clock(agent);
        let number = self.agents[agent].report.as_ref().map_or(0, |last| last.number) + 1;
        let report = NodeReport { state: NodeState::Idle, start_task: None, fault: None, is_drained, at, number };
        self.agents[agent].report = Some(report.clone());
        self.tell(agent, AgentEvent::Node(report));
    }

    fn take_order(&mut self, agent: usize, order: NodeOrder) {
        let facts = &mut self.agents[agent];
        if std::mem::replace(&mut facts.order, order) != order {
            facts.is_drained_told = false;
            if let Some(report) = &mut facts.report {
                report.is_drained = false;
            }
        }
    }

    fn obey(&mut self, agent: usize) {
        match self.agents[agent].order {
            NodeOrder::Work => return self.deliver_soon(),
            NodeOrder::Leave => return self.leave_pool(agent),
            NodeOrder::Rejoin | NodeOrder::Hold => {}
            NodeOrder::Drain { option } | NodeOrder::Restart { option } => {
                if matches!(option, DeallocationOption::Requeue | DeallocationOption::Terminate) {
                    let runs: Vec<RunId> = self.agents[agent].runs.keys().copied().collect();
                    for run in runs {
                        self.finish(agent, run, Outcome::Stopped);
                    }
                    self.stop_job_tasks(agent);
                }
            }
        }
        let unstarted: Vec<u64> = self.agents[agent].held.iter().filter(|(_, held)| held.run.is_none()).map(|(tag, _)| *tag).collect();
        for tag in unstarted {
            self.give_back(agent, tag);
        }
        let facts = &self.agents[agent];
        if matches!(facts.order, NodeOrder::Restart { .. }) && facts.has_told_all() {
            self.mark("restarted");
            return self.agent_dies(agent, Some(1_000));
        }
        let facts = &self.agents[agent];
        let is_drain = matches!(facts.order, NodeOrder::Drain { .. });
        if is_drain && facts.has_told_all() && !facts.is_drained_told {
            self.mark("drained");
            self.agents[agent].is_drained_told = true;
            self.report(agent, true);
        }
    }

    fn give_back(&mut self, agent: usize, tag: u64) {
        if let Some(held) = self.agents[agent].held.remove(&tag).filter(|held| !held.is_kept) {
            self.broker.give_back(held.message, &mut self.random);
            self.deliver_soon();
        }
    }

    pub fn acknowledge(&mut self, agent: usize, run: RunId) {
        self.agents[agent].held.retain(|_, held| held.run != Some(run));
        self.deliver_soon();
    }

    fn on_delivery(&mut self, agent: usize, tag: u64) {
        let facts = &mut self.agents[agent];
        let Some(held) = facts.held.get(&tag).copied() else { return };
        if facts.order != NodeOrder::Work {
            return self.give_back(agent, tag);
        }
        let key = held.message.key;
        if facts.revoked.get(&key).is_some_and(|until| *until > self.now) {
            facts.held.remove(&tag);
            self.mark("revoked before its start");
            return self.deliver_soon();
        }
        if held.message.starts_now && !held.message.is_redelivered && facts.run_of(key).is_none() {
            let run = held.candidate;
            if let Some(held) = self.agents[agent].held.get_mut(&tag) {
                held.run = Some(run);
            }
            self.start_run(agent, key.with(run));
        } else {
            self.ask(agent, tag);
        }
    }

    pub fn new_run(&mut self) -> RunId {
        self.next_run += 1;
        RunId(self.next_run << 96)
    }

    pub fn ask(&mut self, agent: usize, tag: u64) {
        let Some(held) = self.agents[agent].held.get(&tag).copied().filter(|held| held.run.is_none()) else { return };
        let facts = &self.agents[agent];
        let Some(epoch) = facts.epoch else { return };
        let known = if facts.is_naive { None } else { facts.run_of(held.message.key) };
        let run = known.unwrap_or(held.candidate);
        let input = Input::Ask { from: (agent, facts.connection), run: held.message.key.with(run), node: facts.node.clone(), epoch };
        self.ask_dispatcher(agent, input);
        self.timer(agent, ASK_AGAIN_MS, Mail::AskNow(tag));
    }

    fn on_answer(&mut self, agent: usize, run: RunKey, answer: AskAnswer) {
        let facts = &mut self.agents[agent];
        let waiting: Vec<u64> =
            facts.held.iter().filter(|(_, held)| held.run.is_none() && held.message.key == run.key()).map(|(tag, _)| *tag).collect();
        if waiting.is_empty() {
            return;
        }
        let preparation = if let AskAnswer::Prepare(key) = answer { Some(key) } else { None };
        if matches!(answer, AskAnswer::Run | AskAnswer::Prepare(_)) && self.is_released_here(agent, &run, preparation) {
            self.mark("answered too late");
            self.agents[agent].held.retain(|tag, _| !waiting.contains(tag));
            return self.deliver_soon();
        }
        let facts = &mut self.agents[agent];
        match answer {
            AskAnswer::Run | AskAnswer::Prepare(_) => {
                let is_known = facts.runs.contains_key(&run.run) || facts.kept.contains_key(&run.run);
                for tag in waiting {
                    if let Some(held) = facts.held.get_mut(&tag) {
                        held.run = Some(run.run);
                    }
                }
                match answer {
                    AskAnswer::Prepare(key) if !is_known => self.start_prepared(agent, run, key),
                    _ if !is_known => self.start_run(agent, run),
                    _ => {}
                }
            }
            AskAnswer::Resume(other) if facts.runs.contains_key(&other) || facts.kept.contains_key(&other) => {
                for tag in waiting {
                    if let Some(held) = facts.held.get_mut(&tag) {
                        held.run = Some(other);
                    }
                }
            }
            AskAnswer::Drop => {
                for tag in waiting {
                    facts.held.remove(&tag);
                }
                self.deliver_soon();
            }
            // The question's timer repeats it.
            AskAnswer::Resume(_) | AskAnswer::Wait(_) => {}
        }
    }

    fn leave_pool(&mut self, agent: usize) {
        self.mark("told to leave");
        self.agent_dies(agent, Some(3_000));
    }

    /// The process ends: its deliveries return to the queue, and a supervisor may restart it.
    pub fn agent_dies(&mut self, agent: usize, again_ms: Option<i64>) {
        if !self.agents[agent].is_alive {
            return;
        }
        self.cut(agent);
        let facts = &mut self.agents[agent];
        facts.is_alive = false;
        facts.runs.clear();
        facts.kept.clear();
        facts.job_tasks.clear();
        let node = facts.node.clone();
        if let Some(ms) = again_ms {
            self.after(ms, What::StartAgent(node));
        }
    }

    /// The connection breaks: deliveries that are not acknowledged return to the queue.
    pub fn cut(&mut self, agent: usize) {
        let facts = &mut self.agents[agent];
        facts.is_connected = false;
        let held = std::mem::take(&mut facts.held);
        for held in held.into_values().filter(|held| !held.is_kept) {
            self.broker.give_back(held.message, &mut self.random);
        }
        self.deliver_soon();
    }

    /// A new connection.
    pub fn reconnect(&mut self, agent: usize) {
        let facts = &mut self.agents[agent];
        if !facts.is_alive || facts.is_connected || facts.is_paused {
            return;
        }
        (facts.is_connected, facts.connection) = (true, facts.connection + 1);
        facts.well_since = facts.well_since.max(self.now);
        for event in std::mem::take(&mut facts.unsent) {
            self.tell(agent, event);
        }
        let facts = &mut self.agents[agent];
        if let (Some(epoch), true) = (facts.epoch, self.random.chance(300)) {
            facts.ticket += 1;
            let (from, ticket, node) = ((agent, facts.connection), facts.ticket, facts.node.clone());
            self.ask_dispatcher(agent, Input::Join { from, ticket, node, epoch: Some(epoch) });
        }
        self.deliver_soon();
    }

    /// The process stands still.
    pub fn pause(&mut self, agent: usize, ms: i64) {
        self.agents[agent].is_paused = true;
        if ms > BROKER_LEASE_MS {
            self.timer(agent, BROKER_LEASE_MS, Mail::Cut);
        }
        self.timer(agent, ms, Mail::Wake);
    }

    fn wake(&mut self, agent: usize) {
        self.agents[agent].is_paused = false;
        self.agents[agent].well_since = self.agents[agent].well_since.max(self.now);
        for mail in std::mem::take(&mut self.agents[agent].asleep) {
            self.on_mail(agent, None, mail);
        }
        self.timer(agent, 100, Mail::Reconnect);
    }
}
