//! Attempts that must not start should they still be delivered; each is forgotten after a while.

use std::{
    collections::{HashSet, VecDeque},
    time::{Duration, Instant},
};

use contract::{ids::AttemptKey, message::REVOKE_MS};

/// Attempts remembered at most; the oldest are forgotten first.
pub const REVOKED_MAX: usize = 65_536;

/// Attempts that the dispatcher has revoked, with the times of their orders.
#[derive(Debug, Default)]
pub struct Revoked {
    order: VecDeque<(Instant, AttemptKey)>,
    keys: HashSet<AttemptKey>,
}

impl Revoked {
    /// Remembers an attempt.
    pub fn insert(&mut self, key: AttemptKey, now: Instant) {
        self.expire(now);
        if self.keys.insert(key) {
            self.order.push_back((now, key));
        }
        if self.order.len() > REVOKED_MAX
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
    }

    /// Whether the attempt is revoked.
    pub fn holds(&mut self, key: &AttemptKey, now: Instant) -> bool {
        if self.keys.is_empty() {
            return false;
        }
        self.expire(now);
        self.keys.contains(key)
    }

    fn expire(&mut self, now: Instant) {
        while let Some((at, key)) = self.order.front() {
            if now.duration_since(*at) < Duration::from_millis(REVOKE_MS) {
                break;
            }
            self.keys.remove(key);
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use contract::ids::{Fence, TaskUid};

    use super::*;

    #[test]
    fn attempts_are_remembered_for_a_while_and_in_bounded_number() {
        let key = |uid| AttemptKey { uid: TaskUid(uid), attempt: 1, fence: Fence(1) };
        let now = Instant::now();
        let mut revoked = Revoked::default();
        revoked.insert(key(0), now);
        assert!(revoked.holds(&key(0), now) && !revoked.holds(&key(1), now));
        assert!(!revoked.holds(&key(0), now + Duration::from_millis(REVOKE_MS)));
        (0..REVOKED_MAX as u64 + 10).for_each(|uid| revoked.insert(key(uid), now));
        assert_eq!(revoked.keys.len(), REVOKED_MAX);
        assert!(!revoked.holds(&key(9), now) && revoked.holds(&key(10), now));
    }
}
