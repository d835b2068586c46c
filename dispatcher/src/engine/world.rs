//! What the engine holds in memory: what is alive, a core for each pool, and the open transaction's answers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use broker_config::{
    amqp::Tag,
    ids::{ApplicationId, AttemptKey, JobId, JobUid, NodeId, PoolId, ScheduleId, TaskId, TaskUid},
    message::{TaskMessage, VERSION},
    spec::{EnvironmentSetting, TaskSpec},
    state::{JobState, SchedulingState},
    time::Timestamp,
};
use tokio::sync::oneshot;

use crate::{
    command::{Command, Done},
    core::{Attempt, Core, Effect, Event, Node, Phase, Timers},
    engine::{Input, Output, Release, metering::Meter},
    formula::History,
    refusal::{Code, Refusal},
    store::{
        Store, StoreError,
        applications::ApplicationRow,
        chores::JobChores,
        records::{JobRecord, LiveTask, NodeRecord, PoolRecord},
        schedules::ScheduleRow,
        usage::Share,
    },
    task_token::TaskTokens,
};

/// Who this dispatcher is, for nodes' environments and joins.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The account's name.
    pub account: String,
    /// The account's URL.
    pub account_url: String,
    /// Lets an agent join without having been asked for.
    pub join_secret: Option<broker_config::settings::Secret>,
    /// Time between beats.
    pub beat_ms: u64,
    /// Makes the tokens that tasks may ask for.
    pub tokens: TaskTokens,
}

pub(super) struct PoolEntry {
    pub record: PoolRecord,
    pub core: Core,
    pub nodes: BTreeMap<NodeId, NodeRecord>,
    pub is_dirty: bool,
    pub dirty_nodes: BTreeSet<NodeId>,
    /// Changed in a way that may wait for the next flush.
    pub stale_nodes: BTreeSet<NodeId>,
    pub flushed_at: Timestamp,
    pub waiting_since: Option<Timestamp>,
    pub is_touched: bool,
    /// What formulas look back on.
    pub history: History,
    pub meter: Meter,
}

pub(super) struct JobEntry {
    pub record: JobRecord,
    pub is_dirty: bool,
    /// Ready rows while the job has no pool.
    pub parked: u64,
}

type Answer = (oneshot::Sender<Result<Done, Refusal>>, Result<Done, Refusal>);

/// Everything the engine's thread owns.
pub struct World {
    pub(super) store: Box<dyn Store>,
    pub(super) identity: Identity,
    pub(super) timers: Timers,
    /// When this process began to serve.
    pub(super) loaded_at: Timestamp,
    pub(super) boot: u64,
    pub(super) first_fence: u64,
    pub(super) next_task: u64,
    pub(super) next_job: u64,
    pub(super) version: u64,
    pub(super) pools: HashMap<PoolId, PoolEntry>,
    pub(super) jobs: HashMap<JobUid, JobEntry>,
    pub(super) job_names: HashMap<JobId, JobUid>,
    /// What jobs run on nodes around their tasks, of those that do.
    pub(super) chores: HashMap<JobUid, JobChores>,
    pub(super) schedules: BTreeMap<ScheduleId, ScheduleRow>,
    pub(super) applications: BTreeMap<ApplicationId, ApplicationRow>,
    pub(super) outputs: Vec<Output>,
    pub(super) releases: Vec<Release>,
    pub(super) answers: Vec<Answer>,
    /// Specs of tasks that were added in this transaction, so that releasing them reads nothing back.
    pub(super) fresh: HashMap<TaskUid, (TaskId, TaskSpec)>,
    /// What the runs that ended in this transaction have used, to be added to the jobs' sums at its end.
    pub(super) used: HashMap<JobUid, Share>,
}

impl World {
    pub(super) fn load(store: Box<dyn Store>, identity: Identity, timers: Timers, now: Timestamp) -> Result<World, StoreError> {
        let mut world = World {
            store,
            identity,
            timers,
            loaded_at: now,
            boot: 0,
            first_fence: 0,
            next_task: 1,
            next_job: 1,
            version: 1,
            pools: HashMap::new(),
            jobs: HashMap::new(),
            job_names: HashMap::new(),
            chores: HashMap::new(),
            schedules: BTreeMap::new(),
            applications: BTreeMap::new(),
            outputs: Vec::new(),
            releases: Vec::new(),
            answers: Vec::new(),
            fresh: HashMap::new(),
            used: HashMap::new(),
        };
        world.reload(now)?;
        Ok(world)
    }

