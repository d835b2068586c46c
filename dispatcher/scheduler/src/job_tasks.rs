//! Job preparation, which runs on a node before the job's first task there, and job release, which runs after its last.
//!
//! ```text
//! preparation  none ──ask──► ordered ──► succeeded | failed      (void: stopped, wiped, node gone)
//! release      none ──job ends──► ordered ──ended, node gone, out of time──► over
//! ```
//! A task that waits for a preparation is owned by its run meanwhile. Where the preparation failed, no task of the job
//! runs until the node is reimaged.

use std::collections::BTreeMap;

use contract::{
    clock::{Moment, Now},
    ids::{Epoch, JobUid, NodeId, RunKey, TaskUid},
    job_task::JOB_TASKS_PER_HEARTBEAT_MAX,
    message::{Heartbeat, NodeOrder},
    outcome::{Fault, JobTaskEnd, JobTaskKey, JobTaskKind, Outcome},
    time::Timestamp,
};
use model::{
    job_tasks::{JobOnNode, Preparation, Release, Rules},
    task::RequeueCause,
};

use crate::{AskAnswer, Bug, CRASHES_MAX, Core, Effect, Phase, WAIT_MS};

/// A release that has not ended this long after its own time limit is given up.
pub const RELEASE_MARGIN_MS: i64 = 300_000;
/// A task that reached a node which may not run it is published again after this long.
const TURNED_AWAY_MS: i64 = 1_000;
/// When a preparation failed on some nodes, at most this many times the slots of the other nodes are released.
const RELEASED_PER_SLOT_MAX: u32 = 2;

/// Whether a node may run a job's tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readiness {
    Ready,
    /// The preparation with this number has been ordered.
    Underway(u32),
    /// The preparation has to be ordered.
    Due,
    /// The preparation failed here; no task may run.
    Barred,
    /// The job is being released here.
    Leaving,
}

fn node_fault(message: &str) -> Outcome {
    Outcome::Node(Fault { code: "NodeError".to_owned(), message: message.to_owned(), details: vec![] })
}

impl Core {
    /// Restores the state of a job on a node after the job and the node were restored; ignored when the node is gone. A
    /// release that had been ordered gets its full time limit again.
    pub fn restore_job_on_node(&mut self, job: JobUid, node: &NodeId, job_on_node: JobOnNode, now: Moment) {
        if !self.nodes.contains_key(node) {
            return;
        }
        if job_on_node.is_releasing() {
            let limit = self.jobs.get(&job).and_then(|facts| facts.rules).and_then(|rules| rules.release_ms).unwrap_or(0);
            self.releasing.insert((job, node.clone()), now.plus_ms(limit.saturating_add(RELEASE_MARGIN_MS)));
        }
        self.jobs_on_nodes.entry(node.clone()).or_default().insert(job, job_on_node);
        if let Some(facts) = self.jobs.get_mut(&job)
            && facts.rules.is_some_and(|rules| rules.waits)
        {
            facts.barred += u32::from(job_on_node.preparation == Preparation::Failed);
        }
    }

    /// States of jobs by node.
    pub fn jobs_on_nodes(&self) -> &BTreeMap<NodeId, BTreeMap<JobUid, JobOnNode>> {
        &self.jobs_on_nodes
    }

    /// Whether no node still has to release the job.
    pub fn is_released(&self, job: JobUid) -> bool {
        self.releasing.keys().all(|(other, _)| *other != job)
    }

    /// Forgets the states of a job that is gone.
    pub fn forget_jobs_on_nodes(&mut self, job: JobUid) {
        self.releasing.retain(|(other, _), _| *other != job);
        self.jobs_on_nodes.retain(|_, jobs_on_nodes| {
            jobs_on_nodes.remove(&job);
            !jobs_on_nodes.is_empty()
        });
    }

    pub(super) fn on_prepares(&mut self, job: JobUid, rules: Rules) {
        if let Some(facts) = self.jobs.get_mut(&job) {
            facts.rules = Some(rules);
        }
        self.recount_barred(job);
    }

