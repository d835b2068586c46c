//! Present totals for the metrics page: sums over alive jobs, nodes and released attempts.

use std::collections::BTreeMap;

use contract::state::NodeState;

/// The totals of the account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Jobs that are not completed.
    pub jobs: u64,
    pub pools: u64,
    /// Released attempts that the broker has not confirmed.
    pub unpublished: u64,
    /// Totals by pool label; pools that share a label are summed.
    pub by_pool: BTreeMap<String, PoolFigures>,
}

/// The totals of one pool, or of the pools that share a label.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolFigures {
    /// Waiting tasks, including blocked ones.
    pub active: u64,
    /// Started tasks that wait for their job's preparation.
    pub preparing: u64,
    pub running: u64,
    /// Completed tasks of jobs that are not completed.
    pub completed: u64,
    pub nodes: BTreeMap<NodeState, u64>,
    /// Slots of nodes that take tasks.
    pub slots: u64,
    /// Slots of started tasks.
    pub slots_used: u64,
    /// For how long some task has been waiting without a break; the longest of the pools that share a label.
    pub waiting_ms: i64,
}
