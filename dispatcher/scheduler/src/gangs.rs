//! Gathers nodes for gangs: tasks of several instances, which begin on as many nodes at one moment or not at all.
//!
//! ```text
//! in line ──its turn──► gathering: nodes keep free slots for it and ask ──enough have asked──► started
//!    ▲                      └── a node leaves, too few are left, kept in vain ──► given back ─┐
//!    └────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! One gang of a pool gathers at a time, so no two hold a part each of what both need. Gangs come by priority, then by
//! age; one that too few nodes may run is passed over. The first in line waits for single tasks of higher priority, and
//! for those of its own priority that were released before its turn: gangs and single tasks take turns, and neither
//! starves. Then every node that may run it keeps the next slots that become free, and the first nodes that ask get it,
//! so that a gang waits for any nodes and not for certain ones. A gathering ends after [`GATHER_MS`] or after as long as
//! the gang had waited before, and never later than [`GATHER_MAX_MS`]; none follows for as long as it lasted. Runs that
//! outlasted it are remembered: while they leave too few slots on a node, it does not count. Nothing of this is stored:
//! after a restart the same gang is the first in line, and the nodes that keep slots for it ask again.

#[cfg(test)]
mod simulation;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use contract::{
    clock::Moment,
    ids::{AttemptKey, Epoch, JobUid, NodeId, RunId, TaskUid},
};

/// A gathering lasts at least this long before it is given up.
pub const GATHER_MS: i64 = 600_000;
/// A gathering lasts no longer than this, however long its gang has waited.
pub const GATHER_MAX_MS: i64 = 4 * 3_600_000;
/// A node that has not asked again for this long does not count as ready.
pub const READY_MS: i64 = 10_000;

/// A gang that waits for its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gang {
    /// The attempt that its instances will be of.
    pub key: AttemptKey,
    pub job: JobUid,
    /// The job's priority; larger values go first.
    pub priority: i32,
    /// Nodes that it needs, one for each instance.
    pub instances: u32,
    /// Slots that each instance takes.
    pub slots: u32,
    /// Since when it could have run.
    pub since: Moment,
}

/// A node that takes tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub epoch: Epoch,
    /// Slots that each run takes.
    pub runs: BTreeMap<TaskUid, u32>,
    /// Jobs that it may not run, because their preparation failed there.
    pub barred: BTreeSet<JobUid>,
}

/// What a pool looks like when a decision is made.
#[derive(Debug, Clone, Copy)]
pub struct Pool<'a> {
    pub slots_per_node: u32,
    /// The nodes that take tasks, and no others.
    pub hosts: &'a BTreeMap<NodeId, Host>,
    /// Waiting gangs of jobs that run and have not reached their limit; of each kind the oldest is enough.
    pub gangs: &'a [Gang],
    /// By priority: when the oldest single task was released that is not started and that some node may run.
    pub singles: &'a BTreeMap<i32, Moment>,
}

/// An instance of a gang that begins; the first of a gang is its primary task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub node: NodeId,
    pub epoch: Epoch,
    /// The run under which the node asked.
    pub run: RunId,
}

/// What follows from a decision. Orders to nodes are level state, which every answer to a heartbeat repeats; these are
/// their early copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GangEffect {
    /// The node keeps so many slots free, and asks for the gang once it has them.
    Keep { node: NodeId, key: AttemptKey, slots: u32 },
    /// The node keeps none any more.
    GiveBack { node: NodeId, key: AttemptKey },
    /// All instances begin, each on its node.
    Start { key: AttemptKey, members: Vec<Member> },
}

/// The answer to a node that asks for a gang.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GangAnswer {
    /// Ask again soon. A gang that has started meanwhile is answered as any run that owns its task.
    Wait,
    /// The gang does not need the node, or not now: the slots are free for others.
    Drop,
}

/// Mutations of these rules that the simulation must detect. Only tests can switch one on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// A gang starts with a node less than it needs.
    StartsShort,
    /// A node counts as ready although its agent has restarted since it asked.
    OldStartReady,
    /// Nothing is kept: a gang takes what single tasks leave.
    NothingKept,
    /// Single tasks have no turn.
    SinglesHaveNoTurn,
    /// A gang that too few nodes may run is not passed over.
    UnfitBars,
    /// The oldest gang goes first, whatever its priority.
    PriorityIgnored,
    /// A gathering lasts until it succeeds.
    NeverGivenUp,
    /// Runs that outlasted a gathering are forgotten.
    OutlastedForgotten,
    /// A gang that is gone gathers on.
    GoneGathersOn,
    /// A node counts once for each time it asked.
    CountsQuestions,
    /// Nodes that leave stay ready.
    LeftStaysReady,
}

