//! Records with ordinary values, the location of a store under test, and a store with one job.

use std::{fmt::Debug, future::Future, path::PathBuf, str::FromStr};

use contract::{
    ids::{Epoch, Fence, JobUid, NodeId, RunId, TaskUid},
    outcome::Stream,
    spec::FillType,
    state::{AllocationState, DeallocationOption, JobState, NodeState, PoolState, ScheduleState, SchedulingState},
    time::Timestamp,
};
use model::{
    auto_pool::JobPool,
    job::{Counts, NewJob},
    node::NodeProperties,
    pool::{JobOrder, NewPool},
    schedule::{ScheduleRow, Timetable},
    task::RequeueCause,
};
use store::{
    Store, StoreError,
    read::{Page, Read},
    records::{Ending, Inserted, JobRecord, NewTaskRecord, NodeRecord, PoolRecord, Requeue, Streams, TaskHead},
    rows::TaskRow,
    sqlite::{SqliteReader, SqliteStore},
};
use tempfile::TempDir;

/// The location of a store; opening it again after a drop is a restart.
pub trait Location {
    /// The writing half.
    fn store(&self) -> Result<Box<dyn Store>, StoreError>;
    /// The reading half; a writer must have been opened before.
    fn read(&self) -> Box<dyn Read>;
}

/// A store in a temporary folder.
pub struct SqliteFile {
    folder: TempDir,
}

impl SqliteFile {
    pub fn new() -> SqliteFile {
        SqliteFile { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("store.db")
    }
}

impl Location for SqliteFile {
    fn store(&self) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(SqliteStore::open(&self.path())?))
    }

    fn read(&self) -> Box<dyn Read> {
        Box::new(SqliteReader::open(&self.path(), 2).unwrap())
    }
}

/// An id from its text.
pub fn id<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

/// A point in time.
pub fn at(ms: i64) -> Timestamp {
    Timestamp(ms)
}

/// Waits for a read.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A page without a filter.
pub fn first(rows_max: usize) -> Page {
    Page { rows_max, ..Page::default() }
}

pub fn pool(name: &str) -> PoolRecord {
    PoolRecord {
        id: id(name),
        version: 1,
        state: PoolState::Active,
        state_at: at(1),
        allocation: AllocationState::Steady,
        allocation_at: at(2),
        target_dedicated: 0,
        target_low_priority: 0,
        settings: Default::default(),
        deallocation: DeallocationOption::Requeue,
        resize_errors: Vec::new(),
        slots_per_node: 1,
        fill: FillType::Spread,
        job_order: JobOrder::None,
        start_task: None,
        packages: Vec::new(),
        policy: None,
        scaling: None,
        decision: None,
        next_node: 1,
        created_at: at(3),
        modified_at: at(4),
    }
}

pub fn node(name: &str) -> NodeRecord {
    NodeRecord {
        id: id(name),
        token: "secret".to_owned(),
        epoch: Epoch(0),
        state: NodeState::Idle,
        state_at: at(1),
        scheduling: SchedulingState::Enabled,
        drain: None,
        is_drained: false,
        action: None,
        properties: NodeProperties::default(),
        allocated_at: at(2),
        booted_at: None,
        is_dedicated: true,
        rank: 0,
        tasks_run: 0,
        tasks_succeeded: 0,
        recent: Vec::new(),
        booted_with: None,
        start_task: None,
        faults: Vec::new(),
    }
}

pub fn new_pool(name: &str) -> NewPool {
    NewPool {
        id: id(name),
        document: "{}".to_owned(),
        slots_per_node: 1,
        fill: FillType::Spread,
        job_order: JobOrder::None,
        target_dedicated: 0,
        target_low_priority: 0,
        settings: Default::default(),
        start_task: None,
        packages: Vec::new(),
        policy: None,
        scaling: None,
    }
}

pub fn new_job(name: &str, pool: JobPool) -> NewJob {
    NewJob {
        job_tasks: None,
        id: id(name),
        document: "{}".to_owned(),
        pool,
        priority: 0,
        max_parallel: -1,
        environment: Vec::new(),
        max_task_retry_count: 0,
        max_wall_clock: None,
        terminate_when_complete: false,
        performs_exit_options: false,
        uses_dependencies: false,
        manager: None,
    }
}

pub fn job(uid: u64, name: &str) -> JobRecord {
    JobRecord {
        uid: JobUid(uid),
        id: id(name),
        version: 1,
        state: JobState::Active,
        state_at: at(1),
        previous: None,
        pool: id("pool"),
        auto_pool: None,
        scheduling_error: None,
        priority: 0,
        max_parallel: -1,
        environment: Vec::new(),
        max_task_retry_count: 0,
        max_wall_clock: None,
        terminate_when_complete: false,
        performs_exit_options: false,
        uses_dependencies: true,
        ends_with: None,
        created_at: at(1),
        modified_at: at(1),
        ended_at: None,
        terminate_reason: None,
        tasks: Counts::default(),
        slots: Counts::default(),
    }
}

pub fn schedule(name: &str) -> ScheduleRow {
    ScheduleRow {
        id: id(name),
        version: 1,
        state: ScheduleState::Active,
        state_at: at(1),
        previous: None,
        created_at: at(1),
        modified_at: at(1),
        ended_at: None,
        timetable: Timetable::default(),
        next_due: None,
        last_due: None,
        next_number: 1,
        recent: None,
        auto_pool: None,
        job: new_job("s:job-1", JobPool::Named(id("pool"))),
        document: "{}".to_owned(),
    }
}

