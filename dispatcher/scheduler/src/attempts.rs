//! What happens to attempts: publish, start, ask, end, cancel.
//!
//! The first `Started`, or the first ask that is answered with run, makes its run the owner.
//! An end is accepted once, from the owner, for the present attempt and fence. Who speaks for a run is its own node
//! in the start that began it: what others say of it changes nothing.

use contract::{
    clock::{Moment, Now},
    ids::{AttemptKey, Epoch, Fence, JobUid, NodeId, RunId, RunKey, TaskUid},
    message::{Finished, Started, Verdict},
    outcome::Outcome,
    time::Timestamp,
};
use model::{task::RequeueCause, usage::Work};

use crate::{Bug, CRASHES_MAX, Core, Effect, EndCause, JobStop};

/// One attempt inside the window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Its job.
    pub job: JobUid,
    /// Which attempt, under which fence.
    pub key: AttemptKey,
    /// Slots that its task needs.
    pub needs: u32,
    /// Slots it reserves: all of a node where it runs alone.
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
        at: Moment,
        /// Whether the broker has confirmed it.
        is_published: bool,
        /// A publish that failed is tried again then.
        retry_at: Option<Moment>,
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
        seen_at: Moment,
        /// It waits for the job's preparation on the node.
        is_preparing: bool,
        /// Its start was not told: it was seen in its node's heartbeats.
        is_seen_only: bool,
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

    /// Whether a run owns it, and it is that run's own node, in the start that began it, which speaks.
    pub(super) fn is_owned_by(&self, run: RunId, (node, epoch): (&NodeId, Epoch)) -> bool {
        match &self.phase {
            Phase::Running { run: owner, node: held_by, epoch: held_in, .. } => *owner == run && held_by == node && *held_in == epoch,
            Phase::Released { .. } => false,
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

    pub(super) fn on_publish_failed(&mut self, key: AttemptKey, now: Moment) {
        if let Some(attempt) = self.live.get_mut(&key.uid)
            && attempt.key == key
            && let Phase::Released { retry_at, is_published, .. } = &mut attempt.phase
            && !*is_published
        {
            *retry_at = Some(now.plus_ms(self.timers.republish_ms));
        }
    }

    /// Makes a run the owner of a released attempt. Its start may be told by the node's clock.
    pub(super) fn own(&mut self, run: RunKey, node: &NodeId, epoch: Epoch, at: Timestamp, now: Moment, effects: &mut Vec<Effect>) {
        self.own_for(run, node, epoch, (at, false), now, effects);
    }

    pub(super) fn own_for(
        &mut self,
        run: RunKey,
        node: &NodeId,
        epoch: Epoch,
        (at, is_preparing): (Timestamp, bool),
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let Some(attempt) = self.live.get_mut(&run.uid) else { return };
        attempt.phase = Phase::Running { run: run.run, node: node.clone(), epoch, seen_at: now, is_preparing, is_seen_only: false };
        let (job, slots) = (attempt.job, attempt.slots);
        if let Some(facts) = self.nodes.get_mut(node) {
            facts.hold(run.uid, slots);
            let state = facts.state();
            self.note_state(node, state, effects);
        }
        effects.push(Effect::Start { job, run, node: node.clone(), epoch, at, is_preparing });
    }

    /// A run that its node lists though its start was never heard of: the start was lost, or is still under way.
    pub(super) fn own_seen(&mut self, run: RunKey, node: &NodeId, epoch: Epoch, now: Now, effects: &mut Vec<Effect>) {
        if self.live.get(&run.uid).is_none_or(|attempt| attempt.owner().is_some()) {
            return;
        }
        self.own(run, node, epoch, now.time, now.moment, effects);
        if let Some(attempt) = self.live.get_mut(&run.uid)
            && let Phase::Running { is_seen_only, .. } = &mut attempt.phase
        {
            *is_seen_only = true;
        }
    }

    /// Whether a node is there and this is its present start.
    pub(super) fn is_present(&self, node: &NodeId, epoch: Epoch) -> bool {
        self.nodes.get(node).is_some_and(|facts| facts.epoch == epoch)
    }

    pub(super) fn on_started(&mut self, node: &NodeId, epoch: Epoch, started: Started, now: Moment, effects: &mut Vec<Effect>) {
        let run = started.run_key();
        let fenced = Effect::Stop { node: node.clone(), run: run.run, verdict: Verdict::Fenced };
        let is_present = self.is_present(node, epoch);
        match self.live.get_mut(&run.uid) {
            Some(attempt) if attempt.key == run.key() => {
                let is_owner = attempt.is_owned_by(run.run, (node, epoch));
                match &mut attempt.phase {
                    // A start told by an agent that is gone: its delivery comes back as a question.
                    Phase::Released { .. } if is_present => self.own(run, node, epoch, started.at, now, effects),
                    Phase::Released { .. } => {}
                    Phase::Running { is_preparing, is_seen_only, .. } if is_owner => {
                        if std::mem::take(is_preparing) | std::mem::take(is_seen_only) {
                            effects.push(Effect::Begin { run, at: started.at });
                        }
                    }
                    Phase::Running { .. } => effects.push(fenced),
                }
            }
            _ => effects.push(fenced),
        }
    }

    pub(super) fn on_finished(&mut self, node: NodeId, epoch: Epoch, finished: Box<Finished>, now: Moment, effects: &mut Vec<Effect>) {
        let run = finished.run_key();
        let is_current = |attempt: &&Attempt| attempt.key == run.key() || self.has(Bug::OldFenceAccepted);
        let Some(attempt) = self.live.get(&run.uid).filter(is_current) else {
            // Decided before it could tell; what it wrote may still be the last that the task wrote.
            if !self.has(Bug::StreamsDropped) {
                effects.push(Effect::KeepStreams { node, finished });
            }
            return;
        };
        let is_believed = self.has(Bug::EndFromAnyNode) || self.has(Bug::FinishedFromAnyone);
        match &attempt.phase {
            Phase::Running { run: owner, .. } if *owner != run.run && !self.has(Bug::FinishedFromAnyone) => return,
            Phase::Running { .. } if !attempt.is_owned_by(run.run, (&node, epoch)) && !is_believed => return,
            Phase::Running { .. } => {}
            Phase::Released { .. } if !self.is_present(&node, epoch) && !is_believed => return,
            Phase::Released { .. } => self.own(run, &node, epoch, finished.started_at, now, effects),
        }
        if let Outcome::Unprepared(end) = finished.outcome {
            // The end of the preparation may have been lost; the one inside is as good.
            self.on_job_task_ended(&node, epoch, end, effects);
            return self.requeue(run.uid, RequeueCause::Unprepared, effects);
        }
        if matches!(finished.outcome, Outcome::Exit { .. } | Outcome::Signal { .. }) {
            self.note_worked(&node);
        }
        let Some(attempt) = self.live.get(&run.uid) else { return };
        let (job, work) = (attempt.job, Work::of(&finished));
        effects.push(Effect::Used { job, run, work, started_at: finished.started_at });
        self.window.completed(now);
        let may_retry = attempt.may_retry() || (self.has(Bug::OneRetryTooMany) && attempt.retries == attempt.retries_max.unsigned_abs());
        match &finished.outcome {
            Outcome::Exit { code: 0 } => return self.end(run.uid, EndCause::Finished(finished), effects),
            Outcome::Exit { .. } | Outcome::Signal { .. } if may_retry => self.requeue(run.uid, RequeueCause::Retry, effects),
            Outcome::Stopped => self.requeue(run.uid, RequeueCause::Requested, effects),
            Outcome::Node(fault) => self.on_fault(run.uid, fault, now, effects),
            _ => return self.end(run.uid, EndCause::Finished(finished), effects),
        }
        effects.push(Effect::KeepStreams { node, finished });
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

    pub(super) fn end(&mut self, uid: TaskUid, cause: EndCause, effects: &mut Vec<Effect>) {
        let Some(attempt) = self.remove(uid, effects) else { return };
        self.forget_faults(uid);
        let node = attempt.owner().map(|(_, node)| node.clone());
        effects.push(Effect::End { job: attempt.job, uid, fence: attempt.key.fence.next(), was_running: node.is_some(), node, cause });
    }

    pub(super) fn requeue(&mut self, uid: TaskUid, cause: RequeueCause, effects: &mut Vec<Effect>) {
        let pause_ms = self.live.get(&uid).map_or(0, |attempt| self.pause_ms(attempt, cause));
        self.requeue_after(uid, cause, pause_ms, effects);
    }

    pub(super) fn requeue_after(&mut self, uid: TaskUid, cause: RequeueCause, pause_ms: u64, effects: &mut Vec<Effect>) {
        let Some(attempt) = self.remove(uid, effects) else { return };
        if pause_ms > 0 {
            self.note_rest(attempt.job);
        } else {
            self.wait(attempt.job, u64::from(self.fits(&attempt) && !self.has(Bug::RequeueNotCounted)));
        }
        let fence = self.next_fence(attempt.key.fence);
        effects.push(Effect::Requeue { job: attempt.job, uid, fence, cause, crashes: attempt.crashes, pause_ms });
    }

    /// A started attempt whose node died: counted if it may have been the reason, and bounded.
    pub(super) fn lose(&mut self, uid: TaskUid, is_crash: bool, effects: &mut Vec<Effect>) {
        let Some(attempt) = self.live.get_mut(&uid) else { return };
        // What had not begun cannot have killed its node.
        let has_begun = !matches!(attempt.phase, Phase::Running { is_preparing: true, .. });
        attempt.crashes += u32::from(has_begun && is_crash);
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
            self.forget_faults(uid);
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
        self.wait(attempt.job, u64::from(self.fits(&attempt)));
        effects.push(Effect::Unrelease { job: attempt.job, uid, fence: attempt.key.fence.next() });
    }

    /// Whether the pool's nodes have slots enough for an attempt's task; else its row waits until they have.
    fn fits(&self, attempt: &Attempt) -> bool {
        attempt.needs <= self.slots_per_node || self.has(Bug::UnfitWaits)
    }

    /// The pool's nodes have other slots from now on; it has none. What was released for more of them comes back.
    pub(super) fn on_slots_per_node(&mut self, slots: u32, effects: &mut Vec<Effect>) {
        self.slots_per_node = slots;
        let is_too_wide = |attempt: &Attempt| attempt.owner().is_none() && attempt.slots > slots;
        let mut uids: Vec<TaskUid> = self.live.iter().filter(|(_, attempt)| is_too_wide(attempt)).map(|(uid, _)| *uid).collect();
        uids.sort_unstable();
        if self.has(Bug::UnfitStaysReleased) {
            return;
        }
        for uid in uids {
            self.unrelease(uid, effects);
        }
    }
}
