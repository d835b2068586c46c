//! Jobs: add, list, get, change, disable, enable, terminate, delete, and the counts of their tasks.

pub mod body;
pub mod manager;
pub mod pool;
pub mod preparation;
pub mod preparation_status;

use contract::{ids::JobId, period::Period, time::Timestamp};
use engine::command::Command;
use model::{
    condition::etag,
    job::Counts,
    refusal::{Code, Refusal},
};
use serde::Serialize;
use store::rows::JobRow;

use crate::{
    answer::{Answer, Fields, Iso, NameValue, details},
    call::Call,
    error::{not_found, store_failed},
    filter::{Compiled, compile},
    odata::Select,
    resource::{self, Resource},
    state::ApiState,
    stats::{self, JobStats},
    version,
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Constraints {
    max_wall_clock_time: Period,
    max_task_retry_count: i32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PoolInfo<'a> {
    pool_id: &'a str,
}

#[derive(Serialize)]
struct SchedulingError<'a> {
    category: &'static str,
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<NameValue<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExecutionInfo<'a> {
    start_time: Iso,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<Iso>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scheduling_error: Option<SchedulingError<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    terminate_reason: Option<&'a str>,
}

/// URL of a job.
pub fn url(base: &str, job: &JobId) -> String {
    format!("{base}/jobs/{}", job.as_str().replace(':', "%3A"))
}

impl Resource for JobRow {
    const SHAPE: &'static str = "CloudJob";
    const KIND: &'static str = "jobs";
    /// Base URL of the API.
    type Place = String;
    type Extra = JobStats;

    fn token(&self) -> String {
        self.id.to_string()
    }

    fn stamp(&self) -> Option<(u64, Timestamp)> {
        Some((self.version, self.modified_at))
    }

    fn url(&self, base: &String) -> String {
        url(base, &self.id)
    }

    async fn extras(api: &ApiState, call: &Call, select: Option<&Select>, base: &String, rows: &[Self]) -> Result<Vec<JobStats>, Refusal> {
        stats::of(api, call, select, rows, |row| row.url(base)).await
    }

    fn show<'a>(&self, fields: Fields<'a>, base: &String, stats: Option<&JobStats>) -> Fields<'a> {
        let constraints = Constraints {
            max_wall_clock_time: self.max_wall_clock.unwrap_or(Period::UNLIMITED),
            max_task_retry_count: self.max_task_retry_count,
        };
        let execution = ExecutionInfo {
            start_time: Iso(self.created_at),
            end_time: self.ended_at.map(Iso),
            pool_id: self.scheduling_error.is_none().then_some(self.pool.as_str()),
            scheduling_error: self.scheduling_error.as_ref().map(|fault| SchedulingError {
                category: "usererror",
                code: &fault.code,
                message: &fault.message,
                details: details(&fault.details),
            }),
            terminate_reason: self.terminate_reason.as_deref(),
        };
        fields
            .add("id", self.id.as_str())
            .add("usesTaskDependencies", &self.uses_dependencies)
            .add("url", &self.url(base))
            .add("eTag", &etag(self.version))
            .add("lastModified", &Iso(self.modified_at))
            .add("creationTime", &Iso(self.created_at))
            .add("state", self.state.as_str())
            .add("stateTransitionTime", &Iso(self.state_at))
            .add_some("previousState", self.previous.map(|(state, _)| state))
            .add_some("previousStateTransitionTime", self.previous.map(|(_, at)| Iso(at)))
            .add("priority", &self.priority)
            .add("maxParallelTasks", &self.max_parallel)
            .add("constraints", &constraints)
            .add_some("poolInfo", self.auto_pool.is_none().then(|| PoolInfo { pool_id: self.pool.as_str() }))
            .add("onAllTasksComplete", if self.terminate_when_complete { "terminatejob" } else { "noaction" })
            .add("onTaskFailure", if self.performs_exit_options { "performexitoptionsjobaction" } else { "noaction" })
            .add("executionInfo", &execution)
            .add_some("stats", stats)
            .document(&self.document)
    }
}

impl ApiState {
    /// A job's row.
    pub async fn job(&self, job: &JobId) -> Result<JobRow, Refusal> {
        let row = self.read.job(job).await.map_err(store_failed)?;
        row.ok_or_else(|| not_found(Code::JobNotFound, job))
    }
}

/// Adds a job.
pub async fn add(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let job = body::read(call.json()?.root())?;
    let url = url(&call.base, &job.id);
    let (version, at) = api.change(Command::CreateJob(Box::new(job))).await?;
    Ok(Answer::empty(201).changed(version, at).created(&url))
}