    /// Forgets what is in memory and reads what is alive.
    pub(super) fn reload(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let loaded = self.store.load()?;
        self.boot = loaded.boot;
        self.first_fence = loaded.store_epoch << 40;
        self.next_task = self.next_task.max(loaded.next_task);
        self.next_job = self.next_job.max(loaded.next_job);
        self.version = self.version.max(loaded.next_version).max(now.0.unsigned_abs() * 1000);
        self.pools.clear();
        self.jobs.clear();
        self.job_names.clear();
        for (record, nodes) in loaded.pools {
            let mut core = Core::new(record.slots_per_node, self.timers);
            core.set_job_order(record.job_order);
            for node in &nodes {
                let is_enabled = node.scheduling == SchedulingState::Enabled;
                core.restore_node(
                    node.id.clone(),
                    Node::restored(node.epoch, node.state, is_enabled, (node.drain, node.is_drained), node.turn, now),
                );
            }
            self.outputs.push(Output::Declare(record.id.clone(), None));
            let nodes = nodes.into_iter().map(|node| (node.id.clone(), node)).collect();
            let entry = PoolEntry {
                core,
                nodes,
                is_dirty: false,
                dirty_nodes: BTreeSet::new(),
                stale_nodes: BTreeSet::new(),
                flushed_at: now,
                waiting_since: None,
                is_touched: true,
                history: History::default(),
                meter: Meter::start(now),
                record,
            };
            self.pools.insert(entry.record.id.clone(), entry);
        }
        self.chores = loaded.chores.into_iter().collect();
        for (record, ready) in loaded.jobs {
            let uid = record.uid;
            self.job_names.insert(record.id.clone(), uid);
            self.jobs.insert(uid, JobEntry { record, is_dirty: false, parked: ready });
            self.attach(uid, now);
        }
        for row in loaded.sites {
            if let Some(pool) = self.pools.get_mut(&row.pool) {
                pool.core.restore_site(row.job, &row.node, row.site);
            }
        }
        self.applications = loaded.applications.into_iter().map(|row| (row.id.clone(), row)).collect();
        self.schedules = loaded.schedules.into_iter().map(|row| (row.id.clone(), row)).collect();
        for task in loaded.live {
            self.restore(task, now);
        }
        for pool in self.pools.values_mut() {
            pool.core.restore_window(now);
        }
        Ok(())
    }

    fn restore(&mut self, task: LiveTask, now: Timestamp) {
        let Some(pool) = self.jobs.get(&task.job).and_then(|job| self.pools.get_mut(&job.record.pool)) else { return };
        let phase = match task.owner {
            Some((run, node, epoch, _)) => Phase::Running { run, node, epoch, seen_at: now, is_preparing: task.is_preparing },
            None => Phase::Released { at: now, is_published: task.is_published, retry_at: (!task.is_published).then_some(now) },
        };
        let key = AttemptKey { uid: task.uid, attempt: task.attempt, fence: task.fence };
        let slots = if task.crashes >= crate::core::CRASHES_ALONE { pool.record.slots_per_node } else { task.slots };
        let attempt =
            Attempt { job: task.job, key, slots, crashes: task.crashes, retries: task.retries, retries_max: task.retries_max, phase };
        pool.core.restore_attempt(task.job, attempt);
    }

    /// Makes a job known to its pool's core, with the rows that wait.
    pub(super) fn attach(&mut self, uid: JobUid, now: Timestamp) {
        let Some(job) = self.jobs.get_mut(&uid) else { return };
        let Some(pool) = self.pools.get_mut(&job.record.pool) else { return };
        let runs = job.record.state == JobState::Active;
        let event = Event::Job { job: uid, priority: job.record.priority, max_parallel: job.record.max_parallel, runs };
        pool.core.step(event, now, &mut Vec::new());
        if let Some(rules) = self.chores.get(&uid).map(JobChores::rules) {
            pool.core.step(Event::Prepares { job: uid, rules }, now, &mut Vec::new());
        }
        pool.core.restore_waiting(uid, std::mem::take(&mut job.parked));
        pool.is_touched = true;
    }

    pub(super) fn begin(&mut self) -> Result<(), StoreError> {
        self.store.begin()
    }

    /// One input: rules, rows, and what will be said after the commit.
    pub(super) fn take(&mut self, input: Input, now: Timestamp, acks: &mut Vec<Tag>) -> Result<(), StoreError> {
        match input {
            Input::Command { command, reply } => self.on_command(command, reply, now),
            Input::Events { batch, tag } => {
                acks.push(tag);
                self.on_events(batch, now)
            }
            Input::Beat(beat, back) => self.on_beat(beat, back, now),
            Input::Request(what, back) => self.on_request(what, back, now),
            Input::Published(results) => {
                for (pool, key, is_published) in results {
                    let event = if is_published { Event::Published(key) } else { Event::PublishFailed(key) };
                    self.step(&pool, event, now)?;
                }
                Ok(())
            }
            Input::Tick { events_behind, depths } => self.on_tick(events_behind, &depths, now),
            Input::Stop => Ok(()),
        }
    }

