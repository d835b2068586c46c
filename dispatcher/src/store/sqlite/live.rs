//! What a start finds alive: the tasks that are released or run.

use broker_config::ids::{Epoch, Fence, JobUid, TaskUid};
use rusqlite::Connection;

use crate::store::{StoreError, records::LiveTask, sqlite::cells::Cells};

const LIVE: &str = "
SELECT t.uid, t.job, t.attempt, t.fence, t.slots, t.crashes, t.retries, t.retries_max, o.uid IS NULL,
    t.run, t.node, t.epoch, t.started_at, t.state = 1
FROM tasks t INDEXED BY tasks_live LEFT JOIN outbox o ON o.uid = t.uid WHERE t.live = 1";

/// All tasks that are released or run, lowest number first.
pub(super) fn load(connection: &Connection) -> Result<Vec<LiveTask>, StoreError> {
    let mut statement = connection.prepare(LIVE)?;
    let mut rows = statement.query([])?;
    let mut tasks = Vec::new();
    while let Some(row) = rows.next()? {
        tasks.push(task(&mut Cells::new(row, "tasks"))?);
    }
    tasks.sort_unstable_by_key(|task| task.uid);
    Ok(tasks)
}

fn task(cells: &mut Cells<'_>) -> Result<LiveTask, StoreError> {
    Ok(LiveTask {
        uid: TaskUid(cells.number("uid")?),
        job: JobUid(cells.number("job")?),
        attempt: cells.small("attempt")?,
        fence: Fence(cells.number("fence")?),
        slots: cells.small("slots")?,
        crashes: cells.small("crashes")?,
        retries: cells.small("retries")?,
        retries_max: cells.get("retries_max")?,
        is_published: cells.flag("outbox")?,
        owner: {
            let (run, node) = (cells.run_if("run")?, cells.name_if("node")?);
            let (epoch, started_at) = (cells.get::<Option<i64>>("epoch")?, cells.time_if("started_at")?);
            match (run, node, epoch, started_at) {
                (Some(run), Some(node), Some(epoch), Some(at)) => Some((run, node, Epoch(epoch.cast_unsigned()), at)),
                _ => None,
            }
        },
        is_preparing: cells.flag("state")?,
    })
}
