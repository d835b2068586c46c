//! What happens to nodes: join, beat, report, drain, loss.
//!
//! ```text
//! asked for ──join──► starting ──ready──► idle ⇄ running ──drain──► leaving ──drained──► gone
//!                                   └── silent for a lease ──► unknown ──beat / join──► back
//! ```

use std::collections::HashMap;

use broker_config::{
    ids::{Epoch, NodeId, TaskUid},
    message::{Beat, NodeOrder, NodeReport, Verdict},
    state::{DeallocationOption, NodeState},
    time::Timestamp,
};

use crate::core::{Bug, Core, Effect, Phase, RESTART_MS, Turn};

/// A node, as far as dispatching goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The agent's start; zero before the first.
    pub epoch: Epoch,
    /// The last sign of life.
    pub beat_at: Timestamp,
    /// Since when it holds nothing.
    pub empty_since: Timestamp,
    /// How it is drained, once asked.
    pub drain: Option<DeallocationOption>,
    /// Whether it has confirmed that it holds nothing.
    pub is_drained: bool,
    /// What it was asked for beside running tasks.
    pub turn: Option<Turn>,
    is_enabled: bool,
    is_lost: bool,
    reported: NodeState,
    runs: HashMap<TaskUid, u32>,
    noted: NodeState,
}

impl Node {
    /// A node that does not exist yet.
    pub fn asked_for(now: Timestamp) -> Node {
        Node {
            epoch: Epoch(0),
            beat_at: now,
            empty_since: now,
            drain: None,
            is_drained: false,
            turn: None,
            is_enabled: true,
            is_lost: false,
            reported: NodeState::Creating,
            runs: HashMap::new(),
            noted: NodeState::Creating,
        }
    }

    /// A node as it was when the dispatcher stopped; its lease is fresh.
    pub fn restored(
        epoch: Epoch,
        state: NodeState,
        is_enabled: bool,
        (drain, is_drained): (Option<DeallocationOption>, bool),
        turn: Option<Turn>,
        now: Timestamp,
    ) -> Node {
        let reported = match state {
            NodeState::Idle
            | NodeState::Creating
            | NodeState::Starting
            | NodeState::WaitingForStartTask
            | NodeState::StartTaskFailed
            | NodeState::Unusable => state,
            _ if epoch.0 > 0 => NodeState::Idle,
            _ => NodeState::Creating,
        };
        Node { epoch, is_enabled, drain, is_drained, turn, reported, noted: state, ..Node::asked_for(now) }
    }

    /// The state people see.
    pub fn state(&self) -> NodeState {
        match (self.reported, self.turn) {
            _ if self.drain.is_some() => NodeState::LeavingPool,
            (NodeState::Creating, _) => NodeState::Creating,
            (_, Some(turn @ (Turn::Deallocate { .. } | Turn::Off))) => turn.state(),
            _ if self.is_lost => NodeState::Unknown,
            (_, Some(turn)) => turn.state(),
            (NodeState::Idle | NodeState::Running, None) if !self.runs.is_empty() => NodeState::Running,
            (NodeState::Idle | NodeState::Running, None) if !self.is_enabled => NodeState::Offline,
            (NodeState::Idle | NodeState::Running, None) => NodeState::Idle,
            (other, None) => other,
        }
    }

    /// Whether it can be given tasks.
    pub fn takes_tasks(&self) -> bool {
        self.is_enabled && self.drain.is_none() && self.state().takes_tasks()
    }

    /// Runs it holds.
    pub fn run_count(&self) -> u32 {
        self.runs.len() as u32
    }

    /// Slots they take.
    pub fn running_slots(&self) -> u32 {
        self.runs.values().sum()
    }

    /// Whether an agent has ever joined.
    pub fn has_joined(&self) -> bool {
        self.epoch.0 > 0
    }

    fn order(&self) -> NodeOrder {
        match (self.drain, self.turn.and_then(|turn| turn.order(self.epoch))) {
            (Some(option), _) => NodeOrder::Drain { option },
            (None, Some(order)) => order,
            (None, None) if self.is_enabled => NodeOrder::Work,
            (None, None) => NodeOrder::Hold,
        }
    }

