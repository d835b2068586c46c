//! Nodes: list and get.

use std::time::Duration;

use broker_config::ids::{JobId, NodeId, PoolId};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    command::Command,
    http::{
        answer::{Answer, Fields, Iso, Text},
        call::Call,
        entrance::Door,
        error::{not_found, store_failed},
        filter::{NODES, compile},
        lists::{self, Paging, ROWS_MAX, shape},
        odata::Select,
        pools::{NameValue, details},
        start_tasks, tasks,
        version::Kind,
    },
    refusal::{Code, Refusal},
    store::rows::{NodeRow, TaskRow},
};

/// A reader waits no longer for what nodes did last.
const SIGHT_MAX: Duration = Duration::from_secs(1);

#[rustfmt::skip]
const PROPERTIES: &[&str] = &[
    "id", "url", "state", "schedulingState", "stateTransitionTime", "lastBootTime", "allocationTime", "ipAddress", "ipv6Address",
    "affinityId", "vmSize", "totalTasksRun", "runningTasksCount", "runningTaskSlotsCount", "totalTasksSucceeded", "recentTasks",
    "startTask", "startTaskInfo", "certificateReferences", "errors", "isDedicated", "endpointConfiguration", "nodeAgentInfo",
    "virtualMachineInfo",
];

const EXTENSION_PROPERTIES: &[&str] = &["provisioningState", "vmExtension", "instanceView"];

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
#[serde(rename_all = "camelCase")]
struct RecentTask<'a> {
    task_url: String,
    job_id: &'a str,
    task_id: &'a str,
    task_state: &'static str,
    execution_info: tasks::ExecutionInfo<'a>,
}

type Recent = Vec<(JobId, TaskRow)>;

fn recent<'a>(call: &Call, rows: &'a [(JobId, TaskRow)]) -> Vec<RecentTask<'a>> {
    let shown = rows.iter().rev().map(|(job, row)| RecentTask {
        task_url: tasks::url(call, job, &row.id),
        job_id: job.as_str(),
        task_id: row.id.as_str(),
        task_state: row.state.as_str(),
        execution_info: tasks::execution(row),
    });
    shown.collect()
}

fn show<'a>(fields: Fields<'a>, call: &'a Call, machine: &Machine, row: &NodeRow, tasks: &[(JobId, TaskRow)]) -> Vec<u8> {
    let faults = row.faults.iter();
    let errors: Vec<_> =
        faults.map(|fault| NodeError { code: &fault.code, message: &fault.message, error_details: details(&fault.details) }).collect();
    let agent = row.agent_version.as_deref();
    fields
        .without(call.lacks(Kind::Node))
        .add("id", row.id.as_str())
        .add("url", &format!("{}/pools/{}/nodes/{}", call.base, row.pool, row.id))
        .add("state", row.state.as_str())
        .add("schedulingState", row.scheduling.as_str())
        .add("stateTransitionTime", &Iso(row.state_at))
        .add_some("lastBootTime", row.booted_at.map(Iso))
        .add("allocationTime", &Iso(row.allocated_at))
        .add_some("ipAddress", row.address.as_deref())
        .add("affinityId", &Text(format_args!("TVM:{}", row.id)))
        .add_some("vmSize", machine.vm_size.as_deref())
        .add("totalTasksRun", &row.tasks_run)
        .add("runningTasksCount", &row.running_tasks)
        .add("runningTaskSlotsCount", &row.running_slots)
        .add("totalTasksSucceeded", &row.tasks_succeeded)
        .add_some("recentTasks", Some(recent(call, tasks)).filter(|tasks| !tasks.is_empty()))
        .add_some("startTask", row.booted_with.as_ref())
        .add_some("startTaskInfo", start_tasks::info(row))
        .add_some("errors", Some(errors).filter(|errors| !errors.is_empty()))
        .add("isDedicated", &row.is_dedicated)
        .add_some(
            "nodeAgentInfo",
            agent.map(|version| AgentInfo { version, last_update_time: Iso(row.booted_at.unwrap_or(row.allocated_at)) }),
        )
        .add_some(
            "virtualMachineInfo",
            machine.virtual_machine_configuration.image_reference.as_ref().map(|image| json!({"imageReference": image})),
        )
        .finish()
}