/// A page of jobs.
pub async fn list(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    page(api, call, compile(call, JobRow::SHAPE)?).await
}

/// A page of the jobs that pass.
pub async fn page(api: &ApiState, call: &Call, filter: Compiled) -> Result<Answer, Refusal> {
    resource::list(api, call, filter, call.base.clone(), |page| api.read.jobs(page)).await
}

/// Handles `GET /jobs/{id}`.
pub async fn get(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    resource::get(api, call, async { Ok((call.base.clone(), api.job(&call.job()?).await?)) }).await
}

/// Changes the parts that are named.
pub async fn patch(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    change(api, call, false).await
}

/// Replaces all properties that can change.
pub async fn update(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    change(api, call, true).await
}

async fn change(api: &ApiState, call: &Call, is_whole: bool) -> Result<Answer, Refusal> {
    let job = call.job()?;
    let change = body::change(call.json()?.root(), is_whole)?;
    let url = url(&call.base, &api.job(&job).await?.id);
    let (version, at) = api.change(Command::UpdateJob(job, Box::new(change), call.condition.clone())).await?;
    Ok(Answer::empty(200).changed(version, at).about(&url))
}

/// Stops running a job's tasks until it is enabled.
pub async fn disable(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let job = call.job()?;
    let option = body::disable(call.json()?.root());
    let url = url(&call.base, &job);
    let (version, at) = api.change(Command::DisableJob(job, option, call.condition.clone())).await?;
    Ok(Answer::empty(202).changed(version, at).about(&url))
}

/// Runs a disabled job's tasks again.
pub async fn enable(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let job = call.job()?;
    let url = url(&call.base, &job);
    let (version, at) = api.change(Command::EnableJob(job, call.condition.clone())).await?;
    Ok(Answer::empty(202).changed(version, at).about(&url))
}

/// Ends a job.
pub async fn terminate(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let job = call.job()?;
    let is_forced = call.query.flag("force")?;
    let body = call.optional_json()?;
    let reason = body.root().owned("terminateReason").filter(|reason| !reason.is_empty());
    let url = url(&call.base, &job);
    let ended = api.change(Command::TerminateJob(job.clone(), reason, call.condition.clone())).await;
    let (version, at) = forced(api, is_forced.then_some(Command::ForceJob(job)), ended).await?;
    Ok(Answer::empty(202).changed(version, at).about(&url))
}

/// Sends `order` after a termination or deletion, whether that began now or earlier.
pub async fn forced<T>(api: &ApiState, order: Option<Command>, ended: Result<T, Refusal>) -> Result<T, Refusal> {
    const UNDER_WAY: [Code; 4] =
        [Code::JobBeingTerminated, Code::JobBeingDeleted, Code::JobScheduleBeingTerminated, Code::JobScheduleBeingDeleted];
    let is_under_way = ended.as_ref().err().is_none_or(|refusal| UNDER_WAY.contains(&refusal.code));
    if let Some(order) = order.filter(|_| is_under_way) {
        api.change(order).await?;
    }
    ended
}

/// Removes a job with its tasks.
pub async fn delete(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let (job, is_forced) = (call.job()?, call.query.flag("force")?);
    let ended = api.change(Command::DeleteJob(job.clone(), call.condition.clone())).await;
    forced(api, is_forced.then_some(Command::ForceJob(job)), ended).await?;
    Ok(Answer::empty(202))
}

#[derive(Serialize)]
struct ShownCounts {
    active: u64,
    running: u64,
    completed: u64,
    succeeded: u64,
    failed: u64,
}

fn counts(counts: &Counts) -> ShownCounts {
    ShownCounts {
        active: counts.active,
        running: counts.running,
        completed: counts.completed(),
        succeeded: counts.succeeded,
        failed: counts.failed,
    }
}

/// Number of tasks by state.
pub async fn task_counts(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let row = api.job(&call.job()?).await?;
    let fields = Fields::new(None, &[]).always("odata.metadata", &format!("{}/$metadata#taskcounts/@Element", call.base));
    if call.version < version::V12 {
        let ShownCounts { active, running, completed, succeeded, failed } = counts(&row.tasks);
        let fields = fields.add("active", &active).add("running", &running).add("completed", &completed);
        return Ok(Answer::json(fields.add("succeeded", &succeeded).add("failed", &failed).finish()));
    }
    Ok(Answer::json(fields.add("taskCounts", &counts(&row.tasks)).add("taskSlotCounts", &counts(&row.slots)).finish()))
}
