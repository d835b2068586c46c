//! The reading half of the store: single resources and pages of lists, for API handlers.

use async_trait::async_trait;
use contract::{
    ids::{ApplicationId, FunctionId, JobId, JobUid, NodeId, PoolId, ScheduleId, TaskId, TaskUid, TriggerId},
    state::TaskState,
};
use model::{
    application::ApplicationRow,
    function::FunctionRow,
    health::Unreadable,
    job_tasks::JobOnNodeRow,
    node::NodeActivity,
    schedule::ScheduleRow,
    trigger::{Seen, SeenKey, TriggerRow},
    usage::{Sums, UsageRow},
};

use crate::{
    StoreError,
    filter::Filter,
    left_out::LeftOut,
    rows::{JobRow, NodeRow, PoolRow, TaskRow},
    usage::UsagePage,
};

/// A page of a list, in id order.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Only ids after this one, compared without case.
    pub after: Option<String>,
    pub rows_max: usize,
    /// Only rows that pass the filter.
    pub filter: Option<Filter>,
    /// Told of the rows that cannot be read; they are left out of the page.
    pub left_out: LeftOut,
}

/// The columns that a page of tasks reads besides names, states with times, modification times and nodes. Others stay
/// empty; streams are never read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detail {
    /// Results of the runs.
    pub runs: bool,
    /// The document with Azure's properties.
    pub document: bool,
}

impl Detail {
    /// Only names, states with times, modification times and nodes.
    pub const HEADS: Detail = Detail { runs: false, document: false };
    /// All columns but the streams.
    pub const WHOLE: Detail = Detail { runs: true, document: true };
}

/// The properties that a task list needs most often. An index alone provides them.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskName {
    pub id: TaskId,
    pub state: TaskState,
}

/// A page of tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskPage<R = TaskRow> {
    /// The job, read in the same snapshot.
    pub job: JobRow,
    /// The rows found, perhaps fewer than requested although more exist.
    pub rows: Vec<R>,
    /// Where to continue, when the page stopped because it had looked at as many rows as it may.
    pub stopped_at: Option<String>,
}

/// Position of a scan for unreadable rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScanFrom {
    /// The table, by its place among those that are scanned.
    pub table: usize,
    /// The last row's number, or how many rows of the table were looked at; nothing at its beginning.
    pub row: Option<i64>,
}

/// A slice of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scanned {
    pub unreadable: Vec<Unreadable>,
    /// Where to go on; nothing at the end.
    pub next: Option<ScanFrom>,
}

/// Reads committed rows; never waits for writers.
#[async_trait]
pub trait Read: Send + Sync {
    /// A pool with its document; nothing when there is none of that id, as in the next ones.
    async fn pool(&self, pool: &PoolId) -> Result<Option<PoolRow>, StoreError>;
    /// A page of pools.
    async fn pools(&self, page: Page) -> Result<Vec<PoolRow>, StoreError>;
    /// A node. Where `active` is newer than the row, it is shown instead.
    async fn node(&self, pool: &PoolId, node: &NodeId, active: &[NodeActivity]) -> Result<Option<NodeRow>, StoreError>;
    /// A page of a pool's nodes. Where `active` is newer than a row, it is shown and filtered by instead.
    async fn nodes(&self, pool: &PoolId, page: Page, active: &[NodeActivity]) -> Result<Vec<NodeRow>, StoreError>;
    async fn job(&self, job: &JobId) -> Result<Option<JobRow>, StoreError>;
    /// A page of jobs.
    async fn jobs(&self, page: Page) -> Result<Vec<JobRow>, StoreError>;
    /// A page of the nodes that a job was prepared on, by node and pool; nothing when there is no such job.
    async fn jobs_on_nodes(&self, job: &JobId, page: Page) -> Result<Option<Vec<JobOnNodeRow>>, StoreError>;
    async fn application(&self, application: &ApplicationId) -> Result<Option<ApplicationRow>, StoreError>;
    async fn function(&self, pool: &PoolId, function: &FunctionId) -> Result<Option<FunctionRow>, StoreError>;
    /// A page of a pool's functions.
    async fn functions(&self, pool: &PoolId, page: Page) -> Result<Vec<FunctionRow>, StoreError>;
    /// Functions of this name of whatever pool, so many at most.
    async fn functions_named(&self, function: &FunctionId, rows_max: usize) -> Result<Vec<FunctionRow>, StoreError>;
    /// A page of applications.
    async fn applications(&self, page: Page) -> Result<Vec<ApplicationRow>, StoreError>;
    /// One trigger.
    async fn trigger(&self, trigger: &TriggerId) -> Result<Option<TriggerRow>, StoreError>;
    /// A page of triggers.
    async fn triggers(&self, page: Page) -> Result<Vec<TriggerRow>, StoreError>;
    /// Those of these that a trigger has seen.
    async fn seen_of(&self, trigger: u64, keys: Vec<SeenKey>) -> Result<Vec<SeenKey>, StoreError>;
    /// What a trigger has seen after one key, up to another one or the end, in the order of the keys' bytes.
    async fn seen_between(&self, trigger: u64, after: Option<SeenKey>, last: Option<String>, count: usize)
    -> Result<Vec<Seen>, StoreError>;
    async fn schedule(&self, schedule: &ScheduleId) -> Result<Option<ScheduleRow>, StoreError>;
    /// A page of job schedules.
    async fn schedules(&self, page: Page) -> Result<Vec<ScheduleRow>, StoreError>;
    async fn task(&self, job: &JobId, task: &TaskId) -> Result<Option<TaskRow>, StoreError>;
    /// Returns which of these numbers belong to tasks, even where their rows are damaged.
    async fn tasks_there(&self, uids: Vec<TaskUid>) -> Result<Vec<TaskUid>, StoreError>;
    /// Tasks by number, with the names of their jobs, in this order; tasks that are gone or cannot be read are left out.
    async fn tasks_by_number(&self, uids: Vec<TaskUid>) -> Result<Vec<(JobId, TaskRow)>, StoreError>;
    /// A page of a job's tasks; nothing when there is no such job.
    async fn tasks(&self, job: &JobId, page: Page, detail: Detail) -> Result<Option<TaskPage>, StoreError>;
    /// The same of names and states alone.
    async fn task_names(&self, job: &JobId, page: Page) -> Result<Option<TaskPage<TaskName>>, StoreError>;
    /// Usage of tasks, in their order; zero for tasks without any.
    async fn sums_of_tasks(&self, tasks: Vec<TaskUid>) -> Result<Vec<Sums>, StoreError>;
    /// Usage of all tasks of each job, deleted ones included, in the jobs' order.
    async fn sums_of_jobs(&self, jobs: Vec<JobUid>) -> Result<Vec<Sums>, StoreError>;
    /// Milliseconds times cores of pools' dedicated nodes, in the pools' order.
    async fn dedicated_core_ms(&self, pools: Vec<PoolId>) -> Result<Vec<u64>, StoreError>;
    /// Usage of the jobs that each schedule created and that still exist, in the schedules' order.
    async fn sums_of_schedules(&self, schedules: Vec<ScheduleId>) -> Result<Vec<Sums>, StoreError>;
    /// Looks at so many rows of all tables, whether they can be read.
    async fn scan(&self, from: ScanFrom, rows: usize) -> Result<Scanned, StoreError>;
    /// A page of pools' core time, deleted pools included.
    async fn usage(&self, page: UsagePage) -> Result<Vec<UsageRow>, StoreError>;
}
