//! Meters the core time of pools, by half hour; time in which no dispatcher runs is not counted.

use broker_config::{ids::PoolId, state::NodeState, time::Timestamp};

use crate::{
    engine::world::{PoolEntry, World},
    store::{
        StoreError,
        usage::{Charge, INTERVAL_MS, interval_of},
    },
};

/// Core time is written this often, and with the end of each interval; a crash loses as much at most.
const CHARGE_MS: i64 = 60_000;
/// A longer time between two ticks is not counted: the machine slept, or its clock was set.
const GAP_MS: i64 = 60 * 60 * 1000;
/// Intervals older than this are forgotten.
const KEPT_MS: i64 = 90 * 24 * 60 * 60 * 1000;

/// Core time of a pool that is not written yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meter {
    at: Timestamp,
    written_at: Timestamp,
    core_ms: u64,
    dedicated_core_ms: u64,
}

impl Meter {
    pub(super) fn start(now: Timestamp) -> Meter {
        Meter { at: now, written_at: now, core_ms: 0, dedicated_core_ms: 0 }
    }

    fn take(&mut self, interval: Timestamp, charges: &mut Vec<Charge>) {
        let (core_ms, dedicated_core_ms) = (std::mem::take(&mut self.core_ms), std::mem::take(&mut self.dedicated_core_ms));
        if core_ms > 0 {
            charges.push(Charge { interval, core_ms, dedicated_core_ms });
        }
    }

    /// Counts so many cores, all and dedicated, up to now; what is to be written, each interval apart.
    fn count(&mut self, (all, dedicated): (u64, u64), now: Timestamp, is_last: bool) -> Vec<Charge> {
        let mut charges = Vec::new();
        if now < self.at || now.since(self.at) > GAP_MS {
            self.take(interval_of(self.at), &mut charges);
            (self.at, self.written_at) = (now, now);
        }
        while self.at < now {
            let interval = interval_of(self.at);
            let end = interval.plus_ms(INTERVAL_MS);
            let until = end.min(now);
            let ms = until.since(self.at).cast_unsigned();
            self.core_ms = self.core_ms.saturating_add(all.saturating_mul(ms));
            self.dedicated_core_ms = self.dedicated_core_ms.saturating_add(dedicated.saturating_mul(ms));
            self.at = until;
            if until == end || is_last && until == now || until.since(self.written_at) >= CHARGE_MS {
                self.take(interval, &mut charges);
                self.written_at = until;
            }
        }
        charges
    }
}

/// Cores of the nodes that are there, all and dedicated.
fn cores(entry: &PoolEntry) -> (u64, u64) {
    let is_there = |state| !matches!(state, NodeState::Creating | NodeState::Preempted | NodeState::Deallocated);
    entry.nodes.values().filter(|node| is_there(node.state)).fold((0, 0), |(all, dedicated), node| {
        let cores = u64::from(node.cores);
        (all + cores, dedicated + if node.is_dedicated { cores } else { 0 })
    })
}

impl World {
    /// Counts a pool's cores up to now.
    pub(super) fn tick_meter(&mut self, pool: &PoolId, is_last: bool, now: Timestamp) -> Result<(), StoreError> {
        let Some(entry) = self.pools.get_mut(pool) else { return Ok(()) };
        let cores = cores(entry);
        for charge in entry.meter.count(cores, now, is_last) {
            self.store.charge(pool, &charge)?;
            if charge.interval < interval_of(now) {
                self.store.forget_usage(now.plus_ms(-KEPT_MS))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF_HOUR: u64 = INTERVAL_MS.cast_unsigned();

    #[test]
    fn core_time_is_cut_at_the_half_hour() {
        let start = Timestamp(10 * INTERVAL_MS - 20_000);
        let mut meter = Meter::start(start);
        assert_eq!(meter.count((4, 3), start.plus_ms(10_000), false), []);
        let charges = meter.count((4, 3), start.plus_ms(30_000), true);
        let charge =
            |interval, core_ms, dedicated_core_ms| Charge { interval: Timestamp(interval * INTERVAL_MS), core_ms, dedicated_core_ms };
        assert_eq!(charges, [charge(9, 80_000, 60_000), charge(10, 40_000, 30_000)]);
    }

    #[test]
    fn all_of_a_steady_pool_is_written_and_every_minute() {
        let start = Timestamp(10 * INTERVAL_MS);
        let mut meter = Meter::start(start);
        let charges: Vec<Charge> = (1..=3600).flat_map(|tick| meter.count((2, 2), start.plus_ms(tick * 1000), false)).collect();
        assert_eq!(charges.len(), 60);
        let of = |interval: i64| {
            charges.iter().filter(|charge| charge.interval.0 == interval * INTERVAL_MS).map(|charge| charge.core_ms).sum::<u64>()
        };
        assert_eq!((of(10), of(11)), (2 * HALF_HOUR, 2 * HALF_HOUR));
    }

    #[test]
    fn a_clock_that_jumps_is_not_charged() {
        let mut meter = Meter::start(Timestamp(0));
        assert_eq!(meter.count((8, 8), Timestamp(365 * 24 * 3_600_000), true), []);
        assert_eq!(meter.count((8, 8), Timestamp(5), true), []);
        assert_eq!(meter.count((8, 8), Timestamp(6), true)[0].core_ms, 8);
    }
}
