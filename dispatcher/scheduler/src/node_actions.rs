//! Node actions that clients request: reboot, reimage, deallocate, start.
//!
//! ```text
//! idle, running ──► rebooting ──newer epoch joins──► starting ► …
//!               ──► reimaging ──its first report──► …
//!               ──► deallocating ──empty──► stopped by the provider: deallocated ──► starting ──joins──► …
//! ```
//! An action has finished only when a newer epoch of the agent shows it, so a lost message never leaves it half done.

use contract::{clock::Moment, ids::NodeId, message::Power, state::DeallocationOption, time::Timestamp};
use model::node::NodeAction;

use crate::{Core, Effect, Node};

/// A node that restarts counts as lost only after this long.
pub const RESTART_MS: i64 = 600_000;

impl Node {
    /// Whether the agent must empty its folders first.
    pub fn is_reimaged(&self) -> bool {
        matches!(self.action, Some(NodeAction::Reimage { since, .. }) if self.epoch > since)
    }

    /// Whether the node is deallocated.
    pub fn is_off(&self) -> bool {
        self.action == Some(NodeAction::Off)
    }

    /// What the provider has to do for the action now.
    pub fn power(&self) -> Option<Power> {
        match self.action {
            Some(NodeAction::Deallocate { .. }) if self.is_drained && self.drain.is_none() => Some(Power::Stop),
            Some(NodeAction::Start) => Some(Power::Start),
            _ => None,
        }
    }
}

impl Core {
    /// Begins an action that a client requests.
    pub(super) fn on_action(&mut self, id: NodeId, action: NodeAction, now: Moment, effects: &mut Vec<Effect>) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if action == NodeAction::Start {
            // A fresh lease, because a node that was off could not send heartbeats.
            node.heartbeat_at = now;
        }
        node.is_drained = false;
        self.set_action(&id, Some(action), effects);
        if let Some(option @ (DeallocationOption::Requeue | DeallocationOption::Terminate)) = action.option() {
            for uid in self.held(&id) {
                self.interrupt(uid, option == DeallocationOption::Requeue, effects);
            }
        }
        self.note_empty(&id, effects);
    }

    /// Records that the provider has stopped a node.
    pub(super) fn on_node_stopped(&mut self, id: NodeId, now: Timestamp, effects: &mut Vec<Effect>) {
        let is_asked = self.nodes.get(&id).is_some_and(|node| matches!(node.action, Some(NodeAction::Deallocate { .. })));
        if !is_asked {
            return;
        }
        self.lose_all(&id, effects);
        self.set_action(&id, Some(NodeAction::Off), effects);
        self.give_up_releases(&id, "the node was stopped", now, effects);
        self.note_empty(&id, effects);
    }

    /// Finishes a reboot or reimage when a newer epoch of the agent has joined.
    pub(super) fn end_restart(&mut self, id: &NodeId, effects: &mut Vec<Effect>) {
        if self.nodes.get(id).is_some_and(|node| matches!(node.action, Some(NodeAction::Reboot { .. } | NodeAction::Start))) {
            self.set_action(id, None, effects);
        }
    }

    pub(super) fn set_action(&mut self, id: &NodeId, action: Option<NodeAction>, effects: &mut Vec<Effect>) {
        if let Some(node) = self.nodes.get_mut(id)
            && node.action != action
        {
            node.action = action;
            effects.push(Effect::NodeActionChanged { node: id.clone(), action });
        }
    }
}
