//! Decides how many tasks are in the broker at once, and which job is next.
//!
//! The window is the pool's slots plus a lookahead that follows the completions per second. Jobs are served by
//! priority, then by fewest released and running tasks, or by age when the pool says so; within a job the oldest task
//! is first.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
};

use contract::{
    clock::Moment,
    ids::{AttemptKey, JobUid, TaskUid},
};
use model::pool::JobOrder;

use crate::{Attempt, Bug, CRASHES_ALONE, Core, Effect, Phase, Ready};

/// The lookahead covers completions of this long.
const LOOKAHEAD_SECONDS: f64 = 0.25;
/// The lookahead never exceeds this many times the slots.
const LOOKAHEAD_PER_SLOT_MAX: u32 = 16;
/// The lookahead never exceeds this.
const LOOKAHEAD_MAX: u32 = 4_096;
/// The completion rate is measured over at least this long.
const RATE_MS: i64 = 250;

/// Attempts in the release order beyond twice the live ones; they pile up behind an old one that is not started.
const ORDER_SLACK: usize = 1_024;

/// The part of the backlog that is in the broker, counted in slots.
#[derive(Debug, Clone, Default)]
pub struct Window {
    live_slots: u32,
    rate: f64,
    counted: u32,
    counted_since: Moment,
    is_stalled: bool,
    order: VecDeque<(Moment, AttemptKey)>,
}

impl Window {
    pub(super) fn completed(&mut self, now: Moment) {
        if self.counted == 0 && now.since(self.counted_since) > 4 * RATE_MS {
            self.counted_since = now;
        }
        self.counted += 1;
        self.measure(now);
    }

    fn measure(&mut self, now: Moment) {
        let elapsed = now.since(self.counted_since);
        if elapsed >= RATE_MS {
            let rate = f64::from(self.counted) * 1000.0 / elapsed as f64;
            self.rate = if rate > self.rate { rate } else { (self.rate + rate) / 2.0 };
            (self.counted, self.counted_since) = (0, now);
        }
    }

    /// Released attempts, oldest first; some may have started or be gone.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &(Moment, AttemptKey)> {
        self.order.iter()
    }

    pub(super) fn left(&mut self, slots: u32) {
        self.live_slots = self.live_slots.saturating_sub(slots);
    }

    fn size(&self, slots: u32) -> u32 {
        let most = (slots * LOOKAHEAD_PER_SLOT_MAX).min(LOOKAHEAD_MAX).max(slots);
        let wanted = if self.is_stalled { slots } else { (self.rate * LOOKAHEAD_SECONDS) as u32 };
        slots + wanted.clamp(slots, most)
    }
}

impl Core {
    /// Sets how jobs of one priority share the pool.
    pub fn set_job_order(&mut self, order: JobOrder) {
        self.job_order = order;
    }

    /// Slots that may still be released.
    pub fn room(&self) -> u32 {
        self.window.size(self.slots()).saturating_sub(self.window.live_slots)
    }

