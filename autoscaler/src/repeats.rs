//! Keeps the log readable while the same step fails again and again: it is told at first, then with growing pauses, and
//! once when it works again.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Pause after a failure was told for the first time; it doubles each time.
const PAUSE_MIN: Duration = Duration::from_secs(10);
/// Different messages of one failure that are told at once; two nodes that fail in turn make two.
const MESSAGES_MAX: usize = 8;
/// Longest pause while it lasts.
const PAUSE_MAX: Duration = Duration::from_secs(10 * 60);

/// The failures that last, by what fails.
pub(crate) struct Repeats<K>(Mutex<HashMap<K, Failure>>);

struct Failure {
    messages: Vec<String>,
    began: Instant,
    count: u64,
    pause: Duration,
    next: Instant,
}

/// Facts for the log about a failure that repeats: how often it has happened, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lasting {
    pub(crate) count: u64,
    pub(crate) seconds: u64,
}

impl<K> Default for Repeats<K> {
    fn default() -> Repeats<K> {
        Repeats(Mutex::default())
    }
}

impl<K: Eq + Hash> Repeats<K> {
    /// Notes a failure; returns what to tell when it is new, another one than before, or was not told for a while.
    pub(crate) fn failed(&self, what: K, message: &str, now: Instant) -> Option<Lasting> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Failure { messages: Vec::new(), began: now, count: 0, pause: PAUSE_MIN, next: now };
        let failure = all.entry(what).or_insert_with(fresh);
        failure.count += 1;
        let is_new = failure.messages.len() < MESSAGES_MAX && failure.messages.iter().all(|known| known != message);
        if is_new {
            failure.messages.push(message.to_owned());
        }
        if now >= failure.next {
            failure.next = now + failure.pause;
            failure.pause = (failure.pause * 2).min(PAUSE_MAX);
        } else if !is_new {
            return None;
        }
        Some(Lasting { count: failure.count, seconds: now.duration_since(failure.began).as_secs() })
    }

    /// Notes that it works; returns how long it failed if it did.
    pub(crate) fn works(&self, what: &K, now: Instant) -> Option<Lasting> {
        let failure = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(what)?;
        Some(Lasting { count: failure.count, seconds: now.duration_since(failure.began).as_secs() })
    }

    /// Forgets what is not there any more.
    pub(crate) fn retain(&self, is_there: impl Fn(&K) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|what, _| is_there(what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_at_once_then_ever_more_rarely_and_its_end_once() {
        let (repeats, start) = (Repeats::default(), Instant::now());
        assert_eq!(repeats.works(&"p", start), None);
        // Twice a second for a day.
        let at = |half_seconds: u64| start + Duration::from_millis(500 * half_seconds);
        let told: Vec<u64> =
            (0..2 * 24 * 3_600).filter_map(|half| repeats.failed("p", "mounted", at(half)).map(|told| told.seconds)).collect();
        assert_eq!(told[..7], [0, 10, 30, 70, 150, 310, 630]);
        assert!(told.len() < 160 && told.windows(2).all(|pair| pair[1] - pair[0] <= PAUSE_MAX.as_secs()), "{told:?}");
        assert!(repeats.failed("q", "mounted", at(3)).is_some(), "another pool has a failure of its own");
        assert!(repeats.failed("q", "gone", at(4)).is_some(), "another reason is told at once");
        assert_eq!(
            (repeats.failed("q", "mounted", at(5)), repeats.failed("q", "gone", at(6))),
            (None, None),
            "two in turn are told once each"
        );
        assert_eq!(repeats.works(&"q", at(9)), Some(Lasting { count: 4, seconds: 3 }));
        assert_eq!(repeats.works(&"q", at(10)), None);
    }
}
