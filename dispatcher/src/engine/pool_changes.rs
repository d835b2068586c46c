//! Changes of a pool's properties: the document's fields, and those that nodes and rules follow.

use broker_config::{ids::PoolId, time::Timestamp};
use serde_json::{Map, Value};

use crate::{
    command::{Condition, PoolChange},
    engine::{
        pools::{Outcome, or_refuse},
        world::World,
    },
    refusal::{Code, Refusal},
    store::StoreError,
};

impl World {
    /// Changes what is named; nodes follow when they join or start again.
    pub(super) fn update_pool(&mut self, pool: &PoolId, change: PoolChange, condition: &Condition, now: Timestamp) -> Outcome {
        or_refuse!(self.open_pool(pool, condition).map(|_| ()));
        or_refuse!(self.check_packages(change.packages.as_deref().unwrap_or_default()));
        let entry = or_refuse!(self.open_pool(pool, condition));
        if let Some(property) = change.needs_no_nodes
            && !entry.nodes.is_empty()
        {
            let refusal = Refusal::new(Code::OperationInvalidForCurrentState, "The property can only change while the pool has no nodes.");
            return Ok(Err(refusal
                .with("PropertyName", property)
                .with("Nodes", entry.nodes.len())
                .hint("Resize the pool to 0 nodes, change it, and resize it back.")));
        }
        let record = &mut entry.record;
        if let Some(start_task) = change.start_task {
            record.start_task = start_task;
        }
        if let Some(packages) = change.packages {
            record.packages = packages;
        }
        if let Some(slots) = change.slots_per_node {
            record.slots_per_node = slots;
            entry.core.set_slots_per_node(slots);
        }
        if let Some((fill, order)) = change.scheduling {
            (record.fill, record.job_order) = (fill, order);
            entry.core.set_job_order(order);
        }
        let done = self.changed(pool, now);
        if change.slots_per_node.is_some() {
            self.refit_jobs(pool)?;
        }
        self.merge_document(pool, change.fields)?;
        Ok(Ok(done))
    }

    fn merge_document(&mut self, pool: &PoolId, fields: Map<String, Value>) -> Result<(), StoreError> {
        let corrupt = StoreError::Corrupt { table: "pools", column: "document" };
        let text = self.store.pool_document(pool)?.unwrap_or_default();
        let Ok(mut document) = serde_json::from_str::<Map<String, Value>>(&text) else { return Err(corrupt) };
        for (name, value) in fields {
            let is_empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty);
            if is_empty {
                document.remove(&name);
            } else {
                document.insert(name, value);
            }
        }
        match self.pools.get(pool) {
            Some(entry) => self.store.put_pool(&entry.record, Some(&Value::Object(document).to_string())),
            None => Ok(()),
        }
    }
}
