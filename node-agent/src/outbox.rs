//! Events on their way to the dispatcher, as pure bookkeeping: batches in order, and results kept until they are
//! recorded.
//!
//! ```text
//! end: queued ──batch──► in flight ──confirmed──► sent (delivery acked) ──recorded──► forgotten
//!        ▲                                         │ new dispatcher, or no acknowledgement
//!        └─────────────────────────────────────────┘
//! ```
//! A run's end never overtakes its start: while the start is in flight the end is held back.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use contract::{
    ids::{RunId, RunKey},
    message::{AgentEvent, EVENTS_PER_BATCH_MAX, Finished, NodeReport, RUNS_PER_HEARTBEAT_MAX, Started},
    outcome::JobTaskEnd,
};

/// Results that are kept at most; with so many unacknowledged, no run starts.
pub const KEPT_MAX: usize = RUNS_PER_HEARTBEAT_MAX;
/// Batches in flight at most.
pub const BATCHES_IN_FLIGHT_MAX: usize = 4;
/// A result without an acknowledgement is sent again after this long.
pub const RESEND_AFTER: Duration = Duration::from_secs(15);
/// A batch is closed once it has this many bytes.
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// Number of a batch, counted from the start of the agent.
pub type BatchId = u64;

enum Item {
    Started(Started),
    Finished(RunId),
    Node(NodeReport),
    JobTask(Box<JobTaskEnd>),
}

enum Progress {
    Queued,
    InFlight,
    At(Instant),
}

struct Kept<H> {
    finished: Box<Finished>,
    held: Option<H>,
    progress: Progress,
    is_news: bool,
}

#[derive(Default)]
struct Batch {
    started: Vec<RunId>,
    finished: Vec<RunId>,
    has_report: bool,
}

/// Queue of events, and the results that are kept; `H` is the type of a held delivery.
pub struct Outbox<H> {
    queue: VecDeque<Item>,
    set_aside: HashSet<RunId>,
    beginnings_in_flight: HashSet<RunId>,
    batches: HashMap<BatchId, Batch>,
    batch_last: BatchId,
    is_reporting: bool,
    /// The last report of the node's state.
    state: Option<NodeReport>,
    kept: HashMap<RunId, Kept<H>>,
}

impl<H> Default for Outbox<H> {
    fn default() -> Outbox<H> {
        Outbox {
            queue: VecDeque::new(),
            set_aside: HashSet::new(),
            beginnings_in_flight: HashSet::new(),
            batches: HashMap::new(),
            batch_last: 0,
            is_reporting: false,
            state: None,
            kept: HashMap::new(),
        }
    }
}

impl<H> Outbox<H> {
    /// Queues the start of a run.
    pub fn started(&mut self, started: Started) {
        self.queue.push_back(Item::Started(started));
    }

    /// Queues the result of a run; its delivery is returned by `confirmed` or `forget`.
    pub fn finished(&mut self, finished: Box<Finished>, held: Option<H>) {
        let run = finished.run;
        self.kept.insert(run, Kept { finished, held, progress: Progress::Queued, is_news: true });
        self.queue.push_back(Item::Finished(run));
    }

    /// Queues a change of the node's state.
    pub fn report(&mut self, mut report: NodeReport) {
        report.number = self.state.as_ref().map_or(0, |last| last.number) + 1;
        let start_task = self.state.take().and_then(|last| last.start_task);
        self.state = Some(NodeReport { start_task: report.start_task.clone().or(start_task), ..report.clone() });
        self.queue.push_back(Item::Node(report));
    }

    pub fn state(&self) -> Option<&NodeReport> {
        self.state.as_ref()
    }

    /// Queues the result of a job task.
    pub fn job_task(&mut self, end: Box<JobTaskEnd>) {
        self.queue.push_back(Item::JobTask(end));
    }

    /// Whether there is room for the result of one more run.
    pub fn has_room(&self, live: usize) -> bool {
        self.kept.len() + live < KEPT_MAX
    }

    pub fn kept_count(&self) -> usize {
        self.kept.len()
    }

    pub fn kept(&self) -> Vec<RunKey> {
        self.kept.values().take(RUNS_PER_HEARTBEAT_MAX).map(|kept| kept.finished.run_key()).collect()
    }

    /// Whether every event was sent and confirmed.
    pub fn is_all_confirmed(&self) -> bool {
        self.queue.is_empty() && self.batches.is_empty() && self.set_aside.is_empty()
    }

