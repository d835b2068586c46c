//! Samples of a pool: those of the last day, one every half minute.
//!
//! A sample is 48 bytes, so a pool that is a day old holds 138 KB. Samples live in memory only:
//! after a restart the history begins anew, and formulas see that by its percentage.

use std::collections::VecDeque;

use contract::time::Timestamp;

use super::names::Metric;

/// Time between two samples.
pub const SAMPLE_MS: i64 = 30_000;
/// Samples kept: those of a day.
pub const SAMPLES_MAX: usize = 2_880;

/// The state of a pool at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sample {
    /// On a clock that is never set.
    pub at: Timestamp,
    /// Tasks that wait and could run; blocked ones are not counted.
    pub active: u32,
    pub running: u32,
    /// Slots of the waiting tasks.
    pub active_slots: u32,
    /// Slots of the running tasks.
    pub running_slots: u32,
    /// Tasks that succeeded so far.
    pub succeeded: u32,
    pub failed: u32,
    pub dedicated: u32,
    /// Low-priority nodes, preempted ones included.
    pub low_priority: u32,
    /// Preempted nodes.
    pub preempted: u32,
    /// Nodes that can run tasks.
    pub usable: u32,
}

impl Sample {
    fn value(&self, metric: Metric) -> Option<f64> {
        Some(f64::from(match metric {
            Metric::ActiveTasks => self.active,
            Metric::RunningTasks => self.running,
            Metric::PendingTasks => self.active.saturating_add(self.running),
            Metric::SucceededTasks => self.succeeded,
            Metric::FailedTasks => self.failed,
            Metric::ActiveTaskSlots => self.active_slots,
            Metric::RunningTaskSlots => self.running_slots,
            Metric::PendingTaskSlots => self.active_slots.saturating_add(self.running_slots),
            Metric::CurrentDedicatedNodes => self.dedicated,
            Metric::CurrentLowPriorityNodes => self.low_priority,
            Metric::PreemptedNodeCount => self.preempted,
            Metric::UsableNodeCount | Metric::SampleNodeCount => self.usable,
            Metric::Unmeasured(_) => return None,
        }))
    }
}

/// Samples of one pool, oldest first.
#[derive(Debug, Clone, Default)]
pub struct History {
    samples: VecDeque<Sample>,
}

impl History {
    /// Adds a sample that is newer than all others; beyond a day the oldest is dropped.
    pub fn push(&mut self, sample: Sample) {
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// Time of the next sample; `None` while there is none, so that the first is due at once. Samples keep their half-minute grid, so that a tick
    /// that comes a little late leaves no gap, but a long sleep is not filled up.
    pub fn due_at(&self) -> Option<Timestamp> {
        self.samples.back().map(|last| last.at.plus_ms(SAMPLE_MS))
    }

    /// The newest sample.
    pub fn last(&self) -> Option<&Sample> {
        self.samples.back()
    }

    /// Replaces the newest sample by the present state, keeping its place on the grid.
    pub fn refresh(&mut self, sample: Sample) {
        match self.samples.back_mut() {
            Some(last) => *last = Sample { at: last.at, ..sample },
            None => self.samples.push_back(sample),
        }
    }

    /// Number of samples of a metric.
    pub(super) fn count(&self, metric: Metric) -> usize {
        if matches!(metric, Metric::Unmeasured(_)) { 0 } else { self.samples.len() }
    }

    /// Time of the oldest sample.
    pub(super) fn begins_at(&self, metric: Metric) -> Option<Timestamp> {
        self.samples.front().filter(|sample| sample.value(metric).is_some()).map(|sample| sample.at)
    }

    /// The latest value.
    pub(super) fn latest(&self, metric: Metric) -> Option<f64> {
        self.samples.back().and_then(|sample| sample.value(metric))
    }

    /// The latest `count` values, oldest first.
    pub(super) fn recent(&self, metric: Metric, count: usize) -> Vec<f64> {
        let skipped = self.samples.len().saturating_sub(count);
        self.samples.iter().skip(skipped).filter_map(|sample| sample.value(metric)).collect()
    }

    /// The values after `from`, up to and including `to`, oldest first.
    pub(super) fn between(&self, metric: Metric, from: Timestamp, to: Timestamp) -> Vec<f64> {
        let first = self.samples.partition_point(|sample| sample.at <= from);
        let inside = self.samples.iter().skip(first).take_while(|sample| sample.at <= to);
        inside.filter_map(|sample| sample.value(metric)).collect()
    }

    /// The percentage of the possible samples between two times that exist.
    pub(super) fn percent(&self, metric: Metric, from: Timestamp, to: Timestamp) -> f64 {
        let possible = (to.since(from) / SAMPLE_MS).max(1);
        let found = self.between(metric, from, to).len() as f64;
        (found * 100.0 / possible as f64).min(100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(count: i64) -> History {
        let mut history = History::default();
        for number in 0..count {
            history.push(Sample { at: Timestamp(number * SAMPLE_MS), active: number as u32, ..Sample::default() });
        }
        history
    }

    #[test]
    fn a_day_is_kept_and_no_more() {
        let history = history(SAMPLES_MAX as i64 + 5);
        assert_eq!(history.count(Metric::ActiveTasks), SAMPLES_MAX);
        assert_eq!(history.begins_at(Metric::ActiveTasks), Some(Timestamp(5 * SAMPLE_MS)));
        assert_eq!(history.due_at(), Some(Timestamp((SAMPLES_MAX as i64 + 5) * SAMPLE_MS)));
        assert_eq!(size_of::<Sample>(), 48);
    }

    #[test]
    fn windows_take_what_is_in_them_and_percent_counts_what_is_missing() {
        let history = history(10);
        let (from, now) = (Timestamp(6 * SAMPLE_MS), Timestamp(9 * SAMPLE_MS));
        assert_eq!(history.between(Metric::ActiveTasks, from, now), vec![7.0, 8.0, 9.0]);
        assert_eq!(history.percent(Metric::ActiveTasks, from, now), 100.0);
        assert_eq!(history.percent(Metric::ActiveTasks, Timestamp(-10 * SAMPLE_MS), now), 10.0 * 100.0 / 19.0);
        assert_eq!(history.recent(Metric::PendingTasks, 2), vec![8.0, 9.0]);
        assert_eq!(history.recent(Metric::Unmeasured("$CPUPercent"), 2), Vec::<f64>::new());
    }
}
