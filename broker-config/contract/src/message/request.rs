//! Requests of agents and of the autoscaler to the dispatcher, and the replies.

use serde::{Deserialize, Serialize};

use crate::{
    function::PoolFunctions,
    ids::{Epoch, NodeId, PoolId, RunId, RunKey},
    job_task::JobTask,
    message::heartbeat::NodeOrder,
    outcome::Fault,
    spec::{FillType, Package, QueuePolicy, StartTask, TaskSpec},
    state::{AllocationState, DeallocationOption, NodeState, PoolState, SchedulingState},
};

// ---- requests --------------------------------------------------------------------------------

/// A request to the dispatcher, answered with a [`Reply`] to `reply_to`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Format version.
    pub v: u32,
    pub what: RequestKind,
}

/// The kinds of requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum RequestKind {
    Join(Join),
    /// Asks whether a delivery may run.
    Ask(Ask),
    /// Asks whether a run may upload its outputs.
    MayPublish {
        run: RunKey,
        /// The node that asks.
        node: NodeId,
        /// The epoch of its agent.
        epoch: Epoch,
        /// Absent from agents of earlier builds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pool: Option<PoolId>,
    },
    /// An agent asks for the functions of its pool.
    Functions {
        pool: PoolId,
        /// The node that asks.
        node: NodeId,
        /// The epoch of its agent.
        epoch: Epoch,
    },
    /// Asks for the state of all pools.
    Snapshot,
    /// Writes rows for new nodes, before the provider creates the nodes.
    CreateNodes {
        pool: PoolId,
        count: u32,
    },
    /// Stops scheduling to a node and drains it.
    DrainNode {
        pool: PoolId,
        node: NodeId,
        /// How to handle its running tasks.
        option: DeallocationOption,
    },
    /// The provider has removed a node, or never had it.
    NodeGone {
        pool: PoolId,
        node: NodeId,
        /// For the record.
        reason: String,
    },
    /// The provider has stopped an empty node and keeps it.
    NodeStopped {
        pool: PoolId,
        node: NodeId,
    },
    /// The result of adjusting a pool to its target size.
    Decision {
        pool: PoolId,
        /// The target size that was applied.
        target: u32,
        /// Why the pool has that size.
        reason: String,
        /// The error while creating nodes, if any.
        fault: Option<Fault>,
    },
}

/// A request of an agent to join its pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    pub pool: PoolId,
    pub node: NodeId,
    /// The join token; the node's credential when it joins again.
    pub token: String,
    /// The agent's previous epoch when it joins again without a restart; its runs are then kept.
    pub epoch: Option<Epoch>,
    /// The address at which other nodes reach this one.
    pub address: String,
    /// The number of processors.
    pub cores: u32,
    /// The agent's version.
    pub version: String,
}

/// Asks whether a delivery may run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The attempt, and the run that would execute it.
    pub run: RunKey,
    /// The node that asks.
    pub node: NodeId,
    /// The epoch of its agent.
    pub epoch: Epoch,
    /// The agent supports job preparation; tasks that need it are given to such agents only.
    #[serde(default)]
    pub prepares: bool,
    /// Node ids are unique within a pool only; absent from agents of earlier builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolId>,
}

/// The reply to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyMessage {
    /// Format version.
    pub v: u32,
    pub what: Reply,
}

/// The kinds of replies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// The node is accepted.
    Joined(Joined),
    /// The decision about a delivery.
    Answer(Answer),
    /// Reply to [`RequestKind::MayPublish`].
    MayPublish {
        /// False when the run was fenced.
        allowed: bool,
    },
    /// Reply to [`RequestKind::Functions`].
    Functions(PoolFunctions),
    /// The state of all pools.
    Snapshot {
        /// Identifies the start of the dispatcher.
        boot: u64,
        pools: Vec<PoolSnapshot>,
    },
    /// The new nodes.
    Nodes {
        /// Names and join tokens.
        nodes: Vec<NodeTicket>,
    },
    Done,
    /// The request was refused.
    Refused(Fault),
}

