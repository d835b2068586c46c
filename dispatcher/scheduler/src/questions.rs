//! Questions of agents. Each function returns the answer, which the engine sends after the commit of the effects.

use contract::{
    clock::Now,
    ids::{AttemptKey, Epoch, NodeId, RunId, RunKey},
    message::{Heartbeat, NodeOrder, Verdict},
    outcome::JobTaskKey,
};

use crate::{Attempt, Bug, Core, Effect, Phase, WAIT_MS};

/// The answer to a delivery that asks whether it may run; the engine adds the spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskAnswer {
    Run,
    /// Run it after this preparation, or beside it when the job does not wait.
    Prepare(JobTaskKey),
    /// This run of the same node already owns it.
    Resume(RunId),
    Drop,
    /// Ask again after this many milliseconds.
    Wait(u64),
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatAnswer {
    /// Verdicts for the runs that are not simply to go on.
    pub verdicts: Vec<(RunId, Verdict)>,
    pub order: NodeOrder,
    /// Listed job tasks that are over.
    pub over: Vec<JobTaskKey>,
    /// Due releases that the heartbeat did not list.
    pub releases: Vec<JobTaskKey>,
    /// The attempt that the node's slots are kept for, and how many.
    pub keep: Option<(AttemptKey, u32)>,
    /// The attempt for which the node sets slots aside although it needs none there.
    pub set_aside_in_vain: Option<AttemptKey>,
}

impl HeartbeatAnswer {
    /// The answer to a node whose pool is gone.
    pub fn leave() -> HeartbeatAnswer {
        HeartbeatAnswer { verdicts: vec![], order: NodeOrder::Leave, over: vec![], releases: vec![], keep: None, set_aside_in_vain: None }
    }
}

impl Core {
    /// Whether a delivery may run on the node that asks. The first run that is answered with run or prepare owns the
    /// attempt. `prepares` says whether the agent knows preparations.
    pub fn ask(&mut self, run: RunKey, (node, epoch): (&NodeId, Epoch), prepares: bool, now: Now, effects: &mut Vec<Effect>) -> AskAnswer {
        let now = self.begin(now);
        let (mut answer, mut waits) = (self.answer(&run, node, epoch), false);
        if answer == AskAnswer::Run {
            (answer, waits) = self.prepare(&run, (node, epoch), prepares, now, effects);
        }
        if matches!(answer, AskAnswer::Run | AskAnswer::Prepare(_))
            && self.live.get(&run.uid).is_some_and(|attempt| attempt.owner().is_none_or(|(owner, _)| owner != run.run))
        {
            self.own_for(run, node, epoch, (now.time, waits), now.moment, effects);
        }
        answer
    }

    fn answer(&self, run: &RunKey, node: &NodeId, epoch: Epoch) -> AskAnswer {
        let Some(attempt) = self.live.get(&run.uid) else { return AskAnswer::Drop };
        if self.has(Bug::AskAlwaysRuns) {
            return AskAnswer::Run;
        }
        if attempt.key != run.key() {
            return AskAnswer::Drop;
        }
        let Some(asker) = self.nodes.get(node).filter(|asker| asker.epoch == epoch) else { return AskAnswer::Wait(WAIT_MS) };
        match &attempt.phase {
            Phase::Released { .. } if asker.takes_tasks() => AskAnswer::Run,
            Phase::Released { .. } => AskAnswer::Wait(WAIT_MS),
            Phase::Running { .. } if attempt.is_owned_by(run.run, (node, epoch)) => AskAnswer::Run,
            Phase::Running { run: owner, node: held_by, epoch: held_in, .. } if held_by == node && *held_in == epoch => {
                AskAnswer::Resume(*owner)
            }
            Phase::Running { .. } => AskAnswer::Drop,
        }
    }

    /// Whether a run may upload its outputs from the node that asks.
    pub fn may_publish(&mut self, run: RunKey, (node, epoch): (&NodeId, Epoch), now: Now, effects: &mut Vec<Effect>) -> bool {
        let now = self.begin(now);
        let owns = |attempt: &Attempt| attempt.key == run.key() && attempt.is_owned_by(run.run, (node, epoch));
        let is_owner = self.live.get(&run.uid).is_some_and(owns);
        // The start event may still be on its way; the question shows as well that the run has begun.
        let is_first = !is_owner
            && self.live.get(&run.uid).is_some_and(|attempt| attempt.key == run.key() && attempt.owner().is_none())
            && self.is_present(node, epoch);
        if is_first {
            self.own(run, node, epoch, now.time, now.moment, effects);
        }
        is_owner || is_first || self.has(Bug::EverybodyPublishes)
    }

    /// Handles a heartbeat, which lists the runs and ends that the node holds.
    pub fn heartbeat(&mut self, heartbeat: Heartbeat, now: Now, effects: &mut Vec<Effect>) -> HeartbeatAnswer {
        let now = self.begin(now);
        self.on_heartbeat(heartbeat, now, effects)
    }
}