    /// The next batch, if there is one and not too many are in flight.
    pub fn batch(&mut self) -> Option<(BatchId, Vec<AgentEvent>)> {
        if self.queue.is_empty() || self.batches.len() >= BATCHES_IN_FLIGHT_MAX {
            return None;
        }
        let mut batch = Batch::default();
        let mut events = Vec::with_capacity(self.queue.len().min(EVENTS_PER_BATCH_MAX));
        let mut bytes = 0;
        while events.len() < EVENTS_PER_BATCH_MAX && bytes < BATCH_BYTES_MAX {
            match self.queue.pop_front() {
                None => break,
                Some(Item::Started(started)) => {
                    batch.started.push(started.run);
                    events.push(AgentEvent::Started(started));
                }
                Some(Item::Finished(run)) if self.beginnings_in_flight.contains(&run) => {
                    self.set_aside.insert(run);
                }
                Some(Item::Finished(run)) => {
                    let Some(kept) = self.kept.get_mut(&run).filter(|kept| matches!(kept.progress, Progress::Queued)) else { continue };
                    (kept.progress, kept.is_news) = (Progress::InFlight, false);
                    bytes += inline_bytes(&kept.finished);
                    batch.finished.push(run);
                    events.push(AgentEvent::Finished(kept.finished.clone()));
                }
                Some(Item::JobTask(end)) => events.push(AgentEvent::JobTask(end)),
                Some(report @ Item::Node(_)) if self.is_reporting => {
                    self.queue.push_front(report);
                    break;
                }
                Some(Item::Node(report)) => {
                    batch.has_report = true;
                    events.push(AgentEvent::Node(report));
                    // Later events must not overtake a report.
                    break;
                }
            }
        }
        if events.is_empty() {
            return None;
        }
        self.is_reporting |= batch.has_report;
        self.beginnings_in_flight.extend(&batch.started);
        self.batch_last += 1;
        self.batches.insert(self.batch_last, batch);
        Some((self.batch_last, events))
    }

    /// Records that the broker has a batch; returns the deliveries to acknowledge.
    pub fn confirmed(&mut self, id: BatchId, now: Instant) -> Vec<H> {
        let Some(batch) = self.batches.remove(&id) else { return Vec::new() };
        if batch.has_report {
            self.is_reporting = false;
        }
        for run in batch.started {
            self.beginnings_in_flight.remove(&run);
            if self.set_aside.remove(&run) {
                self.queue.push_back(Item::Finished(run));
            }
        }
        let mut held = Vec::with_capacity(batch.finished.len());
        for run in batch.finished {
            if let Some(kept) = self.kept.get_mut(&run) {
                kept.progress = Progress::At(now);
                held.extend(kept.held.take());
            }
        }
        held
    }

    /// Forgets a result that the dispatcher has recorded or does not want; one that was never sent is sent first all
    /// the same, because it carries the run's output.
    pub fn forget(&mut self, run: RunId) -> Option<H> {
        if self.kept.get(&run).is_some_and(|kept| kept.is_news) {
            return None;
        }
        self.kept.remove(&run).and_then(|kept| kept.held)
    }

    /// Queues unacknowledged results again: all of them, or those that have waited too long. Returns how many.
    pub fn resend(&mut self, now: Instant, everything: bool) -> usize {
        let before = self.queue.len();
        for (run, kept) in &mut self.kept {
            if matches!(kept.progress, Progress::At(at) if everything || now.duration_since(at) >= RESEND_AFTER) {
                kept.progress = Progress::Queued;
                self.queue.push_back(Item::Finished(*run));
            }
        }
        self.queue.len() - before
    }
}

fn inline_bytes(finished: &Finished) -> usize {
    use contract::outcome::Stream;
    [&finished.stdout, &finished.stderr].iter().map(|stream| if let Stream::Inline { bytes } = stream { bytes.len() } else { 0 }).sum()
}

#[cfg(test)]
mod tests {
    use contract::{
        ids::{Fence, TaskUid},
        message::StartTaskEnd,
        outcome::{Outcome, Stream, Usage},
        state::NodeState,
        time::Timestamp,
    };

    use super::*;

    fn started(run: u128) -> Started {
        Started { uid: TaskUid(1), attempt: 1, fence: Fence(1), run: RunId(run), at: Timestamp(0) }
    }

    fn finished(run: u128) -> Box<Finished> {
        Box::new(Finished {
            uid: TaskUid(1),
            attempt: 1,
            fence: Fence(1),
            run: RunId(run),
            started_at: Timestamp(0),
            ended_at: Timestamp(0),
            outcome: Outcome::Exit { code: 0 },
            stdout: Stream::Empty,
            stderr: Stream::Empty,
            usage: Usage::default(),
        })
    }

    fn runs(events: &[AgentEvent]) -> Vec<(char, u128)> {
        let run = |event: &AgentEvent| match event {
            AgentEvent::Started(started) => ('s', started.run.0),
            AgentEvent::Finished(finished) => ('f', finished.run.0),
            AgentEvent::Node(_) => ('n', 0),
            AgentEvent::JobTask(_) => ('c', 0),
        };
        events.iter().map(run).collect()
    }

