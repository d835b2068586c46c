//! How a job's preparation and release went on each node.

use broker_config::{chore::ChoreEnd, ids::TaskId, time::Timestamp};
use serde::Serialize;

use crate::{
    http::{
        answer::{Answer, Fields, Iso},
        call::Call,
        entrance::Door,
        error::{not_found, store_failed},
        filter::{CHORES, compile},
        job_chores,
        lists::{Paging, ROWS_MAX, list, shape},
        start_tasks::{self, FailureInfo},
        tasks,
    },
    refusal::{Code, Refusal},
    store::{chores::SiteRow, rows::JobRow},
};

const PROPERTIES: &[&str] = &["poolId", "nodeId", "nodeUrl", "jobPreparationTaskExecutionInfo", "jobReleaseTaskExecutionInfo"];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExecutionInfo<'a> {
    start_time: Iso,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<Iso>,
    state: &'static str,
    task_root_directory: String,
    task_root_directory_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_info: Option<FailureInfo<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_retry_time: Option<Iso>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'static str>,
}

fn info<'a>(
    (job, task, node_url): (&JobRow, &TaskId, &str),
    began_at: Option<Timestamp>,
    end: Option<&'a ChoreEnd>,
    (what, has_retries): (&str, bool),
) -> Option<ExecutionInfo<'a>> {
    let (exit_code, failure_info) = end.map_or((None, None), |end| start_tasks::failure(&end.outcome, what));
    let result = end.map(|_| if failure_info.is_none() { "success" } else { "failure" });
    let task_root_directory = tasks::directory(&job.id, task);
    Some(ExecutionInfo {
        start_time: Iso(began_at?),
        end_time: end.map(|end| Iso(end.ended_at)),
        state: if end.is_some() { "completed" } else { "running" },
        task_root_directory_url: format!("{node_url}/files/{task_root_directory}"),
        task_root_directory,
        exit_code,
        failure_info,
        retry_count: has_retries.then_some(end.map_or(0, |end| end.retries)),
        last_retry_time: end.and_then(|end| end.retried_at).map(Iso),
        result,
    })
}

/// A page of the nodes that a job was prepared on, those that are gone included.
pub async fn list_status(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let select = shape(call, PROPERTIES)?;
    let filter = compile(call.query.text("$filter")?, CHORES)?;
    let paging = Paging::read(call, ROWS_MAX)?;
    let job = door.job(&call.job()?).await?;
    let Some((preparation, release)) = job_chores::names(&job.document) else {
        let refusal = Refusal::new(Code::JobPreparationTaskNotSpecified, "The specified job has no job preparation task.");
        return Err(refusal.with("JobId", &job.id));
    };
    let rows = match paging.page(filter) {
        None => Vec::new(),
        Some(page) => {
            let found = door.read.sites(&job.id, page).await.map_err(store_failed)?;
            found.ok_or_else(|| not_found(Code::JobNotFound, &job.id))?
        }
    };
    let (shown, last) = paging.shown(&rows);
    let show = |row: &SiteRow| {
        let node_url = format!("{}/pools/{}/nodes/{}", call.base, row.pool, row.node);
        let began = info((&job, &preparation, &node_url), row.preparation_at, row.preparation.as_ref(), ("job preparation", true));
        let ended = release
            .as_ref()
            .and_then(|release| info((&job, release, &node_url), row.release_at, row.release.as_ref(), ("job release", false)));
        Fields::new(select.as_ref())
            .add("poolId", row.pool.as_str())
            .add("nodeId", row.node.as_str())
            .add("nodeUrl", &node_url)
            .add_some("jobPreparationTaskExecutionInfo", began)
            .add_some("jobReleaseTaskExecutionInfo", ended)
            .finish()
    };
    let place = last.map(SiteRow::place);
    Ok(list(call, "jobpreparationandreleasetaskstatuslist", shown.iter().map(show), place.as_deref()))
}
