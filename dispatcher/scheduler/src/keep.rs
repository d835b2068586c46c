//! Reserves a node for a task of several slots that has waited for long: no other task starts there until it does.
//!
//! Where tasks of one slot follow each other, two slots of a node are never free at the same moment, and an agent sets
//! slots aside by itself only for a short while. So the scheduler chooses one node for one such task:
//! ```text
//! released, unstarted for `aged_ms` ──► kept: the node fills no slot that the task needs ──its slots are free──► starts
//!                                         └── started elsewhere, gone, or kept too long ──► given back
//! ```
//! A pool keeps one node at a time: no longer than [`KEEP_MS`] or than the task had waited before, and never longer
//! than [`KEEP_MAX_MS`]. Afterwards it keeps none for as long as it kept this one. The runs that outlasted a keep are
//! remembered; while they leave too few slots, their node is not kept again. Agents read the keep from the answers to
//! their heartbeats, so a lost message costs only time, and an older agent simply goes on as before.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, btree_map::Entry},
};

use contract::{
    clock::Moment,
    ids::{AttemptKey, JobUid, NodeId},
};

use crate::{Bug, Core, Effect, Node, window::waits};

/// A node is kept for at least this long before it is given back unused.
pub const KEEP_MS: i64 = 600_000;
/// A node is kept no longer than this, however long its task has waited.
pub const KEEP_MAX_MS: i64 = 4 * 3_600_000;

/// A node that is kept for an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    pub node: NodeId,
    /// The attempt that it is kept for.
    pub key: AttemptKey,
    /// Slots that the attempt takes.
    pub slots: u32,
    since: Moment,
    until: Moment,
}

/// The pool's keep, and until when no other follows one that was in vain.
#[derive(Debug, Clone, Default)]
pub(super) struct Keeping {
    keep: Option<Keep>,
    rests_until: Option<Moment>,
    /// Runs that outlasted a keep of their node, at most one per slot. A restart forgets them.
    outlasted: BTreeMap<NodeId, Vec<AttemptKey>>,
}

/// An attempt that has waited long enough for a node to be kept for it.
#[derive(Debug, Clone, Copy)]
struct Aged {
    key: AttemptKey,
    job: JobUid,
    slots: u32,
    waited_ms: i64,
}

impl Core {
    /// The present keep.
    pub fn keep(&self) -> Option<&Keep> {
        self.keeping.keep.as_ref()
    }

    /// The attempt and slots that this node is kept for, while the attempt still waits.
    pub(super) fn kept_for(&self, node: &NodeId) -> Option<(AttemptKey, u32)> {
        let keep = self.keep().filter(|keep| keep.node == *node && self.still_waits(keep))?;
        Some((keep.key, keep.slots))
    }

    /// Whether a node sets slots aside in vain: the attempt is running, gone, or another node is kept for it.
    pub(super) fn is_set_aside_in_vain(&self, node: &NodeId, key: &AttemptKey) -> bool {
        let is_elsewhere = self.keep().is_some_and(|keep| keep.key == *key && keep.node != *node);
        !waits(&self.live, key) || is_elsewhere
    }

    fn still_waits(&self, keep: &Keep) -> bool {
        waits(&self.live, &keep.key) || self.has(Bug::KeptForEver)
    }

    /// Gives back the kept node when its time is over, and chooses the next one.
    pub(super) fn tend_keep(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if let Some(keep) = self.keeping.keep.take() {
            let may_start = self.still_waits(&keep) && self.may_start_on(&keep.node, &keep.key, keep.slots);
            if may_start && now < keep.until {
                self.keeping.keep = Some(keep);
                return;
            }
            if may_start {
                self.keeping.rests_until = Some(now.plus_ms(now.since(keep.since)));
                self.note_outlasted(&keep.node);
            }
            effects.push(Effect::GiveBack { node: keep.node, key: keep.key });
        }
        if self.keeping.rests_until.is_some_and(|until| now < until) || self.has(Bug::NothingKept) {
            return;
        }
        self.keeping.rests_until = None;
        let Some((Aged { key, slots, waited_ms, .. }, node)) = self.next_keep(now) else { return };
        effects.push(Effect::Keep { node: node.clone(), key, slots, waited_ms });
        self.keeping.keep = Some(Keep { node, key, slots, since: now, until: now.plus_ms(waited_ms.clamp(KEEP_MS, KEEP_MAX_MS)) });
    }

