//! Node faults: runs that fail because their node cannot do its work, through no fault of the task.
//!
//! ```text
//! working ──a run ends as the node's fault──► paused ──the pause is over──► working ──a run exits──► working
//!                                               ▲──── another fault: for twice as long ────┘
//! ```
//! Faults during a pause do not lengthen it. The task is queued again after each fault, with a pause of its own from
//! the second on; only faults on different nodes count against the task. A restart forgets all of it.

use std::collections::{BTreeSet, HashMap};

use contract::{
    backoff,
    clock::Moment,
    ids::{NodeId, TaskUid},
    outcome::Fault,
};
use model::task::RequeueCause;

use crate::{Bug, Core, Effect, EndCause};

/// A node's pause after its first fault in a row; it doubles with each further one.
const FAULT_PAUSE_MS: i64 = 1_000;
/// The longest pause.
const FAULT_PAUSE_MAX_MS: i64 = 300_000;
/// A paused node with this many faults in a row is shown as unusable.
const FAULTS_SHOWN: u32 = 3;
/// A task that failed through faults of this many different nodes is completed as failed.
const FAULT_NODES_MAX: usize = 5;
/// Tasks whose faults are remembered at most; beyond it, the one whose last fault is oldest is forgotten.
const FAULTY_TASKS_MAX: usize = 1_024;

/// A node's faults since one of its runs last exited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct NodeFaults {
    /// Faults, without those during a pause.
    in_a_row: u32,
    /// When the present pause ends.
    paused_until: Option<Moment>,
}

impl NodeFaults {
    /// Whether the node gets no tasks at present.
    pub(super) fn is_paused(&self) -> bool {
        self.paused_until.is_some()
    }

    /// Whether the node is shown as unusable.
    pub(super) fn is_shown(&self) -> bool {
        self.is_paused() && self.in_a_row >= FAULTS_SHOWN
    }
}

/// The node faults that a task has met.
#[derive(Debug, Clone)]
pub(super) struct TaskFaults {
    count: u32,
    nodes: BTreeSet<NodeId>,
    last_at: Moment,
}

impl Core {
    /// Handles a run that failed through its node's fault: queues the task again or gives it up, and pauses the node.
    pub(super) fn on_fault(&mut self, uid: TaskUid, fault: &Fault, now: Moment, effects: &mut Vec<Effect>) {
        let Some((_, node)) = self.live.get(&uid).and_then(|attempt| attempt.owner()) else { return };
        let node = node.clone();
        let (count, nodes) = self.note_task_fault(uid, &node, now);
        if nodes >= FAULT_NODES_MAX {
            self.end(uid, EndCause::Faults { nodes: nodes as u32, fault: fault.clone() }, effects);
        } else {
            self.requeue_after(uid, RequeueCause::Recovery, backoff::retry_pause_ms(uid.0, count - 1), effects);
        }
        self.pause_node(&node, fault, now, effects);
    }

    /// Counts a fault for a task; returns its faults so far, and the number of different nodes.
    fn note_task_fault(&mut self, uid: TaskUid, node: &NodeId, now: Moment) -> (u32, usize) {
        if self.faulty.len() >= FAULTY_TASKS_MAX && !self.faulty.contains_key(&uid) {
            let oldest = self.faulty.iter().min_by_key(|(uid, faults)| (faults.last_at, **uid)).map(|(uid, _)| *uid);
            oldest.and_then(|uid| self.faulty.remove(&uid));
        }
        let faults = self.faulty.entry(uid).or_insert(TaskFaults { count: 0, nodes: BTreeSet::new(), last_at: now });
        (faults.count, faults.last_at) = (faults.count.saturating_add(1), now);
        faults.nodes.insert(node.clone());
        let (count, nodes) = (faults.count, faults.nodes.len());
        (count, if self.has(Bug::EveryFaultCounts) { count as usize } else { nodes })
    }

    fn pause_node(&mut self, id: &NodeId, fault: &Fault, now: Moment, effects: &mut Vec<Effect>) {
        let grows = !self.has(Bug::FaultPauseNeverGrows);
        if self.has(Bug::FaultyNodeWorksOn) {
            return;
        }
        let Some(node) = self.nodes.get_mut(id).filter(|node| node.faults.paused_until.is_none_or(|until| until <= now)) else { return };
        node.faults.in_a_row = node.faults.in_a_row.saturating_add(1);
        let doublings = if grows { (node.faults.in_a_row - 1).min(16) } else { 0 };
        let pause_ms = (FAULT_PAUSE_MS << doublings).min(FAULT_PAUSE_MAX_MS);
        node.faults.paused_until = Some(now.plus_ms(pause_ms));
        let (in_a_row, state) = (node.faults.in_a_row, node.state());
        effects.push(Effect::NodePaused { node: id.clone(), in_a_row, pause_ms, fault: fault.clone() });
        effects.push(Effect::Nudge { node: id.clone() });
        self.note_state(id, state, effects);
    }

