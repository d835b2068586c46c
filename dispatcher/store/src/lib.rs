//! The store. Its rows are the truth; the broker carries only what may run now.
//!
//! [`Store`] is the writing half, owned by the engine's thread, which puts many changes into one transaction.
//! [`read::Read`] is the reading half, used by API handlers. Both are implemented on SQLite ([`sqlite`]); a second
//! implementation must pass the same test suite.

pub mod errands;
pub mod filter;
pub mod left_out;
pub mod read;
pub mod records;
pub mod rows;
pub mod sqlite;
pub mod usage;

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
use thiserror::Error;

use crate::{
    errands::{Errand, Place},
    records::{Buried, Candidate, Ending, Inserted, JobRecord, Loaded, NewTaskRecord, NodeRecord, PoolRecord, Requeue, TaskHead},
};

/// An error of the store; messages name no database product.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The database refused an operation.
    #[error("the database refused")]
    Database {
        /// Whether the same change may succeed later.
        may_pass: bool,
        /// The database's own error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process held a lock on the file for longer than a connection waits.
    #[error("another process has locked the store's file")]
    Locked {
        /// The database's own error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A row holds something that this build cannot read.
    #[error("row of {table} holds an unreadable {column}")]
    Corrupt { table: &'static str, column: &'static str },
    /// The file was written by a newer build.
    #[error("the store has format {found}, this build reads {known}")]
    Format {
        /// Format of the file.
        found: i64,
        /// Newest format that this build can read.
        known: i64,
    },
    /// Another process has the store open.
    #[error("the store {path} is in use by another process")]
    InUse { path: String },
    /// No connection became free in time.
    #[error("no database connection was free in time")]
    Busy,
    /// A file of the store cannot be used.
    #[error("cannot use {path}")]
    File { path: String, source: std::io::Error },
}

impl StoreError {
    /// Whether the same change may succeed later: the file was locked, the disk was full, or a device failed.
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

/// The writing half of the store. The calls between `begin` and `commit` form one transaction, which is durable when
/// `commit` returns.
///
/// The store does not maintain counters; the engine keeps them and writes them with the job's record.
pub trait Store: Send {
    /// Loads everything that is alive, and the next unused numbers. Raises the boot number.
    fn load(&mut self) -> Result<Loaded, StoreError>;
    /// Begins a transaction.
    fn begin(&mut self) -> Result<(), StoreError>;
    /// Commits the transaction durably.
    fn commit(&mut self) -> Result<(), StoreError>;
    /// Rolls the transaction back.
    fn rollback(&mut self) -> Result<(), StoreError>;
    /// Number of rows changed since the store was opened, including changes that were rolled back.
    fn changes(&self) -> u64;

    /// Inserts or replaces a pool. `None` keeps the stored document.
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
    /// Adds a run's usage to a task; returns the change of the time that the task is known to have waited.
    fn add_run(&mut self, task: TaskUid, work: &Work, started_at: Timestamp) -> Result<i64, StoreError>;
    /// Adds usage to a job's sums.
    fn add_to_job(&mut self, job: JobUid, share: &Share) -> Result<(), StoreError>;
    /// Deletes usage of intervals that started earlier.
    fn forget_usage(&mut self, before: Timestamp) -> Result<(), StoreError>;
    /// Inserts or replaces a job. `None` keeps the stored document.
    fn put_job(&mut self, job: &JobRecord, document: Option<&str>) -> Result<(), StoreError>;
    /// Deletes a job whose other rows are gone.
    fn delete_job(&mut self, job: JobUid) -> Result<(), StoreError>;
    /// Overwrites what cannot be read in a job's row, as far as its deletion needs it.
    fn salvage_job(&mut self, job: &JobId, at: Timestamp, version: u64) -> Result<Option<JobRecord>, StoreError>;
    /// Inserts or replaces a job schedule.
    fn put_schedule(&mut self, schedule: &ScheduleRow) -> Result<(), StoreError>;
    /// Deletes a job schedule whose jobs are gone.
    fn delete_schedule(&mut self, schedule: &ScheduleId) -> Result<(), StoreError>;
    /// Inserts or replaces an application with its packages.
    fn put_application(&mut self, application: &ApplicationRow) -> Result<(), StoreError>;
    /// Inserts or replaces a function with its versions.
    fn put_function(&mut self, function: &FunctionRow) -> Result<(), StoreError>;
    /// Removes a function with its versions.
    fn delete_function(&mut self, pool: &PoolId, function: &FunctionId) -> Result<(), StoreError>;
    /// Inserts or replaces a trigger.
    fn put_trigger(&mut self, trigger: &TriggerRow) -> Result<(), StoreError>;
    /// Removes a trigger; what it has seen stays until [`Store::forget_all_seen`].
    fn delete_trigger(&mut self, trigger: &TriggerId) -> Result<(), StoreError>;
    /// Notes that a trigger has acted on something; false when that was noted before.
    fn see(&mut self, trigger: u64, seen: &SeenKey, at: Timestamp) -> Result<bool, StoreError>;
    /// Forgets that a trigger has acted on something.
    fn forget_seen(&mut self, trigger: u64, seen: &SeenKey) -> Result<(), StoreError>;
    /// Forgets what a trigger has seen, `count` rows at most; how many.
    fn forget_all_seen(&mut self, trigger: u64, count: usize) -> Result<usize, StoreError>;
    /// The next number of a trigger, perhaps a deleted one, that has seen something.
    fn next_seer(&mut self, after: Option<u64>) -> Result<Option<u64>, StoreError>;
    /// Removes an application with its packages.
    fn delete_application(&mut self, application: &ApplicationId) -> Result<(), StoreError>;
    /// Some jobs that a schedule created, including completed ones.
    fn jobs_of_schedule(&mut self, schedule: &ScheduleId, count: usize) -> Result<Vec<JobId>, StoreError>;
    /// A job that is not loaded because it is completed.
    fn find_job(&mut self, job: &JobId) -> Result<Option<JobRecord>, StoreError>;

    /// Adds a task unless its name is taken; returns whether it may run at once.
    fn insert_task(&mut self, job: JobUid, task: &NewTaskRecord<'_>) -> Result<Inserted, StoreError>;
    /// A task's state, by name.
    fn task(&mut self, job: JobUid, task: &TaskId) -> Result<Option<TaskHead>, StoreError>;
    /// A task's state, by number.
    fn task_by_uid(&mut self, uid: TaskUid) -> Result<Option<TaskHead>, StoreError>;
    /// The next tasks of a job that may run and are not released, lowest number first.
    fn next_ready(&mut self, job: JobUid, count: usize) -> Result<Vec<Candidate>, StoreError>;
    /// The rows among the next tasks of a job that cannot be read; called after [`Store::next_ready`] met one.
    fn unreadable_ready(&mut self, job: JobUid, count: usize) -> Result<Vec<(TaskUid, Unreadable)>, StoreError>;
    /// A task's number by name, even if the rest of its row cannot be read.
    fn number_of(&mut self, job: JobUid, task: &TaskId) -> Result<Option<TaskUid>, StoreError>;
    /// Overwrites what cannot be read in a task's row and completes it with this end unless it was completed; returns
    /// what it was before. `job` is used when the row's own job cannot be read.
    fn bury(&mut self, uid: TaskUid, job: Option<JobUid>, ending: &Ending, version: u64) -> Result<Option<Buried>, StoreError>;
    /// A task as a candidate whatever its state, for republishing and for answers.
    fn candidate(&mut self, uid: TaskUid) -> Result<Option<Candidate>, StoreError>;
    /// Stores an attempt that is handed to the broker: its number, fence, and an outbox row.
    fn release(&mut self, uid: TaskUid, attempt: u32, fence: Fence, at: Timestamp) -> Result<(), StoreError>;
    /// Deletes the outbox row of a confirmed publish.
    fn published(&mut self, uid: TaskUid) -> Result<(), StoreError>;
    /// Takes back an attempt that never started: ready again, or held when the job does not run. Deletes the outbox
    /// row.
    fn unrelease(&mut self, uid: TaskUid, fence: Fence) -> Result<(), StoreError>;
    /// A run owns the attempt: sets the state to running. Returns since when the task was active; `None` when its row
    /// is gone.
    fn start(
        &mut self,
        uid: TaskUid,
        run: RunId,
        node: &NodeId,
        epoch: Epoch,
        at: Timestamp,
        version: u64,
    ) -> Result<Option<Timestamp>, StoreError>;
    /// Keeps the output streams of a run whose task was ended or queued again before. Ignored when the task was
    /// released since, or was ended by another node.
    fn keep_streams(&mut self, run: &RunKey, node: &NodeId, streams: (&Stream, &Stream)) -> Result<(), StoreError>;
    /// A run owns the attempt and waits for its job's preparation: sets the state to preparing. Returns since when the
    /// task was active.
    fn prepare(
        &mut self,
        run: (TaskUid, RunId),
        node: (&NodeId, Epoch),
        at: Timestamp,
        version: u64,
    ) -> Result<Option<Timestamp>, StoreError>;
    /// A run that waited for its preparation has begun: sets the state to running.
    fn begin_run(&mut self, uid: TaskUid, at: Timestamp, version: u64) -> Result<(), StoreError>;
    /// Stores a job's preparation and release tasks.
    fn put_job_tasks(&mut self, job: JobUid, job_tasks: &JobTasks) -> Result<(), StoreError>;
    /// Inserts or replaces the state of a job on a node.
    fn put_job_on_node(&mut self, job: JobUid, pool: &PoolId, node: &NodeId, job_on_node: &JobOnNode) -> Result<(), StoreError>;
    /// A node was asked to run a preparation or release; the row of the job on the node exists.
    fn begin_job_task(&mut self, job: JobUid, pool: &PoolId, node: &NodeId, kind: JobTaskKind, at: Timestamp) -> Result<(), StoreError>;
    /// Records the end of a preparation or release. The start time is the reported one, or the one stored before.
    fn end_job_task(&mut self, pool: &PoolId, node: &NodeId, end: &JobTaskEnd, is_told: bool) -> Result<(), StoreError>;
    /// Queues a task again with a new fence, ready at once or after a pause.
    fn requeue(&mut self, uid: TaskUid, fence: Fence, requeue: &Requeue, version: u64) -> Result<(), StoreError>;
    /// Makes tasks of a job ready whose pause is over, a bounded number at a time; returns how many, and whether others
    /// still pause.
    fn wake(&mut self, job: JobUid, now: Timestamp) -> Result<(u64, bool), StoreError>;
    /// Completes a task and deletes its outbox row.
    fn end(&mut self, uid: TaskUid, ending: &Ending, version: u64) -> Result<(), StoreError>;
    /// Replaces a task's document and its retry limit.
    fn update_task(&mut self, uid: TaskUid, document: &str, retries_max: i32, at: Timestamp, version: u64) -> Result<(), StoreError>;
    /// Forgets the stored stream of an ended task; what is left of it is on the node.
    fn forget_stream(&mut self, uid: TaskUid, stream: StreamName) -> Result<(), StoreError>;
    /// Makes a failed task active again, without its end and with all its retries; returns whether it may run at once.
    fn reactivate(&mut self, uid: TaskUid, fence: Fence, at: Timestamp, version: u64) -> Result<bool, StoreError>;
    /// A job without released or running tasks leaves a pool; its tasks remember where they ran.
    fn leave_pool(&mut self, job: JobUid, pool: &PoolId) -> Result<(), StoreError>;
    /// Updates which waiting tasks of a job fit nodes with this many slots. Changes `count` rows at most and returns
    /// how many; as many as `count` means that more may be left.
    fn refit(&mut self, job: JobUid, slots_max: u32, count: usize) -> Result<usize, StoreError>;
    /// How many tasks of a job are ready.
    fn count_ready(&mut self, job: JobUid) -> Result<u64, StoreError>;
    /// A task ended in a way that satisfies its dependents; returns the tasks that became ready.
    fn satisfy(&mut self, job: JobUid, task: &TaskId) -> Result<Vec<TaskUid>, StoreError>;
    /// The task's exit conditions.
    fn exit_conditions(&mut self, uid: TaskUid) -> Result<Option<ExitConditions>, StoreError>;
    /// Removes one task.
    fn delete_task(&mut self, uid: TaskUid) -> Result<(), StoreError>;
    /// Deletes rows of a job that is being deleted, its tasks first. Returns how many, and the blobs of the tasks'
    /// streams. Fewer than `count` means that only the job's own row is left.
    fn delete_rows(&mut self, job: JobUid, count: usize) -> Result<(usize, Vec<String>), StoreError>;
    /// Blob keys of a task's stored streams: stdout, stderr.
    fn blobs_of(&mut self, uid: TaskUid) -> Result<[Option<String>; 2], StoreError>;

    /// Notes that a message for a pool was carried out.
    fn remember(&mut self, pool: &PoolId, key: &MessageKey, at: Timestamp) -> Result<(), StoreError>;
    /// The digest of the body that was carried out under a message's id, while it is known.
    fn remembered(&mut self, pool: &PoolId, message_id: &str) -> Result<Option<[u8; DIGEST_BYTES]>, StoreError>;
    /// Forgets the oldest messages, `count` at most: those from before a time, and those beyond the newest `most`. How many.
    fn forget_messages(&mut self, before: Timestamp, most: u64, count: usize) -> Result<usize, StoreError>;
    /// Keeps an answer until a task has ended.
    fn await_end(&mut self, job: JobUid, task: TaskUid, answer: &Answer) -> Result<(), StoreError>;
    /// Takes the answers that wait for a task's end.
    fn take_awaited(&mut self, job: JobUid, task: TaskUid) -> Result<Vec<Answer>, StoreError>;
    /// Takes some of the answers that wait for tasks of a job; how many rows went, fewer than `count` when none is left.
    fn take_awaited_of_job(&mut self, job: JobUid, count: usize) -> Result<(Vec<Answer>, usize), StoreError>;
    /// The next job, by number, of which tasks are waited for.
    fn next_awaited_job(&mut self, after: Option<JobUid>) -> Result<Option<JobUid>, StoreError>;

    /// Stores an errand until it is done.
    fn put_errand(&mut self, id: u64, errand: &Errand) -> Result<(), StoreError>;
    /// The next errands of a place after this number, and the last number that was looked at.
    fn errands(&mut self, place: Place, after: u64, count: usize) -> Result<(Vec<(u64, Errand)>, u64), StoreError>;
    /// Deletes an errand that is done.
    fn end_errand(&mut self, place: Place, id: u64) -> Result<(), StoreError>;
}
