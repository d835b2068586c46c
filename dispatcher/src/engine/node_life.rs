//! What people ask of a node: to take tasks or not, to start again, to be set up anew, to rest.

use broker_config::{
    ids::{NodeId, PoolId},
    message::ControlKind,
    state::{DeallocationOption, NodeState, SchedulingState},
    time::Timestamp,
    topology,
};

use crate::{
    command::{Condition, Done, TurnKind},
    core::{Event, Turn},
    engine::{
        pools::{Outcome, or_refuse},
        world::World,
    },
    refusal::{Code, Refusal},
    store::StoreError,
};

impl World {
    /// Switches scheduling on a node.
    pub(super) fn switch_scheduling(
        &mut self,
        pool: &PoolId,
        node: &NodeId,
        enabled: bool,
        option: DeallocationOption,
        now: Timestamp,
    ) -> Outcome {
        let wanted = if enabled { SchedulingState::Enabled } else { SchedulingState::Disabled };
        let entry = or_refuse!(self.open_pool(pool, &Condition::default()));
        let version = entry.record.version;
        let Some(record) = entry.nodes.get_mut(node) else { return Ok(Err(missing(node))) };
        if record.scheduling == wanted {
            let message = format!("Scheduling on the node is {wanted} already.");
            return Ok(Err(Refusal::new(Code::NodeAlreadyInTargetSchedulingState, message).with("NodeId", node)));
        }
        record.scheduling = wanted;
        entry.dirty_nodes.insert(node.clone());
        self.step(pool, Event::Scheduling { node: node.clone(), enabled, option }, now)?;
        self.tell_order(pool, node);
        Ok(Ok(Done::Changed { version, at: now }))
    }

    /// What would be written a moment later is written with this command.
    pub(super) fn write_nodes(&mut self, pools: &[PoolId], now: Timestamp) -> Result<Done, Refusal> {
        for pool in pools {
            if let Some(entry) = self.pools.get_mut(pool) {
                entry.dirty_nodes.append(&mut entry.stale_nodes);
            }
        }
        Ok(Done::Changed { version: self.version, at: now })
    }

    /// Lets a node start again, or rest.
    pub(super) fn turn_node(
        &mut self,
        pool: &PoolId,
        node: &NodeId,
        kind: TurnKind,
        option: DeallocationOption,
        now: Timestamp,
    ) -> Outcome {
        let entry = or_refuse!(self.open_pool(pool, &Condition::default()));
        let version = entry.record.version;
        let Some(facts) = entry.core.nodes().get(node) else { return Ok(Err(missing(node))) };
        or_refuse!(check(facts.state(), kind).map_err(|refusal| refusal.with("NodeId", node)));
        let since = facts.epoch;
        let turn = match kind {
            TurnKind::Reboot => Turn::Reboot { option, since },
            TurnKind::Reimage => Turn::Reimage { option, since },
            TurnKind::Deallocate => Turn::Deallocate { option },
            TurnKind::Start => Turn::Start,
        };
        self.step(pool, Event::Turn { node: node.clone(), turn }, now)?;
        self.tell_order(pool, node);
        Ok(Ok(Done::Changed { version, at: now }))
    }

    /// An early copy of what the node's next beat is answered.
    fn tell_order(&mut self, pool: &PoolId, node: &NodeId) {
        if let Some(entry) = self.pools.get(pool) {
            let order = entry.core.order(node);
            self.control(topology::node_key(pool, node), ControlKind::Order(order));
        }
    }

    /// The provider has stopped a node.
    pub(super) fn node_stopped(&mut self, pool: &PoolId, node: NodeId, now: Timestamp) -> Result<(), StoreError> {
        tracing::info!(%pool, %node, "node is stopped and kept");
        self.step(pool, Event::NodeStopped { node }, now)
    }
}

fn missing(node: &NodeId) -> Refusal {
    Refusal::new(Code::NodeNotFound, "The specified node does not exist.").with("NodeId", node)
}

/// Whether a node in this state can be asked for this.
fn check(state: NodeState, kind: TurnKind) -> Result<(), Refusal> {
    use NodeState::*;
    let (code, message) = match (kind, state) {
        (TurnKind::Start, Deallocated) => return Ok(()),
        (TurnKind::Start, _) => (Code::OperationInvalidForCurrentState, "Only a deallocated node can be started."),
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
    fn every_state_allows_a_turn_or_has_its_code() {
        for state in NodeState::ALL {
            let answer = |kind| check(*state, kind).map_err(|refusal| refusal.code);
            assert_eq!(answer(TurnKind::Start).is_ok(), *state == NodeState::Deallocated);
            assert_eq!(answer(TurnKind::Reboot), answer(TurnKind::Reimage));
            assert_eq!(answer(TurnKind::Reboot), answer(TurnKind::Deallocate));
        }
        assert_eq!(check(NodeState::Rebooting, TurnKind::Reboot).unwrap_err().code, Code::NodeBeingRebooted);
        assert!(check(NodeState::StartTaskFailed, TurnKind::Reboot).is_ok());
    }
}
