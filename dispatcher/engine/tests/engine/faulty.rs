//! A store that refuses at chosen points, as the real one does on a full disk or under another process's lock.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use contract::{
    ids::{ApplicationId, Epoch, Fence, FunctionId, JobId, JobUid, NodeId, PoolId, RunId, RunKey, ScheduleId, TaskId, TaskUid, TriggerId},
    outcome::{JobTaskEnd, JobTaskKind, Stream},
    time::Timestamp,
};
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
use store::{
    Store, StoreError,
    errands::{Errand, Place},
    records::{Buried, Candidate, Ending, Inserted, JobRecord, Loaded, NewTaskRecord, NodeRecord, PoolRecord, Requeue, TaskHead},
    sqlite::SqliteStore,
};

/// Which calls are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Opening a transaction.
    Begin,
    /// Reading everything anew.
    Load,
    /// Anything inside a transaction.
    Inside,
    /// The end of a transaction.
    Commit,
    /// Starts of a task, for a reason that does not pass.
    StartOf(TaskUid),
    /// The count of changed rows, which goes up without a change.
    Miscount,
}

/// Faults of the store, changed by the test while the engine runs.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    points: Arc<Mutex<Vec<(Point, u64)>>>,
    calls: Arc<AtomicU64>,
    hits: Arc<AtomicU64>,
    written: Arc<AtomicU64>,
}

impl Faults {
    /// Every n-th call of each of these is refused from now on.
    pub fn set(&self, points: &[(Point, u64)]) {
        *self.points.lock().unwrap() = points.to_vec();
    }

    /// How many calls were refused.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::SeqCst)
    }

    /// How many rows were changed up to the last commit.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }

    fn pass(&self, point: Point) -> Result<(), StoreError> {
        let points = self.points.lock().unwrap();
        let Some((_, every)) = points.iter().find(|(known, _)| *known == point) else { return Ok(()) };
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if !call.is_multiple_of(*every) {
            return Ok(());
        }
        self.hits.fetch_add(1, Ordering::SeqCst);
        let code = if matches!(point, Point::StartOf(_)) { rusqlite::ffi::SQLITE_CONSTRAINT } else { rusqlite::ffi::SQLITE_FULL };
        Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None).into())
    }
}

/// The real store behind them.
pub struct FaultyStore {
    pub inner: SqliteStore,
    pub faults: Faults,
}

macro_rules! forward {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $out:ty;)*) => {$(
        fn $name(&mut self, $($argument: $kind),*) -> Result<$out, StoreError> {
            self.faults.pass(Point::Inside)?;
            self.inner.$name($($argument),*)
        }
    )*};
}

