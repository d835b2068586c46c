//! Tasks that come by message: what a message asks for, and what its sender is told.
//!
//! The API reads a [`NewSubmission`] from a message, the engine adds its tasks, and the store keeps every [`Answer`] until
//! the broker has it.

use contract::ids::{JobId, PoolId, TaskId, TaskUid};
use serde::{Deserialize, Serialize};

use crate::{job::NewJob, task::NewTask};

/// Bytes of a digest of a message's body.
pub const DIGEST_BYTES: usize = 16;

/// Tasks to be added: all of them or none.
#[derive(Debug, Clone)]
pub struct NewSubmission {
    /// The pool that the message names by its routing key.
    pub pool: PoolId,
    /// Where the tasks go.
    pub job: Target,
    /// At least one.
    pub tasks: Vec<NewTask>,
    /// Whether they came as a list, and are answered as one.
    pub is_list: bool,
    /// What a repetition of the message is known by; nothing when the message has no id.
    pub key: Option<MessageKey>,
    /// Who is told, and when; nothing when the message names no queue for answers.
    pub reply: Option<(Reply, Wait)>,
}

/// The job of a submission.
#[derive(Debug, Clone)]
pub enum Target {
    /// One that exists, on the submission's pool.
    Named(JobId),
    /// One that stands for all submissions to a pool, and is made where it does not exist.
    Standing(Box<NewJob>),
}

impl Target {
    /// The job's name.
    pub fn id(&self) -> &JobId {
        match self {
            Target::Named(id) => id,
            Target::Standing(job) => &job.id,
        }
    }
}

/// A message's id and what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageKey {
    /// The AMQP `message_id`; it counts for one pool.
    pub id: String,
    /// A digest of the body, and of the priority where that chose the job.
    pub digest: [u8; DIGEST_BYTES],
}

/// When the sender of a submission is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Once its tasks are stored: one answer.
    Accepted,
    /// When each of its tasks has ended: one answer for each task.
    Completed,
}

/// Where an answer goes, and in which form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reply {
    /// The queue.
    pub queue: String,
    /// The sender's own number for the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// JSON rather than MessagePack.
    pub is_json: bool,
    /// Properties of the message that no task has, as the header of answers names them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignored: Option<String>,
}

/// An answer to a submission, to be sent until the broker has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Where it goes.
    pub reply: Reply,
    /// What it tells.
    pub news: News,
}

/// What the sender of a submission is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum News {
    /// Its tasks are stored.
    Accepted {
        /// Their job.
        job: JobId,
        /// Their names, in the message's order.
        tasks: Vec<TaskId>,
        /// Whether they came as a list.
        is_list: bool,
    },
    /// A task has ended, or never will: its row tells which, unless it is gone.
    Ended {
        /// Its job.
        job: JobId,
        /// Its name.
        task: TaskId,
        /// Its number; nothing for one that was gone before its sender asked again.
        uid: Option<TaskUid>,
    },
}
