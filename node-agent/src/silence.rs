//! Decides when an agent counts as hung, without a clock of its own.

use std::time::{Duration, Instant};

/// A check that comes so much later than the last means that the guardian itself was stopped meanwhile.
const GAP_MAX: Duration = Duration::from_secs(3);

/// Measures how long the agent has sent nothing.
#[derive(Debug)]
pub struct Silence {
    limit: Option<Duration>,
    last_message_at: Instant,
    checked_at: Instant,
}

impl Silence {
    /// Starts without a limit.
    pub fn new(now: Instant) -> Silence {
        Silence { limit: None, last_message_at: now, checked_at: now }
    }

    /// Sets the silence that counts as a hang; `None` is no limit.
    pub fn limit(&mut self, limit: Option<Duration>) {
        self.limit = limit;
    }

    /// Records a message of the agent.
    pub fn reset(&mut self, now: Instant) {
        (self.last_message_at, self.checked_at) = (now, now);
    }

    /// Whether the silence exceeds the limit; time in which the guardian was stopped does not count.
    pub fn is_too_long(&mut self, now: Instant) -> bool {
        if now.duration_since(self.checked_at) > GAP_MAX {
            self.last_message_at = now;
        }
        self.checked_at = now;
        self.limit.is_some_and(|limit| now.duration_since(self.last_message_at) > limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_beyond_the_limit_is_too_long() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut silence = Silence::new(start);
        assert!((1..100).all(|second| !silence.is_too_long(at(second))), "there is no limit");
        silence.limit(Some(Duration::from_secs(5)));
        silence.reset(at(100));
        assert!((101..=105).all(|second| !silence.is_too_long(at(second))));
        assert!(silence.is_too_long(at(106)));
        silence.reset(at(107));
        assert!(!silence.is_too_long(at(108)));
        silence.limit(None);
        assert!((109..200).all(|second| !silence.is_too_long(at(second))));
    }

    #[test]
    fn a_guardian_that_was_stopped_itself_blames_nobody() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut silence = Silence::new(start);
        silence.limit(Some(Duration::from_secs(5)));
        assert!(!silence.is_too_long(at(60)));
        assert!((61..=65).all(|second| !silence.is_too_long(at(second))));
        assert!(silence.is_too_long(at(66)));
    }
}
