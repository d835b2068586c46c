//! The runs under way, by their own id and by the attempt that they are of, with the deliveries that they hold.

use std::collections::HashMap;

use clients::amqp::Tag;
use contract::{
    ids::{AttemptKey, JobId, RunId, RunKey},
    outcome::JobTaskEnd,
    time::Timestamp,
};
use tokio::sync::oneshot;

use crate::execution::RunControl;

/// The consumer that brought a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Slot(u32),
    Wide,
}

/// A delivery that is not settled yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) source: Source,
    pub(super) tag: Tag,
}

impl Held {
    pub(super) fn hand(&self) -> Option<(u32, Tag)> {
        match self.source {
            Source::Slot(slot) => Some((slot, self.tag)),
            Source::Wide => None,
        }
    }
}

/// A run under way.
pub(super) struct Live {
    pub(super) key: RunKey,
    pub(super) job: JobId,
    pub(super) held: Option<Held>,
    pub(super) units: u32,
    pub(super) started_at: Timestamp,
    pub(super) run_control: RunControl,
    /// Lets the run begin, or hands it the result of its job's failed preparation.
    pub(super) begin: Option<oneshot::Sender<Option<Box<JobTaskEnd>>>>,
}

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
