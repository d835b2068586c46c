//! Reads single rows by key, and pages of rows in id order, for API handlers.

use std::collections::HashMap;

use contract::{
    ids::{ApplicationId, FunctionId, JobId, JobUid, NodeId, PoolId, ScheduleId, TaskId, TaskUid, TriggerId},
    outcome::Stream,
    state::{AllocationState, JobState, NodeState, PoolState, SchedulingState},
};
use model::{application::ApplicationRow, function::FunctionRow, node::NodeActivity, schedule::ScheduleRow, trigger::TriggerRow};
use rusqlite::{Connection, Row, types::Value as Bound};
use serde_json::{Value, json};

use crate::{
    StoreError,
    read::Page,
    rows::{JobRow, NodeRow, PoolRow, TaskRow},
    sqlite::{
        applications,
        cells::{self, Cells},
        conditions::List,
        functions, jobs,
        paging::{one, page},
        pools, schedules, stream, tasks, triggers,
    },
};

const POOLS: &str = concat!(
    "
SELECT id, document, version, state, state_at, allocation, allocation_at, target_dedicated, target_low_priority,
    (SELECT count(*) FROM nodes n WHERE n.pool = pools.id AND n.is_dedicated = 1 AND n.state <> 'creating') AS current_dedicated,
    (SELECT count(*) FROM nodes n WHERE n.pool = pools.id AND n.is_dedicated = 0 AND n.state <> 'creating') AS current_low_priority,
    ",
    pools::settings_columns!(),
    ", resize_errors, slots_per_node, policy, scaling, decision, created_at, modified_at
FROM pools WHERE 1"
);

/// Nodes of a pool. The first parameter is the [`activity`] that the rows do not show yet: it replaces what is older.
const NODES: &str = concat!(
    "
WITH active AS MATERIALIZED (
    SELECT value ->> '$.id' AS node, value ->> '$.state' AS state, value ->> '$.state_at' AS state_at, value ->> '$.tasks_run' AS tasks_run,
        value ->> '$.tasks_succeeded' AS tasks_succeeded, value -> '$.recent' AS recent
    FROM json_each(?)
)
SELECT * FROM (
    SELECT pool || '/' || id AS row_key, pool, id, COALESCE(a.state, n.state) AS state, COALESCE(a.state_at, n.state_at) AS state_at, scheduling, allocated_at, booted_at,
        is_dedicated, COALESCE(a.tasks_run, n.tasks_run) AS tasks_run,
        COALESCE(a.tasks_succeeded, n.tasks_succeeded) AS tasks_succeeded, start_task, faults,
        COALESCE(a.recent, n.recent) AS recent, booted_with, ",
    pools::node_properties_columns!(),
    "
    FROM nodes n LEFT JOIN active a ON n.id = a.node AND a.state_at >= n.state_at AND a.tasks_run >= n.tasks_run
    WHERE pool = ?
) WHERE 1"
);

/// Running tasks and their slots by node; only tasks of jobs that are not completed are visited.
const LOAD: &str = "
SELECT t.node, count(*) AS live, sum(min(t.slots, 4294967295)) AS slots FROM jobs j CROSS JOIN tasks t
WHERE j.pool = ?1 AND j.state <> 'completed' AND t.job = j.uid AND t.state IN (1, 2) AND t.node IS NOT NULL
GROUP BY t.node";

const JOBS: &str = "
SELECT uid, id, (SELECT document FROM job_texts x WHERE x.uid = jobs.uid) AS document, version, state, state_at, previous_state, previous_at,
    pool, priority, max_parallel, terminate_when_complete, max_task_retry_count, max_wall_clock_ms, performs_exit_options,
    uses_dependencies, created_at, modified_at, ended_at, terminate_reason, tasks_active, tasks_running, tasks_succeeded,
    tasks_failed, slots_active, slots_running, slots_succeeded, slots_failed, auto_pool, scheduling_error
FROM jobs WHERE 1";

/// Columns that every task row is read with.
pub(super) const TASK_HEAD: &str = "t.uid, t.job, t.id, t.version, t.state, t.state_at, t.previous_state, t.previous_at, t.created_at,
    t.modified_at, t.node, t.pool";
/// Further columns, for [`task_runs`].
pub(super) const TASK_RUNS: &str = "t.attempt, t.started_at, t.ended_at, t.exit_code, t.success, x.failure, t.retries, t.retried_at,
    t.requeues, t.requeued_at, t.slots";