    fn on_command(&mut self, command: Command, reply: oneshot::Sender<Result<Done, Refusal>>, now: Timestamp) -> Result<(), StoreError> {
        let result = match command {
            Command::CreatePool(pool) => {
                let id = pool.id.clone();
                match self.create_pool(*pool, now)? {
                    Ok(done) => {
                        self.outputs.push(Output::Declare(id, Some((reply, done))));
                        return Ok(());
                    }
                    Err(refusal) => Err(refusal),
                }
            }
            Command::DeletePool(pool, condition) => self.delete_pool(&pool, &condition, now)?,
            Command::ResizePool { pool, dedicated, low_priority, timeout, option, condition } => {
                self.resize_pool(&pool, (dedicated, low_priority), timeout, option, &condition, now)?
            }
            Command::StopResize(pool, condition) => self.stop_resize(&pool, &condition, now)?,
            Command::UpdatePool(pool, change, condition) => self.update_pool(&pool, *change, &condition, now)?,
            Command::EnableScaling { pool, formula, interval, condition } => {
                self.enable_scaling(&pool, formula, interval, &condition, now)?
            }
            Command::DisableScaling(pool) => self.disable_scaling(&pool, now)?,
            Command::EvaluateScaling(pool, formula) => self.evaluate_scaling(&pool, &formula, now)?,
            Command::SetPolicy(pool, policy) => self.set_policy(&pool, policy, now)?,
            Command::RemoveNodes { pool, nodes, option, condition } => self.remove_nodes(&pool, &nodes, option, &condition, now)?,
            Command::SwitchScheduling { pool, node, enabled, option } => self.switch_scheduling(&pool, &node, enabled, option, now)?,
            Command::TurnNode { pool, node, kind, option } => self.turn_node(&pool, &node, kind, option, now)?,
            Command::WriteNodes(pools) => self.write_nodes(&pools, now),
            Command::CreateJob(job) => self.create_job(*job, now)?,
            Command::DisableJob(job, option, condition) => self.disable_job(&job, option, &condition, now)?,
            Command::EnableJob(job, condition) => self.enable_job(&job, &condition, now)?,
            Command::TerminateJob(job, reason, condition) => self.terminate_job(&job, reason, &condition, now)?,
            Command::DeleteJob(job, condition) => self.remove_job(&job, &condition, now)?,
            Command::UpdateJob(job, change, condition) => self.update_job(&job, *change, &condition, now)?,
            Command::CreateSchedule(schedule) => self.create_schedule(*schedule, now)?,
            Command::ChangeSchedule(id, change, condition) => self.change_schedule(&id, *change, &condition, now)?,
            Command::SwitchSchedule(id, enabled, condition) => self.switch_schedule(&id, enabled, &condition, now)?,
            Command::TerminateSchedule(id, condition) => self.terminate_schedule(&id, &condition, now)?,
            Command::DeleteSchedule(id, condition) => self.remove_schedule(&id, &condition, now)?,
            Command::PutApplication(id, change, condition) => self.put_application(id, *change, &condition, now)?,
            Command::DeleteApplication(id, condition) => self.delete_application(&id, &condition, now)?,
            Command::BeginPackage(id, version, key) => self.begin_package(&id, version, key, now)?,
            Command::ActivatePackage(id, version, upload) => self.activate_package(&id, &version, upload, now)?,
            Command::DeletePackage(id, version) => self.delete_package(&id, &version, now)?,
            Command::CreateTasks(job, tasks) => self.create_tasks(&job, tasks, now)?,
            Command::UpdateTask(job, task, constraints, condition) => self.update_task(&job, &task, constraints, &condition, now)?,
            Command::ReactivateTask(job, task, condition) => self.reactivate_task(&job, &task, &condition, now)?,
            Command::TerminateTask(job, task, condition) => self.terminate_task(&job, &task, &condition, now)?,
            Command::DeleteTask(job, task, condition) => self.remove_task(&job, &task, &condition, now)?,
            Command::ForgetStream(job, task, stream) => self.forget_stream(&job, &task, stream, now)?,
        };
        self.answers.push((reply, result));
        Ok(())
    }

    /// Runs a pool's rules and everything that follows from their effects.
    pub(super) fn step(&mut self, pool: &PoolId, event: Event, now: Timestamp) -> Result<(), StoreError> {
        self.step_with(pool, event, now, |_| ()).map(|_| ())
    }

