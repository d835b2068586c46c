//! Requests about pools, jobs and tasks that `run`, `map`, `demo` and `bench` share.

use std::time::{Duration, Instant};

use contract::ids::PoolId;
use futures::{StreamExt, TryStreamExt, stream};
use rand::RngExt;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    client::{Client, ClientError, path},
    exit_codes::{FAILED, Failure},
};

/// Period of the polls of one resource.
pub(crate) const POLL_PERIOD: Duration = Duration::from_millis(50);
/// Period of the polls of a job's counts.
pub(crate) const COUNTS_POLL_PERIOD: Duration = Duration::from_millis(200);
/// Longest wait for a deletion; the server completes it anyway.
const GONE_MAX: Duration = Duration::from_secs(20);
/// Tasks of one request, as Azure has it.
const TASKS_PER_REQUEST: usize = 100;
/// Requests that add tasks at the same time.
const ADDING_MAX: usize = 4;
/// A collection whose tasks the server could not take just now is sent again this often.
const RESENDS_MAX: usize = 20;

/// A task as the API shows it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Task {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) state: String,
    pub(crate) creation_time: Option<String>,
    #[serde(default)]
    pub(crate) execution_info: ExecutionInfo,
}

/// The execution of a task.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ExecutionInfo {
    pub(crate) start_time: Option<String>,
    pub(crate) end_time: Option<String>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) result: Option<String>,
    pub(crate) failure_info: Option<FailureInfo>,
}

/// Why a task failed.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct FailureInfo {
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
}

impl Task {
    pub(crate) fn is_completed(&self) -> bool {
        self.state == "completed"
    }

    pub(crate) fn has_succeeded(&self) -> bool {
        self.execution_info.result.as_deref() == Some("success")
    }

    /// The failure in words.
    pub(crate) fn reason(&self) -> String {
        let info = &self.execution_info;
        match (&info.failure_info, info.exit_code) {
            (Some(FailureInfo { code: Some(code), .. }), Some(exit)) if code == "FailureExitCode" => format!("exit code {exit}"),
            (Some(FailureInfo { code, message }), _) => {
                let (code, message) = (code.as_deref().unwrap_or("failed"), message.as_deref().unwrap_or_default());
                format!("{} ({code})", message.lines().next().unwrap_or_default())
            }
            (None, Some(exit)) => format!("exit code {exit}"),
            (None, None) => "failed".to_owned(),
        }
    }
}

/// Numbers of a job's tasks by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Counts {
    pub(crate) active: u64,
    pub(crate) running: u64,
    pub(crate) completed: u64,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CountsAnswer {
    task_counts: Counts,
}

/// A pool to be created.
pub(crate) struct PoolShape {
    pub(crate) slots: u32,
    pub(crate) nodes: u32,
    pub(crate) policy: Option<Value>,
}

/// Processors of this machine.
pub(crate) fn processors() -> u32 {
    std::thread::available_parallelism().map_or(1, |count| count.get() as u32)
}

/// Deletes a resource and waits until it is gone, for `GONE_MAX` at most; a resource that does not exist is no error.
pub(crate) async fn remove(client: &Client, target: &str) -> Result<(), ClientError> {
    match client.delete(target).await {
        Err(error) if error.is_not_found() => return Ok(()),
        // The deletion is under way already.
        Err(error) if error.exit_code() == crate::exit_codes::CONFLICT => {}
        other => other?,
    }
    let until = Instant::now() + GONE_MAX;
    loop {
        match client.get::<Value>(target, &[]).await {
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
            Ok(_) if Instant::now() > until => {
                tracing::warn!(what = target, "a deletion takes longer than {GONE_MAX:?}; the server completes it");
                return Ok(());
            }
            Ok(_) => tokio::time::sleep(POLL_PERIOD).await,
        }
    }
}

/// A policy that follows the queue.
pub(crate) fn policy(min_nodes: u32, max_nodes: u32, idle_ms: u64) -> Value {
    json!({ "minNodes": min_nodes, "maxNodes": max_nodes, "reactMs": 0, "idleMs": idle_ms, "deallocation": "taskcompletion" })
}

pub(crate) fn task_path(job: &str, task: &str) -> String {
    path(&["jobs", job, "tasks", task])
}

/// A name that was not used before.
pub(crate) fn new_name(kind: &str) -> String {
    format!("{kind}-{:012x}", rand::rng().random::<u64>() >> 16)
}

/// Creates a pool of the provider's default machines.
pub(crate) async fn create_pool(client: &Client, pool: &PoolId, shape: &PoolShape) -> Result<(), ClientError> {
    let body = json!({
        "id": pool,
        "vmSize": "piecework.local",
        "virtualMachineConfiguration": {
            "imageReference": { "publisher": "piecework", "offer": "host", "sku": "linux" },
            "nodeAgentSKUId": "piecework.linux",
        },
        "targetDedicatedNodes": shape.nodes,
        "taskSlotsPerNode": shape.slots,
    });
    client.post("/pools", Some(&body)).await?;
    if let Some(policy) = &shape.policy {
        let put = client.put(&path(&["piecework", "pools", pool.as_str(), "policy"]), policy).await;
        if let Err(refused) = put {
            // A pool that was asked for with its policy is not made without it.
            client.delete(&path(&["pools", pool.as_str()])).await?;
            return Err(refused);
        }
    }
    Ok(())
}

