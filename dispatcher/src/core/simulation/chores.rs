//! The chores of the model agents: preparations that runs wait for, and releases after them.

use broker_config::{
    chore::{ChoreEnd, ChoreKey, ChoreKind},
    ids::{JobUid, RunKey},
    message::{AgentEvent, Outcome},
    time::Timestamp,
};

use crate::core::simulation::{
    agent::{Mail, TELL_AGAIN_MS},
    checker::{Fact, Place},
    world::World,
};

/// The newest chore of a kind that an agent knows of a job.
#[derive(Debug)]
pub struct Chore {
    key: ChoreKey,
    started_at: Timestamp,
    /// How it ended, once it has.
    end: Option<Box<ChoreEnd>>,
    told_at: i64,
    is_over: bool,
}

impl Chore {
    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.end.is_none()
    }

    /// What a beat says of it.
    pub fn shown(&self) -> Option<ChoreKey> {
        (!self.is_over).then_some(self.key)
    }
}

impl World {
    /// The job of a run.
    pub fn job_of(&self, run: &RunKey) -> Option<JobUid> {
        let name = self.rows.names.iter().find(|(_, uid)| **uid == run.uid).map(|(name, _)| *name)?;
        Some(World::job(self.plan.tasks[name].job))
    }

    /// Where a process is, unless a newer one has its node.
    pub fn place(&self, agent: usize) -> Option<Place> {
        let facts = &self.agents[agent];
        let node = self.rows.nodes.get(&facts.node).filter(|row| Some(row.epoch) == facts.epoch);
        node.map(|_| Place { node: facts.node.clone(), process: agent, folder: self.folders.get(&facts.node).copied().unwrap_or_default() })
    }

    /// Whether the job was released here after its last preparation: an answer on the way is too late.
    pub fn is_released_here(&self, agent: usize, run: &RunKey, preparation: Option<ChoreKey>) -> bool {
        let Some(job) = self.job_of(run) else { return false };
        let known = |kind| self.agents[agent].chores.get(&(job, kind)).map(|chore| chore.key.number);
        let prepared = preparation.map(|key| key.number).max(known(ChoreKind::Preparation));
        known(ChoreKind::Release).is_some_and(|released| prepared.is_none_or(|prepared| prepared <= released))
    }

    /// A run may begin, after or beside a preparation.
    pub fn start_prepared(&mut self, agent: usize, run: RunKey, key: ChoreKey) {
        let known = self.agents[agent].chores.get(&(key.job, ChoreKind::Preparation)).map(|chore| chore.key.number);
        if known.is_none_or(|number| number < key.number) {
            self.begin_chore(agent, key);
        }
        if !self.chores_of(key.job).is_some_and(|chores| chores.waits) {
            return self.start_run(agent, run);
        }
        self.wait_run(agent, run);
        let chore = &self.agents[agent].chores[&(key.job, ChoreKind::Preparation)];
        if let Some(end) = chore.end.clone() {
            self.go_on(agent, run, end);
        }
    }

    /// The preparation of a waiting run has ended.
    fn go_on(&mut self, agent: usize, run: RunKey, end: Box<ChoreEnd>) {
        self.agents[agent].runs.remove(&run.run);
        if end.has_succeeded() {
            return self.start_run(agent, run);
        }
        self.wait_run(agent, run);
        self.finish(agent, run.run, Outcome::Unprepared(end));
    }

    /// What the plan says of a job.
    pub fn chores_of(&self, job: JobUid) -> Option<crate::core::simulation::plan::Chores> {
        self.plan.chores.get(job.0 as usize - 1).copied().flatten()
    }

    fn begin_chore(&mut self, agent: usize, key: ChoreKey) {
        let Some(chores) = self.chores_of(key.job) else { return };
        let started_at = self.clock(agent);
        self.agents[agent].chores.insert((key.job, key.kind), Chore { key, started_at, end: None, told_at: 0, is_over: false });
        let runs = self.agents[agent].runs.values().filter(|run| run.has_begun() && self.job_of(&run.key) == Some(key.job)).count();
        if let Some(place) = self.place(agent) {
            self.observe(Fact::ChoreBegan { key, place, runs });
        }
        self.timer(agent, chores.ms, Mail::ChoreNow(key));
        if key.kind == ChoreKind::Preparation && !self.is_quiet && self.random.chance(chores.kills) {
            self.timer(agent, chores.ms / 2, Mail::Die);
        }
    }

