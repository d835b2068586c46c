//! What people ask of a node beside running tasks: to start again, to be set up anew, to rest.
//!
//! ```text
//! idle, running ──► rebooting ──newer start joins──► starting ► …
//!               ──► reimaging ──its first report──► …
//!               ──► deallocating ──empty──► stopped by the provider: deallocated ──► starting ──joins──► …
//! ```
//! A turn is over only when a newer start of the agent shows it, so nothing that is lost on the way leaves it half done.

use contract::{clock::Moment, ids::NodeId, message::Power, state::DeallocationOption, time::Timestamp};
use model::node::NodeAction;

use crate::{Core, Effect, Node};

/// A node that starts again is not taken for lost before this long.
pub const RESTART_MS: i64 = 600_000;

impl Node {
    /// Whether its agent must empty its folders first.
    pub fn is_reimaged(&self) -> bool {
        matches!(self.action, Some(NodeAction::Reimage { since, .. }) if self.epoch > since)
    }

    /// Whether it is stopped and kept.
    pub fn is_off(&self) -> bool {
        self.action == Some(NodeAction::Off)
    }

    /// What its provider shall do now.
    pub fn power(&self) -> Option<Power> {
        match self.action {
            Some(NodeAction::Deallocate { .. }) if self.is_drained && self.drain.is_none() => Some(Power::Stop),
            Some(NodeAction::Start) => Some(Power::Start),
            _ => None,
        }
    }
}

impl Core {
    /// Somebody asks a node for a turn.
    pub(super) fn on_action(&mut self, id: NodeId, action: NodeAction, now: Moment, effects: &mut Vec<Effect>) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if action == NodeAction::Start {
            // Its lease begins anew, for it could not heartbeat while it was off.
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

    /// The provider has stopped a node.
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

    /// A newer start of the agent has joined: what was asked of the older one is over.
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
