//! Nodes that failed to start: their agents never joined, or their machines were never made.
//!
//! Each is removed and replaced, the first time at once and later after growing pauses, so that an image whose agent
//! does not start creates no endless series of machines. A restart of the dispatcher forgets the pauses.

use contract::clock::Moment;

/// The pause after the second failure in a row; it doubles with each further one.
const PAUSE_MS: i64 = 60_000;
const PAUSE_MAX_MS: i64 = 3_600_000;

/// A pool's failed nodes since the last one that joined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Creations {
    failed: u32,
    failed_at: Option<Moment>,
    rests_until: Option<Moment>,
}

impl Creations {
    /// Counts a node that never joined. Nodes that were requested together count as one failure.
    pub(super) fn note_failed(&mut self, asked_at: Moment, now: Moment) {
        if self.failed_at.is_some_and(|failed_at| asked_at < failed_at) {
            return;
        }
        (self.failed, self.failed_at) = (self.failed.saturating_add(1), Some(now));
        self.rests_until = self.failed.checked_sub(2).map(|doublings| now.plus_ms((PAUSE_MS << doublings.min(16)).min(PAUSE_MAX_MS)));
    }

    /// Ends the pauses, because a node joined or a client changed the targets.
    pub(super) fn begin_anew(&mut self) {
        *self = Creations::default();
    }

    /// Failures in a row.
    pub(super) fn failed(&self) -> u32 {
        self.failed
    }

    /// How long no node is created from now on.
    pub(super) fn rest_ms(&self, now: Moment) -> u64 {
        self.rests_until.map_or(0, |until| until.since(now).max(0).unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_costs_no_pause_and_later_ones_twice_as_long_each_time_up_to_an_hour() {
        let (mut creations, mut now) = (Creations::default(), Moment(1_000));
        for pause_ms in [0, 60_000, 120_000, 240_000, 480_000, 960_000, 1_920_000, 3_600_000, 3_600_000] {
            let asked_at = now;
            now = now.plus_ms(600_000);
            creations.note_failed(asked_at, now);
            creations.note_failed(asked_at.plus_ms(3_000), now.plus_ms(3_000));
            assert_eq!(creations.rest_ms(now), pause_ms, "two that were asked for together are one");
            now = now.plus_ms(pause_ms.cast_signed() + 1);
            assert_eq!(creations.rest_ms(now), 0);
        }
        assert_eq!(creations.failed(), 9);
        creations.begin_anew();
        assert_eq!((creations.failed(), creations.rest_ms(now)), (0, 0));
    }
}
