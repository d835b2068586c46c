//! What a seed means: the size of the world, the work of its users, and what goes wrong.

use broker_config::{ids::Epoch, state::DeallocationOption};

use crate::core::{Rules, Turn, simulation::random::Random};

/// Everything that is drawn before the first event.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Nodes at the start.
    pub nodes: usize,
    /// Slots of each.
    pub slots: u32,
    /// Whether outputs are staged per attempt, or written to their final place.
    pub is_staged: bool,
    /// Nothing goes wrong but the nodes' clocks.
    pub is_calm: bool,
    /// What each task is like.
    pub tasks: Vec<Spec>,
    /// Jobs, with priority and limit.
    pub jobs: Vec<(i32, i32)>,
    /// What each job asks of nodes around its tasks.
    pub chores: Vec<Option<Chores>>,
    /// Rates, per mille.
    pub rates: Rates,
    /// Single events that go wrong, with their times.
    pub troubles: Vec<(i64, Trouble)>,
    /// From here on nothing goes wrong any more.
    pub quiet_at: i64,
}

/// What a job asks of nodes around its tasks.
#[derive(Debug, Clone, Copy)]
pub struct Chores {
    /// Tasks wait for the preparation's success.
    pub waits: bool,
    /// The preparation runs again after a newer start of the agent.
    pub reruns: bool,
    /// How often it exits non-zero, per mille.
    pub fails: u32,
    /// How often it takes its agent along, per mille.
    pub kills: u32,
    /// How long a chore runs.
    pub ms: i64,
    /// How long the release may run, if there is one.
    pub release_ms: Option<i64>,
}

/// What a task is like.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// Index of its job.
    pub job: usize,
    /// Slots it takes.
    pub slots: u32,
    /// Retries allowed.
    pub retries_max: i32,
    /// How often it exits non-zero, per mille.
    pub fails: u32,
    /// How often it takes its agent along, per mille.
    pub kills: u32,
    /// How long it runs.
    pub run_ms: i64,
    /// Files it writes.
    pub files: u32,
    /// The task that must succeed first.
    pub depends_on: Option<usize>,
}

/// How often things go wrong, per mille.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rates {
    /// A message vanishes from a queue.
    pub lose: u32,
    /// A message is delivered twice.
    pub duplicate: u32,
    /// A message overtakes others.
    pub reorder: u32,
    /// A confirm never comes though the message arrived.
    pub unconfirmed: u32,
    /// A publish is refused.
    pub refuse: u32,
    /// A question, answer, beat or control message is lost.
    pub mute: u32,
    /// Something takes seconds.
    pub slow: u32,
    /// The dispatcher dies around a commit.
    pub crash: u32,
}

/// One event that goes wrong, or that people cause.
#[derive(Debug, Clone, Copy)]
pub enum Trouble {
    /// The dispatcher dies.
    DispatcherDies,
    /// An agent dies; its supervisor starts it again, or nobody does.
    AgentDies {
        /// Nobody starts it again.
        stays_away: bool,
    },
    /// A node is cut off from the broker.
    Cut(i64),
    /// A node's beats are lost, and nothing else.
    Deaf(i64),
    /// A node's processes stand still; a twin may be started meanwhile.
    Pause(i64, bool),
    /// Every connection drops.
    BrokerRestarts,
    /// The pool's queues are emptied.
    Purge,
    /// The events that wait unread are lost.
    EventsPurged,
    /// A node is removed without asking it.
    NodeRemoved,
    /// A node is emptied.
    Drain(DeallocationOption),
    /// A node is asked to start again or to rest.
    Turn(Turn),
    /// A node is added.
    NodeAdded,
    /// Scheduling is switched off on a node, and on again later.
    Hold(i64),
    /// A person ends a task.
    Cancel,
    /// A person runs a failed task again.
    Reactivated,
    /// A person deletes a task.
    Delete,
    /// A job's priority and limit change.
    JobChanged(i32, i32),
    /// A job is disabled: 0 requeue, 1 terminate, 2 wait; perhaps enabled later.
    JobDisabled(u8, i64),
    /// A job is terminated.
    JobTerminated,
    /// A job is deleted.
    JobDeleted,
    /// This job is terminated, or deleted.
    JobEnds(usize, bool),
}