    /// A chore has run for its time.
    pub fn on_chore(&mut self, agent: usize, key: ChoreKey) {
        let Some(chores) = self.chores_of(key.job) else { return };
        let fails = !self.is_quiet && self.random.chance(chores.fails);
        self.end_chore(agent, key, Outcome::Exit { code: i32::from(fails) });
    }

    fn end_chore(&mut self, agent: usize, key: ChoreKey, outcome: Outcome) {
        let ended_at = self.clock(agent);
        let Some(chore) = self.agents[agent].chores.get_mut(&(key.job, key.kind)).filter(|chore| chore.key == key && chore.is_running())
        else {
            return;
        };
        let end = Box::new(ChoreEnd { key, started_at: chore.started_at, ended_at, outcome, retries: 0, retried_at: None });
        chore.end = Some(end.clone());
        self.mark(match (key.kind, end.has_succeeded()) {
            (ChoreKind::Preparation, true) => "prepared",
            (ChoreKind::Preparation, false) => "not prepared",
            (ChoreKind::Release, _) => "released",
        });
        if let Some(place) = self.place(agent) {
            self.observe(Fact::ChoreEnded { key, place, has_succeeded: end.has_succeeded() });
        }
        self.tell_chore(agent, key);
        if key.kind == ChoreKind::Preparation {
            let runs = self.agents[agent].runs.values().filter(|run| !run.has_begun()).map(|run| run.key);
            let waiting: Vec<RunKey> = runs.filter(|run| self.job_of(run) == Some(key.job)).collect();
            for run in waiting {
                self.go_on(agent, run, end.clone());
            }
        }
    }

    fn tell_chore(&mut self, agent: usize, key: ChoreKey) {
        let now = self.now;
        let chore = self.agents[agent].chores.get_mut(&(key.job, key.kind));
        if let Some(chore) = chore
            && let Some(end) = chore.end.clone()
        {
            chore.told_at = now;
            self.tell(agent, AgentEvent::Chore(end));
        }
    }

    /// Ends that nobody has answered are told again: all of them, or those that waited long enough.
    pub fn tell_chores(&mut self, agent: usize, everything: bool) {
        let late = self.now - TELL_AGAIN_MS;
        let is_due = |chore: &&Chore| !chore.is_over && !chore.is_running() && (everything || chore.told_at <= late);
        let due: Vec<ChoreKey> = self.agents[agent].chores.values().filter(is_due).map(|chore| chore.key).collect();
        due.into_iter().for_each(|key| self.tell_chore(agent, key));
    }

    /// What the answer to a beat says of chores.
    pub fn on_chores(&mut self, agent: usize, over: Vec<ChoreKey>, releases: Vec<ChoreKey>) {
        for key in over {
            self.end_chore(agent, key, Outcome::Stopped);
            let chore = self.agents[agent].chores.get_mut(&(key.job, key.kind)).filter(|chore| chore.key == key);
            if let Some(chore) = chore {
                chore.is_over = true;
            }
        }
        for key in releases {
            let known = self.agents[agent].chores.get(&(key.job, ChoreKind::Release)).map(|chore| chore.key.number);
            if known.is_some_and(|number| number >= key.number) {
                continue;
            }
            let mut runs: Vec<RunKey> = self.agents[agent].runs.values().map(|run| run.key).collect();
            runs.retain(|run| self.job_of(run) == Some(key.job));
            for run in runs {
                self.finish(agent, run.run, Outcome::Stopped);
            }
            self.begin_chore(agent, key);
        }
    }

    /// The agent ends what it does for jobs, because it has to leave.
    pub fn stop_chores(&mut self, agent: usize) {
        let running: Vec<ChoreKey> = self.agents[agent].chores.values().filter(|chore| chore.is_running()).map(|chore| chore.key).collect();
        running.into_iter().for_each(|key| self.end_chore(agent, key, Outcome::Stopped));
    }
}