pub(super) fn pool(connection: &Connection, id: &PoolId) -> Result<Option<PoolRow>, StoreError> {
    one(connection, POOLS, None, id.as_str(), pool_row)
}

/// A page of pools.
pub(super) fn pools(connection: &Connection, wanted: Page) -> Result<Vec<PoolRow>, StoreError> {
    page(connection, (POOLS, List::Pools), None, wanted, pool_row)
}

/// Activity as the first parameter of [`NODES`].
fn activity(nodes: &[NodeActivity]) -> Bound {
    let nodes = nodes.iter().map(|node| {
        json!({
            "id": node.id,
            "state": node.state.as_str(),
            "state_at": node.state_at,
            "tasks_run": node.tasks_run,
            "tasks_succeeded": node.tasks_succeeded,
            "recent": node.recent,
        })
    });
    Value::from_iter(nodes).to_string().into()
}

/// A node, with the activity that its row does not show yet.
pub(super) fn node(connection: &Connection, pool: &PoolId, id: &NodeId, active: &[NodeActivity]) -> Result<Option<NodeRow>, StoreError> {
    let scope = [activity(active), pool.as_str().to_owned().into()];
    let mut nodes: Vec<NodeRow> = one(connection, NODES, scope, id.as_str(), node_row)?.into_iter().collect();
    add_load(connection, pool, &mut nodes)?;
    Ok(nodes.pop())
}

/// A page of a pool's nodes, with the activity that their rows do not show yet.
pub(super) fn nodes(connection: &Connection, pool: &PoolId, wanted: Page, active: &[NodeActivity]) -> Result<Vec<NodeRow>, StoreError> {
    let scope = [activity(active), pool.as_str().to_owned().into()];
    let mut nodes = page(connection, (NODES, List::Nodes), scope, wanted, node_row)?;
    add_load(connection, pool, &mut nodes)?;
    Ok(nodes)
}

fn add_load(connection: &Connection, pool: &PoolId, nodes: &mut [NodeRow]) -> Result<(), StoreError> {
    if nodes.is_empty() {
        return Ok(());
    }
    let mut statement = connection.prepare_cached(LOAD)?;
    let mut rows = statement.query([pool.as_str()])?;
    let mut load: HashMap<NodeId, (u32, u32)> = HashMap::new();
    while let Some(row) = rows.next()? {
        let cells = Cells::new(row, "tasks");
        // A task whose node or slots cannot be read is not counted.
        if let (Ok(node), Ok(live), Ok(slots)) = (cells.name("node"), cells.small("live"), cells.small("slots")) {
            load.insert(node, (live, slots));
        }
    }
    for node in nodes {
        (node.running_tasks, node.running_slots) = load.get(&node.id).copied().unwrap_or_default();
    }
    Ok(())
}

pub(super) fn job(connection: &Connection, id: &JobId) -> Result<Option<JobRow>, StoreError> {
    one(connection, JOBS, None, id.as_str(), job_row)
}

/// A page of jobs.
pub(super) fn jobs(connection: &Connection, wanted: Page) -> Result<Vec<JobRow>, StoreError> {
    page(connection, (JOBS, List::Jobs), None, wanted, job_row)
}

pub(super) fn application(connection: &Connection, id: &ApplicationId) -> Result<Option<ApplicationRow>, StoreError> {
    one(connection, applications::SELECT, None, id.as_str(), applications::row)
}

/// A page of applications.
pub(super) fn applications(connection: &Connection, wanted: Page) -> Result<Vec<ApplicationRow>, StoreError> {
    page(connection, (applications::SELECT, List::Applications), None, wanted, applications::row)
}

pub(super) fn function(connection: &Connection, pool: &PoolId, id: &FunctionId) -> Result<Option<FunctionRow>, StoreError> {
    one(connection, functions::OF_POOL, Some(pool.as_str().to_owned().into()), id.as_str(), functions::row)
}

/// A page of a pool's functions.
pub(super) fn functions(connection: &Connection, pool: &PoolId, wanted: Page) -> Result<Vec<FunctionRow>, StoreError> {
    page(connection, (functions::OF_POOL, List::Functions), Some(pool.as_str().to_owned().into()), wanted, functions::row)
}

/// One trigger.
pub(super) fn trigger(connection: &Connection, id: &TriggerId) -> Result<Option<TriggerRow>, StoreError> {
    one(connection, triggers::SELECT, None, id.as_str(), triggers::row)
}

/// A page of triggers.
pub(super) fn triggers(connection: &Connection, wanted: Page) -> Result<Vec<TriggerRow>, StoreError> {
    page(connection, (triggers::SELECT, List::Triggers), None, wanted, triggers::row)
}