    #[test]
    fn a_delivery_is_given_back_once_its_end_is_confirmed() {
        let mut outbox = Outbox::default();
        outbox.started(started(1));
        outbox.finished(finished(1), Some("tag"));
        let (id, events) = outbox.batch().unwrap();
        assert_eq!(runs(&events), [('s', 1), ('f', 1)]);
        assert!(outbox.batch().is_none() && !outbox.is_all_confirmed());
        assert_eq!(outbox.confirmed(id, Instant::now()), ["tag"]);
        assert!(outbox.is_all_confirmed() && outbox.kept_count() == 1);
        assert_eq!(outbox.forget(RunId(1)), None);
        assert_eq!(outbox.kept_count(), 0);
    }

    #[test]
    fn an_end_never_overtakes_its_beginning() {
        let mut outbox: Outbox<()> = Outbox::default();
        outbox.started(started(1));
        let (first, _) = outbox.batch().unwrap();
        outbox.finished(finished(1), None);
        outbox.started(started(2));
        let (_, events) = outbox.batch().unwrap();
        assert_eq!(runs(&events), [('s', 2)]);
        outbox.confirmed(first, Instant::now());
        assert_eq!(runs(&outbox.batch().unwrap().1), [('f', 1)]);
    }

    #[test]
    fn ends_are_sent_again_to_a_new_dispatcher_at_once_and_to_a_silent_one_later() {
        let mut outbox: Outbox<()> = Outbox::default();
        outbox.finished(finished(1), None);
        let (id, _) = outbox.batch().unwrap();
        let now = Instant::now();
        assert_eq!(outbox.resend(now, true), 0, "it is on its way");
        outbox.confirmed(id, now);
        assert_eq!(outbox.resend(now, false), 0);
        assert_eq!(outbox.resend(now, true), 1);
        let (id, _) = outbox.batch().unwrap();
        outbox.confirmed(id, now);
        assert_eq!(outbox.resend(now + RESEND_AFTER, false), 1);
        outbox.forget(RunId(1));
        assert!(outbox.batch().is_none() && outbox.is_all_confirmed());
    }

    #[test]
    fn recorded_before_the_confirm_still_gives_the_delivery_back() {
        let mut outbox = Outbox::default();
        outbox.finished(finished(1), Some("tag"));
        let (id, _) = outbox.batch().unwrap();
        assert_eq!(outbox.forget(RunId(1)), Some("tag"));
        assert!(outbox.confirmed(id, Instant::now()).is_empty());
    }

    #[test]
    fn an_end_of_no_interest_is_sent_once_all_the_same() {
        let mut outbox = Outbox::default();
        outbox.started(started(1));
        let (first, _) = outbox.batch().unwrap();
        outbox.finished(finished(1), Some("tag"));
        assert_eq!(outbox.forget(RunId(1)), None);
        outbox.confirmed(first, Instant::now());
        let (second, events) = outbox.batch().unwrap();
        assert_eq!(runs(&events), [('f', 1)]);
        assert_eq!(outbox.confirmed(second, Instant::now()), ["tag"]);
        outbox.forget(RunId(1));
        assert_eq!(outbox.kept_count(), 0);
    }

    #[test]
    fn reports_of_the_node_keep_their_order() {
        let mut outbox: Outbox<()> = Outbox::default();
        let report = |state| NodeReport { state, start_task: None, fault: None, is_drained: false, at: Timestamp(0), number: 0 };
        outbox.report(report(NodeState::WaitingForStartTask));
        outbox.report(report(NodeState::Idle));
        outbox.started(started(1));
        let (first, events) = outbox.batch().unwrap();
        assert_eq!(runs(&events), [('n', 0)]);
        assert!(outbox.batch().is_none());
        outbox.confirmed(first, Instant::now());
        assert!(outbox.batch().is_some());
        assert_eq!(runs(&outbox.batch().unwrap().1), [('s', 1)]);
    }

    #[test]
    fn the_last_report_is_kept_with_its_number_and_the_end_of_the_start_task() {
        let mut outbox: Outbox<()> = Outbox::default();
        let (at, outcome) = (Timestamp(0), Outcome::Exit { code: 1 });
        let end = StartTaskEnd { started_at: at, ended_at: at, outcome, retries: 0, retried_at: None };
        let report = |start_task, state| NodeReport { state, start_task, fault: None, is_drained: false, at, number: 0 };
        outbox.report(report(Some(end.clone()), NodeState::Idle));
        outbox.report(report(None, NodeState::Unusable));
        let state = outbox.state().unwrap();
        assert_eq!((state.number, state.state, &state.start_task), (2, NodeState::Unusable, &Some(end)));
        let (_, events) = outbox.batch().unwrap();
        assert!(matches!(&events[..], [AgentEvent::Node(report)] if report.number == 1), "events have the same numbers");
    }

    #[test]
    fn batches_are_bounded_in_size_and_number() {
        let mut outbox: Outbox<()> = Outbox::default();
        (0..2000).for_each(|run| outbox.started(started(run)));
        let sizes: Vec<usize> = std::iter::from_fn(|| outbox.batch()).map(|(_, events)| events.len()).collect();
        assert_eq!(sizes, [EVENTS_PER_BATCH_MAX; BATCHES_IN_FLIGHT_MAX]);
    }
}
