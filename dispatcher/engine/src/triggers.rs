//! Triggers: changes that people ask for, and what their workers did.
//!
//! ```text
//! events ─► worker ─► one transaction: what was seen, what is started, progress ─commit─► events acknowledged
//!                                        └─ row of an errand ─► published ─confirmed─► row goes
//! ```

use contract::{ids::TriggerId, time::Timestamp};
use model::{
    condition::Condition,
    refusal::{Code, Refusal},
    trigger::{Advance, Fault, NewTrigger, Progress, Source, Target, TaskTarget, TriggerChange, TriggerRow},
};
use store::{StoreError, errands::Errand};

use crate::{command::Done, command_error::CommandError, world::World};

/// Triggers of an account at most: each has a queue and a consumer.
const TRIGGERS_MAX: usize = 200;
/// Bytes that the settings of one trigger may take.
const SPEC_BYTES_MAX: usize = 64 * 1024;
/// Rows of what deleted triggers have seen that go in one transaction at most.
const FORGOTTEN_MAX: usize = 1_000;

fn missing(trigger: &TriggerId) -> Refusal {
    Refusal::new(Code::TriggerNotFound, "The specified trigger does not exist.").with("TriggerId", trigger)
}

impl World {
    fn open_trigger(&self, id: &TriggerId, condition: &Condition) -> Result<TriggerRow, Refusal> {
        let row = self.triggers.get(id).ok_or_else(|| missing(id))?;
        condition.check(row.version, row.modified_at)?;
        Ok(row.clone())
    }

