//! The engine's state in memory: alive jobs, pools with one scheduler each, and the outputs of the open transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use contract::{
    clock::{Moment, Now},
    ids::{ApplicationId, AttemptKey, FunctionId, JobId, JobUid, NodeId, PoolId, ScheduleId, TaskId, TaskUid, TriggerId},
    message::{TaskMessage, VERSION},
    spec::{EnvironmentSetting, TaskSpec},
    state::{JobState, SchedulingState},
    time::Timestamp,
};
use model::{
    application::ApplicationRow, function::FunctionRow, health::Unreadable, job_tasks::JobTasks, refusal::Refusal, schedule::ScheduleRow,
    trigger::TriggerRow, usage::Share,
};
use scaling::formula::History;
use scheduler::{Attempt, Core, Effect, Event, Node, Phase, Timers};
use store::{
    Store, StoreError,
    records::{JobRecord, LiveTask, NodeRecord, PoolRecord},
};
use tokio::sync::oneshot;

use crate::{
    awaiting::Awaiting,
    command::Done,
    creations::Creations,
    decided::Decided,
    errands_in_hand::Errands,
    figures::Figures,
    messages::{Activity, Input, Output, TaskPublish},
    metering::Meter,
    node_faults::forget_pause,
    shortage::Shortage,
    since::Since,
    tally::Tally,
    task_token::TaskTokens,
};

/// This dispatcher's identity, for nodes' environments and joins.
#[derive(Debug, Clone)]
pub struct Identity {
    pub account: String,
    /// The account's URL.
    pub account_url: String,
    /// Allows an agent to join without a requested node.
    pub join_secret: Option<broker_config::settings::Secret>,
    /// Time between heartbeats.
    pub heartbeat_ms: u64,
    /// Makes the tokens that tasks may ask for.
    pub tokens: TaskTokens,
}

pub(super) struct PoolEntry {
    pub record: PoolRecord,
    pub core: Core,
    pub nodes: BTreeMap<NodeId, NodeRecord>,
    pub is_dirty: bool,
    pub dirty_nodes: BTreeSet<NodeId>,
    /// Nodes with changes that are written with the next flush.
    pub stale_nodes: BTreeSet<NodeId>,
    pub flushed_at: Moment,
    pub waiting_since: Option<Moment>,
    /// New nodes that failed to start.
    pub creations: Creations,
    /// Timer of the present resize.
    pub allocating: Since,
    /// Timer since the last evaluation of the formula.
    pub scaled: Since,
    /// Timer since the formula was last changed.
    pub enabled: Since,
    pub is_touched: bool,
    pub decided: Decided,
    /// Samples that formulas use.
    pub history: History,
    /// The pool's functions.
    pub functions: BTreeMap<FunctionId, FunctionRow>,
    /// Changes whenever one of them does; zero for a pool that has none since the load.
    pub functions_number: u64,
    /// Invocations in the pool's queue when the broker was last asked.
    pub waiting_invocations: u64,
    pub meter: Meter,
    /// The meter at the last commit, for when the transaction is rolled back.
    stored_meter: Meter,
}

impl PoolEntry {
    pub(super) fn new(record: PoolRecord, core: Core, now: Now) -> PoolEntry {
        PoolEntry {
            record,
            core,
            nodes: BTreeMap::new(),
            is_dirty: false,
            dirty_nodes: BTreeSet::new(),
            stale_nodes: BTreeSet::new(),
            flushed_at: now.moment,
            waiting_since: None,
            creations: Creations::default(),
            allocating: Since::default(),
            scaled: Since::default(),
            enabled: Since::default(),
            is_touched: true,
            decided: Decided::default(),
            history: History::default(),
            functions: BTreeMap::new(),
            functions_number: 0,
            waiting_invocations: 0,
            meter: Meter::start(now),
            stored_meter: Meter::start(now),
        }
    }

