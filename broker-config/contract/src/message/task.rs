//! The message that releases an attempt to the agents of a pool.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{AttemptKey, Fence, JobId, TaskId, TaskUid},
    spec::TaskSpec,
};

/// Specs whose message would be larger than this are sent with the reply to an ask instead.
pub const SPEC_BYTES_MAX: usize = 64 * 1024;

// ---- tasks -----------------------------------------------------------------------------------

/// Tells an agent whether it starts a delivery at once or asks first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// The attempt's first publish: the agent runs it, unless it was redelivered.
    Now,
    /// The agent asks the dispatcher first.
    Ask,
}

/// An attempt of a task, ready to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskMessage {
    /// Format version.
    pub v: u32,
    pub uid: TaskUid,
    /// Counted from 1.
    pub attempt: u32,
    pub fence: Fence,
    /// Names the directories, and goes into the environment.
    pub job: JobId,
    /// The task's name.
    pub task: TaskId,
    pub start: Start,
    /// More than one only on the wide queue.
    pub slots: u32,
    /// Absent when the reply to the ask brings it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<TaskSpec>,
}

impl TaskMessage {
    /// The attempt of this message.
    pub fn key(&self) -> AttemptKey {
        AttemptKey { uid: self.uid, attempt: self.attempt, fence: self.fence }
    }
}
