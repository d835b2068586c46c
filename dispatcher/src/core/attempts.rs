//! What happens to attempts: publish, start, ask, end, cancel.
//!
//! The first `Started`, or the first ask that is answered with run, makes its run the owner.
//! An end is accepted once, from the owner, for the present attempt and fence.

use broker_config::{
    ids::{AttemptKey, Epoch, Fence, JobUid, NodeId, RunId, RunKey, TaskUid},
    message::{Finished, Outcome, Started, Verdict},
    time::Timestamp,
};

use crate::{
    core::{AskAnswer, Bug, CRASHES_MAX, Core, Effect, EndCause, JobStop, WAIT_MS},
    store::{records::RequeueCause, usage::Work},
};

/// One attempt inside the window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Its job.
    pub job: JobUid,
    /// Which attempt, under which fence.
    pub key: AttemptKey,
    /// Slots it reserves.
    pub slots: u32,
    /// Started attempts whose node died, before this one.
    pub crashes: u32,
    /// Retries spent.
    pub retries: u32,
    /// Retries allowed; -1 is no limit.
    pub retries_max: i32,
    /// How far it is.
    pub phase: Phase,
}

/// How far an attempt is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// In the broker's hands, or on the way there.
    Released {
        /// Since when, or the last time it was published.
        at: Timestamp,
        /// Whether the broker has confirmed it.
        is_published: bool,
        /// A publish that failed is tried again then.
        retry_at: Option<Timestamp>,
    },
    /// Owned by a run.
    Running {
        /// The run.
        run: RunId,
        /// Its node.
        node: NodeId,
        /// The node's start.
        epoch: Epoch,
        /// The last time it was known to be there.
        seen_at: Timestamp,
        /// It waits for the job's preparation on the node.
        is_preparing: bool,
    },
}

impl Attempt {
    /// The run that owns it, and where.
    pub fn owner(&self) -> Option<(RunId, &NodeId)> {
        match &self.phase {
            Phase::Running { run, node, .. } => Some((*run, node)),
            Phase::Released { .. } => None,
        }
    }

    fn may_retry(&self) -> bool {
        self.retries_max < 0 || self.retries < self.retries_max.unsigned_abs()
    }
}

impl Core {
    /// An attempt that was alive when the dispatcher stopped.
    pub fn restore_attempt(&mut self, job: JobUid, attempt: Attempt) {
        if let Some(facts) = self.jobs.get_mut(&job) {
            facts.live += 1;
        }
        if let Phase::Running { node, .. } = &attempt.phase
            && let Some(node) = self.nodes.get_mut(node)
        {
            node.hold(attempt.key.uid, attempt.slots);
        }
        self.live.insert(attempt.key.uid, attempt);
    }

    pub(super) fn on_published(&mut self, key: AttemptKey, effects: &mut Vec<Effect>) {
        if let Some(attempt) = self.live.get_mut(&key.uid)
            && attempt.key == key
        {
            // A delivery that was turned away before its confirm came waits for its next publish.
            if let Phase::Released { is_published, retry_at, .. } = &mut attempt.phase
                && !*is_published
            {
                (*is_published, *retry_at) = (true, None);
            }
            effects.push(Effect::Published { uid: key.uid });
        }
    }

    pub(super) fn on_publish_failed(&mut self, key: AttemptKey, now: Timestamp) {
        if let Some(attempt) = self.live.get_mut(&key.uid)
            && attempt.key == key
            && let Phase::Released { retry_at, is_published, .. } = &mut attempt.phase
            && !*is_published
        {
            *retry_at = Some(now.plus_ms(self.timers.republish_ms));
        }
    }

    /// Makes a run the owner of a released attempt. Its start may be told by the node's clock, which is
    /// never compared with ours.
    fn own(&mut self, run: RunKey, node: &NodeId, epoch: Epoch, at: Timestamp, now: Timestamp, effects: &mut Vec<Effect>) {
        self.own_for(run, node, epoch, (at, false), now, effects);
    }

    fn own_for(
        &mut self,
        run: RunKey,
        node: &NodeId,
        epoch: Epoch,
        (at, is_preparing): (Timestamp, bool),
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(attempt) = self.live.get_mut(&run.uid) else { return };
        attempt.phase = Phase::Running { run: run.run, node: node.clone(), epoch, seen_at: now, is_preparing };
        let (job, slots) = (attempt.job, attempt.slots);
        if let Some(facts) = self.nodes.get_mut(node) {
            facts.hold(run.uid, slots);
            let state = facts.state();
            self.note_state(node, state, effects);
        }
        effects.push(Effect::Start { job, run, node: node.clone(), epoch, at, is_preparing });
    }