/// The pool, created with this shape unless it exists.
pub(crate) async fn ensure_pool(client: &Client, pool: &PoolId, shape: &PoolShape) -> Result<(), ClientError> {
    match create_pool(client, pool, shape).await {
        Err(error) if error.is("PoolExists") => Ok(()),
        result => result,
    }
}

/// The pool that `run` and `map` use when none is named.
pub(crate) fn default_pool(slots: Option<u32>) -> PoolShape {
    PoolShape { slots: slots.unwrap_or_else(processors).clamp(1, 256), nodes: 0, policy: Some(policy(0, 1, 60_000)) }
}

/// Creates a job on a pool.
pub(crate) async fn create_job(client: &Client, job: &str, pool: &PoolId, parallel: Option<u32>) -> Result<(), ClientError> {
    let mut body = json!({ "id": job, "poolInfo": { "poolId": pool }, "usesTaskDependencies": true });
    if let Some(parallel) = parallel {
        body["maxParallelTasks"] = json!(parallel);
    }
    client.post("/jobs", Some(&body)).await.map(drop)
}

#[derive(Deserialize)]
struct AddAnswer {
    value: Vec<AddResult>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AddResult {
    status: String,
    task_id: String,
    error: Option<AddError>,
}

#[derive(Deserialize)]
struct AddError {
    code: String,
    #[serde(default)]
    message: AddMessage,
    #[serde(default)]
    values: Vec<AddValue>,
}

#[derive(Default, Deserialize)]
struct AddMessage {
    value: String,
}

#[derive(Deserialize)]
struct AddValue {
    key: String,
    value: String,
}

impl AddError {
    fn text(&self) -> String {
        let values: String = self.values.iter().map(|AddValue { key, value }| format!(", {key}: {value}")).collect();
        format!("{}{values} ({})", self.message.value.lines().next().unwrap_or_default(), self.code)
    }
}

/// A task that the server refused for good.
pub(crate) struct RefusedTask {
    pub(crate) id: String,
    pub(crate) reason: String,
}

/// Adds tasks to a job, a hundred to a request; one that is refused is an error.
pub(crate) async fn add_tasks(client: &Client, job: &str, tasks: Vec<Value>) -> anyhow::Result<()> {
    match offer_tasks(client, job, tasks).await?.into_iter().next() {
        None => Ok(()),
        Some(RefusedTask { id, reason }) => {
            Err(Failure::new(crate::exit_codes::REFUSED, format!("task {id} was refused: {reason}"), "").into())
        }
    }
}

/// Adds tasks to a job, a hundred to a request; returns those that are refused.
pub(crate) async fn offer_tasks(client: &Client, job: &str, tasks: Vec<Value>) -> anyhow::Result<Vec<RefusedTask>> {
    let chunks: Vec<Vec<Value>> = tasks.chunks(TASKS_PER_REQUEST).map(<[Value]>::to_vec).collect();
    let adding = stream::iter(chunks).map(|chunk| add_chunk(client, job, chunk)).buffer_unordered(ADDING_MAX);
    Ok(adding.try_collect::<Vec<_>>().await?.into_iter().flatten().collect())
}

async fn add_chunk(client: &Client, job: &str, mut chunk: Vec<Value>) -> anyhow::Result<Vec<RefusedTask>> {
    let target = path(&["jobs", job, "addtaskcollection"]);
    let mut refused = vec![];
    for _ in 0..RESENDS_MAX {
        let answer = client.post(&target, Some(&json!({ "value": chunk }))).await?;
        let answer: AddAnswer = serde_json::from_slice(&answer)?;
        let mut again = vec![];
        for result in answer.value {
            match (result.status.as_str(), &result.error) {
                ("success", _) => {}
                (_, Some(error)) if error.code == "TaskExists" => {}
                ("servererror", _) => again.push(result.task_id),
                (_, error) => {
                    let reason = error.as_ref().map_or_else(|| "no reason given".to_owned(), AddError::text);
                    refused.push(RefusedTask { id: result.task_id, reason });
                }
            }
        }
        if again.is_empty() {
            return Ok(refused);
        }
        chunk.retain(|task| task["id"].as_str().is_some_and(|id| again.iter().any(|other| other == id)));
        tokio::time::sleep(COUNTS_POLL_PERIOD).await;
    }
    Err(Failure::new(FAILED, format!("the server did not take {} tasks in {RESENDS_MAX} tries", chunk.len()), "look at its log").into())
}

/// Numbers of a job's tasks by state.
pub(crate) async fn counts(client: &Client, job: &str) -> Result<Counts, ClientError> {
    let answer: CountsAnswer = client.get(&path(&["jobs", job, "taskcounts"]), &[]).await?;
    Ok(answer.task_counts)
}

/// Waits until no task of a job waits or runs.
pub(crate) async fn wait(client: &Client, job: &str) -> Result<Counts, ClientError> {
    loop {
        let counts = counts(client, job).await?;
        if counts.active + counts.running == 0 {
            return Ok(counts);
        }
        tokio::time::sleep(COUNTS_POLL_PERIOD).await;
    }
}

/// All tasks of a job that have ended.
pub(crate) async fn completed(client: &Client, job: &str) -> Result<Vec<Task>, ClientError> {
    let query = [("$filter", "state eq 'completed'"), ("$select", "id,state,executionInfo,creationTime")];
    client.list(&path(&["jobs", job, "tasks"]), &query).await
}