    fn recount_barred(&mut self, job: JobUid) {
        let Some(facts) = self.jobs.get_mut(&job) else { return };
        let waits = facts.rules.is_some_and(|rules| rules.waits);
        let failed = |job_on_node: &JobOnNode| job_on_node.preparation == Preparation::Failed;
        facts.barred = if waits {
            self.jobs_on_nodes.values().filter(|jobs_on_nodes| jobs_on_nodes.get(&job).is_some_and(failed)).count() as u32
        } else {
            0
        };
    }

    fn is_barred(&self, job: JobUid, node: &NodeId) -> bool {
        let job_on_node = self.jobs_on_nodes.get(node).and_then(|jobs_on_nodes| jobs_on_nodes.get(&job));
        job_on_node.is_some_and(|job_on_node| {
            job_on_node.preparation == Preparation::Failed && !job_on_node.release.is_some_and(|release| release.is_over)
        })
    }

    /// Whether the node may not run the job's tasks, because the preparation failed there.
    pub(super) fn is_turned_away(&self, job: JobUid, node: &NodeId) -> bool {
        self.jobs.get(&job).is_some_and(|facts| facts.barred > 0) && self.is_barred(job, node)
    }

    /// The most attempts of a job that may be released or running: few when few nodes may run them.
    pub(super) fn ceiling(&self, job: JobUid) -> u32 {
        if self.jobs.get(&job).is_none_or(|facts| facts.barred == 0) || self.has(Bug::BarredNodesCount) {
            return u32::MAX;
        }
        let nodes = self.nodes.iter().filter(|(id, node)| node.takes_tasks() && !self.is_barred(job, id)).count() as u32;
        nodes * self.slots_per_node * RELEASED_PER_SLOT_MAX
    }

    fn readiness(&self, job: JobUid, rules: Rules, node: &NodeId, epoch: Epoch) -> Readiness {
        let Some(job_on_node) = self.jobs_on_nodes.get(node).and_then(|jobs_on_nodes| jobs_on_nodes.get(&job)) else {
            return Readiness::Due;
        };
        if let Some(release) = job_on_node.release {
            return if release.is_over { Readiness::Due } else { Readiness::Leaving };
        }
        match job_on_node.preparation {
            Preparation::Void => Readiness::Due,
            Preparation::Failed if rules.waits && !self.has(Bug::FailedPreparationForgotten) => Readiness::Barred,
            Preparation::Failed => Readiness::Ready,
            Preparation::Ordered if job_on_node.epoch == epoch => Readiness::Underway(job_on_node.number),
            Preparation::Ordered => Readiness::Due,
            Preparation::Succeeded if job_on_node.epoch == epoch || !rules.reruns || self.has(Bug::RebootKeepsPreparation) => {
                Readiness::Ready
            }
            Preparation::Succeeded => Readiness::Due,
        }
    }

