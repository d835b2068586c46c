//! Decides which nodes of a pool are made or removed to reach its wanted size: a pure function of the last poll.
//!
//! Booting nodes count. Missing data never shrinks. Empty nodes go first, and under a policy only nodes
//! that were empty long enough. A node is removed only when it has confirmed that it runs nothing, or when
//! it cannot hold anything: it never joined, its instance is gone, or it has been silent for so long that its
//! runs were given to others and its instance is ended.

use std::{cmp::Reverse, collections::BTreeMap};

use contract::{
    ids::NodeId,
    message::{NodeSnapshot, PoolSnapshot, Power},
    outcome::Fault,
    state::{AllocationState, DeallocationOption, NodeState, PoolState},
};
use providers::Instance;

/// Nodes that one decision makes at most, for each pool.
pub const CREATE_MAX: u32 = 64;

/// A node without an instance this long after its creation is given up, and another one is made: its join token was
/// sent only once, to the autoscaler that asked for the node.
pub const CREATION_MS: u64 = 15_000;

/// A node with an instance whose agent has not joined after this long is removed, and another one is made. Images boot
/// in less; Azure gives a resize 15 minutes.
pub const JOIN_MS: u64 = 600_000;

/// A node without heartbeats for this long and without an instance is gone.
pub const GONE_MS: u64 = 5_000;

/// A node without heartbeats for this long after its lease is removed and replaced although its instance runs: its
/// agent or its machine hangs.
pub const SILENT_MS: u64 = 60_000;

/// A pool's instances by node; `None` when the provider could not list them.
pub type Instances = Option<BTreeMap<NodeId, Instance>>;

/// A decision for one pool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    pub target: u32,
    /// Nodes to be made.
    pub create: u32,
    /// Nodes to be drained, in this order.
    pub drain: Vec<NodeId>,
    /// How the tasks of drained nodes are treated.
    pub option: Option<DeallocationOption>,
    /// Nodes to be deleted now, with the reason.
    pub remove: Vec<(NodeId, &'static str)>,
    /// Empty nodes to be stopped and kept.
    pub stop: Vec<NodeId>,
    pub start: Vec<NodeId>,
    /// The reason in words.
    pub reason: String,
    /// Shown by the pool when its new nodes do not join.
    pub fault: Option<Fault>,
}

impl Decision {
    /// Whether a list of the instances that was begun before this decision is invalid afterwards.
    pub(crate) fn changes_instances(&self) -> bool {
        self.create > 0 || !(self.remove.is_empty() && self.stop.is_empty() && self.start.is_empty())
    }
}

/// Decides for one pool; without a list of its instances no node counts as gone.
pub fn decide(pool: &PoolSnapshot, instances: &Instances) -> Decision {
    let remove = removable(pool, instances);
    let going = |node: &NodeSnapshot| remove.iter().any(|(gone, _)| *gone == node.node);
    let present: Vec<&NodeSnapshot> = pool.nodes.iter().filter(|node| !leaves(node) && !going(node)).collect();
    let count = present.len() as u32;
    let target = match pool.state {
        PoolState::Deleting => 0,
        PoolState::Active => pool.target_dedicated.saturating_add(pool.target_low_priority),
    };
    let surplus = |present: &[&NodeSnapshot], target: u32| -> Vec<NodeId> {
        match (present.len() as u32).saturating_sub(target) {
            0 => vec![],
            surplus => expendable(pool, present).into_iter().take(surplus as usize).collect(),
        }
    };
    let drain = match pool.policy {
        None if pool.state == PoolState::Active && target <= count => {
            let (dedicated, others): (Vec<_>, Vec<_>) = present.iter().partition(|node| node.is_dedicated);
            let mut drain = surplus(&dedicated, pool.target_dedicated);
            drain.extend(surplus(&others, pool.target_low_priority));
            drain
        }
        _ => surplus(&present, target),
    };
    let is_held = pool.allocation == AllocationState::Stopping;
    let create = if is_held || pool.creation_rests_ms > 0 { 0 } else { target.saturating_sub(count).min(CREATE_MAX) };
    let option = match &pool.policy {
        Some(policy) if pool.state == PoolState::Active => policy.deallocation,
        _ => pool.deallocation,
    };
    Decision {
        target,
        create,
        option: (!drain.is_empty()).then_some(option),
        drain: if is_held { vec![] } else { drain },
        remove,
        stop: powered(pool, Power::Stop, |_| true),
        start: powered(pool, Power::Start, |node| {
            instances.as_ref().is_none_or(|known| known.get(node).is_some_and(|instance| instance.is_stopped))
        }),
        reason: pool.reason.clone(),
        fault: never_joined(pool.failed_creations),
    }
}

