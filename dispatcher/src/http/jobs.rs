//! Jobs: add, list, get, change, disable, enable, terminate, delete, and the counts of their tasks.

use broker_config::{ids::JobId, period::Period};
use serde::Serialize;

use crate::{
    command::{Command, etag},
    http::{
        answer::{Answer, Fields, Iso},
        call::Call,
        conditional::unchanged,
        entrance::Door,
        error::{not_found, store_failed},
        filter::{Compiled, JOBS, compile},
        job_body,
        lists::{Paging, ROWS_MAX, shape},
        pools::{NameValue, details},
        stats::{self, JobStats},
        validate::Object,
        version::{self, Kind},
    },
    refusal::{Code, Refusal},
    store::rows::{Counts, JobRow},
};

#[rustfmt::skip]
const PROPERTIES: &[&str] = &[
    "id", "displayName", "usesTaskDependencies", "url", "eTag", "lastModified", "creationTime", "state", "stateTransitionTime",
    "previousState", "previousStateTransitionTime", "priority", "allowTaskPreemption", "maxParallelTasks", "constraints",
    "jobManagerTask", "jobPreparationTask", "jobReleaseTask", "commonEnvironmentSettings", "poolInfo", "onAllTasksComplete",
    "onTaskFailure", "networkConfiguration", "metadata", "executionInfo", "stats",
];

/// Characters of the reason in a terminate.
const REASON_MAX: usize = 1_024;
/// A changed document is written again this often when another change came between.
const MERGES_MAX: usize = 5;

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

/// Where a job is.
pub fn url(call: &Call, job: &JobId) -> String {
    format!("{}/jobs/{}", call.base, job.as_str().replace(':', "%3A"))
}

fn show<'a>(fields: Fields<'a>, call: &'a Call, row: &JobRow, stats: Option<&JobStats>) -> Vec<u8> {
    let constraints = Constraints {
        max_wall_clock_time: row.max_wall_clock.unwrap_or(Period::UNLIMITED),
        max_task_retry_count: row.max_task_retry_count,
    };
    let execution = ExecutionInfo {
        start_time: Iso(row.created_at),
        end_time: row.ended_at.map(Iso),
        pool_id: row.scheduling_error.is_none().then_some(row.pool.as_str()),
        scheduling_error: row.scheduling_error.as_ref().map(|fault| SchedulingError {
            category: "usererror",
            code: &fault.code,
            message: &fault.message,
            details: details(&fault.details),
        }),
        terminate_reason: row.terminate_reason.as_deref(),
    };
    fields
        .without(call.lacks(Kind::Job))
        .add("id", row.id.as_str())
        .add("usesTaskDependencies", &row.uses_dependencies)
        .add("url", &url(call, &row.id))
        .add("eTag", &etag(row.version))
        .add("lastModified", &Iso(row.modified_at))
        .add("creationTime", &Iso(row.created_at))
        .add("state", row.state.as_str())
        .add("stateTransitionTime", &Iso(row.state_at))
        .add_some("previousState", row.previous.map(|(state, _)| state))
        .add_some("previousStateTransitionTime", row.previous.map(|(_, at)| Iso(at)))
        .add("priority", &row.priority)
        .add("maxParallelTasks", &row.max_parallel)
        .add("constraints", &constraints)
        .add_some("poolInfo", row.auto_pool.is_none().then(|| PoolInfo { pool_id: row.pool.as_str() }))
        .add("onAllTasksComplete", if row.terminate_when_complete { "terminatejob" } else { "noaction" })
        .add("onTaskFailure", if row.performs_exit_options { "performexitoptionsjobaction" } else { "noaction" })
        .add("executionInfo", &execution)
        .add_some("stats", stats)
        .document(&row.document)
        .finish()
}

impl Door {
    /// A job's row.
    pub async fn job(&self, job: &JobId) -> Result<JobRow, Refusal> {
        let row = self.read.job(job).await.map_err(store_failed)?;
        row.ok_or_else(|| not_found(Code::JobNotFound, job))
    }
}

/// Adds a job.
pub async fn add(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let job = job_body::read(Object::root(&call.json()?))?;
    let url = url(call, &job.id);
    let (version, at) = door.change(Command::CreateJob(Box::new(job))).await?;
    Ok(Answer::empty(201).changed(version, at).created(&url))
}

/// A page of jobs.
pub async fn list(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    page(door, call, compile(call.query.text("$filter")?, JOBS)?).await
}

