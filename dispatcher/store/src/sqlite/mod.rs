//! The store on SQLite: one writer in the engine's thread, and a pool of readers for API handlers.
//!
//! [`SqliteStore`] forwards to one file for each kind of row. The write-ahead log is synced with every commit, so a
//! commit survives power loss; readers see the last commit and never block the writer.

mod applications;
mod cells;
mod changes;
mod conditions;
mod damage;
mod dependencies;
mod errands;
mod error;
mod functions;
mod job_tasks;
mod jobs;
mod live;
mod numbers;
mod open;
mod pages;
mod paging;
mod pools;
mod reader;
mod rest;
mod scan;
mod schedules;
mod schema;
mod stream;
mod submissions;
mod sums;
mod task_pages;
mod tasks;
mod triggers;
mod usage;

use std::{fs::File, path::Path};

use contract::{
    ids::{ApplicationId, Epoch, Fence, FunctionId, JobId, JobUid, NodeId, PoolId, RunId, RunKey, ScheduleId, TaskId, TaskUid, TriggerId},
    outcome::{JobTaskEnd, JobTaskKind, Stream},
    time::Timestamp,
};
use rusqlite::Connection;

use self::numbers::{Bounds, Count};
pub use self::reader::{Sizes, SqliteReader};
use model::{
    application::ApplicationRow,
    function::FunctionRow,
    health::Unreadable,
    job_tasks::{JobOnNode, JobTasks},
    schedule::ScheduleRow,
    submission::{Answer, DIGEST_BYTES, MessageKey},
    task::{ExitConditions, StreamName},
    trigger::{SeenKey, TriggerRow},
    usage::{Charge, Share, Work},
};

use crate::{
    Store, StoreError,
    errands::{Errand, Place},
    records::{Buried, Candidate, Ending, Inserted, JobRecord, Loaded, NewTaskRecord, NodeRecord, PoolRecord, Requeue, TaskHead},
};

/// Epoch of the store in a new file; restoring a backup raises it.
const FIRST_EPOCH: u64 = 1;

/// The writing half, on a file that no other process writes.
pub struct SqliteStore {
    connection: Connection,
    bounds: Bounds,
    _lock: File,
}

impl SqliteStore {
    /// Opens or creates the file; fails when another process has it open.
    pub fn open(path: &Path) -> Result<SqliteStore, StoreError> {
        let (connection, lock) = open::writer(path)?;
        let bounds = Bounds::read(&connection)?;
        Ok(SqliteStore { connection, bounds, _lock: lock })
    }

    fn run(&self, statement: &'static str) -> Result<(), StoreError> {
        self.connection.prepare_cached(statement)?.execute([])?;
        Ok(())
    }

    fn note(&mut self, count: Count, number: u64) -> Result<(), StoreError> {
        self.bounds.note(&self.connection, count, number)
    }

    fn raise(&self, key: &str, least: u64) -> Result<u64, StoreError> {
        let value = numbers::meta(&self.connection, key)?.map_or(least, |value| value + 1);
        numbers::put_meta(&self.connection, key, value)?;
        Ok(value)
    }

    fn epoch(&self) -> Result<u64, StoreError> {
        match numbers::meta(&self.connection, "store_epoch")? {
            Some(epoch) => Ok(epoch),
            None => numbers::put_meta(&self.connection, "store_epoch", FIRST_EPOCH).map(|()| FIRST_EPOCH),
        }
    }