/// The fault of new nodes that do not join; the text stays the same during a pause, so that it is reported once.
fn never_joined(times: u32) -> Option<Fault> {
    let message = format!(
        "New nodes came to nothing {times} times in a row: they were made, but their agents did not join within {} minutes, or the provider \
         lost them. Each was ended; others are made after pauses that grow to an hour. Look at a machine's own log, and whether it \
         reaches the broker; a resize tries again at once.",
        JOIN_MS / 60_000
    );
    let details = vec![("Times".to_owned(), times.to_string())];
    (times > 0).then(|| Fault { code: "AllocationFailed".to_owned(), message, details })
}

fn powered(pool: &PoolSnapshot, power: Power, is_due: impl Fn(&NodeId) -> bool) -> Vec<NodeId> {
    let wanted = pool.nodes.iter().filter(|node| node.power == Some(power) && !leaves(node) && is_due(&node.node));
    wanted.map(|node| node.node.clone()).collect()
}

fn leaves(node: &NodeSnapshot) -> bool {
    node.is_draining || matches!(node.state, NodeState::LeavingPool | NodeState::Preempted)
}

fn removable(pool: &PoolSnapshot, instances: &Instances) -> Vec<(NodeId, &'static str)> {
    let has_instance = |node: &NodeId| instances.as_ref().is_none_or(|known| known.contains_key(node));
    let is_running = |node: &NodeId| instances.as_ref().is_some_and(|known| known.get(node).is_some_and(|found| !found.is_stopped));
    let reason = |node: &NodeSnapshot| match node.state {
        _ if leaves(node) && node.is_drained => Some("drained"),
        NodeState::Creating if leaves(node) => Some("removed before it joined"),
        NodeState::Creating if node.state_ms >= CREATION_MS && !has_instance(&node.node) => Some("its creation was lost"),
        NodeState::Creating if node.state_ms >= JOIN_MS && instances.is_some() => Some("its agent never joined"),
        NodeState::Unknown if leaves(node) && node.state_ms >= GONE_MS => Some("lost while it was drained"),
        NodeState::Unknown | NodeState::Rebooting | NodeState::Reimaging if node.state_ms >= GONE_MS && !has_instance(&node.node) => {
            Some("its instance is gone")
        }
        NodeState::Unknown if node.state_ms >= SILENT_MS && is_running(&node.node) => Some("silent for long although its instance runs"),
        _ => None,
    };
    pool.nodes.iter().filter_map(|node| reason(node).map(|why| (node.node.clone(), why))).collect()
}

/// Nodes that may be drained, the least useful first.
fn expendable(pool: &PoolSnapshot, present: &[&NodeSnapshot]) -> Vec<NodeId> {
    let is_broken = |node: &NodeSnapshot| matches!(node.state, NodeState::Unusable | NodeState::StartTaskFailed);
    let is_by_policy = pool.policy.filter(|_| pool.state == PoolState::Active);
    let may_go = |node: &&&NodeSnapshot| match is_by_policy {
        Some(policy) => {
            node.runs == 0 && (is_broken(node) || node.state == NodeState::Idle) && node.idle_ms.min(node.state_ms) >= policy.idle_ms
        }
        None => true,
    };
    let usefulness = |node: &&NodeSnapshot| match node.state {
        _ if is_broken(node) || node.state == NodeState::Deallocated => 0,
        _ if node.runs > 0 => 3,
        NodeState::Creating | NodeState::Starting | NodeState::WaitingForStartTask => 1,
        _ => 2,
    };
    let mut nodes: Vec<&NodeSnapshot> = present.iter().filter(may_go).copied().collect();
    nodes.sort_by_key(|node| (usefulness(node), node.runs, Reverse(node.idle_ms), node.node.clone()));
    nodes.into_iter().map(|node| node.node.clone()).collect()
}

