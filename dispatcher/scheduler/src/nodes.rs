//! The life of nodes: join, heartbeat, report, drain, loss.
//!
//! ```text
//! requested ──join──► starting ──ready──► idle ⇄ running ──drain──► leaving ──drained──► gone
//!                                   └── silent for a lease ──► unknown ──heartbeat / join──► back
//! ```

use std::collections::HashMap;

use contract::{
    clock::{Moment, Now},
    ids::{Epoch, NodeId, TaskUid},
    message::{Heartbeat, NodeOrder, NodeReport, Verdict},
    state::{DeallocationOption, NodeState},
    time::Timestamp,
};
use model::node::NodeAction;

use crate::{Bug, Core, Effect, HEARD_AFTER_MS, HeartbeatAnswer, Phase, RESTART_MS, faults::NodeFaults};

/// A node, as far as the scheduler needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The agent's epoch: zero before its first join, larger with each restart.
    pub epoch: Epoch,
    /// The last sign of life.
    pub heartbeat_at: Moment,
    /// Whether the present epoch was heard since the dispatcher's start. If not, dispatcher and node may have ended
    /// together, as on one machine, and the node's runs are not blamed for it.
    pub is_heard: bool,
    /// Since when it has held no runs.
    pub empty_since: Moment,
    /// Since when it has been in the state that the API shows.
    pub state_since: Moment,
    /// How it is drained; `None` when it is not.
    pub drain: Option<DeallocationOption>,
    /// Whether it has confirmed that it holds no runs.
    pub is_drained: bool,
    /// The requested action that has not finished.
    pub action: Option<NodeAction>,
    /// The number of the last report of its present epoch.
    pub report_number: u64,
    /// Invocations of functions that it runs, each in a slot, by its last heartbeat.
    pub invocations: u32,
    pub(super) faults: NodeFaults,
    pub(super) is_enabled: bool,
    pub(super) is_lost: bool,
    pub(super) reported: NodeState,
    pub(super) runs: HashMap<TaskUid, u32>,
    noted: NodeState,
}

impl Node {
    /// A node that was requested from the provider and does not exist yet.
    pub fn asked_for(now: Moment) -> Node {
        Node {
            epoch: Epoch(0),
            heartbeat_at: now,
            is_heard: true,
            empty_since: now,
            state_since: now,
            drain: None,
            is_drained: false,
            action: None,
            report_number: 0,
            invocations: 0,
            faults: NodeFaults::default(),
            is_enabled: true,
            is_lost: false,
            reported: NodeState::Creating,
            runs: HashMap::new(),
            noted: NodeState::Creating,
        }
    }

    /// A node as it was when the dispatcher stopped. Its lease is fresh and its state unknown.
    pub fn restored(
        epoch: Epoch,
        state: NodeState,
        is_enabled: bool,
        (drain, is_drained): (Option<DeallocationOption>, bool),
        action: Option<NodeAction>,
        (state_since, now): (Moment, Moment),
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
        Node { epoch, is_enabled, drain, is_drained, action, reported, noted: state, state_since, is_heard: false, ..Node::asked_for(now) }
    }

    /// The state that the API shows.
    pub fn state(&self) -> NodeState {
        match (self.reported, self.action) {
            _ if self.drain.is_some() => NodeState::LeavingPool,
            (NodeState::Creating, _) => NodeState::Creating,
            (_, Some(action @ (NodeAction::Deallocate { .. } | NodeAction::Off))) => action.state(),
            _ if self.is_lost => NodeState::Unknown,
            (_, Some(action)) => action.state(),
            (NodeState::Idle | NodeState::Running, None) if self.faults.is_shown() => NodeState::Unusable,
            (NodeState::Idle | NodeState::Running, None) if !self.is_empty() => NodeState::Running,
            (NodeState::Idle | NodeState::Running, None) if !self.is_enabled => NodeState::Offline,
            (NodeState::Idle | NodeState::Running, None) => NodeState::Idle,
            (other, None) => other,
        }
    }

    /// Whether it may be given tasks.
    pub fn takes_tasks(&self) -> bool {
        self.is_enabled && self.drain.is_none() && !self.is_paused() && self.state().takes_tasks()
    }

    /// Whether it is paused after faults of its own.
    pub fn is_paused(&self) -> bool {
        self.faults.is_paused()
    }

    /// Runs it holds.
    pub fn run_count(&self) -> u32 {
        self.runs.len() as u32
    }

    /// Slots that its runs and invocations take.
    pub fn running_slots(&self) -> u32 {
        self.runs.values().sum::<u32>() + self.invocations
    }

