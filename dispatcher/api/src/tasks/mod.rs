//! Tasks: add one, list, get, change, reactivate, terminate, delete.

pub mod body;
pub mod collection;
pub mod files;

use contract::{
    ids::{JobId, TaskId},
    state::TaskState,
    time::Timestamp,
};
use engine::command::Command;
use model::{
    condition::etag,
    refusal::{Code, Refusal},
};
use serde::Serialize;
use store::{
    StoreError,
    read::{Detail, TaskName, TaskPage},
    rows::{JobRow, TaskRow},
};

use crate::{
    answer::{self, Answer, Fields, Iso, NameValue, Text, details, escaped},
    call::Call,
    error::{not_found, store_failed},
    filter::compile,
    lists::{self, Paging, ROWS_MAX, shape},
    odata::Select,
    resource::{self, Resource},
    shared_body::DEFAULT_IDENTITY,
    state::ApiState,
    stats::{self, TaskStats},
};

/// Properties that can be answered from the index of ids and states alone.
const NAME_PROPERTIES: &[&str] = &["id", "url", "state"];
/// Properties that are columns of the row and not in a task's document.
#[rustfmt::skip]
const ROW_PROPERTIES: &[&str] = &[
    "id", "url", "eTag", "lastModified", "creationTime", "state", "stateTransitionTime", "previousState",
    "previousStateTransitionTime", "executionInfo", "nodeInfo", "stats",
];

#[derive(Serialize)]
struct FailureInfo<'a> {
    category: &'static str,
    code: &'a str,
    message: &'a str,
    details: Vec<NameValue<'a>>,
}

/// `executionInfo` of a task.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionInfo<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<Iso>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<Iso>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_info: Option<FailureInfo<'a>>,
    retry_count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_retry_time: Option<Iso>,
    requeue_count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_requeue_time: Option<Iso>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'static str>,
}

/// Facts that all tasks of an answer share, put together once.
pub struct Place {
    job: JobRow,
    /// Base URL of the API, escaped for JSON.
    base: String,
    /// URL of the job's tasks, up to the task's id.
    tasks: String,
    /// The job's folder below a node's root, up to the task's id.
    folder: String,
}

impl Place {
    fn of(call: &Call, job: JobRow) -> Place {
        Place { base: escaped(&call.base), tasks: tasks_url(&call.base, &job.id), folder: tasks_folder(&job.id), job }
    }

    /// `nodeInfo` of a task, as parts of its JSON. Ids need no escaping.
    fn node_info<'r>(&'r self, row: &'r TaskRow) -> Option<[&'r str; 25]> {
        let (base, folder, task) = (self.base.as_str(), self.folder.as_str(), row.id.as_str());
        let (node, pool) = (row.node.as_ref()?.as_str(), row.pool.as_ref().unwrap_or(&self.job.pool).as_str());
        #[rustfmt::skip]
        let parts = [
            r#"{"affinityId":"TVM:"#, node,
            r#"","nodeUrl":""#, base, "/pools/", pool, "/nodes/", node,
            r#"","poolId":""#, pool,
            r#"","nodeId":""#, node,
            r#"","taskRootDirectory":""#, folder, task,
            r#"","taskRootDirectoryUrl":""#, base, "/pools/", pool, "/nodes/", node, "/files/", folder, task,
            r#""}"#,
        ];
        Some(parts)
    }
}

fn tasks_url(base: &str, job: &JobId) -> String {
    format!("{base}/jobs/{}/tasks/", job.as_str().replace(':', "%3A"))
}

fn tasks_folder(job: &JobId) -> String {
    format!("workitems/{}/", job.folder())
}

/// URL of a task.
pub fn url(base: &str, job: &JobId, task: &TaskId) -> String {
    tasks_url(base, job) + task.as_str()
}

/// The directory of a task below its node's root.
pub fn directory(job: &JobId, task: &TaskId) -> String {
    tasks_folder(job) + task.as_str()
}

