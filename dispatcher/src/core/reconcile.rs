//! The loops that lose nothing: publish again what failed, what nobody has, and what nobody runs.

use broker_config::{ids::TaskUid, time::Timestamp};

use crate::core::{Bug, Core, Effect, Phase};

/// Attempts published again in one tick at most.
const REPUBLISH_MAX: usize = 256;

impl Core {
    pub(super) fn on_tick(&mut self, events_behind: bool, queue_ready: Option<u32>, now: Timestamp, effects: &mut Vec<Effect>) {
        if !events_behind {
            self.reap(now, effects);
            self.find_missing(now, effects);
        }
        self.republish(queue_ready, now, effects);
        self.expire_releases(now, effects);
        self.fill(now, effects);
    }

    /// Runs that their node does not list any more.
    fn find_missing(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let missing_ms = self.timers.missing_ms;
        let mut missing: Vec<TaskUid> = Vec::new();
        for (uid, attempt) in &self.live {
            if let Phase::Running { node, epoch, seen_at, .. } = &attempt.phase {
                let beats =
                    self.nodes.get(node).filter(|node| node.epoch == *epoch).is_some_and(|node| now.since(node.beat_at) < missing_ms / 2);
                if beats && now.since(*seen_at) > missing_ms && !self.has(Bug::NobodyMissed) {
                    missing.push(*uid);
                }
            }
        }
        missing.sort_unstable();
        for uid in missing {
            self.lose(uid, effects);
        }
    }

    fn republish(&mut self, queue_ready: Option<u32>, now: Timestamp, effects: &mut Vec<Effect>) {
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
