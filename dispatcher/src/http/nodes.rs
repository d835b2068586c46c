//! Nodes: list and get.

use broker_config::{
    ids::{NodeId, PoolId},
    message::{Outcome, StartTaskEnd},
};
use serde::Serialize;

use crate::{
    http::{
        answer::{Answer, Fields, Iso},
        call::Call,
        entrance::Door,
        error::{not_found, store_failed},
        filter::{NODES, compile},
        lists::{self, Paging, ROWS_MAX, shape},
        pools::{NameValue, details},
    },
    refusal::{Code, Refusal},
    store::rows::NodeRow,
};

#[rustfmt::skip]
const PROPERTIES: &[&str] = &[
    "id", "url", "state", "schedulingState", "stateTransitionTime", "lastBootTime", "allocationTime", "ipAddress", "ipv6Address",
    "affinityId", "vmSize", "totalTasksRun", "runningTasksCount", "runningTaskSlotsCount", "totalTasksSucceeded", "recentTasks",
    "startTask", "startTaskInfo", "certificateReferences", "errors", "isDedicated", "endpointConfiguration", "nodeAgentInfo",
    "virtualMachineInfo",
];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeError<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    error_details: Vec<NameValue<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AgentInfo<'a> {
    version: &'a str,
    last_update_time: Iso,
}

#[derive(Serialize)]
struct FailureInfo<'a> {
    category: &'static str,
    code: &'a str,
    message: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StartTaskInfo<'a> {
    state: &'static str,
    start_time: Iso,
    end_time: Iso,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_info: Option<FailureInfo<'a>>,
    retry_count: u32,
    result: &'static str,
}

fn start_task(end: &StartTaskEnd) -> StartTaskInfo<'_> {
    let failed = |category, code, message: String| Some(FailureInfo { category, code, message });
    let user = "usererror";
    let (exit_code, failure_info) = match &end.outcome {
        Outcome::Exit { code: 0 } => (Some(0), None),
        Outcome::Exit { code } => (Some(*code), failed(user, "FailureExitCode", format!("The start task exited with code {code}."))),
        Outcome::Signal { number } => (None, failed(user, "FailureExitCode", format!("Signal {number} ended the start task."))),
        Outcome::Timeout { limit_ms } => (None, failed(user, "TaskEnded", format!("The start task ran longer than {limit_ms} ms."))),
        Outcome::Stopped => (None, failed("servererror", "TaskEnded", "The start task was stopped.".to_owned())),
        Outcome::Staging(fault) | Outcome::Launch(fault) => (None, failed(user, fault.code.as_str(), fault.message.clone())),
        Outcome::Upload { code, fault } => (*code, failed(user, fault.code.as_str(), fault.message.clone())),
        Outcome::Node(fault) => (None, failed("servererror", fault.code.as_str(), fault.message.clone())),
    };
    StartTaskInfo {
        state: "completed",
        start_time: Iso(end.started_at),
        end_time: Iso(end.ended_at),
        exit_code,
        result: if failure_info.is_none() { "success" } else { "failure" },
        failure_info,
        retry_count: end.retries,
    }
}

fn show(fields: Fields<'_>, call: &Call, vm_size: Option<&str>, row: &NodeRow) -> Vec<u8> {
    let faults = row.faults.iter();
    let errors: Vec<_> =
        faults.map(|fault| NodeError { code: &fault.code, message: &fault.message, error_details: details(&fault.details) }).collect();
    let agent = row.agent_version.as_deref();
    fields
        .add("id", row.id.as_str())
        .add("url", &format!("{}/pools/{}/nodes/{}", call.base, row.pool, row.id))
        .add("state", row.state.as_str())
        .add("schedulingState", row.scheduling.as_str())
        .add("stateTransitionTime", &Iso(row.state_at))
        .add_some("lastBootTime", row.booted_at.map(Iso))
        .add("allocationTime", &Iso(row.allocated_at))
        .add_some("ipAddress", row.address.as_deref())
        .add("affinityId", row.id.as_str())
        .add_some("vmSize", vm_size)
        .add("totalTasksRun", &row.tasks_run)
        .add("runningTasksCount", &row.running_tasks)
        .add("runningTaskSlotsCount", &row.running_slots)
        .add("totalTasksSucceeded", &row.tasks_succeeded)
        .add_some("startTaskInfo", row.start_task.as_ref().map(start_task))
        .add_some("errors", Some(errors).filter(|errors| !errors.is_empty()))
        .add("isDedicated", &row.is_dedicated)
        .add_some(
            "nodeAgentInfo",
            agent.map(|version| AgentInfo { version, last_update_time: Iso(row.booted_at.unwrap_or(row.allocated_at)) }),
        )
        .finish()
}

fn vm_size(document: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Sized {
        vm_size: Option<String>,
    }
    serde_json::from_str::<Sized>(document).ok()?.vm_size
}

impl Door {
    /// A node's row; says whether the pool or the node is missing.
    pub async fn node(&self, pool: &PoolId, node: &NodeId) -> Result<NodeRow, Refusal> {
        match self.read.node(pool, node).await.map_err(store_failed)? {
            Some(row) => Ok(row),
            None => self.pool(pool).await.and_then(|_| Err(not_found(Code::NodeNotFound, node))),
        }
    }
}

/// One node.
pub async fn get(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let select = shape(call, PROPERTIES)?;
    let pool = door.pool(&call.pool()?).await?;
    let row = door.node(&pool.id, &call.node()?).await?;
    let fields = Fields::new(select.as_ref()).always("odata.metadata", &format!("{}/$metadata#nodes/@Element", call.base));
    Ok(Answer::json(show(fields, call, vm_size(&pool.document).as_deref(), &row)))
}

/// A page of a pool's nodes.
pub async fn list(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let select = shape(call, PROPERTIES)?;
    let paging = Paging::read(call, ROWS_MAX)?;
    let filter = compile(call.query.text("$filter")?, NODES)?;
    let pool = door.pool(&call.pool()?).await?;
    let rows = match paging.page(filter) {
        None => Vec::new(),
        Some(page) => door.read.nodes(&pool.id, page).await.map_err(store_failed)?,
    };
    let size = vm_size(&pool.document);
    let show = |row: &NodeRow| show(Fields::new(select.as_ref()), call, size.as_deref(), row);
    Ok(paging.answer(call, "nodes", &rows, |row| row.id.as_str(), show))
}

/// Nodes have no extensions.
pub async fn extensions(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    Paging::read(call, ROWS_MAX)?;
    door.node(&call.pool()?, &call.node()?).await?;
    Ok(lists::list(call, "extensions", std::iter::empty(), None))
}
