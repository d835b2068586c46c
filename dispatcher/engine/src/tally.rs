//! Counts for the metrics that tasks cause in the open transaction: recorded after its commit, dropped when it is
//! refused.

use std::collections::HashMap;

use broker_config::metrics::{
    self, ATTEMPTS_ENDED, AUTO_POOLS, Counter, Histogram, OTHER_POOLS, POOLS_NAMED_MAX, TASK_QUEUE_SECONDS, TASK_RUN_SECONDS,
    TASKS_COMPLETED,
};
use contract::{
    ids::PoolId,
    outcome::{DISK_FULL, Outcome},
};
use model::{auto_pool, task::RequeueCause};
use scheduler::EndCause;

/// Index of the label that further pools share.
const OTHER: usize = 0;
const AUTO: usize = 1;

/// The label of a pool, and what is counted under it.
struct Labelled {
    label: String,
    meters: Option<Meters>,
}

impl Labelled {
    fn meters(&mut self) -> &Meters {
        self.meters.get_or_insert_with(|| Meters::of(&self.label))
    }
}

struct Meters {
    queue_seconds: Histogram,
    run_seconds: Histogram,
    succeeded: Counter,
    failed: Counter,
}

impl Meters {
    fn of(label: &str) -> Meters {
        Meters {
            queue_seconds: TASK_QUEUE_SECONDS.of([label.to_owned()]),
            run_seconds: TASK_RUN_SECONDS.of([label.to_owned()]),
            succeeded: TASKS_COMPLETED.of([label.to_owned(), "success".to_owned()]),
            failed: TASKS_COMPLETED.of([label.to_owned(), "failure".to_owned()]),
        }
    }
}

enum Note {
    Started { place: usize, queued_ms: i64 },
    Ran { place: usize, wall_ms: u64 },
    Completed { place: usize, has_succeeded: bool },
    AttemptEnded(&'static str),
}

/// Counts of the open transaction, and the labels of pools, which survive a reload.
pub(super) struct Tally {
    places: HashMap<PoolId, usize>,
    labels: Vec<Labelled>,
    attempts: HashMap<&'static str, Counter>,
    notes: Vec<Note>,
}

impl Tally {
    pub(super) fn new() -> Tally {
        let labels = [OTHER_POOLS, AUTO_POOLS].map(|label| Labelled { label: label.to_owned(), meters: None });
        Tally { places: HashMap::new(), labels: labels.into(), attempts: HashMap::new(), notes: Vec::new() }
    }

    fn place(&mut self, pool: &PoolId) -> usize {
        if let Some(place) = self.places.get(pool) {
            return *place;
        }
        if auto_pool::is_made_for_jobs(pool) {
            return AUTO;
        }
        if self.places.len() >= POOLS_NAMED_MAX {
            return OTHER;
        }
        let place = self.labels.len();
        self.labels.push(Labelled { label: pool.to_string(), meters: None });
        self.places.insert(pool.clone(), place);
        place
    }

    /// The pool's label.
    pub(super) fn label(&mut self, pool: &PoolId) -> &str {
        let place = self.place(pool);
        &self.labels[place].label
    }

    /// A node started a task that had been active for `queued_ms`.
    pub(super) fn started(&mut self, pool: &PoolId, queued_ms: i64) {
        let place = self.place(pool);
        self.notes.push(Note::Started { place, queued_ms });
    }

    /// A run ended after `wall_ms`.
    pub(super) fn ran(&mut self, pool: &PoolId, wall_ms: u64) {
        let place = self.place(pool);
        self.notes.push(Note::Ran { place, wall_ms });
    }

    /// A task completed.
    pub(super) fn completed(&mut self, pool: &PoolId, has_succeeded: bool) {
        let place = self.place(pool);
        self.notes.push(Note::Completed { place, has_succeeded });
    }

    /// A task ended for good.
    pub(super) fn ended(&mut self, cause: &EndCause) {
        self.notes.push(Note::AttemptEnded(end_word(cause)));
    }

    /// An attempt ended and the task is queued again.
    pub(super) fn requeued(&mut self, cause: RequeueCause) {
        self.notes.push(Note::AttemptEnded(requeue_word(cause)));
    }