    /// Refuses a target that is not there: its events would become dead letters.
    fn check_target(&mut self, target: &Target) -> Result<(), CommandError> {
        self.open_pool(target.pool(), &Condition::default())?;
        match target {
            Target::Function(function) => match self.pools.get(&function.pool_id) {
                Some(entry) if entry.functions.contains_key(&function.id) => Ok(()),
                _ => Err(Refusal::new(Code::FunctionNotFound, "The pool has no such function.")
                    .with("PoolId", &function.pool_id)
                    .with("FunctionId", &function.id)
                    .hint("Deploy the function first.")
                    .into()),
            },
            Target::Task(TaskTarget { job_id: None, .. }) => Ok(()),
            Target::Task(TaskTarget { job_id: Some(job), pool_id, .. }) => {
                let uid = self.open_job(job, &Condition::default())?;
                match self.jobs.get(&uid) {
                    Some(entry) if entry.record.pool != *pool_id => {
                        let refusal = Refusal::new(Code::InvalidPropertyValue, "The job runs on another pool.");
                        Err(refusal.with("PropertyName", "task.jobId").with("PoolId", &entry.record.pool).into())
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    pub(super) fn create_trigger(&mut self, asked: NewTrigger, now: Timestamp) -> Result<Done, CommandError> {
        if self.triggers.contains_key(&asked.id) {
            let refusal = Refusal::new(Code::TriggerExists, "The specified trigger already exists.").with("TriggerId", &asked.id);
            return Err(refusal.hint("PATCH it to change what it starts; delete it first to change what it watches.").into());
        }
        if self.triggers.len() >= TRIGGERS_MAX {
            let refusal = Refusal::new(Code::OperationInvalidForCurrentState, "There are as many triggers as there may be.");
            return Err(refusal.with("MaxLimit", TRIGGERS_MAX).hint("Delete one that is not needed any more.").into());
        }
        self.check_target(&asked.spec.target)?;
        let NewTrigger { id, spec } = asked;
        let (uid, progress) = (self.next_version(), Progress::default());
        let row = TriggerRow { id, uid, version: 0, is_paused: false, spec, progress, created_at: now, modified_at: now };
        self.keep_trigger(row, now)
    }

    pub(super) fn change_trigger(
        &mut self,
        id: &TriggerId,
        change: TriggerChange,
        condition: &Condition,
        now: Timestamp,
    ) -> Result<Done, CommandError> {
        let mut row = self.open_trigger(id, condition)?;
        match change {
            TriggerChange::Pause => row.is_paused = true,
            TriggerChange::Resume => row.is_paused = false,
            TriggerChange::Run => {
                let text = match &row.spec.source {
                    _ if row.is_paused => "The trigger is paused.",
                    Source::Exchange(_) => "The trigger follows an exchange: there is nothing to look for beside its messages.",
                    Source::Webhook(_) => "The trigger waits for requests: there is nothing to look for.",
                    Source::Bucket(_) | Source::Schedule(_) => "",
                };
                if !text.is_empty() {
                    return Err(Refusal::new(Code::OperationInvalidForCurrentState, text).with("TriggerId", id).into());
                }
                row.progress.asked = Some(now);
            }
            TriggerChange::Settings { target, batch_size, batch_time } => {
                if let Some(target) = target {
                    self.check_target(&target)?;
                    row.spec.target = target;
                }
                row.spec.batch_size = batch_size.unwrap_or(row.spec.batch_size);
                row.spec.batch_time = batch_time.unwrap_or(row.spec.batch_time);
            }
        }
        self.keep_trigger(row, now)
    }

    pub(super) fn delete_trigger(&mut self, id: &TriggerId, condition: &Condition, now: Timestamp) -> Result<Done, CommandError> {
        let row = self.open_trigger(id, condition)?;
        self.store.delete_trigger(&row.id)?;
        self.run_errand(&Errand::DeleteQueue { queue: row.queue() })?;
        self.triggers.remove(id);
        (self.are_triggers_new, self.seers_to_forget) = (true, true);
        Ok(Done::Changed { version: self.next_version(), at: now })
    }

    fn keep_trigger(&mut self, mut row: TriggerRow, now: Timestamp) -> Result<Done, CommandError> {
        let bytes = serde_json::to_string(&row.spec).map_or(0, |text| text.len());
        if bytes > SPEC_BYTES_MAX {
            let refusal = Refusal::new(Code::InvalidPropertyValue, "The settings of the trigger are too large.");
            return Err(refusal.with("Bytes", bytes).with("MaxLimit", SPEC_BYTES_MAX).hint("Keep large values in a blob.").into());
        }
        (row.version, row.modified_at) = (self.next_version(), now);
        self.store.put_trigger(&row)?;
        let version = row.version;
        self.triggers.insert(row.id.clone(), row);
        self.are_triggers_new = true;
        Ok(Done::Changed { version, at: now })
    }

    /// Stores what a trigger's worker did.
    pub(super) fn advance_trigger(&mut self, id: &TriggerId, uid: u64, step: Advance, now: Timestamp) -> Result<Done, CommandError> {
        let Some(mut row) = self.triggers.get(id).filter(|row| row.uid == uid).cloned() else { return Err(missing(id).into()) };
        let (mut fired, mut repeated) = (0, step.repeated);
        for (start, seen) in step.starts {
            let mut is_new = seen.is_empty();
            for key in &seen {
                // An earlier try of the same step may have been stored although its answer was lost.
                is_new |= self.store.see(uid, key, now)?;
            }
            if is_new {
                fired += (seen.len() as u64).max(1);
                self.run_errand(&Errand::Start(start))?;
            } else {
                repeated += seen.len() as u64;
            }
        }
        for key in &step.passed {
            self.store.see(uid, key, now)?;
        }
        for key in &step.forgotten {
            self.store.forget_seen(uid, key)?;
        }
        let progress = &mut row.progress;
        progress.fired += fired;
        progress.repeated += repeated;
        progress.failed += step.failed;
        if fired > 0 {
            progress.listed += if step.is_listing { fired } else { 0 };
            progress.last_event = Some(now);
            progress.last_lag_ms = step.event_at.map(|at| now.since(at));
        }
        progress.last_due = step.due.or(progress.last_due);
        progress.last_listing = step.listed_at.or(progress.last_listing);
        if let Some(message) = step.error {
            progress.last_error = Some(Fault { time: now, message });
        }
        self.store.put_trigger(&row)?;
        let version = row.version;
        self.triggers.insert(row.id.clone(), row);
        Ok(Done::Changed { version, at: now })
    }

    /// Takes over the triggers that were loaded.
    pub(super) fn load_triggers(&mut self, rows: Vec<TriggerRow>) {
        self.triggers = rows.into_iter().map(|row| (row.id.clone(), row)).collect();
        (self.are_triggers_new, self.seers_to_forget) = (true, true);
    }

    /// Forgets a slice of what deleted triggers have seen.
    pub(super) fn tick_triggers(&mut self) -> Result<(), StoreError> {
        if !self.seers_to_forget {
            return Ok(());
        }
        let mut after = None;
        while let Some(uid) = self.store.next_seer(after)? {
            if !self.triggers.values().any(|row| row.uid == uid) {
                self.store.forget_all_seen(uid, FORGOTTEN_MAX)?;
                return Ok(());
            }
            after = Some(uid);
        }
        self.seers_to_forget = false;
        Ok(())
    }
}
