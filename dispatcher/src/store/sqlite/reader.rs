//! A bounded pool of reading connections; each read runs on a blocking thread.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use broker_config::ids::{ApplicationId, JobId, JobUid, NodeId, PoolId, ScheduleId, TaskId, TaskUid};
use deadpool::{
    Runtime,
    managed::{Manager, Metrics, Pool, PoolError, RecycleResult},
};
use rusqlite::Connection;
use tokio::task;

use crate::store::{
    StoreError,
    applications::ApplicationRow,
    chores::SiteRow,
    read::{Detail, Page, Read, TaskName, TaskPage},
    rows::{JobRow, NodeRow, PoolRow, TaskRow},
    schedules::ScheduleRow,
    sqlite::{chores, open, pages, sums, task_pages, usage},
    usage::{Sums, UsagePage, UsageRow},
};

/// How long a read waits for a connection.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// The reading half; clones share the connections.
#[derive(Clone)]
pub struct SqliteReader {
    pool: Pool<Opener>,
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
    /// Reads a file that a writer has opened, over at most so many connections.
    pub fn open(path: &Path, connections: usize) -> Result<SqliteReader, StoreError> {
        // A file that cannot be read shall be known now, not with the first request.
        open::reader(path)?;
        let pool = Pool::builder(Opener { path: path.to_owned() })
            .max_size(connections.max(1))
            .wait_timeout(Some(WAIT_MAX))
            .create_timeout(Some(WAIT_MAX))
            .runtime(Runtime::Tokio1)
            .build()
            .expect("the timeouts have their runtime");
        Ok(SqliteReader { pool })
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
        // The thread is taken away only when the process ends.
        done.await.map_err(|_| StoreError::Busy)?
    }
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

    async fn node(&self, pool: &PoolId, node: &NodeId) -> Result<Option<NodeRow>, StoreError> {
        let (pool, node) = (pool.clone(), node.clone());
        self.read(move |connection| pages::node(connection, &pool, &node)).await
    }

    async fn nodes(&self, pool: &PoolId, page: Page) -> Result<Vec<NodeRow>, StoreError> {
        let pool = pool.clone();
        self.read(move |connection| pages::nodes(connection, &pool, page)).await
    }

    async fn job(&self, job: &JobId) -> Result<Option<JobRow>, StoreError> {
        let job = job.clone();
        self.read(move |connection| pages::job(connection, &job)).await
    }

    async fn jobs(&self, page: Page) -> Result<Vec<JobRow>, StoreError> {
        self.read(move |connection| pages::jobs(connection, page)).await
    }

    async fn sites(&self, job: &JobId, page: Page) -> Result<Option<Vec<SiteRow>>, StoreError> {
        let job = job.clone();
        self.read(move |connection| chores::page(connection, &job, page)).await
    }

    async fn application(&self, application: &ApplicationId) -> Result<Option<ApplicationRow>, StoreError> {
        let application = application.clone();
        self.read(move |connection| pages::application(connection, &application)).await
    }

    async fn applications(&self, page: Page) -> Result<Vec<ApplicationRow>, StoreError> {
        self.read(move |connection| pages::applications(connection, page)).await
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

    async fn usage(&self, page: UsagePage) -> Result<Vec<UsageRow>, StoreError> {
        self.read(move |connection| usage::page(connection, page)).await
    }
}
