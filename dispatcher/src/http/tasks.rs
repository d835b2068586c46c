//! Tasks: add one, list, get, change, run again, terminate, delete.

use broker_config::{
    ids::{JobId, TaskId},
    state::TaskState,
};
use serde::Serialize;

use crate::{
    command::{Command, etag},
    http::{
        answer::{Answer, Fields, Iso, Text, escaped},
        call::Call,
        conditional::unchanged,
        entrance::Door,
        error::{not_found, store_failed},
        filter::{TASKS, compile},
        lists::{self, Paging, ROWS_MAX, shape},
        odata::Select,
        pools::{NameValue, details},
        shared_body::DEFAULT_IDENTITY,
        stats::{self, TaskStats},
        task_body,
        task_collection::{acts_on_job, unheard},
        validate::Object,
        version::Kind,
    },
    refusal::{Code, Refusal},
    store::{
        StoreError,
        read::{Detail, TaskName, TaskPage},
        rows::{JobRow, TaskRow},
    },
};

#[rustfmt::skip]
const PROPERTIES: &[&str] = &[
    "id", "displayName", "url", "eTag", "lastModified", "creationTime", "exitConditions", "state", "stateTransitionTime",
    "previousState", "previousStateTransitionTime", "commandLine", "containerSettings", "resourceFiles", "outputFiles",
    "environmentSettings", "affinityInfo", "constraints", "requiredSlots", "userIdentity", "executionInfo", "nodeInfo",
    "multiInstanceSettings", "stats", "dependsOn", "applicationPackageReferences", "authenticationTokenSettings",
];
#[rustfmt::skip]
const SUBTASK_PROPERTIES: &[&str] = &[
    "id", "nodeInfo", "startTime", "endTime", "exitCode", "containerInfo", "failureInfo", "state", "stateTransitionTime",
    "previousState", "previousStateTransitionTime", "result",
];

/// Those that names and states are enough for.
const NAME_PROPERTIES: &[&str] = &["id", "url", "state"];
/// Those that are not in a task's document.
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

/// What is known of a task's runs, as Azure shows it.
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

/// A task of a job and where it is: what all tasks of an answer share is put together once.
struct Place<'a> {
    job: &'a JobRow,
    /// Where the door is, as it stands inside a JSON text.
    base: String,
    /// Where the job's tasks are, up to the task's name.
    tasks: String,
    /// The job's folder below a node's root, up to the task's name.
    folder: String,
}

