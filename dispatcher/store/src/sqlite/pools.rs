//! Rows of pools and nodes, as the engine writes and loads them.

use contract::{
    ids::{Epoch, NodeId, PoolId},
    state::{AllocationState, DeallocationOption, NodeState, PoolState, SchedulingState},
    time::Timestamp,
};
use model::{
    health::Unreadable,
    node::NodeProperties,
    pool::{JobOrder, PoolSettings},
};
use rand::RngExt;
use rusqlite::{Connection, Row, params};

use crate::{
    StoreError,
    records::{NodeRecord, PoolRecord},
    sqlite::cells::{self, Cells},
};

/// Epoch of a node whose stored one cannot be read; no agent has it.
const UNKNOWN_EPOCH: u64 = 1 << 40;

/// The columns of a pool's plain properties, which [`settings`] reads.
macro_rules! settings_columns {
    () => {
        "resize_timeout_ms"
    };
}
pub(super) use settings_columns;

/// The columns of a node's plain properties, which [`node_properties`] reads.
macro_rules! node_properties_columns {
    () => {
        "address, agent_version, cores"
    };
}
pub(super) use node_properties_columns;

const PUT_POOL: &str = "
INSERT INTO pools (id, version, state, state_at, allocation, allocation_at, target_dedicated, target_low_priority,
    resize_timeout_ms, deallocation, resize_errors, slots_per_node, fill, start_task, policy, decision, next_node,
    created_at, modified_at, document, job_order, scaling, packages)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, COALESCE(?20, '{}'), ?21, ?22, ?23)
ON CONFLICT (id) DO UPDATE SET version = ?2, state = ?3, state_at = ?4, allocation = ?5, allocation_at = ?6,
    target_dedicated = ?7, target_low_priority = ?8, resize_timeout_ms = ?9, deallocation = ?10, resize_errors = ?11,
    slots_per_node = ?12, fill = ?13, start_task = ?14, policy = ?15, decision = ?16, next_node = ?17,
    created_at = ?18, modified_at = ?19, document = COALESCE(?20, document), job_order = ?21, scaling = ?22, packages = ?23";

const PUT_NODE: &str = "
INSERT OR REPLACE INTO nodes (pool, id, token, epoch, state, state_at, scheduling, drain, is_drained, address, allocated_at,
    booted_at, is_dedicated, rank, tasks_run, tasks_succeeded, start_task, faults, agent_version, turn, recent, booted_with,
    cores)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23)";

/// All pools, with the columns that [`pool`] reads.
pub(super) const POOLS: &str = "
SELECT id, version, state, state_at, allocation, allocation_at, target_dedicated, target_low_priority, resize_timeout_ms,
    deallocation, resize_errors, slots_per_node, fill, start_task, policy, decision, next_node, created_at, modified_at,
    job_order, scaling, packages
FROM pools ORDER BY id";

/// The columns that [`node`] reads.
macro_rules! node_columns {
    () => {
        concat!(
            "id, token, epoch, state, state_at, scheduling, drain, is_drained, allocated_at, booted_at, is_dedicated, rank,
    tasks_run, tasks_succeeded, start_task, faults, turn, recent, booted_with, ",
            node_properties_columns!()
        )
    };
}

const NODES: &str = concat!("SELECT ", node_columns!(), " FROM nodes WHERE pool = ?1 ORDER BY id");
/// A slice of the nodes of all pools, for the scan.
pub(super) const NODE_SLICE: &str = concat!("SELECT pool || '/' || id, pool, ", node_columns!(), " FROM nodes LIMIT ?2 OFFSET ?1");

