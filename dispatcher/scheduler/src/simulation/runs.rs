//! The runs of the model agents: computing, asking, writing files, ending.

use contract::{
    ids::{Epoch, NodeId, RunId, RunKey},
    message::{AgentEvent, Finished, Started, Verdict},
    outcome::{Fault, Outcome, Stream, Usage},
    time::Timestamp,
};

use crate::simulation::{
    agent::{ASK_AGAIN_MS, Mail},
    broker::Told,
    checker::Fact,
    dispatcher::Input,
    rows::TaskRow,
    world::{What, World},
};

/// The number in a node's name.
fn number_of(node: &NodeId) -> usize {
    node.as_str().trim_start_matches("node-").parse().unwrap()
}

/// An execution under way.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    pub key: RunKey,
    started_at: Timestamp,
    /// Since when its agent has listed it.
    pub listed_since: i64,
    exit: i32,
    step: Step,
    turn: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Waiting,
    Computing,
    Asking,
    Writing(u32),
}

impl Run {
    /// Whether it does not wait for a preparation.
    pub fn has_begun(&self) -> bool {
        self.step != Step::Waiting
    }
}

/// An end that is not known to be recorded.
#[derive(Debug, Clone)]
pub struct Kept {
    pub finished: Box<Finished>,
    pub told_at: i64,
    /// The broker has its end.
    pub is_confirmed: bool,
}

impl World {
    /// A run waits for its job's preparation.
    pub fn wait_run(&mut self, agent: usize, key: RunKey) {
        let started_at = self.clock(agent);
        let listed_since = self.now;
        self.agents[agent].runs.insert(key.run, Run { key, started_at, listed_since, exit: 0, step: Step::Waiting, turn: 0 });
    }

    /// A run begins.
    pub fn start_run(&mut self, agent: usize, key: RunKey) {
        let Some(name) = self.rows.names.iter().find(|(_, uid)| **uid == key.uid).map(|(name, _)| *name) else { return };
        let spec = self.plan.tasks[name];
        let exit = i32::from(self.random.chance(spec.fails));
        let started_at = self.clock(agent);
        let listed_since = self.now;
        self.agents[agent].runs.insert(key.run, Run { key, started_at, listed_since, exit, step: Step::Computing, turn: 0 });
        let started = Started { uid: key.uid, attempt: key.attempt, fence: key.fence, run: key.run, at: started_at };
        if let (Some(place), Some(job_tasks)) = (self.place(agent), self.job_tasks_of(World::job(spec.job))) {
            self.observe(Fact::RunBegan { run: key, job: World::job(spec.job), place, waits: job_tasks.waits, reruns: job_tasks.reruns });
        }
        self.tell(agent, AgentEvent::Started(started));
        self.timer(agent, spec.run_ms, Mail::RunNow(key.run, 0));
        let is_faulty = self.plan.faulty.nodes >= number_of(&self.agents[agent].node);
        if is_faulty && !self.is_quiet && self.random.chance(self.plan.faulty.rate) {
            let fault = Fault { code: "NodeError".to_owned(), message: "the node is broken".to_owned(), details: vec![] };
            return self.finish(agent, key.run, Outcome::Node(fault));
        }
        if !self.is_quiet && self.random.chance(spec.kills) {
            self.timer(agent, spec.run_ms / 2, Mail::Die);
        }
    }

    /// Its next step is due.
    pub fn on_run(&mut self, agent: usize, id: RunId, turn: u32) {
        let Some(run) = self.agents[agent].runs.get(&id).copied().filter(|run| run.turn == turn) else { return };
        let name = self.rows.names.iter().find(|(_, uid)| **uid == run.key.uid).map(|(name, _)| *name);
        let files = name.map_or(0, |name| self.plan.tasks[name].files);
        match run.step {
            Step::Waiting => {}
            Step::Computing if run.exit == 0 && files > 0 => self.step_run(agent, id, Step::Asking, 0),
            Step::Computing => self.finish(agent, id, Outcome::Exit { code: run.exit }),
            Step::Asking => {
                let facts = &self.agents[agent];
                if let Some(epoch) = facts.epoch {
                    let input = Input::MayPublish { from: (agent, facts.connection), run: run.key, node: facts.node.clone(), epoch };
                    self.ask_dispatcher(agent, input);
                }
                self.step_run(agent, id, Step::Asking, ASK_AGAIN_MS);
            }
            Step::Writing(file) if file < files => {
                let place = if self.plan.is_staged { run.key.attempt } else { 0 };
                self.blobs.entry((run.key.uid, place)).or_default().insert(file, id);
                let ms = self.random.between(1, 400);
                self.step_run(agent, id, Step::Writing(file + 1), ms);
            }
            Step::Writing(_) => self.finish(agent, id, Outcome::Exit { code: 0 }),
        }
    }