/// The gathering of a pool, and who is next.
#[derive(Debug, Clone, Default)]
pub struct Gangs {
    gathering: Option<Gathering>,
    /// The first in line, and since when.
    turn: Option<(AttemptKey, Moment)>,
    rests_until: Option<Moment>,
    /// Runs that outlasted a gathering, at most one per slot of a node.
    outlasted: BTreeMap<NodeId, BTreeSet<TaskUid>>,
    mistake: Option<Mistake>,
}

#[derive(Debug, Clone)]
struct Gathering {
    gang: Gang,
    kept: BTreeSet<NodeId>,
    /// Nodes that keep the slots free and have asked.
    ready: Vec<(Member, Moment)>,
    since: Moment,
    until: Moment,
}

impl Gangs {
    /// The gang that gathers, and since when.
    pub fn gathering(&self) -> Option<(&Gang, Moment)> {
        self.gathering.as_ref().map(|gathering| (&gathering.gang, gathering.since))
    }

    /// The attempt and slots that a node keeps free.
    pub fn kept_for(&self, node: &NodeId) -> Option<(AttemptKey, u32)> {
        let gathering = self.gathering.as_ref().filter(|gathering| gathering.kept.contains(node))?;
        Some((gathering.gang.key, gathering.gang.slots))
    }

    /// How many nodes may run the gang when they are fewer than it needs: then it waits until the pool has others, and
    /// bars nobody.
    pub fn shortage(&self, gang: &Gang, pool: Pool<'_>) -> Option<u32> {
        let hosts = pool.hosts.iter().filter(|(node, host)| self.may_host(gang, node, host, pool)).count() as u32;
        (hosts < gang.instances).then_some(hosts)
    }

    /// Handles the question of a node that keeps slots free for a gang.
    pub fn ask(&mut self, key: AttemptKey, member: Member, pool: Pool<'_>, now: Moment, effects: &mut Vec<GangEffect>) -> GangAnswer {
        let is_present = pool.hosts.get(&member.node).is_some_and(|host| host.epoch == member.epoch);
        if !pool.gangs.iter().any(|gang| gang.key == key) {
            return GangAnswer::Drop;
        }
        let counts_twice = self.has(Mistake::CountsQuestions);
        let Some(gathering) = self.gathering.as_mut().filter(|gathering| gathering.gang.key == key) else {
            // After a restart nothing has been decided yet; in all other cases nodes have other things to do.
            return if self.turn.is_none() && self.rests_until.is_none() { GangAnswer::Wait } else { GangAnswer::Drop };
        };
        if !is_present || !gathering.kept.contains(&member.node) {
            return GangAnswer::Wait;
        }
        gathering.ready.retain(|(known, _)| known.node != member.node || counts_twice);
        gathering.ready.push((member, now));
        self.start(pool, now, effects);
        GangAnswer::Wait
    }

    /// Decides with every tick, and after changes of nodes and gangs.
    pub fn tend(&mut self, pool: Pool<'_>, now: Moment, effects: &mut Vec<GangEffect>) {
        self.outlasted.retain(|node, _| pool.hosts.contains_key(node));
        self.go_on(pool, now, effects);
        if self.gathering.is_some() || self.rests_until.is_some_and(|until| now < until) {
            return;
        }
        self.rests_until = None;
        let Some(gang) = self.first(pool) else {
            self.turn = None;
            return;
        };
        let turn_at = match self.turn {
            Some((key, at)) if key == gang.key => at,
            _ => now,
        };
        self.turn = Some((gang.key, turn_at));
        let goes_first =
            |(priority, released_at): (&i32, &Moment)| *priority > gang.priority || (*priority == gang.priority && *released_at < turn_at);
        if pool.singles.iter().any(goes_first) && !self.has(Mistake::SinglesHaveNoTurn) {
            return;
        }
        let until = now.plus_ms(now.since(gang.since).clamp(GATHER_MS, GATHER_MAX_MS));
        self.gathering = Some(Gathering { gang, kept: BTreeSet::new(), ready: Vec::new(), since: now, until });
        self.keep(pool, effects);
    }

    /// The gang that is next: by priority, then by age.
    fn first(&self, pool: Pool<'_>) -> Option<Gang> {
        let fits = |gang: &&Gang| self.shortage(gang, pool).is_none() || self.has(Mistake::UnfitBars);
        let priority = |gang: &Gang| if self.has(Mistake::PriorityIgnored) { 0 } else { gang.priority };
        pool.gangs.iter().filter(fits).min_by_key(|gang| (Reverse(priority(gang)), gang.since, gang.key.uid)).copied()
    }

