//! Changes of pools that clients request.

use contract::{
    clock::Now,
    ids::{JobUid, NodeId, PoolId},
    outcome::Fault,
    period::Period,
    spec::QueuePolicy,
    state::{AllocationState, DeallocationOption, PoolState},
    time::Timestamp,
};
use model::{
    auto_scale::Scaling,
    condition::Condition,
    pool::{NewPool, PoolSettings},
    refusal::{Code, Refusal},
};
use scheduler::{Core, Event, JobStop};
use store::{StoreError, errands::Errand, records::PoolRecord};

use crate::{
    command::Done,
    command_error::CommandError,
    world::{PoolEntry, World},
};

/// Azure's own text, which programs compare with.
pub(super) const POOL_GOES: &str = "The specified pool has been marked for deletion and is being reclaimed.";

/// The resize error of a pool whose resize was stopped.
fn cut_short(asked_for: (u32, u32), there: (u32, u32)) -> Fault {
    let targets = [("TargetDedicatedNodes", asked_for.0), ("TargetLowPriorityNodes", asked_for.1)];
    Fault {
        code: "ResizeStopped".to_owned(),
        message: format!(
            "The resize was stopped on request: {} nodes are there, asked for were {}.",
            there.0 + there.1,
            asked_for.0 + asked_for.1
        ),
        details: targets.map(|(name, nodes)| (name.to_owned(), nodes.to_string())).into(),
    }
}

impl World {
    pub(super) fn create_pool(&mut self, pool: NewPool, now: Timestamp) -> Result<Done, CommandError> {
        if let Some(existing) = self.pools.get(&pool.id) {
            let refusal = match existing.record.state {
                PoolState::Active => Refusal::new(Code::PoolExists, "The specified pool already exists."),
                PoolState::Deleting => Refusal::new(Code::PoolBeingDeleted, POOL_GOES).hint("Wait until reading it answers 404."),
            };
            return Err(refusal.with("PoolId", &pool.id).into());
        }
        self.check_packages(&pool.packages)?;
        let wants = pool.target_dedicated + pool.target_low_priority > 0;
        let record = PoolRecord {
            id: pool.id,
            version: self.next_version(),
            state: PoolState::Active,
            state_at: now,
            allocation: if wants { AllocationState::Resizing } else { AllocationState::Steady },
            allocation_at: now,
            target_dedicated: pool.target_dedicated,
            target_low_priority: pool.target_low_priority,
            settings: pool.settings,
            deallocation: DeallocationOption::Requeue,
            resize_errors: vec![],
            slots_per_node: pool.slots_per_node,
            fill: pool.fill,
            job_order: pool.job_order,
            start_task: pool.start_task,
            packages: pool.packages,
            policy: pool.policy,
            scaling: pool.scaling.map(|(formula, interval)| Scaling { formula, interval, enabled_at: now, run: None }),
            decision: None,
            next_node: 1,
            created_at: now,
            modified_at: now,
        };
        self.store.put_pool(&record, Some(&pool.document))?;
        let done = Done::Changed { version: record.version, at: now };
        let id = record.id.clone();
        let mut core = Core::new(record.slots_per_node, self.timers);
        core.set_job_order(record.job_order);
        let entry = PoolEntry::new(record, core, Now { time: now, moment: self.moment });
        self.pools.insert(id.clone(), entry);
        let jobs = self.jobs_of(&id);
        for job in &jobs {
            self.attach(*job, now);
        }
        self.refit_jobs(jobs, now)?;
        self.sample(&id);
        self.scale(&id, now);
        Ok(done)
    }

    /// A pool that may be changed, or the refusal.
    pub(super) fn open_pool(&mut self, pool: &PoolId, condition: &Condition) -> Result<&mut PoolEntry, Refusal> {
        let missing = || Refusal::new(Code::PoolNotFound, "The specified pool does not exist.").with("PoolId", pool);
        let entry = self.pools.get_mut(pool).ok_or_else(missing)?;
        condition.check(entry.record.version, entry.record.modified_at)?;
        if entry.record.state == PoolState::Deleting {
            return Err(Refusal::new(Code::PoolBeingDeleted, POOL_GOES).with("PoolId", pool));
        }
        Ok(entry)
    }

