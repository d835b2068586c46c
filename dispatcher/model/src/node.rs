//! Actions on a node other than running tasks (reboot, reimage, deallocate, start), and its facts that tasks change.

use contract::{
    ids::{Epoch, NodeId, TaskUid},
    message::NodeOrder,
    state::{DeallocationOption, NodeState},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

/// Plain properties of a node, which its agent gives when it joins. Records, rows and answers pass them on as a whole;
/// those that serialize are shown under these names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeProperties {
    /// `None` before the first join.
    #[serde(rename = "ipAddress", skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(skip)]
    pub agent_version: Option<String>,
    /// Number of processors; zero before the first join.
    #[serde(skip)]
    pub cores: u32,
}

/// Facts of a node that change with every task. The engine writes them to the node's row only now and then; readers get
/// them from the engine meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeActivity {
    pub id: NodeId,
    pub state: NodeState,
    pub state_at: Timestamp,
    pub tasks_run: u64,
    pub tasks_succeeded: u64,
    /// The last tasks, newest last.
    pub recent: Vec<TaskUid>,
}

/// An action that a client can request for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeActionKind {
    /// Restart the agent.
    Reboot,
    /// Restart the agent with empty folders.
    Reimage,
    /// Stop the machine and keep it.
    Deallocate,
    /// Start a deallocated machine.
    Start,
}

/// A requested action that is not finished yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "turn", rename_all = "lowercase")]
pub enum NodeAction {
    /// The agent ends and is started again.
    Reboot {
        /// Fate of the running tasks.
        option: DeallocationOption,
        /// Epoch of the agent that was asked; a newer one finishes the action.
        since: Epoch,
    },
    /// Like a reboot, with empty folders.
    Reimage {
        /// Fate of the running tasks.
        option: DeallocationOption,
        /// Epoch of the agent that was asked; a newer one finishes the action.
        since: Epoch,
    },
    /// The node finishes or ends its tasks, then its provider stops it.
    Deallocate {
        /// Fate of the running tasks.
        option: DeallocationOption,
    },
    /// The node is deallocated: stopped and kept.
    Off,
    /// The provider is starting the node again.
    Start,
}

impl NodeAction {
    /// The node state that clients see during the action.
    pub fn state(self) -> NodeState {
        match self {
            NodeAction::Reboot { .. } => NodeState::Rebooting,
            NodeAction::Reimage { .. } => NodeState::Reimaging,
            NodeAction::Deallocate { .. } => NodeState::Deallocating,
            NodeAction::Off => NodeState::Deallocated,
            NodeAction::Start => NodeState::Starting,
        }
    }

    /// Fate of the node's running tasks; `None` where the action touches none.
    pub fn option(self) -> Option<DeallocationOption> {
        match self {
            NodeAction::Reboot { option, .. } | NodeAction::Reimage { option, .. } | NodeAction::Deallocate { option } => Some(option),
            NodeAction::Off | NodeAction::Start => None,
        }
    }

    /// Whether the agent is expected to be silent until it has restarted.
    pub fn is_restart(self) -> bool {
        matches!(self, NodeAction::Reboot { .. } | NodeAction::Reimage { .. } | NodeAction::Start)
    }

    /// The order for the agent with this epoch; `None` when it has nothing to do for this action.
    pub fn order(self, epoch: Epoch) -> Option<NodeOrder> {
        match self {
            NodeAction::Reboot { option, since } | NodeAction::Reimage { option, since } if epoch <= since => {
                Some(NodeOrder::Restart { option })
            }
            NodeAction::Reboot { .. } | NodeAction::Reimage { .. } | NodeAction::Start => None,
            NodeAction::Deallocate { option } => Some(NodeOrder::Drain { option }),
            NodeAction::Off => Some(NodeOrder::Leave),
        }
    }
}