    /// Looks after the present gathering: whether it is still wanted, possible and in time.
    fn go_on(&mut self, pool: Pool<'_>, now: Moment, effects: &mut Vec<GangEffect>) {
        let Some(gathering) = &self.gathering else { return };
        let gang = gathering.gang;
        // The priority of its job may have changed.
        let present = pool.gangs.iter().find(|other| other.key == gang.key).copied();
        let is_gone = present.is_none() && !self.has(Mistake::GoneGathersOn);
        let gang = present.unwrap_or(gang);
        let is_unfit = self.shortage(&gang, pool).is_some() && !self.has(Mistake::UnfitBars);
        let is_passed = self.first(pool).is_some_and(|first| first.priority > gang.priority) && !self.has(Mistake::PriorityIgnored);
        if is_gone || is_unfit || is_passed {
            self.give_back(effects);
            return;
        }
        if let Some(gathering) = &mut self.gathering {
            gathering.gang = gang;
        }
        self.keep(pool, effects);
        self.start(pool, now, effects);
        let is_late = |gathering: &&Gathering| now >= gathering.until;
        let Some(late) = self.gathering.as_ref().filter(is_late).filter(|_| !self.has(Mistake::NeverGivenUp)) else { return };
        self.rests_until = Some(now.plus_ms(now.since(late.since)));
        for node in late.kept.iter().filter(|node| !late.ready.iter().any(|(member, _)| member.node == **node)) {
            if let Some(host) = pool.hosts.get(node) {
                self.outlasted.insert(node.clone(), host.runs.keys().copied().collect());
            }
        }
        self.give_back(effects);
    }

    /// Lets every node keep slots that may run an instance, and no other.
    fn keep(&mut self, pool: Pool<'_>, effects: &mut Vec<GangEffect>) {
        let Some(gang) = self.gathering.as_ref().map(|gathering| gathering.gang) else { return };
        let hosts = pool.hosts.iter().filter(|(node, host)| self.may_host(&gang, node, host, pool));
        let hosts: BTreeSet<NodeId> = hosts.map(|(node, _)| node.clone()).collect();
        let (keeps_left, keeps_none) = (self.has(Mistake::LeftStaysReady), self.has(Mistake::NothingKept));
        let old_starts = self.has(Mistake::OldStartReady);
        let Some(gathering) = self.gathering.as_mut().filter(|_| !keeps_none) else { return };
        let key = gang.key;
        effects.extend(gathering.kept.difference(&hosts).cloned().map(|node| GangEffect::GiveBack { node, key }));
        effects.extend(hosts.difference(&gathering.kept).cloned().map(|node| GangEffect::Keep { node, key, slots: gang.slots }));
        let is_present = |member: &Member| {
            hosts.contains(&member.node) && (old_starts || pool.hosts.get(&member.node).is_some_and(|host| host.epoch == member.epoch))
        };
        gathering.ready.retain(|(member, _)| is_present(member) || keeps_left);
        gathering.kept = hosts;
    }

    /// Starts the gang when enough nodes have asked; the others get their slots back.
    fn start(&mut self, pool: Pool<'_>, now: Moment, effects: &mut Vec<GangEffect>) {
        let Some(gathering) = &self.gathering else { return };
        let is_old_believed = self.has(Mistake::OldStartReady) || self.has(Mistake::LeftStaysReady);
        let is_ready = |(member, at): &&(Member, Moment)| {
            let host = pool.hosts.get(&member.node).filter(|host| host.epoch == member.epoch);
            let is_free = |host: &Host| host.runs.values().sum::<u32>() + gathering.gang.slots <= pool.slots_per_node;
            is_old_believed || (host.is_some_and(is_free) && now.since(*at) <= READY_MS)
        };
        let needed = gathering.gang.instances - u32::from(self.has(Mistake::StartsShort));
        let ready = gathering.ready.iter().filter(is_ready).map(|(member, _)| member.clone());
        let members: Vec<Member> = ready.take(needed as usize).collect();
        if (members.len() as u32) < needed {
            return;
        }
        let key = gathering.gang.key;
        let unneeded = gathering.kept.iter().filter(|node| !members.iter().any(|member| member.node == **node)).cloned();
        effects.extend(unneeded.map(|node| GangEffect::GiveBack { node, key }));
        effects.push(GangEffect::Start { key, members });
        (self.gathering, self.turn) = (None, None);
    }

    fn give_back(&mut self, effects: &mut Vec<GangEffect>) {
        let Some(gathering) = self.gathering.take() else { return };
        self.turn = None;
        let key = gathering.gang.key;
        effects.extend(gathering.kept.into_iter().map(|node| GangEffect::GiveBack { node, key }));
    }

    /// Whether an instance may run on the node, now or once its present runs have ended.
    fn may_host(&self, gang: &Gang, node: &NodeId, host: &Host, pool: Pool<'_>) -> bool {
        let outlasted = self.outlasted.get(node).filter(|_| !self.has(Mistake::OutlastedForgotten));
        let taken = |uids: &BTreeSet<TaskUid>| host.runs.iter().filter(|(uid, _)| uids.contains(*uid)).map(|(_, slots)| slots).sum();
        let free = pool.slots_per_node.saturating_sub(outlasted.map_or(0, taken));
        gang.slots <= free && !host.barred.contains(&gang.job)
    }

    fn has(&self, mistake: Mistake) -> bool {
        cfg!(test) && self.mistake == Some(mistake)
    }
}
