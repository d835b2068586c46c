//! A bounded pool of reading connections. Each read runs on a blocking thread.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use contract::ids::{ApplicationId, FunctionId, JobId, JobUid, NodeId, PoolId, ScheduleId, TaskId, TaskUid, TriggerId};
use deadpool::{
    Runtime,
    managed::{Manager, Metrics, Pool, PoolError, RecycleResult},
};
use model::{
    application::ApplicationRow,
    function::FunctionRow,
    job_tasks::JobOnNodeRow,
    node::NodeActivity,
    schedule::ScheduleRow,
    trigger::{Seen, SeenKey, TriggerRow},
    usage::{Sums, UsageRow},
};
use rusqlite::Connection;
use tokio::task;

use crate::{
    StoreError,
    read::{Detail, Page, Read, ScanFrom, Scanned, TaskName, TaskPage},
    rows::{JobRow, NodeRow, PoolRow, TaskRow},
    sqlite::{cells::Cells, functions, job_tasks, open, pages, scan, sums, task_pages, triggers, usage},
    usage::UsagePage,
};

/// How long a read waits for a free connection.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// The reading half; clones share the connections.
#[derive(Clone)]
pub struct SqliteReader {
    pool: Pool<Opener>,
    path: PathBuf,
}

/// Sizes of the store's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    pub database_bytes: u64,
    /// Unused pages in it, which are used again.
    pub free_bytes: u64,
    /// The write-ahead log; 0 without one.
    pub log_bytes: u64,
}

struct Opener {
    path: PathBuf,
}

impl Manager for Opener {
    type Type = Connection;
    type Error = StoreError;

    async fn create(&self) -> Result<Connection, StoreError> {
        open::reader(&self.path)
    }

    async fn recycle(&self, _: &mut Connection, _: &Metrics) -> RecycleResult<StoreError> {
        Ok(())
    }
}

impl SqliteReader {
    /// Opens a file that a writer has opened before, with at most `connections` connections.
    pub fn open(path: &Path, connections: usize) -> Result<SqliteReader, StoreError> {
        // An unreadable file is noticed here, not with the first request.
        open::reader(path)?;
        let pool = Pool::builder(Opener { path: path.to_owned() })
            .max_size(connections.max(1))
            .wait_timeout(Some(WAIT_MAX))
            .create_timeout(Some(WAIT_MAX))
            .runtime(Runtime::Tokio1)
            .build()
            .expect("the timeouts have their runtime");
        Ok(SqliteReader { pool, path: path.to_owned() })
    }

    /// The present sizes of the store's files.
    pub async fn sizes(&self) -> Result<Sizes, StoreError> {
        let path = self.path.clone();
        self.read(move |connection| {
            let page_bytes = pragma(connection, "PRAGMA page_size", "page_size")?;
            let mut log = path.clone().into_os_string();
            log.push("-wal");
            Ok(Sizes {
                database_bytes: pragma(connection, "PRAGMA page_count", "page_count")? * page_bytes,
                free_bytes: pragma(connection, "PRAGMA freelist_count", "freelist_count")? * page_bytes,
                log_bytes: std::fs::metadata(log).map_or(0, |log| log.len()),
            })
        })
        .await
    }

    /// Runs one read in one snapshot.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let mut connection = self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Timeout(_) | PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => StoreError::Busy,
        })?;
        let done = task::spawn_blocking(move || {
            let snapshot = connection.transaction()?;
            let found = read(&snapshot)?;
            snapshot.commit()?;
            Ok(found)
        });
        // Fails only when the process ends.
        done.await.map_err(|_| StoreError::Busy)?
    }
}

/// A number from a PRAGMA statement.
fn pragma(connection: &Connection, statement: &str, column: &'static str) -> Result<u64, StoreError> {
    let mut statement = connection.prepare_cached(statement)?;
    let mut rows = statement.query([])?;
    let row = rows.next()?.ok_or(StoreError::Corrupt { table: "pragma", column })?;
    Cells::new(row, "pragma").number(column)
}

#[async_trait]
impl Read for SqliteReader {
    async fn pool(&self, pool: &PoolId) -> Result<Option<PoolRow>, StoreError> {
        let pool = pool.clone();
        self.read(move |connection| pages::pool(connection, &pool)).await
    }

    async fn pools(&self, page: Page) -> Result<Vec<PoolRow>, StoreError> {
        self.read(move |connection| pages::pools(connection, page)).await
    }

    async fn node(&self, pool: &PoolId, node: &NodeId, active: &[NodeActivity]) -> Result<Option<NodeRow>, StoreError> {
        let (pool, node, active) = (pool.clone(), node.clone(), active.to_vec());
        self.read(move |connection| pages::node(connection, &pool, &node, &active)).await
    }

    async fn nodes(&self, pool: &PoolId, page: Page, active: &[NodeActivity]) -> Result<Vec<NodeRow>, StoreError> {
        let (pool, active) = (pool.clone(), active.to_vec());
        self.read(move |connection| pages::nodes(connection, &pool, page, &active)).await
    }

    async fn job(&self, job: &JobId) -> Result<Option<JobRow>, StoreError> {
        let job = job.clone();
        self.read(move |connection| pages::job(connection, &job)).await
    }

