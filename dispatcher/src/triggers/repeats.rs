//! Notices an object that is written again and again: most likely by what its own trigger starts.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

/// Time for which writes of an object are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Writes of one object within that time that pause its trigger.
const WRITES_MAX: u32 = 30;
/// Objects that are counted at most.
const KEYS_MAX: usize = 10_000;

/// Counts writes by key.
pub(super) struct Repeats {
    since: Instant,
    counts: HashMap<String, u32>,
}

impl Default for Repeats {
    fn default() -> Repeats {
        Repeats { since: Instant::now(), counts: HashMap::new() }
    }
}

impl Repeats {
    /// Counts a write; the reason to pause where it was one too many.
    pub(super) fn count(&mut self, key: &str, now: Instant) -> Option<String> {
        if now.duration_since(self.since) > WINDOW || self.counts.len() >= KEYS_MAX {
            (self.since, self.counts) = (now, HashMap::new());
        }
        let count = self.counts.entry(key.to_owned()).or_default();
        *count += 1;
        (*count > WRITES_MAX).then(|| {
            format!(
                "{key} was written more than {WRITES_MAX} times within {} s: what the trigger starts seems to write what it watches. \
                 Resume it when that is mended.",
                WINDOW.as_secs()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_that_is_written_over_and_over_is_noticed_and_many_objects_are_not() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        for number in 0..50_000 {
            assert_eq!(repeats.count(&number.to_string(), now), None);
        }
        let noticed = (0..100).filter_map(|_| repeats.count("same", now)).count();
        assert_eq!(noticed, 100 - WRITES_MAX as usize);
        assert_eq!(repeats.count("same", now + WINDOW * 2), None);
    }
}