    /// Gives the pool a new version after a change.
    pub(super) fn changed(&mut self, pool: &PoolId, now: Timestamp) -> Done {
        let version = self.next_version();
        if let Some(entry) = self.pools.get_mut(pool) {
            (entry.record.version, entry.record.modified_at, entry.is_dirty) = (version, now, true);
        }
        Done::Changed { version, at: now }
    }

    pub(super) fn delete_pool(&mut self, pool: &PoolId, condition: &Condition, now: Timestamp) -> Result<Done, CommandError> {
        let entry = self.open_pool(pool, condition)?;
        entry.record.state = PoolState::Deleting;
        entry.record.state_at = now;
        (entry.record.target_dedicated, entry.record.target_low_priority) = (0, 0);
        (entry.record.policy, entry.record.scaling) = (None, None);
        entry.record.allocation = AllocationState::Resizing;
        entry.record.deallocation = DeallocationOption::Requeue;
        let done = self.changed(pool, now);
        for job in self.jobs_of(pool) {
            self.step(pool, Event::JobStopped { job, stop: JobStop::Requeue }, now)?;
        }
        let nodes: Vec<NodeId> = self.pools.get(pool).map(|entry| entry.nodes.keys().cloned().collect()).unwrap_or_default();
        for node in nodes {
            self.drain(pool, &node, DeallocationOption::Requeue, now)?;
        }
        Ok(done)
    }

    pub(super) fn resize_pool(
        &mut self,
        pool: &PoolId,
        (dedicated, low_priority): (Option<u32>, Option<u32>),
        timeout: Option<Period>,
        option: DeallocationOption,
        condition: &Condition,
        now: Timestamp,
    ) -> Result<Done, CommandError> {
        let entry = self.open_pool(pool, condition)?;
        if entry.record.policy.is_some() {
            let refusal = Refusal::new(Code::OperationInvalidForCurrentState, "The pool's size follows its policy.");
            return Err(refusal.hint("Remove the policy (DELETE /piecework/pools/{id}/policy), or change its floor and ceiling.").into());
        }
        if entry.record.scaling.is_some() {
            let refusal = Refusal::new(Code::OperationInvalidForCurrentState, "The pool's size follows its formula.");
            return Err(refusal.hint("Disable automatic scaling first, or change the formula.").into());
        }
        if entry.record.allocation != AllocationState::Steady {
            return Err(Refusal::new(Code::PoolBeingResized, "The specified pool is being resized.")
                .hint("Wait until its allocation state is steady, or stop the resize.")
                .into());
        }
        let record = &mut entry.record;
        record.target_dedicated = dedicated.unwrap_or(record.target_dedicated);
        record.target_low_priority = low_priority.unwrap_or(record.target_low_priority);
        record.settings.resize_timeout = timeout.unwrap_or(PoolSettings::default().resize_timeout);
        record.deallocation = option;
        record.resize_errors.clear();
        (record.allocation, record.allocation_at) = (AllocationState::Resizing, now);
        entry.creations.begin_anew();
        Ok(self.changed(pool, now))
    }

    pub(super) fn stop_resize(&mut self, pool: &PoolId, condition: &Condition, now: Timestamp) -> Result<Done, CommandError> {
        let entry = self.open_pool(pool, condition)?;
        if entry.record.allocation != AllocationState::Resizing {
            let refusal = Refusal::new(Code::OperationInvalidForCurrentState, "The pool is not being resized.");
            return Err(refusal.with("AllocationState", entry.record.allocation).into());
        }
        // Present nodes, including those that are leaving, become the target; requested nodes that never appeared are
        // dropped.
        let there = entry.nodes.values().filter(|node| node.drain.is_none() && node.epoch.0 > 0);
        let (dedicated, low_priority): (Vec<_>, Vec<_>) = there.partition(|node| node.is_dedicated);
        let asked_for = (entry.record.target_dedicated, entry.record.target_low_priority);
        let there = (dedicated.len() as u32, low_priority.len() as u32);
        entry.record.resize_errors = if there == asked_for { vec![] } else { vec![cut_short(asked_for, there)] };
        (entry.record.target_dedicated, entry.record.target_low_priority) = there;
        (entry.record.allocation, entry.record.allocation_at) = (AllocationState::Stopping, now);
        Ok(self.changed(pool, now))
    }