#[cfg(test)]
mod tests {
    use contract::{spec::QueuePolicy, state::SchedulingState};
    use proptest::prelude::*;

    use super::*;

    fn node(name: &str, state: NodeState, runs: u32, idle_ms: u64) -> NodeSnapshot {
        NodeSnapshot {
            node: name.parse().unwrap(),
            state,
            scheduling: SchedulingState::Enabled,
            runs,
            idle_ms,
            state_ms: idle_ms,
            is_draining: false,
            is_drained: false,
            is_dedicated: true,
            power: None,
        }
    }

    fn pool(nodes: Vec<NodeSnapshot>) -> PoolSnapshot {
        PoolSnapshot {
            pool: "p".parse().unwrap(),
            state: PoolState::Active,
            allocation: AllocationState::Steady,
            target_dedicated: nodes.len() as u32,
            target_low_priority: 0,
            deallocation: DeallocationOption::Requeue,
            policy: None,
            slots_per_node: 4,
            waiting_slots: 0,
            running_slots: 0,
            waiting_for_ms: 0,
            reason: String::new(),
            failed_creations: 0,
            creation_rests_ms: 0,
            nodes,
        }
    }

    fn followed(policy: QueuePolicy, target: u32, nodes: Vec<NodeSnapshot>) -> PoolSnapshot {
        PoolSnapshot { policy: Some(policy), target_dedicated: target, ..pool(nodes) }
    }

    fn all(pool: &PoolSnapshot) -> Instances {
        let instance =
            |node: &NodeSnapshot| Instance { pool: pool.pool.clone(), node: node.node.clone(), is_running: true, is_stopped: false };
        Some(pool.nodes.iter().map(|node| (node.node.clone(), instance(node))).collect())
    }

    const POLICY: QueuePolicy =
        QueuePolicy { min_nodes: 0, max_nodes: 3, react_ms: 500, idle_ms: 1_000, deallocation: DeallocationOption::TaskCompletion };

    #[test]
    fn a_target_set_by_hand_is_filled_and_emptied() {
        let mut seen = pool(vec![node("a", NodeState::Running, 2, 0), node("b", NodeState::Idle, 0, 10)]);
        seen.target_dedicated = 5;
        assert_eq!((decide(&seen, &None).create, decide(&seen, &None).drain.len()), (3, 0));
        seen.target_dedicated = 1;
        let decision = decide(&seen, &None);
        assert_eq!((decision.create, decision.drain), (0, vec!["b".parse().unwrap()]));
        assert_eq!(decision.option, Some(DeallocationOption::Requeue));
    }

    #[test]
    fn each_kind_of_node_has_its_own_target() {
        let mut cheap = node("c", NodeState::Idle, 0, 10);
        cheap.is_dedicated = false;
        let mut seen = pool(vec![node("a", NodeState::Idle, 0, 10), node("b", NodeState::Idle, 0, 500), cheap]);
        (seen.target_dedicated, seen.target_low_priority) = (2, 0);
        assert_eq!(decide(&seen, &None).drain, vec!["c".parse().unwrap()]);
        (seen.target_dedicated, seen.target_low_priority) = (1, 2);
        let decision = decide(&seen, &None);
        assert_eq!((decision.drain.len(), decision.create), (1, 0), "room is made first");
        (seen.target_dedicated, seen.target_low_priority) = (2, 3);
        let decision = decide(&seen, &None);
        assert_eq!((decision.drain.len(), decision.create), (0, 2));
    }

    #[test]
    fn a_stopped_resize_changes_nothing() {
        let mut seen = pool(vec![node("a", NodeState::Idle, 0, 10)]);
        seen.allocation = AllocationState::Stopping;
        for target in [0, 9] {
            seen.target_dedicated = target;
            let decision = decide(&seen, &None);
            assert_eq!((decision.create, decision.drain.len()), (0, 0));
        }
    }

