//! Statistics for `$expand=stats`: usage of runs, summed as they end.
//!
//! Azure's fields that are not measured are 0 where its model requires them, and left out elsewhere.

use contract::{period::Period, time::Timestamp};
use model::{
    refusal::Refusal,
    schedule::ScheduleRow,
    usage::{Sums, Work},
};
use serde::Serialize;
use store::{
    StoreError,
    rows::{JobRow, PoolRow, TaskRow},
};

use crate::{answer::Iso, call::Call, error::store_failed, odata::Select, state::ApiState};

const GIB: f64 = 1_073_741_824.0;

/// Statistics of a task, in Azure's names.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskStats {
    url: String,
    start_time: Iso,
    last_update_time: Iso,
    #[serde(rename = "userCPUTime")]
    user_cpu_time: Period,
    #[serde(rename = "kernelCPUTime")]
    kernel_cpu_time: Period,
    wall_clock_time: Period,
    #[serde(rename = "readIOps")]
    read_iops: u64,
    #[serde(rename = "writeIOps")]
    write_iops: u64,
    #[serde(rename = "readIOGiB")]
    read_gib: f64,
    #[serde(rename = "writeIOGiB")]
    write_gib: f64,
    wait_time: Period,
}

/// Statistics of a job, or of a schedule's jobs, in Azure's names.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobStats {
    #[serde(flatten)]
    used: TaskStats,
    num_succeeded_tasks: u64,
    num_failed_tasks: u64,
    num_task_retries: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UsageStats {
    start_time: Iso,
    last_update_time: Iso,
    dedicated_core_time: Period,
}

/// Statistics of a pool, in Azure's names.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolStats {
    url: String,
    start_time: Iso,
    last_update_time: Iso,
    usage_stats: UsageStats,
}

fn task(sums: &Sums, url: String, since: Timestamp, now: Timestamp) -> TaskStats {
    let Work { user_ms, kernel_ms, wall_ms, in_bytes, out_bytes } = sums.work;
    TaskStats {
        url,
        start_time: Iso(since),
        last_update_time: Iso(now),
        user_cpu_time: Period::from_ms(user_ms),
        kernel_cpu_time: Period::from_ms(kernel_ms),
        wall_clock_time: Period::from_ms(wall_ms),
        read_iops: 0,
        write_iops: 0,
        read_gib: in_bytes as f64 / GIB,
        write_gib: out_bytes as f64 / GIB,
        wait_time: Period::from_ms(sums.wait_ms),
    }
}

fn job(sums: &Sums, succeeded: u64, failed: u64, url: String, since: Timestamp, now: Timestamp) -> JobStats {
    JobStats { used: task(sums, url, since, now), num_succeeded_tasks: succeeded, num_failed_tasks: failed, num_task_retries: sums.retries }
}

/// A row with statistics.
pub trait Counted: Sized + Send + Sync {
    /// The stored sums of a row.
    type Sums: Send;
    /// The statistics in Azure's form.
    type Stats: Serialize + Send;
    /// Reads the stored sums of rows, in their order.
    fn sums(api: &ApiState, rows: &[Self]) -> impl Future<Output = Result<Vec<Self::Sums>, StoreError>> + Send;
    /// Converts sums to statistics.
    fn stats(&self, sums: &Self::Sums, url: String, now: Timestamp) -> Self::Stats;
}

impl Counted for TaskRow {
    type Sums = Sums;
    type Stats = TaskStats;

    async fn sums(api: &ApiState, rows: &[TaskRow]) -> Result<Vec<Sums>, StoreError> {
        api.read.sums_of_tasks(rows.iter().map(|row| row.uid).collect()).await
    }

    fn stats(&self, sums: &Sums, url: String, now: Timestamp) -> TaskStats {
        task(sums, url, self.created_at, now)
    }
}

impl Counted for JobRow {
    type Sums = Sums;
    type Stats = JobStats;

    async fn sums(api: &ApiState, rows: &[JobRow]) -> Result<Vec<Sums>, StoreError> {
        api.read.sums_of_jobs(rows.iter().map(|row| row.uid).collect()).await
    }

    fn stats(&self, sums: &Sums, url: String, now: Timestamp) -> JobStats {
        job(sums, self.tasks.succeeded, self.tasks.failed, url, self.created_at, now)
    }
}

/// Sums over the jobs of the schedule that still exist.
impl Counted for ScheduleRow {
    type Sums = Sums;
    type Stats = JobStats;

    async fn sums(api: &ApiState, rows: &[ScheduleRow]) -> Result<Vec<Sums>, StoreError> {
        api.read.sums_of_schedules(rows.iter().map(|row| row.id.clone()).collect()).await
    }

    fn stats(&self, sums: &Sums, url: String, now: Timestamp) -> JobStats {
        job(sums, sums.succeeded, sums.failed, url, self.created_at, now)
    }
}

impl Counted for PoolRow {
    type Sums = u64;
    type Stats = PoolStats;

    async fn sums(api: &ApiState, rows: &[PoolRow]) -> Result<Vec<u64>, StoreError> {
        api.read.dedicated_core_ms(rows.iter().map(|row| row.id.clone()).collect()).await
    }

    fn stats(&self, core_ms: &u64, url: String, now: Timestamp) -> PoolStats {
        let (start_time, last_update_time) = (Iso(self.created_at), Iso(now));
        let usage_stats = UsageStats { start_time, last_update_time, dedicated_core_time: Period::from_ms(*core_ms) };
        PoolStats { url, start_time, last_update_time, usage_stats }
    }
}

/// Whether a request asks for statistics: by `$select` where given, otherwise by `$expand`.
fn are_wanted(call: &Call, select: Option<&Select>) -> Result<bool, Refusal> {
    let expand = call.query.text("$expand")?;
    let is_expanded = expand.is_some_and(|expand| expand.split(',').any(|name| name.trim() == "stats"));
    Ok(select.map_or(is_expanded, |select| select.has("stats")))
}

/// The statistics of rows, in their order; empty when the request does not ask for them.
pub async fn of<R: Counted>(
    api: &ApiState,
    call: &Call,
    select: Option<&Select>,
    rows: &[R],
    url: impl Fn(&R) -> String,
) -> Result<Vec<R::Stats>, Refusal> {
    if rows.is_empty() || !are_wanted(call, select)? {
        return Ok(Vec::new());
    }
    let sums = R::sums(api, rows).await.map_err(store_failed)?;
    let now = Timestamp::now();
    Ok(rows.iter().zip(&sums).map(|(row, sums)| row.stats(sums, url(row), now)).collect())
}
