//! Results of a job's preparation and release on each node.

use contract::{ids::TaskId, outcome::JobTaskEnd, time::Timestamp};
use model::{
    job_tasks::JobOnNodeRow,
    refusal::{Code, Refusal},
};
use serde::Serialize;
use store::rows::JobRow;

use crate::{
    answer::{Answer, Fields, Iso},
    call::Call,
    error::{not_found, store_failed},
    filter::compile,
    jobs::preparation,
    lists::{Paging, ROWS_MAX, shape},
    nodes::{self, start_task::FailureInfo},
    odata::Select,
    resource::{self, Resource},
    state::ApiState,
    tasks,
};

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
    end: Option<&'a JobTaskEnd>,
    (what, has_retries): (&str, bool),
) -> Option<ExecutionInfo<'a>> {
    let (exit_code, failure_info) = end.map_or((None, None), |end| nodes::start_task::failure(&end.outcome, what));
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

/// The job, and the ids of its two tasks.
pub struct Place {
    base: String,
    job: JobRow,
    preparation: TaskId,
    release: Option<TaskId>,
}

impl Resource for JobOnNodeRow {
    const SHAPE: &'static str = "PreparationAndReleaseStatus";
    const KIND: &'static str = "jobpreparationandreleasetaskstatuslist";
    type Place = Place;
    type Extra = ();

    fn token(&self) -> String {
        self.place()
    }

    fn url(&self, place: &Place) -> String {
        format!("{}/pools/{}/nodes/{}", place.base, self.pool, self.node)
    }

    async fn extras(_: &ApiState, _: &Call, _: Option<&Select>, _: &Place, _: &[Self]) -> Result<Vec<()>, Refusal> {
        Ok(Vec::new())
    }

    fn show<'a>(&self, fields: Fields<'a>, place: &Place, _: Option<&()>) -> Fields<'a> {
        let node_url = self.url(place);
        let of = |task| (&place.job, task, node_url.as_str());
        let ended = place.release.as_ref();
        fields
            .add("poolId", self.pool.as_str())
            .add("nodeId", self.node.as_str())
            .add("nodeUrl", &node_url)
            .add_some(
                "jobPreparationTaskExecutionInfo",
                info(of(&place.preparation), self.preparation_at, self.preparation.as_ref(), ("job preparation", true)),
            )
            .add_some(
                "jobReleaseTaskExecutionInfo",
                ended.and_then(|release| info(of(release), self.release_at, self.release.as_ref(), ("job release", false))),
            )
    }
}

/// A page of the nodes that a job was prepared on, including nodes that are gone.
pub async fn list_status(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let filter = compile(call, JobOnNodeRow::SHAPE)?;
    let job = api.job(&call.job()?).await?;
    let Some((preparation, release)) = preparation::names(&job.document) else {
        let refusal = Refusal::new(Code::JobPreparationTaskNotSpecified, "The specified job has no job preparation task.");
        return Err(refusal.with("JobId", &job.id));
    };
    let id = job.id.clone();
    let place = Place { base: call.base.clone(), job, preparation, release };
    let select = shape(call, JobOnNodeRow::SHAPE)?;
    let paging = Paging::read(call, ROWS_MAX)?;
    let rows = match paging.page(filter) {
        None => Vec::new(),
        Some(page) => {
            let found = api.read.jobs_on_nodes(&id, page).await.map_err(store_failed)?;
            found.ok_or_else(|| not_found(Code::JobNotFound, &id))?
        }
    };
    resource::page(api, call, select.as_ref(), &paging, &place, (&rows, None)).await
}