impl<'a> Place<'a> {
    fn of(call: &Call, job: &'a JobRow) -> Place<'a> {
        Place { job, base: escaped(&call.base), tasks: tasks_url(call, &job.id), folder: tasks_folder(&job.id) }
    }

    /// Where a task runs or ran, as the parts of its JSON. Ids need no escapes.
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

fn tasks_url(call: &Call, job: &JobId) -> String {
    format!("{}/jobs/{}/tasks/", call.base, job.as_str().replace(':', "%3A"))
}

fn tasks_folder(job: &JobId) -> String {
    format!("workitems/{}/", job.folder())
}

/// Where a task is.
pub fn url(call: &Call, job: &JobId, task: &TaskId) -> String {
    tasks_url(call, job) + task.as_str()
}

/// The directory of a task below its node's root.
pub fn directory(job: &JobId, task: &TaskId) -> String {
    tasks_folder(job) + task.as_str()
}

/// What is known of a task's runs.
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

/// What a list must read beside rows for the properties that were selected.
fn detail(select: Option<&Select>) -> Detail {
    let Some(select) = select else { return Detail::WHOLE };
    let mut detail = Detail::HEADS;
    for name in select.names() {
        detail.runs |= name == "executionInfo";
        detail.document |= !ROW_PROPERTIES.contains(&name);
    }
    detail
}

/// [`NAME_PROPERTIES`].
fn show_name<'a>(fields: Fields<'a>, place: &Place<'_>, id: &TaskId, state: TaskState) -> Fields<'a> {
    fields.add("id", id.as_str()).add("url", &Text(format_args!("{}{id}", place.tasks))).add("state", state.as_str())
}

fn show<'a>(fields: Fields<'a>, call: &'a Call, place: &Place<'_>, row: &TaskRow, stats: Option<&TaskStats>) -> Vec<u8> {
    show_name(fields, place, &row.id, row.state)
        .without(call.lacks(Kind::Task))
        .add_with("eTag", || Some(etag(row.version)))
        .add("creationTime", &Iso(row.created_at))
        .add("lastModified", &Iso(row.modified_at))
        .add("stateTransitionTime", &Iso(row.state_at))
        .add_some("previousState", row.previous.map(|(state, _)| state))
        .add_some("previousStateTransitionTime", row.previous.map(|(_, at)| Iso(at)))
        .add_with("executionInfo", || Some(execution(row)))
        .add_parts("nodeInfo", || place.node_info(row))
        .add_some("stats", stats)
        .document(&row.document)
        .add_parts("userIdentity", || (!row.document.contains(r#""userIdentity":"#)).then_some([DEFAULT_IDENTITY]))
        .finish()
}

impl Door {
    /// A task's row and its job's; says which of the two is missing.
    pub async fn task(&self, job: &JobId, task: &TaskId) -> Result<(JobRow, TaskRow), Refusal> {
        let job = self.job(job).await?;
        let row = self.read.task(&job.id, task).await.map_err(store_failed)?;
        row.map(|row| (job, row)).ok_or_else(|| not_found(Code::TaskNotFound, task))
    }
}

/// Adds a task.
pub async fn add(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let job = call.job()?;
    let task = task_body::read(Object::root(&call.json()?))?;
    let url = url(call, &job, &task.id);
    if acts_on_job(&task) && !door.job(&job).await?.performs_exit_options {
        return Err(unheard(&task));
    }
    let (version, at) = door.change(Command::CreateTasks(job, vec![task])).await?;
    Ok(Answer::empty(201).changed(version, at).created(&url))
}

/// A page of a job's tasks.
pub async fn list(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let select = shape(call, PROPERTIES)?;
    let paging = Paging::read(call, ROWS_MAX)?;
    let filter = compile(call.query.text("$filter")?, TASKS)?;
    let (job, select) = (call.job()?, select.as_ref());
    let Some(page) = paging.page(filter) else {
        door.job(&job).await?;
        return Ok(lists::list(call, "tasks", std::iter::empty(), None));
    };
    if select.is_some_and(|select| select.names().all(|name| NAME_PROPERTIES.contains(&name))) {
        let found = there(&job, door.read.task_names(&job, page).await)?;
        let place = Place::of(call, &found.job);
        let write = |body, _, row: &TaskName| show_name(Fields::after(body, select), &place, &row.id, row.state).finish();
        return Ok(shown(call, &paging, &found, |row| &row.id, write));
    }
    let found = there(&job, door.read.tasks(&job, page, detail(select)).await)?;
    let place = Place::of(call, &found.job);
    let stats = stats::of_rows(door, call, select, &found.rows, |row| url(call, &found.job.id, &row.id)).await?;
    let write = |body, at, row: &TaskRow| show(Fields::after(body, select), call, &place, row, stats.get(at));
    Ok(shown(call, &paging, &found, |row| &row.id, write))
}

fn there<R>(job: &JobId, found: Result<Option<TaskPage<R>>, StoreError>) -> Result<TaskPage<R>, Refusal> {
    found.map_err(store_failed)?.ok_or_else(|| not_found(Code::JobNotFound, job))
}

/// A page as its list; `write` is told which row it is.
fn shown<R>(
    call: &Call,
    paging: &Paging,
    found: &TaskPage<R>,
    id: impl Fn(&R) -> &TaskId,
    write: impl Fn(Vec<u8>, usize, &R) -> Vec<u8>,
) -> Answer {
    let (rows, last) = paging.shown(&found.rows);
    let next = last.map(|row| id(row).as_str()).or(found.stopped_at.as_deref());
    lists::written(call, "tasks", rows.iter().enumerate(), |body, (at, row)| write(body, at, row), next)
}

/// One task.
pub async fn get(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let select = shape(call, PROPERTIES)?;
    let (job, row) = door.task(&call.job()?, &call.task()?).await?;
    if let Some(answer) = unchanged(&call.condition, row.version, row.modified_at)? {
        return Ok(answer);
    }
    let fields = Fields::new(select.as_ref()).always("odata.metadata", &format!("{}/$metadata#tasks/@Element", call.base));
    let url = url(call, &job.id, &row.id);
    let stats = stats::of_one(door, call, select.as_ref(), &row, &url).await?;
    Ok(Answer::json(show(fields, call, &Place::of(call, &job), &row, stats.as_ref())).changed(row.version, row.modified_at).about(&url))
}

/// Replaces a task's constraints; those left out go back to their defaults.
pub async fn update(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let (job, task) = (call.job()?, call.task()?);
    let constraints = task_body::constraints(&Object::root(&call.json()?))?;
    let url = url(call, &job, &task);
    let (version, at) = door.change(Command::UpdateTask(job, task, constraints, call.condition.clone())).await?;
    Ok(Answer::empty(200).changed(version, at).about(&url))
}

/// Runs a failed task again.
pub async fn reactivate(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let (job, task) = (call.job()?, call.task()?);
    let url = url(call, &job, &task);
    let (version, at) = door.change(Command::ReactivateTask(job, task, call.condition.clone())).await?;
    Ok(Answer::empty(204).changed(version, at).about(&url))
}

/// Ends a task.
pub async fn terminate(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let (job, task) = (call.job()?, call.task()?);
    let url = url(call, &job, &task);
    let (version, at) = door.change(Command::TerminateTask(job, task, call.condition.clone())).await?;
    Ok(Answer::empty(204).changed(version, at).about(&url))
}

/// Removes a task.
pub async fn delete(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    door.change(Command::DeleteTask(call.job()?, call.task()?, call.condition.clone())).await?;
    Ok(Answer::empty(200))
}

/// No task has subtasks.
pub async fn subtasks(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    shape(call, SUBTASK_PROPERTIES)?;
    door.task(&call.job()?, &call.task()?).await?;
    Ok(lists::list(call, "subtasks", std::iter::empty(), None))
}
