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
        let active_slots = slots.active.saturating_mul(ready).checked_div(tasks.active).unwrap_or(0);
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
                // A pool that was added with its formula has not been enabled by a request yet.
                if scaling.enabled_at != record.created_at && now.since(scaling.enabled_at) < ENABLE_MS {
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

#[cfg(test)]
mod tests {
    use broker_config::{spec::FillType, time::Timestamp};

    use super::*;
    use crate::{
        command::NewPool,
        core::{JobOrder, Timers},
        engine::Identity,
        store::sqlite::SqliteStore,
    };

    const START: Timestamp = Timestamp(1_800_000_000_000);

    fn world(folder: &std::path::Path) -> World {
        let store = Box::new(SqliteStore::open(&folder.join("store.sqlite")).unwrap());
        let identity = Identity {
            account: "a".into(),
            account_url: "http://x".into(),
            join_secret: None,
            beat_ms: 5_000,
            tokens: crate::TaskTokens::new(b"t"),
        };
        World::load(store, identity, Timers::default(), START).unwrap()
    }

    fn add(world: &mut World, formula: &str) -> PoolId {
        let pool: PoolId = "pool".parse().unwrap();
        let new = NewPool {
            id: pool.clone(),
            document: "{}".into(),
            slots_per_node: 1,
            fill: FillType::Spread,
            job_order: JobOrder::default(),
            target_dedicated: 0,
            target_low_priority: 0,
            resize_timeout: Period::from_secs(900),
            start_task: None,
            packages: vec![],
            policy: None,
            scaling: Some((formula.to_owned(), Period::from_secs(300))),
        };
        world.begin().unwrap();
        world.create_pool(new, START).unwrap().unwrap();
        world.finish(START).unwrap();
        world.commit().unwrap();
        pool
    }

    fn pass(world: &mut World, to_ms: i64) {
        let now = START.plus_ms(to_ms);
        world.begin().unwrap();
        world.on_tick(false, &Default::default(), now).unwrap();
        world.finish(now).unwrap();
        world.commit().unwrap();
    }

    #[test]
    fn a_formula_is_evaluated_at_its_interval_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let mut world = world(folder.path());
        let pool = add(&mut world, "$TargetDedicatedNodes = $PendingTasks.Count(); $NodeDeallocationOption = terminate;");
        let seen = |world: &World| {
            let record = &world.pools[&pool].record;
            (record.target_dedicated, record.deallocation.as_str(), record.scaling.as_ref().unwrap().run.as_ref().unwrap().at)
        };
        assert_eq!(seen(&world), (1, "terminate", START));
        for ms in (250..300_000).step_by(250) {
            pass(&mut world, ms);
        }
        assert_eq!(seen(&world).0, 1);
        pass(&mut world, 300_000);
        assert_eq!(seen(&world), (11, "terminate", START.plus_ms(300_000)));
        assert_eq!(world.pools[&pool].record.allocation, AllocationState::Resizing);
    }

    #[test]
    fn a_failure_changes_nothing_and_is_shown_and_all_of_it_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut world = world(folder.path());
        let pool = add(&mut world, "$TargetDedicatedNodes = $PendingTasks.Count() > 5 ? 1 / 0 : 4;");
        assert_eq!(world.pools[&pool].record.target_dedicated, 4);
        for ms in (30_000..=300_000).step_by(30_000) {
            pass(&mut world, ms);
        }
        let record = world.pools[&pool].record.clone();
        let fault = record.scaling.as_ref().unwrap().run.as_ref().unwrap().fault.clone().unwrap();
        assert_eq!((record.target_dedicated, fault.code.as_str()), (4, "AutoScalingFormulaEvaluationError"));
        world.reload(START.plus_ms(301_000)).unwrap();
        assert_eq!(world.pools[&pool].record.scaling, record.scaling);
        assert_eq!(world.pools[&pool].history.last(), None, "the history begins anew");
    }
}
