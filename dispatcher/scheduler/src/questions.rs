//! Questions of agents. The answer is what the function returns; effects follow as from an event, and the answer leaves
//! after the commit that holds them.

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
    /// Run it.
    Run,
    /// Run it after this preparation, or beside it where the job does not wait.
    Prepare(JobTaskKey),
    /// That run of yours has it.
    Resume(RunId),
    /// Forget it.
    Drop,
    /// Ask again later.
    Wait(u64),
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatAnswer {
    /// One for each run that is not simply fine.
    pub verdicts: Vec<(RunId, Verdict)>,
    /// What the node shall do.
    pub order: NodeOrder,
    /// Job tasks it named that are over.
    pub over: Vec<JobTaskKey>,
    /// Releases it did not name that are due.
    pub releases: Vec<JobTaskKey>,
    /// The attempt that the node's slots are kept for, and how many.
    pub keep: Option<(AttemptKey, u32)>,
    /// The attempt that it sets slots aside for, when that needs none there.
    pub set_aside_in_vain: Option<AttemptKey>,
}

impl HeartbeatAnswer {
    /// The answer to a node whose pool is gone.
    pub fn leave() -> HeartbeatAnswer {
        HeartbeatAnswer { verdicts: vec![], order: NodeOrder::Leave, over: vec![], releases: vec![], keep: None, set_aside_in_vain: None }
    }
}

impl Core {
    /// May this delivery run on the node that asks, in this start of it? `prepares` says whether its agent knows
    /// preparations. The first run that is answered with run or prepare owns the attempt.
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

    /// May this run upload what it wrote, from the node that asks, in this start of it?
    pub fn may_publish(&mut self, run: RunKey, (node, epoch): (&NodeId, Epoch), now: Now, effects: &mut Vec<Effect>) -> bool {
        let now = self.begin(now);
        let owns = |attempt: &Attempt| attempt.key == run.key() && attempt.is_owned_by(run.run, (node, epoch));
        let is_owner = self.live.get(&run.uid).is_some_and(owns);
        // The start may still be on its way: asking is as good as telling.
        let is_first = !is_owner
            && self.live.get(&run.uid).is_some_and(|attempt| attempt.key == run.key() && attempt.owner().is_none())
            && self.is_present(node, epoch);
        if is_first {
            self.own(run, node, epoch, now.time, now.moment, effects);
        }
        is_owner || is_first || self.has(Bug::EverybodyPublishes)
    }

    /// An agent is alive, and lists what it runs and keeps.
    pub fn heartbeat(&mut self, heartbeat: Heartbeat, now: Now, effects: &mut Vec<Effect>) -> HeartbeatAnswer {
        let now = self.begin(now);
        self.on_heartbeat(heartbeat, now, effects)
    }
}