pub(super) fn schedule(connection: &Connection, id: &ScheduleId) -> Result<Option<ScheduleRow>, StoreError> {
    one(connection, schedules::SELECT, None, id.as_str(), schedules::row)
}

/// A page of job schedules.
pub(super) fn schedules(connection: &Connection, wanted: Page) -> Result<Vec<ScheduleRow>, StoreError> {
    page(connection, (schedules::SELECT, List::Schedules), None, wanted, schedules::row)
}

/// A job's number.
pub(super) fn job_uid(connection: &Connection, id: &JobId) -> Result<Option<i64>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT uid FROM jobs WHERE id = ?1")?;
    let mut rows = statement.query([id.as_str()])?;
    rows.next()?.map(|row| Cells::new(row, "jobs").get("uid")).transpose()
}

pub(super) fn task(connection: &Connection, job: &JobId, id: &TaskId) -> Result<Option<TaskRow>, StoreError> {
    let Some(uid) = job_uid(connection, job)? else { return Ok(None) };
    let select = format!(
        "SELECT {TASK_HEAD}, x.document, {TASK_RUNS}, x.stdout, x.stderr FROM tasks t JOIN task_texts x ON x.uid = t.uid WHERE t.job = ?"
    );
    one(connection, &select, Some(uid.into()), id.as_str(), task_row)
}

/// The numbers among these that tasks have, even if their rows cannot be read.
pub(super) fn tasks_there(connection: &Connection, uids: &[TaskUid]) -> Result<Vec<TaskUid>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT uid FROM tasks WHERE uid = ?1")?;
    let mut found = Vec::with_capacity(uids.len());
    for uid in uids {
        found.extend(cells::task_uids(statement.query([uid.0.cast_signed()])?)?);
    }
    Ok(found)
}