    /// The first attempt that has waited long enough and fits a node, with the emptiest such node.
    fn next_keep(&self, now: Moment) -> Option<(Aged, NodeId)> {
        // A job that no node is barred for fits wherever its slots do: if this many slots fit no node, more fit none
        // either.
        let mut too_many = u32::MAX;
        for aged in self.longest_waiting(now) {
            if aged.slots >= too_many {
                continue;
            }
            if let Some(node) = self.emptiest(&aged.key, aged.slots) {
                return Some((aged, node));
            }
            if self.has(Bug::UnfitBarsKeep) {
                return None;
            }
            if self.jobs.get(&aged.job).is_none_or(|job| job.barred == 0) {
                too_many = aged.slots;
            }
        }
        None
    }

    /// Attempts of several slots that have waited long enough, by priority and then by age. Where an attempt fits
    /// depends on its job and slots only, so the oldest of each kind stands for all.
    fn longest_waiting(&self, now: Moment) -> Vec<Aged> {
        let mut kinds: BTreeMap<(JobUid, u32), Aged> = BTreeMap::new();
        let mut found = Vec::new();
        for (at, key) in self.window.in_order() {
            let waited_ms = now.since(*at);
            if waited_ms < self.timers.aged_ms {
                break;
            }
            let Some(attempt) = self.live.get(&key.uid).filter(|attempt| attempt.slots > 1 && waits(&self.live, key)) else { continue };
            if let Entry::Vacant(kind) = kinds.entry((attempt.job, attempt.slots)) {
                found.push(*kind.insert(Aged { key: *key, job: attempt.job, slots: attempt.slots, waited_ms }));
            }
        }
        // A stable sort, so attempts of one priority stay in the order of their release.
        found.sort_by_key(|aged| Reverse(self.jobs.get(&aged.job).map_or(0, |job| job.priority)));
        found
    }

    /// The node on which the fewest slots have to become free.
    fn emptiest(&self, key: &AttemptKey, slots: u32) -> Option<NodeId> {
        let may_start = self.nodes.iter().filter(|(id, _)| self.may_start_on(id, key, slots) && !self.is_hopeless(id, slots));
        may_start.min_by_key(|(_, node)| node.running_slots()).map(|(id, _)| id.clone())
    }

    /// Remembers the runs on a node that was kept in vain.
    fn note_outlasted(&mut self, id: &NodeId) {
        let runs = self.held(id).into_iter().filter_map(|uid| self.live.get(&uid).map(|attempt| attempt.key)).collect();
        self.keeping.outlasted.insert(id.clone(), runs);
        let nodes = &self.nodes;
        self.keeping.outlasted.retain(|node, _| nodes.contains_key(node));
    }

    /// Whether the remembered runs still leave too few free slots on the node.
    fn is_hopeless(&self, id: &NodeId, slots: u32) -> bool {
        let runs_here = |key: &&AttemptKey| {
            let attempt = self.live.get(&key.uid).filter(|attempt| attempt.key == **key);
            attempt.and_then(|attempt| attempt.owner()).is_some_and(|(_, node)| node == id)
        };
        let Some(outlasted) = self.keeping.outlasted.get(id).filter(|_| !self.has(Bug::VainKeepForgotten)) else { return false };
        let taken: u32 = outlasted.iter().filter(runs_here).filter_map(|key| self.live.get(&key.uid)).map(|attempt| attempt.slots).sum();
        self.slots_per_node.saturating_sub(taken) < slots
    }

    fn may_start_on(&self, id: &NodeId, key: &AttemptKey, slots: u32) -> bool {
        if slots > self.slots_per_node || !self.nodes.get(id).is_some_and(Node::takes_tasks) {
            return false;
        }
        let Some(attempt) = self.live.get(&key.uid) else { return self.has(Bug::KeptForEver) };
        !self.is_turned_away(attempt.job, id)
    }
}

#[cfg(test)]
mod tests {
    use contract::{
        clock::Now,
        ids::{Epoch, Fence, JobUid, RunId, RunKey, TaskUid},
        message::{Heartbeat, NodeReport, VERSION},
        state::NodeState,
        time::Timestamp,
    };

    use super::*;
    use crate::{Event, HeartbeatAnswer, Ready, Timers};