    #[test]
    fn booting_nodes_count() {
        let seen = followed(POLICY, 2, vec![node("a", NodeState::Creating, 0, 0), node("b", NodeState::Starting, 0, 0)]);
        assert_eq!(decide(&seen, &None).create, 0);
    }

    #[test]
    fn only_nodes_that_were_empty_long_enough_leave_under_a_policy() {
        let nodes = vec![node("a", NodeState::Idle, 0, 1_500), node("b", NodeState::Idle, 0, 300), node("c", NodeState::Running, 1, 0)];
        let decision = decide(&followed(POLICY, 1, nodes), &None);
        assert_eq!(decision.drain, vec!["a".parse().unwrap()]);
        assert_eq!(decision.option, Some(DeallocationOption::TaskCompletion));
    }

    #[test]
    fn a_drained_node_is_removed_and_one_that_still_drains_is_not() {
        let mut done = node("a", NodeState::LeavingPool, 0, 10);
        (done.is_draining, done.is_drained) = (true, true);
        let mut busy = node("b", NodeState::LeavingPool, 1, 0);
        busy.is_draining = true;
        let mut seen = pool(vec![done, busy]);
        seen.target_dedicated = 0;
        assert_eq!(decide(&seen, &None).remove, vec![("a".parse().unwrap(), "drained")]);
    }

    #[test]
    fn a_lost_node_without_an_instance_is_replaced_but_never_on_missing_data() {
        for state in [NodeState::Unknown, NodeState::Rebooting, NodeState::Reimaging] {
            let seen = pool(vec![node("a", state, 0, GONE_MS)]);
            assert_eq!(decide(&seen, &None).remove, vec![]);
            assert_eq!(decide(&seen, &all(&seen)).remove, vec![]);
            let decision = decide(&seen, &Some(BTreeMap::new()));
            assert_eq!((decision.remove.len(), decision.create), (1, 1), "{state:?}");
        }
    }

    #[test]
    fn a_node_whose_agent_never_joins_is_ended_and_made_anew_but_not_during_a_pause() {
        let mut seen = pool(vec![node("a", NodeState::Creating, 0, JOIN_MS - 1), node("b", NodeState::Creating, 0, JOIN_MS)]);
        let decision = decide(&seen, &all(&seen));
        assert_eq!((decision.remove, decision.create), (vec![("b".parse().unwrap(), "its agent never joined")], 1));
        assert_eq!(decision.fault, None);
        assert_eq!(decide(&seen, &None).remove, vec![], "not while its provider cannot say what there is");
        (seen.failed_creations, seen.creation_rests_ms) = (2, 1);
        let decision = decide(&seen, &all(&seen));
        assert_eq!((decision.remove.len(), decision.create), (1, 0));
        assert_eq!(decision.fault.unwrap().code, "AllocationFailed");
        seen.creation_rests_ms = 0;
        assert_eq!(decide(&seen, &all(&seen)).create, 1, "once it is over");
    }

    #[test]
    fn a_node_that_stays_silent_is_ended_and_replaced_though_its_instance_runs_but_not_one_that_is_only_late() {
        let seen = pool(vec![node("a", NodeState::Unknown, 0, SILENT_MS)]);
        let decision = decide(&seen, &all(&seen));
        assert_eq!((decision.remove.len(), decision.create, decision.drain.len()), (1, 1, 0));
        assert_eq!(decide(&seen, &None).remove, vec![], "not while its provider cannot say whether it runs");
        for state in NodeState::ALL.iter().filter(|state| **state != NodeState::Unknown) {
            let seen = pool(vec![node("a", *state, 0, 9 * SILENT_MS)]);
            assert_eq!(decide(&seen, &all(&seen)).remove, vec![], "{state:?}");
        }
        let seen = pool(vec![node("a", NodeState::Unknown, 0, SILENT_MS - 1)]);
        assert_eq!(decide(&seen, &all(&seen)).remove, vec![]);
    }