    /// Takes over from the former entry what no row holds, after rows were loaded again because of a refused
    /// transaction.
    fn go_on(&mut self, before: PoolEntry) {
        if self.record.created_at == before.record.created_at {
            (self.waiting_since, self.history) = (before.waiting_since, before.history);
            (self.allocating, self.scaled, self.enabled) = (before.allocating, before.scaled, before.enabled);
            (self.meter, self.stored_meter) = (before.stored_meter, before.stored_meter);
            (self.creations, self.decided) = (before.creations, before.decided);
        }
    }
}

pub(super) struct JobEntry {
    pub record: JobRecord,
    pub is_dirty: bool,
    /// Ready rows while the job's pool does not exist.
    pub parked: u64,
    pub created_at: Moment,
    /// When the job was loaded into memory.
    pub loaded_at: Moment,
    /// Whether the job starts nothing because some of its tasks are not yet checked for whether they fit.
    pub is_refitting: bool,
    /// Whether that check changed some tasks, so that the ready rows must be counted again.
    pub was_refitted: bool,
}

impl JobEntry {
    pub(super) fn new(record: JobRecord, parked: u64, now: Now) -> JobEntry {
        let created_at = now.moment_of(record.created_at);
        let (is_refitting, was_refitted) = (false, false);
        JobEntry { record, is_dirty: false, parked, created_at, loaded_at: now.moment, is_refitting, was_refitted }
    }

    /// Whether the job's tasks may start.
    pub(super) fn runs(&self) -> bool {
        self.record.state == JobState::Active && !self.is_refitting
    }
}

type Answer = (oneshot::Sender<Result<Done, Refusal>>, Result<Done, Refusal>);

/// All state of the engine's thread.
pub struct World {
    pub(super) store: Box<dyn Store>,
    pub(super) identity: Identity,
    pub(super) timers: Timers,
    /// Monotonic time of the open transaction.
    pub(super) moment: Moment,
    pub(super) ticked_at: Option<Moment>,
    /// Wall-clock time at moment zero, as of the load.
    pub(super) first_time: Timestamp,
    pub(super) boot: u64,
    pub(super) first_fence: u64,
    pub(super) next_task: u64,
    pub(super) next_job: u64,
    pub(super) version: u64,
    pub(super) pools: HashMap<PoolId, PoolEntry>,
    pub(super) jobs: HashMap<JobUid, JobEntry>,
    pub(super) job_names: HashMap<JobId, JobUid>,
    /// Preparation and release tasks of the jobs that have some.
    pub(super) job_tasks: HashMap<JobUid, JobTasks>,
    pub(super) schedules: BTreeMap<ScheduleId, ScheduleRow>,
    pub(super) applications: BTreeMap<ApplicationId, ApplicationRow>,
    pub(super) triggers: BTreeMap<TriggerId, TriggerRow>,
    /// Whether workers are still to be told of the present triggers.
    pub(super) are_triggers_new: bool,
    /// Whether rows may be left of what deleted triggers have seen.
    pub(super) seers_to_forget: bool,
    pub(super) outputs: Vec<Output>,
    pub(super) releases: Vec<TaskPublish>,
    pub(super) answers: Vec<Answer>,
    /// Specs of tasks added in this transaction, so that releasing them reads nothing back.
    pub(super) fresh: HashMap<TaskUid, (TaskId, TaskSpec)>,
    pub(super) errands: Errands,
    pub(super) awaiting: Awaiting,
    /// Deleted jobs whose rows are removed in slices.
    pub(super) sweeping: VecDeque<JobUid>,
    /// Jobs with tasks that are still to be checked for whether they fit.
    pub(super) refitting: VecDeque<JobUid>,
    /// Tasks whose rows cannot be read; they are ended with this transaction.
    pub(super) unreadable: Vec<(TaskUid, Unreadable)>,
    /// Unreadable rows for the health.
    pub(super) named: Vec<Unreadable>,
    /// Usage of the runs that ended in this transaction; added to the jobs' sums at its end.
    pub(super) used: HashMap<JobUid, Share>,
    /// Why the open transaction must not be committed.
    pub(super) half_done: Option<String>,
    /// Why additions are refused at present.
    pub(super) shortage: Shortage,
    /// Whether schedules create no jobs for that reason.
    pub(super) holds_schedules: bool,
    /// Jobs that end without waiting for nodes. A restart forgets them; they then end like others.
    pub(super) forced: HashSet<JobUid>,
    /// Counts of the open transaction for the metrics.
    pub(super) tally: Tally,
    /// Requests for figures, answered after the commit.
    pub(super) measuring: Vec<oneshot::Sender<Figures>>,
    /// Readers of nodes, answered after the commit.
    pub(super) reading: Vec<(Vec<PoolId>, oneshot::Sender<Activity>)>,
}

