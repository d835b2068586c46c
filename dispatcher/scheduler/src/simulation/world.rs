//! The simulated world of one seed: virtual time, pending events, and the loop that handles them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
};

use contract::{
    clock::{Moment, Now},
    ids::{AttemptKey, NodeId, RunId, TaskUid},
    state::TaskState,
    time::Timestamp,
};
use model::node::NodeAction;

use crate::{
    Bug,
    simulation::{
        agent::{Agent, Mail},
        broker::{Broker, Message, Told},
        checker::{Checker, Fact, Totals, Violation},
        commands::{Command, Reply},
        dispatcher::{Dispatcher, Input},
        plan::{Plan, Rates},
        random::Random,
        rows::{JobLife, NodeRow, Rows},
    },
};

/// Everything must have ended this long after the last fault.
const SETTLE_MS: i64 = 45 * 60_000;
/// How often that is checked.
const LOOK_MS: i64 = 5_000;
/// The last events that a failure shows.
const LOG_MAX: usize = 80;
/// A seed that needs more events than this does not end.
const EVENTS_MAX: u64 = 2_000_000;
/// When the world begins.
const EPOCH_MS: i64 = 1_800_000_000_000;

/// A pending event.
#[derive(Debug, Clone)]
pub enum What {
    /// A dispatcher of this boot works through its inputs.
    Batch(u64),
    /// Its second is over.
    Tick(u64),
    /// The dispatcher starts again.
    Boot,
    /// The broker hands out what is ready.
    Deliver,
    /// A task's message reaches the queue.
    Arrive(Message),
    /// Something reaches the dispatcher of this boot, or of any when zero.
    Inbox(u64, Box<Input>),
    /// An event reaches its queue.
    Told(Told),
    /// Something reaches an agent, if the connection it was sent on still stands.
    Mail(usize, Option<u64>, Mail),
    /// A person or the provider sends a command, again if need be.
    Send(usize),
    /// An answer reaches them.
    Answered(usize, Reply),
    /// The plan's next trouble.
    Trouble(usize),
    /// A supervisor starts an agent.
    StartAgent(NodeId),
    /// The provider removes a node.
    RemoveNode(NodeId),
    /// The provider stops a node that rests.
    StopNode(NodeId),
    /// Faults end.
    Quiet,
    /// Checks whether everything has ended.
    Look,
}

/// A command until it is answered.
#[derive(Debug, Clone)]
pub struct Order {
    pub command: Command,
    /// Whether it was answered.
    pub is_done: bool,
}

/// The state of the whole simulation.
pub struct World {
    pub plan: Plan,
    pub random: Random,
    pub now: i64,
    /// By how much the dispatcher's wall clock was set.
    pub shift: i64,
    /// From here on the dispatcher has listened, or will, without a break.
    pub awake_since: i64,
    pub is_quiet: bool,
    pub rows: Rows,
    pub dispatcher: Option<Dispatcher>,
    pub broker: Broker,
    pub agents: Vec<Agent>,
    pub orders: Vec<Order>,
    pub checker: Checker,
    /// When attempts of several slots were released, and since when a node is kept for them.
    pub wide: BTreeMap<AttemptKey, (i64, Option<i64>)>,
    /// Files by task and attempt (staged) or attempt zero (final): who wrote each.
    pub blobs: BTreeMap<(TaskUid, u32), BTreeMap<u32, RunId>>,
    pub bug: Option<Bug>,
    pub next_run: u128,
    pub next_node: usize,
    /// Nodes that died and that nobody starts or removes.
    pub abandoned: BTreeSet<NodeId>,
    /// How often each node's folders were emptied.
    pub folders: BTreeMap<NodeId, u32>,
    /// How often each kind of thing happened, so that a world in which it cannot is noticed.
    pub marks: BTreeMap<&'static str, u64>,
    log: Option<VecDeque<String>>,
    queue: BinaryHeap<Reverse<Due>>,
    sequence: u64,
    is_delivery_due: bool,
    is_settled: bool,
}

struct Due {
    at: i64,
    sequence: u64,
    what: What,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

impl World {
    /// The world of a seed, with a mistake in its rules if one is given.
    pub fn new(seed: u64, bug: Option<Bug>, is_logged: bool) -> World {
        let mut random = Random::new(seed);
        let plan = Plan::draw(&mut random);
        let mut checker = Checker::default();
        (checker.is_calm, checker.wide_ms_max) = (plan.is_calm, plan.wide_ms_max());
        let mut world = World {
            plan,
            random,
            now: 0,
            shift: 0,
            awake_since: 0,
            is_quiet: false,
            rows: Rows::default(),
            dispatcher: None,
            broker: Broker::default(),
            agents: Vec::new(),
            orders: Vec::new(),
            checker,
            wide: BTreeMap::new(),
            blobs: BTreeMap::new(),
            bug,
            next_run: 1,
            next_node: 0,
            abandoned: BTreeSet::new(),
            folders: BTreeMap::new(),
            marks: BTreeMap::new(),
            log: is_logged.then(VecDeque::new),
            queue: BinaryHeap::new(),
            sequence: 0,
            is_delivery_due: false,
            is_settled: false,
        };
        world.boot();
        world.open();
        for index in 0..world.plan.troubles.len() {
            world.after(world.plan.troubles[index].0, What::Trouble(index));
        }
        world.after(world.plan.quiet_at, What::Quiet);
        world
    }

