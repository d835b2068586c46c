//! Answers readers of nodes with what the rows do not show yet, so that reading writes nothing.

use contract::ids::PoolId;
use model::node::NodeActivity;
use store::records::NodeRecord;

use crate::{messages::Activity, world::World};

impl World {
    /// The facts of these pools' nodes that wait for the next flush.
    pub(super) fn node_activity(&self, pools: Vec<PoolId>) -> Activity {
        let entries = pools.into_iter().filter_map(|id| self.pools.get(&id).map(|entry| (id, entry)));
        let behind =
            entries.map(|(id, entry)| (id, entry.stale_nodes.iter().filter_map(|node| entry.nodes.get(node)).map(activity).collect()));
        behind.collect()
    }
}

fn activity(record: &NodeRecord) -> NodeActivity {
    NodeActivity {
        id: record.id.clone(),
        state: record.state,
        state_at: record.state_at,
        tasks_run: record.tasks_run,
        tasks_succeeded: record.tasks_succeeded,
        recent: record.recent.clone(),
    }
}
