//! Nodes: list and get.

pub mod actions;
pub mod files;
pub mod place;
pub mod start_task;

use contract::ids::{JobId, NodeId, PoolId};
use model::{
    node::NodeActivity,
    refusal::{Code, Refusal},
};
use serde::Serialize;
use serde_json::{Value, json};
use store::rows::{NodeRow, PoolRow, TaskRow};

use crate::{
    answer::{Answer, Fields, Iso, NameValue, Text, details},
    call::Call,
    error::{not_found, store_failed},
    filter::compile,
    lists::{self, Paging, ROWS_MAX, shape},
    odata::Select,
    resource::{self, Resource},
    state::ApiState,
    tasks,
};

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

/// The last tasks of a node, with their jobs.
pub type Recent = Vec<(JobId, TaskRow)>;

fn recent<'a>(base: &str, rows: &'a [(JobId, TaskRow)]) -> Vec<RecentTask<'a>> {
    let shown = rows.iter().rev().map(|(job, row)| RecentTask {
        task_url: tasks::url(base, job, &row.id),
        job_id: job.as_str(),
        task_id: row.id.as_str(),
        task_state: row.state.as_str(),
        execution_info: tasks::execution(row),
    });
    shown.collect()
}

/// Facts that all nodes of an answer share.
pub struct Place {
    /// Base URL of the API.
    base: String,
    machine: Machine,
}

impl Place {
    fn of(call: &Call, pool: &PoolRow) -> Place {
        Place { base: call.base.clone(), machine: machine(&pool.document) }
    }
}

impl Resource for NodeRow {
    const SHAPE: &'static str = "ComputeNode";
    const KIND: &'static str = "nodes";
    type Place = Place;
    /// The last tasks.
    type Extra = Recent;

    fn token(&self) -> String {
        self.id.to_string()
    }

    fn url(&self, place: &Place) -> String {
        format!("{}/pools/{}/nodes/{}", place.base, self.pool, self.id)
    }

    async fn extras(api: &ApiState, _: &Call, select: Option<&Select>, _: &Place, rows: &[Self]) -> Result<Vec<Recent>, Refusal> {
        let mut extras = Vec::with_capacity(rows.len());
        for row in rows {
            extras.push(api.recent(row, select).await?);
        }
        Ok(extras)
    }

    fn show<'a>(&self, fields: Fields<'a>, place: &Place, tasks: Option<&Recent>) -> Fields<'a> {
        let faults = self.faults.iter();
        let errors: Vec<_> =
            faults.map(|fault| NodeError { code: &fault.code, message: &fault.message, error_details: details(&fault.details) }).collect();
        let agent = self.properties.agent_version.as_deref();
        fields
            .add("id", self.id.as_str())
            .add("url", &self.url(place))
            .add("state", self.state.as_str())
            .add("schedulingState", self.scheduling.as_str())
            .add("stateTransitionTime", &Iso(self.state_at))
            .add_some("lastBootTime", self.booted_at.map(Iso))
            .add("allocationTime", &Iso(self.allocated_at))
            .plain(&self.properties)
            .add("affinityId", &Text(format_args!("TVM:{}", self.id)))
            .add_some("vmSize", place.machine.vm_size.as_deref())
            .add("totalTasksRun", &self.tasks_run)
            .add("runningTasksCount", &self.running_tasks)
            .add("runningTaskSlotsCount", &self.running_slots)
            .add("totalTasksSucceeded", &self.tasks_succeeded)
            .add_some("recentTasks", Some(recent(&place.base, tasks.map_or(&[], Vec::as_slice))).filter(|tasks| !tasks.is_empty()))
            .add_some("startTask", self.booted_with.as_ref())
            .add_some("startTaskInfo", start_task::info(self))
            .add_some("errors", Some(errors).filter(|errors| !errors.is_empty()))
            .add("isDedicated", &self.is_dedicated)
            .add_some(
                "nodeAgentInfo",
                agent.map(|version| AgentInfo { version, last_update_time: Iso(self.booted_at.unwrap_or(self.allocated_at)) }),
            )
            .add_some(
                "virtualMachineInfo",
                place.machine.virtual_machine_configuration.image_reference.as_ref().map(|image| json!({"imageReference": image})),
            )
    }
}

/// Properties of a pool's document that its nodes show.
#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Machine {
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

impl ApiState {
    /// A node's row, hardly older than a second; the error says whether the pool or the node is missing.
    pub async fn node(&self, pool: &PoolId, node: &NodeId) -> Result<NodeRow, Refusal> {
        self.active_node(pool, node, &[]).await
    }

    async fn active_node(&self, pool: &PoolId, node: &NodeId, active: &[NodeActivity]) -> Result<NodeRow, Refusal> {
        match self.read.node(pool, node, active).await.map_err(store_failed)? {
            Some(row) => Ok(row),
            None => self.pool(pool).await.and_then(|_| Err(not_found(Code::NodeNotFound, node))),
        }
    }

    /// Activity of the pool's nodes that is newer than their rows, which are written once a second at most.
    pub async fn activity(&self, pool: &PoolId) -> Vec<NodeActivity> {
        self.engine.node_activity(vec![pool.clone()]).await.remove(pool).unwrap_or_default()
    }

    /// The last tasks of a node, when they were selected.
    async fn recent(&self, row: &NodeRow, select: Option<&Select>) -> Result<Recent, Refusal> {
        if row.recent.is_empty() || !select.is_none_or(|select| select.has("recentTasks")) {
            return Ok(Vec::new());
        }
        self.read.tasks_by_number(row.recent.clone()).await.map_err(store_failed)
    }
}

/// Handles `GET /pools/{pool}/nodes/{node}`.
pub async fn get(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let found = async {
        let pool = api.pool(&call.pool()?).await?;
        let active = api.activity(&pool.id).await;
        let row = api.active_node(&pool.id, &call.node()?, &active).await?;
        Ok((Place::of(call, &pool), row))
    };
    resource::get(api, call, found).await
}

/// A page of a pool's nodes.
pub async fn list(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let filter = compile(call, NodeRow::SHAPE)?;
    let pool = api.pool(&call.pool()?).await?;
    let active = api.activity(&pool.id).await;
    resource::list(api, call, filter, Place::of(call, &pool), |page| api.read.nodes(&pool.id, page, &active)).await
}

/// Extensions of a node: always empty.
pub async fn extensions(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    Paging::read(call, ROWS_MAX)?;
    shape(call, "NodeVMExtension")?;
    api.node(&call.pool()?, &call.node()?).await?;
    Ok(lists::list(call, "extensions", std::iter::empty(), None))
}