    /// Whether it runs neither a task nor a function.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.invocations == 0
    }

    /// Whether an agent has ever joined.
    pub fn has_joined(&self) -> bool {
        self.epoch.0 > 0
    }

    fn order(&self) -> NodeOrder {
        match (self.drain, self.action.and_then(|action| action.order(self.epoch))) {
            (Some(option), _) => NodeOrder::Drain { option },
            (None, Some(order)) => order,
            (None, None) if self.is_enabled && !self.is_paused() => NodeOrder::Work,
            (None, None) => NodeOrder::Hold,
        }
    }

    /// Whether it has to report when it holds no runs.
    pub(super) fn must_empty(&self) -> bool {
        self.drain.is_some() || matches!(self.action, Some(NodeAction::Deallocate { .. }))
    }

    pub(super) fn hold(&mut self, uid: TaskUid, slots: u32) {
        self.runs.insert(uid, slots);
    }
}

impl Core {
    /// Adds a node that existed when the dispatcher stopped.
    pub fn restore_node(&mut self, id: NodeId, node: Node) {
        self.nodes.insert(id, node);
    }

    /// The order for a node, sent when it joins and with every answer to a heartbeat.
    pub fn order(&self, node: &NodeId) -> NodeOrder {
        self.nodes.get(node).map_or(NodeOrder::Leave, Node::order)
    }