    /// Records the counts after the commit.
    pub(super) fn commit(&mut self) {
        for note in self.notes.drain(..) {
            match note {
                Note::Started { place, queued_ms } => self.labels[place].meters().queue_seconds.record(queued_ms.max(0) as f64 / 1000.0),
                Note::Ran { place, wall_ms } => self.labels[place].meters().run_seconds.record(wall_ms as f64 / 1000.0),
                Note::Completed { place, has_succeeded: true } => self.labels[place].meters().succeeded.increment(1),
                Note::Completed { place, has_succeeded: false } => self.labels[place].meters().failed.increment(1),
                Note::AttemptEnded(reason) => self.attempts.entry(reason).or_insert_with(|| ATTEMPTS_ENDED.of([reason])).increment(1),
            }
        }
    }

    /// Drops the counts of a refused transaction.
    pub(super) fn forget(&mut self) {
        self.notes.clear();
    }
}

fn end_word(cause: &EndCause) -> &'static str {
    match cause {
        EndCause::Ended => "ended",
        EndCause::Crashes(_) => "crashes",
        EndCause::Faults { .. } => "faults",
        EndCause::Unreadable => "unreadable",
        EndCause::Finished(finished) => match &finished.outcome {
            Outcome::Exit { code: 0 } => "success",
            Outcome::Exit { .. } => "exit_code",
            Outcome::Signal { .. } => "signal",
            Outcome::Timeout { .. } => "timeout",
            Outcome::Stopped => "stopped",
            Outcome::Staging(_) => "staging",
            Outcome::Launch(fault) if fault.code == DISK_FULL => "disk_full",
            Outcome::Launch(_) => "launch",
            Outcome::Upload { .. } => "upload",
            Outcome::Node(_) => "node",
            Outcome::Unprepared(_) => "unprepared",
        },
    }
}

fn requeue_word(cause: RequeueCause) -> &'static str {
    match cause {
        RequeueCause::Retry => "retried",
        RequeueCause::Recovery => "recovered",
        RequeueCause::Requested => "requested",
        RequeueCause::Unprepared => "unprepared",
    }
}

/// The engine's own metrics, looked up once.
pub(super) struct Batches {
    pub(super) all: Counter,
    pub(super) refused: Counter,
    pub(super) refused_events: Counter,
    pub(super) inputs: Histogram,
    pub(super) seconds: Histogram,
}

impl Batches {
    pub(super) fn new() -> Batches {
        Batches {
            all: metrics::ENGINE_BATCHES.of(metrics::NO_LABELS),
            refused: metrics::ENGINE_BATCHES_REFUSED.of(metrics::NO_LABELS),
            refused_events: metrics::EVENTS_REFUSED.of(metrics::NO_LABELS),
            inputs: metrics::ENGINE_BATCH_INPUTS.of(metrics::NO_LABELS),
            seconds: metrics::ENGINE_BATCH_SECONDS.of(metrics::NO_LABELS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(name: &str) -> PoolId {
        name.parse().unwrap()
    }

    #[test]
    fn labels_are_bounded_however_many_pools_come_and_go() {
        let mut tally = Tally::new();
        for number in 0..3 * POOLS_NAMED_MAX {
            tally.completed(&pool(&format!("p-{number}")), true);
            tally.completed(&pool(&format!("job_{number:08X}-0000-0000-0000-0000000000AB")), true);
            tally.commit();
        }
        assert_eq!(tally.label(&pool("p-0")), "p-0");
        assert_eq!(tally.label(&pool(&format!("p-{}", POOLS_NAMED_MAX - 1))), format!("p-{}", POOLS_NAMED_MAX - 1));
        assert_eq!(tally.label(&pool(&format!("p-{POOLS_NAMED_MAX}"))), OTHER_POOLS);
        assert_eq!(tally.label(&pool("00000001-0000-0000-0000-0000000000AB")), AUTO_POOLS);
        assert_eq!(tally.labels.len(), POOLS_NAMED_MAX + 2);
    }

    #[test]
    fn nothing_of_a_refused_transaction_is_counted() {
        metrics::install();
        let mut tally = Tally::new();
        let counted = |text: &str| text.contains("piecework_tasks_completed_total{pool=\"tally\",result=\"success\"} 1\n");
        tally.completed(&pool("tally"), true);
        tally.forget();
        tally.commit();
        assert!(!counted(&metrics::page(|| ())));
        tally.completed(&pool("tally"), true);
        tally.commit();
        assert!(counted(&metrics::page(|| ())));
    }
}
