//! Requests for nodes: enable or disable scheduling, reboot, reimage, deallocate, start.

use broker_config::topology;
use contract::{
    ids::{NodeId, PoolId},
    message::ControlKind,
    outcome::Fault,
    state::{DeallocationOption, NodeState, SchedulingState},
    time::Timestamp,
};
use model::{
    condition::Condition,
    node::{NodeAction, NodeActionKind},
    refusal::{Code, Refusal},
};
use scheduler::Event;
use store::StoreError;

use crate::{
    command::Done,
    command_error::CommandError,
    node_faults::{NODE_PAUSED, paused},
    world::World,
};

impl World {
    /// Enables or disables scheduling on a node.
    pub(super) fn switch_scheduling(
        &mut self,
        pool: &PoolId,
        node: &NodeId,
        enabled: bool,
        option: DeallocationOption,
        now: Timestamp,
    ) -> Result<Done, CommandError> {
        let wanted = if enabled { SchedulingState::Enabled } else { SchedulingState::Disabled };
        let entry = self.open_pool(pool, &Condition::default())?;
        let version = entry.record.version;
        let Some(record) = entry.nodes.get_mut(node) else { return Err(missing(node).into()) };
        if record.scheduling == wanted {
            let message = format!("Scheduling on the node is {wanted} already.");
            return Err(Refusal::new(Code::NodeAlreadyInTargetSchedulingState, message).with("NodeId", node).into());
        }
        record.scheduling = wanted;
        entry.dirty_nodes.insert(node.clone());
        self.step(pool, Event::Scheduling { node: node.clone(), enabled, option }, now)?;
        self.tell_order(pool, node);
        Ok(Done::Changed { version, at: now })
    }

    /// Begins an action on a node.
    pub(super) fn act_on_node(
        &mut self,
        pool: &PoolId,
        node: &NodeId,
        kind: NodeActionKind,
        option: DeallocationOption,
        now: Timestamp,
    ) -> Result<Done, CommandError> {
        let entry = self.open_pool(pool, &Condition::default())?;
        let version = entry.record.version;
        let Some(facts) = entry.core.nodes().get(node) else { return Err(missing(node).into()) };
        check(facts.state(), kind).map_err(|refusal| refusal.with("NodeId", node))?;
        let since = facts.epoch;
        let action = match kind {
            NodeActionKind::Reboot => NodeAction::Reboot { option, since },
            NodeActionKind::Reimage => NodeAction::Reimage { option, since },
            NodeActionKind::Deallocate => NodeAction::Deallocate { option },
            NodeActionKind::Start => NodeAction::Start,
        };
        self.step(pool, Event::NodeAction { node: node.clone(), action }, now)?;
        self.tell_order(pool, node);
        Ok(Done::Changed { version, at: now })
    }

    /// Sends the order that the answer to the node's next heartbeat will repeat.
    fn tell_order(&mut self, pool: &PoolId, node: &NodeId) {
        if let Some(entry) = self.pools.get(pool) {
            let order = entry.core.order(node);
            self.control(topology::node_key(pool, node), ControlKind::Order(order));
        }
    }

    /// Records that the provider has stopped a deallocated node.
    pub(super) fn node_stopped(&mut self, pool: &PoolId, node: NodeId, now: Timestamp) -> Result<(), StoreError> {
        tracing::info!(%pool, %node, "the node is deallocated: its provider has stopped it");
        self.step(pool, Event::NodeStopped { node }, now)
    }

    pub(super) fn node_paused(&mut self, pool: &PoolId, node: &NodeId, (in_a_row, pause_ms): (u32, i64), fault: &Fault) {
        let reason = fault.details.iter().find(|(name, _)| name == "Reason").map(|(_, reason)| reason.as_str());
        tracing::warn!(
            %pool, %node, in_a_row, pause_ms, fault.code, fault.message, reason,
            "the node could not run a task by its own fault: the task is tried again, and the node gets none until its pause is over"
        );
        self.note_pause(pool, node, Some(paused(in_a_row, pause_ms, fault)));
    }

    pub(super) fn node_resumed(&mut self, pool: &PoolId, node: &NodeId) {
        tracing::info!(%pool, %node, "the node's pause is over; it gets tasks again");
        self.note_pause(pool, node, None);
    }

    /// Shows on a node that it is paused and why, or that it is not any more.
    fn note_pause(&mut self, pool: &PoolId, node: &NodeId, fault: Option<Fault>) {
        if let Some(entry) = self.pools.get_mut(pool)
            && let Some(record) = entry.nodes.get_mut(node)
        {
            record.faults.retain(|fault| fault.code != NODE_PAUSED);
            record.faults.extend(fault);
            entry.dirty_nodes.insert(node.clone());
        }
    }
}

fn missing(node: &NodeId) -> Refusal {
    Refusal::new(Code::NodeNotFound, "The specified node does not exist.").with("NodeId", node)
}

/// Refuses an action that the node's state does not allow.
fn check(state: NodeState, kind: NodeActionKind) -> Result<(), Refusal> {
    use NodeState::*;
    let (code, message) = match (kind, state) {
        (NodeActionKind::Start, Deallocated) => return Ok(()),
        (NodeActionKind::Start, _) => (Code::OperationInvalidForCurrentState, "Only a deallocated node can be started."),
        (_, Idle | Running | Offline | WaitingForStartTask | StartTaskFailed | Unusable) => return Ok(()),
        (_, Creating) => (Code::NodeBeingCreated, "The specified node is being created."),
        (_, Starting) => (Code::NodeBeingStarted, "The specified node is being started."),
        (_, Rebooting) => (Code::NodeBeingRebooted, "The specified node is being rebooted."),
        (_, Reimaging) => (Code::NodeBeingReimaged, "The specified node is being reimaged."),
        (_, Unknown | Preempted) => (Code::NodeStateUnusable, "The specified node is not heard from."),
        (_, LeavingPool | UpgradingOs | Deallocating | Deallocated) => {
            (Code::OperationInvalidForCurrentState, "The operation is not valid in the node's present state.")
        }
    };
    Err(Refusal::new(code, message).with("NodeState", state).hint("Read the node until its state has changed, then try again."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_allows_a_action_or_has_its_code() {
        for state in NodeState::ALL {
            let answer = |kind| check(*state, kind).map_err(|refusal| refusal.code);
            assert_eq!(answer(NodeActionKind::Start).is_ok(), *state == NodeState::Deallocated);
            assert_eq!(answer(NodeActionKind::Reboot), answer(NodeActionKind::Reimage));
            assert_eq!(answer(NodeActionKind::Reboot), answer(NodeActionKind::Deallocate));
        }
        assert_eq!(check(NodeState::Rebooting, NodeActionKind::Reboot).unwrap_err().code, Code::NodeBeingRebooted);
        assert!(check(NodeState::StartTaskFailed, NodeActionKind::Reboot).is_ok());
    }
}
