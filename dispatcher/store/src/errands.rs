//! Errands: work outside the store that must happen after a commit. Each is a row until it is done, however often the
//! dispatcher restarts.

use contract::ids::{JobId, JobUid, PoolId, TaskId, TaskUid};
use model::{submission::Answer, trigger::Start};
use serde::{Deserialize, Serialize};

/// The system that an errand is for. When one does not answer, the errands of the other go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    Broker,
    /// Piecework's own bucket.
    Bucket,
    /// Queues of those who submitted tasks by message.
    Replies,
    /// Queues of what triggers start.
    Starts,
}

/// An errand. Running it twice does no harm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Errand {
    /// Deletes the queues of a pool that is gone.
    Undeclare { pool: PoolId },
    /// Tells a pool's agents to delete the folders of a task, or of a whole job.
    Forget {
        pool: PoolId,
        job: JobId,
        /// The task; `None` means all tasks of the job.
        task: Option<TaskId>,
        /// The number of the last task that is meant, so that a later task of the same name is kept. `None` in rows of
        /// earlier builds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last: Option<TaskUid>,
        /// The job's number, for the same reason. `None` in rows of earlier builds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        job_uid: Option<JobUid>,
    },
    /// Deletes blobs from Piecework's own bucket.
    Discard { keys: Vec<String> },
    /// Tells who submitted a task by message.
    Tell(Answer),
    /// Starts what a trigger made of an event.
    Start(Start),
    /// Deletes the queue of a trigger that is gone.
    DeleteQueue { queue: String },
}

impl Errand {
    /// The system that it is for.
    pub fn place(&self) -> Place {
        match self {
            Errand::Undeclare { .. } | Errand::Forget { .. } | Errand::DeleteQueue { .. } => Place::Broker,
            Errand::Discard { .. } => Place::Bucket,
            Errand::Tell(_) => Place::Replies,
            Errand::Start(_) => Place::Starts,
        }
    }
}