/// Tasks by number with their jobs' names, in the order of the numbers; missing and unreadable ones are left out.
pub(super) fn tasks_by_number(connection: &Connection, uids: &[TaskUid]) -> Result<Vec<(JobId, TaskRow)>, StoreError> {
    let mut found = Vec::with_capacity(uids.len());
    let mut names =
        connection.prepare_cached("SELECT j.id AS job, t.id AS id FROM tasks t JOIN jobs j ON j.uid = t.job WHERE t.uid = ?1")?;
    for uid in uids {
        let mut rows = names.query([uid.0.cast_signed()])?;
        let Some(row) = rows.next()? else { continue };
        let cells = Cells::new(row, "tasks");
        let named = cells.name("job").and_then(|job: JobId| Ok((job, cells.name::<TaskId>("id")?)));
        let read = named.and_then(|(job, id)| Ok(task(connection, &job, &id)?.map(|row| (job, row))));
        match read {
            Ok(task) => found.extend(task),
            Err(error @ StoreError::Corrupt { .. }) => tracing::error!(uid = uid.0, %error, "a task's row is left out of a list"),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn pool_row(row: &Row<'_>) -> Result<PoolRow, StoreError> {
    let cells = &Cells::new(row, "pools");
    Ok(PoolRow {
        id: cells.name("id")?,
        document: cells.document("document")?,
        version: cells.number("version")?,
        state: cells.word("state", PoolState::parse)?,
        state_at: cells.time("state_at")?,
        allocation: cells.word("allocation", AllocationState::parse)?,
        allocation_at: cells.time("allocation_at")?,
        target_dedicated: cells.small("target_dedicated")?,
        target_low_priority: cells.small("target_low_priority")?,
        current_dedicated: cells.small("current_dedicated")?,
        current_low_priority: cells.small("current_low_priority")?,
        settings: pools::settings(cells)?,
        resize_errors: cells.list("resize_errors")?,
        slots_per_node: cells.small("slots_per_node")?,
        policy: cells.json_if("policy")?,
        scaling: cells.json_if("scaling")?,
        decision: cells.get("decision")?,
        created_at: cells.time("created_at")?,
        modified_at: cells.time("modified_at")?,
    })
}

fn node_row(row: &Row<'_>) -> Result<NodeRow, StoreError> {
    let cells = &Cells::new(row, "nodes");
    Ok(NodeRow {
        pool: cells.name("pool")?,
        id: cells.name("id")?,
        state: cells.word("state", NodeState::parse)?,
        state_at: cells.time("state_at")?,
        scheduling: cells.word("scheduling", SchedulingState::parse)?,
        properties: pools::node_properties(cells)?,
        allocated_at: cells.time("allocated_at")?,
        booted_at: cells.time_if("booted_at")?,
        is_dedicated: cells.flag("is_dedicated")?,
        tasks_run: cells.number("tasks_run")?,
        tasks_succeeded: cells.number("tasks_succeeded")?,
        running_tasks: 0,
        running_slots: 0,
        start_task: cells.json_if("start_task")?,
        faults: cells.list("faults")?,
        recent: cells.list("recent")?,
        booted_with: cells.json_if("booted_with")?,
    })
}

fn job_row(row: &Row<'_>) -> Result<JobRow, StoreError> {
    let (cells, texts) = (&Cells::new(row, "jobs"), &Cells::new(row, "job_texts"));
    Ok(JobRow {
        uid: JobUid(cells.number("uid")?),
        id: cells.name("id")?,
        document: match texts.get::<Option<String>>("document")? {
            Some(_) => texts.document("document")?,
            None => "{}".to_owned(),
        },
        version: cells.number("version")?,
        state: cells.word("state", JobState::parse)?,
        state_at: cells.time("state_at")?,
        previous: jobs::previous(cells)?,
        pool: cells.name("pool")?,
        priority: cells.get("priority")?,
        max_parallel: cells.get("max_parallel")?,
        terminate_when_complete: cells.flag("terminate_when_complete")?,
        max_task_retry_count: cells.get("max_task_retry_count")?,
        max_wall_clock: cells.period_if("max_wall_clock_ms")?,
        performs_exit_options: cells.flag("performs_exit_options")?,
        uses_dependencies: cells.flag("uses_dependencies")?,
        created_at: cells.time("created_at")?,
        modified_at: cells.time("modified_at")?,
        ended_at: cells.time_if("ended_at")?,
        terminate_reason: cells.get("terminate_reason")?,
        tasks: jobs::task_counts(cells)?,
        slots: jobs::slot_counts(cells)?,
        auto_pool: cells.json_if("auto_pool")?,
        scheduling_error: cells.json_if("scheduling_error")?,
    })
}

/// A task from [`TASK_HEAD`] and its document.
pub(super) fn task_head(row: &Row<'_>) -> Result<TaskRow, StoreError> {
    let cells = &Cells::new(row, "tasks");
    Ok(TaskRow {
        uid: TaskUid(cells.number("uid")?),
        job_uid: JobUid(cells.number("job")?),
        id: cells.name("id")?,
        version: cells.number("version")?,
        state: cells.code("state", tasks::state_of)?,
        state_at: cells.time("state_at")?,
        previous: {
            let (state, at) = (cells.code_if("previous_state", tasks::state_of)?, cells.time_if("previous_at")?);
            state.zip(at)
        },
        created_at: cells.time("created_at")?,
        modified_at: cells.time("modified_at")?,
        node: cells.name_if("node")?,
        pool: cells.name_if("pool")?,
        document: Cells::new(row, "task_texts").document("document")?,
        attempt: 0,
        started_at: None,
        ended_at: None,
        exit_code: None,
        has_succeeded: None,
        failure: None,
        retry_count: 0,
        retried_at: None,
        requeue_count: 0,
        requeued_at: None,
        slots: 0,
        stdout: Stream::Empty,
        stderr: Stream::Empty,
    })
}

/// Like [`task_head`], with [`TASK_RUNS`].
pub(super) fn task_runs(row: &Row<'_>) -> Result<TaskRow, StoreError> {
    let head = task_head(row)?;
    let cells = &Cells::new(row, "tasks");
    Ok(TaskRow {
        attempt: cells.small("attempt")?,
        started_at: cells.time_if("started_at")?,
        ended_at: cells.time_if("ended_at")?,
        exit_code: cells.get("exit_code")?,
        has_succeeded: cells.get("success")?,
        failure: cells.json_if("failure")?,
        retry_count: cells.small("retries")?,
        retried_at: cells.time_if("retried_at")?,
        requeue_count: cells.small("requeues")?,
        requeued_at: cells.time_if("requeued_at")?,
        slots: cells.small("slots")?,
        ..head
    })
}

/// Like [`task_runs`], with the streams.
pub(super) fn task_row(row: &Row<'_>) -> Result<TaskRow, StoreError> {
    let ran = task_runs(row)?;
    let texts = Cells::new(row, "task_texts");
    Ok(TaskRow { stdout: stream::read(&texts, "stdout")?, stderr: stream::read(&texts, "stderr")?, ..ran })
}
