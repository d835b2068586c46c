//! Ensures that a refused command leaves nothing behind: commands check everything before their first change.
//!
//! Changes in memory cannot be undone one by one. A refusal that comes after a change therefore ends the transaction
//! like a failed commit: rows are rolled back, memory is loaded again, other commands are refused, and events are
//! applied again.

use model::refusal::Refusal;
use store::StoreError;

use crate::{
    command_error::{CommandError, answered},
    world::World,
};

/// Numbers of which every change moves at least one.
#[derive(PartialEq, Eq)]
struct Mark {
    rows: u64,
    version: u64,
    next_task: u64,
    next_job: u64,
    next_errand: u64,
    outputs: usize,
    releases: usize,
}

impl World {
    fn mark(&self) -> Mark {
        Mark {
            rows: self.store.changes(),
            version: self.version,
            next_task: self.next_task,
            next_job: self.next_job,
            next_errand: self.errands.next(),
            outputs: self.outputs.len(),
            releases: self.releases.len(),
        }
    }

    /// Runs a command and records a refusal that came after a change.
    pub(super) fn refusable<T>(
        &mut self,
        run: impl FnOnce(&mut World) -> Result<T, CommandError>,
    ) -> Result<Result<T, Refusal>, StoreError> {
        let before = self.mark();
        let result = answered(run(self))?;
        if let Err(refusal) = &result
            && self.mark() != before
        {
            tracing::error!(%refusal, "a command was refused after it had changed something; everything of its transaction is undone");
            self.half_done = Some(format!("a command was refused after it had changed something: {refusal}"));
        }
        Ok(result)
    }
}