impl World {
    pub(super) fn load(store: Box<dyn Store>, identity: Identity, timers: Timers, now: Now) -> Result<World, StoreError> {
        let mut world = World {
            store,
            identity,
            timers,
            moment: now.moment,
            ticked_at: None,
            first_time: now.time.plus_ms(-now.moment.0),
            boot: 0,
            first_fence: 0,
            next_task: 1,
            next_job: 1,
            version: 1,
            pools: HashMap::new(),
            jobs: HashMap::new(),
            job_names: HashMap::new(),
            job_tasks: HashMap::new(),
            schedules: BTreeMap::new(),
            applications: BTreeMap::new(),
            triggers: BTreeMap::new(),
            are_triggers_new: true,
            seers_to_forget: true,
            outputs: Vec::new(),
            releases: Vec::new(),
            answers: Vec::new(),
            fresh: HashMap::new(),
            errands: Errands::new(1),
            awaiting: Awaiting::default(),
            sweeping: VecDeque::new(),
            refitting: VecDeque::new(),
            unreadable: Vec::new(),
            named: Vec::new(),
            used: HashMap::new(),
            half_done: None,
            shortage: Shortage::default(),
            holds_schedules: false,
            forced: HashSet::new(),
            tally: Tally::new(),
            measuring: Vec::new(),
            reading: Vec::new(),
        };
        world.reload(now)?;
        Ok(world)
    }

    /// Replaces everything in memory by what is alive in the store.
    pub(super) fn reload(&mut self, present: Now) -> Result<(), StoreError> {
        let Now { time: now, moment } = present;
        self.moment = moment;
        let loaded = self.store.load()?;
        self.boot = loaded.boot;
        self.first_fence = loaded.store_epoch << 40;
        self.next_task = self.next_task.max(loaded.next_task);
        self.next_job = self.next_job.max(loaded.next_job);
        self.version = self.version.max(loaded.next_version).max(now.0.unsigned_abs() * 1000);
        for what in loaded.unreadable {
            tracing::error!(
                table = what.table,
                row = what.row,
                column = what.column,
                "a row cannot be read; the dispatcher works without it"
            );
            self.name_unreadable(what);
        }
        self.unreadable = loaded.unreadable_tasks;
        self.errands = Errands::new(loaded.next_errand.max(self.errands.next()));
        // The next tick fills it again.
        self.sweeping.clear();
        let mut pools_before = std::mem::take(&mut self.pools);
        let jobs_before = std::mem::take(&mut self.jobs);
        self.job_names.clear();
        for (record, mut nodes) in loaded.pools {
            let forgotten = nodes.iter_mut().filter_map(|node| forget_pause(node).then(|| node.id.clone())).collect();
            let mut core = Core::new(record.slots_per_node, self.timers);
            core.set_job_order(record.job_order);
            for node in &nodes {
                let is_enabled = node.scheduling == SchedulingState::Enabled;
                let since = (present.moment_of(node.state_at), moment);
                let restored = Node::restored(node.epoch, node.state, is_enabled, (node.drain, node.is_drained), node.action, since);
                core.restore_node(node.id.clone(), restored);
            }
            self.outputs.push(Output::Declare(record.id.clone(), None));
            let mut entry = PoolEntry::new(record, core, present);
            entry.nodes = nodes.into_iter().map(|node| (node.id.clone(), node)).collect();
            // Clients read the row, so it must be written.
            entry.dirty_nodes = forgotten;
            if let Some(before) = pools_before.remove(&entry.record.id) {
                entry.go_on(before);
            }
            self.pools.insert(entry.record.id.clone(), entry);
        }
        self.refitting = loaded.unfitted.into();
        self.job_tasks = loaded.job_tasks.into_iter().collect();
        for (record, ready) in loaded.jobs {
            let uid = record.uid;
            self.job_names.insert(record.id.clone(), uid);
            let mut entry = JobEntry::new(record, ready, present);
            if let Some(before) = jobs_before.get(&uid) {
                (entry.created_at, entry.loaded_at) = (before.created_at, before.loaded_at);
            }
            entry.is_refitting = self.refitting.contains(&uid);
            self.jobs.insert(uid, entry);
            self.attach(uid, now);
        }
        for row in loaded.jobs_on_nodes {
            if let Some(pool) = self.pools.get_mut(&row.pool) {
                pool.core.restore_job_on_node(row.job, &row.node, row.job_on_node, moment);
            }
        }
        self.applications = loaded.applications.into_iter().map(|row| (row.id.clone(), row)).collect();
        self.load_functions(loaded.functions);
        self.load_triggers(loaded.triggers);
        self.schedules = loaded.schedules.into_iter().map(|row| (row.id.clone(), row)).collect();
        self.load_awaiting()?;
        for task in loaded.live {
            self.restore(task);
        }
        for pool in self.pools.values_mut() {
            pool.core.restore_window(moment);
        }
        Ok(())
    }

