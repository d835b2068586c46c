//! Pools: add, list, get, change, delete, resize, remove nodes.

use broker_config::{ids::PoolId, state::AllocationState};
use serde::Serialize;

use crate::{
    command::{Command, etag},
    http::{
        answer::{Answer, Fields, Iso},
        call::Call,
        conditional::unchanged,
        entrance::Door,
        error::{not_found, store_failed},
        filter::{POOLS, compile},
        lists::{Paging, ROWS_MAX, shape},
        odata::Select,
        pool_body, pool_change, scaling,
        stats::{self, PoolStats},
        validate::Object,
        version::Kind,
    },
    refusal::{Code, Refusal},
    store::rows::PoolRow,
};

/// What `$select` may name.
#[rustfmt::skip]
const PROPERTIES: &[&str] = &[
    "id", "displayName", "url", "eTag", "lastModified", "creationTime", "state", "stateTransitionTime", "allocationState",
    "allocationStateTransitionTime", "vmSize", "cloudServiceConfiguration", "virtualMachineConfiguration", "resizeTimeout",
    "resizeErrors", "currentDedicatedNodes", "currentLowPriorityNodes", "targetDedicatedNodes", "targetLowPriorityNodes",
    "enableAutoScale", "autoScaleFormula", "autoScaleEvaluationInterval", "autoScaleRun", "enableInterNodeCommunication",
    "networkConfiguration", "startTask", "certificateReferences", "applicationPackageReferences", "applicationLicenses",
    "taskSlotsPerNode", "taskSchedulingPolicy", "userAccounts", "metadata", "stats", "mountConfiguration", "identity",
    "targetNodeCommunicationMode", "currentNodeCommunicationMode", "upgradePolicy", "resourceTags",
];

/// A name and its value, as Azure lists them.
#[derive(Serialize)]
pub struct NameValue<'a> {
    /// The name.
    pub name: &'a str,
    /// The value.
    pub value: &'a str,
}

/// Details of a fault.
pub fn details(pairs: &[(String, String)]) -> Vec<NameValue<'_>> {
    pairs.iter().map(|(name, value)| NameValue { name, value }).collect()
}

#[derive(Serialize)]
struct ResizeError<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    values: Vec<NameValue<'a>>,
}

fn url(call: &Call, pool: &PoolId) -> String {
    format!("{}/pools/{pool}", call.base)
}

fn show<'a>(fields: Fields<'a>, call: &'a Call, row: &PoolRow, stats: Option<&PoolStats>) -> Vec<u8> {
    // Azure's rule, and clients give up at the first error they see: a resize that goes on has none yet.
    let faults = row.resize_errors.iter().filter(|_| row.allocation == AllocationState::Steady);
    let errors: Vec<_> =
        faults.map(|fault| ResizeError { code: &fault.code, message: &fault.message, values: details(&fault.details) }).collect();
    fields
        .without(call.lacks(Kind::Pool))
        .add("id", row.id.as_str())
        .add("url", &url(call, &row.id))
        .add("eTag", &etag(row.version))
        .add("lastModified", &Iso(row.modified_at))
        .add("creationTime", &Iso(row.created_at))
        .add("state", row.state.as_str())
        .add("stateTransitionTime", &Iso(row.state_at))
        .add("allocationState", row.allocation.as_str())
        .add("allocationStateTransitionTime", &Iso(row.allocation_at))
        .add("resizeTimeout", &row.resize_timeout)
        .add_some("resizeErrors", Some(errors).filter(|errors| !errors.is_empty()))
        .add("currentDedicatedNodes", &row.current_dedicated)
        .add("currentLowPriorityNodes", &row.current_low_priority)
        .add("targetDedicatedNodes", &row.target_dedicated)
        .add("targetLowPriorityNodes", &row.target_low_priority)
        .add("taskSlotsPerNode", &row.slots_per_node)
        .add("maxTasksPerNode", &row.slots_per_node)
        .add("currentNodeCommunicationMode", "simplified")
        .add("enableAutoScale", &row.scaling.is_some())
        .add_some("autoScaleFormula", row.scaling.as_ref().map(|scaling| &scaling.formula))
        .add_some("autoScaleEvaluationInterval", row.scaling.as_ref().map(|scaling| scaling.interval))
        .add_some("autoScaleRun", row.scaling.as_ref().and_then(|scaling| scaling.run.as_ref()).map(scaling::shown))
        .add_some("stats", stats)
        .document(&row.document)
        .finish()
}