    /// Resets a node's faults after a run that exited with whatever code.
    pub(super) fn note_worked(&mut self, id: &NodeId) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.faults.in_a_row = 0;
        }
    }

    /// Ends the pauses that are over.
    pub(super) fn end_pauses(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let is_due = |faults: &NodeFaults| faults.paused_until.is_some_and(|until| until <= now);
        let due: Vec<NodeId> = self.nodes.iter().filter(|(_, node)| is_due(&node.faults)).map(|(id, _)| id.clone()).collect();
        for id in due {
            self.end_pause(&id, false, effects);
        }
    }

    /// Ends a node's pause. `is_mended` also resets its faults, because the agent restarted or its folders were
    /// emptied.
    pub(super) fn end_pause(&mut self, id: &NodeId, is_mended: bool, effects: &mut Vec<Effect>) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        if is_mended {
            node.faults.in_a_row = 0;
        }
        if node.faults.paused_until.take().is_none() {
            return;
        }
        let state = node.state();
        effects.push(Effect::NodeResumed { node: id.clone() });
        effects.push(Effect::Nudge { node: id.clone() });
        self.note_state(id, state, effects);
    }

    /// Forgets the faults of a task that has ended.
    pub(super) fn forget_faults(&mut self, uid: TaskUid) {
        self.faulty.remove(&uid);
    }
}

/// Faults by task.
pub(super) type FaultyTasks = HashMap<TaskUid, TaskFaults>;

#[cfg(test)]
mod tests {
    use contract::{
        clock::Now,
        ids::{AttemptKey, Epoch, Fence, JobUid, RunId},
        message::{Finished, Heartbeat, NodeOrder, NodeReport, VERSION},
        outcome::{Outcome, Stream, Usage},
        state::NodeState,
        time::Timestamp,
    };

    use super::*;
    use crate::{AskAnswer, Event, Ready, Timers};

    const JOB: JobUid = JobUid(1);
    const UID: TaskUid = TaskUid(1);

    /// A pool with one task, which is queued again after every fault.
    struct Pool {
        core: Core,
        now: Now,
        key: AttemptKey,
    }

    impl Pool {
        fn new(nodes: &[&str]) -> Pool {
            let now = Now { time: Timestamp(1_000_000), moment: Moment(5_000) };
            let key = AttemptKey { uid: UID, attempt: 0, fence: Fence(0) };
            let mut pool = Pool { core: Core::new(1, Timers::default()), now, key };
            pool.step(Event::Job { job: JOB, priority: 0, max_parallel: -1, runs: true });
            for name in nodes {
                pool.join(name);
            }
            pool
        }

        fn join(&mut self, name: &str) {
            let epoch = Epoch(self.core.nodes().get(&node(name)).map_or(1, |node| node.epoch.0 + 1));
            self.step(Event::Joined { node: node(name), epoch, keeps_runs: false });
            let report =
                NodeReport { number: 0, state: NodeState::Idle, start_task: None, fault: None, is_drained: false, at: self.now.time };
            self.step(Event::Reported { node: node(name), epoch, report });
        }

        fn step(&mut self, event: Event) -> Vec<Effect> {
            let mut effects = Vec::new();
            self.core.step(event, self.now, &mut effects);
            effects
        }

        fn tick(&mut self, ms: i64) -> Vec<Effect> {
            self.now = self.now.plus_ms(ms);
            self.step(Event::Tick { events_behind: false, queue_ready: None })
        }

        /// Releases the task once more and returns the answer to the node's question.
        fn ask(&mut self, name: &str) -> AskAnswer {
            if !self.core.live().contains_key(&UID) {
                let AttemptKey { attempt, fence, .. } = self.key;
                let task = Ready { uid: UID, attempt, fence, slots: 1, crashes: 0, retries: 0, retries_max: 0 };
                self.step(Event::Fetched { job: JOB, asked: 1, tasks: vec![task] });
                self.key = self.core.live()[&UID].key;
            }
            let (run, epoch) = (self.key.with(RunId(u128::from(self.key.attempt))), self.core.nodes()[&node(name)].epoch);
            self.core.ask(run, (&node(name), epoch), true, self.now, &mut Vec::new())
        }

        fn end(&mut self, name: &str, outcome: Outcome) -> Vec<Effect> {
            let (key, at, epoch) = (self.key, self.now.time, self.core.nodes()[&node(name)].epoch);
            let finished = Box::new(Finished {
                uid: key.uid,
                attempt: key.attempt,
                fence: key.fence,
                run: RunId(u128::from(key.attempt)),
                started_at: at,
                ended_at: at,
                outcome,
                stdout: Stream::Empty,
                stderr: Stream::Empty,
                usage: Usage::default(),
            });
            let effects = self.step(Event::Finished { node: node(name), epoch, finished });
            self.key.fence = self.key.fence.next();
            effects
        }

