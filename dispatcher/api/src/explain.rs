//! Piecework's own view of a pool: policy, last scaling decision, nodes by state, waiting work.

use contract::{ids::PoolId, spec::QueuePolicy};
use engine::command::Command;
use model::{
    job::Counts,
    refusal::{Code, Refusal},
};
use serde::Serialize;
use store::{
    filter::{Field, Filter, Operator, Value},
    read::Page,
};

use crate::{
    account::StateCounts,
    answer::{Answer, Iso},
    call::Call,
    error::store_failed,
    lists::ROWS_MAX,
    pools,
    state::ApiState,
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Work {
    tasks: u64,
    slots: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PoolView<'a> {
    id: &'a str,
    state: &'static str,
    allocation_state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<QueuePolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<&'a str>,
    target_nodes: u32,
    current_nodes: u32,
    slots_per_node: u32,
    nodes: StateCounts,
    waiting: Work,
    running: Work,
    last_modified: Iso,
}

/// Sums the tasks and slots of all jobs of a pool.
async fn work(api: &ApiState, call: &Call, pool: &PoolId) -> Result<(Counts, Counts), Refusal> {
    let (mut tasks, mut slots) = (Counts::default(), Counts::default());
    let mut after = None;
    loop {
        let filter = Filter::Compare(Field::Pool, Operator::Eq, Value::Text(pool.to_string()));
        let page = Page { after: after.take(), rows_max: ROWS_MAX, filter: Some(filter), left_out: call.left_out.clone() };
        let jobs = api.read.jobs(page).await.map_err(store_failed)?;
        for job in &jobs {
            // A damaged count may be any number.
            for (sum, more) in [
                (&mut tasks.active, job.tasks.active),
                (&mut tasks.running, job.tasks.running),
                (&mut slots.active, job.slots.active),
                (&mut slots.running, job.slots.running),
            ] {
                *sum = sum.saturating_add(more);
            }
        }
        if jobs.len() < ROWS_MAX {
            return Ok((tasks, slots));
        }
        after = jobs.last().map(|job| job.id.to_string());
    }
}

/// The whole view.
pub async fn pool(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let row = api.pool(&call.pool()?).await?;
    let nodes = api.all_nodes(call, &row.id, &api.activity(&row.id).await).await?;
    let (tasks, slots) = work(api, call, &row.id).await?;
    let view = PoolView {
        id: row.id.as_str(),
        state: row.state.as_str(),
        allocation_state: row.allocation.as_str(),
        policy: row.policy,
        decision: row.decision.as_deref(),
        target_nodes: row.target_dedicated + row.target_low_priority,
        current_nodes: row.current_dedicated + row.current_low_priority,
        slots_per_node: row.slots_per_node,
        nodes: StateCounts::of(nodes.iter()),
        waiting: Work { tasks: tasks.active, slots: slots.active },
        running: Work { tasks: tasks.running, slots: slots.running },
        last_modified: Iso(row.modified_at),
    };
    Ok(json(&view).changed(row.version, row.modified_at))
}

fn json<T: Serialize>(value: &T) -> Answer {
    Answer::own_json(200, serde_json::to_vec(value).expect("views have a JSON form"))
}

/// The pool's policy.
pub async fn policy(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let row = api.pool(&call.pool()?).await?;
    let policy = row
        .policy
        .ok_or_else(|| Refusal::new(Code::ResourceNotFound, "The pool has no policy; its nodes follow its targets.").with("Id", &row.id))?;
    Ok(json(&policy).changed(row.version, row.modified_at))
}

/// Sets the policy.
pub async fn set_policy(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let pool = call.pool()?;
    let policy = pools::body::policy(call.json()?.root())?;
    let (version, at) = api.change(Command::SetPolicy(pool, Some(policy))).await?;
    Ok(json(&policy).changed(version, at))
}

/// Removes the policy: the pool's nodes follow its targets again.
pub async fn remove_policy(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let (version, at) = api.change(Command::SetPolicy(call.pool()?, None)).await?;
    Ok(Answer::empty(204).changed(version, at))
}
