//! What a seed means: the size of the world, the work of its users, and what goes wrong.

use contract::{ids::Epoch, state::DeallocationOption};
use model::{job_tasks::Rules, node::NodeAction};

use crate::simulation::random::Random;

/// Everything that is drawn before the first event.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Nodes at the start.
    pub nodes: usize,
    /// Slots of each.
    pub slots: u32,
    /// Whether outputs are staged per attempt, or written to their final place.
    pub is_staged: bool,
    /// Nothing goes wrong but the clocks, and the dispatcher may stand still or everything end at once.
    pub is_calm: bool,
    /// Calm, and far more tasks of one slot than the nodes can run for a while, with a few of several slots among them.
    pub is_crowded: bool,
    /// What each task is like.
    pub tasks: Vec<Spec>,
    /// Jobs, with priority and limit.
    pub jobs: Vec<(i32, i32)>,
    /// What each job asks of nodes around its tasks.
    pub job_tasks: Vec<Option<JobTasks>>,
    /// Nodes whose runs end by their own fault until nothing goes wrong any more: the first so many of each few.
    pub faulty: Faulty,
    /// Rates, per mille.
    pub rates: Rates,
    /// Single events that go wrong, with their times.
    pub troubles: Vec<(i64, Trouble)>,
    /// From here on nothing goes wrong any more.
    pub quiet_at: i64,
}

/// What a job asks of nodes around its tasks.
#[derive(Debug, Clone, Copy)]
pub struct JobTasks {
    /// Tasks wait for the preparation's success.
    pub waits: bool,
    /// The preparation runs again after a newer start of the agent.
    pub reruns: bool,
    /// How often it exits non-zero, per mille; with more than a thousand also where nothing goes wrong any more.
    pub fails: u32,
    /// How often it takes its agent along, per mille.
    pub kills: u32,
    /// How long a job task runs.
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
    pub files: u32,
    /// The task that must succeed first.
    pub depends_on: Option<usize>,
}

/// Which nodes are faulty.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faulty {
    /// The nodes with numbers up to this.
    pub nodes: usize,
    /// How many of their runs end by their fault, per mille.
    pub rate: u32,
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
    /// A question, answer, heartbeat or control message is lost.
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
    /// A node's heartbeats are lost, and nothing else.
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
    NodeAction(NodeAction),
    /// A node is added.
    NodeAdded,
    /// The dispatcher reads no events for so long, though it reads all else.
    EventsBehind(i64),
    /// The pool loses all nodes, and gets as many with other slots.
    Resized(u32),
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
    /// Everything ends at one moment, as on one machine, and is started again.
    AllDie,
    /// Somebody who is not the run's node tells that a run ended well.
    Forged,
    /// The dispatcher's wall clock is set, forth or back.
    ClockSet(i64),
    /// The dispatcher stands still: suspended, stopped, or its disk does not answer.
    StandsStill(i64),
}

