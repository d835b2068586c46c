//! Heartbeats of agents, and the answers to them.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{AttemptKey, Epoch, NodeId, PoolId, RunId, RunKey},
    job_task::JobTask,
    message::{event::NodeReport, task::TaskMessage},
    outcome::JobTaskKey,
    state::DeallocationOption,
};

/// The broker drops heartbeats after this long in their queue.
pub const HEARTBEAT_TTL_MS: u32 = 15_000;

/// Runs in one heartbeat at most, live and kept each.
pub const RUNS_PER_HEARTBEAT_MAX: usize = 4_096;

// ---- heartbeats -----------------------------------------------------------------------------------

/// A heartbeat: the agent is alive and holds these runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Format version.
    pub v: u32,
    pub pool: PoolId,
    pub node: NodeId,
    /// The epoch of the agent.
    pub epoch: Epoch,
    /// Runs in progress.
    pub live: Vec<RunKey>,
    /// Ended runs that the dispatcher has not confirmed as recorded.
    pub kept: Vec<RunKey>,
    /// Slots without a run.
    pub free_slots: u32,
    /// True while the agent accepts deliveries.
    pub is_consuming: bool,
    /// Job tasks that run, or ended and are not confirmed as over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(rename = "chores")]
    pub job_tasks: Vec<JobTaskKey>,
    /// The node's last reported state, so that a lost event costs one heartbeat at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<NodeReport>,
    /// The delivery of several slots that the node keeps slots free for, until it has enough of them to ask about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sets_aside: Option<AttemptKey>,
    /// Invocations of functions that run, each in a slot of its own.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub invocations: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatReply {
    /// Format version.
    pub v: u32,
    /// Identifies the start of the dispatcher; a new one means that it may have lost events, which agents send again.
    pub boot: u64,
    /// Verdicts on the runs that the agent must act on; runs that go on have none.
    pub verdicts: Vec<(RunId, Verdict)>,
    pub order: NodeOrder,
    /// Job releases to run that the heartbeat did not name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub releases: Vec<JobTask>,
    /// Job tasks of the heartbeat that are over: recorded, or not wanted any more. The agent ends those that still run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub over: Vec<JobTaskKey>,
    /// A task of several slots that has waited long: the node fills none of the slots that it needs, and asks
    /// for it as for a delivery once they are free. Absent, the node keeps no slots free any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Box<TaskMessage>>,
    /// The task for which the heartbeat reports slots kept free, when this node need not run it: another node has it, or it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_aside_in_vain: Option<AttemptKey>,
    /// The number of the pool's functions; an agent that has others asks for them with `RequestKind::Functions`.
    #[serde(default)]
    pub functions: u64,
}

/// The dispatcher's verdict on a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The run goes on; or its end is not recorded yet.
    Ok,
    /// The agent ends the run and reports `Stopped`.
    Stop,
    /// Another run owns the task: the agent ends this one and forgets it.
    Fenced,
    /// The end is recorded: the agent forgets the run.
    Recorded,
}

/// The dispatcher's order to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "lowercase")]
pub enum NodeOrder {
    /// The node takes tasks.
    Work,
    /// The node takes no new tasks and keeps the running ones.
    Hold,
    /// The node takes no new tasks, handles the running ones by the option, then reports that it is drained.
    Drain { option: DeallocationOption },
    /// Like a drain; then the agent ends and its supervisor starts it again.
    Restart { option: DeallocationOption },
    /// The dispatcher does not know this node or epoch: the agent joins again.
    Rejoin,
    /// A newer agent has this node's name, or the node was removed: the agent ends all runs and exits.
    Leave,
}