    /// Runs to the end, or to the first violation.
    pub fn run(&mut self) -> Result<Totals, Violation> {
        let mut events = 0;
        while let Some(Reverse(due)) = self.queue.pop() {
            self.now = due.at;
            self.handle(due.what);
            events += 1;
            if events > EVENTS_MAX {
                self.checker.fail(Violation::NotSettled("too many events".to_owned()));
            }
            if let Some(violation) = self.checker.violation() {
                return Err(violation.clone());
            }
            if self.is_settled {
                break;
            }
        }
        let shown = self.rows.tasks.values().filter(|row| row.state == TaskState::Completed);
        let shown = shown.map(|row| (row.facts.uid, row.has_succeeded)).collect();
        let waits: BTreeSet<TaskUid> = self
            .rows
            .tasks
            .values()
            .filter(|row| !row.is_live && row.state == TaskState::Active)
            .filter(|row| row.blocked_by.is_some() || !row.fits || self.rows.jobs[&row.job].state != JobLife::Active)
            .map(|row| row.facts.uid)
            .collect();
        let totals = self.checker.finish(&shown, &waits);
        self.checker.violation().map_or(Ok(totals), |violation| Err(violation.clone()))
    }

    fn handle(&mut self, what: What) {
        let is_routine = match &what {
            What::Deliver | What::Look | What::Batch(_) | What::Tick(_) => true,
            What::Mail(.., Mail::HeartbeatNow | Mail::HeartbeatReply { .. }) => true,
            What::Inbox(_, input) => matches!(**input, Input::Heartbeat { .. }),
            _ => false,
        };
        if self.log.is_some() && !is_routine {
            self.note(format!("{what:?}"));
        }
        match what {
            What::Batch(boot) => self.on_batch(boot),
            What::Tick(boot) => self.on_tick(boot),
            What::Boot => self.boot(),
            What::Deliver => {
                self.is_delivery_due = false;
                self.deliver();
            }
            What::Arrive(message) => self.on_arrive(message),
            What::Inbox(boot, input) => self.on_inbox(boot, *input),
            What::Told(told) => self.on_told(told),
            What::Mail(agent, connection, mail) => self.on_mail(agent, connection, mail),
            What::Send(order) => self.send(order),
            What::Answered(order, reply) => self.on_answered(order, reply),
            What::Trouble(index) => self.on_trouble(self.plan.troubles[index].1),
            What::StartAgent(node) => self.start_agent(node),
            What::RemoveNode(node) => self.remove_node(node),
            What::StopNode(node) => self.stop_node(node),
            What::Quiet => self.on_quiet(),
            What::Look => self.look(),
        }
    }

    /// The present time as the dispatcher's wall clock shows it.
    pub fn time(&self) -> Timestamp {
        Timestamp(EPOCH_MS + self.now + self.shift)
    }

    /// The present, on both of the dispatcher's clocks.
    pub fn present(&self) -> Now {
        Now { time: self.time(), moment: Moment(EPOCH_MS + self.now) }
    }

    /// Schedules an event.
    pub fn after(&mut self, ms: i64, what: What) {
        self.sequence += 1;
        self.queue.push(Reverse(Due { at: self.now + ms, sequence: self.sequence, what }));
    }

    /// Whether a fault of this rate strikes now.
    pub fn strikes(&mut self, rate: fn(&Rates) -> u32) -> bool {
        let rate = if self.is_quiet { 0 } else { rate(&self.plan.rates) };
        rate > 0 && self.random.chance(rate)
    }

    /// How long a message travels.
    pub fn travel(&mut self) -> i64 {
        if self.strikes(|rates| rates.slow) { self.random.between(50, 5_000) } else { self.random.between(1, 15) }
    }

    /// Reports a fact to the checker.
    pub fn observe(&mut self, fact: Fact) {
        self.checker.observe(fact);
    }

    /// Counts a kind of thing.
    pub fn mark(&mut self, kind: &'static str) {
        *self.marks.entry(kind).or_default() += 1;
    }

    /// Writes into the log of a failing seed.
    pub fn note(&mut self, line: String) {
        let now = self.now;
        if let Some(log) = &mut self.log {
            if log.len() == LOG_MAX {
                log.pop_front();
            }
            log.push_back(format!("{now:>8} {line}"));
        }
    }

