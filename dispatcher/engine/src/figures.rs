//! What there is at the moment, as the engine answers it: sums over alive jobs, nodes and released attempts.

use std::collections::BTreeMap;

use contract::state::NodeState;

/// The sums.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Jobs that are not completed.
    pub jobs: u64,
    /// Pools.
    pub pools: u64,
    /// Released attempts that the broker has not confirmed.
    pub unpublished: u64,
    /// By the label of the pool; pools that share a label are summed.
    pub by_pool: BTreeMap<String, PoolFigures>,
}

/// The sums of one pool, or of those that share a label.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolFigures {
    /// Waiting tasks, blocked ones included.
    pub active: u64,
    /// Started tasks that wait for their job's preparation.
    pub preparing: u64,
    /// Running tasks.
    pub running: u64,
    /// Completed tasks of jobs that are not completed.
    pub completed: u64,
    /// Nodes by state.
    pub nodes: BTreeMap<NodeState, u64>,
    /// Slots of nodes that take tasks.
    pub slots: u64,
    /// Slots of started tasks.
    pub slots_used: u64,
    /// For how long tasks have waited without a break; the longest of those that share a label.
    pub waiting_ms: i64,
}
