//! Time since a stored timestamp, for timers: by the wall clock until this process first sees it, by the monotonic
//! clock from then on.

use contract::{
    clock::{Moment, Now},
    time::Timestamp,
};

/// A timer that starts at a stored time. Every tick reads it, so a new time is seen early, and a time from before a
/// restart keeps what had passed by then.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Since(Option<(Timestamp, Moment)>);

impl Since {
    /// Milliseconds since `at`; the timer restarts when `at` changes.
    pub(super) fn ms(&mut self, at: Timestamp, now: Now) -> i64 {
        let begun = match self.0 {
            Some((known, moment)) if known == at => moment,
            _ => now.moment_of(at),
        };
        self.0 = Some((at, begun));
        now.moment.since(begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_moves_no_timer() {
        let (mut since, now) = (Since::default(), Now { time: Timestamp(1_000_000), moment: Moment(7) });
        assert_eq!(since.ms(Timestamp(940_000), now), 60_000, "what had passed before the start");
        for step in [3_600_000, -3_600_000] {
            let later = Now { time: now.time.plus_ms(step), moment: now.moment.plus_ms(500) };
            assert_eq!(since.ms(Timestamp(940_000), later), 60_500);
        }
        assert_eq!(since.ms(Timestamp(1_000_250), now.plus_ms(250)), 0, "another time begins anew");
    }
}
