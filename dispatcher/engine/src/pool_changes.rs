//! Changes of a pool's properties, in its document and in the columns that nodes and scheduler use.

use contract::{ids::PoolId, time::Timestamp};
use model::{
    condition::Condition,
    document::{self, Properties},
    health::Unreadable,
    pool::PoolChange,
    refusal::{Code, Refusal},
};
use scheduler::Event;
use store::StoreError;

use crate::{command::Done, command_error::CommandError, refusals::illegible, world::World};

impl World {
    /// Applies the given properties; nodes use them when they join or restart.
    pub(super) fn update_pool(
        &mut self,
        pool: &PoolId,
        change: PoolChange,
        condition: &Condition,
        now: Timestamp,
    ) -> Result<Done, CommandError> {
        self.open_pool(pool, condition)?;
        self.check_packages(change.packages.as_deref().unwrap_or_default())?;
        let document = self.merged_document(pool, change.fields)?;
        let entry = self.open_pool(pool, condition)?;
        if let Some(property) = change.needs_no_nodes
            && !entry.nodes.is_empty()
        {
            let refusal = Refusal::new(Code::OperationInvalidForCurrentState, "The property can only change while the pool has no nodes.");
            return Err(refusal
                .with("PropertyName", property)
                .with("Nodes", entry.nodes.len())
                .hint("Resize the pool to 0 nodes, change it, and resize it back.")
                .into());
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
        }
        if let Some((fill, order)) = change.scheduling {
            (record.fill, record.job_order) = (fill, order);
            entry.core.set_job_order(order);
        }
        let done = self.changed(pool, now);
        if let Some(slots) = change.slots_per_node {
            // Rows first: the scheduler needs to know whether the attempts that it takes back still fit.
            self.refit_jobs(self.jobs_of(pool), now)?;
            self.step(pool, Event::SlotsPerNode { slots }, now)?;
        }
        if let Some(entry) = self.pools.get(pool) {
            self.store.put_pool(&entry.record, Some(&document))?;
        }
        Ok(done)
    }

    /// The pool's document with the changes. Computed before anything is changed, because the stored one may be
    /// unreadable.
    fn merged_document(&mut self, pool: &PoolId, fields: Properties) -> Result<String, CommandError> {
        let text = match self.store.pool_document(pool) {
            Err(StoreError::Corrupt { .. }) => String::new(),
            other => other?.unwrap_or_default(),
        };
        let Some(document) = document::read(&text) else {
            self.name_unreadable(Unreadable { table: "pools", row: pool.to_string(), column: "document" });
            return Err(illegible("pool").with("PoolId", pool).into());
        };
        Ok(document::changed(document, fields))
    }
}