impl Plan {
    /// Draws the plan of a seed.
    pub fn draw(random: &mut Random) -> Plan {
        let slots = [1, 1, 2, 4][random.below(4)];
        let nodes = random.between(1, 4) as usize;
        let jobs: Vec<(i32, i32)> =
            (0..random.between(1, 4)).map(|_| (random.between(-1, 1) as i32, [-1, -1, -1, 2][random.below(4)])).collect();
        let is_calm = random.chance(100);
        let (is_poisonous, has_wide, is_short) = (random.chance(150), slots > 1 && random.chance(500), random.chance(500));
        let count = if random.chance(200) { random.between(120, 200) } else { random.between(30, 70) } as usize;
        let mut tasks: Vec<Spec> = Vec::new();
        for index in 0..count {
            let job = random.below(jobs.len());
            let earlier = if index > 0 && random.chance(120) { Some(random.below(index)) } else { None };
            tasks.push(Spec {
                job,
                slots: if has_wide && random.chance(150) { random.between(2, i64::from(slots)) as u32 } else { 1 },
                retries_max: [0, 0, 1, 2][random.below(4)],
                fails: if random.chance(250) { 500 } else { 0 },
                kills: if is_poisonous && !is_calm && random.chance(60) { 900 } else { 0 },
                run_ms: match random.below(8) {
                    0 if !is_short => random.between(20_000, 50_000),
                    1..=3 => random.between(500, 5_000),
                    _ => random.between(5, 300),
                },
                files: if random.chance(400) { random.between(1, 3) as u32 } else { 0 },
                depends_on: earlier.filter(|earlier| tasks[*earlier].job == job),
            });
        }
        let has_chores = random.chance(500);
        let chores = jobs.iter().map(|_| (has_chores && random.chance(700)).then(|| Chores::draw(random, is_calm))).collect();
        let quiet_at = random.between(60_000, 240_000);
        let rates = if is_calm { Rates::default() } else { Rates::draw(random) };
        let mut plan =
            Plan { nodes, slots, is_staged: random.chance(700), is_calm, tasks, jobs, chores, rates, troubles: Vec::new(), quiet_at };
        plan.draw_troubles(random);
        plan
    }

    fn draw_troubles(&mut self, random: &mut Random) {
        let kinds = 1 + random.below(16);
        let count = random.between(2, 16);
        for _ in 0..count {
            let at = random.between(500, self.quiet_at);
            let kind = random.below(if self.is_calm { 8 } else { kinds + 6 });
            let trouble = match if self.is_calm && kind > 5 { kind + 11 } else { kind } {
                0 | 1 => Trouble::Cancel,
                2 => Trouble::Delete,
                3 => Trouble::JobChanged(random.between(-2, 2) as i32, [-1, 1, 3, 10][random.below(4)]),
                4 => Trouble::NodeAdded,
                5 => Trouble::JobDisabled(random.below(3) as u8, random.between(1_000, 60_000)),
                6 => Trouble::AgentDies { stays_away: random.chance(300) },
                7 => Trouble::DispatcherDies,
                8 => Trouble::Cut(random.between(1_000, 150_000)),
                9 => Trouble::Pause(random.between(1_000, 150_000), random.chance(500)),
                10 => Trouble::BrokerRestarts,
                11 => Trouble::Purge,
                12 => Trouble::Drain(
                    [DeallocationOption::Requeue, DeallocationOption::Terminate, DeallocationOption::TaskCompletion][random.below(3)],
                ),
                13 => Trouble::NodeRemoved,
                14 => Trouble::Hold(random.between(1_000, 60_000)),
                15 => Trouble::EventsPurged,
                16 => Trouble::Cut(random.between(61_000, 200_000)),
                17 => Trouble::JobTerminated,
                18 => Trouble::JobDeleted,
                19 => Trouble::Turn(draw_turn(random)),
                _ => Trouble::Deaf(random.between(40_000, 120_000)),
            };
            self.troubles.push((at, trouble));
        }
        // A release is worth looking at in every world that may have one.
        for (job, _) in self.chores.iter().enumerate().filter(|(_, chores)| chores.is_some_and(|chores| chores.release_ms.is_some())) {
            if random.chance(600) {
                self.troubles.push((random.between(self.quiet_at / 3, self.quiet_at), Trouble::JobEnds(job, random.chance(400))));
            }
        }
        // A failed task is rare at any one moment: people try often.
        for _ in 0..[0, 0, 10, 40][random.below(4)] {
            self.troubles.push((random.between(self.quiet_at / 3, self.quiet_at), Trouble::Reactivated));
        }
    }
}

impl Chores {
    /// The same for the rules.
    pub fn rules(self) -> Rules {
        Rules { waits: self.waits, reruns: self.reruns, release_ms: self.release_ms }
    }

    fn draw(random: &mut Random, is_calm: bool) -> Chores {
        Chores {
            waits: random.chance(750),
            reruns: random.chance(600),
            fails: [0, 0, 300, 800][random.below(4)],
            kills: if is_calm { 0 } else { [0, 0, 100, 700][random.below(4)] },
            ms: if random.chance(300) { random.between(5_000, 40_000) } else { random.between(10, 2_000) },
            release_ms: random.chance(700).then(|| random.between(30_000, 600_000)),
        }
    }
}

fn draw_turn(random: &mut Random) -> Turn {
    let options = [DeallocationOption::Requeue, DeallocationOption::Terminate, DeallocationOption::TaskCompletion];
    let (option, since) = (options[random.below(3)], Epoch(0));
    [Turn::Reboot { option, since }, Turn::Reimage { option, since }, Turn::Deallocate { option }][random.below(3)]
}

impl Rates {
    fn draw(random: &mut Random) -> Rates {
        let mut rate = |often: u32, most: i64| if random.chance(often) { random.between(1, most) as u32 } else { 0 };
        Rates {
            lose: rate(400, 60),
            duplicate: rate(400, 150),
            reorder: rate(500, 400),
            unconfirmed: rate(400, 200),
            refuse: rate(300, 200),
            mute: rate(500, 200),
            slow: rate(600, 150),
            crash: rate(400, 15),
        }
    }
}
