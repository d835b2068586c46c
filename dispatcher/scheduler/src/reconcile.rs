//! Reconciliation with every tick: repeats failed publishes, republishes attempts that the broker lost, and finds runs
//! that no node has.

use contract::{
    clock::{Moment, Now},
    ids::TaskUid,
};

use crate::{Bug, Core, Effect, Phase};

/// Attempts that one tick publishes again at most.
const REPUBLISH_MAX: usize = 256;

impl Core {
    pub(super) fn on_tick(&mut self, events_behind: bool, queue_ready: Option<u32>, now: Now, effects: &mut Vec<Effect>) {
        let moment = now.moment;
        self.note_gap(moment);
        if !events_behind {
            self.reap(moment, effects);
            self.find_missing(moment, effects);
        }
        self.republish(queue_ready, moment, effects);
        self.expire_releases(now, effects);
        self.end_pauses(moment, effects);
        self.wake(effects);
        self.tend_keep(moment, effects);
        self.fill(moment, effects);
    }

    /// Restarts all waiting after a gap, as at a start.
    fn note_gap(&mut self, now: Moment) {
        let gap = self.ticked_at.replace(now).map_or(0, |last| now.since(last));
        if gap <= self.timers.gap_ms() || self.has(Bug::GapIsSilence) {
            return;
        }
        for node in self.nodes.values_mut() {
            node.heartbeat_at = now;
        }
        for attempt in self.live.values_mut() {
            match &mut attempt.phase {
                Phase::Running { seen_at, .. } => *seen_at = now,
                Phase::Released { at, .. } => *at = now,
            }
        }
        for gives_up_at in self.releasing.values_mut() {
            *gives_up_at = gives_up_at.plus_ms(gap);
        }
        self.freshen_window(now);
    }

    /// Counts runs as lost that their node no longer lists.
    fn find_missing(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let missing_ms = self.timers.missing_ms;
        let mut missing: Vec<TaskUid> = Vec::new();
        for (uid, attempt) in &self.live {
            if let Phase::Running { node, epoch, seen_at, .. } = &attempt.phase {
                let heartbeats = self
                    .nodes
                    .get(node)
                    .filter(|node| node.epoch == *epoch)
                    .is_some_and(|node| now.since(node.heartbeat_at) < missing_ms / 2);
                if heartbeats && now.since(*seen_at) > missing_ms && !self.has(Bug::NobodyMissed) {
                    missing.push(*uid);
                }
            }
        }
        missing.sort_unstable();
        for uid in missing {
            self.lose(uid, true, effects);
        }
    }

    fn republish(&mut self, queue_ready: Option<u32>, now: Moment, effects: &mut Vec<Effect>) {
        let released = self
            .live
            .values()
            .filter(|attempt| matches!(attempt.phase, Phase::Released { is_published: true, retry_at: None, .. }))
            .count() as u32;
        let fewer = queue_ready.is_some_and(|ready| ready < released);
        let (reconcile_ms, reconcile_max_ms) = (self.timers.reconcile_ms, self.timers.reconcile_max_ms);
        let has_reconciler = !self.has(Bug::NoReconciler);
        let mut due: Vec<TaskUid> = Vec::new();
        for (uid, attempt) in &self.live {
            if let Phase::Released { at, is_published, retry_at } = &attempt.phase {
                let age = now.since(*at);
                let is_lost = *is_published && has_reconciler && ((fewer && age > reconcile_ms) || age > reconcile_max_ms);
                let is_unsent =
                    retry_at.is_some_and(|at| at <= now) || (!*is_published && retry_at.is_none() && has_reconciler && age > reconcile_ms);
                if is_lost || is_unsent {
                    due.push(*uid);
                }
            }
        }
        due.sort_unstable();
        due.truncate(REPUBLISH_MAX);
        for uid in due {
            let Some(attempt) = self.live.get_mut(&uid) else { continue };
            let (key, slots) = (attempt.key, attempt.slots);
            attempt.phase = Phase::Released { at: now, is_published: false, retry_at: None };
            effects.push(Effect::Republish { key, slots });
        }
    }
}