    pub(super) fn on_started(&mut self, node: &NodeId, epoch: Epoch, started: Started, now: Timestamp, effects: &mut Vec<Effect>) {
        let run = started.run_key();
        let fenced = Effect::Stop { node: node.clone(), run: run.run, verdict: Verdict::Fenced };
        match self.live.get_mut(&run.uid) {
            Some(attempt) if attempt.key == run.key() => match &mut attempt.phase {
                Phase::Released { .. } => {
                    // A start told by an agent that is gone: its delivery comes back as a question.
                    if self.nodes.get(node).is_some_and(|facts| facts.epoch == epoch) {
                        self.own(run, node, epoch, started.at, now, effects);
                    }
                }
                Phase::Running { run: owner, is_preparing, .. } if *owner == run.run => {
                    if std::mem::take(is_preparing) {
                        effects.push(Effect::Begin { run, at: started.at });
                    }
                }
                Phase::Running { .. } => effects.push(fenced),
            },
            _ => effects.push(fenced),
        }
    }

    pub(super) fn on_ask(&mut self, run: RunKey, node: NodeId, epoch: Epoch, prepares: bool, now: Timestamp, effects: &mut Vec<Effect>) {
        let (mut answer, mut waits) = (self.answer(&run, &node, epoch), false);
        if answer == AskAnswer::Run {
            (answer, waits) = self.prepare(&run, (&node, epoch), prepares, now, effects);
        }
        if matches!(answer, AskAnswer::Run | AskAnswer::Prepare(_))
            && self.live.get(&run.uid).is_some_and(|attempt| attempt.owner().is_none_or(|(owner, _)| owner != run.run))
        {
            self.own_for(run, &node, epoch, (now, waits), now, effects);
        }
        effects.push(Effect::Answer(answer));
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
            Phase::Running { run: owner, .. } if *owner == run.run => AskAnswer::Run,
            Phase::Running { run: owner, node: held_by, epoch: held_in, .. } if held_by == node && *held_in == epoch => {
                AskAnswer::Resume(*owner)
            }
            Phase::Running { .. } => AskAnswer::Drop,
        }
    }

    pub(super) fn on_may_publish(&mut self, run: RunKey, node: &NodeId, epoch: Epoch, now: Timestamp, effects: &mut Vec<Effect>) {
        let owns = |attempt: &Attempt| {
            attempt.key == run.key()
                && match &attempt.phase {
                    Phase::Running { run: owner, .. } => *owner == run.run,
                    Phase::Released { .. } => false,
                }
        };
        let is_owner = self.live.get(&run.uid).is_some_and(owns);
        // The start may still be on its way: asking is as good as telling.
        let is_first = !is_owner
            && self.live.get(&run.uid).is_some_and(|attempt| attempt.key == run.key() && attempt.owner().is_none())
            && self.nodes.get(node).is_some_and(|facts| facts.epoch == epoch);
        if is_first {
            self.own(run, node, epoch, now, now, effects);
        }
        effects.push(Effect::MayPublish(is_owner || is_first || self.has(Bug::EverybodyPublishes)));
    }

    pub(super) fn on_finished(&mut self, node: NodeId, epoch: Epoch, finished: Box<Finished>, now: Timestamp, effects: &mut Vec<Effect>) {
        let run = finished.run_key();
        let Some(attempt) = self.live.get(&run.uid) else { return };
        if attempt.key != run.key() && !self.has(Bug::OldFenceAccepted) {
            return;
        }
        match &attempt.phase {
            Phase::Running { run: owner, .. } if *owner != run.run && !self.has(Bug::FinishedFromAnyone) => return,
            Phase::Running { .. } => {}
            Phase::Released { .. } => self.own(run, &node, epoch, finished.started_at, now, effects),
        }
        if let Outcome::Unprepared(end) = finished.outcome {
            // The end of the preparation may have been lost; the one inside is as good.
            self.on_chore_ended(&node, epoch, end, effects);
            return self.requeue(run.uid, RequeueCause::Unprepared, effects);
        }
        let Some(attempt) = self.live.get(&run.uid) else { return };
        let (job, work) = (attempt.job, Work::of(&finished));
        effects.push(Effect::Used { job, run, work, started_at: finished.started_at });
        self.window.completed(now);
        let may_retry = attempt.may_retry() || (self.has(Bug::OneRetryTooMany) && attempt.retries == attempt.retries_max.unsigned_abs());
        match &finished.outcome {
            Outcome::Exit { code: 0 } => self.end(run.uid, EndCause::Finished(finished), effects),
            Outcome::Exit { .. } | Outcome::Signal { .. } if may_retry => self.requeue(run.uid, RequeueCause::Retry, effects),
            Outcome::Stopped => self.requeue(run.uid, RequeueCause::Requested, effects),
            Outcome::Node(_) => self.lose(run.uid, effects),
            _ => self.end(run.uid, EndCause::Finished(finished), effects),
        }
    }

    /// Takes an attempt out of the window and off its node.
    fn remove(&mut self, uid: TaskUid, effects: &mut Vec<Effect>) -> Option<Attempt> {
        let attempt = self.live.remove(&uid)?;
        if let Some(job) = self.jobs.get_mut(&attempt.job) {
            job.live = job.live.saturating_sub(1);
        }
        self.window.left(if self.has(Bug::WindowNeverLeft) { 0 } else { attempt.slots });
        if let Phase::Running { node, .. } = &attempt.phase {
            self.release_hold(&node.clone(), uid, attempt.slots, effects);
        }
        Some(attempt)
    }

    fn next_fence(&self, fence: Fence) -> Fence {
        if self.has(Bug::RequeueKeepsFence) { fence } else { fence.next() }
    }

    fn end(&mut self, uid: TaskUid, cause: EndCause, effects: &mut Vec<Effect>) {
        let Some(attempt) = self.remove(uid, effects) else { return };
        let node = attempt.owner().map(|(_, node)| node.clone());
        effects.push(Effect::End { job: attempt.job, uid, fence: attempt.key.fence.next(), was_running: node.is_some(), node, cause });
    }

    pub(super) fn requeue(&mut self, uid: TaskUid, cause: RequeueCause, effects: &mut Vec<Effect>) {
        let Some(attempt) = self.remove(uid, effects) else { return };
        self.wait(attempt.job, u64::from(!self.has(Bug::RequeueNotCounted)));
        let fence = self.next_fence(attempt.key.fence);
        effects.push(Effect::Requeue { job: attempt.job, uid, fence, cause, crashes: attempt.crashes });
    }

    /// A started attempt whose node died or broke: counted, and bounded.
    pub(super) fn lose(&mut self, uid: TaskUid, effects: &mut Vec<Effect>) {
        let Some(attempt) = self.live.get_mut(&uid) else { return };
        // What had not begun cannot have killed its node.
        let has_begun = !matches!(attempt.phase, Phase::Running { is_preparing: true, .. });
        attempt.crashes += u32::from(has_begun);
        let crashes = attempt.crashes;
        if crashes >= CRASHES_MAX {
            self.end(uid, EndCause::Crashes(crashes), effects)
        } else {
            let cause = if self.has(Bug::LossSpendsRetries) { RequeueCause::Retry } else { RequeueCause::Recovery };
            self.requeue(uid, cause, effects)
        }
    }

    /// Ends a run for people's reasons: requeued or completed, and its node is told.
    pub(super) fn interrupt(&mut self, uid: TaskUid, requeue: bool, effects: &mut Vec<Effect>) {
        let Some(attempt) = self.live.get(&uid) else { return };
        if let Some((run, node)) = attempt.owner() {
            effects.push(Effect::Stop { node: node.clone(), run, verdict: Verdict::Stop });
        }
        if requeue { self.requeue(uid, RequeueCause::Requested, effects) } else { self.end(uid, EndCause::Ended, effects) }
    }

    pub(super) fn on_cancel(&mut self, uid: TaskUid, delete: bool, effects: &mut Vec<Effect>) {
        let Some(attempt) = self.live.get(&uid) else { return };
        match attempt.owner() {
            Some((run, node)) => effects.push(Effect::Stop { node: node.clone(), run, verdict: Verdict::Stop }),
            None => effects.push(Effect::Revoke(attempt.key)),
        }
        if delete {
            let Some(attempt) = self.remove(uid, effects) else { return };
            effects.push(Effect::Delete { job: attempt.job, uid, was_running: attempt.owner().is_some() });
        } else if self.has(Bug::CancelKeepsAttempt) {
            let copy = attempt.clone();
            self.end(uid, EndCause::Ended, effects);
            self.restore_attempt(copy.job, copy);
        } else {
            self.end(uid, EndCause::Ended, effects);
        }
    }

    pub(super) fn on_job_stopped(&mut self, job: JobUid, stop: JobStop, effects: &mut Vec<Effect>) {
        if let Some(facts) = self.jobs.get_mut(&job) {
            facts.runs = false;
        }
        let mut uids: Vec<TaskUid> = self.live.iter().filter(|(_, attempt)| attempt.job == job).map(|(uid, _)| *uid).collect();
        uids.sort_unstable();
        for uid in uids {
            let is_running = self.live.get(&uid).is_some_and(|attempt| attempt.owner().is_some());
            match stop {
                JobStop::Delete => self.on_cancel(uid, true, effects),
                JobStop::Wait if self.has(Bug::WaitKeepsReleased) => {}
                _ if !is_running => self.unrelease(uid, effects),
                JobStop::Requeue => self.interrupt(uid, true, effects),
                JobStop::End => self.interrupt(uid, false, effects),
                JobStop::Wait => {}
            }
        }
    }

    pub(super) fn unrelease(&mut self, uid: TaskUid, effects: &mut Vec<Effect>) {
        let Some(attempt) = self.remove(uid, effects) else { return };
        effects.push(Effect::Revoke(attempt.key));
        self.wait(attempt.job, 1);
        effects.push(Effect::Unrelease { job: attempt.job, uid, fence: attempt.key.fence.next() });
    }
}
