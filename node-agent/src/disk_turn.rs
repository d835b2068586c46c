//! Serializes the runs that are ended because the disk is full: one at a time, with a pause in which its space is
//! freed.
//!
//! Agents on one disk share a file; the holder of its lock ends a run, so that not every agent does.

use std::{
    fs::File,
    io,
    path::Path,
    time::{Duration, Instant},
};

use broker_config::private;
use contract::ids::RunId;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

/// Pause between the end of one run and that of the next.
const PAUSE: Duration = Duration::from_secs(10);
/// A run that takes longer to end, or whose files take longer to remove, does not hold up the others.
const ENDING_MAX: Duration = Duration::from_secs(120);

/// Lets one run at a time be ended for lack of space, also among the agents that share a disk.
#[derive(Debug, Default)]
pub struct Turn {
    shared: Option<File>,
    state: State,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Free,
    /// This run is being ended, or its files are being removed, since this moment.
    Ending(RunId, Instant),
    /// A run was ended at this moment.
    Resting(Instant),
}

impl Turn {
    /// Opens the file that agents of one disk share, if there is one.
    pub fn new(path: Option<&Path>) -> Turn {
        let shared = path.and_then(|path| {
            private::open(private::options().create(true).append(true), path)
                .inspect_err(|error| {
                    tracing::warn!(%error, path = %path.display(), "the file that agents of one disk share cannot be opened: on a full disk several may end a run at once");
                })
                .ok()
        });
        Turn { shared, state: State::Free }
    }

    /// Updates the state: notices that the ending run is over, and releases the lock after the pause.
    pub fn update(&mut self, now: Instant, is_over: impl Fn(RunId) -> bool) {
        match self.state {
            State::Ending(run, since) if is_over(run) || now.duration_since(since) >= ENDING_MAX => self.state = State::Resting(now),
            State::Resting(since) if now.duration_since(since) >= PAUSE => {
                self.state = State::Free;
                if let Some(Err(error)) = self.shared.as_ref().map(|file| flock(file, FlockOperation::Unlock)) {
                    tracing::warn!(%error, "cannot unlock the file that agents of one disk share; other agents may be kept from ending runs on a full disk");
                }
            }
            State::Free | State::Ending(..) | State::Resting(_) => {}
        }
    }

    /// Whether a run of this agent is being ended, or was a moment ago.
    pub fn is_taken(&self) -> bool {
        self.state != State::Free
    }

    /// Returns whether a run may be ended now. This agent then keeps the lock until the run is over and a pause has
    /// passed.
    pub fn take(&mut self, run: RunId, now: Instant) -> io::Result<bool> {
        if self.state != State::Free {
            return Ok(false);
        }
        match self.shared.as_ref().map(|file| flock(file, FlockOperation::NonBlockingLockExclusive)) {
            Some(Err(Errno::WOULDBLOCK)) => return Ok(false),
            Some(Err(error)) => return Err(error.into()),
            None | Some(Ok(())) => {}
        }
        self.state = State::Ending(run, now);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_run_is_ended_at_a_time_and_the_next_after_a_pause() {
        let (mut turn, now) = (Turn::new(None), Instant::now());
        assert!(turn.take(RunId(1), now).unwrap());
        assert!(!turn.take(RunId(2), now).unwrap());
        turn.update(now + ENDING_MAX - PAUSE, |_| false);
        assert!(!turn.take(RunId(2), now).unwrap(), "the first has not ended yet");
        turn.update(now, |run| run == RunId(1));
        turn.update(now + PAUSE / 2, |_| true);
        assert!(!turn.take(RunId(2), now).unwrap(), "its space is about to be freed");
        turn.update(now + PAUSE, |_| true);
        assert!(turn.take(RunId(2), now).unwrap());
        turn.update(now + ENDING_MAX, |_| false);
        turn.update(now + ENDING_MAX + PAUSE, |_| false);
        assert!(turn.take(RunId(3), now).unwrap(), "one that cannot be ended");
    }

    #[test]
    fn agents_of_one_disk_share_the_turn() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk-turn");
        let (mut one, mut other) = (Turn::new(Some(&path)), Turn::new(Some(&path)));
        let now = Instant::now();
        assert!(one.take(RunId(1), now).unwrap() && !other.take(RunId(2), now).unwrap());
        one.update(now, |_| true);
        assert!(!other.take(RunId(2), now).unwrap());
        one.update(now + PAUSE, |_| true);
        assert!(other.take(RunId(2), now).unwrap() && !one.take(RunId(3), now).unwrap());
        drop(other);
        assert!(one.take(RunId(3), now).unwrap(), "an agent that dies gives the turn back");
    }
}
