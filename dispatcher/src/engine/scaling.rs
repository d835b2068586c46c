//! Pools that follow a formula: samples every half minute, evaluations, and what these change.
//!
//! The decision is made here, where the samples are; the autoscaler makes and removes the nodes.

use broker_config::{
    ids::PoolId,
    message::Fault,
    period::Period,
    state::{AllocationState, NodeState, PoolState},
    time::Timestamp,
};
use rand::RngExt;

use crate::{
    command::{Condition, Done},
    engine::{
        pools::{Outcome, or_refuse},
        world::World,
    },
    formula::{Evaluation, Formula, Inputs, SAMPLE_MS, Sample},
    refusal::{Code, Refusal},
    store::{
        rows::Counts,
        scaling::{ScaleRun, Scaling},
    },
};

/// Between evaluations when nobody says.
const INTERVAL_DEFAULT: Period = Period::from_secs(15 * 60);
/// Between two enables of one pool at least.
const ENABLE_MS: i64 = 30_000;

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl World {
    /// The pool as it is now.
    fn seen(&self, pool: &PoolId, now: Timestamp) -> Option<Sample> {
        let entry = self.pools.get(pool)?;
        let (mut tasks, mut slots) = (Counts::default(), Counts::default());
        for job in self.jobs.values().filter(|job| job.record.pool == *pool) {
            for (sum, of) in [(&mut tasks, &job.record.tasks), (&mut slots, &job.record.slots)] {
                sum.active += of.active;
                sum.running += of.running;
                sum.succeeded += of.succeeded;
                sum.failed += of.failed;
            }
        }
        let released = entry.core.live().values().filter(|attempt| attempt.owner().is_none()).count() as u64;
        let ready = (entry.core.jobs().values().map(|job| job.waiting).sum::<u64>() + released).min(tasks.active);
        // Which of the waiting tasks are blocked is not counted by slots: their share stands in for it.
        let active_slots = if tasks.active == 0 { 0 } else { slots.active * ready / tasks.active };
        let count = |which: fn(&&crate::store::records::NodeRecord) -> bool| entry.nodes.values().filter(which).count() as u32;
        Some(Sample {
            at: now,
            active: small(ready),
            running: small(tasks.running),
            active_slots: small(active_slots),
            running_slots: small(slots.running),
            succeeded: small(tasks.succeeded),
            failed: small(tasks.failed),
            dedicated: count(|node| node.is_dedicated && node.state != NodeState::Creating),
            low_priority: count(|node| !node.is_dedicated && node.state != NodeState::Creating),
            preempted: count(|node| node.state == NodeState::Preempted),
            usable: count(|node| node.drain.is_none() && node.state.takes_tasks()),
        })
    }

    /// Takes a sample when one is due.
    pub(super) fn sample(&mut self, pool: &PoolId, now: Timestamp) {
        let Some(due_at) = self.pools.get(pool).map(|entry| entry.history.due_at().unwrap_or(now)) else { return };
        if due_at > now {
            return;
        }
        let at = if now.since(due_at) < SAMPLE_MS { due_at } else { now };
        if let Some(sample) = self.seen(pool, at)
            && let Some(entry) = self.pools.get_mut(pool)
        {
            entry.history.push(sample);
        }
    }

    /// Samples, and evaluates when it is time.
    pub(super) fn tick_scaling(&mut self, pool: &PoolId, now: Timestamp) {
        self.sample(pool, now);
        let is_due = self.pools.get(pool).is_some_and(|entry| {
            entry.record.state == PoolState::Active && entry.record.scaling.as_ref().is_some_and(|scaling| scaling.due_at() <= now)
        });
        if is_due {
            self.scale(pool, now);
        }
    }

    /// Works a formula out against the present.
    fn evaluate(&mut self, pool: &PoolId, formula: &Formula, now: Timestamp) -> Option<Evaluation> {
        let sample = self.seen(pool, now)?;
        let entry = self.pools.get_mut(pool)?;
        entry.history.refresh(sample);
        Some(formula.evaluate(&Inputs {
            now,
            history: &entry.history,
            target_dedicated: entry.record.target_dedicated,
            target_low_priority: entry.record.target_low_priority,
            slots_per_node: entry.record.slots_per_node,
            seed: rand::rng().random(),
        }))
    }

    /// Evaluates a pool's formula and changes its targets the way a resize does; a failure changes nothing and is shown.
    pub(super) fn scale(&mut self, pool: &PoolId, now: Timestamp) {
        let Some(text) = self.pools.get(pool).and_then(|entry| entry.record.scaling.as_ref()).map(|scaling| scaling.formula.clone()) else {
            return;
        };
        let evaluation = match Formula::parse(&text) {
            Ok(formula) => self.evaluate(pool, &formula, now),
            Err(error) => {
                tracing::error!(%pool, %error, "a stored formula cannot be read any more");
                None
            }
        };
        let (Some(evaluation), Some(entry)) = (evaluation, self.pools.get_mut(pool)) else { return };
        let record = &mut entry.record;
        let targets = (evaluation.target_dedicated, evaluation.target_low_priority);
        let has_changed = evaluation.error.is_none() && targets != (record.target_dedicated, record.target_low_priority);
        if has_changed {
            (record.target_dedicated, record.target_low_priority) = targets;
            record.deallocation = evaluation.option;
            record.resize_errors.clear();
            (record.allocation, record.allocation_at) = (AllocationState::Resizing, now);
        }
        if let Some(scaling) = &mut record.scaling {
            scaling.run = Some(run_of(evaluation, now));
        }
        self.changed(pool, now);
    }

    pub(super) fn enable_scaling(
        &mut self,
        pool: &PoolId,
        formula: Option<String>,
        interval: Option<Period>,
        condition: &Condition,
        now: Timestamp,
    ) -> Outcome {
        let entry = or_refuse!(self.open_pool(pool, condition));
        let record = &mut entry.record;
        if record.policy.is_some() {
            let refusal = Refusal::new(Code::OperationInvalidForCurrentState, "The pool's size follows its policy.");
            return Ok(Err(refusal.hint("Remove the policy first (DELETE /piecework/pools/{id}/policy).")));
        }
        let missing = |name: &str| {
            Refusal::new(Code::MissingRequiredProperty, "A required property was not specified in the request body.")
                .with("PropertyName", name)
        };
        match &mut record.scaling {
            None => {
                if record.allocation != AllocationState::Steady {
                    return Ok(Err(Refusal::new(Code::PoolBeingResized, "The specified pool is being resized.")
                        .hint("Wait until its allocation state is steady, or stop the resize.")));
                }
                let Some(formula) = formula else { return Ok(Err(missing("autoScaleFormula"))) };
                record.scaling = Some(Scaling { formula, interval: interval.unwrap_or(INTERVAL_DEFAULT), enabled_at: now, run: None });
            }
            Some(_) if formula.is_none() && interval.is_none() => return Ok(Err(missing("autoScaleFormula"))),
            Some(scaling) => {
                if now.since(scaling.enabled_at) < ENABLE_MS {
                    let text = "Automatic scaling of the pool was enabled less than 30 seconds ago.";
                    return Ok(Err(Refusal::new(Code::TooManyEnableAutoScaleRequests, text).hint("Wait 30 seconds and try again.")));
                }
                scaling.formula = formula.unwrap_or_else(|| scaling.formula.clone());
                scaling.interval = interval.unwrap_or(scaling.interval);
                scaling.enabled_at = now;
            }
        }
        self.scale(pool, now);
        Ok(Ok(self.changed(pool, now)))
    }

    pub(super) fn disable_scaling(&mut self, pool: &PoolId, now: Timestamp) -> Outcome {
        let entry = or_refuse!(self.open_pool(pool, &Condition::default()));
        if entry.record.scaling.take().is_none() {
            return Ok(Err(off()));
        }
        Ok(Ok(self.changed(pool, now)))
    }

    pub(super) fn evaluate_scaling(&mut self, pool: &PoolId, formula: &Formula, now: Timestamp) -> Outcome {
        let entry = or_refuse!(self.open_pool(pool, &Condition::default()));
        if entry.record.scaling.is_none() {
            return Ok(Err(off()));
        }
        let missing = || Refusal::new(Code::PoolNotFound, "The specified pool does not exist.");
        Ok(self.evaluate(pool, formula, now).map(|evaluation| Done::Scaled(run_of(evaluation, now))).ok_or_else(missing))
    }
}

fn off() -> Refusal {
    Refusal::new(Code::OperationInvalidForCurrentState, "Automatic scaling of the pool is not enabled.")
        .hint("Enable it first: POST /pools/{poolId}/enableautoscale with an autoScaleFormula.")
}

fn run_of(evaluation: Evaluation, at: Timestamp) -> ScaleRun {
    let fault = evaluation.error.map(|error| Fault {
        code: "AutoScalingFormulaEvaluationError".to_owned(),
        message: "The evaluation of the autoscale formula failed.".to_owned(),
        details: vec![("Message".to_owned(), error.to_string())],
    });
    ScaleRun { at, results: evaluation.results, fault }
}