/// A page of the jobs that pass.
pub async fn page(door: &Door, call: &Call, filter: Compiled) -> Result<Answer, Refusal> {
    let select = shape(call, PROPERTIES)?;
    let paging = Paging::read(call, ROWS_MAX)?;
    let rows = match paging.page(filter) {
        None => Vec::new(),
        Some(page) => door.read.jobs(page).await.map_err(store_failed)?,
    };
    let stats = stats::of_rows(door, call, select.as_ref(), &rows, |row| url(call, &row.id)).await?;
    let show = |at: usize, row: &JobRow| show(Fields::new(select.as_ref()), call, row, stats.get(at));
    Ok(paging.answer(call, "jobs", &rows, |row| row.id.as_str(), show))
}

/// One job.
pub async fn get(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let select = shape(call, PROPERTIES)?;
    let row = door.job(&call.job()?).await?;
    if let Some(answer) = unchanged(&call.condition, row.version, row.modified_at)? {
        return Ok(answer);
    }
    let fields = Fields::new(select.as_ref()).always("odata.metadata", &format!("{}/$metadata#jobs/@Element", call.base));
    let url = url(call, &row.id);
    let stats = stats::of_one(door, call, select.as_ref(), &row, &url).await?;
    Ok(Answer::json(show(fields, call, &row, stats.as_ref())).changed(row.version, row.modified_at).about(&url))
}

/// Changes the parts that are named.
pub async fn patch(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    change(door, call, false).await
}

/// Changes everything that can change.
pub async fn update(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    change(door, call, true).await
}

async fn change(door: &Door, call: &Call, is_whole: bool) -> Result<Answer, Refusal> {
    let job = call.job()?;
    let asked = job_body::change(Object::root(&call.json()?), is_whole)?;
    for attempt in 1.. {
        let row = door.job(&job).await?;
        let change = asked.of(&row.document)?;
        let mut condition = call.condition.clone();
        let is_merge = change.document.is_some() && condition == Default::default();
        if is_merge {
            condition.if_match = Some(etag(row.version));
        }
        match door.change(Command::UpdateJob(job.clone(), Box::new(change), condition)).await {
            Err(refusal) if is_merge && refusal.code == Code::ConditionNotMet && attempt < MERGES_MAX => continue,
            Err(refusal) => return Err(refusal),
            Ok((version, at)) => return Ok(Answer::empty(200).changed(version, at).about(&url(call, &row.id))),
        }
    }
    unreachable!("the last attempt returns")
}

/// Runs nothing of a job until it is enabled.
pub async fn disable(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let job = call.job()?;
    let option = job_body::disable(Object::root(&call.json()?))?;
    let url = url(call, &job);
    let (version, at) = door.change(Command::DisableJob(job, option, call.condition.clone())).await?;
    Ok(Answer::empty(202).changed(version, at).about(&url))
}

/// Runs a disabled job's tasks again.
pub async fn enable(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let job = call.job()?;
    let url = url(call, &job);
    let (version, at) = door.change(Command::EnableJob(job, call.condition.clone())).await?;
    Ok(Answer::empty(202).changed(version, at).about(&url))
}

/// Ends a job.
pub async fn terminate(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let job = call.job()?;
    call.query.flag("force")?;
    let body = call.optional_json()?;
    let reason = Object::root(&body).text("terminateReason", REASON_MAX)?.filter(|reason| !reason.is_empty()).map(str::to_owned);
    let url = url(call, &job);
    let (version, at) = door.change(Command::TerminateJob(job, reason, call.condition.clone())).await?;
    Ok(Answer::empty(202).changed(version, at).about(&url))
}

/// Removes a job with its tasks.
pub async fn delete(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    call.query.flag("force")?;
    door.change(Command::DeleteJob(call.job()?, call.condition.clone())).await?;
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

/// How many tasks are in which state.
pub async fn task_counts(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let row = door.job(&call.job()?).await?;
    let fields = Fields::new(None).always("odata.metadata", &format!("{}/$metadata#taskcounts/@Element", call.base));
    if call.version < version::V12 {
        let ShownCounts { active, running, completed, succeeded, failed } = counts(&row.tasks);
        let fields = fields.add("active", &active).add("running", &running).add("completed", &completed);
        return Ok(Answer::json(fields.add("succeeded", &succeeded).add("failed", &failed).finish()));
    }
    Ok(Answer::json(fields.add("taskCounts", &counts(&row.tasks)).add("taskSlotCounts", &counts(&row.slots)).finish()))
}
