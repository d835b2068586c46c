//! Events that agents report: starts and ends of runs, and the state of their node.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{Epoch, Fence, NodeId, PoolId, RunId, RunKey, TaskUid},
    outcome::{Fault, JobTaskEnd, Outcome, Stream, Usage},
    state::NodeState,
    time::Timestamp,
};

/// Events in one batch at most.
pub const EVENTS_PER_BATCH_MAX: usize = 256;

// ---- events ----------------------------------------------------------------------------------

/// Events of an agent, in the order in which they happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventBatch {
    /// Format version.
    pub v: u32,
    pub pool: PoolId,
    pub node: NodeId,
    /// The epoch of the agent.
    pub epoch: Epoch,
    /// At most [`EVENTS_PER_BATCH_MAX`].
    pub events: Vec<AgentEvent>,
}

/// An event on a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum AgentEvent {
    Started(Started),
    Finished(Box<Finished>),
    /// The node's own state changed.
    Node(NodeReport),
    /// A job preparation or job release task ended; sent again until a heartbeat's answer names it as over.
    #[serde(rename = "chore")]
    JobTask(Box<JobTaskEnd>),
}

/// A run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    pub uid: TaskUid,
    pub attempt: u32,
    pub fence: Fence,
    pub run: RunId,
    /// By the node's clock.
    pub at: Timestamp,
}

impl Started {
    /// The run that began.
    pub fn run_key(&self) -> RunKey {
        RunKey { uid: self.uid, attempt: self.attempt, fence: self.fence, run: self.run }
    }
}

/// A run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    pub uid: TaskUid,
    pub attempt: u32,
    pub fence: Fence,
    pub run: RunId,
    /// By the node's clock.
    pub started_at: Timestamp,
    /// Includes the upload of outputs.
    pub ended_at: Timestamp,
    pub outcome: Outcome,
    #[serde(default)]
    pub stdout: Stream,
    #[serde(default)]
    pub stderr: Stream,
    #[serde(default)]
    pub usage: Usage,
}

impl Finished {
    /// The run that ended.
    pub fn run_key(&self) -> RunKey {
        RunKey { uid: self.uid, attempt: self.attempt, fence: self.fence, run: self.run }
    }
}

/// A node's own state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    pub state: NodeState,
    #[serde(default)]
    pub start_task: Option<StartTaskEnd>,
    /// The reason why the node is unusable.
    #[serde(default)]
    pub fault: Option<Fault>,
    /// The drain is complete: the node holds no run and consumes nothing.
    #[serde(default)]
    pub is_drained: bool,
    /// By the node's clock.
    pub at: Timestamp,
    /// Grows with each report of one epoch, from 1, so that an older report can be recognised; zero from agents of
    /// earlier builds.
    #[serde(default)]
    pub number: u64,
}

/// The end of a node's start task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartTaskEnd {
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
    pub outcome: Outcome,
    /// The number of retries.
    pub retries: u32,
    /// Start of the last retry.
    #[serde(default)]
    pub retried_at: Option<Timestamp>,
}