/// A successful end at a time.
pub fn ending(ms: i64) -> Ending {
    Ending {
        fence: Fence(99),
        has_succeeded: true,
        exit_code: Some(0),
        failure: None,
        streams: Streams::Told,
        stdout: Stream::Empty,
        stderr: Stream::Empty,
        started_at: None,
        node: None,
        at: at(ms),
    }
}

/// A requeue at a time, without a pause.
pub fn requeue(cause: RequeueCause, crashes: u32, ms: i64) -> Requeue {
    Requeue { cause, crashes, rests_until: None, at: at(ms) }
}

/// A task that a test may change before it is added.
pub fn task<'a>(uid: u64, name: &'a contract::ids::TaskId) -> NewTaskRecord<'a> {
    NewTaskRecord {
        uid: TaskUid(uid),
        id: name,
        document: "{}",
        exit_conditions: None,
        slots: 1,
        retries_max: 0,
        depends_on: &[],
        fits: true,
        fence: Fence(1),
        version: 10,
        at: at(100),
    }
}

/// A store with the job `job`; every call of the fixture is one transaction.
pub struct Fixture {
    pub store: Box<dyn Store>,
    pub read: Box<dyn Read>,
    pub job: JobUid,
    next: u64,
}

impl Fixture {
    pub fn new(location: &dyn Location) -> Fixture {
        let mut store = location.store().unwrap();
        let loaded = store.load().unwrap();
        let mut fixture = Fixture { store, read: location.read(), job: JobUid(loaded.next_job), next: loaded.next_task };
        match fixture.store.find_job(&id("job")).unwrap() {
            Some(found) => fixture.job = found.uid,
            None => _ = fixture.add_job(loaded.next_job, "job"),
        }
        fixture
    }

    /// Runs a change in a transaction of its own.
    pub fn write<T>(&mut self, change: impl FnOnce(&mut dyn Store) -> Result<T, StoreError>) -> T {
        self.store.begin().unwrap();
        let done = change(self.store.as_mut()).unwrap();
        self.store.commit().unwrap();
        done
    }

    /// Adds another job.
    pub fn add_job(&mut self, uid: u64, name: &str) -> JobUid {
        let record = job(uid, name);
        self.write(|store| store.put_job(&record, Some("{}")));
        record.uid
    }

    /// Adds a task without dependencies.
    pub fn add(&mut self, name: &str) -> TaskUid {
        self.insert(name, |_| {}).0
    }

    /// Adds a task with dependencies.
    pub fn add_after(&mut self, name: &str, needs: &[&str]) -> (TaskUid, Inserted) {
        let needs: Vec<String> = needs.iter().map(|need| (*need).to_owned()).collect();
        let (job, uid, name) = (self.job, self.next, id(name));
        self.next += 1;
        let record = NewTaskRecord { depends_on: &needs, ..task(uid, &name) };
        (TaskUid(uid), self.write(|store| store.insert_task(job, &record)))
    }

    /// Adds a task, changed by `adapt`.
    pub fn insert(&mut self, name: &str, adapt: impl FnOnce(&mut NewTaskRecord<'_>)) -> (TaskUid, Inserted) {
        let (job, uid, name) = (self.job, self.next, id(name));
        self.next += 1;
        let mut record = task(uid, &name);
        adapt(&mut record);
        (TaskUid(uid), self.write(|store| store.insert_task(job, &record)))
    }

    /// Releases, confirms and starts a task on node `n`.
    pub fn run(&mut self, uid: TaskUid, ms: i64) -> RunId {
        let run = RunId(uid.0.into());
        let node: NodeId = id("n");
        self.write(|store| {
            store.release(uid, 1, Fence(2), at(ms - 1))?;
            store.published(uid)?;
            store.start(uid, run, &node, Epoch(3), at(ms), 20)
        });
        run
    }

    pub fn end(&mut self, uid: TaskUid, ending: &Ending) {
        self.write(|store| store.end(uid, ending, 30));
    }

    pub fn satisfy(&mut self, name: &str) -> Vec<TaskUid> {
        let (job, name) = (self.job, id(name));
        self.write(|store| store.satisfy(job, &name))
    }

    pub fn head(&mut self, uid: TaskUid) -> TaskHead {
        self.store.task_by_uid(uid).unwrap().unwrap()
    }

    pub fn try_row(&self, name: &str) -> Result<Option<TaskRow>, StoreError> {
        wait(self.read.task(&id("job"), &id(name)))
    }

    pub fn row(&self, name: &str) -> TaskRow {
        self.try_row(name).unwrap().unwrap()
    }

    pub fn ready(&mut self) -> Vec<String> {
        let ready = self.store.next_ready(self.job, 10_000).unwrap();
        ready.iter().map(|candidate| candidate.id.as_str().to_owned()).collect()
    }

    /// Names of the tasks on a page.
    pub fn listed(&self, page: Page) -> Vec<String> {
        let page = wait(self.read.task_names(&id("job"), page)).unwrap().unwrap();
        page.rows.iter().map(|row| row.id.as_str().to_owned()).collect()
    }
}
