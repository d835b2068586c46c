//! Decides how large pools are: takes a sample every half minute, calls `scaling::size`, and applies the answer.
//!
//! A formula is evaluated at its interval, a policy with every tick. The autoscaler creates and removes the nodes.

use contract::{
    clock::{Moment, Now},
    ids::PoolId,
    outcome::Fault,
    period::Period,
    state::{AllocationState, NodeState, PoolState},
    time::Timestamp,
};
use model::{
    auto_scale::{ScaleRun, Scaling},
    condition::Condition,
    job::Counts,
    property::missing,
    refusal::{Code, Refusal},
};
use rand::RngExt;
use scaling::{
    Load, Mode, Size,
    formula::{Evaluation, Formula, Inputs, SAMPLE_MS, Sample},
};

use crate::{
    command::Done,
    command_error::CommandError,
    decided::Decided,
    world::{PoolEntry, World},
};

/// Time between evaluations when the request gives none.
const INTERVAL_DEFAULT: Period = Period::from_secs(15 * 60);
/// Shortest time between two enable requests for one pool.
const ENABLE_MS: i64 = 30_000;

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl World {
    /// The pool's present state as a sample.
    fn seen(&self, pool: &PoolId, at: Timestamp) -> Option<Sample> {
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
        // Blocked tasks are not counted by slots, so their share of the tasks stands in.
        let active_slots = slots.active.saturating_mul(ready).checked_div(tasks.active).unwrap_or(0);
        let invocations = entry.core.nodes().values().map(|node| u64::from(node.invocations)).sum();
        let count = |which: fn(&&store::records::NodeRecord) -> bool| entry.nodes.values().filter(which).count() as u32;
        Some(Sample {
            at,
            active: small(ready),
            running: small(tasks.running),
            active_slots: small(active_slots.saturating_add(entry.waiting_invocations)),
            running_slots: small(slots.running.saturating_add(invocations)),
            succeeded: small(tasks.succeeded),
            failed: small(tasks.failed),
            dedicated: count(|node| node.is_dedicated && node.state != NodeState::Creating),
            low_priority: count(|node| !node.is_dedicated && node.state != NodeState::Creating),
            preempted: count(|node| node.state == NodeState::Preempted),
            usable: count(|node| node.drain.is_none() && node.state.takes_tasks()),
        })
    }

    /// Takes a sample when one is due.
    pub(super) fn sample(&mut self, pool: &PoolId) {
        let now = self.steady();
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

    /// Takes samples and decides the pool's size when it is time. With `is_told`, the text about the queue is stored
    /// even when the size does not change.
    pub(super) fn tick_scaling(&mut self, pool: &PoolId, is_told: bool, now: Timestamp) {
        self.sample(pool);
        let present = Now { time: now, moment: self.moment };
        let Some(entry) = self.pools.get_mut(pool) else { return };
        match &entry.record.scaling {
            Some(scaling) if scaling.is_due(entry.scaled.ms(scaling.last_at(), present)) => self.scale(pool, now),
            Some(_) => {}
            None => {
                let mode = match (&entry.record.policy, entry.record.state) {
                    (_, PoolState::Deleting) => Mode::Emptied,
                    (Some(policy), _) => Mode::Queue(policy),
                    (None, _) => Mode::ByHand,
                };
                let size = scaling::size(mode, load(entry, self.moment), &inputs(entry, now));
                let has_changed = resize(entry, &size, now);
                // A policy's text changes with every task, so it alone is no reason to write.
                if has_changed || is_told || entry.record.policy.is_none() || entry.decided.reason.is_empty() {
                    entry.decided.reason = size.reason;
                    entry.show_decision();
                }
                if has_changed {
                    self.changed(pool, now);
                }
            }
        }
    }

    /// Evaluates a formula with the present values.
    fn evaluate(&mut self, pool: &PoolId, formula: &Formula, now: Timestamp) -> Option<Size> {
        let sampled = self.steady();
        let sample = self.seen(pool, sampled)?;
        let entry = self.pools.get_mut(pool)?;
        entry.history.refresh(sample);
        let inputs = Inputs { now, seed: rand::rng().random(), ..inputs(entry, sampled) };
        Some(scaling::size(Mode::Formula(formula), load(entry, self.moment), &inputs))
    }

    /// Evaluates a pool's formula and changes its targets as a resize does. A failure changes no target and is shown on
    /// the pool.
    pub(super) fn scale(&mut self, pool: &PoolId, now: Timestamp) {
        let Some(text) = self.pools.get(pool).and_then(|entry| entry.record.scaling.as_ref()).map(|scaling| scaling.formula.clone()) else {
            return;
        };
        let size = match Formula::parse(&text) {
            Ok(formula) => self.evaluate(pool, &formula, now),
            Err(error) => {
                tracing::error!(%pool, %error, "a pool's stored autoscale formula cannot be parsed; the pool keeps its size until it gets another formula");
                None
            }
        };
        let (Some(size), Some(entry)) = (size, self.pools.get_mut(pool)) else { return };
        resize(entry, &size, now);
        entry.decided.reason = size.reason;
        entry.show_decision();
        if let (Some(scaling), Some(evaluation)) = (&mut entry.record.scaling, size.evaluation) {
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
    ) -> Result<Done, CommandError> {
        let present = Now { time: now, moment: self.moment };
        let entry = self.open_pool(pool, condition)?;
        let record = &mut entry.record;
        if record.policy.is_some() {
            let refusal = Refusal::new(Code::OperationInvalidForCurrentState, "The pool's size follows its policy.");
            return Err(refusal.hint("Remove the policy first (DELETE /piecework/pools/{id}/policy).").into());
        }
        match &mut record.scaling {
            None => {
                if record.allocation != AllocationState::Steady {
                    return Err(Refusal::new(Code::PoolBeingResized, "The specified pool is being resized.")
                        .hint("Wait until its allocation state is steady, or stop the resize.")
                        .into());
                }
                let Some(formula) = formula else { return Err(missing("autoScaleFormula").into()) };
                record.scaling = Some(Scaling { formula, interval: interval.unwrap_or(INTERVAL_DEFAULT), enabled_at: now, run: None });
            }
            Some(_) if formula.is_none() && interval.is_none() => return Err(missing("autoScaleFormula").into()),
            Some(scaling) => {
                // The first enable after a pool was created with a formula is always allowed.
                if scaling.enabled_at != record.created_at && entry.enabled.ms(scaling.enabled_at, present) < ENABLE_MS {
                    let text = "Automatic scaling of the pool was enabled less than 30 seconds ago.";
                    return Err(Refusal::new(Code::TooManyEnableAutoScaleRequests, text).hint("Wait 30 seconds and try again.").into());
                }
                scaling.formula = formula.unwrap_or_else(|| scaling.formula.clone());
                scaling.interval = interval.unwrap_or(scaling.interval);
                scaling.enabled_at = now;
            }
        }
        self.scale(pool, now);
        Ok(self.changed(pool, now))
    }

    pub(super) fn disable_scaling(&mut self, pool: &PoolId, now: Timestamp) -> Result<Done, CommandError> {
        let entry = self.open_pool(pool, &Condition::default())?;
        if entry.record.scaling.take().is_none() {
            return Err(off().into());
        }
        Ok(self.changed(pool, now))
    }

    pub(super) fn evaluate_scaling(&mut self, pool: &PoolId, formula: &Formula, now: Timestamp) -> Result<Done, CommandError> {
        let entry = self.open_pool(pool, &Condition::default())?;
        if entry.record.scaling.is_none() {
            return Err(off().into());
        }
        let missing = || Refusal::new(Code::PoolNotFound, "The specified pool does not exist.");
        let evaluation = self.evaluate(pool, formula, now).and_then(|size| size.evaluation);
        Ok(evaluation.map(|evaluation| Done::Scaled(run_of(evaluation, now))).ok_or_else(missing)?)
    }
}

impl PoolEntry {
    /// Stores the decision's text for the API.
    pub(super) fn show_decision(&mut self) {
        let Decided { reason, fault } = &self.decided;
        let reason = match (reason.as_str(), &self.record.scaling) {
            ("", Some(_)) => "the formula's last size stands",
            ("", None) => return,
            (reason, _) => reason,
        };
        let decision = match fault {
            None => reason.to_owned(),
            Some(fault) => format!("{reason}; it failed: {} ({})", fault.message, fault.code),
        };
        if self.record.decision.as_deref() != Some(decision.as_str()) {
            self.record.decision = Some(decision);
            self.is_dirty = true;
        }
    }
}

/// A pool's work, and the nodes it has for it.
pub(super) fn load(entry: &PoolEntry, now: Moment) -> Load {
    let released = entry.core.live().values().filter(|attempt| attempt.owner().is_none());
    let released: u64 = released.map(|attempt| u64::from(attempt.slots)).sum();
    let jobs = entry.core.jobs().values().filter(|job| job.runs);
    let ready = jobs.map(|job| job.waiting.min(u64::try_from(job.max_parallel).unwrap_or(u64::MAX).saturating_sub(u64::from(job.live))));
    Load {
        waiting_slots: released + ready.sum::<u64>() + entry.waiting_invocations,
        running_slots: entry.core.nodes().values().map(|node| u64::from(node.running_slots())).sum(),
        waiting_for_ms: entry.waiting_since.map_or(0, |since| now.since(since).unsigned_abs()),
        nodes: entry.nodes.values().filter(|node| node.drain.is_none()).count() as u32,
    }
}

fn inputs(entry: &PoolEntry, sampled: Timestamp) -> Inputs<'_> {
    Inputs {
        now: sampled,
        sampled,
        history: &entry.history,
        target_dedicated: entry.record.target_dedicated,
        target_low_priority: entry.record.target_low_priority,
        slots_per_node: entry.record.slots_per_node,
        seed: 0,
    }
}

/// Sets a pool's targets as a resize does; returns whether they changed.
fn resize(entry: &mut PoolEntry, size: &Size, now: Timestamp) -> bool {
    let record = &mut entry.record;
    if (size.dedicated, size.low_priority) == (record.target_dedicated, record.target_low_priority) {
        return false;
    }
    (record.target_dedicated, record.target_low_priority) = (size.dedicated, size.low_priority);
    record.deallocation = size.option.unwrap_or(record.deallocation);
    record.resize_errors.clear();
    (record.allocation, record.allocation_at) = (AllocationState::Resizing, now);
    true
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
    use contract::{clock::Moment, spec::FillType, time::Timestamp};
    use model::pool::{JobOrder, NewPool};
    use scheduler::Timers;
    use store::sqlite::SqliteStore;

    use super::*;
    use crate::Identity;

    const START: Timestamp = Timestamp(1_800_000_000_000);

    fn present(ms: i64) -> Now {
        Now { time: START.plus_ms(ms), moment: Moment(ms) }
    }

    fn world(folder: &std::path::Path) -> World {
        let store = Box::new(SqliteStore::open(&folder.join("store.sqlite")).unwrap());
        let identity = Identity {
            account: "a".into(),
            account_url: "http://x".into(),
            join_secret: None,
            heartbeat_ms: 5_000,
            tokens: crate::task_token::TaskTokens::new(b"t"),
        };
        World::load(store, identity, Timers::default(), present(0)).unwrap()
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
            settings: Default::default(),
            start_task: None,
            packages: vec![],
            policy: None,
            scaling: Some((formula.to_owned(), Period::from_secs(300))),
        };
        world.begin(Moment(0)).unwrap();
        world.create_pool(new, START).unwrap();
        world.finish(START).unwrap();
        world.commit().unwrap();
        pool
    }

    fn pass(world: &mut World, to_ms: i64) {
        let Now { time: now, moment } = present(to_ms);
        world.begin(moment).unwrap();
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
        world.reload(present(301_000)).unwrap();
        assert_eq!(world.pools[&pool].record.scaling, record.scaling);
        assert!(world.pools[&pool].history.last().is_some(), "what was sampled stays though the rows are read anew");
    }
}