    pub(super) fn release_hold(&mut self, id: &NodeId, uid: TaskUid, _slots: u32, effects: &mut Vec<Effect>) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        if node.runs.remove(&uid).is_some() && node.runs.is_empty() {
            node.empty_since = node.heartbeat_at.max(node.empty_since);
        }
        let state = node.state();
        self.note_state(id, state, effects);
    }

    pub(super) fn note_state(&mut self, id: &NodeId, state: NodeState, effects: &mut Vec<Effect>) {
        if let Some(node) = self.nodes.get_mut(id)
            && node.noted != state
        {
            (node.noted, node.state_since) = (state, self.moment);
            effects.push(Effect::NodeState { node: id.clone(), state });
        }
    }

    fn alive(&mut self, id: &NodeId, now: Moment, effects: &mut Vec<Effect>) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        node.heartbeat_at = now;
        node.is_lost = false;
        node.is_heard |= self.started_at.is_none_or(|start| now.since(start) >= HEARD_AFTER_MS);
        if !node.is_empty() {
            node.empty_since = now;
        }
        let state = node.state();
        self.note_state(id, state, effects);
    }

    /// The tasks whose runs the node holds.
    pub(super) fn held(&self, id: &NodeId) -> Vec<TaskUid> {
        let mut uids: Vec<TaskUid> = self.nodes.get(id).map(|node| node.runs.keys().copied().collect()).unwrap_or_default();
        uids.sort_unstable();
        uids
    }

    /// Handles the loss of all runs of a node. They count as crashes unless the node may have ended together with the
    /// dispatcher.
    pub(super) fn lose_all(&mut self, id: &NodeId, effects: &mut Vec<Effect>) {
        let is_crash = self.nodes.get(id).is_some_and(|node| node.is_heard) || self.has(Bug::StartCountsAsCrash);
        for uid in self.held(id) {
            self.lose(uid, is_crash, effects);
        }
    }

    pub(super) fn on_joined(&mut self, id: NodeId, epoch: Epoch, keeps_runs: bool, now: Moment, effects: &mut Vec<Effect>) {
        let node = self.nodes.entry(id.clone()).or_insert_with(|| Node::asked_for(now));
        node.epoch = epoch;
        node.is_lost = false;
        node.heartbeat_at = now;
        node.empty_since = now;
        if !keeps_runs {
            node.reported = NodeState::Starting;
            (node.is_drained, node.report_number, node.invocations) = (false, 0, 0);
        }
        if !keeps_runs && !self.has(Bug::RejoinKeepsOldRuns) {
            self.lose_all(&id, effects);
        }
        if !keeps_runs {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.is_heard = true;
            }
            self.end_restart(&id, effects);
            self.end_pause(&id, true, effects);
        }
        self.alive(&id, now, effects);
    }

    pub(super) fn on_reported(&mut self, id: NodeId, epoch: Epoch, report: NodeReport, now: Now, effects: &mut Vec<Effect>) {
        if self.nodes.get(&id).is_none_or(|node| node.epoch != epoch) {
            return;
        }
        // The ends of its runs arrive before it in the same queue, so runs that are left have no end.
        let is_new = |node: &Node| node.must_empty() && node.report_number <= report.number;
        if report.is_drained && self.nodes.get(&id).is_some_and(is_new) {
            self.lose_all(&id, effects);
        }
        self.take_report(&id, &report, now, effects);
        self.alive(&id, now.moment, effects);
    }

    /// Takes over a node's report about itself, from an event or a heartbeat; older reports are ignored.
    fn take_report(&mut self, id: &NodeId, report: &NodeReport, now: Now, effects: &mut Vec<Effect>) {
        let Some(node) = self.nodes.get_mut(id).filter(|node| node.report_number <= report.number) else { return };
        (node.reported, node.report_number) = (report.state, report.number);
        if report.is_drained && node.must_empty() && node.runs.is_empty() && !node.is_drained {
            node.is_drained = true;
            effects.push(Effect::Drained { node: id.clone() });
        }
        if node.is_reimaged() {
            self.set_action(id, None, effects);
            self.wipe_jobs_on_nodes(id, now.time, effects);
        }
    }

    pub(super) fn on_heartbeat(&mut self, heartbeat: Heartbeat, present: Now, effects: &mut Vec<Effect>) -> HeartbeatAnswer {
        let now = present.moment;
        let is_there = |node: &Node| node.epoch == heartbeat.epoch && !node.is_off();
        if let Some(report) = heartbeat.report.as_ref().filter(|_| !self.has(Bug::LostReportStaysLost))
            && self.nodes.get(&heartbeat.node).is_some_and(is_there)
        {
            // A heartbeat may overtake events: the node counts as drained only after the ends it still keeps were read.
            let is_told = !self.keeps_open_end(&heartbeat) || self.has(Bug::DrainedBeforeItsEnds);
            let report = NodeReport { is_drained: report.is_drained && is_told, ..report.clone() };
            self.take_report(&heartbeat.node, &report, present, effects);
        }
        let order = match self.nodes.get_mut(&heartbeat.node) {
            None => NodeOrder::Leave,
            Some(node) if node.epoch > heartbeat.epoch => NodeOrder::Leave,
            Some(node) if node.epoch < heartbeat.epoch => NodeOrder::Rejoin,
            Some(node) if node.is_off() => NodeOrder::Leave,
            Some(node) => {
                if heartbeat.is_consuming && matches!(node.reported, NodeState::Starting | NodeState::WaitingForStartTask) {
                    node.reported = NodeState::Idle;
                }
                node.order()
            }
        };
        let is_known = !matches!(order, NodeOrder::Leave | NodeOrder::Rejoin);
        if is_known {
            let is_seen = !self.has(Bug::InvocationsUnseen);
            if let Some(node) = self.nodes.get_mut(&heartbeat.node).filter(|_| is_seen) {
                node.invocations = heartbeat.invocations;
            }
            self.alive(&heartbeat.node, now, effects);
        }
        let (mut verdicts, mut unheard) = (Vec::new(), Vec::new());
        for run in &heartbeat.live {
            let verdict = match self.live.get_mut(&run.uid) {
                Some(attempt) if attempt.key == run.key() => match &mut attempt.phase {
                    Phase::Released { .. } => {
                        unheard.extend(is_known.then_some(*run));
                        Verdict::Ok
                    }
                    Phase::Running { run: owner, node, epoch, seen_at, .. }
                        if (*owner, &*node, *epoch) == (run.run, &heartbeat.node, heartbeat.epoch) =>
                    {
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
        if !self.has(Bug::LostStartStaysLost) {
            for run in unheard {
                self.own_seen(run, &heartbeat.node, heartbeat.epoch, present, effects);
            }
        }
        for run in &heartbeat.kept {
            let pending = match self.live.get_mut(&run.uid) {
                Some(attempt) if attempt.key == run.key() => match &mut attempt.phase {
                    Phase::Released { .. } => true,
                    Phase::Running { run: owner, node, epoch, seen_at, .. }
                        if (*owner, &*node, *epoch) == (run.run, &heartbeat.node, heartbeat.epoch) =>
                    {
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
        let (over, releases) = self.job_tasks(&heartbeat, order);
        let keep = self.kept_for(&heartbeat.node).filter(|_| is_known);
        let set_aside_in_vain = heartbeat.sets_aside.filter(|key| self.is_set_aside_in_vain(&heartbeat.node, key));
        HeartbeatAnswer { verdicts, order, over, releases, keep, set_aside_in_vain }
    }

    pub(super) fn on_node_gone(&mut self, id: NodeId, now: Timestamp, effects: &mut Vec<Effect>) {
        self.lose_all(&id, effects);
        self.drop_jobs_on_nodes(&id, now, effects);
        self.nodes.remove(&id);
    }

    /// Counts nodes as lost that have been silent for a lease.
    pub(super) fn reap(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if self.has(Bug::NobodyReaped) {
            return;
        }
        let lost: Vec<NodeId> = self
            .nodes
            .iter()
            // A lost node may still come to own a run, when its start was sent before the lease ended and is read after
            // it.
            .filter(|(_, node)| node.has_joined() && !node.is_off() && (!node.is_lost || !node.runs.is_empty()))
            .filter(|(_, node)| now.since(node.heartbeat_at) > self.timers.lease_ms)
            .map(|(id, _)| id.clone())
            .collect();
        for id in lost {
            if let Some(node) = self.nodes.get_mut(&id) {
                // A restarting node is expected to be silent; its runs are lost all the same.
                let is_away = node.drain.is_none() && node.action.is_some_and(NodeAction::is_restart);
                node.invocations = 0;
                node.is_lost = !is_away || now.since(node.heartbeat_at) > RESTART_MS.max(self.timers.lease_ms);
            }
            self.lose_all(&id, effects);
            self.note_empty(&id, effects);
        }
    }
}