    const JOB: JobUid = JobUid(1);

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn heartbeat(name: &str, live: Vec<RunKey>) -> Heartbeat {
        Heartbeat {
            v: VERSION,
            pool: "pool".parse().unwrap(),
            node: node(name),
            epoch: Epoch(1),
            live,
            kept: vec![],
            free_slots: 0,
            is_consuming: true,
            job_tasks: vec![],
            report: None,
            sets_aside: (name == "b").then_some(KEY),
            invocations: 0,
        }
    }

    /// A pool with two nodes of two slots, and a released task of two slots.
    struct Pool {
        core: Core,
        now: Now,
        runs: BTreeMap<NodeId, Vec<RunKey>>,
    }

    impl Pool {
        fn new() -> Pool {
            let mut pool = Pool {
                core: Core::new(2, Timers::default()),
                now: Now { time: Timestamp(1_000_000), moment: Moment(5_000) },
                runs: BTreeMap::new(),
            };
            pool.step(Event::Job { job: JOB, priority: 0, max_parallel: -1, runs: true });
            for name in ["a", "b"] {
                pool.step(Event::Joined { node: node(name), epoch: Epoch(1), keeps_runs: false });
                let report =
                    NodeReport { number: 0, state: NodeState::Idle, start_task: None, fault: None, is_drained: false, at: pool.now.time };
                pool.step(Event::Reported { node: node(name), epoch: Epoch(1), report });
            }
            let wide = Ready { uid: TaskUid(1), attempt: 0, fence: Fence(0), slots: 2, crashes: 0, retries: 0, retries_max: 0 };
            pool.step(Event::Added { job: JOB, tasks: vec![wide] });
            pool
        }

        fn heartbeat(&mut self, name: &str) -> HeartbeatAnswer {
            let live = self.runs.get(&node(name)).cloned().unwrap_or_default();
            self.core.heartbeat(heartbeat(name, live), self.now, &mut Vec::new())
        }

        fn step(&mut self, event: Event) -> Vec<Effect> {
            let mut effects = Vec::new();
            self.core.step(event, self.now, &mut effects);
            effects
        }

        /// Starts a task of one slot that does not end.
        fn start(&mut self, name: &str, uid: u64) {
            let task = Ready { uid: TaskUid(uid), attempt: 0, fence: Fence(0), slots: 1, crashes: 0, retries: 0, retries_max: 0 };
            self.step(Event::Fetched { job: JOB, asked: 1, tasks: vec![task] });
            let key = AttemptKey { uid: TaskUid(uid), attempt: 1, fence: Fence(1) };
            let run = key.with(RunId(u128::from(uid)));
            self.core.ask(run, (&node(name), Epoch(1)), true, self.now, &mut Vec::new());
            self.runs.insert(node(name), vec![run]);
        }

        /// Lets time pass with heartbeats of all nodes, and returns the effects on the keep.
        fn pass(&mut self, ms: i64) -> Vec<Effect> {
            let (until, mut found) = (self.now.moment.plus_ms(ms), Vec::new());
            while self.now.moment < until {
                self.now.moment = self.now.moment.plus_ms(5_000).min(until);
                for name in ["a", "b"] {
                    self.heartbeat(name);
                }
                let effects = self.step(Event::Tick { events_behind: false, queue_ready: Some(9) });
                found.extend(effects.into_iter().filter(|effect| matches!(effect, Effect::Keep { .. } | Effect::GiveBack { .. })));
            }
            found
        }

        /// What the node is kept for, and whether it sets slots aside in vain, by the answer to a heartbeat.
        fn answer(&mut self, name: &str) -> (Option<(AttemptKey, u32)>, bool) {
            let answer = self.heartbeat(name);
            (answer.keep, answer.set_aside_in_vain.is_some())
        }
    }

    const KEY: AttemptKey = AttemptKey { uid: TaskUid(1), attempt: 1, fence: Fence(1) };

