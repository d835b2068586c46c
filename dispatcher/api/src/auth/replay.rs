//! Remembers signatures of changes, so that a recorded request cannot be sent again.
//!
//! The same signature is accepted again within a minute of its date: clients retry, and two equal requests within a
//! second have the same signature. The memory is bounded; signatures that were dropped from it count as seen.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::auth::shared_key::CLOCK_WINDOW;

/// A repeated signature is accepted when its date is at most this far away.
pub const REPEAT_WINDOW: Duration = Duration::from_secs(60);
/// Signatures remembered at most, about 24 bytes each.
pub const SIGNATURES_MAX: usize = 1 << 20;

/// Seen signatures, by the second of their date.
#[derive(Debug)]
pub struct Replays {
    seen: BTreeMap<u64, HashSet<u64>>,
    count: usize,
    most: usize,
    /// All requests dated up to this second count as seen: dropped from memory, or from before the start.
    known_after: u64,
}

fn second(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Replays {
    /// Requests dated before `start` count as seen.
    pub fn new(start: SystemTime, most: usize) -> Replays {
        Replays { seen: BTreeMap::new(), count: 0, most, known_after: second(start).saturating_sub(1) }
    }

    /// Whether a change with this signature may be carried out; remembers it.
    pub fn admit(&mut self, signature: u64, date: SystemTime, now: SystemTime) -> bool {
        self.forget_old(now);
        let distance = now.duration_since(date).unwrap_or_else(|ahead| ahead.duration());
        let at = second(date);
        let is_unknown = at > self.known_after;
        let is_new = self.seen.entry(at).or_default().insert(signature);
        self.count += usize::from(is_new);
        while self.count > self.most {
            let Some((at, forgotten)) = self.seen.pop_first() else { break };
            self.count -= forgotten.len();
            self.known_after = self.known_after.max(at);
        }
        distance <= REPEAT_WINDOW || (is_new && is_unknown)
    }

    fn forget_old(&mut self, now: SystemTime) {
        let oldest = second(now).saturating_sub(CLOCK_WINDOW.as_secs() + 1);
        while let Some(entry) = self.seen.first_entry().filter(|entry| *entry.key() < oldest) {
            self.count -= entry.remove().len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000 + second)
    }

    #[test]
    fn a_repeated_signature_is_good_for_a_minute_only() {
        let mut replays = Replays::new(at(0), 100);
        assert!(replays.admit(1, at(100), at(100)));
        assert!(replays.admit(1, at(100), at(160)));
        assert!(!replays.admit(1, at(100), at(161)));
        assert!(!replays.admit(1, at(100), at(900)));
        assert!(replays.admit(2, at(100), at(900)), "another one of the same second is new");
        assert!(!replays.admit(2, at(100), at(901)));
    }

    #[test]
    fn what_was_dated_before_the_start_is_good_for_a_minute_only() {
        let mut replays = Replays::new(at(100), 100);
        assert!(replays.admit(1, at(50), at(110)));
        assert!(!replays.admit(1, at(50), at(111)));
        assert!(!replays.admit(2, at(50), at(200)), "it may have been done before the restart");
        assert!(replays.admit(3, at(100), at(200)));
    }

    #[test]
    fn a_full_memory_refuses_what_it_cannot_judge_and_stays_bounded() {
        let mut replays = Replays::new(at(0), 10);
        for number in 0..1_000 {
            assert!(replays.admit(number, at(100 + number), at(100 + number)));
            assert!(replays.count <= 10);
        }
        assert!(!replays.admit(5_000, at(1_000), at(1_100)), "older than what is remembered");
        assert!(replays.admit(5_001, at(1_098), at(1_100)));
    }

    #[test]
    fn signatures_leave_when_their_date_is_no_longer_let_in() {
        let mut replays = Replays::new(at(0), 100);
        for number in 0..50 {
            replays.admit(number, at(number), at(number));
        }
        replays.admit(99, at(5_000), at(5_000));
        assert_eq!(replays.count, 1);
    }
}
