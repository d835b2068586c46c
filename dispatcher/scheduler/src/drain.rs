//! Emptying nodes: for a drain, a deallocation, or disabled scheduling.

use contract::{
    ids::{NodeId, RunKey},
    message::Heartbeat,
    state::{DeallocationOption, NodeState},
};

use crate::{Core, Effect};

impl Core {
    /// Whether the heartbeat lists the end of a run whose task is still released, or still owned by that run.
    pub(super) fn keeps_open_end(&self, heartbeat: &Heartbeat) -> bool {
        let is_open = |run: &RunKey| {
            let attempt = self.live.get(&run.uid).filter(|attempt| attempt.key == run.key());
            attempt.is_some_and(|attempt| attempt.owner().is_none_or(|(owner, node)| (owner, node) == (run.run, &heartbeat.node)))
        };
        heartbeat.kept.iter().any(is_open)
    }

    pub(super) fn on_drain(&mut self, id: NodeId, option: DeallocationOption, effects: &mut Vec<Effect>) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.drain = Some(option);
        if !node.is_off() {
            self.set_action(&id, None, effects);
        }
        match option {
            DeallocationOption::Requeue | DeallocationOption::Terminate => {
                for uid in self.held(&id) {
                    self.interrupt(uid, option == DeallocationOption::Requeue, effects);
                }
            }
            DeallocationOption::TaskCompletion | DeallocationOption::RetainedData => {}
        }
        self.note_empty(&id, effects);
    }

    /// Counts a draining node that does not answer as drained once its runs are gone.
    pub(super) fn note_empty(&mut self, id: &NodeId, effects: &mut Vec<Effect>) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        let cannot_answer = !node.has_joined() || node.is_lost || node.is_off() || node.reported == NodeState::Creating;
        if node.must_empty() && !node.is_drained && cannot_answer && node.runs.is_empty() {
            node.is_drained = true;
            effects.push(Effect::Drained { node: id.clone() });
        }
        let state = node.state();
        self.note_state(id, state, effects);
    }

    /// Enables or disables scheduling; disabling ends running tasks as the option says.
    pub(super) fn on_scheduling(&mut self, id: NodeId, enabled: bool, option: DeallocationOption, effects: &mut Vec<Effect>) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.is_enabled = enabled;
        }
        if !enabled && matches!(option, DeallocationOption::Requeue | DeallocationOption::Terminate) {
            for uid in self.held(&id) {
                self.interrupt(uid, option == DeallocationOption::Requeue, effects);
            }
        }
        self.note_empty(&id, effects);
    }
}
