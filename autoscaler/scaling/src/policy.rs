//! The built-in policy: as many nodes as the waiting and running tasks need, between a floor and a ceiling.

use contract::spec::QueuePolicy;

/// The work of a pool and its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Slots of the tasks that wait and could run.
    pub waiting_slots: u64,
    /// Slots of the tasks that run.
    pub running_slots: u64,
    /// How long tasks have waited without a break, in milliseconds.
    pub waiting_for_ms: u64,
    /// Nodes that are not being removed, booting ones included.
    pub nodes: u32,
}

/// Nodes wanted, and the reason in words.
pub(crate) fn nodes(policy: &QueuePolicy, load: Load, slots_per_node: u32) -> (u32, String) {
    let ceiling = policy.max_nodes.max(policy.min_nodes);
    let slots = u64::from(slots_per_node.max(1));
    let demand = load.waiting_slots.saturating_add(load.running_slots).div_ceil(slots);
    let demand = u32::try_from(demand).unwrap_or(u32::MAX);
    let wanted = demand.clamp(policy.min_nodes, ceiling);
    let seen = format!("{} slots wait and {} run, {slots} to a node", load.waiting_slots, load.running_slots);
    if demand > load.nodes && wanted > load.nodes.max(policy.min_nodes) && load.waiting_for_ms < policy.react_ms {
        let held = load.nodes.clamp(policy.min_nodes, ceiling);
        return (held, format!("{seen}; the pool grows when tasks have waited for {} ms", policy.react_ms));
    }
    let bound = match wanted {
        _ if demand > ceiling => format!("; the ceiling is {ceiling}"),
        _ if demand < policy.min_nodes => format!("; the floor is {}", policy.min_nodes),
        _ => String::new(),
    };
    (wanted, format!("{seen}: {demand} nodes wanted{bound}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy() -> QueuePolicy {
        QueuePolicy { min_nodes: 0, max_nodes: 3, react_ms: 500, idle_ms: 1_000, ..QueuePolicy::default() }
    }

    fn load(waiting_slots: u64, running_slots: u64, nodes: u32) -> Load {
        Load { waiting_slots, running_slots, waiting_for_ms: 1_000, nodes }
    }

    #[test]
    fn the_queue_grows_a_pool_to_its_ceiling_once_it_has_waited() {
        assert_eq!(nodes(&policy(), load(100, 0, 0), 4).0, 3);
        let (held, reason) = nodes(&policy(), Load { waiting_for_ms: 100, ..load(100, 0, 1) }, 4);
        assert_eq!(held, 1);
        assert!(reason.contains("waited for 500 ms"), "{reason}");
    }

    #[test]
    fn the_floor_is_wanted_at_once() {
        let policy = QueuePolicy { min_nodes: 2, ..policy() };
        let (wanted, reason) = nodes(&policy, Load { waiting_for_ms: 0, ..load(0, 0, 0) }, 4);
        assert_eq!(wanted, 2);
        assert!(reason.ends_with("the floor is 2"), "{reason}");
    }

    #[test]
    fn tasks_that_run_hold_their_nodes() {
        assert_eq!(nodes(&policy(), load(0, 5, 3), 4).0, 2);
        assert_eq!(nodes(&policy(), load(0, 0, 3), 4).0, 0);
    }

    proptest! {
        #[test]
        fn no_load_leads_out_of_the_bounds(
            waiting in any::<u64>(), running in any::<u64>(), waited in any::<u64>(), there in any::<u32>(),
            floor in 0u32..100, ceiling in 0u32..100, slots in any::<u32>(),
        ) {
            let policy = QueuePolicy { min_nodes: floor, max_nodes: ceiling, ..policy() };
            let load = Load { waiting_slots: waiting, running_slots: running, waiting_for_ms: waited, nodes: there };
            let (wanted, _) = nodes(&policy, load, slots);
            prop_assert!(wanted >= floor && wanted <= ceiling.max(floor));
        }
    }
}
