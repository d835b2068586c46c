//! A seeded world of nodes, single tasks and gangs around the rules: messages are late or lost, agents and the
//! dispatcher die, nodes leave, gangs are deleted. Its checks know nothing of how the rules decide.

mod worlds;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use contract::{
    clock::Moment,
    ids::{AttemptKey, Epoch, Fence, JobUid, NodeId, RunId, TaskUid},
};

use crate::{
    gangs::{GATHER_MAX_MS, GATHER_MS, Gang, GangAnswer, GangEffect, Gangs, Host, Member, Mistake, Pool, READY_MS},
    simulation::random::Random,
};

const STEP_MS: i64 = 200;
const TICK_MS: i64 = 1_000;
const HEARTBEAT_MS: i64 = 5_000;
/// A node that is silent for this long is lost.
const LEASE_MS: i64 = 60_000;
const SEEDS: u64 = 80;
/// A planted mistake is found within so many seeds.
const SEEDS_PER_MISTAKE_MAX: u64 = 200;
/// A world that needs more time than this does not end.
const END_MS: i64 = 3 * 3_600_000;

const MISTAKES: [Mistake; 11] = [
    Mistake::StartsShort,
    Mistake::OldStartReady,
    Mistake::NothingKept,
    Mistake::SinglesHaveNoTurn,
    Mistake::UnfitBars,
    Mistake::PriorityIgnored,
    Mistake::NeverGivenUp,
    Mistake::OutlastedForgotten,
    Mistake::GoneGathersOn,
    Mistake::CountsQuestions,
    Mistake::LeftStaysReady,
];

/// A task that is added at some moment.
#[derive(Debug, Clone, Copy)]
struct Task {
    uid: TaskUid,
    at: i64,
    run_ms: i64,
    priority: i32,
    instances: u32,
    slots: u32,
    attempt: u32,
}

impl Task {
    fn key(&self) -> AttemptKey {
        AttemptKey { uid: self.uid, attempt: self.attempt, fence: Fence(u64::from(self.attempt)) }
    }
}

#[derive(Debug, Clone)]
struct Node {
    epoch: Epoch,
    /// `None` while its agent is away, with the time when it died.
    died_at: Option<i64>,
    is_drained: bool,
    keep: Option<(AttemptKey, u32)>,
    runs: BTreeMap<TaskUid, (u32, i64)>,
    asked_at: i64,
    has_asked: bool,
    next_run: u128,
}

#[derive(Debug, Clone)]
enum Message {
    Ask(AttemptKey, Member),
    Keep(NodeId, Option<(AttemptKey, u32)>),
}

#[derive(Debug, Default)]
struct Marks {
    waits: BTreeMap<TaskUid, i64>,
    busy_slot_ms: i64,
    /// Until the last gang started.
    slot_ms: i64,
    lost: u32,
    given_up: u32,
    restarts: u32,
    passed_over: u32,
}

struct World {
    random: Random,
    now: i64,
    slots: u32,
    nodes: BTreeMap<NodeId, Node>,
    /// Tasks that are not added yet, by time.
    coming: VecDeque<Task>,
    /// Single tasks that wait as rows, and those that are released.
    rows: VecDeque<Task>,
    released: VecDeque<(Moment, Task)>,
    gangs: BTreeMap<TaskUid, Task>,
    running: BTreeMap<TaskUid, (Task, Vec<NodeId>)>,
    rules: Gangs,
    messages: VecDeque<(i64, Message)>,
    is_calm: bool,
    /// How long a gang, and a released single task, may wait here.
    waits_max: Option<(i64, i64)>,
    troubles_until: i64,
    mistake: Option<Mistake>,
    marks: Marks,
    first_start: Option<i64>,
}

impl World {
    fn new(random: Random, nodes: u32, slots: u32, tasks: Vec<Task>, mistake: Option<Mistake>) -> World {
        let names = (1..=nodes).map(|number| format!("node-{number}").parse().unwrap());
        let node = || Node {
            epoch: Epoch(1),
            died_at: None,
            is_drained: false,
            keep: None,
            runs: BTreeMap::new(),
            asked_at: 0,
            has_asked: false,
            next_run: 1,
        };
        let nodes = names.map(|name| (name, node())).collect();
        let mut coming = tasks;
        coming.sort_by_key(|task| task.at);
        World {
            random,
            now: 0,
            slots,
            nodes,
            coming: coming.into(),
            rows: VecDeque::new(),
            released: VecDeque::new(),
            gangs: BTreeMap::new(),
            running: BTreeMap::new(),
            rules: Gangs { mistake, ..Gangs::default() },
            messages: VecDeque::new(),
            is_calm: true,
            waits_max: None,
            troubles_until: 0,
            mistake,
            marks: Marks::default(),
            first_start: None,
        }
    }