    /// The answer for a run that may run by all other rules, and whether it first waits for a preparation.
    pub(super) fn prepare(
        &mut self,
        run: &RunKey,
        (node, epoch): (&NodeId, Epoch),
        knows_preparations: bool,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> (AskAnswer, bool) {
        let Some(attempt) = self.live.get(&run.uid) else { return (AskAnswer::Drop, false) };
        let (job, is_owned) = (attempt.job, attempt.owner().is_some());
        let Some(rules) = self.jobs.get(&job).and_then(|facts| facts.rules) else { return (AskAnswer::Run, false) };
        if !knows_preparations {
            return (AskAnswer::Wait(WAIT_MS), false);
        }
        // A run that owns its task and does not wait has begun or is about to.
        let has_begun = is_owned && !self.is_preparing(run.uid);
        let mut readiness = self.readiness(job, rules, node, epoch);
        if readiness == Readiness::Due && !has_begun {
            readiness = match self.order_preparation(job, node, epoch, now, effects) {
                Some(number) => Readiness::Underway(number),
                None => self.readiness(job, rules, node, epoch),
            };
        }
        match readiness {
            Readiness::Underway(number) => (AskAnswer::Prepare(JobTaskKey { job, kind: JobTaskKind::Preparation, number }), rules.waits),
            Readiness::Ready => (AskAnswer::Run, false),
            _ if has_begun => (AskAnswer::Run, false),
            Readiness::Barred if is_owned => {
                self.requeue(run.uid, RequeueCause::Unprepared, effects);
                (AskAnswer::Drop, false)
            }
            Readiness::Barred => (self.turn_away(run.uid, now.moment, effects), false),
            Readiness::Due | Readiness::Leaving => (AskAnswer::Wait(WAIT_MS), false),
        }
    }

    fn is_preparing(&self, uid: TaskUid) -> bool {
        self.live.get(&uid).is_some_and(|attempt| matches!(attempt.phase, Phase::Running { is_preparing: true, .. }))
    }

    /// Orders a preparation and returns its number; `None` after too many of them were lost with their agents.
    fn order_preparation(&mut self, job: JobUid, node: &NodeId, epoch: Epoch, now: Now, effects: &mut Vec<Effect>) -> Option<u32> {
        let old = self.jobs_on_nodes.get(node).and_then(|jobs_on_nodes| jobs_on_nodes.get(&job)).copied();
        let is_lost = old.is_some_and(|job_on_node| job_on_node.preparation == Preparation::Ordered && job_on_node.release.is_none());
        let lost = old.filter(|_| is_lost).map_or(0, |job_on_node| job_on_node.lost + 1);
        let number = old.map_or(1, |job_on_node| job_on_node.number + 1);
        let (preparation, is_given_up) = if lost >= CRASHES_MAX { (Preparation::Failed, true) } else { (Preparation::Ordered, false) };
        let job_on_node = JobOnNode { number, epoch, preparation, lost, release: None };
        self.put_job_on_node(job, node, job_on_node, effects);
        effects.push(Effect::JobTaskBegun { job, node: node.clone(), kind: JobTaskKind::Preparation, at: now.time });
        if is_given_up {
            let outcome = node_fault("the node's agent ended too often while the preparation ran");
            self.note_end(job_on_node.key(job, JobTaskKind::Preparation), node, outcome, now.time, effects);
            return None;
        }
        Some(number)
    }

    fn put_job_on_node(&mut self, job: JobUid, node: &NodeId, job_on_node: JobOnNode, effects: &mut Vec<Effect>) {
        let old = self.jobs_on_nodes.entry(node.clone()).or_default().insert(job, job_on_node);
        let failed = |job_on_node: &JobOnNode| job_on_node.preparation == Preparation::Failed;
        if let Some(facts) = self.jobs.get_mut(&job)
            && facts.rules.is_some_and(|rules| rules.waits)
        {
            let before = old.as_ref().is_some_and(failed);
            facts.barred = facts.barred + u32::from(failed(&job_on_node)) - u32::from(before).min(facts.barred);
        }
        if !job_on_node.is_releasing() {
            self.releasing.remove(&(job, node.clone()));
        }
        effects.push(Effect::JobOnNode { job, node: node.clone(), job_on_node });
    }

    fn note_end(&self, key: JobTaskKey, node: &NodeId, outcome: Outcome, now: Timestamp, effects: &mut Vec<Effect>) {
        let end = JobTaskEnd { key, started_at: now, ended_at: now, outcome, retries: 0, retried_at: None };
        effects.push(Effect::JobTaskEnded { node: node.clone(), end: Box::new(end), is_told: false });
    }

    /// Handles a task that reached a node which may not run it: it is published again for other nodes, or waits as a
    /// row when there are none.
    fn turn_away(&mut self, uid: TaskUid, now: Moment, effects: &mut Vec<Effect>) -> AskAnswer {
        let Some(attempt) = self.live.get_mut(&uid) else { return AskAnswer::Drop };
        attempt.phase = Phase::Released { at: now, is_published: true, retry_at: Some(now.plus_ms(TURNED_AWAY_MS)) };
        let job = attempt.job;
        if self.ceiling(job) == 0 {
            self.unrelease(uid, effects);
        }
        AskAnswer::Drop
    }

    /// Handles the end of a preparation or release.
    pub(super) fn on_job_task_ended(&mut self, node: &NodeId, epoch: Epoch, end: Box<JobTaskEnd>, effects: &mut Vec<Effect>) {
        let JobTaskKey { job, kind, number } = end.key;
        let Some(mut job_on_node) = self.jobs_on_nodes.get(node).and_then(|jobs_on_nodes| jobs_on_nodes.get(&job)).copied() else { return };
        if job_on_node.number != number {
            return;
        }
        // A superseded agent may still report the end of its preparation while the new one runs its own; only the
        // present epoch is believed.
        let is_present = self.is_present(node, epoch) || self.has(Bug::OldStartPrepares);
        match (kind, &mut job_on_node.release) {
            (JobTaskKind::Preparation, None)
                if job_on_node.preparation == Preparation::Ordered && job_on_node.epoch == epoch && is_present =>
            {
                job_on_node.preparation = match end.outcome {
                    Outcome::Exit { code: 0 } => Preparation::Succeeded,
                    // A request ended the agent or the job; the node is not at fault.
                    Outcome::Stopped => Preparation::Void,
                    _ => Preparation::Failed,
                };
                job_on_node.lost = 0;
            }
            // A release that was stopped runs again after the agent has restarted.
            (JobTaskKind::Release, Some(release)) if !release.is_over && end.outcome != Outcome::Stopped => release.is_over = true,
            _ => return,
        }
        self.put_job_on_node(job, node, job_on_node, effects);
        effects.push(Effect::JobTaskEnded { node: node.clone(), end, is_told: true });
    }

    /// Orders the release on every node on which the job was prepared, because the job ends or leaves the pool.
    pub(super) fn on_release(&mut self, job: JobUid, now: Now, effects: &mut Vec<Effect>) {
        let Some(rules) = self.jobs.get(&job).and_then(|facts| facts.rules) else { return };
        let mut jobs_on_nodes: Vec<(NodeId, JobOnNode)> = self
            .jobs_on_nodes
            .iter()
            .filter_map(|(node, jobs_on_nodes)| jobs_on_nodes.get(&job).map(|job_on_node| (node.clone(), *job_on_node)))
            .collect();
        jobs_on_nodes.retain(|(_, job_on_node)| job_on_node.release.is_none());
        for (node, mut job_on_node) in jobs_on_nodes {
            let was_ordered = job_on_node.preparation == Preparation::Ordered;
            let has_traces =
                job_on_node.preparation == Preparation::Succeeded || (!rules.waits && job_on_node.preparation != Preparation::Void);
            if was_ordered {
                job_on_node.preparation = Preparation::Void;
                self.note_end(job_on_node.key(job, JobTaskKind::Preparation), &node, Outcome::Stopped, now.time, effects);
            }
            let is_there = self.nodes.get(&node).is_some_and(|node| !node.is_off());
            let limit = rules.release_ms.filter(|_| has_traces && is_there);
            if let Some(limit) = limit {
                job_on_node.release = Some(Release { is_over: false });
                self.releasing.insert((job, node.clone()), now.moment.plus_ms(limit.saturating_add(RELEASE_MARGIN_MS)));
            }
            if was_ordered || limit.is_some() {
                self.put_job_on_node(job, &node, job_on_node, effects);
            }
            if limit.is_some() {
                effects.push(Effect::JobTaskBegun { job, node: node.clone(), kind: JobTaskKind::Release, at: now.time });
                effects.push(Effect::Nudge { node });
            }
        }
    }

    /// For the answer to a heartbeat: the listed job tasks that are over, and the due releases that it does not list.
    pub(super) fn job_tasks(&self, heartbeat: &Heartbeat, order: NodeOrder) -> (Vec<JobTaskKey>, Vec<JobTaskKey>) {
        let jobs_on_nodes = self.jobs_on_nodes.get(&heartbeat.node);
        let is_wanted = |key: &JobTaskKey| {
            let job_on_node =
                jobs_on_nodes.and_then(|jobs_on_nodes| jobs_on_nodes.get(&key.job)).filter(|job_on_node| job_on_node.number == key.number);
            job_on_node.is_some_and(|job_on_node| match key.kind {
                JobTaskKind::Preparation => {
                    job_on_node.preparation == Preparation::Ordered && job_on_node.epoch == heartbeat.epoch && job_on_node.release.is_none()
                }
                JobTaskKind::Release => job_on_node.is_releasing(),
            })
        };
        let over = heartbeat.job_tasks.iter().filter(|key| !is_wanted(key)).copied().collect();
        if !matches!(order, NodeOrder::Work | NodeOrder::Hold) || self.has(Bug::ReleaseToldOnce) {
            return (over, Vec::new());
        }
        let due = jobs_on_nodes.into_iter().flatten().filter(|(_, job_on_node)| job_on_node.is_releasing());
        let due =
            due.map(|(job, job_on_node)| job_on_node.key(*job, JobTaskKind::Release)).filter(|key| !heartbeat.job_tasks.contains(key));
        (over, due.take(JOB_TASKS_PER_HEARTBEAT_MAX).collect())
    }

    /// Resets the jobs of a node whose folders were emptied: nothing is prepared there, and nothing has to be released.
    pub(super) fn wipe_jobs_on_nodes(&mut self, node: &NodeId, now: Timestamp, effects: &mut Vec<Effect>) {
        if !self.has(Bug::ReimageKeepsPreparation) {
            self.void_jobs_on_nodes(node, "the node was set up anew", now, effects);
        }
    }

    /// Forgets the jobs of a node that is gone.
    pub(super) fn drop_jobs_on_nodes(&mut self, node: &NodeId, now: Timestamp, effects: &mut Vec<Effect>) {
        self.void_jobs_on_nodes(node, "the node left the pool", now, effects);
        self.jobs_on_nodes.remove(node);
    }

    fn void_jobs_on_nodes(&mut self, node: &NodeId, reason: &str, now: Timestamp, effects: &mut Vec<Effect>) {
        let jobs_on_nodes: Vec<(JobUid, JobOnNode)> =
            self.jobs_on_nodes.get(node).into_iter().flatten().map(|(job, job_on_node)| (*job, *job_on_node)).collect();
        for (job, mut job_on_node) in jobs_on_nodes {
            if job_on_node.preparation == Preparation::Ordered {
                self.note_end(job_on_node.key(job, JobTaskKind::Preparation), node, node_fault(reason), now, effects);
            }
            job_on_node.preparation = Preparation::Void;
            self.put_job_on_node(job, node, job_on_node, effects);
        }
        self.give_up_releases(node, reason, now, effects);
    }

    /// Gives up the releases on a node that cannot run them, or not in time.
    pub(super) fn give_up_releases(&mut self, node: &NodeId, reason: &str, now: Timestamp, effects: &mut Vec<Effect>) {
        let jobs_on_nodes: Vec<(JobUid, JobOnNode)> =
            self.jobs_on_nodes.get(node).into_iter().flatten().map(|(job, job_on_node)| (*job, *job_on_node)).collect();
        for (job, job_on_node) in jobs_on_nodes {
            self.give_up(job, node, job_on_node, reason, now, effects);
        }
    }

    fn give_up(&mut self, job: JobUid, node: &NodeId, mut job_on_node: JobOnNode, reason: &str, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(release) = job_on_node.release.as_mut().filter(|release| !release.is_over) else { return };
        release.is_over = true;
        self.put_job_on_node(job, node, job_on_node, effects);
        self.note_end(job_on_node.key(job, JobTaskKind::Release), node, node_fault(reason), now, effects);
    }

    /// Gives up the releases that did not end in time.
    pub(super) fn expire_releases(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.has(Bug::ReleaseNeverGivenUp) {
            return;
        }
        let due = self.releasing.iter().filter(|(_, gives_up_at)| **gives_up_at < now.moment);
        for (job, node) in due.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            let Some(job_on_node) = self.jobs_on_nodes.get(&node).and_then(|jobs_on_nodes| jobs_on_nodes.get(&job)).copied() else {
                continue;
            };
            self.give_up(job, &node, job_on_node, "the node did not end the release in time", now.time, effects);
        }
    }
}

#[cfg(test)]
mod tests;
