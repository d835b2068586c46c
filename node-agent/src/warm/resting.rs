//! Remembers versions of functions whose programs failed to start: pure.
//!
//! A try that failed makes the version rest, longer each time; meanwhile its invocations fail with what it said.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use crate::warm::event::Failure;

const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

struct Rest {
    failure: Failure,
    until: Instant,
    pause: Duration,
}

/// Versions that rest, by their uid.
#[derive(Default)]
pub struct Resting(HashMap<u64, Rest>);

impl Resting {
    /// Why a version may not be started now.
    pub fn failure(&self, uid: u64, now: Instant) -> Option<Failure> {
        self.0.get(&uid).filter(|rest| now < rest.until).map(|rest| rest.failure.clone())
    }

    /// Records a failed start; returns the rest that begins if this is worth a line in the log: the first, or another error.
    pub fn failed(&mut self, uid: u64, failure: &Failure, now: Instant) -> Option<Duration> {
        let known = self.0.get(&uid);
        let is_news = known.is_none_or(|rest| rest.failure.code != failure.code);
        let pause = known.map_or(PAUSE_FIRST, |rest| (rest.pause * 2).min(PAUSE_MAX));
        self.0.insert(uid, Rest { failure: failure.clone(), until: now + pause, pause });
        is_news.then_some(pause)
    }

    /// Records a start that went well.
    pub fn succeeded(&mut self, uid: u64) {
        self.0.remove(&uid);
    }

    /// Forgets all versions but these.
    pub fn retain(&mut self, uids: &HashSet<u64>) {
        self.0.retain(|uid, _| uids.contains(uid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_cannot_start_rests_longer_each_time_and_is_named_once() {
        let (mut resting, mut now) = (Resting::default(), Instant::now());
        let failure = Failure::new("FunctionInitFailed", "no module".to_owned());
        assert_eq!(resting.failed(1, &failure, now), Some(PAUSE_FIRST));
        for expected in [2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(resting.failure(1, now).unwrap().message, "no module");
            assert!(resting.failure(2, now).is_none());
            now += PAUSE_MAX;
            assert!(resting.failure(1, now).is_none(), "it is tried again");
            assert_eq!(resting.failed(1, &failure, now), None);
            assert!(resting.failure(1, now + Duration::from_secs(expected - 1)).is_some());
            assert!(resting.failure(1, now + Duration::from_secs(expected)).is_none());
        }
        resting.succeeded(1);
        assert_eq!(resting.failed(1, &failure, now), Some(PAUSE_FIRST));
        resting.retain(&HashSet::new());
        assert!(resting.failure(1, now).is_none());
    }
}