    fn step_run(&mut self, agent: usize, id: RunId, step: Step, ms: i64) {
        if let Some(run) = self.agents[agent].runs.get_mut(&id) {
            (run.step, run.turn) = (step, run.turn + 1);
            let turn = run.turn;
            self.timer(agent, ms, Mail::RunNow(id, turn));
        }
    }

    /// It may upload, or may not.
    pub fn on_may_publish(&mut self, agent: usize, id: RunId, allowed: bool) {
        if self.agents[agent].runs.get(&id).is_none_or(|run| run.step != Step::Asking) {
            return;
        }
        if allowed { self.step_run(agent, id, Step::Writing(0), 1) } else { self.on_verdict(agent, id, Verdict::Fenced) }
    }

    /// It ended; its end is kept until it is recorded.
    pub fn finish(&mut self, agent: usize, id: RunId, outcome: Outcome) {
        let ended_at = self.clock(agent);
        let Some(run) = self.agents[agent].runs.remove(&id) else { return };
        if outcome == Outcome::Stopped {
            self.mark("run stopped");
        }
        let has_failed = matches!(outcome, Outcome::Exit { code } if code != 0);
        self.observe(Fact::RunEnded { run: run.key, has_failed });
        let finished = Box::new(Finished {
            uid: run.key.uid,
            attempt: run.key.attempt,
            fence: run.key.fence,
            run: id,
            started_at: run.started_at,
            ended_at,
            outcome,
            stdout: Stream::Empty,
            stderr: Stream::Empty,
            usage: Usage::default(),
        });
        self.agents[agent].kept.insert(id, Kept { finished, told_at: 0, is_confirmed: false });
        self.tell_ends(agent, vec![id]);
    }

    /// Somebody tells the end of a run that is not his: a node that never was, another one, or another start.
    pub fn forge(&mut self) {
        let live: Vec<&TaskRow> = self.rows.tasks.values().filter(|row| row.is_live).collect();
        if live.is_empty() {
            return;
        }
        let row = live[self.random.below(live.len())].clone();
        let key = row.key();
        let (run, owner) = match row.owner {
            Some((run, node, epoch)) => (run, Some((node, epoch))),
            None => (RunId(0), None),
        };
        let nowhere: NodeId = "node-0".parse().unwrap();
        let other = self.rows.nodes.iter().find(|(node, _)| owner.as_ref().is_some_and(|(held_by, _)| held_by != *node));
        let (node, epoch) = match (self.random.below(3), owner, other) {
            (0, Some((node, epoch)), _) => (node, Epoch(epoch.0 + 1)),
            (1, Some(_), Some((other, row))) => (other.clone(), row.epoch),
            _ => (nowhere, Epoch(1)),
        };
        let at = self.time();
        self.mark("forged");
        let finished = Box::new(Finished {
            uid: key.uid,
            attempt: key.attempt,
            fence: key.fence,
            run,
            started_at: at,
            ended_at: at,
            outcome: Outcome::Exit { code: 0 },
            stdout: Stream::Empty,
            stderr: Stream::Empty,
            usage: Usage::default(),
        });
        self.after(1, What::Told(Told { node, epoch, event: AgentEvent::Finished(finished) }));
    }

    /// The dispatcher says what to do with it.
    pub fn on_verdict(&mut self, agent: usize, id: RunId, verdict: Verdict) {
        match verdict {
            Verdict::Ok => {}
            Verdict::Stop => self.finish(agent, id, Outcome::Stopped),
            Verdict::Fenced => {
                if self.agents[agent].runs.contains_key(&id) {
                    self.mark("run fenced");
                    self.finish(agent, id, Outcome::Stopped);
                    self.acknowledge(agent, id);
                }
            }
            Verdict::Recorded => {
                if self.agents[agent].kept.remove(&id).is_some() {
                    self.acknowledge(agent, id);
                }
            }
        }
    }
}