    fn load_all(&mut self) -> Result<Loaded, StoreError> {
        let (boot, store_epoch) = (self.raise("boot", 1)?, self.epoch()?);
        self.bounds = Bounds::read(&self.connection)?;
        let mut unreadable = Vec::new();
        let (job_tasks, unprepared) = job_tasks::load(&self.connection, &mut unreadable)?;
        let mut jobs = jobs::load(&self.connection, &mut unreadable)?;
        // Tasks must not run without their job's preparation.
        jobs.retain(|(job, _)| !unprepared.contains(&job.uid));
        let (live, unreadable_tasks) = live::load(&self.connection)?;
        Ok(Loaded {
            boot,
            store_epoch,
            next_task: self.bounds.next(Count::Task),
            next_job: self.bounds.next(Count::Job),
            next_errand: errands::next(&self.connection)?,
            next_version: self.bounds.next(Count::Version),
            pools: pools::load(&self.connection, &mut unreadable)?,
            jobs,
            unfitted: changes::unfitted(&self.connection)?,
            job_tasks,
            jobs_on_nodes: job_tasks::load_jobs_on_nodes(&self.connection, &mut unreadable)?,
            schedules: schedules::load(&self.connection, &mut unreadable)?,
            applications: applications::load(&self.connection, &mut unreadable)?,
            functions: functions::load(&self.connection, &mut unreadable)?,
            triggers: triggers::load(&self.connection, &mut unreadable)?,
            live,
            unreadable_tasks,
            unreadable,
        })
    }
}