impl Door {
    /// A pool's row.
    pub async fn pool(&self, pool: &PoolId) -> Result<PoolRow, Refusal> {
        let row = self.read.pool(pool).await.map_err(store_failed)?;
        row.ok_or_else(|| not_found(Code::PoolNotFound, pool))
    }
}

/// Adds a pool.
pub async fn add(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let pool = pool_body::read(Object::root(&call.json()?))?;
    let url = url(call, &pool.id);
    let (version, at) = door.change(Command::CreatePool(Box::new(pool))).await?;
    Ok(Answer::empty(201).changed(version, at).created(&url))
}

/// A page of pools.
pub async fn list(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let select = shape(call, PROPERTIES)?;
    let paging = Paging::read(call, ROWS_MAX)?;
    let rows = match paging.page(compile(call.query.text("$filter")?, POOLS)?) {
        None => Vec::new(),
        Some(page) => door.read.pools(page).await.map_err(store_failed)?,
    };
    let stats = stats::of_rows(door, call, select.as_ref(), &rows, |row| url(call, &row.id)).await?;
    let show = |at: usize, row: &PoolRow| show(Fields::new(select.as_ref()), call, row, stats.get(at));
    Ok(paging.answer(call, "pools", &rows, |row| row.id.as_str(), show))
}

fn element<'a>(call: &Call, select: Option<&'a Select>) -> Fields<'a> {
    Fields::new(select).always("odata.metadata", &format!("{}/$metadata#pools/@Element", call.base))
}

/// One pool.
pub async fn get(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let select = shape(call, PROPERTIES)?;
    let row = door.pool(&call.pool()?).await?;
    if let Some(answer) = unchanged(&call.condition, row.version, row.modified_at)? {
        return Ok(answer);
    }
    let url = url(call, &row.id);
    let stats = stats::of_one(door, call, select.as_ref(), &row, &url).await?;
    let body = show(element(call, select.as_ref()), call, &row, stats.as_ref());
    Ok(Answer::json(body).changed(row.version, row.modified_at).about(&url))
}

/// Whether there is such a pool.
pub async fn exists(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let row = door.pool(&call.pool()?).await?;
    let answer = unchanged(&call.condition, row.version, row.modified_at)?.unwrap_or_else(|| Answer::empty(200));
    Ok(answer.changed(row.version, row.modified_at).about(&url(call, &row.id)))
}

async fn accepted(door: &Door, call: &Call, pool: PoolId, command: Command) -> Result<Answer, Refusal> {
    let (version, at) = door.change(command).await?;
    Ok(Answer::empty(202).changed(version, at).about(&url(call, &pool)))
}

/// Removes a pool.
pub async fn delete(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let pool = call.pool()?;
    let command = Command::DeletePool(pool.clone(), call.condition.clone());
    accepted(door, call, pool, command).await
}

/// Changes the properties that are named.
pub async fn patch(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let pool = call.pool()?;
    let change = pool_change::patch(Object::root(&call.json()?))?;
    let (version, at) = door.change(Command::UpdatePool(pool.clone(), Box::new(change), call.condition.clone())).await?;
    Ok(Answer::empty(200).changed(version, at).about(&url(call, &pool)))
}

/// Replaces the properties that can always change.
pub async fn update_properties(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let pool = call.pool()?;
    let change = pool_change::replacement(Object::root(&call.json()?))?;
    let (version, at) = door.change(Command::UpdatePool(pool.clone(), Box::new(change), call.condition.clone())).await?;
    Ok(Answer::empty(204).changed(version, at).about(&url(call, &pool)))
}

/// Changes how many nodes a pool has.
pub async fn resize(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let pool = call.pool()?;
    let asked = pool_body::resize(Object::root(&call.json()?))?;
    let command = Command::ResizePool {
        pool: pool.clone(),
        dedicated: asked.dedicated,
        low_priority: asked.low_priority,
        timeout: asked.timeout,
        option: asked.option,
        condition: call.condition.clone(),
    };
    accepted(door, call, pool, command).await
}

/// Ends a resize where it is.
pub async fn stop_resize(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let pool = call.pool()?;
    let command = Command::StopResize(pool.clone(), call.condition.clone());
    accepted(door, call, pool, command).await
}

/// Removes nodes.
pub async fn remove_nodes(door: &Door, call: &Call) -> Result<Answer, Refusal> {
    let pool = call.pool()?;
    let (nodes, option) = pool_body::removal(Object::root(&call.json()?))?;
    let command = Command::RemoveNodes { pool: pool.clone(), nodes, option, condition: call.condition.clone() };
    accepted(door, call, pool, command).await
}
