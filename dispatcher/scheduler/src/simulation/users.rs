//! Clients and the provider: their commands, how often they repeat them, and the faults of the plan.

use contract::ids::NodeId;
use model::node::NodeAction;

use crate::simulation::{
    agent::Mail,
    checker::Fact,
    commands::{Command, Reply},
    dispatcher::Input,
    plan::Trouble,
    world::{Order, What, World},
};

/// An unanswered command is sent again after this long.
const SEND_AGAIN_MS: i64 = 4_000;
/// Tasks are added during this part of the time with faults.
const SUBMIT_PART: i64 = 3;

impl World {
    /// The first commands: jobs, nodes, tasks.
    pub fn open(&mut self) {
        for index in 0..self.plan.jobs.len() {
            self.order(1, Command::Job(index));
        }
        for _ in 0..self.plan.nodes {
            self.add_node(10);
        }
        let mut name = 0;
        while name < self.plan.tasks.len() {
            let job = self.plan.tasks[name].job;
            let most = if self.random.chance(400) { 20 } else { 1 };
            let mut names = vec![name];
            while names.len() < most && self.plan.tasks.get(name + names.len()).is_some_and(|task| task.job == job) {
                names.push(name + names.len());
            }
            name += names.len();
            let at = self.random.between(20, self.plan.quiet_at / SUBMIT_PART);
            self.order(at, Command::Tasks(names));
        }
    }

    fn order(&mut self, ms: i64, command: Command) {
        self.orders.push(Order { command, is_done: false });
        self.after(ms, What::Send(self.orders.len() - 1));
    }

    fn add_node(&mut self, ms: i64) {
        self.next_node += 1;
        let node: NodeId = format!("node-{}", self.next_node).parse().unwrap();
        self.order(ms, Command::AddNode(node));
    }

    /// Sends a command, and again until it is answered.
    pub fn send(&mut self, order: usize) {
        if self.orders[order].is_done {
            return;
        }
        let command = self.orders[order].command.clone();
        if !self.strikes(|rates| rates.mute) {
            let ms = self.travel();
            self.after(ms, What::Inbox(0, Box::new(Input::Command { order, command })));
        }
        self.after(SEND_AGAIN_MS, What::Send(order));
    }

    /// The answer came.
    pub fn on_answered(&mut self, order: usize, reply: Reply) {
        self.orders[order].is_done = true;
        for name in reply.created {
            self.observe(Fact::Acknowledged { name });
        }
        if let Some((uid, life)) = reply.cancelled {
            self.observe(Fact::CancelAcknowledged { uid, life });
        }
    }

    /// The provider takes a node away, with all its processes.
    pub fn remove_node(&mut self, node: NodeId) {
        for agent in 0..self.agents.len() {
            if self.agents[agent].node == node {
                self.agent_dies(agent, None);
            }
        }
        if self.rows.nodes.contains_key(&node) {
            self.order(10, Command::Gone(node));
        }
    }

    /// The provider stops a resting node, and somebody may want it back.
    pub fn stop_node(&mut self, node: NodeId) {
        let rests =
            |row: &crate::simulation::rows::NodeRow| matches!(row.action, Some(NodeAction::Deallocate { .. })) && row.drain.is_none();
        if !self.rows.nodes.get(&node).is_some_and(rests) {
            return;
        }
        for agent in 0..self.agents.len() {
            if self.agents[agent].node == node {
                self.agent_dies(agent, None);
            }
        }
        self.mark("stopped");
        self.order(10, Command::Stopped(node.clone()));
        if self.random.chance(700) {
            let ms = self.random.between(5_000, 60_000);
            self.order(ms, Command::Action(node.clone(), NodeAction::Start));
            self.after(ms + 5_000, What::StartAgent(node));
        }
    }

    fn some_agent(&mut self) -> Option<usize> {
        let alive: Vec<usize> =
            (0..self.agents.len()).filter(|agent| self.agents[*agent].is_alive && !self.agents[*agent].is_paused).collect();
        if alive.is_empty() { None } else { Some(alive[self.random.below(alive.len())]) }
    }

    fn some_node(&mut self) -> Option<NodeId> {
        let place = self.random.below(self.rows.nodes.len());
        self.rows.nodes.keys().nth(place).cloned()
    }

    /// The dispatcher and all agents die at the same moment; supervisors restart them.
    fn all_die(&mut self) {
        if self.dispatcher.is_none() {
            return;
        }
        self.mark("all died");
        self.observe(Fact::AllDied);
        // What their runs wrote and had not told goes with them.
        self.rows.tasks.values_mut().for_each(|row| row.unheard = None);
        self.dispatcher_dies();
        for agent in 0..self.agents.len() {
            let ms = self.random.between(500, 5_000);
            self.agent_dies(agent, Some(ms));
        }
    }

