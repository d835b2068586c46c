//! The life of attempts: publish, start, ask, end, cancel.
//!
//! The first `Started`, or the first ask that is answered with run, makes its run the owner. An end is accepted once:
//! from the owner, for the present attempt and fence. Only the run's own node, in the epoch that began the run, can
//! report on it; reports of others change nothing.

use contract::{
    clock::{Moment, Now},
    ids::{AttemptKey, Epoch, Fence, JobUid, NodeId, RunId, RunKey, TaskUid},
    message::{Finished, Started, Verdict},
    outcome::Outcome,
    time::Timestamp,
};
use model::{task::RequeueCause, usage::Work};

use crate::{Bug, CRASHES_MAX, Core, Effect, EndCause, JobStop};

/// An attempt inside the window: released or running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub job: JobUid,
    /// Task, number of the attempt, and fence.
    pub key: AttemptKey,
    /// Slots that the task needs.
    pub needs: u32,
    /// Slots that the attempt reserves: all of a node when it runs alone.
    pub slots: u32,
    /// Earlier attempts that had started when their node died.
    pub crashes: u32,
    /// Retries used so far.
    pub retries: u32,
    /// Retries allowed; -1 means no limit.
    pub retries_max: i32,
    pub phase: Phase,
}

/// The phase of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Published, or about to be.
    Released {
        /// When it was released, or last published.
        at: Moment,
        /// Whether the broker has confirmed the publish.
        is_published: bool,
        /// When a failed publish is repeated.
        retry_at: Option<Moment>,
    },
    /// Owned by a run.
    Running {
        run: RunId,
        node: NodeId,
        epoch: Epoch,
        /// When the run was last reported alive.
        seen_at: Moment,
        /// Whether it waits for the job's preparation on the node.
        is_preparing: bool,
        /// Whether its start is known from heartbeats only, because the `Started` event has not arrived.
        is_seen_only: bool,
    },
}

impl Attempt {
    /// The owning run and its node; `None` while released.
    pub fn owner(&self) -> Option<(RunId, &NodeId)> {
        match &self.phase {
            Phase::Running { run, node, .. } => Some((*run, node)),
            Phase::Released { .. } => None,
        }
    }

    /// Whether this run owns the attempt and the report comes from its own node in the epoch that began it.
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
    /// Restores an attempt that was alive when the dispatcher stopped.
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
            // A delivery that was turned away before its publish was confirmed waits for the next publish.
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

    /// Makes a run the owner of a released attempt. `at` may come from the node's clock.
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

    /// Takes over a run that its node's heartbeat lists though no start was received: the event was lost or is still on
    /// its way.
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

    /// Whether the node is known and this is its present epoch.
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
                    // The agent that reported the start is gone; its delivery comes back as a question.
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
            // The task was ended or requeued before the report arrived; its output may still be the last that the task
            // wrote.
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
            // The event for the preparation's end may have been lost; the run's end repeats it.
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

    /// Removes an attempt from the window and from its node.
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

    /// Handles a started attempt whose node died: counts it as a crash if the run may have caused it, and requeues or
    /// ends it.
    pub(super) fn lose(&mut self, uid: TaskUid, is_crash: bool, effects: &mut Vec<Effect>) {
        let Some(attempt) = self.live.get_mut(&uid) else { return };
        // A run that has not begun cannot have killed its node.
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

    /// Ends a run on a client's request, requeues or completes its task, and orders its node to stop it.
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

    /// Whether the attempt's slots fit on a node of the pool; if not, its row waits until they do.
    fn fits(&self, attempt: &Attempt) -> bool {
        attempt.needs <= self.slots_per_node || self.has(Bug::UnfitWaits)
    }

    /// Sets the slots per node of a pool without nodes. Released attempts that no longer fit are taken back.
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
