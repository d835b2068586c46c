//! The store: rows are the truth, the broker only carries what may run now.
//!
//! [`Store`] is the writing half, owned by the engine's one thread, which puts many changes into one
//! transaction. [`read::Read`] is the reading half, used by API handlers. Both have SQLite behind them
//! ([`sqlite`]); a second implementation must pass the same suite.

pub mod errands;
pub mod filter;
pub mod read;
pub mod records;
pub mod rows;
pub mod sqlite;
pub mod usage;

use contract::{
    ids::{ApplicationId, Epoch, Fence, JobId, JobUid, NodeId, PoolId, RunId, RunKey, ScheduleId, TaskId, TaskUid},
    outcome::{JobTaskEnd, JobTaskKind, Stream},
    time::Timestamp,
};
use model::{
    application::ApplicationRow,
    health::Unreadable,
    job_tasks::{JobOnNode, JobTasks},
    schedule::ScheduleRow,
    task::{ExitConditions, StreamName},
    usage::{Charge, Share, Work},
};
use thiserror::Error;

use crate::{
    errands::{Errand, Place},
    records::{Buried, Candidate, Ending, Inserted, JobRecord, Loaded, NewTaskRecord, NodeRecord, PoolRecord, Requeue, TaskHead},
};

/// Why the store could not do what was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The database said no.
    #[error("the database refused")]
    Database {
        /// Whether it may take the same change another time.
        may_pass: bool,
        /// Why, in its own words.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process held a lock on the file for longer than a connection waits.
    #[error("another process has locked the store's file")]
    Locked {
        /// What the database says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A row holds something that this build cannot read.
    #[error("row of {table} holds an unreadable {column}")]
    Corrupt { table: &'static str, column: &'static str },
    /// The file was written by a newer build.
    #[error("the store has format {found}, this build reads {known}")]
    Format {
        /// What the file says.
        found: i64,
        /// What this build knows.
        known: i64,
    },
    /// Another process has the store open.
    #[error("the store {path} is in use by another process")]
    InUse { path: String },
    /// No connection within the time allowed.
    #[error("no database connection was free in time")]
    Busy,
    /// A file of the store could not be used.
    #[error("cannot use {path}")]
    File { path: String, source: std::io::Error },
}

impl StoreError {
    /// Whether the same change may be stored another time: the file was locked, the disk full, a device failed.
    pub fn may_pass(&self) -> bool {
        match self {
            StoreError::Database { may_pass, .. } => *may_pass,
            StoreError::Corrupt { .. } | StoreError::Format { .. } => false,
            StoreError::Locked { .. } | StoreError::InUse { .. } | StoreError::Busy | StoreError::File { .. } => true,
        }
    }

    /// Whether another process held a lock on the file; a later attempt may find it free.
    pub fn is_locked(&self) -> bool {
        matches!(self, StoreError::Locked { .. })
    }
}

/// The writing half. All calls between `begin` and `commit` are one transaction, durable when `commit` returns.
///
/// Counters are not its business: the engine keeps them and writes them with the job's record.
pub trait Store: Send {
    /// Everything that is alive, and the numbers to go on with. Raises the boot number.
    fn load(&mut self) -> Result<Loaded, StoreError>;
    /// Opens a transaction.
    fn begin(&mut self) -> Result<(), StoreError>;
    /// Makes it durable.
    fn commit(&mut self) -> Result<(), StoreError>;
    /// Forgets it.
    fn rollback(&mut self) -> Result<(), StoreError>;
    /// How many rows were changed since the store was opened, those of forgotten transactions included.
    fn changes(&self) -> u64;

    /// Inserts or replaces a pool; the document only when given.
    fn put_pool(&mut self, pool: &PoolRecord, document: Option<&str>) -> Result<(), StoreError>;
    /// A job's document.
    fn job_document(&mut self, job: JobUid) -> Result<Option<String>, StoreError>;
    /// A pool's document.
    fn pool_document(&mut self, pool: &PoolId) -> Result<Option<String>, StoreError>;
    /// Removes a pool and its nodes.
    fn delete_pool(&mut self, pool: &PoolId) -> Result<(), StoreError>;
    /// Inserts or replaces a node.
    fn put_node(&mut self, pool: &PoolId, node: &NodeRecord) -> Result<(), StoreError>;
    /// Removes a node.
    fn delete_node(&mut self, pool: &PoolId, node: &NodeId) -> Result<(), StoreError>;
    /// Adds core time to an interval of a pool.
    fn charge(&mut self, pool: &PoolId, charge: &Charge) -> Result<(), StoreError>;
    /// Adds a run to what a task has used; by how much the task waited longer than known before.
    fn add_run(&mut self, task: TaskUid, work: &Work, started_at: Timestamp) -> Result<i64, StoreError>;
    /// Adds to what a job has used.
    fn add_to_job(&mut self, job: JobUid, share: &Share) -> Result<(), StoreError>;
    /// Forgets usage in intervals that started before.
    fn forget_usage(&mut self, before: Timestamp) -> Result<(), StoreError>;
    /// Inserts or replaces a job; the document only when given.
    fn put_job(&mut self, job: &JobRecord, document: Option<&str>) -> Result<(), StoreError>;
    /// Removes a job whose other rows are gone.
    fn delete_job(&mut self, job: JobUid) -> Result<(), StoreError>;
    /// Makes the row of a job that cannot be read readable, as far as its deletion needs it.
    fn salvage_job(&mut self, job: &JobId, at: Timestamp, version: u64) -> Result<Option<JobRecord>, StoreError>;
    /// Inserts or replaces a job schedule.
    fn put_schedule(&mut self, schedule: &ScheduleRow) -> Result<(), StoreError>;
    /// Removes a job schedule whose jobs are gone.
    fn delete_schedule(&mut self, schedule: &ScheduleId) -> Result<(), StoreError>;
    /// Inserts or replaces an application with its packages.
    fn put_application(&mut self, application: &ApplicationRow) -> Result<(), StoreError>;
    /// Removes an application with its packages.
    fn delete_application(&mut self, application: &ApplicationId) -> Result<(), StoreError>;
    /// Some jobs that a schedule made, ended ones too.
    fn jobs_of_schedule(&mut self, schedule: &ScheduleId, count: usize) -> Result<Vec<JobId>, StoreError>;
    /// One job that is not alive any more (completed jobs are not loaded).
    fn find_job(&mut self, job: &JobId) -> Result<Option<JobRecord>, StoreError>;

    /// Adds a task, unless its name is taken; says whether it may run at once.
    fn insert_task(&mut self, job: JobUid, task: &NewTaskRecord<'_>) -> Result<Inserted, StoreError>;
    /// One task's state by name.
    fn task(&mut self, job: JobUid, task: &TaskId) -> Result<Option<TaskHead>, StoreError>;
    /// One task's state by number.
    fn task_by_uid(&mut self, uid: TaskUid) -> Result<Option<TaskHead>, StoreError>;
    /// The next tasks of a job that may run and are not released, lowest number first.
    fn next_ready(&mut self, job: JobUid, count: usize) -> Result<Vec<Candidate>, StoreError>;
    /// Those of the next tasks of a job that cannot be read, after [`Store::next_ready`] met one.
    fn unreadable_ready(&mut self, job: JobUid, count: usize) -> Result<Vec<(TaskUid, Unreadable)>, StoreError>;
    /// A task's number by name, however damaged its row is.
    fn number_of(&mut self, job: JobUid, task: &TaskId) -> Result<Option<TaskUid>, StoreError>;
    /// Makes a task's row readable again, and completed with this end unless it is; what it was before. The job is
    /// for a row that does not tell its own, where it is known.
    fn bury(&mut self, uid: TaskUid, job: Option<JobUid>, ending: &Ending, version: u64) -> Result<Option<Buried>, StoreError>;
    /// One task as a candidate, whatever its state: for republishing and for answers.
    fn candidate(&mut self, uid: TaskUid) -> Result<Option<Candidate>, StoreError>;
    /// Hands an attempt to the broker: attempt and fence, and an outbox row.
    fn release(&mut self, uid: TaskUid, attempt: u32, fence: Fence, at: Timestamp) -> Result<(), StoreError>;
    /// The broker has confirmed: the outbox row goes.
    fn published(&mut self, uid: TaskUid) -> Result<(), StoreError>;
    /// Takes an attempt back that never started: ready again, or held when the job does not run; outbox row gone.
    fn unrelease(&mut self, uid: TaskUid, fence: Fence) -> Result<(), StoreError>;
    /// A run owns the attempt: state running. Since when the task was active before, unless its row is gone.
    fn start(
        &mut self,
        uid: TaskUid,
        run: RunId,
        node: &NodeId,
        epoch: Epoch,
        at: Timestamp,
        version: u64,
    ) -> Result<Option<Timestamp>, StoreError>;
    /// Keeps stdout and stderr of a run whose task was ended or queued again before, unless the task was released
    /// since, or the end that was decided is that of another node.
    fn keep_streams(&mut self, run: &RunKey, node: &NodeId, streams: (&Stream, &Stream)) -> Result<(), StoreError>;
    /// A run owns the attempt and waits for its job's preparation: state preparing. Since when the task was active before.
    fn prepare(
        &mut self,
        run: (TaskUid, RunId),
        node: (&NodeId, Epoch),
        at: Timestamp,
        version: u64,
    ) -> Result<Option<Timestamp>, StoreError>;
    /// A run that waited begins: state running.
    fn begin_run(&mut self, uid: TaskUid, at: Timestamp, version: u64) -> Result<(), StoreError>;
    /// Keeps what a job runs on nodes around its tasks.
    fn put_job_tasks(&mut self, job: JobUid, job_tasks: &JobTasks) -> Result<(), StoreError>;
    /// Inserts or replaces how a job stands on a node.
    fn put_job_on_node(&mut self, job: JobUid, pool: &PoolId, node: &NodeId, job_on_node: &JobOnNode) -> Result<(), StoreError>;
    /// A node was asked for a preparation or release; it has a site.
    fn begin_job_task(&mut self, job: JobUid, pool: &PoolId, node: &NodeId, kind: JobTaskKind, at: Timestamp) -> Result<(), StoreError>;
    /// It ended; its beginning is the one told, or the one known.
    fn end_job_task(&mut self, pool: &PoolId, node: &NodeId, end: &JobTaskEnd, is_told: bool) -> Result<(), StoreError>;
    /// Back to active with a new fence, and ready unless it rests first.
    fn requeue(&mut self, uid: TaskUid, fence: Fence, requeue: &Requeue, version: u64) -> Result<(), StoreError>;
    /// Tasks of a job whose rest is over are ready, some at a time; how many, and whether others rest still.
    fn wake(&mut self, job: JobUid, now: Timestamp) -> Result<(u64, bool), StoreError>;
    /// Completed, once; outbox row gone.
    fn end(&mut self, uid: TaskUid, ending: &Ending, version: u64) -> Result<(), StoreError>;
    /// Replaces a task's document and how often it may be tried again.
    fn update_task(&mut self, uid: TaskUid, document: &str, retries_max: i32, at: Timestamp, version: u64) -> Result<(), StoreError>;
    /// A stream of an ended task is kept no longer: what is left of it is on the node.
    fn forget_stream(&mut self, uid: TaskUid, stream: StreamName) -> Result<(), StoreError>;
    /// A failed task is active again, its end forgotten and its retries unspent; whether it may run at once.
    fn reactivate(&mut self, uid: TaskUid, fence: Fence, at: Timestamp, version: u64) -> Result<bool, StoreError>;
    /// A job of which nothing is live leaves a pool; its tasks remember where they ran.
    fn leave_pool(&mut self, job: JobUid, pool: &PoolId) -> Result<(), StoreError>;
    /// The nodes of a job's pool have so many slots now: its waiting tasks fit or do not. How many changed, `count` at
    /// most; as many as that when more are left.
    fn refit(&mut self, job: JobUid, slots_max: u32, count: usize) -> Result<usize, StoreError>;
    /// How many tasks of a job are ready.
    fn count_ready(&mut self, job: JobUid) -> Result<u64, StoreError>;
    /// A task ended so that those depending on it may run; the tasks that became ready.
    fn satisfy(&mut self, job: JobUid, task: &TaskId) -> Result<Vec<TaskUid>, StoreError>;
    /// What the task's end does, if it says.
    fn exit_conditions(&mut self, uid: TaskUid) -> Result<Option<ExitConditions>, StoreError>;
    /// Removes one task.
    fn delete_task(&mut self, uid: TaskUid) -> Result<(), StoreError>;
    /// Removes some rows of a job that is being deleted, its tasks first; how many went, and the blobs that streams were
    /// kept in. Less than asked for: only the job's own row is left.
    fn delete_rows(&mut self, job: JobUid, count: usize) -> Result<(usize, Vec<String>), StoreError>;
    /// The blobs that a task's streams are kept in: stdout, stderr.
    fn blobs_of(&mut self, uid: TaskUid) -> Result<[Option<String>; 2], StoreError>;

    /// Keeps an errand until it is done.
    fn put_errand(&mut self, id: u64, errand: &Errand) -> Result<(), StoreError>;
    /// Errands of a place whose numbers come after this one, lowest first, and the last number that was looked at.
    fn errands(&mut self, place: Place, after: u64, count: usize) -> Result<(Vec<(u64, Errand)>, u64), StoreError>;
    /// An errand is done.
    fn end_errand(&mut self, place: Place, id: u64) -> Result<(), StoreError>;
}