    pub(super) fn fill(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if self.slots() == 0 {
            return;
        }
        self.window.measure(now);
        self.note_stall(now);
        let mut room = self.room();
        if room == 0 {
            return;
        }
        let open = |job: &crate::Job| {
            let limit = u32::try_from(job.max_parallel).unwrap_or(u32::MAX);
            limit.saturating_sub(job.live).min(u32::try_from(job.waiting).unwrap_or(u32::MAX))
        };
        let open = |uid: JobUid, job: &crate::Job| open(job).min(self.ceiling(uid).saturating_sub(job.live));
        let is_in_line = self.job_order == JobOrder::CreationTime;
        let mut queue: BinaryHeap<_> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.runs || self.has(Bug::StoppedJobsFill))
            .map(|(uid, job)| (job.priority, Reverse(if is_in_line { 0 } else { job.live }), Reverse(*uid), open(*uid, job), 0u32))
            .filter(|(.., open, _)| *open > 0)
            .collect();
        let mut wanted: Vec<(JobUid, u32)> = Vec::new();
        while room > 0 {
            let Some((priority, Reverse(live), Reverse(uid), open, taken)) = queue.pop() else { break };
            // Release up to the next job's share at once, then go on with that job.
            let share = match queue.peek() {
                Some((next, Reverse(other), ..)) if *next == priority && !is_in_line => (other + 1).saturating_sub(live).max(1),
                _ => open,
            };
            let step = share.min(open).min(room);
            room -= step;
            if step < open {
                queue.push((priority, Reverse(live + step), Reverse(uid), open - step, taken + step));
            } else {
                wanted.push((uid, taken + step));
            }
        }
        wanted.extend(queue.into_iter().filter(|(.., taken)| *taken > 0).map(|(_, _, Reverse(uid), _, taken)| (uid, taken)));
        wanted.sort_unstable();
        effects.extend(wanted.into_iter().map(|(job, count)| Effect::Fetch { job, count }));
    }

    pub(super) fn on_added(&mut self, job: JobUid, tasks: Vec<Ready>, now: Moment, effects: &mut Vec<Effect>) {
        let Some(facts) = self.jobs.get(&job) else { return };
        let is_first = facts.waiting == 0 && facts.runs && !self.jobs.values().any(|other| other.runs && other.waiting > 0);
        let mut room = if is_first { self.room() } else { 0 };
        if self.slots() == 0 {
            room = 0;
        }
        let mut limit = u32::try_from(facts.max_parallel).unwrap_or(u32::MAX).min(self.ceiling(job)).saturating_sub(facts.live);
        let mut tasks = tasks.into_iter();
        let mut waiting = 0;
        for task in tasks.by_ref() {
            if room == 0 || limit == 0 {
                waiting += 1;
                break;
            }
            limit -= 1;
            room = room.saturating_sub(task.slots);
            self.release(job, task, now, effects);
        }
        self.wait(job, waiting + tasks.len() as u64);
    }

    pub(super) fn on_fetched(&mut self, job: JobUid, asked: u32, tasks: Vec<Ready>, now: Moment, effects: &mut Vec<Effect>) {
        let fetched = tasks.len() as u64;
        if fetched < u64::from(asked) {
            // The rows decide how many wait; the counter may be off.
            if let Some(job) = self.jobs.get_mut(&job) {
                job.waiting = fetched;
            }
        }
        // Rows are requested by number but take slots; what does not fit stays a row.
        for task in tasks {
            if self.room() == 0 {
                break;
            }
            self.unwait(job, 1);
            self.release(job, task, now, effects);
        }
    }

    fn release(&mut self, job: JobUid, task: Ready, now: Moment, effects: &mut Vec<Effect>) {
        let key = AttemptKey { uid: task.uid, attempt: task.attempt + 1, fence: task.fence.next() };
        let slots = if task.crashes >= CRASHES_ALONE { self.slots_per_node } else { task.slots };
        let phase = Phase::Released { at: now, is_published: false, retry_at: None };
        let attempt = Attempt {
            job,
            key,
            needs: task.slots,
            slots,
            crashes: task.crashes,
            retries: task.retries,
            retries_max: task.retries_max,
            phase,
        };
        self.live.insert(task.uid, attempt);
        self.enter(key, slots, now);
        if let Some(job) = self.jobs.get_mut(&job) {
            job.live += 1;
        }
        effects.push(Effect::Release { job, key, slots });
    }

    pub(super) fn enter(&mut self, key: AttemptKey, slots: u32, at: Moment) {
        self.window.live_slots += slots;
        if self.window.order.len() >= 2 * self.live.len() + ORDER_SLACK {
            let live = &self.live;
            self.window.order.retain(|(_, key)| waits(live, key));
        }
        self.window.order.push_back((at, key));
    }

    /// Restores the window from the attempts that were alive when the dispatcher stopped; times count from here.
    pub fn restore_window(&mut self, now: Moment) {
        (self.started_at, self.ticked_at) = (Some(now), Some(now));
        let mut live: Vec<(TaskUid, AttemptKey, u32)> =
            self.live.values().map(|attempt| (attempt.key.uid, attempt.key, attempt.slots)).collect();
        live.sort_unstable_by_key(|(uid, ..)| *uid);
        for (_, key, slots) in live {
            self.enter(key, slots, now);
        }
    }

    /// Restarts the waiting time of all released attempts.
    pub(super) fn freshen_window(&mut self, now: Moment) {
        for (at, _) in &mut self.window.order {
            *at = now;
        }
    }

    fn note_stall(&mut self, now: Moment) {
        while let Some((at, key)) = self.window.order.front() {
            if waits(&self.live, key) {
                self.window.is_stalled = now.since(*at) > self.timers.stalled_ms;
                return;
            }
            self.window.order.pop_front();
        }
        self.window.is_stalled = false;
    }
}

/// Whether an attempt is released and not started.
pub(super) fn waits(live: &HashMap<TaskUid, Attempt>, key: &AttemptKey) -> bool {
    live.get(&key.uid).is_some_and(|attempt| attempt.key == *key && matches!(attempt.phase, Phase::Released { .. }))
}

#[cfg(test)]
mod tests {
    use contract::{clock::Now, ids::Fence};

    use super::*;
    use crate::{Event, Timers};

    #[test]
    fn an_attempt_that_nobody_starts_does_not_pile_up_those_behind_it() {
        let (mut core, now, job) = (Core::new(1, Timers::default()), Now::default(), JobUid(1));
        core.step(Event::Job { job, priority: 0, max_parallel: -1, runs: true }, now, &mut Vec::new());
        for uid in 1..=10_000 {
            let task = Ready { uid: TaskUid(uid), attempt: 0, fence: Fence(0), slots: 1, crashes: 0, retries: 0, retries_max: 0 };
            core.release(job, task, now.moment, &mut Vec::new());
            if uid > 1 {
                core.step(Event::Cancel { uid: TaskUid(uid), delete: false }, now, &mut Vec::new());
            }
        }
        assert!(core.window.order.len() <= ORDER_SLACK + 4, "{}", core.window.order.len());
    }
}