impl Plan {
    /// Draws the plan of a seed.
    pub fn draw(random: &mut Random) -> Plan {
        // Drawn apart, so that all other worlds stay what they were.
        let mut apart = random.clone();
        if apart.chance(60) {
            return Plan::crowd(&mut apart);
        }
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
                retries_max: [0, 0, 1, 4][random.below(4)],
                fails: if random.chance(250) { 500 } else { 0 },
                kills: if is_poisonous && !is_calm && random.chance(60) { 900 } else { 0 },
                run_ms: match random.below(8) {
                    0 if !is_short => random.between(20_000, 120_000),
                    1..=3 => random.between(500, 5_000),
                    _ => random.between(5, 300),
                },
                files: if random.chance(400) { random.between(1, 3) as u32 } else { 0 },
                depends_on: earlier.filter(|earlier| tasks[*earlier].job == job),
            });
        }
        let has_job_tasks = random.chance(500);
        let job_tasks = jobs.iter().map(|_| (has_job_tasks && random.chance(700)).then(|| JobTasks::draw(random, is_calm))).collect();
        let quiet_at = random.between(60_000, 240_000);
        let rates = if is_calm { Rates::default() } else { Rates::draw(random) };
        let mut plan = Plan {
            nodes,
            slots,
            is_staged: random.chance(700),
            is_calm,
            is_crowded: false,
            tasks,
            jobs,
            job_tasks,
            rates,
            troubles: Vec::new(),
            quiet_at,
            faulty: Faulty::default(),
        };
        plan.draw_troubles(random);
        // Drawn apart as well.
        let mut apart = random.clone();
        if !is_calm && apart.chance(200) {
            plan.faulty = Faulty { nodes: apart.between(1, 4) as usize, rate: [300, 1_000][apart.below(2)] };
            if apart.chance(300) {
                (plan.nodes, plan.faulty) = (6, Faulty { nodes: 6, rate: 1_000 });
            }
        }
        if !is_calm && apart.chance(200) {
            // A node that is drained meanwhile has told all its ends before they are read.
            let (at, ms) = (apart.between(1_000, quiet_at / 2), apart.between(5_000, 40_000));
            plan.troubles.push((at, Trouble::EventsBehind(ms)));
            plan.troubles.push((at + apart.between(0, ms / 2), Trouble::Drain(DeallocationOption::TaskCompletion)));
        }
        if !is_calm && has_wide && apart.chance(250) {
            let at = apart.between(1_000, quiet_at / 2);
            plan.troubles.push((at, Trouble::Resized(apart.between(1, i64::from(slots)) as u32)));
        }
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
                19 => Trouble::NodeAction(draw_action(random)),
                _ => Trouble::Deaf(random.between(40_000, 120_000)),
            };
            self.troubles.push((at, trouble));
        }
        // A release is worth looking at in every world that may have one.
        for (job, _) in
            self.job_tasks.iter().enumerate().filter(|(_, job_tasks)| job_tasks.is_some_and(|job_tasks| job_tasks.release_ms.is_some()))
        {
            if random.chance(600) {
                self.troubles.push((random.between(self.quiet_at / 3, self.quiet_at), Trouble::JobEnds(job, random.chance(400))));
            }
        }
        for _ in 0..[0, 0, 1, 3][random.below(4)] {
            let trouble = match random.chance(500) {
                true => Trouble::ClockSet(random.between(-7_200_000, 7_200_000)),
                false => Trouble::StandsStill(random.between(2_000, 150_000)),
            };
            self.troubles.push((random.between(500, self.quiet_at), trouble));
        }
        for _ in 0..[0, 0, 0, 4][random.below(4)] {
            self.troubles.push((random.between(500, self.quiet_at), Trouble::Forged));
        }
        for _ in 0..[0, 0, 0, 7][random.below(4)] {
            self.troubles.push((random.between(500, self.quiet_at), Trouble::AllDie));
        }
        // A failed task is rare at any one moment: people try often.
        for _ in 0..[0, 0, 10, 40][random.below(4)] {
            self.troubles.push((random.between(self.quiet_at / 3, self.quiet_at), Trouble::Reactivated));
        }
    }
}

impl JobTasks {
    /// The same for the rules.
    pub fn rules(self) -> Rules {
        Rules { waits: self.waits, reruns: self.reruns, release_ms: self.release_ms }
    }

    fn draw(random: &mut Random, is_calm: bool) -> JobTasks {
        JobTasks {
            waits: random.chance(750),
            reruns: random.chance(600),
            fails: [0, 0, 300, 800][random.below(4)],
            kills: if is_calm { 0 } else { [0, 0, 100, 700][random.below(4)] },
            ms: if random.chance(300) { random.between(5_000, 40_000) } else { random.between(10, 2_000) },
            release_ms: random.chance(700).then(|| random.between(30_000, 600_000)),
        }
    }
}

fn draw_action(random: &mut Random) -> NodeAction {
    let options = [DeallocationOption::Requeue, DeallocationOption::Terminate, DeallocationOption::TaskCompletion];
    let (option, since) = (options[random.below(3)], Epoch(0));
    [NodeAction::Reboot { option, since }, NodeAction::Reimage { option, since }, NodeAction::Deallocate { option }][random.below(3)]
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