    /// Whether it is asked to report that it holds nothing.
    fn must_empty(&self) -> bool {
        self.drain.is_some() || matches!(self.turn, Some(Turn::Deallocate { .. }))
    }

    pub(super) fn hold(&mut self, uid: TaskUid, slots: u32) {
        self.runs.insert(uid, slots);
    }
}

impl Core {
    /// A node that was there when the dispatcher stopped.
    pub fn restore_node(&mut self, id: NodeId, node: Node) {
        self.nodes.insert(id, node);
    }

    /// What a node is told when it joins.
    pub fn order(&self, node: &NodeId) -> NodeOrder {
        self.nodes.get(node).map_or(NodeOrder::Leave, Node::order)
    }

    pub(super) fn release_hold(&mut self, id: &NodeId, uid: TaskUid, _slots: u32, effects: &mut Vec<Effect>) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        if node.runs.remove(&uid).is_some() && node.runs.is_empty() {
            node.empty_since = node.beat_at.max(node.empty_since);
        }
        let state = node.state();
        self.note_state(id, state, effects);
    }

    pub(super) fn note_state(&mut self, id: &NodeId, state: NodeState, effects: &mut Vec<Effect>) {
        if let Some(node) = self.nodes.get_mut(id)
            && node.noted != state
        {
            node.noted = state;
            effects.push(Effect::NodeState { node: id.clone(), state });
        }
    }

    fn alive(&mut self, id: &NodeId, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        node.beat_at = now;
        node.is_lost = false;
        if !node.runs.is_empty() {
            node.empty_since = now;
        }
        let state = node.state();
        self.note_state(id, state, effects);
    }

    /// The tasks a node holds, in order.
    pub(super) fn held(&self, id: &NodeId) -> Vec<TaskUid> {
        let mut uids: Vec<TaskUid> = self.nodes.get(id).map(|node| node.runs.keys().copied().collect()).unwrap_or_default();
        uids.sort_unstable();
        uids
    }

    pub(super) fn on_joined(&mut self, id: NodeId, epoch: Epoch, keeps_runs: bool, now: Timestamp, effects: &mut Vec<Effect>) {
        let node = self.nodes.entry(id.clone()).or_insert_with(|| Node::asked_for(now));
        node.epoch = epoch;
        node.is_lost = false;
        node.beat_at = now;
        node.empty_since = now;
        if !keeps_runs {
            node.reported = NodeState::Starting;
            node.is_drained = false;
        }
        if !keeps_runs && !self.has(Bug::RejoinKeepsOldRuns) {
            for uid in self.held(&id) {
                self.lose(uid, effects);
            }
        }
        if !keeps_runs {
            self.end_restart(&id, effects);
        }
        self.alive(&id, now, effects);
    }

    pub(super) fn on_reported(&mut self, id: NodeId, epoch: Epoch, report: NodeReport, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.epoch == epoch) else { return };
        node.reported = report.state;
        let (must_empty, is_reimaged) = (node.must_empty(), node.is_reimaged());
        if is_reimaged {
            self.set_turn(&id, None, effects);
            self.wipe_sites(&id, now, effects);
        }
        if report.is_drained && must_empty {
            for uid in self.held(&id) {
                self.lose(uid, effects);
            }
            if let Some(node) = self.nodes.get_mut(&id)
                && !node.is_drained
            {
                node.is_drained = true;
                effects.push(Effect::Drained { node: id.clone() });
            }
        }
        self.alive(&id, now, effects);
    }

    pub(super) fn on_beat(&mut self, beat: Beat, now: Timestamp, effects: &mut Vec<Effect>) {
        let order = match self.nodes.get_mut(&beat.node) {
            None => NodeOrder::Leave,
            Some(node) if node.epoch > beat.epoch => NodeOrder::Leave,
            Some(node) if node.epoch < beat.epoch => NodeOrder::Rejoin,
            Some(node) if node.is_off() => NodeOrder::Leave,
            Some(node) => {
                if beat.is_consuming && matches!(node.reported, NodeState::Starting | NodeState::WaitingForStartTask) {
                    node.reported = NodeState::Idle;
                }
                node.order()
            }
        };
        let is_known = !matches!(order, NodeOrder::Leave | NodeOrder::Rejoin);
        if is_known {
            self.alive(&beat.node, now, effects);
        }
        let mut verdicts = Vec::new();
        for run in &beat.live {
            let verdict = match self.live.get_mut(&run.uid) {
                Some(attempt) if attempt.key == run.key() => match &mut attempt.phase {
                    Phase::Released { .. } => Verdict::Ok,
                    Phase::Running { run: owner, seen_at, .. } if *owner == run.run => {
                        *seen_at = now;
                        Verdict::Ok
                    }
                    Phase::Running { .. } => Verdict::Fenced,
                },
                _ => Verdict::Fenced,
            };
            if verdict != Verdict::Ok {
                verdicts.push((run.run, verdict));
            }
        }
        for run in &beat.kept {
            let pending = match self.live.get_mut(&run.uid) {
                Some(attempt) if attempt.key == run.key() => match &mut attempt.phase {
                    Phase::Released { .. } => true,
                    Phase::Running { run: owner, seen_at, .. } if *owner == run.run => {
                        *seen_at = now;
                        true
                    }
                    Phase::Running { .. } => false,
                },
                _ => false,
            };
            if !pending {
                verdicts.push((run.run, Verdict::Recorded));
            }
        }
        let (over, releases) = self.chores(&beat, order);
        effects.push(Effect::Beaten { verdicts, order, over, releases });
    }

    pub(super) fn on_drain(&mut self, id: NodeId, option: DeallocationOption, effects: &mut Vec<Effect>) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.drain = Some(option);
        if !node.is_off() {
            self.set_turn(&id, None, effects);
        }
        match option {
            DeallocationOption::Requeue | DeallocationOption::Terminate => {
                for uid in self.held(&id) {
                    self.interrupt(uid, option == DeallocationOption::Requeue, effects);
                }
            }
            DeallocationOption::TaskCompletion | DeallocationOption::RetainedData => {}
        }
        self.note_empty(&id, effects);
    }

    /// A node that is drained and cannot answer holds nothing once its runs are gone.
    pub(super) fn note_empty(&mut self, id: &NodeId, effects: &mut Vec<Effect>) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        let cannot_answer = !node.has_joined() || node.is_lost || node.is_off() || node.reported == NodeState::Creating;
        if node.must_empty() && !node.is_drained && cannot_answer && node.runs.is_empty() {
            node.is_drained = true;
            effects.push(Effect::Drained { node: id.clone() });
        }
        let state = node.state();
        self.note_state(id, state, effects);
    }

    /// Scheduling is switched; off, it may end what runs, by the option.
    pub(super) fn on_scheduling(&mut self, id: NodeId, enabled: bool, option: DeallocationOption, effects: &mut Vec<Effect>) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.is_enabled = enabled;
        }
        if !enabled && matches!(option, DeallocationOption::Requeue | DeallocationOption::Terminate) {
            for uid in self.held(&id) {
                self.interrupt(uid, option == DeallocationOption::Requeue, effects);
            }
        }
        self.note_empty(&id, effects);
    }

    pub(super) fn on_node_gone(&mut self, id: NodeId, now: Timestamp, effects: &mut Vec<Effect>) {
        for uid in self.held(&id) {
            self.lose(uid, effects);
        }
        self.drop_sites(&id, now, effects);
        self.nodes.remove(&id);
    }

    /// Nodes that have been silent for a lease lose their runs.
    pub(super) fn reap(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.has(Bug::NobodyReaped) {
            return;
        }
        let lost: Vec<NodeId> = self
            .nodes
            .iter()
            // A lost node may still come to own a run: its start was told before the lease ended and read after it.
            .filter(|(_, node)| node.has_joined() && !node.is_off() && (!node.is_lost || !node.runs.is_empty()))
            .filter(|(_, node)| now.since(node.beat_at) > self.timers.lease_ms)
            .map(|(id, _)| id.clone())
            .collect();
        for id in lost {
            if let Some(node) = self.nodes.get_mut(&id) {
                // Who starts again is away for a while; what it ran is lost all the same.
                let is_away = node.drain.is_none() && node.turn.is_some_and(Turn::is_restart);
                node.is_lost = !is_away || now.since(node.beat_at) > RESTART_MS.max(self.timers.lease_ms);
            }
            for uid in self.held(&id) {
                self.lose(uid, effects);
            }
            self.note_empty(&id, effects);
        }
    }
}
