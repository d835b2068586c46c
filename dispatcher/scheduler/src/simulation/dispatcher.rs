//! The model dispatcher: many inputs, one commit, and only then does anything leave.
//!
//! It dies before a commit (the inputs and the core are lost) or after it (what would have left is lost);
//! then it is built anew from the rows.

use std::collections::VecDeque;

use contract::{
    ids::{AttemptKey, Epoch, JobUid, NodeId, RunKey},
    message::Heartbeat,
};

use crate::{
    Core, Event,
    simulation::{
        agent::Mail,
        broker::{Message, Told},
        checker::{Fact, Violation},
        commands::Command,
        commit::Commit,
        rows::NodeRow,
        world::{What, World},
    },
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
    /// A second has passed.
    Tick,
    /// The broker has confirmed a publish.
    Confirmed(AttemptKey),
    /// The broker has rejected a publish.
    Refused(AttemptKey),
    /// An agent asks whether a delivery may run.
    Ask { from: From, run: RunKey, node: NodeId, epoch: Epoch },
    /// An agent asks whether a run may upload.
    MayPublish { from: From, run: RunKey, node: NodeId, epoch: Epoch },
    /// An agent is alive.
    Heartbeat { from: From, heartbeat: Box<Heartbeat> },
    /// An agent joins.
    Join { from: From, ticket: u64, node: NodeId, epoch: Option<Epoch> },
    /// A client or the provider sends a command.
    Command { order: usize, command: Command },
}

/// An agent and the connection it asked on.
pub type From = (usize, u64);
/// What leaves after the commit.
pub enum Outward {
    Publish(Message),
    Mail(From, Mail),
    Control(Option<NodeId>, Mail),
    Later(i64, What),
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
        let rules = self.rows.jobs.keys().filter_map(|job| Some((*job, self.job_tasks_of(*job)?.rules()))).collect();
        let mut core = self.rows.restore(self.plan.slots, &rules, self.present());
        if let Some(bug) = self.bug {
            core.plant(bug);
        }
        self.observe(Fact::FaultsForgotten);
        self.dispatcher = Some(Dispatcher { core, boot, inbox: VecDeque::new(), is_due: false });
        self.awake_since = self.now;
        let drained = self.rows.nodes.iter().filter(|(_, node)| node.is_drained);
        let next =
            |(id, node): (&NodeId, &NodeRow)| if node.drain.is_some() { What::RemoveNode(id.clone()) } else { What::StopNode(id.clone()) };
        for what in drained.map(next).collect::<Vec<_>>() {
            self.after(1_000, what);
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

    /// The dispatcher stands still for a while.
    pub fn dispatcher_stands_still(&mut self, ms: i64) {
        if self.dispatcher.is_some() {
            self.awake_since = self.now + ms;
            self.mark("stood still");
        }
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
        let is_still = self.now < self.awake_since;
        if let Some(dispatcher) = self.dispatcher.as_mut().filter(|dispatcher| boot == 0 || dispatcher.boot == boot) {
            // Heartbeats expire while nobody reads them, and a process that stands still sends no ticks.
            if is_still && matches!(input, Input::Heartbeat { .. } | Input::Tick) {
                return;
            }
            dispatcher.inbox.push_back(input);
            self.wake_dispatcher();
        }
    }

    /// The dispatcher has inputs to work on.
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
        if self.now < self.awake_since {
            return self.after(self.awake_since - self.now, What::Batch(boot));
        }
        let Some(mut dispatcher) = self.dispatcher.take_if(|dispatcher| dispatcher.boot == boot) else { return };
        let dies = self.strikes(|rates| rates.crash);
        if dies && self.random.chance(500) {
            return self.dispatcher_dies();
        }
        let delivered = if self.now < self.broker.is_behind_until { 0 } else { BATCH_MAX };
        let told: Vec<Told> = self.broker.events.iter().take(delivered).cloned().collect();
        let read = told.len();
        let inputs: Vec<Input> = dispatcher.inbox.drain(..dispatcher.inbox.len().min(BATCH_MAX)).collect();
        let mut commit = Commit::new(self, dispatcher.core, boot);
        let (mut told, mut inputs) = (VecDeque::from(told), VecDeque::from(inputs));
        while told.len() + inputs.len() > 0 {
            if commit.world.random.below(told.len() + inputs.len()) < told.len() {
                if let Some(event) = told.pop_front() {
                    commit.tell(event);
                }
            } else if let Some(input) = inputs.pop_front() {
                commit.take(input, read);
            }
        }
        commit.step(Event::Fill);
        let Commit { core, leaves, .. } = commit;
        self.check_commit(&core);
        if dies {
            return self.dispatcher_dies();
        }
        self.broker.events.drain(..read);
        dispatcher.core = core;
        dispatcher.is_due = false;
        let is_busy = !dispatcher.inbox.is_empty() || (delivered > 0 && !self.broker.events.is_empty());
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