/// Inserts or replaces a pool; the document only when given.
pub(super) fn put(connection: &Connection, pool: &PoolRecord, document: Option<&str>) -> Result<(), StoreError> {
    connection.prepare_cached(PUT_POOL)?.execute(params![
        pool.id.as_str(),
        pool.version.cast_signed(),
        pool.state.as_str(),
        pool.state_at.0,
        pool.allocation.as_str(),
        pool.allocation_at.0,
        pool.target_dedicated,
        pool.target_low_priority,
        pool.settings.resize_timeout.as_ms().cast_signed(),
        pool.deallocation.as_str(),
        cells::list(&pool.resize_errors),
        pool.slots_per_node,
        cells::fill(pool.fill),
        pool.start_task.as_ref().map(cells::json),
        pool.policy.as_ref().map(cells::json),
        pool.decision,
        pool.next_node.cast_signed(),
        pool.created_at.0,
        pool.modified_at.0,
        document,
        pool.job_order.as_str(),
        pool.scaling.as_ref().map(cells::json),
        cells::list(&pool.packages),
    ])?;
    Ok(())
}

/// A pool's document.
pub(super) fn document(connection: &Connection, pool: &PoolId) -> Result<Option<String>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT document FROM pools WHERE id = ?1")?;
    let mut rows = statement.query([pool.as_str()])?;
    rows.next()?.map(|row| Cells::new(row, "pools").get("document")).transpose()
}

/// Removes a pool and its nodes.
pub(super) fn delete(connection: &Connection, pool: &PoolId) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM nodes WHERE pool = ?1")?.execute([pool.as_str()])?;
    connection.prepare_cached("DELETE FROM pool_sums WHERE owner = ?1")?.execute([pool.as_str()])?;
    connection.prepare_cached("DELETE FROM pools WHERE id = ?1")?.execute([pool.as_str()])?;
    Ok(())
}

/// Inserts or replaces a node.
pub(super) fn put_node(connection: &Connection, pool: &PoolId, node: &NodeRecord) -> Result<(), StoreError> {
    connection.prepare_cached(PUT_NODE)?.execute(params![
        pool.as_str(),
        node.id.as_str(),
        node.token,
        node.epoch.0.cast_signed(),
        node.state.as_str(),
        node.state_at.0,
        node.scheduling.as_str(),
        node.drain.map(DeallocationOption::as_str),
        node.is_drained,
        node.properties.address,
        node.allocated_at.0,
        node.booted_at.map(|at| at.0),
        node.is_dedicated,
        node.rank,
        node.tasks_run.cast_signed(),
        node.tasks_succeeded.cast_signed(),
        node.start_task.as_ref().map(cells::json),
        cells::list(&node.faults),
        node.properties.agent_version,
        node.action.as_ref().map(cells::json),
        cells::list(&node.recent),
        node.booted_with.as_ref().map(cells::json),
        node.properties.cores,
    ])?;
    Ok(())
}

/// Removes a node.
pub(super) fn delete_node(connection: &Connection, pool: &PoolId, node: &NodeId) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached("DELETE FROM nodes WHERE pool = ?1 AND id = ?2")?;
    statement.execute((pool.as_str(), node.as_str()))?;
    Ok(())
}

/// All pools with their nodes.
pub(super) fn load(connection: &Connection, noted: &mut Vec<Unreadable>) -> Result<Vec<(PoolRecord, Vec<NodeRecord>)>, StoreError> {
    let mut statement = connection.prepare(POOLS)?;
    let mut rows = statement.query([])?;
    let mut pools = Vec::new();
    while let Some(row) = rows.next()? {
        let Some(pool) = cells::or_note(row, pool(&Cells::new(row, "pools")), noted)? else { continue };
        let nodes = load_nodes(connection, &pool.id, noted)?;
        pools.push((pool, nodes));
    }
    Ok(pools)
}

fn load_nodes(connection: &Connection, pool: &PoolId, noted: &mut Vec<Unreadable>) -> Result<Vec<NodeRecord>, StoreError> {
    let mut statement = connection.prepare_cached(NODES)?;
    let mut rows = statement.query([pool.as_str()])?;
    let mut nodes = Vec::new();
    while let Some(row) = rows.next()? {
        match cells::or_note(row, node(&Cells::new(row, "nodes")), noted)? {
            Some(node) => nodes.push(node),
            None => nodes.extend(salvage(row)),
        }
    }
    Ok(nodes)
}