impl Store for SqliteStore {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        self.begin()?;
        match self.load_all() {
            Ok(loaded) => self.commit().map(|()| loaded),
            Err(error) => {
                self.rollback()?;
                Err(error)
            }
        }
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        // Ends a transaction that could be neither committed nor rolled back before.
        if !self.connection.is_autocommit() {
            self.run("ROLLBACK")?;
        }
        self.run("BEGIN IMMEDIATE")
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.run("COMMIT")
    }

    fn rollback(&mut self) -> Result<(), StoreError> {
        // Some errors, such as a full disk, have already ended the transaction.
        if !self.connection.is_autocommit() {
            self.run("ROLLBACK")?;
        }
        self.bounds = Bounds::read(&self.connection)?;
        Ok(())
    }

    fn changes(&self) -> u64 {
        self.connection.total_changes()
    }

    fn put_pool(&mut self, pool: &PoolRecord, document: Option<&str>) -> Result<(), StoreError> {
        self.note(Count::Version, pool.version)?;
        pools::put(&self.connection, pool, document)
    }

    fn job_document(&mut self, job: JobUid) -> Result<Option<String>, StoreError> {
        jobs::document(&self.connection, job)
    }

    fn pool_document(&mut self, pool: &PoolId) -> Result<Option<String>, StoreError> {
        pools::document(&self.connection, pool)
    }

    fn delete_pool(&mut self, pool: &PoolId) -> Result<(), StoreError> {
        functions::delete_all(&self.connection, pool)?;
        pools::delete(&self.connection, pool)
    }

    fn charge(&mut self, pool: &PoolId, charge: &Charge) -> Result<(), StoreError> {
        sums::charge(&self.connection, pool, charge.dedicated_core_ms)?;
        usage::charge(&self.connection, pool, charge)
    }

    fn add_run(&mut self, task: TaskUid, work: &Work, started_at: Timestamp) -> Result<i64, StoreError> {
        sums::add_run(&self.connection, task, work, started_at)
    }

    fn add_to_job(&mut self, job: JobUid, share: &Share) -> Result<(), StoreError> {
        sums::add_to_job(&self.connection, job, share)
    }

    fn forget_usage(&mut self, before: Timestamp) -> Result<(), StoreError> {
        usage::forget(&self.connection, before)
    }

    fn put_node(&mut self, pool: &PoolId, node: &NodeRecord) -> Result<(), StoreError> {
        pools::put_node(&self.connection, pool, node)
    }

    fn delete_node(&mut self, pool: &PoolId, node: &NodeId) -> Result<(), StoreError> {
        pools::delete_node(&self.connection, pool, node)
    }

    fn put_job(&mut self, job: &JobRecord, document: Option<&str>) -> Result<(), StoreError> {
        self.note(Count::Job, job.uid.0)?;
        self.note(Count::Version, job.version)?;
        jobs::put(&self.connection, job, document)
    }

    fn delete_job(&mut self, job: JobUid) -> Result<(), StoreError> {
        jobs::delete(&self.connection, job)
    }

    fn salvage_job(&mut self, job: &JobId, at: Timestamp, version: u64) -> Result<Option<JobRecord>, StoreError> {
        self.note(Count::Version, version)?;
        jobs::salvage(&self.connection, job, at, version)
    }

    fn put_schedule(&mut self, schedule: &ScheduleRow) -> Result<(), StoreError> {
        self.note(Count::Version, schedule.version)?;
        schedules::put(&self.connection, schedule)
    }

    fn delete_schedule(&mut self, schedule: &ScheduleId) -> Result<(), StoreError> {
        schedules::delete(&self.connection, schedule)
    }

    fn put_application(&mut self, application: &ApplicationRow) -> Result<(), StoreError> {
        self.note(Count::Version, application.version)?;
        applications::put(&self.connection, application)
    }

    fn put_function(&mut self, function: &FunctionRow) -> Result<(), StoreError> {
        self.note(Count::Version, function.version)?;
        functions::put(&self.connection, function)
    }

    fn delete_function(&mut self, pool: &PoolId, function: &FunctionId) -> Result<(), StoreError> {
        functions::delete(&self.connection, pool, function)
    }

    fn put_trigger(&mut self, trigger: &TriggerRow) -> Result<(), StoreError> {
        self.note(Count::Version, trigger.version)?;
        triggers::put(&self.connection, trigger)
    }

    fn delete_trigger(&mut self, trigger: &TriggerId) -> Result<(), StoreError> {
        triggers::delete(&self.connection, trigger)
    }

    fn see(&mut self, trigger: u64, seen: &SeenKey, at: Timestamp) -> Result<bool, StoreError> {
        triggers::see(&self.connection, trigger, seen, at)
    }

    fn forget_seen(&mut self, trigger: u64, seen: &SeenKey) -> Result<(), StoreError> {
        triggers::forget(&self.connection, trigger, seen)
    }

    fn forget_all_seen(&mut self, trigger: u64, count: usize) -> Result<usize, StoreError> {
        triggers::forget_all(&self.connection, trigger, count)
    }

    fn next_seer(&mut self, after: Option<u64>) -> Result<Option<u64>, StoreError> {
        triggers::next_seer(&self.connection, after)
    }

    fn delete_application(&mut self, application: &ApplicationId) -> Result<(), StoreError> {
        applications::delete(&self.connection, application)
    }

    fn jobs_of_schedule(&mut self, schedule: &ScheduleId, count: usize) -> Result<Vec<JobId>, StoreError> {
        schedules::jobs(&self.connection, schedule, count)
    }

    fn find_job(&mut self, job: &JobId) -> Result<Option<JobRecord>, StoreError> {
        jobs::find(&self.connection, job)
    }

    fn insert_task(&mut self, job: JobUid, task: &NewTaskRecord<'_>) -> Result<Inserted, StoreError> {
        self.note(Count::Task, task.uid.0)?;
        self.note(Count::Version, task.version)?;
        tasks::insert(&self.connection, job, task)
    }

    fn task(&mut self, job: JobUid, task: &TaskId) -> Result<Option<TaskHead>, StoreError> {
        tasks::by_name(&self.connection, job, task)
    }

    fn task_by_uid(&mut self, uid: TaskUid) -> Result<Option<TaskHead>, StoreError> {
        tasks::by_uid(&self.connection, uid)
    }

    fn next_ready(&mut self, job: JobUid, count: usize) -> Result<Vec<Candidate>, StoreError> {
        tasks::next_ready(&self.connection, job, count)
    }

    fn unreadable_ready(&mut self, job: JobUid, count: usize) -> Result<Vec<(TaskUid, Unreadable)>, StoreError> {
        damage::of_ready(&self.connection, job, count)
    }

    fn number_of(&mut self, job: JobUid, task: &TaskId) -> Result<Option<TaskUid>, StoreError> {
        damage::number_of(&self.connection, job, task)
    }

    fn bury(&mut self, uid: TaskUid, job: Option<JobUid>, ending: &Ending, version: u64) -> Result<Option<Buried>, StoreError> {
        self.note(Count::Version, version)?;
        damage::bury(&self.connection, (uid, job), ending, version)
    }

    fn candidate(&mut self, uid: TaskUid) -> Result<Option<Candidate>, StoreError> {
        tasks::candidate_by_uid(&self.connection, uid)
    }

    fn release(&mut self, uid: TaskUid, attempt: u32, fence: Fence, at: Timestamp) -> Result<(), StoreError> {
        tasks::release(&self.connection, uid, attempt, fence, at)
    }

    fn published(&mut self, uid: TaskUid) -> Result<(), StoreError> {
        tasks::published(&self.connection, uid)
    }

    fn unrelease(&mut self, uid: TaskUid, fence: Fence) -> Result<(), StoreError> {
        tasks::unrelease(&self.connection, uid, fence)
    }

    fn start(
        &mut self,
        uid: TaskUid,
        run: RunId,
        node: &NodeId,
        epoch: Epoch,
        at: Timestamp,
        version: u64,
    ) -> Result<Option<Timestamp>, StoreError> {
        self.note(Count::Version, version)?;
        tasks::start(&self.connection, uid, run, node, epoch, at, version)
    }

    fn keep_streams(&mut self, run: &RunKey, node: &NodeId, streams: (&Stream, &Stream)) -> Result<(), StoreError> {
        tasks::keep_streams(&self.connection, run, node, streams)
    }

    fn prepare(
        &mut self,
        run: (TaskUid, RunId),
        node: (&NodeId, Epoch),
        at: Timestamp,
        version: u64,
    ) -> Result<Option<Timestamp>, StoreError> {
        self.note(Count::Version, version)?;
        tasks::prepare(&self.connection, run, node, at, version)
    }

    fn begin_run(&mut self, uid: TaskUid, at: Timestamp, version: u64) -> Result<(), StoreError> {
        self.note(Count::Version, version)?;
        tasks::begin(&self.connection, uid, at, version)
    }

    fn put_job_tasks(&mut self, job: JobUid, job_tasks: &JobTasks) -> Result<(), StoreError> {
        job_tasks::put(&self.connection, job, job_tasks)
    }

    fn put_job_on_node(&mut self, job: JobUid, pool: &PoolId, node: &NodeId, job_on_node: &JobOnNode) -> Result<(), StoreError> {
        job_tasks::put_job_on_node(&self.connection, job, pool, node, job_on_node)
    }

    fn begin_job_task(&mut self, job: JobUid, pool: &PoolId, node: &NodeId, kind: JobTaskKind, at: Timestamp) -> Result<(), StoreError> {
        job_tasks::begin(&self.connection, job, pool, node, kind, at)
    }

    fn end_job_task(&mut self, pool: &PoolId, node: &NodeId, end: &JobTaskEnd, is_told: bool) -> Result<(), StoreError> {
        job_tasks::end(&self.connection, pool, node, end, is_told)
    }

    fn requeue(&mut self, uid: TaskUid, fence: Fence, requeue: &Requeue, version: u64) -> Result<(), StoreError> {
        self.note(Count::Version, version)?;
        rest::requeue(&self.connection, uid, fence, requeue, version)
    }

    fn wake(&mut self, job: JobUid, now: Timestamp) -> Result<(u64, bool), StoreError> {
        rest::wake(&self.connection, job, now)
    }

    fn end(&mut self, uid: TaskUid, ending: &Ending, version: u64) -> Result<(), StoreError> {
        self.note(Count::Version, version)?;
        tasks::end(&self.connection, uid, ending, version)
    }

    fn update_task(&mut self, uid: TaskUid, document: &str, retries_max: i32, at: Timestamp, version: u64) -> Result<(), StoreError> {
        self.note(Count::Version, version)?;
        changes::update(&self.connection, uid, document, retries_max, at, version)
    }

    fn forget_stream(&mut self, uid: TaskUid, stream: StreamName) -> Result<(), StoreError> {
        changes::forget_stream(&self.connection, uid, stream)
    }

    fn reactivate(&mut self, uid: TaskUid, fence: Fence, at: Timestamp, version: u64) -> Result<bool, StoreError> {
        self.note(Count::Version, version)?;
        changes::reactivate(&self.connection, uid, fence, at, version)
    }

    fn leave_pool(&mut self, job: JobUid, pool: &PoolId) -> Result<(), StoreError> {
        changes::leave_pool(&self.connection, job, pool)
    }

    fn refit(&mut self, job: JobUid, slots_max: u32, count: usize) -> Result<usize, StoreError> {
        changes::refit(&self.connection, job, slots_max, count)
    }

    fn count_ready(&mut self, job: JobUid) -> Result<u64, StoreError> {
        jobs::ready(&self.connection, job)
    }

    fn satisfy(&mut self, job: JobUid, task: &TaskId) -> Result<Vec<TaskUid>, StoreError> {
        dependencies::satisfy(&self.connection, job, task)
    }

    fn exit_conditions(&mut self, uid: TaskUid) -> Result<Option<ExitConditions>, StoreError> {
        tasks::exit_conditions(&self.connection, uid)
    }

    fn delete_task(&mut self, uid: TaskUid) -> Result<(), StoreError> {
        tasks::delete(&self.connection, uid)
    }

    fn delete_rows(&mut self, job: JobUid, count: usize) -> Result<(usize, Vec<String>), StoreError> {
        jobs::delete_rows(&self.connection, job, count)
    }

    fn blobs_of(&mut self, uid: TaskUid) -> Result<[Option<String>; 2], StoreError> {
        tasks::blobs(&self.connection, uid)
    }

    fn remember(&mut self, pool: &PoolId, key: &MessageKey, at: Timestamp) -> Result<(), StoreError> {
        submissions::remember(&self.connection, pool, key, at)
    }

    fn remembered(&mut self, pool: &PoolId, message_id: &str) -> Result<Option<[u8; DIGEST_BYTES]>, StoreError> {
        submissions::remembered(&self.connection, pool, message_id)
    }

    fn forget_messages(&mut self, before: Timestamp, most: u64, count: usize) -> Result<usize, StoreError> {
        submissions::forget(&self.connection, before, most, count)
    }

    fn await_end(&mut self, job: JobUid, task: TaskUid, answer: &Answer) -> Result<(), StoreError> {
        submissions::wait(&self.connection, job, task, answer)
    }

    fn take_awaited(&mut self, job: JobUid, task: TaskUid) -> Result<Vec<Answer>, StoreError> {
        submissions::take(&self.connection, job, task)
    }

    fn take_awaited_of_job(&mut self, job: JobUid, count: usize) -> Result<(Vec<Answer>, usize), StoreError> {
        submissions::take_of_job(&self.connection, job, count)
    }

    fn next_awaited_job(&mut self, after: Option<JobUid>) -> Result<Option<JobUid>, StoreError> {
        submissions::next_job(&self.connection, after)
    }

    fn put_errand(&mut self, id: u64, errand: &Errand) -> Result<(), StoreError> {
        errands::insert(&self.connection, id, errand)
    }

    fn errands(&mut self, place: Place, after: u64, count: usize) -> Result<(Vec<(u64, Errand)>, u64), StoreError> {
        errands::after(&self.connection, place, after, count)
    }

    fn end_errand(&mut self, place: Place, id: u64) -> Result<(), StoreError> {
        errands::delete(&self.connection, place, id)
    }
}