    #[test]
    fn a_node_whose_creation_was_lost_is_replaced_but_never_on_missing_data() {
        let seen = pool(vec![node("a", NodeState::Creating, 0, CREATION_MS), node("b", NodeState::Creating, 0, CREATION_MS - 1)]);
        let decision = decide(&seen, &Some(BTreeMap::new()));
        assert_eq!((decision.remove, decision.create), (vec![("a".parse().unwrap(), "its creation was lost")], 1));
        assert_eq!((decide(&seen, &all(&seen)).remove, decide(&seen, &all(&seen)).create), (vec![], 0));
        assert_eq!((decide(&seen, &None).remove, decide(&seen, &None).create), (vec![], 0));
    }

    #[test]
    fn an_empty_node_that_rests_is_stopped_and_only_a_stopped_one_is_started() {
        let (mut resting, mut waking) = (node("a", NodeState::Deallocating, 0, 0), node("b", NodeState::Starting, 0, 0));
        (resting.power, waking.power) = (Some(Power::Stop), Some(Power::Start));
        let seen = pool(vec![resting, waking]);
        let mut known = all(&seen);
        assert_eq!((decide(&seen, &known).stop.len(), decide(&seen, &known).start.len()), (1, 0));
        if let Some(instance) = known.as_mut().and_then(|known| known.get_mut(&"b".parse::<NodeId>().unwrap())) {
            (instance.is_running, instance.is_stopped) = (false, true);
        }
        let decision = decide(&seen, &known);
        assert_eq!((decision.stop, decision.start), (vec!["a".parse().unwrap()], vec!["b".parse().unwrap()]));
        assert_eq!((decision.create, decision.remove.len()), (0, 0), "a resting node counts");
    }

    #[test]
    fn a_deleted_pool_is_emptied_whatever_its_policy_says() {
        let mut seen = followed(QueuePolicy { min_nodes: 2, ..POLICY }, 3, vec![node("a", NodeState::Running, 4, 0)]);
        seen.state = PoolState::Deleting;
        let decision = decide(&seen, &None);
        assert_eq!((decision.target, decision.create, decision.drain.len()), (0, 0, 1));
        assert_eq!(decision.option, Some(DeallocationOption::Requeue));
    }

    prop_compose! {
        fn some_node(index: usize)(state in 0..NodeState::ALL.len(), runs in 0u32..3, idle in 0u64..3_000, draining: bool, drained: bool)
            -> NodeSnapshot {
            let mut one = node(&format!("n{index}"), NodeState::ALL[state], runs, if runs > 0 { 0 } else { idle });
            (one.is_draining, one.is_drained) = (draining, draining && drained && runs == 0);
            one
        }
    }

    fn some_pool() -> impl Strategy<Value = PoolSnapshot> {
        let nodes = (0usize..8).prop_flat_map(|count| (0..count).map(some_node).collect::<Vec<_>>());
        (nodes, 0u32..6, any::<bool>(), any::<bool>()).prop_map(|(nodes, target, by_queue, is_deleting)| {
            let mut seen = followed(POLICY, target, nodes);
            seen.policy = by_queue.then_some(POLICY);
            seen.state = if is_deleting { PoolState::Deleting } else { PoolState::Active };
            seen
        })
    }

    proptest! {
        #[test]
        fn decisions_keep_their_bounds(seen in some_pool(), knows in any::<bool>()) {
            let instances = if knows { all(&seen) } else { None };
            let decision = decide(&seen, &instances);
            prop_assert!(decision.create == 0 || decision.drain.is_empty(), "both grows and shrinks");
            let staying = seen.nodes.iter().filter(|node| !leaves(node)).count() as u32;
            prop_assert!(staying + decision.create <= decision.target.max(staying));
            prop_assert!(decision.drain.len() as u32 <= staying.saturating_sub(decision.target));
            for node in &decision.drain {
                let node = seen.nodes.iter().find(|other| other.node == *node).unwrap();
                prop_assert!(!node.is_draining);
                if let (Some(policy), PoolState::Active) = (seen.policy, seen.state) {
                    prop_assert!(node.runs == 0 && node.idle_ms >= policy.idle_ms);
                }
            }
            for (node, _) in &decision.remove {
                let node = seen.nodes.iter().find(|other| other.node == *node).unwrap();
                prop_assert!(node.is_drained || matches!(node.state, NodeState::Creating | NodeState::Unknown));
            }
        }
    }
}
