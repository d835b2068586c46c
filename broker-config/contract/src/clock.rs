//! Two clocks that are never compared: wall time for people, and a monotonic time for timers.
//!
//! [`Timestamp`] is the wall clock: it is shown and stored, and an administrator may set it at any time.
//! [`Moment`] only goes forward: leases, limits and pauses use it, so that setting the wall clock ends nothing.

use std::{fmt, sync::Arc};

use crate::time::Timestamp;

/// Milliseconds since the machine started, for timers; differences count inside one process only.
///
/// It is `CLOCK_BOOTTIME`, which includes the time in which the machine was suspended, and not `CLOCK_MONOTONIC`,
/// which excludes it: a process that resumes must see that time has passed, in which it received no heartbeats.
/// A suspended machine is then the same as a stopped process or a disk that did not answer: a gap, and timers that
/// judge others by their silence start again after one. Where that clock does not exist (outside Linux) it is
/// `CLOCK_MONOTONIC`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub i64);

impl Moment {
    /// Reads the monotonic clock.
    pub fn now() -> Moment {
        #[cfg(target_os = "linux")]
        const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
        let time = rustix::time::clock_gettime(CLOCK);
        Moment(time.tv_sec * 1_000 + time.tv_nsec / 1_000_000)
    }

    /// This moment, `ms` later.
    pub fn plus_ms(self, ms: i64) -> Moment {
        Moment(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`, never below zero.
    pub fn since(self, earlier: Moment) -> i64 {
        self.0.saturating_sub(earlier.0).max(0)
    }
}

/// The current time on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Wall clock, for people.
    pub time: Timestamp,
    /// Monotonic clock, for timers.
    pub moment: Moment,
}

impl Now {
    /// The moment of a stored wall-clock time, as far as the wall clock is right: for timers that outlive the process that began them.
    pub fn moment_of(self, time: Timestamp) -> Moment {
        self.moment.plus_ms(-self.time.since(time))
    }

    /// Both clocks, `ms` later.
    pub fn plus_ms(self, ms: i64) -> Now {
        Now { time: self.time.plus_ms(ms), moment: self.moment.plus_ms(ms) }
    }
}

/// The source of the current time; tests replace it.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Now + Send + Sync>);

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Clock {
        Clock::new(|| Now { time: Timestamp::now(), moment: Moment::now() })
    }

    /// A clock that returns the result of `read`.
    pub fn new(read: impl Fn() -> Now + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(read))
    }

    /// Reads both clocks.
    pub fn now(&self) -> Now {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_time_is_a_moment_before_now_whatever_the_wall_clock_says() {
        let now = Now { time: Timestamp(1_000_000), moment: Moment(50_000) };
        assert_eq!(now.moment_of(Timestamp(990_000)), Moment(40_000));
        assert_eq!(now.moment_of(Timestamp(1_500_000)), Moment(50_000), "what is to come has not begun");
        assert_eq!(Moment(5).since(Moment(9)), 0);
    }

    #[test]
    fn moments_do_not_go_back() {
        let first = Moment::now();
        assert!(Moment::now() >= first && first.0 > 0);
    }
}