    #[test]
    fn a_node_is_kept_for_a_task_that_has_waited_long_and_given_back_when_it_is_gone() {
        let mut pool = Pool::new();
        assert_eq!(pool.pass(40_000), vec![]);
        assert_eq!(pool.answer("b"), (None, false), "any node may take it so far");
        assert_eq!(pool.pass(5_000), vec![Effect::Keep { node: node("a"), key: KEY, slots: 2, waited_ms: 45_000 }]);
        assert_eq!((pool.answer("a"), pool.answer("b")), ((Some((KEY, 2)), false), (None, true)), "one node of the pool");
        assert_eq!(pool.pass(60_000), vec![]);
        pool.step(Event::Cancel { uid: TaskUid(1), delete: false });
        assert_eq!((pool.answer("a"), pool.answer("b")), ((None, false), (None, true)), "an answer says so before the next tick");
        assert_eq!(pool.pass(5_000), vec![Effect::GiveBack { node: node("a"), key: KEY }]);
        assert_eq!(pool.core.keep(), None);
    }

    #[test]
    fn a_node_that_leaves_is_followed_by_another() {
        let mut pool = Pool::new();
        pool.pass(45_000);
        pool.step(Event::Drain { node: node("a"), option: contract::state::DeallocationOption::TaskCompletion });
        let moved =
            [Effect::GiveBack { node: node("a"), key: KEY }, Effect::Keep { node: node("b"), key: KEY, slots: 2, waited_ms: 50_000 }];
        assert_eq!(pool.pass(5_000), moved);
    }

    #[test]
    fn a_node_that_is_kept_in_vain_works_for_as_long_as_it_was_kept() {
        let mut pool = Pool::new();
        pool.pass(45_000);
        assert_eq!(pool.pass(KEEP_MS), vec![Effect::GiveBack { node: node("a"), key: KEY }]);
        assert_eq!(pool.pass(KEEP_MS - 5_000), vec![]);
        assert!(matches!(pool.pass(5_000)[..], [Effect::Keep { waited_ms: 1_245_000, .. }]));
        assert_eq!(pool.pass(1_240_000), vec![], "the longer it has waited, the longer the next one lasts");
    }

    #[test]
    fn a_keep_ends_after_a_few_hours_however_long_its_task_has_waited() {
        let mut pool = Pool::new();
        pool.pass(45_000);
        let mut kept: Vec<i64> = Vec::new();
        let mut since = None;
        for _ in 0..10 * 24 * 60 {
            for effect in pool.pass(60_000) {
                match effect {
                    Effect::Keep { .. } => since = Some(pool.now.moment),
                    Effect::GiveBack { .. } => kept.extend(since.take().map(|since| pool.now.moment.since(since))),
                    _ => {}
                }
            }
        }
        assert!(kept.len() > 10 && kept.iter().all(|ms| *ms <= KEEP_MAX_MS + 60_000), "{kept:?}");
    }

    #[test]
    fn the_node_of_a_run_that_outlasted_a_keep_is_not_kept_again_while_it_runs() {
        let mut pool = Pool::new();
        pool.start("a", 2);
        pool.start("b", 3);
        assert!(matches!(&pool.pass(45_000)[..], [Effect::Keep { node: kept, .. }] if *kept == node("a")));
        pool.pass(KEEP_MS);
        let next = pool.pass(KEEP_MS);
        assert!(matches!(&next[..], [Effect::Keep { node: kept, .. }] if *kept == node("b")), "{next:?}");
        pool.pass(2 * KEEP_MS + 45_000);
        assert_eq!(pool.pass(8 * KEEP_MS), vec![], "both nodes are hopeless");
        pool.step(Event::Cancel { uid: TaskUid(2), delete: false });
        assert!(matches!(&pool.pass(5_000)[..], [Effect::Keep { node: kept, .. }] if *kept == node("a")), "its run is over");
    }

    #[test]
    fn an_attempt_that_fits_no_node_bars_no_other() {
        let mut pool = Pool::new();
        let job = JobUid(2);
        pool.step(Event::Job { job, priority: -5, max_parallel: -1, runs: true });
        let wide = Ready { uid: TaskUid(7), attempt: 0, fence: Fence(0), slots: 2, crashes: 0, retries: 0, retries_max: 0 };
        pool.step(Event::Added { job, tasks: vec![wide] });
        pool.step(Event::Fetched { job, asked: 1, tasks: vec![wide] });
        let large = pool.core.live.get_mut(&KEY.uid).unwrap();
        large.slots = 3;
        assert!(matches!(&pool.pass(45_000)[..], [Effect::Keep { key, .. }] if key.uid == TaskUid(7)));
    }
}
