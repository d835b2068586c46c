//! Meters the core time of pools by half hours. Time without a running dispatcher is not counted.
//!
//! Durations come from the monotonic clock, so setting the wall clock changes no amount; the wall clock only says which
//! half hour it is.

use contract::{
    clock::{Moment, Now},
    time::Timestamp,
};
use model::usage::{Charge, INTERVAL_MS, interval_of};

/// Core time is written this often and at the end of each interval; a crash loses at most this much.
const CHARGE_MS: i64 = 60_000;
/// A longer time between two ticks is not counted, because the machine was suspended.
const GAP_MS: i64 = 60 * 60 * 1000;

/// Core time of a pool that is not written yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meter {
    at: Moment,
    written_at: Moment,
    /// Start of the half hour that the unwritten time belongs to.
    interval: Timestamp,
    core_ms: u64,
    dedicated_core_ms: u64,
}

impl Meter {
    pub(super) fn start(now: Now) -> Meter {
        Meter { at: now.moment, written_at: now.moment, interval: interval_of(now.time), core_ms: 0, dedicated_core_ms: 0 }
    }

    fn take(&mut self, charges: &mut Vec<Charge>) {
        let (core_ms, dedicated_core_ms) = (std::mem::take(&mut self.core_ms), std::mem::take(&mut self.dedicated_core_ms));
        if core_ms > 0 {
            charges.push(Charge { interval: self.interval, core_ms, dedicated_core_ms });
        }
        self.written_at = self.at;
    }

    /// Counts the cores (all, dedicated) up to now and returns the charges to write, one for each interval.
    pub(super) fn count(&mut self, (all, dedicated): (u64, u64), now: Now, is_last: bool) -> Vec<Charge> {
        let mut charges = Vec::new();
        let passed = now.moment.since(self.at);
        if passed > GAP_MS {
            self.take(&mut charges);
            (self.at, self.written_at) = (now.moment, now.moment);
        }
        while self.at < now.moment {
            let left = now.moment.since(self.at);
            let time = now.time.plus_ms(-left);
            let interval = interval_of(time);
            if interval != self.interval {
                self.take(&mut charges);
                self.interval = interval;
            }
            let ms = left.min(interval.plus_ms(INTERVAL_MS).since(time));
            self.core_ms = self.core_ms.saturating_add(all.saturating_mul(ms.unsigned_abs()));
            self.dedicated_core_ms = self.dedicated_core_ms.saturating_add(dedicated.saturating_mul(ms.unsigned_abs()));
            self.at = self.at.plus_ms(ms);
            let is_full = ms < left || time.plus_ms(ms) == interval.plus_ms(INTERVAL_MS);
            if is_full || is_last || self.at.since(self.written_at) >= CHARGE_MS {
                self.take(&mut charges);
            }
        }
        charges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF_HOUR: u64 = INTERVAL_MS.cast_unsigned();

    /// Both clocks: the wall clock's time, and the milliseconds that have passed.
    fn at(time: i64, passed: i64) -> Now {
        Now { time: Timestamp(time + passed), moment: Moment(7_000 + passed) }
    }

    #[test]
    fn core_time_is_cut_at_the_half_hour() {
        let start = 10 * INTERVAL_MS - 20_000;
        let mut meter = Meter::start(at(start, 0));
        assert_eq!(meter.count((4, 3), at(start, 10_000), false), []);
        let charges = meter.count((4, 3), at(start, 30_000), true);
        let charge =
            |interval, core_ms, dedicated_core_ms| Charge { interval: Timestamp(interval * INTERVAL_MS), core_ms, dedicated_core_ms };
        assert_eq!(charges, [charge(9, 80_000, 60_000), charge(10, 40_000, 30_000)]);
    }

    #[test]
    fn all_of_a_steady_pool_is_written_and_every_minute() {
        let start = 10 * INTERVAL_MS;
        let mut meter = Meter::start(at(start, 0));
        let charges: Vec<Charge> = (1..=3600).flat_map(|tick| meter.count((2, 2), at(start, tick * 1000), false)).collect();
        assert_eq!(charges.len(), 60);
        let of = |interval: i64| {
            charges.iter().filter(|charge| charge.interval.0 == interval * INTERVAL_MS).map(|charge| charge.core_ms).sum::<u64>()
        };
        assert_eq!((of(10), of(11)), (2 * HALF_HOUR, 2 * HALF_HOUR));
    }

    #[test]
    fn a_clock_that_is_set_adds_and_removes_no_core_time() {
        let mut meter = Meter::start(at(1_000_000, 0));
        let mut sum = 0;
        for (tick, set) in [0, 600_000, -7_200_000, 365 * 24 * 3_600_000, 0, -1_000_000].into_iter().enumerate() {
            let passed = (tick as i64 + 1) * 250;
            sum += meter.count((8, 8), at(1_000_000 + set, passed), tick == 5).iter().map(|charge| charge.core_ms).sum::<u64>();
        }
        assert_eq!(sum, 6 * 250 * 8);
    }

    #[test]
    fn a_machine_that_slept_is_not_charged() {
        let mut meter = Meter::start(at(0, 0));
        assert_eq!(meter.count((8, 8), at(0, GAP_MS + 1), true), []);
        assert_eq!(meter.count((8, 8), at(0, GAP_MS + 2), true)[0].core_ms, 8);
    }
}