    fn moment(&self) -> Moment {
        Moment(self.now)
    }

    fn free(&self, node: &Node) -> u32 {
        self.slots - node.runs.values().map(|(slots, _)| *slots).sum::<u32>()
    }

    /// The nodes that take tasks, as far as the dispatcher knows.
    fn hosts(&self) -> BTreeMap<NodeId, Host> {
        let is_known = |node: &&Node| !node.is_drained && node.died_at.is_none_or(|at| self.now < at + LEASE_MS);
        let host = |node: &Node| Host {
            epoch: node.epoch,
            runs: node.runs.iter().map(|(uid, (slots, _))| (*uid, *slots)).collect(),
            barred: BTreeSet::new(),
        };
        self.nodes.iter().filter(|(_, node)| is_known(node)).map(|(id, node)| (id.clone(), host(node))).collect()
    }

    fn waiting(&self) -> Vec<Gang> {
        let gang = |task: &Task| Gang {
            key: task.key(),
            job: JobUid(1),
            priority: task.priority,
            instances: task.instances,
            slots: task.slots,
            since: Moment(task.at),
        };
        self.gangs.values().map(gang).collect()
    }

    fn decide(&mut self, is_tick: bool, decide: impl FnOnce(&mut Gangs, Pool<'_>, Moment, &mut Vec<GangEffect>)) -> Result<(), String> {
        let (hosts, gangs) = (self.hosts(), self.waiting());
        let mut singles: BTreeMap<i32, Moment> = BTreeMap::new();
        for (at, task) in &self.released {
            let oldest = singles.entry(task.priority).or_insert(*at);
            *oldest = (*oldest).min(*at);
        }
        let pool = Pool { slots_per_node: self.slots, hosts: &hosts, gangs: &gangs, singles: &singles };
        let mut effects = Vec::new();
        let was = self.rules.gathering().map(|(gang, _)| gang.key);
        let now = self.moment();
        decide(&mut self.rules, pool, now, &mut effects);
        self.marks.passed_over += gangs.iter().filter(|gang| self.rules.shortage(gang, pool).is_some()).count() as u32;
        if is_tick {
            self.note_gathering(was, &gangs, pool)?;
        }
        for effect in effects {
            match effect {
                GangEffect::Keep { node, key, slots } => self.send(Message::Keep(node, Some((key, slots)))),
                GangEffect::GiveBack { node, .. } => self.send(Message::Keep(node, None)),
                GangEffect::Start { key, members } => self.start(key, &members, &hosts)?,
            }
        }
        Ok(())
    }

    /// No gathering goes before a more important gang, or lasts for longer than it may.
    fn note_gathering(&mut self, was: Option<AttemptKey>, gangs: &[Gang], pool: Pool<'_>) -> Result<(), String> {
        let Some((gang, since)) = self.rules.gathering().map(|(gang, since)| (*gang, since.0)) else {
            self.marks.given_up +=
                u32::from(was.is_some_and(|key| gangs.iter().any(|gang| gang.key == key && self.now - gang.since.0 >= GATHER_MS)));
            return Ok(());
        };
        let hosts = pool.hosts.len() as u32;
        if let Some(first) = gangs.iter().find(|other| other.priority > gang.priority && self.rules.shortage(other, pool).is_none()) {
            return Err(format!("{gang:?} gathers before {first:?}"));
        }
        if self.now - since > (since - gang.since.0).clamp(GATHER_MS, GATHER_MAX_MS) + 2 * TICK_MS {
            return Err(format!("{gang:?} gathers for {} ms", self.now - since));
        }
        if !gangs.iter().any(|other| other.key == gang.key) {
            return Err(format!("{gang:?} gathers and is gone"));
        }
        if gang.instances > hosts {
            return Err(format!("{gang:?} gathers on {hosts} nodes"));
        }
        Ok(())
    }

    /// A gang begins: on as many nodes as it needs, each of which holds the slots for it.
    fn start(&mut self, key: AttemptKey, members: &[Member], hosts: &BTreeMap<NodeId, Host>) -> Result<(), String> {
        let Some(task) = self.gangs.remove(&key.uid) else { return Err(format!("{key:?} starts and does not wait")) };
        let names: BTreeSet<&NodeId> = members.iter().map(|member| &member.node).collect();
        if names.len() as u32 != task.instances || members.len() != names.len() {
            return Err(format!("{task:?} starts on {names:?}"));
        }
        for member in members {
            if hosts.get(&member.node).is_none_or(|host| host.epoch != member.epoch) {
                return Err(format!("{task:?} starts on {member:?}, which is not there"));
            }
            let node = &self.nodes[&member.node];
            if self.free(node) < task.slots {
                return Err(format!("{task:?} starts on {member:?}, which has too few free slots: {node:?}"));
            }
        }
        for member in members {
            if let Some(node) = self.nodes.get_mut(&member.node) {
                (node.keep, node.has_asked) = (None, false);
                node.runs.insert(task.uid, (task.slots, self.now + task.run_ms));
            }
        }
        self.first_start.get_or_insert(self.now);
        self.marks.waits.insert(task.uid, self.now - task.at);
        if let Some((most, _)) = self.waits_max.filter(|(most, _)| self.now - task.at > *most) {
            return Err(format!("{task:?} waited for {} ms, not {most}", self.now - task.at));
        }
        self.running.insert(task.uid, (task, members.iter().map(|member| member.node.clone()).collect()));
        Ok(())
    }

    fn send(&mut self, message: Message) {
        if self.is_calm || self.now > self.troubles_until || !self.random.chance(150) {
            let steps = if self.is_calm { 1 } else { self.random.between(1, 5) };
            self.messages.push_back((self.now + steps * STEP_MS, message));
        }
    }

    fn step(&mut self) -> Result<(), String> {
        self.now += STEP_MS;
        while self.coming.front().is_some_and(|task| task.at <= self.now) {
            let Some(task) = self.coming.pop_front() else { break };
            if task.instances > 0 {
                self.gangs.insert(task.uid, task);
            } else {
                self.rows.push_back(task);
            }
        }
        self.end_runs();
        if !self.is_calm && self.now <= self.troubles_until {
            self.trouble();
        }
        self.lose_nodes();
        self.work()?;
        let due: Vec<Message> = self.messages.iter().filter(|(at, _)| *at <= self.now).map(|(_, message)| message.clone()).collect();
        self.messages.retain(|(at, _)| *at > self.now);
        for message in due {
            match message {
                Message::Keep(node, keep) => self.kept(&node, keep),
                Message::Ask(key, member) => self.asked(key, member)?,
            }
        }
        if self.now % TICK_MS == 0 {
            self.decide(true, Gangs::tend)?;
        }
        if self.now % HEARTBEAT_MS == 0 {
            for node in self.nodes.keys().cloned().collect::<Vec<_>>() {
                let keep = self.rules.kept_for(&node);
                self.send(Message::Keep(node, keep));
            }
        }
        let used: u32 = self.nodes.values().map(|node| self.slots - self.free(node)).sum();
        if self.first_start.is_some() && !(self.gangs.is_empty() && self.coming.is_empty()) {
            self.marks.busy_slot_ms += i64::from(used) * STEP_MS;
            self.marks.slot_ms += i64::from(self.slots) * self.nodes.len() as i64 * STEP_MS;
        }
        Ok(())
    }

    /// A node whose question is open holds its slots until it is answered, so it asks at once.
    fn kept(&mut self, name: &NodeId, keep: Option<(AttemptKey, u32)>) {
        let Some(node) = self.nodes.get_mut(name).filter(|node| node.died_at.is_none()) else { return };
        match (node.keep, keep) {
            (Some((asked, _)), keep) if node.has_asked && keep.is_none_or(|(key, _)| key != asked) => node.asked_at = 0,
            (Some((old, _)), Some((new, _))) if old == new => {}
            _ => (node.keep, node.has_asked) = (keep, false),
        }
    }

    fn asked(&mut self, key: AttemptKey, member: Member) -> Result<(), String> {
        let name = member.node.clone();
        let mut answer = GangAnswer::Wait;
        self.decide(false, |rules, pool, now, effects| answer = rules.ask(key, member, pool, now, effects))?;
        if answer == GangAnswer::Drop
            && let Some(node) = self.nodes.get_mut(&name).filter(|node| node.keep.is_some_and(|(kept, _)| kept == key))
        {
            (node.keep, node.has_asked) = (None, false);
        }
        Ok(())
    }

    fn end_runs(&mut self) {
        let now = self.now;
        for node in self.nodes.values_mut() {
            node.runs.retain(|uid, (_, ends_at)| *ends_at > now || self.running.contains_key(uid));
        }
        let is_over = |uid: &TaskUid, members: &[NodeId], nodes: &BTreeMap<NodeId, Node>| {
            nodes.get(&members[0]).and_then(|node| node.runs.get(uid)).is_some_and(|(_, ends_at)| *ends_at <= now)
        };
        let over: Vec<TaskUid> =
            self.running.iter().filter(|(uid, (_, members))| is_over(uid, members, &self.nodes)).map(|(uid, _)| *uid).collect();
        for uid in over {
            self.running.remove(&uid);
            self.nodes.values_mut().for_each(|node| node.runs.retain(|other, _| *other != uid));
        }
    }

    /// A gang that loses a node is queued again as a whole.
    fn lose_nodes(&mut self) {
        let nodes = &self.nodes;
        let is_lost = |uid: &TaskUid, members: &[NodeId]| {
            members.iter().any(|name| {
                nodes.get(name).is_none_or(|node| !node.runs.contains_key(uid) || node.died_at.is_some_and(|at| self.now >= at + LEASE_MS))
            })
        };
        let lost: Vec<TaskUid> = self.running.iter().filter(|(uid, (_, members))| is_lost(uid, members)).map(|(uid, _)| *uid).collect();
        for uid in lost {
            let Some((task, _)) = self.running.remove(&uid) else { continue };
            self.marks.lost += 1;
            self.nodes.values_mut().for_each(|node| node.runs.retain(|other, _| *other != uid));
            self.gangs.insert(uid, Task { attempt: task.attempt + 1, ..task });
        }
    }

    /// The window is filled, and agents take what is released.
    fn work(&mut self) -> Result<(), String> {
        let window = 2 * self.slots as usize * self.nodes.len();
        while self.released.len() < window {
            let Some(task) = self.rows.pop_front() else { break };
            self.released.push_back((self.moment(), task));
        }
        let names: Vec<NodeId> = self.nodes.keys().cloned().collect();
        let first = self.random.below(names.len());
        for name in names.iter().cycle().skip(first).take(names.len()) {
            let Some(mut node) = self.nodes.remove(name) else { continue };
            if node.died_at.is_none() && !node.is_drained {
                let set_aside = node.keep.map_or(0, |(_, slots)| slots);
                while self.free(&node) > set_aside
                    && let Some((at, task)) = self.released.pop_front()
                {
                    node.runs.insert(task.uid, (1, self.now + task.run_ms));
                    let waited = self.now - at.0;
                    if let Some((_, most)) = self.waits_max.filter(|(_, most)| waited > *most) {
                        return Err(format!("{task:?} waited for {waited} ms in the window, not {most}"));
                    }
                }
                if let Some((key, slots)) = node.keep
                    && self.free(&node) >= slots
                    && self.now - node.asked_at >= TICK_MS
                {
                    (node.asked_at, node.has_asked) = (self.now, true);
                    node.next_run += 1;
                    let member = Member { node: name.clone(), epoch: node.epoch, run: RunId(node.next_run) };
                    self.send(Message::Ask(key, member));
                }
            }
            self.nodes.insert(name.clone(), node);
        }
        Ok(())
    }

    fn trouble(&mut self) {
        if self.random.chance(4) {
            self.rules = Gangs { mistake: self.mistake, ..Gangs::default() };
            self.marks.restarts += 1;
        }
        if self.random.chance(6)
            && let Some(uid) = self.gangs.keys().nth(self.random.clone().below(self.gangs.len())).copied()
        {
            self.gangs.remove(&uid);
        }
        for name in self.nodes.keys().cloned().collect::<Vec<_>>() {
            let (dies, comes_back, turns) = (self.random.chance(3), self.random.chance(20), self.random.chance(2));
            let Some(node) = self.nodes.get_mut(&name) else { continue };
            match node.died_at {
                None if dies => {
                    (node.died_at, node.keep, node.has_asked) = (Some(self.now), None, false);
                }
                // The newer start of the agent has none of the old runs, and may have a single task before it asks.
                Some(_) if comes_back => {
                    (node.died_at, node.epoch) = (None, Epoch(node.epoch.0 + 1));
                    node.runs.clear();
                }
                _ => {}
            }
            node.is_drained ^= turns;
        }
    }

    fn is_over(&self) -> bool {
        let has_work = !self.coming.is_empty() || !self.rows.is_empty() || !self.released.is_empty();
        !has_work && self.gangs.is_empty() && self.running.is_empty() && self.nodes.values().all(|node| node.keep.is_none())
    }

    fn run(&mut self) -> Result<(), String> {
        while !self.is_over() {
            self.step()?;
            if self.now > self.troubles_until && !self.is_calm && self.nodes.values().any(|node| node.is_drained || node.died_at.is_some())
            {
                for node in self.nodes.values_mut().filter(|node| node.is_drained || node.died_at.is_some()) {
                    node.is_drained = false;
                    if node.died_at.take().is_some() {
                        node.epoch = Epoch(node.epoch.0 + 1);
                        node.runs.clear();
                    }
                }
            }
            if self.now > END_MS {
                let waiting: Vec<_> = self.gangs.values().collect();
                return Err(format!("never ends: {waiting:?} and {:?}, gathering {:?}", self.released.len(), self.rules.gathering()));
            }
        }
        Ok(())
    }
}

fn single(uid: u64, at: i64, run_ms: i64) -> Task {
    Task { uid: TaskUid(uid), at, run_ms, priority: 0, instances: 0, slots: 1, attempt: 1 }
}

/// In the world of a task that outlasts a gathering, the smaller gangs start long before it ends, and the large one once
/// it has; the one that is larger than the pool never does.
fn run(seed: u64, mistake: Option<Mistake>) -> Result<Marks, String> {
    let mut world = worlds::world(seed, mistake);
    if seed % 4 == 2 {
        while world.now < 6 * GATHER_MS {
            world.step()?;
            if world.now == 4 * GATHER_MS && (3..6).any(|uid| !world.marks.waits.contains_key(&TaskUid(uid))) {
                return Err("smaller gangs wait behind one that cannot gather".to_owned());
            }
        }
        world.gangs.remove(&TaskUid(2)).ok_or("a gang of nine has run on four nodes")?;
    }
    world.run()?;
    Ok(world.marks)
}

#[test]
fn gangs_start_whole_and_in_their_turn_whatever_goes_wrong() {
    let mut all = Marks::default();
    for seed in 0..SEEDS {
        match run(seed, None) {
            Ok(marks) => {
                all.lost += marks.lost;
                all.given_up += marks.given_up;
                all.restarts += marks.restarts;
                all.passed_over += marks.passed_over;
            }
            Err(reason) => panic!("seed {seed}: {reason}"),
        }
    }
    assert!(all.lost > 0 && all.given_up > 0 && all.restarts > 0 && all.passed_over > 0, "the worlds are too kind: {all:?}");
}

/// What a mistake breaks, in a world that is sound without it.
fn found(seed: u64, mistake: Mistake) -> Option<(u64, String)> {
    let reason = run(seed, Some(mistake)).err()?;
    run(seed, None).is_ok().then_some((seed, reason))
}

#[test]
fn every_planted_mistake_is_found() {
    let mut missed = Vec::new();
    for mistake in MISTAKES {
        match (0..SEEDS_PER_MISTAKE_MAX).find_map(|seed| found(seed, mistake)) {
            Some((seed, reason)) => println!("{mistake:?} found with seed {seed}: {reason}"),
            None => missed.push(mistake),
        }
    }
    assert!(missed.is_empty(), "not found within {SEEDS_PER_MISTAKE_MAX} seeds: {missed:?}");
}

/// When each gang would start if all came strictly one after the other, and nothing took time but their runs.
fn first_come(tasks: &[Task], nodes: usize) -> BTreeMap<TaskUid, i64> {
    let (mut free_at, mut last, mut waits) = (vec![0; nodes], 0, BTreeMap::new());
    for task in tasks {
        free_at.sort_unstable();
        let at = task.at.max(last).max(free_at[task.instances as usize - 1]);
        free_at.iter_mut().take(task.instances as usize).for_each(|free_at| *free_at = at + task.run_ms);
        waits.insert(task.uid, at - task.at);
        last = at;
    }
    waits
}

#[test]
fn a_hundred_gangs_keep_the_slots_busy_and_wait_no_longer_than_first_come() {
    for seed in 0..8 {
        let mut random = Random::new(seed);
        let tasks: Vec<Task> =
            (1..=100).map(|uid| Task { instances: 4, ..single(uid, uid as i64 * 200, random.between(10_000, 120_000)) }).collect();
        let oracle = first_come(&tasks, 16);
        let mut world = World::new(random, 16, 1, tasks, None);
        world.run().unwrap();
        let busy = world.marks.busy_slot_ms as f64 / world.marks.slot_ms as f64;
        assert!(busy >= 0.85, "seed {seed}: {busy:.3} of the slots were busy");
        for (uid, waited) in &world.marks.waits {
            // The first ones wait for nothing but messages.
            let most = oracle[uid] * 3 / 2 + READY_MS;
            assert!(*waited <= most, "seed {seed}: {uid:?} waited for {waited} ms, first come {} ms", oracle[uid]);
        }
        println!("seed {seed}: {busy:.3} busy");
    }
}
