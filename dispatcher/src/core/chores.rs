//! What a job does to a node before its first task there, its preparation, and after its last, its release.
//!
//! ```text
//! preparation  none ──ask──► ordered ──► succeeded | failed      (void: stopped, wiped, node gone)
//! release      none ──job ends──► ordered ──ended, node gone, out of time──► over
//! ```
//! Tasks that wait for a preparation are owned by their runs meanwhile; where it failed, none runs until a reimage.

use std::collections::BTreeMap;

use broker_config::{
    chore::{CHORES_PER_BEAT_MAX, ChoreEnd, ChoreKey, ChoreKind},
    ids::{Epoch, JobUid, NodeId, RunKey, TaskUid},
    message::{Beat, Fault, NodeOrder, Outcome},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{
    core::{AskAnswer, Bug, CRASHES_MAX, Core, Effect, Phase, WAIT_MS},
    store::records::RequeueCause,
};

/// A release that has not ended this long after its own limit is given up.
pub const RELEASE_MARGIN_MS: i64 = 300_000;
/// A task that came to a node which may not run it is published again after this long.
const TURNED_AWAY_MS: i64 = 1_000;
/// Where a preparation failed on some nodes, so many times the slots of the others are released at most.
const RELEASED_PER_SLOT_MAX: u32 = 2;

/// What a job asks of nodes around its tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Whether its tasks wait for the preparation's success.
    pub waits: bool,
    /// Whether the preparation runs again after a newer start of the agent.
    pub reruns: bool,
    /// How long its release may run, if it has one.
    pub release_ms: Option<i64>,
}

/// How far a preparation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preparation {
    /// The node was told to run it.
    Ordered,
    /// It exited with zero.
    Succeeded,
    /// It did not.
    Failed,
    /// It was stopped, or what it did is gone.
    Void,
}

/// A release that was ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// It is not waited for any longer.
    pub gives_up_at: Timestamp,
    /// It ended, or was given up.
    pub is_over: bool,
}

/// A job on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// How often the node was asked to prepare, from 1.
    pub number: u32,
    /// The agent's start that was asked last.
    pub epoch: Epoch,
    /// How far the preparation is.
    pub preparation: Preparation,
    /// Preparations in a row that their agent did not survive.
    pub lost: u32,
    /// The release, once it was ordered.
    pub release: Option<Release>,
}

impl Site {
    fn is_releasing(&self) -> bool {
        self.release.is_some_and(|release| !release.is_over)
    }

    fn key(&self, job: JobUid, kind: ChoreKind) -> ChoreKey {
        ChoreKey { job, kind, number: self.number }
    }
}

/// Where a node stands with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Tasks may run.
    Ready,
    /// The preparation has been ordered.
    Underway(u32),
    /// It must be.
    Due,
    /// No task runs here.
    Barred,
    /// The job is being released here.
    Leaving,
}

fn node_fault(message: &str) -> Outcome {
    Outcome::Node(Fault { code: "NodeError".to_owned(), message: message.to_owned(), details: vec![] })
}

impl Core {
    /// A site that was there when the dispatcher stopped, after its job and node; nodes that are gone have none.
    pub fn restore_site(&mut self, job: JobUid, node: &NodeId, site: Site) {
        if !self.nodes.contains_key(node) {
            return;
        }
        if site.is_releasing() {
            self.releasing.insert((job, node.clone()));
        }
        self.sites.entry(node.clone()).or_default().insert(job, site);
        if let Some(facts) = self.jobs.get_mut(&job)
            && facts.rules.is_some_and(|rules| rules.waits)
        {
            facts.barred += u32::from(site.preparation == Preparation::Failed);
        }
    }

    /// All sites, by node.
    pub fn sites(&self) -> &BTreeMap<NodeId, BTreeMap<JobUid, Site>> {
        &self.sites
    }

    /// Whether no release of a job is waited for.
    pub fn is_released(&self, job: JobUid) -> bool {
        self.releasing.iter().all(|(other, _)| *other != job)
    }

