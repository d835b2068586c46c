//! Loads the tasks that are released or running when the dispatcher starts.

use contract::ids::{Epoch, JobUid, TaskUid};
use model::health::Unreadable;
use rusqlite::Connection;

use crate::{
    StoreError,
    records::LiveTask,
    sqlite::cells::{self, Cells},
};

const LIVE: &str = "
SELECT t.uid, t.job, t.attempt, t.fence, t.slots, t.crashes, t.retries, t.retries_max, o.uid IS NULL AS outbox,
    t.run, t.node, t.epoch, t.started_at, t.state = 1 AS state
FROM tasks t INDEXED BY tasks_live LEFT JOIN outbox o ON o.uid = t.uid WHERE t.live = 1";

/// Live tasks, and those whose rows cannot be read.
type Found = (Vec<LiveTask>, Vec<(TaskUid, Unreadable)>);

/// All tasks that are released or run, lowest number first, and those whose rows cannot be read.
pub(super) fn load(connection: &Connection) -> Result<Found, StoreError> {
    let mut statement = connection.prepare(LIVE)?;
    let mut rows = statement.query([])?;
    let (mut tasks, mut unreadable) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let mut noted = Vec::new();
        tasks.extend(cells::or_note(row, task(&Cells::new(row, "tasks")), &mut noted)?);
        let uid = TaskUid(Cells::new(row, "tasks").number("uid")?);
        unreadable.extend(noted.into_iter().map(|what| (uid, what)));
    }
    tasks.sort_unstable_by_key(|task| task.uid);
    Ok((tasks, unreadable))
}

fn task(cells: &Cells<'_>) -> Result<LiveTask, StoreError> {
    Ok(LiveTask {
        uid: TaskUid(cells.number("uid")?),
        job: JobUid(cells.number("job")?),
        attempt: cells.small("attempt")?,
        fence: cells.fence("fence")?,
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