    /// Carries out an event of the plan.
    pub fn on_trouble(&mut self, trouble: Trouble) {
        if self.is_quiet {
            return;
        }
        let (task, job) = (self.random.below(self.plan.tasks.len()), self.random.below(self.plan.jobs.len()));
        match trouble {
            Trouble::DispatcherDies if self.dispatcher.is_some() => self.dispatcher_dies(),
            Trouble::DispatcherDies => {}
            Trouble::AgentDies { stays_away } => {
                if let Some(agent) = self.some_agent() {
                    let node = self.agents[agent].node.clone();
                    self.agent_dies(agent, (!stays_away).then_some(1_000));
                    if stays_away {
                        let ms = self.random.between(1_000, 200_000);
                        match self.random.below(3) {
                            0 => self.after(ms, What::RemoveNode(node)),
                            1 => self.after(ms, What::StartAgent(node)),
                            _ => {
                                self.abandoned.insert(node);
                            }
                        }
                    }
                }
            }
            Trouble::Cut(ms) => {
                if let Some(agent) = self.some_agent() {
                    self.cut(agent);
                    self.after(ms, What::Mail(agent, None, Mail::Reconnect));
                }
            }
            Trouble::Deaf(ms) => {
                if let Some(agent) = self.some_agent() {
                    self.agents[agent].deaf_until = self.now + ms;
                    self.agents[agent].well_since = self.now + ms;
                    if self.random.chance(400) {
                        self.abandoned.insert(self.agents[agent].node.clone());
                        self.after(ms, What::Mail(agent, None, Mail::Die));
                    }
                }
            }
            Trouble::Pause(ms, has_twin) => {
                if let Some(agent) = self.some_agent() {
                    self.pause(agent, ms);
                    if has_twin {
                        let node = self.agents[agent].node.clone();
                        self.after(5_000, What::StartAgent(node));
                    }
                }
            }
            Trouble::BrokerRestarts => {
                for message in &mut self.broker.tasks {
                    message.is_redelivered = true;
                }
                for agent in 0..self.agents.len() {
                    if self.agents[agent].is_alive && self.agents[agent].is_connected {
                        self.cut(agent);
                        let ms = self.random.between(500, 12_000);
                        self.after(ms, What::Mail(agent, None, Mail::Reconnect));
                    }
                }
            }
            Trouble::Purge => self.broker.tasks.clear(),
            Trouble::EventsPurged => {
                // What is read and not acknowledged is still there for the dispatcher.
                self.broker.events.clear();
            }
            Trouble::NodeRemoved => {
                if let Some(node) = self.some_node() {
                    self.remove_node(node);
                }
            }
            Trouble::Drain(option) => {
                if let Some(node) = self.some_node() {
                    self.order(1, Command::Drain(node, option));
                }
            }
            Trouble::NodeAction(action) => {
                if let Some(node) = self.some_node() {
                    self.order(1, Command::Action(node, action));
                }
            }
            Trouble::Resized(slots) => {
                let nodes: Vec<NodeId> = self.rows.nodes.keys().cloned().collect();
                let count = nodes.len();
                nodes.into_iter().for_each(|node| self.remove_node(node));
                self.order(8_000, Command::Slots(slots));
                (0..count.max(1)).for_each(|_| self.add_node(20_000));
            }
            Trouble::EventsBehind(ms) => {
                self.mark("events behind");
                self.broker.is_behind_until = self.now + ms;
            }
            Trouble::AllDie => self.all_die(),
            Trouble::Forged => self.forge(),
            Trouble::ClockSet(ms) => {
                self.mark("clock set");
                self.shift += ms;
            }
            Trouble::StandsStill(ms) => self.dispatcher_stands_still(ms),
            Trouble::NodeAdded => self.add_node(1),
            Trouble::Hold(ms) => {
                if let Some(node) = self.some_node() {
                    self.order(1, Command::Scheduling(node.clone(), false));
                    self.order(ms, Command::Scheduling(node, true));
                }
            }
            Trouble::Cancel => self.order(1, Command::Cancel(task)),
            Trouble::Reactivated => self.order(1, Command::Reactivate(task)),
            Trouble::Delete => self.order(1, Command::Delete(task)),
            Trouble::JobChanged(priority, max_parallel) => self.order(1, Command::Change(job, priority, max_parallel)),
            Trouble::JobDisabled(how, ms) => {
                self.order(1, Command::Disable(job, how));
                if self.random.chance(800) {
                    self.order(ms, Command::Enable(job));
                }
            }
            Trouble::JobTerminated => self.order(1, Command::Terminate(job)),
            Trouble::JobDeleted | Trouble::JobEnds(_, true) => {
                let job = if let Trouble::JobEnds(job, _) = trouble { job } else { job };
                self.order(1, Command::DeleteJob(job));
            }
            Trouble::JobEnds(job, false) => self.order(1, Command::Terminate(job)),
        }
    }

    /// Faults end: a fresh node is added, so that everything can end.
    pub fn close(&mut self) {
        self.add_node(1);
        for node in self.rows.nodes.keys().cloned().collect::<Vec<_>>() {
            self.order(1, Command::Scheduling(node.clone(), true));
            self.after(10_000, What::StartAgent(node));
        }
    }
}