    /// The same, for events that are questions: `pick` finds the answer among the effects.
    pub(super) fn step_with<T>(
        &mut self,
        pool: &PoolId,
        event: Event,
        now: Timestamp,
        pick: impl FnOnce(&[Effect]) -> T,
    ) -> Result<Option<T>, StoreError> {
        let mut effects = Vec::new();
        let Some(entry) = self.pools.get_mut(pool) else { return Ok(None) };
        entry.is_touched = true;
        entry.core.step(event, now, &mut effects);
        let picked = pick(&effects);
        self.apply(pool, effects, now)?;
        Ok(Some(picked))
    }

    /// The end of a batch: windows are filled and changed records written.
    pub(super) fn finish(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let touched: Vec<PoolId> = self.pools.values().filter(|pool| pool.is_touched).map(|pool| pool.record.id.clone()).collect();
        for pool in touched {
            self.step(&pool, Event::Fill, now)?;
            if let Some(entry) = self.pools.get_mut(&pool) {
                entry.is_touched = false;
            }
        }
        for job in self.jobs.values_mut().filter(|job| job.is_dirty) {
            self.store.put_job(&job.record, None)?;
        }
        for pool in self.pools.values_mut() {
            if pool.is_dirty {
                self.store.put_pool(&pool.record, None)?;
            }
            for node in &pool.dirty_nodes {
                if let Some(node) = pool.nodes.get(node) {
                    self.store.put_node(&pool.record.id, node)?;
                }
            }
        }
        for (job, share) in self.used.drain() {
            self.store.add_to_job(job, &share)?;
        }
        self.fresh.clear();
        if !self.releases.is_empty() {
            self.outputs.push(Output::Publish(std::mem::take(&mut self.releases)));
        }
        Ok(())
    }

    pub(super) fn commit(&mut self) -> Result<(), StoreError> {
        self.store.commit()?;
        for job in self.jobs.values_mut() {
            job.is_dirty = false;
        }
        for pool in self.pools.values_mut() {
            pool.is_dirty = false;
            pool.dirty_nodes.clear();
        }
        Ok(())
    }

    pub(super) fn answer(&mut self) {
        for (reply, result) in self.answers.drain(..) {
            // A door that has given up needs no answer.
            let _ = reply.send(result);
        }
    }

    pub(super) fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// Nothing of the open transaction happened; askers learn it by silence or by a refusal.
    pub(super) fn abandon(&mut self) {
        if let Err(error) = self.store.rollback() {
            tracing::warn!(%error, "rollback failed");
        }
        self.answers.clear();
        self.outputs.clear();
        self.releases.clear();
        self.fresh.clear();
        self.used.clear();
    }

    pub(super) fn refuse(&mut self, input: Input) {
        if let Input::Command { reply, .. } = input {
            let _ = reply.send(Err(Refusal::new(Code::ServerBusy, "The server could not store the change.")
                .hint("Try again; creating with the same id is safe.")));
        }
    }

    /// Publishes that the road had no room for.
    pub(super) fn not_sent(&mut self, outputs: Vec<Output>, now: Timestamp) {
        for output in outputs {
            match output {
                Output::Publish(releases) => {
                    for release in releases {
                        if let Some(pool) = self.pools.get_mut(&release.pool) {
                            pool.core.step(Event::PublishFailed(release.message.key()), now, &mut Vec::new());
                        }
                    }
                }
                Output::Declare(_, Some((reply, done))) => {
                    let _ = reply.send(Ok(done));
                }
                _ => {}
            }
        }
    }

    /// Whether these are the pools there are.
    pub(super) fn has_pools(&self, names: &[PoolId]) -> bool {
        names.len() == self.pools.len() && names.iter().all(|name| self.pools.contains_key(name))
    }

    pub(super) fn pool_names(&self) -> Vec<PoolId> {
        self.pools.keys().cloned().collect()
    }

    pub(super) fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// A job that is alive, by name.
    pub(super) fn alive(&self, job: &JobId) -> Option<JobUid> {
        self.job_names.get(job).copied()
    }

    /// The message of an attempt.
    pub(super) fn message(
        &self,
        key: AttemptKey,
        job: JobUid,
        task: TaskId,
        start: broker_config::message::Start,
        slots: u32,
        spec: Option<TaskSpec>,
    ) -> Option<TaskMessage> {
        let job = self.jobs.get(&job)?;
        Some(TaskMessage {
            v: VERSION,
            uid: key.uid,
            attempt: key.attempt,
            fence: key.fence,
            job: job.record.id.clone(),
            task,
            start,
            slots,
            spec,
        })
    }
}

/// The job's variables, then the task's own, which win.
pub(super) fn merge(common: &[EnvironmentSetting], own: Vec<EnvironmentSetting>) -> Vec<EnvironmentSetting> {
    if common.is_empty() {
        return own;
    }
    let mut merged: Vec<EnvironmentSetting> =
        common.iter().filter(|setting| own.iter().all(|mine| mine.name != setting.name)).cloned().collect();
    merged.extend(own);
    merged
}
