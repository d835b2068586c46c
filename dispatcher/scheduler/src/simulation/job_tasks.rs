//! The job tasks of the model agents: preparations that runs wait for, and releases after them.

use contract::{
    ids::{JobUid, RunKey},
    message::AgentEvent,
    outcome::{JobTaskEnd, JobTaskKey, JobTaskKind, Outcome},
    time::Timestamp,
};

use crate::simulation::{
    agent::{Mail, TELL_AGAIN_MS},
    checker::{Fact, Place},
    world::World,
};

/// The newest job task of a kind that an agent knows of a job.
#[derive(Debug)]
pub struct JobTask {
    key: JobTaskKey,
    started_at: Timestamp,
    /// How it ended, once it has.
    end: Option<Box<JobTaskEnd>>,
    told_at: i64,
    is_over: bool,
}

impl JobTask {
    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.end.is_none()
    }

    /// What a heartbeat says of it.
    pub fn shown(&self) -> Option<JobTaskKey> {
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
    pub fn is_released_here(&self, agent: usize, run: &RunKey, preparation: Option<JobTaskKey>) -> bool {
        let Some(job) = self.job_of(run) else { return false };
        let known = |kind| self.agents[agent].job_tasks.get(&(job, kind)).map(|job_task| job_task.key.number);
        let prepared = preparation.map(|key| key.number).max(known(JobTaskKind::Preparation));
        known(JobTaskKind::Release).is_some_and(|released| prepared.is_none_or(|prepared| prepared <= released))
    }

    /// A run may begin, after or beside a preparation.
    pub fn start_prepared(&mut self, agent: usize, run: RunKey, key: JobTaskKey) {
        let known = self.agents[agent].job_tasks.get(&(key.job, JobTaskKind::Preparation)).map(|job_task| job_task.key.number);
        if known.is_none_or(|number| number < key.number) {
            self.begin_job_task(agent, key);
        }
        if !self.job_tasks_of(key.job).is_some_and(|job_tasks| job_tasks.waits) {
            return self.start_run(agent, run);
        }
        self.wait_run(agent, run);
        let job_task = &self.agents[agent].job_tasks[&(key.job, JobTaskKind::Preparation)];
        if let Some(end) = job_task.end.clone() {
            self.go_on(agent, run, end);
        }
    }

    /// The preparation of a waiting run has ended.
    fn go_on(&mut self, agent: usize, run: RunKey, end: Box<JobTaskEnd>) {
        self.agents[agent].runs.remove(&run.run);
        if end.has_succeeded() {
            return self.start_run(agent, run);
        }
        self.wait_run(agent, run);
        self.finish(agent, run.run, Outcome::Unprepared(end));
    }

    /// What the plan says of a job.
    pub fn job_tasks_of(&self, job: JobUid) -> Option<crate::simulation::plan::JobTasks> {
        self.plan.job_tasks.get(job.0 as usize - 1).copied().flatten()
    }

    fn begin_job_task(&mut self, agent: usize, key: JobTaskKey) {
        let Some(job_tasks) = self.job_tasks_of(key.job) else { return };
        let started_at = self.clock(agent);
        self.agents[agent].job_tasks.insert((key.job, key.kind), JobTask { key, started_at, end: None, told_at: 0, is_over: false });
        let runs = self.agents[agent].runs.values().filter(|run| run.has_begun() && self.job_of(&run.key) == Some(key.job)).count();
        if let Some(place) = self.place(agent) {
            self.observe(Fact::JobTaskBegan { key, place, runs });
        }
        self.timer(agent, job_tasks.ms, Mail::JobTaskNow(key));
        if key.kind == JobTaskKind::Preparation && !self.is_quiet && self.random.chance(job_tasks.kills) {
            self.timer(agent, job_tasks.ms / 2, Mail::Die);
        }
    }

    /// A job task has run for its time.
    pub fn on_job_task(&mut self, agent: usize, key: JobTaskKey) {
        let Some(job_tasks) = self.job_tasks_of(key.job) else { return };
        let fails = job_tasks.fails > 1_000 || (!self.is_quiet && self.random.chance(job_tasks.fails));
        self.end_job_task(agent, key, Outcome::Exit { code: i32::from(fails) });
    }

    fn end_job_task(&mut self, agent: usize, key: JobTaskKey, outcome: Outcome) {
        let ended_at = self.clock(agent);
        let Some(job_task) =
            self.agents[agent].job_tasks.get_mut(&(key.job, key.kind)).filter(|job_task| job_task.key == key && job_task.is_running())
        else {
            return;
        };
        let end = Box::new(JobTaskEnd { key, started_at: job_task.started_at, ended_at, outcome, retries: 0, retried_at: None });
        job_task.end = Some(end.clone());
        self.mark(match (key.kind, end.has_succeeded()) {
            (JobTaskKind::Preparation, true) => "prepared",
            (JobTaskKind::Preparation, false) => "not prepared",
            (JobTaskKind::Release, _) => "released",
        });
        if let Some(place) = self.place(agent) {
            self.observe(Fact::JobTaskEnded { key, place, has_succeeded: end.has_succeeded() });
        }
        self.tell_job_task(agent, key);
        if key.kind == JobTaskKind::Preparation {
            let runs = self.agents[agent].runs.values().filter(|run| !run.has_begun()).map(|run| run.key);
            let waiting: Vec<RunKey> = runs.filter(|run| self.job_of(run) == Some(key.job)).collect();
            for run in waiting {
                self.go_on(agent, run, end.clone());
            }
        }
    }

    fn tell_job_task(&mut self, agent: usize, key: JobTaskKey) {
        let now = self.now;
        let job_task = self.agents[agent].job_tasks.get_mut(&(key.job, key.kind));
        if let Some(job_task) = job_task
            && let Some(end) = job_task.end.clone()
        {
            job_task.told_at = now;
            self.tell(agent, AgentEvent::JobTask(end));
        }
    }

    /// Ends that nobody has answered are told again: all of them, or those that waited long enough.
    pub fn tell_job_tasks(&mut self, agent: usize, everything: bool) {
        let late = self.now - TELL_AGAIN_MS;
        let is_due = |job_task: &&JobTask| !job_task.is_over && !job_task.is_running() && (everything || job_task.told_at <= late);
        let due: Vec<JobTaskKey> = self.agents[agent].job_tasks.values().filter(is_due).map(|job_task| job_task.key).collect();
        due.into_iter().for_each(|key| self.tell_job_task(agent, key));
    }

    /// What the answer to a heartbeat says of job tasks.
    pub fn on_job_tasks(&mut self, agent: usize, over: Vec<JobTaskKey>, releases: Vec<JobTaskKey>) {
        for key in over {
            self.end_job_task(agent, key, Outcome::Stopped);
            let job_task = self.agents[agent].job_tasks.get_mut(&(key.job, key.kind)).filter(|job_task| job_task.key == key);
            if let Some(job_task) = job_task {
                job_task.is_over = true;
            }
        }
        for key in releases {
            let known = self.agents[agent].job_tasks.get(&(key.job, JobTaskKind::Release)).map(|job_task| job_task.key.number);
            if known.is_some_and(|number| number >= key.number) {
                continue;
            }
            let mut runs: Vec<RunKey> = self.agents[agent].runs.values().map(|run| run.key).collect();
            runs.retain(|run| self.job_of(run) == Some(key.job));
            for run in runs {
                self.finish(agent, run.run, Outcome::Stopped);
            }
            self.begin_job_task(agent, key);
        }
    }

    /// The agent ends what it does for jobs, because it has to leave.
    pub fn stop_job_tasks(&mut self, agent: usize) {
        let running: Vec<JobTaskKey> =
            self.agents[agent].job_tasks.values().filter(|job_task| job_task.is_running()).map(|job_task| job_task.key).collect();
        running.into_iter().for_each(|key| self.end_job_task(agent, key, Outcome::Stopped));
    }
}