/// The settings of a node, given to its agent when it joins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    pub epoch: Epoch,
    /// The node's credential for the next join.
    pub credential: String,
    /// The account, for the environment of tasks.
    pub account: String,
    /// The account's URL, for the environment of tasks.
    pub account_url: String,
    /// The number of slots of the node.
    pub slots: u32,
    /// Spread or pack.
    pub fill: FillType,
    /// The node's rank in the pool, for packing.
    pub rank: u32,
    /// The task to run before any other.
    pub start_task: Option<StartTask>,
    /// Interval of heartbeats.
    #[serde(rename = "beat_ms")]
    pub heartbeat_ms: u64,
    /// The dispatcher declares the node lost after this long without a heartbeat.
    pub lease_ms: u64,
    /// Dedicated, not low-priority.
    pub is_dedicated: bool,
    pub order: NodeOrder,
    /// The node is reimaged: the agent empties its folders before anything runs.
    #[serde(default)]
    pub is_reimaged: bool,
    /// Packages of the pool, unpacked before anything runs.
    #[serde(default)]
    pub packages: Vec<Package>,
}

/// The decision about a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "lowercase")]
pub enum Answer {
    /// The asking run owns the task now and starts.
    Run {
        /// The task's spec, when the message left it out.
        spec: Option<Box<TaskSpec>>,
        /// The job preparation to run first, once for all tasks of the job; the run counts as alive meanwhile.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        preparation: Option<Box<JobTask>>,
    },
    /// Another run of this agent already executes the attempt: it takes over the delivery.
    Resume {
        /// The run that goes on.
        run: RunId,
    },
    /// The attempt is void: the agent acknowledges the delivery and forgets it.
    Drop,
    /// The agent keeps the delivery and asks again after this long.
    Wait {
        /// The pause in milliseconds.
        ms: u64,
    },
}

/// The state of a pool, for the autoscaler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSnapshot {
    pub pool: PoolId,
    pub state: PoolState,
    /// Tells whether the pool's size is changing.
    pub allocation: AllocationState,
    /// The target number of dedicated nodes, whether a person, a formula or the policy set it.
    pub target_dedicated: u32,
    /// The target number of low-priority nodes, which the provider may take back.
    pub target_low_priority: u32,
    /// How to handle running tasks when the pool shrinks by hand.
    pub deallocation: DeallocationOption,
    /// The built-in scaling policy, when it is set.
    pub policy: Option<QueuePolicy>,
    pub slots_per_node: u32,
    /// Slots needed by tasks that are ready and wait.
    pub waiting_slots: u64,
    /// Slots used by running tasks.
    pub running_slots: u64,
    /// How long tasks have waited without interruption, in milliseconds.
    pub waiting_for_ms: u64,
    /// Why the pool has its size, as text.
    #[serde(default)]
    pub reason: String,
    /// The number of consecutive creations whose nodes never joined.
    #[serde(default)]
    pub failed_creations: u32,
    /// How long no more nodes are created because of that, in milliseconds.
    #[serde(default)]
    pub creation_rests_ms: u64,
    pub nodes: Vec<NodeSnapshot>,
}

/// The state of a node, for the autoscaler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSnapshot {
    pub node: NodeId,
    pub state: NodeState,
    pub scheduling: SchedulingState,
    /// The number of runs on the node.
    pub runs: u32,
    /// How long the node has had no run, in milliseconds.
    pub idle_ms: u64,
    /// How long the node has been in its state, in milliseconds.
    pub state_ms: u64,
    pub is_draining: bool,
    /// The agent has confirmed that the node holds no run.
    pub is_drained: bool,
    /// Dedicated, not low-priority.
    pub is_dedicated: bool,
    /// The pending action on the node's machine.
    #[serde(default)]
    pub power: Option<Power>,
}

/// An action of a provider on a node's machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Power {
    /// The provider stops the empty node and keeps it.
    Stop,
    /// The provider starts the node, if it is stopped.
    Start,
}

/// A node to be created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeTicket {
    /// The name; the provider tags the machine with it.
    pub node: NodeId,
    /// The join token.
    pub token: String,
}
