//! Pools that are created for jobs. Each is created in its job's transaction, and its deletion begins in the
//! transaction that ends its job or schedule.
//!
//! ```text
//! lifetime job:          job added ─► pool             job completed | deleted, not keepAlive ─► deleting
//! lifetime jobschedule:  first job created ─► pool     schedule completed | deleted | changed, not keepAlive ─► deleting
//! ```

use contract::{
    ids::{JobId, JobUid, PoolId, ScheduleId},
    outcome::Fault,
    state::{JobState, PoolState},
    time::Timestamp,
};
use model::{
    auto_pool::{AutoPool, JobPool, Lifetime, Tie},
    condition::Condition,
    job::NewJob,
    pool::NewPool,
    refusal::{Code, Refusal},
};
use rand::RngExt;
use scaling::formula::Formula;
use store::StoreError;

use crate::{
    job_tasks::check_name,
    messages::Output,
    refusals::invalid,
    world::{JobEntry, World},
};

/// The pool that was found or created for a new job.
pub(super) struct Placed {
    /// The pool's name; when the pool could not be created, no pool has this name.
    pub pool: PoolId,
    /// Slots of each node; `None` when the pool does not exist.
    pub slots_per_node: Option<u32>,
    /// Set when the pool was created for the job.
    pub tie: Option<Tie>,
    /// Why the pool could not be created; becomes the job's `schedulingError`.
    pub fault: Option<Fault>,
}

/// The pool that is deleted when this job ends; `None` when the job has ended already.
pub(super) fn that_ends_with(job: &JobEntry) -> Option<PoolId> {
    let record = &job.record;
    let ends = record.auto_pool.is_some_and(|tie| tie.lifetime == Lifetime::Job && !tie.keep_alive);
    (ends && record.ended_at.is_none()).then(|| record.pool.clone())
}

/// Refuses to move a job away from the pool that was created for it.
pub(super) fn may_move(job: &JobEntry) -> Result<(), Refusal> {
    match job.record.auto_pool {
        None => Ok(()),
        Some(_) => Err(Refusal::new(Code::OperationInvalidForCurrentState, "The job runs on a pool that was made for it.")
            .with("PoolId", &job.record.pool)
            .hint("Of its poolInfo only keepAlive can be changed; add a job to use another pool.")),
    }
}

/// The refusal of the pool, as the `schedulingError` of its job.
fn scheduling_error(refusal: Refusal) -> Fault {
    let code = match refusal.code {
        Code::InvalidApplicationPackageReferences => "InvalidApplicationPackageReferencesInAutoPool",
        Code::AutoScalingFormulaSyntaxError => "InvalidAutoScaleFormulaInAutoPool",
        _ => "InvalidAutoPoolSettings",
    };
    Fault { code: code.to_owned(), message: refusal.message, details: refusal.values }
}

/// Checks the formula again: it was parsed when requested, but one stored by an older build may not parse today.
fn check_formula(pool: &NewPool) -> Result<(), Refusal> {
    let Some((text, _)) = &pool.scaling else { return Ok(()) };
    let refuse = |error| {
        Refusal::new(Code::AutoScalingFormulaSyntaxError, "The specified autoscale formula has a syntax error.").with("Message", error)
    };
    Formula::parse(text).map(|_| ()).map_err(refuse)
}

/// Error for `runExclusive` on a job whose pool does not exist.
fn whole_node_nowhere(pool: &PoolId) -> Refusal {
    Refusal::new(Code::PoolNotFound, "The specified pool does not exist.")
        .with("PoolId", pool)
        .hint("Add the pool first: a job manager task with runExclusive takes all slots of one of its nodes.")
}

impl World {
    /// Checks that a new job's pool exists and accepts jobs, and that its manager fits the nodes. Pools that are
    /// created with the job are not checked here.
    pub(super) fn check_job(&self, job: &NewJob) -> Result<(), Refusal> {
        if let Some(manager) = &job.manager {
            check_name(job.job_tasks.as_deref(), &manager.task.id)?;
        }
        match &job.pool {
            JobPool::Named(pool) => match self.slots_of_usable_pool(pool)? {
                None if job.takes_a_node() => Err(whole_node_nowhere(pool)),
                _ => Ok(()),
            },
            JobPool::Auto(_) => Ok(()),
        }
    }

