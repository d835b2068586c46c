//! The runs under way, by their own id and by the attempt that they are of.

use std::collections::HashMap;

use contract::ids::{AttemptKey, RunId};

use crate::agent::Live;

/// At most one run of an attempt is alive on a node.
#[derive(Default)]
pub(super) struct LiveRuns {
    runs: HashMap<RunId, Live>,
    by_attempt: HashMap<AttemptKey, RunId>,
}

impl LiveRuns {
    pub(super) fn insert(&mut self, live: Live) {
        self.by_attempt.insert(live.key.key(), live.key.run);
        self.runs.insert(live.key.run, live);
    }

    pub(super) fn remove(&mut self, run: RunId) -> Option<Live> {
        let live = self.runs.remove(&run)?;
        self.by_attempt.remove(&live.key.key());
        Some(live)
    }

    pub(super) fn get(&self, run: RunId) -> Option<&Live> {
        self.runs.get(&run)
    }

    pub(super) fn get_mut(&mut self, run: RunId) -> Option<&mut Live> {
        self.runs.get_mut(&run)
    }

    pub(super) fn has_attempt(&self, attempt: &AttemptKey) -> bool {
        self.by_attempt.contains_key(attempt)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Live> {
        self.runs.values()
    }

    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}
