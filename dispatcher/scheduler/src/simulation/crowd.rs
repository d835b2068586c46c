//! Crowds: calm worlds with far more work than slots, and tasks of several slots among it that must not starve.

use crate::{
    KEEP_MS, Timers,
    simulation::{
        plan::{Faulty, JobTasks, Plan, Rates, Spec, Trouble},
        random::Random,
    },
};

/// Two heartbeats, a tick and everything under way between the end of one task and the start of the next in a calm world.
const TURN_MS: i64 = 12_000;
/// In a crowd a task that runs for this long outlasts a keep and the rest after it.
const ENDLESS_MS: i64 = 2_000_000;
/// Where this is the rate of failing preparations, they fail to the end of the world.
const ALWAYS: u32 = 1_001;

impl Plan {
    /// Tasks of all lengths for a few nodes, which are never idle, and some of several slots in a job that goes first.
    pub fn crowd(random: &mut Random) -> Plan {
        let (nodes, slots) = (random.between(1, 3), random.between(2, 4) as u32);
        let longest = random.between(2_000, 60_000);
        let mut tasks = Vec::new();
        for _ in 0..random.between(2, 5) {
            tasks.push(Spec { slots: random.between(2, slots.into()) as u32, run_ms: random.between(10, longest), ..Spec::plain(0) });
        }
        let mut work_ms = 0;
        while work_ms < 400_000 * nodes * i64::from(slots) && tasks.len() < 400 {
            let run_ms = if random.chance(300) { random.between(10, longest) } else { random.between(longest / 2, longest) };
            work_ms += run_ms;
            tasks.push(Spec { run_ms, ..Spec::plain(1) });
        }
        let jobs = vec![(random.between(0, 1) as i32, -1), (0, -1)];
        let (nodes, job_tasks) = (nodes as usize, vec![None, None]);
        let mut plan = Plan {
            nodes,
            slots,
            is_staged: true,
            is_calm: true,
            is_crowded: true,
            tasks,
            jobs,
            job_tasks,
            rates: Rates::default(),
            troubles: Vec::new(),
            quiet_at: 60_000,
            faulty: Faulty::default(),
        };
        for _ in 0..random.below(3) {
            plan.troubles.push((random.between(30_000, 200_000), [Trouble::Cancel, Trouble::Delete][random.below(2)]));
        }
        match random.below(4) {
            0 => plan.crowd_beside_endless(random),
            1 => plan.crowd_beside_unfit(random),
            _ => {}
        }
        plan
    }

    /// One node of two has a task that outlasts a keep of its node.
    fn crowd_beside_endless(&mut self, random: &mut Random) {
        (self.nodes, self.slots, self.quiet_at) = (2, 2, 1_900_000);
        self.jobs.push((2, -1));
        self.troubles.clear();
        self.tasks = (0..random.between(2, 3)).map(|_| Spec { slots: 2, run_ms: random.between(10, 40_000), ..Spec::plain(0) }).collect();
        self.tasks.push(Spec { run_ms: ENDLESS_MS, ..Spec::plain(2) });
        let mut work_ms = 0;
        while work_ms < ENDLESS_MS * 4 {
            let run_ms = random.between(20_000, 60_000);
            work_ms += run_ms;
            self.tasks.push(Spec { run_ms, ..Spec::plain(1) });
        }
        self.job_tasks = vec![None; self.jobs.len()];
    }

    /// The first job in line has a task of several slots that no node may run, since its preparation fails on all of them.
    fn crowd_beside_unfit(&mut self, random: &mut Random) {
        // Wide enough that they never run by chance, and few enough that the window has room for the crowd.
        (self.nodes, self.slots, self.quiet_at) = (3, 4, 600_000);
        self.jobs.push((2, -1));
        self.troubles.clear();
        self.tasks = vec![Spec { slots: 4, ..Spec::plain(2) }];
        self.tasks.extend(vec![Spec::plain(2); 8]);
        self.tasks.push(Spec { slots: 4, run_ms: random.between(10, 4_000), ..Spec::plain(0) });
        let mut work_ms = 0;
        while work_ms < self.quiet_at * i64::from(self.slots) * self.nodes as i64 {
            let run_ms = random.between(8_000, 16_000);
            work_ms += run_ms;
            self.tasks.push(Spec { run_ms, ..Spec::plain(1) });
        }
        let fails = JobTasks { waits: true, reruns: false, fails: ALWAYS, kills: 0, ms: 14_000, release_ms: None };
        self.job_tasks = vec![None, None, Some(fails)];
        self.troubles.push((self.quiet_at - 5_000, Trouble::JobEnds(2, false)));
    }

    /// In a crowd: how long an attempt of several slots may wait, and how long a node may be kept for one.
    pub fn wide_ms_max(&self) -> Option<(i64, i64)> {
        let preparations = self.job_tasks.iter().flatten().map(|job_tasks| job_tasks.ms);
        let longest = self.tasks.iter().map(|task| task.run_ms).chain(preparations).filter(|ms| *ms < ENDLESS_MS).max();
        let longest = longest.unwrap_or_default() + TURN_MS;
        // A task whose preparation fails may have each node kept for it until it has failed there.
        let keeps = |task: &Spec| if self.job_tasks[task.job].is_some() { self.nodes as i64 } else { 1 };
        let wide: i64 = self.tasks.iter().filter(|task| task.slots > 1).map(keeps).sum();
        let has_endless = self.tasks.iter().any(|task| task.run_ms >= ENDLESS_MS);
        // One keep is in vain there, and its node works for as long after it.
        let (vain_ms, kept_ms) = if has_endless { (2 * (KEEP_MS + TURN_MS), KEEP_MS + TURN_MS) } else { (0, longest) };
        self.is_crowded.then(|| (Timers::default().aged_ms + wide * longest + vain_ms, kept_ms))
    }
}

impl Spec {
    /// One slot, no files, and it ends well.
    fn plain(job: usize) -> Spec {
        Spec { job, slots: 1, retries_max: 0, fails: 0, kills: 0, run_ms: 1, files: 0, depends_on: None }
    }
}