/// `executionInfo` of a task.
pub fn execution(row: &TaskRow) -> ExecutionInfo<'_> {
    let failure = row.failure.as_ref();
    ExecutionInfo {
        start_time: row.started_at.map(Iso),
        end_time: row.ended_at.map(Iso),
        exit_code: row.exit_code,
        failure_info: failure.map(|failure| FailureInfo {
            category: if failure.is_user_error { "usererror" } else { "servererror" },
            code: &failure.fault.code,
            message: &failure.fault.message,
            details: details(&failure.fault.details),
        }),
        retry_count: row.retry_count,
        last_retry_time: row.retried_at.map(Iso),
        requeue_count: row.requeue_count,
        last_requeue_time: row.requeued_at.map(Iso),
        result: row.has_succeeded.map(|is_success| if is_success { "success" } else { "failure" }),
    }
}

/// The columns that a list must read for the selected properties.
fn detail(select: Option<&Select>) -> Detail {
    let Some(select) = select else { return Detail::WHOLE };
    let mut detail = Detail::HEADS;
    for name in select.names() {
        detail.runs |= name == "executionInfo";
        detail.document |= !ROW_PROPERTIES.contains(&name);
    }
    detail
}

impl Resource for TaskName {
    const SHAPE: &'static str = "CloudTask";
    const KIND: &'static str = "tasks";
    type Place = Place;
    type Extra = ();

    fn token(&self) -> String {
        self.id.to_string()
    }

    fn url(&self, place: &Place) -> String {
        format!("{}{}", place.tasks, self.id)
    }

    async fn extras(_: &ApiState, _: &Call, _: Option<&Select>, _: &Place, _: &[Self]) -> Result<Vec<()>, Refusal> {
        Ok(Vec::new())
    }

    fn show<'a>(&self, fields: Fields<'a>, place: &Place, _: Option<&()>) -> Fields<'a> {
        show_name(fields, place, &self.id, self.state)
    }
}

/// Shows the [`NAME_PROPERTIES`].
fn show_name<'a>(fields: Fields<'a>, place: &Place, id: &TaskId, state: TaskState) -> Fields<'a> {
    fields.add("id", id.as_str()).add("url", &Text(format_args!("{}{id}", place.tasks))).add("state", state.as_str())
}

impl Resource for TaskRow {
    const SHAPE: &'static str = "CloudTask";
    const KIND: &'static str = "tasks";
    type Place = Place;
    type Extra = TaskStats;

    fn token(&self) -> String {
        self.id.to_string()
    }

    fn stamp(&self) -> Option<(u64, Timestamp)> {
        Some((self.version, self.modified_at))
    }

    fn url(&self, place: &Place) -> String {
        format!("{}{}", place.tasks, self.id)
    }

    async fn extras(api: &ApiState, call: &Call, select: Option<&Select>, place: &Place, rows: &[Self]) -> Result<Vec<TaskStats>, Refusal> {
        stats::of(api, call, select, rows, |row| row.url(place)).await
    }

    fn show<'a>(&self, fields: Fields<'a>, place: &Place, stats: Option<&TaskStats>) -> Fields<'a> {
        let parts = answer::read(&self.document);
        show_name(fields, place, &self.id, self.state)
            .add_with("eTag", || Some(etag(self.version)))
            .add("creationTime", &Iso(self.created_at))
            .add("lastModified", &Iso(self.modified_at))
            .add("stateTransitionTime", &Iso(self.state_at))
            .add_some("previousState", self.previous.map(|(state, _)| state))
            .add_some("previousStateTransitionTime", self.previous.map(|(_, at)| Iso(at)))
            .add_with("executionInfo", || Some(execution(self)))
            .add_parts("nodeInfo", || place.node_info(self))
            .add_some("stats", stats)
            .parts(&self.document, &parts)
            .add_parts("userIdentity", || (!parts.contains_key("userIdentity")).then_some([DEFAULT_IDENTITY]))
    }
}