        fn order(&mut self, name: &str) -> NodeOrder {
            let heartbeat = Heartbeat {
                v: VERSION,
                pool: "pool".parse().unwrap(),
                node: node(name),
                epoch: self.core.nodes()[&node(name)].epoch,
                live: vec![],
                kept: vec![],
                free_slots: 1,
                is_consuming: true,
                job_tasks: vec![],
                report: None,
                sets_aside: None,
                invocations: 0,
            };
            self.core.heartbeat(heartbeat, self.now, &mut Vec::new()).order
        }
    }

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn broken() -> Outcome {
        Outcome::Node(Fault { code: "NodeError".to_owned(), message: "read-only file system".to_owned(), details: vec![] })
    }

    fn pause_of(effects: &[Effect]) -> Option<(u32, i64)> {
        effects.iter().find_map(|effect| match effect {
            Effect::NodePaused { in_a_row, pause_ms, .. } => Some((*in_a_row, *pause_ms)),
            _ => None,
        })
    }

    #[test]
    fn a_node_whose_runs_end_by_its_own_fault_gets_no_work_for_longer_each_time() {
        let mut pool = Pool::new(&["a"]);
        for (in_a_row, pause_ms) in (1..).zip([1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 300_000, 300_000]) {
            assert_eq!(pool.ask("a"), AskAnswer::Run);
            assert_eq!(pause_of(&pool.end("a", broken())), Some((in_a_row, pause_ms)));
            assert!(!pool.core.nodes()[&node("a")].takes_tasks());
            assert_eq!((pool.order("a"), pool.core.slots()), (NodeOrder::Hold, 0));
            assert_eq!(pool.core.nodes()[&node("a")].state() == NodeState::Unusable, in_a_row >= FAULTS_SHOWN);
            for _ in 0..pause_ms / 1_000 - 1 {
                assert!(!pool.tick(1_000).contains(&Effect::NodeResumed { node: node("a") }));
                pool.order("a");
            }
            assert!(pool.tick(1_000).contains(&Effect::NodeResumed { node: node("a") }));
            assert_eq!((pool.order("a"), pool.core.nodes()[&node("a")].state()), (NodeOrder::Work, NodeState::Idle));
        }
        assert_eq!(pool.ask("a"), AskAnswer::Run);
        pool.end("a", Outcome::Exit { code: 1 });
        pool.key = AttemptKey { uid: UID, attempt: 50, fence: Fence(99) };
        assert_eq!(pool.ask("a"), AskAnswer::Run);
        assert_eq!(pause_of(&pool.end("a", broken())), Some((1, 1_000)), "a run that exits, however, ends the row");
        pool.join("a");
        assert_eq!((pool.order("a"), pool.ask("a")), (NodeOrder::Work, AskAnswer::Run), "so does a newer start of the agent");
    }

    #[test]
    fn one_broken_node_ends_no_task_and_rests_it_for_longer_each_time_but_five_end_it() {
        let names = ["a", "b", "c", "d", "e"];
        let mut pool = Pool::new(&names);
        let mut pauses = Vec::new();
        for _ in 0..20 {
            assert_eq!(pool.ask("a"), AskAnswer::Run);
            let effects = pool.end("a", broken());
            pauses.extend(effects.iter().filter_map(|effect| match effect {
                Effect::Requeue { cause: RequeueCause::Recovery, crashes: 0, pause_ms, .. } => Some(*pause_ms),
                _ => None,
            }));
            for _ in 0..30 {
                for name in names {
                    pool.order(name);
                }
                pool.tick(10_000);
            }
        }
        assert_eq!(pauses.len(), 20);
        assert!(pauses[0] == 0 && (750..=1_250).contains(&pauses[1]) && pauses[19] >= 45_000, "{pauses:?}");
        for name in &names[1..] {
            assert_eq!(pool.ask(name), AskAnswer::Run);
            let effects = pool.end(name, broken());
            let is_end = |effect: &Effect| matches!(effect, Effect::End { cause: EndCause::Faults { nodes: 5, .. }, .. });
            assert_eq!(effects.iter().any(is_end), *name == "e", "{name}");
        }
        assert!(pool.core.faulty.is_empty());
    }

    #[test]
    fn faults_that_come_together_are_one_and_a_task_without_end_is_forgotten_at_last() {
        let mut pool = Pool::new(&["a"]);
        let now = pool.now.moment;
        for uid in 1..=2 * FAULTY_TASKS_MAX as u64 {
            pool.core.note_task_fault(TaskUid(uid), &node("a"), now.plus_ms(uid.cast_signed()));
        }
        assert_eq!(pool.core.faulty.len(), FAULTY_TASKS_MAX);
        assert!(pool.core.faulty.contains_key(&TaskUid(2 * FAULTY_TASKS_MAX as u64)));
        let fault = Fault { code: "NodeError".to_owned(), message: "m".to_owned(), details: vec![] };
        let mut effects = Vec::new();
        for _ in 0..3 {
            pool.core.pause_node(&node("a"), &fault, now, &mut effects);
        }
        assert_eq!(effects.iter().filter(|effect| matches!(effect, Effect::NodePaused { .. })).count(), 1);
    }
}
