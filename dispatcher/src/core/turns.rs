//! What people ask of a node beside running tasks: to start again, to be set up anew, to rest.
//!
//! ```text
//! idle, running ──► rebooting ──newer start joins──► starting ► …
//!               ──► reimaging ──its first report──► …
//!               ──► deallocating ──empty──► stopped by the provider: deallocated ──► starting ──joins──► …
//! ```
//! A turn is over only when a newer start of the agent shows it, so nothing that is lost on the way leaves it half done.

use broker_config::{
    ids::{Epoch, NodeId},
    message::{NodeOrder, Power},
    state::{DeallocationOption, NodeState},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::core::{Core, Effect, Node};

/// A node that starts again is not taken for lost before this long.
pub const RESTART_MS: i64 = 600_000;

/// What a node is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "turn", rename_all = "lowercase")]
pub enum Turn {
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

impl Turn {
    /// The state people see meanwhile.
    pub fn state(self) -> NodeState {
        match self {
            Turn::Reboot { .. } => NodeState::Rebooting,
            Turn::Reimage { .. } => NodeState::Reimaging,
            Turn::Deallocate { .. } => NodeState::Deallocating,
            Turn::Off => NodeState::Deallocated,
            Turn::Start => NodeState::Starting,
        }
    }

    /// What becomes of the node's tasks.
    pub fn option(self) -> Option<DeallocationOption> {
        match self {
            Turn::Reboot { option, .. } | Turn::Reimage { option, .. } | Turn::Deallocate { option } => Some(option),
            Turn::Off | Turn::Start => None,
        }
    }

    /// Whether the agent is expected to be away for a while.
    pub(super) fn is_restart(self) -> bool {
        matches!(self, Turn::Reboot { .. } | Turn::Reimage { .. } | Turn::Start)
    }

    /// What the agent of this start is told, when the turn says.
    pub(super) fn order(self, epoch: Epoch) -> Option<NodeOrder> {
        match self {
            Turn::Reboot { option, since } | Turn::Reimage { option, since } if epoch <= since => Some(NodeOrder::Restart { option }),
            Turn::Reboot { .. } | Turn::Reimage { .. } | Turn::Start => None,
            Turn::Deallocate { option } => Some(NodeOrder::Drain { option }),
            Turn::Off => Some(NodeOrder::Leave),
        }
    }
}

impl Node {
    /// Whether its agent must empty its folders first.
    pub fn is_reimaged(&self) -> bool {
        matches!(self.turn, Some(Turn::Reimage { since, .. }) if self.epoch > since)
    }

    /// Whether it is stopped and kept.
    pub fn is_off(&self) -> bool {
        self.turn == Some(Turn::Off)
    }

    /// What its provider shall do now.
    pub fn power(&self) -> Option<Power> {
        match self.turn {
            Some(Turn::Deallocate { .. }) if self.is_drained && self.drain.is_none() => Some(Power::Stop),
            Some(Turn::Start) => Some(Power::Start),
            _ => None,
        }
    }
}

impl Core {
    /// Somebody asks a node for a turn.
    pub(super) fn on_turn(&mut self, id: NodeId, turn: Turn, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if turn == Turn::Start {
            // Its lease begins anew, for it could not beat while it was off.
            node.beat_at = now;
        }
        node.is_drained = false;
        self.set_turn(&id, Some(turn), effects);
        if let Some(option @ (DeallocationOption::Requeue | DeallocationOption::Terminate)) = turn.option() {
            for uid in self.held(&id) {
                self.interrupt(uid, option == DeallocationOption::Requeue, effects);
            }
        }
        self.note_empty(&id, effects);
    }

    /// The provider has stopped a node.
    pub(super) fn on_node_stopped(&mut self, id: NodeId, now: Timestamp, effects: &mut Vec<Effect>) {
        let is_asked = self.nodes.get(&id).is_some_and(|node| matches!(node.turn, Some(Turn::Deallocate { .. })));
        if !is_asked {
            return;
        }
        for uid in self.held(&id) {
            self.lose(uid, effects);
        }
        self.set_turn(&id, Some(Turn::Off), effects);
        self.give_up_releases(&id, "the node was stopped", now, effects);
        self.note_empty(&id, effects);
    }

    /// A newer start of the agent has joined: what was asked of the older one is over.
    pub(super) fn end_restart(&mut self, id: &NodeId, effects: &mut Vec<Effect>) {
        if self.nodes.get(id).is_some_and(|node| matches!(node.turn, Some(Turn::Reboot { .. } | Turn::Start))) {
            self.set_turn(id, None, effects);
        }
    }

    pub(super) fn set_turn(&mut self, id: &NodeId, turn: Option<Turn>, effects: &mut Vec<Effect>) {
        if let Some(node) = self.nodes.get_mut(id)
            && node.turn != turn
        {
            node.turn = turn;
            effects.push(Effect::Turned { node: id.clone(), turn });
        }
    }
}