#[rustfmt::skip]
impl Store for FaultyStore {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        self.faults.pass(Point::Load)?;
        self.inner.load()
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        self.faults.pass(Point::Begin)?;
        self.inner.begin()
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.faults.pass(Point::Commit)?;
        self.faults.written.store(self.inner.changes(), Ordering::SeqCst);
        self.inner.commit()
    }

    fn changes(&self) -> u64 {
        let miscounted = self.faults.pass(Point::Miscount).is_err();
        self.inner.changes() + if miscounted { self.faults.hits() } else { 0 }
    }

    fn rollback(&mut self) -> Result<(), StoreError> {
        self.inner.rollback()
    }

    fn start(&mut self, uid: TaskUid, run: RunId, node: &NodeId, epoch: Epoch, at: Timestamp, version: u64) -> Result<Option<Timestamp>, StoreError> {
        self.faults.pass(Point::StartOf(uid))?;
        self.faults.pass(Point::Inside)?;
        self.inner.start(uid, run, node, epoch, at, version)
    }

    forward! {
        put_pool(pool: &PoolRecord, document: Option<&str>) -> ();
        job_document(job: JobUid) -> Option<String>;
        pool_document(pool: &PoolId) -> Option<String>;
        delete_pool(pool: &PoolId) -> ();
        put_node(pool: &PoolId, node: &NodeRecord) -> ();
        keep_streams(run: &RunKey, node: &NodeId, streams: (&Stream, &Stream)) -> ();
        delete_node(pool: &PoolId, node: &NodeId) -> ();
        charge(pool: &PoolId, charge: &Charge) -> ();
        add_run(task: TaskUid, work: &Work, started_at: Timestamp) -> i64;
        add_to_job(job: JobUid, share: &Share) -> ();
        forget_usage(before: Timestamp) -> ();
        put_job(job: &JobRecord, document: Option<&str>) -> ();
        delete_job(job: JobUid) -> ();
        salvage_job(job: &JobId, at: Timestamp, version: u64) -> Option<JobRecord>;
        put_schedule(schedule: &ScheduleRow) -> ();
        delete_schedule(schedule: &ScheduleId) -> ();
        put_function(function: &FunctionRow) -> ();
        delete_function(pool: &PoolId, function: &FunctionId) -> ();
        put_trigger(trigger: &TriggerRow) -> ();
        delete_trigger(trigger: &TriggerId) -> ();
        see(trigger: u64, seen: &SeenKey, at: Timestamp) -> bool;
        forget_seen(trigger: u64, seen: &SeenKey) -> ();
        forget_all_seen(trigger: u64, count: usize) -> usize;
        next_seer(after: Option<u64>) -> Option<u64>;
        put_application(application: &ApplicationRow) -> ();
        delete_application(application: &ApplicationId) -> ();
        jobs_of_schedule(schedule: &ScheduleId, count: usize) -> Vec<JobId>;
        find_job(job: &JobId) -> Option<JobRecord>;
        insert_task(job: JobUid, task: &NewTaskRecord<'_>) -> Inserted;
        task(job: JobUid, task: &TaskId) -> Option<TaskHead>;
        task_by_uid(uid: TaskUid) -> Option<TaskHead>;
        next_ready(job: JobUid, count: usize) -> Vec<Candidate>;
        unreadable_ready(job: JobUid, count: usize) -> Vec<(TaskUid, Unreadable)>;
        number_of(job: JobUid, task: &TaskId) -> Option<TaskUid>;
        bury(uid: TaskUid, job: Option<JobUid>, ending: &Ending, version: u64) -> Option<Buried>;
        candidate(uid: TaskUid) -> Option<Candidate>;
        release(uid: TaskUid, attempt: u32, fence: Fence, at: Timestamp) -> ();
        published(uid: TaskUid) -> ();
        unrelease(uid: TaskUid, fence: Fence) -> ();
        prepare(run: (TaskUid, RunId), node: (&NodeId, Epoch), at: Timestamp, version: u64) -> Option<Timestamp>;
        begin_run(uid: TaskUid, at: Timestamp, version: u64) -> ();
        put_job_tasks(job: JobUid, job_tasks: &JobTasks) -> ();
        put_job_on_node(job: JobUid, pool: &PoolId, node: &NodeId, job_on_node: &JobOnNode) -> ();
        begin_job_task(job: JobUid, pool: &PoolId, node: &NodeId, kind: JobTaskKind, at: Timestamp) -> ();
        end_job_task(pool: &PoolId, node: &NodeId, end: &JobTaskEnd, is_told: bool) -> ();
        requeue(uid: TaskUid, fence: Fence, requeue: &Requeue, version: u64) -> ();
        wake(job: JobUid, now: Timestamp) -> (u64, bool);
        end(uid: TaskUid, ending: &Ending, version: u64) -> ();
        update_task(uid: TaskUid, document: &str, retries_max: i32, at: Timestamp, version: u64) -> ();
        forget_stream(uid: TaskUid, stream: StreamName) -> ();
        reactivate(uid: TaskUid, fence: Fence, at: Timestamp, version: u64) -> bool;
        leave_pool(job: JobUid, pool: &PoolId) -> ();
        refit(job: JobUid, slots_max: u32, count: usize) -> usize;
        count_ready(job: JobUid) -> u64;
        satisfy(job: JobUid, task: &TaskId) -> Vec<TaskUid>;
        exit_conditions(uid: TaskUid) -> Option<ExitConditions>;
        delete_task(uid: TaskUid) -> ();
        delete_rows(job: JobUid, count: usize) -> (usize, Vec<String>);
        blobs_of(uid: TaskUid) -> [Option<String>; 2];
        remember(pool: &PoolId, key: &MessageKey, at: Timestamp) -> ();
        remembered(pool: &PoolId, message_id: &str) -> Option<[u8; DIGEST_BYTES]>;
        forget_messages(before: Timestamp, most: u64, count: usize) -> usize;
        await_end(job: JobUid, task: TaskUid, answer: &Answer) -> ();
        take_awaited(job: JobUid, task: TaskUid) -> Vec<Answer>;
        take_awaited_of_job(job: JobUid, count: usize) -> (Vec<Answer>, usize);
        next_awaited_job(after: Option<JobUid>) -> Option<JobUid>;
        put_errand(id: u64, errand: &Errand) -> ();
        errands(place: Place, after: u64, count: usize) -> (Vec<(u64, Errand)>, u64);
        end_errand(place: Place, id: u64) -> ();
    }
}