    pub(super) fn set_policy(&mut self, pool: &PoolId, policy: Option<QueuePolicy>, now: Timestamp) -> Result<Done, CommandError> {
        let entry = self.open_pool(pool, &Condition::default())?;
        if policy.is_some() && entry.record.scaling.is_some() {
            let refusal = Refusal::new(Code::OperationInvalidForCurrentState, "The pool's size follows its formula.");
            return Err(refusal.hint("Disable automatic scaling first; a policy and a formula exclude each other.").into());
        }
        entry.record.policy = policy;
        Ok(self.changed(pool, now))
    }

    pub(super) fn remove_nodes(
        &mut self,
        pool: &PoolId,
        nodes: &[NodeId],
        (option, timeout): (DeallocationOption, Option<Period>),
        condition: &Condition,
        now: Timestamp,
    ) -> Result<Done, CommandError> {
        let entry = self.open_pool(pool, condition)?;
        if entry.record.allocation != AllocationState::Steady {
            return Err(Refusal::new(Code::PoolBeingResized, "The specified pool is being resized.")
                .hint("Wait until its allocation state is steady.")
                .into());
        }
        if let Some(missing) = nodes.iter().find(|node| !entry.nodes.contains_key(*node)) {
            return Err(Refusal::new(Code::NodeNotFound, "The specified node does not exist.").with("NodeId", missing).into());
        }
        for node in nodes {
            let is_dedicated = entry.nodes.get(node).is_none_or(|node| node.is_dedicated);
            let target = if is_dedicated { &mut entry.record.target_dedicated } else { &mut entry.record.target_low_priority };
            *target = target.saturating_sub(1);
        }
        entry.record.settings.resize_timeout = timeout.unwrap_or(PoolSettings::default().resize_timeout);
        entry.record.resize_errors.clear();
        (entry.record.allocation, entry.record.allocation_at) = (AllocationState::Resizing, now);
        let done = self.changed(pool, now);
        for node in nodes {
            self.drain(pool, node, option, now)?;
        }
        Ok(done)
    }

    /// Stops new tasks on a node and deals with the running ones.
    pub(super) fn drain(&mut self, pool: &PoolId, node: &NodeId, option: DeallocationOption, now: Timestamp) -> Result<(), StoreError> {
        if let Some(entry) = self.pools.get_mut(pool)
            && let Some(record) = entry.nodes.get_mut(node)
        {
            record.drain = Some(option);
            entry.dirty_nodes.insert(node.clone());
        }
        self.step(pool, Event::Drain { node: node.clone(), option }, now)?;
        let order = contract::message::NodeOrder::Drain { option };
        self.control(broker_config::topology::node_key(pool, node), contract::message::ControlKind::Order(order));
        Ok(())
    }

    /// Deletes a pool whose last node is gone. Its jobs wait for a new pool of that name.
    pub(super) fn forget_pool(&mut self, pool: &PoolId, now: Timestamp) -> Result<(), StoreError> {
        self.tick_meter(pool, true, now)?;
        self.store.delete_pool(pool)?;
        if let Some(entry) = self.pools.remove(pool) {
            for (uid, facts) in entry.core.jobs() {
                if let Some(job) = self.jobs.get_mut(uid) {
                    job.parked = facts.waiting;
                }
            }
        }
        self.run_errand(&Errand::Undeclare { pool: pool.clone() })
    }

    /// Informs the pool's scheduler whether a job's tasks may be released.
    pub(super) fn tell_job(&mut self, uid: JobUid, now: Timestamp) -> Result<(), StoreError> {
        let Some(job) = self.jobs.get(&uid) else { return Ok(()) };
        let event = Event::Job { job: uid, priority: job.record.priority, max_parallel: job.record.max_parallel, runs: job.runs() };
        let pool = job.record.pool.clone();
        self.step(&pool, event, now)
    }
}
