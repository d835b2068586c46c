//! Pools: add, list, get, change, delete, resize, remove nodes.

pub mod body;
pub mod change;
pub mod machine;
pub mod network;
pub mod parts;
pub mod scale_run;
pub mod scaling;
pub mod scaling_body;
pub mod usage;

use contract::{ids::PoolId, state::AllocationState, time::Timestamp};
use engine::command::Command;
use model::{
    condition::etag,
    refusal::{Code, Refusal},
};
use serde::Serialize;
use store::rows::PoolRow;

use crate::{
    answer::{Answer, Fields, Iso, NameValue, details},
    call::Call,
    error::{not_found, store_failed},
    filter::compile,
    odata::Select,
    pools::body::Removal,
    resource::{self, Resource},
    state::ApiState,
    stats::{self, PoolStats},
};

#[derive(Serialize)]
struct ResizeError<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    values: Vec<NameValue<'a>>,
}

fn url(base: &str, pool: &PoolId) -> String {
    format!("{base}/pools/{pool}")
}

impl Resource for PoolRow {
    const SHAPE: &'static str = "CloudPool";
    const KIND: &'static str = "pools";
    /// Base URL of the API.
    type Place = String;
    type Extra = PoolStats;

    fn token(&self) -> String {
        self.id.to_string()
    }

    fn stamp(&self) -> Option<(u64, Timestamp)> {
        Some((self.version, self.modified_at))
    }

    fn url(&self, base: &String) -> String {
        url(base, &self.id)
    }

    async fn extras(api: &ApiState, call: &Call, select: Option<&Select>, base: &String, rows: &[Self]) -> Result<Vec<PoolStats>, Refusal> {
        stats::of(api, call, select, rows, |row| row.url(base)).await
    }

    fn show<'a>(&self, fields: Fields<'a>, base: &String, stats: Option<&PoolStats>) -> Fields<'a> {
        // As in Azure, a running resize shows no errors: clients give up at the first one they see.
        let faults = self.resize_errors.iter().filter(|_| self.allocation == AllocationState::Steady);
        let errors: Vec<_> =
            faults.map(|fault| ResizeError { code: &fault.code, message: &fault.message, values: details(&fault.details) }).collect();
        fields
            .add("id", self.id.as_str())
            .add("url", &self.url(base))
            .add("eTag", &etag(self.version))
            .add("lastModified", &Iso(self.modified_at))
            .add("creationTime", &Iso(self.created_at))
            .add("state", self.state.as_str())
            .add("stateTransitionTime", &Iso(self.state_at))
            .add("allocationState", self.allocation.as_str())
            .add("allocationStateTransitionTime", &Iso(self.allocation_at))
            .plain(&self.settings)
            .add_some("resizeErrors", Some(errors).filter(|errors| !errors.is_empty()))
            .add("currentDedicatedNodes", &self.current_dedicated)
            .add("currentLowPriorityNodes", &self.current_low_priority)
            .add("targetDedicatedNodes", &self.target_dedicated)
            .add("targetLowPriorityNodes", &self.target_low_priority)
            .add("taskSlotsPerNode", &self.slots_per_node)
            .add("maxTasksPerNode", &self.slots_per_node)
            .add("currentNodeCommunicationMode", "simplified")
            .add("enableAutoScale", &self.scaling.is_some())
            .add_some("autoScaleFormula", self.scaling.as_ref().map(|scaling| &scaling.formula))
            .add_some("autoScaleEvaluationInterval", self.scaling.as_ref().map(|scaling| scaling.interval))
            .add_some("autoScaleRun", self.scaling.as_ref().and_then(|scaling| scaling.run.as_ref()).map(scale_run::shown))
            .add_some("stats", stats)
            .document(&self.document)
    }
}

impl ApiState {
    /// A pool's row; the refusal when it does not exist.
    pub async fn pool(&self, pool: &PoolId) -> Result<PoolRow, Refusal> {
        let row = self.read.pool(pool).await.map_err(store_failed)?;
        row.ok_or_else(|| not_found(Code::PoolNotFound, pool))
    }
}

/// Adds a pool.
pub async fn add(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let pool = body::read(call.json()?.root())?;
    let url = url(&call.base, &pool.id);
    let (version, at) = api.change(Command::CreatePool(Box::new(pool))).await?;
    Ok(Answer::empty(201).changed(version, at).created(&url))
}

/// A page of pools.
pub async fn list(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    resource::list(api, call, compile(call, PoolRow::SHAPE)?, call.base.clone(), |page| api.read.pools(page)).await
}

/// Handles `GET /pools/{id}`.
pub async fn get(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    resource::get(api, call, async { Ok((call.base.clone(), api.pool(&call.pool()?).await?)) }).await
}

/// Whether there is such a pool.
pub async fn exists(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    resource::exists(call, &call.base, &api.pool(&call.pool()?).await?)
}

async fn accepted(api: &ApiState, call: &Call, pool: PoolId, command: Command) -> Result<Answer, Refusal> {
    let (version, at) = api.change(command).await?;
    Ok(Answer::empty(202).changed(version, at).about(&url(&call.base, &pool)))
}

/// Removes a pool.
pub async fn delete(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let pool = call.pool()?;
    let command = Command::DeletePool(pool.clone(), call.condition.clone());
    accepted(api, call, pool, command).await
}

/// Changes the properties that are named.
pub async fn patch(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let pool = call.pool()?;
    let change = change::patch(call.json()?.root())?;
    let (version, at) = api.change(Command::UpdatePool(pool.clone(), Box::new(change), call.condition.clone())).await?;
    Ok(Answer::empty(200).changed(version, at).about(&url(&call.base, &pool)))
}

/// Replaces the properties that can always change.
pub async fn update_properties(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let pool = call.pool()?;
    let change = change::replacement(call.json()?.root())?;
    let (version, at) = api.change(Command::UpdatePool(pool.clone(), Box::new(change), call.condition.clone())).await?;
    Ok(Answer::empty(204).changed(version, at).about(&url(&call.base, &pool)))
}

/// Changes the target number of nodes.
pub async fn resize(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let pool = call.pool()?;
    let asked = body::resize(call.json()?.root())?;
    let command = Command::ResizePool {
        pool: pool.clone(),
        dedicated: asked.dedicated,
        low_priority: asked.low_priority,
        timeout: asked.timeout,
        option: asked.option,
        condition: call.condition.clone(),
    };
    accepted(api, call, pool, command).await
}

/// Stops a resize: the targets become the present numbers.
pub async fn stop_resize(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let pool = call.pool()?;
    let command = Command::StopResize(pool.clone(), call.condition.clone());
    accepted(api, call, pool, command).await
}

/// Removes nodes.
pub async fn remove_nodes(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let pool = call.pool()?;
    let Removal { nodes, option, timeout } = body::removal(call.json()?.root());
    let command = Command::RemoveNodes { pool: pool.clone(), nodes, option, timeout, condition: call.condition.clone() };
    accepted(api, call, pool, command).await
}