/// A node whose row cannot be read counts as joined and silent: it goes on if it lives, and otherwise its lease ends.
/// `None` when not even its name can be read.
fn salvage(row: &Row<'_>) -> Option<NodeRecord> {
    let id = Cells::new(row, "nodes").name("id").ok()?;
    let unguessable = || format!("{:032x}", rand::rng().random::<u128>());
    Some(NodeRecord {
        id,
        token: Cells::new(row, "nodes").get("token").unwrap_or_else(|_| unguessable()),
        epoch: Epoch(Cells::new(row, "nodes").number("epoch").unwrap_or(UNKNOWN_EPOCH)),
        state: NodeState::Unknown,
        state_at: Timestamp(0),
        scheduling: SchedulingState::Enabled,
        drain: None,
        is_drained: false,
        action: None,
        properties: NodeProperties::default(),
        allocated_at: Timestamp(0),
        booted_at: None,
        is_dedicated: true,
        rank: 0,
        tasks_run: 0,
        tasks_succeeded: 0,
        recent: vec![],
        booted_with: None,
        start_task: None,
        faults: vec![],
    })
}

/// Reads a pool's plain properties.
pub(super) fn settings(cells: &Cells<'_>) -> Result<PoolSettings, StoreError> {
    Ok(PoolSettings { resize_timeout: cells.period("resize_timeout_ms")? })
}

/// A pool from the columns of [`POOLS`].
pub(super) fn pool(cells: &Cells<'_>) -> Result<PoolRecord, StoreError> {
    Ok(PoolRecord {
        id: cells.name("id")?,
        version: cells.number("version")?,
        state: cells.word("state", PoolState::parse)?,
        state_at: cells.time("state_at")?,
        allocation: cells.word("allocation", AllocationState::parse)?,
        allocation_at: cells.time("allocation_at")?,
        target_dedicated: cells.small("target_dedicated")?,
        target_low_priority: cells.small("target_low_priority")?,
        settings: settings(cells)?,
        deallocation: cells.word("deallocation", DeallocationOption::parse)?,
        resize_errors: cells.list("resize_errors")?,
        slots_per_node: cells.small("slots_per_node")?,
        fill: cells.word("fill", cells::fill_of)?,
        start_task: cells.json_if("start_task")?,
        policy: cells.json_if("policy")?,
        decision: cells.get("decision")?,
        next_node: cells.number("next_node")?,
        created_at: cells.time("created_at")?,
        modified_at: cells.time("modified_at")?,
        job_order: cells.word("job_order", JobOrder::parse)?,
        scaling: cells.json_if("scaling")?,
        packages: cells.list("packages")?,
    })
}

/// Reads a node's plain properties.
pub(super) fn node_properties(cells: &Cells<'_>) -> Result<NodeProperties, StoreError> {
    Ok(NodeProperties { address: cells.get("address")?, agent_version: cells.get("agent_version")?, cores: cells.small("cores")? })
}

/// A node from the columns of [`NODE_SLICE`].
pub(super) fn node(cells: &Cells<'_>) -> Result<NodeRecord, StoreError> {
    Ok(NodeRecord {
        id: cells.name("id")?,
        token: cells.get("token")?,
        epoch: Epoch(cells.number("epoch")?),
        state: cells.word("state", NodeState::parse)?,
        state_at: cells.time("state_at")?,
        scheduling: cells.word("scheduling", SchedulingState::parse)?,
        drain: cells.word_if("drain", DeallocationOption::parse)?,
        is_drained: cells.flag("is_drained")?,
        properties: node_properties(cells)?,
        allocated_at: cells.time("allocated_at")?,
        booted_at: cells.time_if("booted_at")?,
        is_dedicated: cells.flag("is_dedicated")?,
        rank: cells.small("rank")?,
        tasks_run: cells.number("tasks_run")?,
        tasks_succeeded: cells.number("tasks_succeeded")?,
        start_task: cells.json_if("start_task")?,
        faults: cells.list("faults")?,
        action: cells.json_if("turn")?,
        recent: cells.list("recent")?,
        booted_with: cells.json_if("booted_with")?,
    })
}
