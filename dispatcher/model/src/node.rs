//! What can be asked of a node beside running tasks: reboot, reimage, deallocate, start.

use contract::{
    ids::Epoch,
    message::NodeOrder,
    state::{DeallocationOption, NodeState},
};
use serde::{Deserialize, Serialize};

/// What a node can be asked beside running tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeActionKind {
    /// End and start again.
    Reboot,
    /// The same with empty folders.
    Reimage,
    /// Be stopped and kept.
    Deallocate,
    /// Be started after that.
    Start,
}

/// What a node is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "turn", rename_all = "lowercase")]
pub enum NodeAction {
    /// Its agent ends and is started again.
    Reboot {
        /// What becomes of its tasks.
        option: DeallocationOption,
        /// The start that was asked.
        since: Epoch,
    },
    /// The same, with empty folders.
    Reimage {
        /// What becomes of its tasks.
        option: DeallocationOption,
        /// The start that was asked.
        since: Epoch,
    },
    /// It is emptied, to be stopped.
    Deallocate {
        /// What becomes of its tasks.
        option: DeallocationOption,
    },
    /// It is stopped and kept.
    Off,
    /// Its provider starts it.
    Start,
}

impl NodeAction {
    /// The state people see meanwhile.
    pub fn state(self) -> NodeState {
        match self {
            NodeAction::Reboot { .. } => NodeState::Rebooting,
            NodeAction::Reimage { .. } => NodeState::Reimaging,
            NodeAction::Deallocate { .. } => NodeState::Deallocating,
            NodeAction::Off => NodeState::Deallocated,
            NodeAction::Start => NodeState::Starting,
        }
    }

    /// What becomes of the node's tasks.
    pub fn option(self) -> Option<DeallocationOption> {
        match self {
            NodeAction::Reboot { option, .. } | NodeAction::Reimage { option, .. } | NodeAction::Deallocate { option } => Some(option),
            NodeAction::Off | NodeAction::Start => None,
        }
    }

    /// Whether the agent is expected to be away for a while.
    pub fn is_restart(self) -> bool {
        matches!(self, NodeAction::Reboot { .. } | NodeAction::Reimage { .. } | NodeAction::Start)
    }

    /// What the agent of this start is told, when the turn says.
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