    /// What a job that is gone did to nodes is of no interest any more.
    pub fn forget_sites(&mut self, job: JobUid) {
        self.releasing.retain(|(other, _)| *other != job);
        self.sites.retain(|_, sites| {
            sites.remove(&job);
            !sites.is_empty()
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
        let failed = |site: &Site| site.preparation == Preparation::Failed;
        facts.barred = if waits { self.sites.values().filter(|sites| sites.get(&job).is_some_and(failed)).count() as u32 } else { 0 };
    }

    fn is_barred(&self, job: JobUid, node: &NodeId) -> bool {
        let site = self.sites.get(node).and_then(|sites| sites.get(&job));
        site.is_some_and(|site| site.preparation == Preparation::Failed && !site.release.is_some_and(|release| release.is_over))
    }

    /// Attempts of a job that may be in the broker's hands or run: few where few nodes may run them.
    pub(super) fn ceiling(&self, job: JobUid) -> u32 {
        if self.jobs.get(&job).is_none_or(|facts| facts.barred == 0) || self.has(Bug::BarredNodesCount) {
            return u32::MAX;
        }
        let nodes = self.nodes.iter().filter(|(id, node)| node.takes_tasks() && !self.is_barred(job, id)).count() as u32;
        nodes * self.slots_per_node * RELEASED_PER_SLOT_MAX
    }

    fn standing(&self, job: JobUid, rules: Rules, node: &NodeId, epoch: Epoch) -> Standing {
        let Some(site) = self.sites.get(node).and_then(|sites| sites.get(&job)) else { return Standing::Due };
        if let Some(release) = site.release {
            return if release.is_over { Standing::Due } else { Standing::Leaving };
        }
        match site.preparation {
            Preparation::Void => Standing::Due,
            Preparation::Failed if rules.waits && !self.has(Bug::FailedPreparationForgotten) => Standing::Barred,
            Preparation::Failed => Standing::Ready,
            Preparation::Ordered if site.epoch == epoch => Standing::Underway(site.number),
            Preparation::Ordered => Standing::Due,
            Preparation::Succeeded if site.epoch == epoch || !rules.reruns || self.has(Bug::RebootKeepsPreparation) => Standing::Ready,
            Preparation::Succeeded => Standing::Due,
        }
    }

    /// What a run that may run by all other rules is told, and whether it has to wait for a preparation.
    pub(super) fn prepare(
        &mut self,
        run: &RunKey,
        (node, epoch): (&NodeId, Epoch),
        knows_preparations: bool,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> (AskAnswer, bool) {
        let Some(attempt) = self.live.get(&run.uid) else { return (AskAnswer::Drop, false) };
        let (job, is_owned) = (attempt.job, attempt.owner().is_some());
        let Some(rules) = self.jobs.get(&job).and_then(|facts| facts.rules) else { return (AskAnswer::Run, false) };
        if !knows_preparations {
            return (AskAnswer::Wait(WAIT_MS), false);
        }
        // Who owns the task and does not wait has begun, or is about to.
        let has_begun = is_owned && !self.is_preparing(run.uid);
        let mut standing = self.standing(job, rules, node, epoch);
        if standing == Standing::Due && !has_begun {
            standing = match self.order_preparation(job, node, epoch, now, effects) {
                Some(number) => Standing::Underway(number),
                None => self.standing(job, rules, node, epoch),
            };
        }
        match standing {
            Standing::Underway(number) => (AskAnswer::Prepare(ChoreKey { job, kind: ChoreKind::Preparation, number }), rules.waits),
            Standing::Ready => (AskAnswer::Run, false),
            _ if has_begun => (AskAnswer::Run, false),
            Standing::Barred if is_owned => {
                self.requeue(run.uid, RequeueCause::Unprepared, effects);
                (AskAnswer::Drop, false)
            }
            Standing::Barred => (self.turn_away(run.uid, now, effects), false),
            Standing::Due | Standing::Leaving => (AskAnswer::Wait(WAIT_MS), false),
        }
    }

    fn is_preparing(&self, uid: TaskUid) -> bool {
        self.live.get(&uid).is_some_and(|attempt| matches!(attempt.phase, Phase::Running { is_preparing: true, .. }))
    }

    /// The number of a new preparation; nothing when its agents have died under it too often.
    fn order_preparation(&mut self, job: JobUid, node: &NodeId, epoch: Epoch, now: Timestamp, effects: &mut Vec<Effect>) -> Option<u32> {
        let old = self.sites.get(node).and_then(|sites| sites.get(&job)).copied();
        let is_lost = old.is_some_and(|site| site.preparation == Preparation::Ordered && site.release.is_none());
        let lost = old.filter(|_| is_lost).map_or(0, |site| site.lost + 1);
        let number = old.map_or(1, |site| site.number + 1);
        let (preparation, is_given_up) = if lost >= CRASHES_MAX { (Preparation::Failed, true) } else { (Preparation::Ordered, false) };
        let site = Site { number, epoch, preparation, lost, release: None };
        self.put_site(job, node, site, effects);
        effects.push(Effect::ChoreBegun { job, node: node.clone(), kind: ChoreKind::Preparation, at: now });
        if is_given_up {
            let outcome = node_fault("the node's agent ended too often while the preparation ran");
            self.note_end(site.key(job, ChoreKind::Preparation), node, outcome, now, effects);
            return None;
        }
        Some(number)
    }

    fn put_site(&mut self, job: JobUid, node: &NodeId, site: Site, effects: &mut Vec<Effect>) {
        let old = self.sites.entry(node.clone()).or_default().insert(job, site);
        let failed = |site: &Site| site.preparation == Preparation::Failed;
        if let Some(facts) = self.jobs.get_mut(&job)
            && facts.rules.is_some_and(|rules| rules.waits)
        {
            let before = old.as_ref().is_some_and(failed);
            facts.barred = facts.barred + u32::from(failed(&site)) - u32::from(before).min(facts.barred);
        }
        if site.is_releasing() {
            self.releasing.insert((job, node.clone()));
        } else {
            self.releasing.remove(&(job, node.clone()));
        }
        effects.push(Effect::Site { job, node: node.clone(), site });
    }

    fn note_end(&self, key: ChoreKey, node: &NodeId, outcome: Outcome, now: Timestamp, effects: &mut Vec<Effect>) {
        let end = ChoreEnd { key, started_at: now, ended_at: now, outcome, retries: 0, retried_at: None };
        effects.push(Effect::ChoreEnded { node: node.clone(), end: Box::new(end), is_told: false });
    }

    /// A task came to a node that may not run it: it goes to another one, or waits as a row when there is none.
    fn turn_away(&mut self, uid: TaskUid, now: Timestamp, effects: &mut Vec<Effect>) -> AskAnswer {
        let Some(attempt) = self.live.get_mut(&uid) else { return AskAnswer::Drop };
        attempt.phase = Phase::Released { at: now, is_published: true, retry_at: Some(now.plus_ms(TURNED_AWAY_MS)) };
        let job = attempt.job;
        if self.ceiling(job) == 0 {
            self.unrelease(uid, effects);
        }
        AskAnswer::Drop
    }

    /// A chore ended on a node.
    pub(super) fn on_chore_ended(&mut self, node: &NodeId, epoch: Epoch, end: Box<ChoreEnd>, effects: &mut Vec<Effect>) {
        let ChoreKey { job, kind, number } = end.key;
        let Some(mut site) = self.sites.get(node).and_then(|sites| sites.get(&job)).copied() else { return };
        if site.number != number {
            return;
        }
        match (kind, &mut site.release) {
            (ChoreKind::Preparation, None) if site.preparation == Preparation::Ordered && site.epoch == epoch => {
                site.preparation = match end.outcome {
                    Outcome::Exit { code: 0 } => Preparation::Succeeded,
                    // Somebody wanted the agent to end or the job to stop; it is no fault of the node.
                    Outcome::Stopped => Preparation::Void,
                    _ => Preparation::Failed,
                };
                site.lost = 0;
            }
            // A release that was stopped runs again with the next start of the agent.
            (ChoreKind::Release, Some(release)) if !release.is_over && end.outcome != Outcome::Stopped => release.is_over = true,
            _ => return,
        }
        self.put_site(job, node, site, effects);
        effects.push(Effect::ChoreEnded { node: node.clone(), end, is_told: true });
    }

    /// A job ends or leaves the pool: every node that it was prepared on releases it.
    pub(super) fn on_release(&mut self, job: JobUid, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(rules) = self.jobs.get(&job).and_then(|facts| facts.rules) else { return };
        let mut sites: Vec<(NodeId, Site)> =
            self.sites.iter().filter_map(|(node, sites)| sites.get(&job).map(|site| (node.clone(), *site))).collect();
        sites.retain(|(_, site)| site.release.is_none());
        for (node, mut site) in sites {
            let was_ordered = site.preparation == Preparation::Ordered;
            let has_traces = site.preparation == Preparation::Succeeded || (!rules.waits && site.preparation != Preparation::Void);
            if was_ordered {
                site.preparation = Preparation::Void;
                self.note_end(site.key(job, ChoreKind::Preparation), &node, Outcome::Stopped, now, effects);
            }
            let is_there = self.nodes.get(&node).is_some_and(|node| !node.is_off());
            let limit = rules.release_ms.filter(|_| has_traces && is_there);
            if let Some(limit) = limit {
                site.release = Some(Release { gives_up_at: now.plus_ms(limit.saturating_add(RELEASE_MARGIN_MS)), is_over: false });
            }
            if was_ordered || limit.is_some() {
                self.put_site(job, &node, site, effects);
            }
            if limit.is_some() {
                effects.push(Effect::ChoreBegun { job, node: node.clone(), kind: ChoreKind::Release, at: now });
                effects.push(Effect::Nudge { node });
            }
        }
    }

    /// The chores that a beat names and that are over, and the releases that it does not name and that are due.
    pub(super) fn chores(&self, beat: &Beat, order: NodeOrder) -> (Vec<ChoreKey>, Vec<ChoreKey>) {
        let sites = self.sites.get(&beat.node);
        let is_wanted = |key: &ChoreKey| {
            let site = sites.and_then(|sites| sites.get(&key.job)).filter(|site| site.number == key.number);
            site.is_some_and(|site| match key.kind {
                ChoreKind::Preparation => site.preparation == Preparation::Ordered && site.epoch == beat.epoch && site.release.is_none(),
                ChoreKind::Release => site.is_releasing(),
            })
        };
        let over = beat.chores.iter().filter(|key| !is_wanted(key)).copied().collect();
        if !matches!(order, NodeOrder::Work | NodeOrder::Hold) || self.has(Bug::ReleaseToldOnce) {
            return (over, Vec::new());
        }
        let due = sites.into_iter().flatten().filter(|(_, site)| site.is_releasing());
        let due = due.map(|(job, site)| site.key(*job, ChoreKind::Release)).filter(|key| !beat.chores.contains(key));
        (over, due.take(CHORES_PER_BEAT_MAX).collect())
    }

    /// A node's folders are empty: nothing is prepared on it and nothing has to be released.
    pub(super) fn wipe_sites(&mut self, node: &NodeId, now: Timestamp, effects: &mut Vec<Effect>) {
        if !self.has(Bug::ReimageKeepsPreparation) {
            self.void_sites(node, "the node was set up anew", now, effects);
        }
    }

    /// A node is gone, and its sites with it.
    pub(super) fn drop_sites(&mut self, node: &NodeId, now: Timestamp, effects: &mut Vec<Effect>) {
        self.void_sites(node, "the node left the pool", now, effects);
        self.sites.remove(node);
    }

    fn void_sites(&mut self, node: &NodeId, reason: &str, now: Timestamp, effects: &mut Vec<Effect>) {
        let sites: Vec<(JobUid, Site)> = self.sites.get(node).into_iter().flatten().map(|(job, site)| (*job, *site)).collect();
        for (job, mut site) in sites {
            if site.preparation == Preparation::Ordered {
                self.note_end(site.key(job, ChoreKind::Preparation), node, node_fault(reason), now, effects);
            }
            site.preparation = Preparation::Void;
            self.put_site(job, node, site, effects);
        }
        self.give_up_releases(node, reason, now, effects);
    }

    /// A node cannot release anything now, or not in time.
    pub(super) fn give_up_releases(&mut self, node: &NodeId, reason: &str, now: Timestamp, effects: &mut Vec<Effect>) {
        let sites: Vec<(JobUid, Site)> = self.sites.get(node).into_iter().flatten().map(|(job, site)| (*job, *site)).collect();
        for (job, site) in sites {
            self.give_up(job, node, site, reason, now, effects);
        }
    }

    fn give_up(&mut self, job: JobUid, node: &NodeId, mut site: Site, reason: &str, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(release) = site.release.as_mut().filter(|release| !release.is_over) else { return };
        release.is_over = true;
        self.put_site(job, node, site, effects);
        self.note_end(site.key(job, ChoreKind::Release), node, node_fault(reason), now, effects);
    }

    /// Releases that have not ended in time are not waited for.
    pub(super) fn expire_releases(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.has(Bug::ReleaseNeverGivenUp) {
            return;
        }
        for (job, node) in self.releasing.clone() {
            let Some(site) = self.sites.get(&node).and_then(|sites| sites.get(&job)).copied() else { continue };
            if site.release.is_some_and(|release| release.gives_up_at < now) {
                self.give_up(job, &node, site, "the node did not end the release in time", now, effects);
            }
        }
    }
}

#[cfg(test)]
mod tests;