    /// The last events.
    pub fn history(&self) -> String {
        self.log.iter().flatten().map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    fn on_arrive(&mut self, message: Message) {
        if self.strikes(|rates| rates.lose) {
            return;
        }
        let reorders = self.strikes(|rates| rates.reorder);
        self.broker.put(message, reorders, &mut self.random);
        if self.strikes(|rates| rates.duplicate) {
            let is_redelivered = message.is_redelivered || self.random.chance(500);
            self.broker.put(Message { is_redelivered, ..message }, true, &mut self.random);
        }
        self.deliver_soon();
    }

    /// The broker looks for agents with room.
    pub fn deliver_soon(&mut self) {
        if !self.is_delivery_due {
            self.is_delivery_due = true;
            let ms = self.random.between(1, 4);
            self.after(ms, What::Deliver);
        }
    }

    fn deliver(&mut self) {
        (0..self.agents.len()).for_each(|agent| self.ask_for_kept(agent));
        if self.broker.tasks.is_empty() {
            return;
        }
        let first = self.random.below(self.agents.len());
        for offset in 0..self.agents.len() {
            let index = (first + offset) % self.agents.len();
            let room = self.agents[index].room();
            if room > 0
                && let Some(message) = self.broker.take(room)
            {
                self.hand_over(index, message);
                self.deliver_soon();
            }
        }
    }

    fn on_told(&mut self, told: Told) {
        if self.strikes(|rates| rates.lose) {
            return;
        }
        if self.strikes(|rates| rates.duplicate) {
            let ms = self.travel();
            self.after(ms, What::Told(told.clone()));
        }
        self.broker.events.push_back(told);
        self.wake_dispatcher();
    }

    fn on_quiet(&mut self) {
        self.is_quiet = true;
        self.close();
        self.after(LOOK_MS, What::Look);
    }

    fn look(&mut self) {
        match self.unsettled() {
            None => self.is_settled = true,
            Some(_) if self.now < self.plan.quiet_at + SETTLE_MS => self.after(LOOK_MS, What::Look),
            Some(reason) => self.checker.fail(Violation::NotSettled(reason)),
        }
    }

    /// What still moves.
    fn unsettled(&self) -> Option<String> {
        if let Some(order) = self.orders.iter().find(|order| !order.is_done) {
            return Some(format!("unanswered {:?}", order.command));
        }
        let Some(core) = self.dispatcher.as_ref().map(Dispatcher::core) else { return Some("no dispatcher".to_owned()) };
        if let Some(attempt) = core.live().values().min_by_key(|attempt| attempt.key) {
            return Some(format!("live {attempt:?}"));
        }
        if let Some((job, _)) = self.rows.jobs.iter().find(|(job, _)| !core.is_released(**job)) {
            return Some(format!("{job:?} is not released"));
        }
        if let Some(row) = self.rows.tasks.values().find(|row| row.is_live || row.is_in_outbox) {
            return Some(format!("live {row:?}"));
        }
        let runs = |row: &&_| {
            let row: &crate::simulation::rows::TaskRow = row;
            (row.is_ready || row.rests_until.is_some()) && self.rows.jobs[&row.job].state == JobLife::Active
        };
        if let Some(row) = self.rows.tasks.values().find(runs) {
            return Some(format!("never released {row:?}"));
        }
        let leaves = |row: &NodeRow| row.drain.is_some() || matches!(row.action, Some(NodeAction::Deallocate { .. }));
        if let Some((node, row)) = self.rows.nodes.iter().find(|(_, row)| leaves(row)) {
            return Some(format!("{node} is never emptied: {row:?}"));
        }
        if self.plan.is_calm
            && let Some(row) = self.rows.tasks.values().find(|row| row.unheard.is_some())
        {
            return Some(format!("what a run wrote was lost {row:?}"));
        }
        for (job, facts) in core.jobs() {
            let ready = self.rows.ready_count(*job);
            if facts.live != 0 || facts.waiting != ready {
                return Some(format!("{job:?} has {ready} ready rows, the core says {facts:?}"));
            }
        }
        if let Some(keep) = core.keep() {
            return Some(format!("the core keeps {keep:?}"));
        }
        if let Some((node, facts)) = core.nodes().iter().find(|(_, facts)| facts.run_count() > 0) {
            return Some(format!("the core says {node} holds {facts:?}"));
        }
        if core.room() < 2 * core.slots() {
            return Some(format!("the empty window has room for {} with {} slots", core.room(), core.slots()));
        }
        if let Some(agent) = self.agents.iter().find(|agent| agent.holds_something()) {
            return Some(format!("an agent holds {agent:?}"));
        }
        None
    }
}