    async fn jobs(&self, page: Page) -> Result<Vec<JobRow>, StoreError> {
        self.read(move |connection| pages::jobs(connection, page)).await
    }

    async fn jobs_on_nodes(&self, job: &JobId, page: Page) -> Result<Option<Vec<JobOnNodeRow>>, StoreError> {
        let job = job.clone();
        self.read(move |connection| job_tasks::page(connection, &job, page)).await
    }

    async fn application(&self, application: &ApplicationId) -> Result<Option<ApplicationRow>, StoreError> {
        let application = application.clone();
        self.read(move |connection| pages::application(connection, &application)).await
    }

    async fn function(&self, pool: &PoolId, function: &FunctionId) -> Result<Option<FunctionRow>, StoreError> {
        let (pool, function) = (pool.clone(), function.clone());
        self.read(move |connection| pages::function(connection, &pool, &function)).await
    }

    async fn functions_named(&self, function: &FunctionId, rows_max: usize) -> Result<Vec<FunctionRow>, StoreError> {
        let function = function.clone();
        self.read(move |connection| functions::named(connection, &function, rows_max)).await
    }

    async fn functions(&self, pool: &PoolId, page: Page) -> Result<Vec<FunctionRow>, StoreError> {
        let pool = pool.clone();
        self.read(move |connection| pages::functions(connection, &pool, page)).await
    }

    async fn applications(&self, page: Page) -> Result<Vec<ApplicationRow>, StoreError> {
        self.read(move |connection| pages::applications(connection, page)).await
    }

    async fn trigger(&self, trigger: &TriggerId) -> Result<Option<TriggerRow>, StoreError> {
        let trigger = trigger.clone();
        self.read(move |connection| pages::trigger(connection, &trigger)).await
    }

    async fn triggers(&self, page: Page) -> Result<Vec<TriggerRow>, StoreError> {
        self.read(move |connection| pages::triggers(connection, page)).await
    }

    async fn seen_of(&self, trigger: u64, keys: Vec<SeenKey>) -> Result<Vec<SeenKey>, StoreError> {
        self.read(move |connection| triggers::seen_of(connection, trigger, keys)).await
    }

    async fn seen_between(
        &self,
        trigger: u64,
        after: Option<SeenKey>,
        last: Option<String>,
        count: usize,
    ) -> Result<Vec<Seen>, StoreError> {
        self.read(move |connection| triggers::seen_between(connection, trigger, after.as_ref(), last.as_deref(), count)).await
    }

    async fn schedule(&self, schedule: &ScheduleId) -> Result<Option<ScheduleRow>, StoreError> {
        let schedule = schedule.clone();
        self.read(move |connection| pages::schedule(connection, &schedule)).await
    }

    async fn schedules(&self, page: Page) -> Result<Vec<ScheduleRow>, StoreError> {
        self.read(move |connection| pages::schedules(connection, page)).await
    }

    async fn task(&self, job: &JobId, task: &TaskId) -> Result<Option<TaskRow>, StoreError> {
        let (job, task) = (job.clone(), task.clone());
        self.read(move |connection| pages::task(connection, &job, &task)).await
    }

    async fn tasks_there(&self, uids: Vec<TaskUid>) -> Result<Vec<TaskUid>, StoreError> {
        self.read(move |connection| pages::tasks_there(connection, &uids)).await
    }

    async fn tasks_by_number(&self, uids: Vec<TaskUid>) -> Result<Vec<(JobId, TaskRow)>, StoreError> {
        self.read(move |connection| pages::tasks_by_number(connection, &uids)).await
    }

    async fn tasks(&self, job: &JobId, page: Page, detail: Detail) -> Result<Option<TaskPage>, StoreError> {
        let job = job.clone();
        self.read(move |connection| task_pages::tasks(connection, &job, &page, detail)).await
    }

    async fn task_names(&self, job: &JobId, page: Page) -> Result<Option<TaskPage<TaskName>>, StoreError> {
        let job = job.clone();
        self.read(move |connection| task_pages::names(connection, &job, &page)).await
    }

    async fn sums_of_tasks(&self, tasks: Vec<TaskUid>) -> Result<Vec<Sums>, StoreError> {
        self.read(move |connection| sums::of_tasks(connection, &tasks)).await
    }

    async fn sums_of_jobs(&self, jobs: Vec<JobUid>) -> Result<Vec<Sums>, StoreError> {
        self.read(move |connection| sums::of_jobs(connection, &jobs)).await
    }

    async fn dedicated_core_ms(&self, pools: Vec<PoolId>) -> Result<Vec<u64>, StoreError> {
        self.read(move |connection| sums::of_pools(connection, &pools)).await
    }

    async fn sums_of_schedules(&self, schedules: Vec<ScheduleId>) -> Result<Vec<Sums>, StoreError> {
        self.read(move |connection| sums::of_schedules(connection, &schedules)).await
    }

    async fn scan(&self, from: ScanFrom, rows: usize) -> Result<Scanned, StoreError> {
        self.read(move |connection| scan::slice(connection, from, rows)).await
    }

    async fn usage(&self, page: UsagePage) -> Result<Vec<UsageRow>, StoreError> {
        self.read(move |connection| usage::page(connection, page)).await
    }
}
