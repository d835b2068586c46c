//! What must happen outside after a commit, however often the dispatcher starts in between: a row until it is done.

use contract::ids::{JobId, JobUid, PoolId, TaskId, TaskUid};
use serde::{Deserialize, Serialize};

/// Where an errand is run; one place that does not answer holds up no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    Broker,
    /// Our own bucket.
    Bucket,
}

/// One of them; running it twice does no harm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Errand {
    /// Delete the queues of a pool that is gone.
    Undeclare { pool: PoolId },
    /// Tell a pool's agents that the folders of a task, or of a whole job, are of no use any more.
    Forget {
        pool: PoolId,
        job: JobId,
        /// The task; all of the job's without it.
        task: Option<TaskId>,
        /// The last task that is meant; rows of earlier builds have none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last: Option<TaskUid>,
        /// The job's number; rows of earlier builds have none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        job_uid: Option<JobUid>,
    },
    /// Delete blobs from our own bucket.
    Discard { keys: Vec<String> },
}

impl Errand {
    /// Where it is run.
    pub fn place(&self) -> Place {
        match self {
            Errand::Undeclare { .. } | Errand::Forget { .. } => Place::Broker,
            Errand::Discard { .. } => Place::Bucket,
        }
    }
}