    fn restore(&mut self, task: LiveTask) {
        let now = self.moment;
        let Some(pool) = self.jobs.get(&task.job).and_then(|job| self.pools.get_mut(&job.record.pool)) else { return };
        let phase = match task.owner {
            Some((run, node, epoch, _)) => {
                Phase::Running { run, node, epoch, seen_at: now, is_preparing: task.is_preparing, is_seen_only: false }
            }
            None => Phase::Released { at: now, is_published: task.is_published, retry_at: (!task.is_published).then_some(now) },
        };
        let key = AttemptKey { uid: task.uid, attempt: task.attempt, fence: task.fence };
        let slots = if task.crashes >= scheduler::CRASHES_ALONE { pool.record.slots_per_node } else { task.slots };
        let attempt = Attempt {
            job: task.job,
            key,
            needs: task.slots,
            slots,
            crashes: task.crashes,
            retries: task.retries,
            retries_max: task.retries_max,
            phase,
        };
        pool.core.restore_attempt(task.job, attempt);
    }

    /// Adds a job with its waiting rows to its pool's scheduler.
    pub(super) fn attach(&mut self, uid: JobUid, now: Timestamp) {
        let Some(job) = self.jobs.get_mut(&uid) else { return };
        let Some(pool) = self.pools.get_mut(&job.record.pool) else { return };
        let (priority, max_parallel) = (job.record.priority, job.record.max_parallel);
        let event = Event::Job { job: uid, priority, max_parallel, runs: job.runs() };
        let now = Now { time: now, moment: self.moment };
        pool.core.step(event, now, &mut Vec::new());
        if let Some(rules) = self.job_tasks.get(&uid).map(JobTasks::rules) {
            pool.core.step(Event::Prepares { job: uid, rules }, now, &mut Vec::new());
        }
        let parked = std::mem::take(&mut job.parked);
        pool.core.restore_waiting(uid, if job.is_refitting { 0 } else { parked });
        pool.is_touched = true;
    }

    /// Wall-clock time that runs on steadily from the load; only to be compared with itself.
    pub(super) fn steady(&self) -> Timestamp {
        self.first_time.plus_ms(self.moment.0)
    }

    pub(super) fn begin(&mut self, moment: Moment) -> Result<(), StoreError> {
        self.moment = moment;
        self.store.begin()
    }

