//! Finds instances that have no row in any pool: at the start and then every thirty seconds.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use contract::{
    ids::{NodeId, PoolId},
    message::PoolSnapshot,
};
use providers::Instance;

/// Time between two sweeps.
const SWEEP: Duration = Duration::from_secs(30);

/// Time of the last sweep, and whether the pools could be read.
#[derive(Default)]
pub(crate) struct Sweep {
    last: Option<Instant>,
    /// Set while the pools cannot be read.
    pub(crate) is_failing: bool,
}

impl Sweep {
    /// Makes the next poll sweep again, because this one left orphans.
    pub(crate) fn again(&mut self) {
        self.last = None;
    }

    /// Instances without a row, when a sweep is due. They must have been listed before the pools were read.
    pub(crate) fn orphans(&mut self, listed: &[Instance], pools: &[PoolSnapshot]) -> Vec<Instance> {
        if self.last.is_some_and(|last| last.elapsed() < SWEEP) {
            return vec![];
        }
        self.last = Some(Instant::now());
        let known: HashSet<(&PoolId, &NodeId)> =
            pools.iter().flat_map(|pool| pool.nodes.iter().map(move |node| (&pool.pool, &node.node))).collect();
        listed.iter().filter(|instance| !known.contains(&(&instance.pool, &instance.node))).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_instances_without_a_row_are_orphans_and_only_when_a_sweep_is_due() {
        let instance = Instance { pool: "p".parse().unwrap(), node: "n".parse().unwrap(), is_running: true, is_stopped: false };
        let mut sweep = Sweep::default();
        assert_eq!(sweep.orphans(std::slice::from_ref(&instance), &[]), vec![instance.clone()]);
        assert_eq!(sweep.orphans(&[instance], &[]), vec![]);
    }
}