/// What a pool's document says of its nodes.
#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Machine {
    vm_size: Option<String>,
    virtual_machine_configuration: MachineConfiguration,
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MachineConfiguration {
    image_reference: Option<Value>,
}

fn machine(document: &str) -> Machine {
    serde_json::from_str(document).unwrap_or_else(|error| {
        tracing::warn!(%error, "a pool's document cannot be read");
        Machine::default()
    })
}

impl Door {
    /// A node's row; says whether the pool or the node is missing.
    pub async fn node(&self, pool: &PoolId, node: &NodeId) -> Result<NodeRow, Refusal> {
        match self.read.node(pool, node).await.map_err(store_failed)? {
            Some(row) => Ok(row),
            None => self.pool(pool).await.and_then(|_| Err(not_found(Code::NodeNotFound, node))),
        }
    }

    /// Lets the nodes of pools be read as they are in this moment.
    pub async fn see_nodes(&self, pools: Vec<PoolId>) {
        // A busy engine keeps no reader: what was written last is a second old.
        match timeout(SIGHT_MAX, self.change(Command::WriteNodes(pools))).await {
            Ok(Ok(_)) => {}
            Ok(Err(refusal)) => tracing::debug!(code = refusal.code.as_str(), "nodes are read as they were written last"),
            Err(_) => tracing::debug!("nodes are read as they were written last: the engine is busy"),
        }
    }

    /// The last tasks of a node, when they are asked for.
    async fn recent(&self, row: &NodeRow, select: Option<&Select>) -> Result<Recent, Refusal> {
        if row.recent.is_empty() || !select.is_none_or(|select| select.has("recentTasks")) {
            return Ok(Vec::new());
        }
        self.read.tasks_by_number(row.recent.clone()).await.map_err(store_failed)
    }
}

/// One node.
pub async fn get(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let select = shape(call, PROPERTIES)?;
    let pool = door.pool(&call.pool()?).await?;
    door.see_nodes(vec![pool.id.clone()]).await;
    let row = door.node(&pool.id, &call.node()?).await?;
    let fields = Fields::new(select.as_ref()).always("odata.metadata", &format!("{}/$metadata#nodes/@Element", call.base));
    let recent = door.recent(&row, select.as_ref()).await?;
    Ok(Answer::json(show(fields, call, &machine(&pool.document), &row, &recent)))
}

/// A page of a pool's nodes.
pub async fn list(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let select = shape(call, PROPERTIES)?;
    let paging = Paging::read(call, ROWS_MAX)?;
    let filter = compile(call.query.text("$filter")?, NODES)?;
    let pool = door.pool(&call.pool()?).await?;
    door.see_nodes(vec![pool.id.clone()]).await;
    let rows = match paging.page(filter) {
        None => Vec::new(),
        Some(page) => door.read.nodes(&pool.id, page).await.map_err(store_failed)?,
    };
    let machine = machine(&pool.document);
    let mut shown = Vec::with_capacity(rows.len());
    for row in rows {
        let recent = door.recent(&row, select.as_ref()).await?;
        shown.push((row, recent));
    }
    let show = |(row, recent): &(NodeRow, Recent)| show(Fields::new(select.as_ref()), call, &machine, row, recent);
    Ok(paging.answer(call, "nodes", &shown, |(row, _)| row.id.as_str(), |_, row| show(row)))
}

/// Nodes have no extensions.
pub async fn extensions(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    Paging::read(call, ROWS_MAX)?;
    shape(call, EXTENSION_PROPERTIES)?;
    door.node(&call.pool()?, &call.node()?).await?;
    Ok(lists::list(call, "extensions", std::iter::empty(), None))
}