    /// Applies one input to scheduler and rows, and collects the outputs.
    pub(super) fn take(&mut self, input: Input, now: Timestamp) -> Result<(), StoreError> {
        match input {
            Input::Command { command, reply } => self.on_command(command, reply, now),
            Input::Events { batch, .. } => self.on_events(batch, now),
            Input::Heartbeat(heartbeat, back) => self.on_heartbeat(*heartbeat, back, now),
            Input::Request(what, back) => self.on_request(what, back, now),
            Input::Errands(results) => self.on_errands(results),
            Input::Published(results) => {
                for (pool, key, is_published) in results {
                    let event = if is_published { Event::Published(key) } else { Event::PublishFailed(key) };
                    self.step(&pool, event, now)?;
                }
                Ok(())
            }
            Input::Tick { events_behind, depths } => self.on_tick(events_behind, &depths, now),
            Input::Measure(reply) => {
                self.measuring.push(reply);
                Ok(())
            }
            Input::NodeActivity(pools, reply) => {
                self.reading.push((pools, reply));
                Ok(())
            }
            Input::Stop => Ok(()),
        }
    }

    /// Applies an event to a pool's scheduler and carries out the effects.
    pub(super) fn step(&mut self, pool: &PoolId, event: Event, now: Timestamp) -> Result<(), StoreError> {
        self.question(pool, now, |core, now, effects| core.step(event, now, effects)).map(|_| ())
    }

    /// The same for a question; `None` when the pool does not exist.
    pub(super) fn question<T>(
        &mut self,
        pool: &PoolId,
        now: Timestamp,
        ask: impl FnOnce(&mut Core, Now, &mut Vec<Effect>) -> T,
    ) -> Result<Option<T>, StoreError> {
        let mut effects = Vec::new();
        let Some(entry) = self.pools.get_mut(pool) else { return Ok(None) };
        entry.is_touched = true;
        let answer = ask(&mut entry.core, Now { time: now, moment: self.moment }, &mut effects);
        self.apply(pool, effects, now)?;
        Ok(Some(answer))
    }

    /// Ends a batch: fills the windows and writes changed records.
    pub(super) fn finish(&mut self, now: Timestamp) -> Result<(), StoreError> {
        self.bury_all(now)?;
        let touched: Vec<PoolId> = self.pools.values().filter(|pool| pool.is_touched).map(|pool| pool.record.id.clone()).collect();
        for pool in touched {
            self.step(&pool, Event::Fill, now)?;
            if let Some(entry) = self.pools.get_mut(&pool) {
                entry.is_touched = false;
            }
        }
        self.bury_all(now)?;
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
        self.send_errands()?;
        if !self.releases.is_empty() {
            self.outputs.push(Output::Publish(std::mem::take(&mut self.releases)));
        }
        Ok(())
    }

    pub(super) fn commit(&mut self) -> Result<(), StoreError> {
        self.store.commit()?;
        self.tally.commit();
        for job in self.jobs.values_mut() {
            job.is_dirty = false;
        }
        for pool in self.pools.values_mut() {
            pool.is_dirty = false;
            pool.dirty_nodes.clear();
            pool.stored_meter = pool.meter;
        }
        Ok(())
    }

    /// Whether these are exactly the present pools.
    pub(super) fn has_pools(&self, names: &[PoolId]) -> bool {
        names.len() == self.pools.len() && names.iter().all(|name| self.pools.contains_key(name))
    }

    pub(super) fn named(&self) -> &[Unreadable] {
        &self.named
    }

    pub(super) fn pool_names(&self) -> Vec<PoolId> {
        self.pools.keys().cloned().collect()
    }

    pub(super) fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// The number of a job in memory, by name.
    pub(super) fn alive(&self, job: &JobId) -> Option<JobUid> {
        self.job_names.get(job).copied()
    }

    /// The message of an attempt.
    pub(super) fn message(
        &self,
        key: AttemptKey,
        job: JobUid,
        task: TaskId,
        start: contract::message::Start,
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

/// Merges the environments of job and task; the task's values win.
pub(super) fn merge(common: &[EnvironmentSetting], own: Vec<EnvironmentSetting>) -> Vec<EnvironmentSetting> {
    if common.is_empty() {
        return own;
    }
    let mut merged: Vec<EnvironmentSetting> =
        common.iter().filter(|setting| own.iter().all(|mine| mine.name != setting.name)).cloned().collect();
    merged.extend(own);
    merged
}