impl ApiState {
    /// The rows of a task and its job; the refusal says which of them does not exist.
    pub async fn task(&self, job: &JobId, task: &TaskId) -> Result<(JobRow, TaskRow), Refusal> {
        let job = self.job(job).await?;
        let row = self.read.task(&job.id, task).await.map_err(store_failed)?;
        row.map(|row| (job, row)).ok_or_else(|| not_found(Code::TaskNotFound, task))
    }
}

/// Adds a task.
pub async fn add(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let job = call.job()?;
    let task = body::read(call.json()?.root())?;
    let url = url(&call.base, &job, &task.id);
    if task.acts_on_job() && !api.job(&job).await?.performs_exit_options {
        return Err(task.unheard());
    }
    let (version, at) = api.change(Command::CreateTasks(job, vec![task])).await?;
    Ok(Answer::empty(201).changed(version, at).created(&url))
}

/// A page of a job's tasks.
pub async fn list(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let select = shape(call, TaskRow::SHAPE)?;
    let paging = Paging::read(call, ROWS_MAX)?;
    let (job, select) = (call.job()?, select.as_ref());
    let Some(page) = paging.page(compile(call, TaskRow::SHAPE)?) else {
        api.job(&job).await?;
        return Ok(lists::list(call, TaskRow::KIND, std::iter::empty(), None));
    };
    if select.is_some_and(|select| select.names().all(|name| NAME_PROPERTIES.contains(&name))) {
        return shown(api, call, select, &paging, there(&job, api.read.task_names(&job, page).await)?).await;
    }
    shown(api, call, select, &paging, there(&job, api.read.tasks(&job, page, detail(select)).await)?).await
}

fn there<R>(job: &JobId, found: Result<Option<TaskPage<R>>, StoreError>) -> Result<TaskPage<R>, Refusal> {
    found.map_err(store_failed)?.ok_or_else(|| not_found(Code::JobNotFound, job))
}

async fn shown<R: Resource<Place = Place>>(
    api: &ApiState,
    call: &Call,
    select: Option<&Select>,
    paging: &Paging,
    found: TaskPage<R>,
) -> Result<Answer, Refusal> {
    let place = Place::of(call, found.job);
    resource::page(api, call, select, paging, &place, (&found.rows, found.stopped_at.as_deref())).await
}

/// Handles `GET /jobs/{job}/tasks/{task}`.
pub async fn get(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let found = async {
        let (job, row) = api.task(&call.job()?, &call.task()?).await?;
        Ok((Place::of(call, job), row))
    };
    resource::get(api, call, found).await
}

/// Replaces a task's constraints; those that are not given go back to their defaults.
pub async fn update(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let (job, task) = (call.job()?, call.task()?);
    let constraints = body::constraints(&call.json()?.root());
    let url = url(&call.base, &job, &task);
    let (version, at) = api.change(Command::UpdateTask(job, task, constraints, call.condition.clone())).await?;
    Ok(Answer::empty(200).changed(version, at).about(&url))
}

/// Runs a failed task again.
pub async fn reactivate(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let (job, task) = (call.job()?, call.task()?);
    let url = url(&call.base, &job, &task);
    let (version, at) = api.change(Command::ReactivateTask(job, task, call.condition.clone())).await?;
    Ok(Answer::empty(204).changed(version, at).about(&url))
}

/// Ends a task.
pub async fn terminate(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let (job, task) = (call.job()?, call.task()?);
    let url = url(&call.base, &job, &task);
    let (version, at) = api.change(Command::TerminateTask(job, task, call.condition.clone())).await?;
    Ok(Answer::empty(204).changed(version, at).about(&url))
}

/// Removes a task.
pub async fn delete(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    api.change(Command::DeleteTask(call.job()?, call.task()?, call.condition.clone())).await?;
    Ok(Answer::empty(200))
}

/// Subtasks of a task: always empty.
pub async fn subtasks(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    shape(call, "SubtaskInformation")?;
    api.task(&call.job()?, &call.task()?).await?;
    Ok(lists::list(call, "subtasks", std::iter::empty(), None))
}