    /// Finds or creates the pool of a job that passed [`World::check_job`].
    pub(super) fn place_job(&mut self, job: &JobId, asked: &JobPool, now: Timestamp) -> Result<Placed, StoreError> {
        let auto = match asked {
            JobPool::Auto(auto) => auto,
            JobPool::Named(pool) => {
                let slots_per_node = self.pools.get(pool).map(|entry| entry.record.slots_per_node);
                return Ok(Placed { pool: pool.clone(), slots_per_node, tie: None, fault: None });
            }
        };
        let schedule = job.schedule().filter(|_| auto.tie.lifetime == Lifetime::JobSchedule);
        let shared = schedule.as_ref().and_then(|schedule| self.schedules.get(schedule)?.auto_pool.clone());
        if let Some(pool) = shared
            && let Ok(slots_per_node @ Some(_)) = self.slots_of_usable_pool(&pool)
        {
            return Ok(Placed { pool, slots_per_node, tie: Some(auto.tie), fault: None });
        }
        let (pool, made) = self.make_pool(auto, now)?;
        if made.is_ok()
            && let Some(row) = schedule.and_then(|schedule| self.schedules.get_mut(&schedule))
        {
            row.auto_pool = Some(pool.clone());
        }
        let fault = made.err().map(scheduling_error);
        Ok(Placed { pool, slots_per_node: Some(auto.pool.slots_per_node), tie: Some(auto.tie), fault })
    }

    /// Creates a pool with a generated name.
    fn make_pool(&mut self, auto: &AutoPool, now: Timestamp) -> Result<(PoolId, Result<(), Refusal>), StoreError> {
        let id = auto.name(rand::rng().random());
        if let Err(refusal) = check_formula(&auto.pool) {
            return Ok((id, Err(refusal)));
        }
        let made = self.refusable(|world| world.create_pool(NewPool { id: id.clone(), ..auto.pool.clone() }, now))?;
        if made.is_ok() {
            self.outputs.push(Output::Declare(id.clone(), None));
        }
        Ok((id, made.map(|_| ())))
    }

    /// Sets whether the job's own pool stays when the job ends.
    pub(super) fn keep_pool(&mut self, uid: JobUid, keep_alive: bool) {
        if let Some(entry) = self.jobs.get_mut(&uid)
            && let Some(tie) = &mut entry.record.auto_pool
        {
            (tie.keep_alive, entry.is_dirty) = (keep_alive, true);
        }
    }

    /// Refuses to change `keepAlive` unless the pool was created for this job and the job is disabled.
    pub(super) fn check_keep(&self, uid: JobUid, keep_alive: bool) -> Result<(), Refusal> {
        let Some(entry) = self.jobs.get(&uid) else { return Ok(()) };
        let state = entry.record.state;
        match &entry.record.auto_pool {
            Some(tie) if tie.keep_alive == keep_alive => Ok(()),
            Some(tie) if tie.lifetime == Lifetime::Job && state == JobState::Disabled => Ok(()),
            Some(tie) if tie.lifetime == Lifetime::Job => {
                Err(invalid(state, "The keepAlive of a job's pool can be changed only while the job is disabled.")
                    .hint("Disable the job and wait until its state is disabled."))
            }
            _ => Err(Refusal::new(Code::OperationInvalidForCurrentState, "The pool does not live with this job.")
                .hint("Only a pool whose poolLifetimeOption is job has a keepAlive that its job can change; change the job schedule.")),
        }
    }

    /// Begins to delete a pool that was created for a job; does nothing when it is being deleted already.
    pub(super) fn end_pool(&mut self, pool: Option<PoolId>, now: Timestamp) -> Result<(), StoreError> {
        let is_there = |pool: &PoolId| self.pools.get(pool).is_some_and(|entry| entry.record.state == PoolState::Active);
        let Some(pool) = pool.filter(is_there) else { return Ok(()) };
        if let Err(refusal) = self.refusable(|world| world.delete_pool(&pool, &Condition::default(), now))? {
            tracing::warn!(%pool, %refusal, "an automatic pool stays although its job has ended; delete it by hand");
        }
        Ok(())
    }

    /// Begins to delete the pool that a schedule's jobs share: the schedule ended, or its jobs use no automatic pool
    /// any more. The pool goes with the last job that still uses it.
    pub(super) fn part_with_pool(&mut self, schedule: &ScheduleId, now: Timestamp) -> Result<(), StoreError> {
        let Some(row) = self.schedules.get_mut(schedule) else { return Ok(()) };
        let Some(pool) = row.auto_pool.take() else { return Ok(()) };
        if row.job.pool.tie().is_some_and(|tie| tie.keep_alive) {
            return Ok(());
        }
        let recent = row.recent.clone().and_then(|job| self.alive(&job));
        match recent.and_then(|uid| self.jobs.get_mut(&uid)).filter(|job| job.record.pool == pool && job.record.ended_at.is_none()) {
            Some(job) => {
                job.record.auto_pool = Some(Tie { lifetime: Lifetime::Job, keep_alive: false });
                job.is_dirty = true;
                Ok(())
            }
            None => self.end_pool(Some(pool), now),
        }
    }
}
