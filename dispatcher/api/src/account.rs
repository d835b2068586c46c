//! Operations on the account as a whole: node counts, and lists that are always empty.

use contract::{ids::PoolId, state::NodeState};
use model::{node::NodeActivity, refusal::Refusal};
use serde::Serialize;
use store::{read::Page, rows::NodeRow};

use crate::{
    answer::Answer,
    call::Call,
    error::store_failed,
    filter::compile,
    lists::{Paging, ROWS_MAX, list, shape},
    state::ApiState,
};

/// Pools in one page of node counts.
const COUNTS_MAX: usize = 10;

/// A list of a kind of resource that Piecework does not have; always empty.
pub async fn nothing(_api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    Paging::read(call, ROWS_MAX)?;
    shape(call, "Certificate")?;
    compile(call, "Certificate")?;
    Ok(list(call, call.path.trim_start_matches('/'), std::iter::empty(), None))
}

/// Number of nodes by state, in Azure's names.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StateCounts {
    creating: u32,
    idle: u32,
    offline: u32,
    preempted: u32,
    rebooting: u32,
    reimaging: u32,
    running: u32,
    starting: u32,
    start_task_failed: u32,
    leaving_pool: u32,
    unknown: u32,
    unusable: u32,
    waiting_for_start_task: u32,
    #[serde(rename = "upgradingOS")]
    upgrading_os: u32,
    deallocated: u32,
    deallocating: u32,
    total: u32,
}

impl StateCounts {
    /// Counts nodes.
    pub fn of<'a>(nodes: impl Iterator<Item = &'a NodeRow>) -> StateCounts {
        let mut counts = StateCounts::default();
        for node in nodes {
            counts.total += 1;
            *match node.state {
                NodeState::Creating => &mut counts.creating,
                NodeState::Idle => &mut counts.idle,
                NodeState::Offline => &mut counts.offline,
                NodeState::Preempted => &mut counts.preempted,
                NodeState::Rebooting => &mut counts.rebooting,
                NodeState::Reimaging => &mut counts.reimaging,
                NodeState::Running => &mut counts.running,
                NodeState::Starting => &mut counts.starting,
                NodeState::StartTaskFailed => &mut counts.start_task_failed,
                NodeState::LeavingPool => &mut counts.leaving_pool,
                NodeState::Unknown => &mut counts.unknown,
                NodeState::Unusable => &mut counts.unusable,
                NodeState::WaitingForStartTask => &mut counts.waiting_for_start_task,
                NodeState::UpgradingOs => &mut counts.upgrading_os,
                NodeState::Deallocated => &mut counts.deallocated,
                NodeState::Deallocating => &mut counts.deallocating,
            } += 1;
        }
        counts
    }
}

impl ApiState {
    /// All nodes of a pool, read page by page.
    pub async fn all_nodes(&self, call: &Call, pool: &PoolId, active: &[NodeActivity]) -> Result<Vec<NodeRow>, Refusal> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let page = Page { after: after.take(), rows_max: ROWS_MAX, filter: None, left_out: call.left_out.clone() };
            let rows = self.read.nodes(pool, page, active).await.map_err(store_failed)?;
            let is_last = rows.len() < ROWS_MAX;
            after = rows.last().map(|row| row.id.to_string());
            all.extend(rows);
            if is_last {
                return Ok(all);
            }
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PoolCounts<'a> {
    pool_id: &'a str,
    dedicated: StateCounts,
    low_priority: StateCounts,
}

/// Node counts of the pools.
pub async fn node_counts(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let paging = Paging::read(call, COUNTS_MAX)?;
    let pools = match paging.page(compile(call, "PoolNodeCounts")?) {
        None => Vec::new(),
        Some(page) => api.read.pools(page).await.map_err(store_failed)?,
    };
    let mut counted = Vec::with_capacity(pools.len());
    let active = api.engine.node_activity(pools.iter().map(|pool| pool.id.clone()).collect()).await;
    for pool in pools {
        let nodes = api.all_nodes(call, &pool.id, active.get(&pool.id).map_or(&[], Vec::as_slice)).await?;
        counted.push((pool, nodes));
    }
    let lacks = call.version.lacks("NodeCounts");
    let show = |(pool, nodes): &(store::rows::PoolRow, Vec<NodeRow>)| {
        let counts = PoolCounts {
            pool_id: pool.id.as_str(),
            dedicated: StateCounts::of(nodes.iter().filter(|node| node.is_dedicated)),
            low_priority: StateCounts::of(nodes.iter().filter(|node| !node.is_dedicated)),
        };
        let mut counts = serde_json::to_value(&counts).expect("counts have a JSON form");
        for name in &lacks {
            for kind in ["dedicated", "lowPriority"] {
                counts[kind].as_object_mut().and_then(|counts| counts.remove(*name));
            }
        }
        counts.to_string().into_bytes()
    };
    Ok(paging.answer(call, "poolnodecounts", &counted, |(pool, _)| pool.id.as_str(), show))
}
