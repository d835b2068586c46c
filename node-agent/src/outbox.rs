//! What this node has to tell, as pure bookkeeping: batches in order, and ends kept until they are recorded.
//!
//! ```text
//! end: queued ──batch──► in flight ──confirmed──► told (delivery acked) ──recorded──► forgotten
//!        ▲                                         │ new dispatcher, or no answer
//!        └─────────────────────────────────────────┘
//! ```
//! A run's end never overtakes its beginning: while that is in flight the end is set aside.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use broker_config::{
    chore::ChoreEnd,
    ids::{RunId, RunKey},
    message::{AgentEvent, EVENTS_PER_BATCH_MAX, Finished, NodeReport, RUNS_PER_BEAT_MAX, Started},
};

/// Ends that are kept at most; with so many unanswered, slots wait.
pub const KEPT_MAX: usize = RUNS_PER_BEAT_MAX;
/// Batches on the way at once.
pub const BATCHES_IN_FLIGHT_MAX: usize = 4;
/// An end without an answer is told again after this long.
pub const TELL_AGAIN_AFTER: Duration = Duration::from_secs(15);
/// The bytes of one batch after which it is closed.
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// A batch that was handed out.
pub type BatchId = u64;

enum Item {
    Started(Started),
    Finished(RunId),
    Node(NodeReport),
    Chore(Box<ChoreEnd>),
}

enum Told {
    Queued,
    InFlight,
    At(Instant),
}

struct Kept<H> {
    finished: Box<Finished>,
    held: Option<H>,
    told: Told,
}

#[derive(Default)]
struct Batch {
    started: Vec<RunId>,
    finished: Vec<RunId>,
    has_report: bool,
}

/// The queue of events and the ends that are kept; `H` is the hold on a delivery.
pub struct Outbox<H> {
    queue: VecDeque<Item>,
    set_aside: HashSet<RunId>,
    beginnings_in_flight: HashSet<RunId>,
    batches: HashMap<BatchId, Batch>,
    batch_last: BatchId,
    is_reporting: bool,
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
            kept: HashMap::new(),
        }
    }
}

impl<H> Outbox<H> {
    /// A run began.
    pub fn started(&mut self, started: Started) {
        self.queue.push_back(Item::Started(started));
    }

    /// A run ended; its delivery is handed back by `confirmed` or `forget`.
    pub fn finished(&mut self, finished: Box<Finished>, held: Option<H>) {
        let run = finished.run;
        self.kept.insert(run, Kept { finished, held, told: Told::Queued });
        self.queue.push_back(Item::Finished(run));
    }

    /// The node's state changed.
    pub fn report(&mut self, report: NodeReport) {
        self.queue.push_back(Item::Node(report));
    }

    /// A chore ended.
    pub fn chore(&mut self, end: Box<ChoreEnd>) {
        self.queue.push_back(Item::Chore(end));
    }

    /// Whether the next run's end still has a place.
    pub fn has_room(&self, live: usize) -> bool {
        self.kept.len() + live < KEPT_MAX
    }

    /// How many ends are kept.
    pub fn kept_count(&self) -> usize {
        self.kept.len()
    }

    /// The runs whose ends are kept.
    pub fn kept(&self) -> Vec<RunKey> {
        self.kept.values().take(RUNS_PER_BEAT_MAX).map(|kept| kept.finished.run_key()).collect()
    }

    /// Whether everything has been told and confirmed.
    pub fn is_told(&self) -> bool {
        self.queue.is_empty() && self.batches.is_empty() && self.set_aside.is_empty()
    }

    /// The next batch, if there is one and not too many are on the way.
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
                    let Some(kept) = self.kept.get_mut(&run).filter(|kept| matches!(kept.told, Told::Queued)) else { continue };
                    kept.told = Told::InFlight;
                    bytes += inline_bytes(&kept.finished);
                    batch.finished.push(run);
                    events.push(AgentEvent::Finished(kept.finished.clone()));
                }
                Some(Item::Chore(end)) => events.push(AgentEvent::Chore(end)),
                Some(report @ Item::Node(_)) if self.is_reporting => {
                    self.queue.push_front(report);
                    break;
                }
                Some(Item::Node(report)) => {
                    batch.has_report = true;
                    events.push(AgentEvent::Node(report));
                    // What follows a report must not overtake it.
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

    /// The broker has a batch; the deliveries to acknowledge.
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
                kept.told = Told::At(now);
                held.extend(kept.held.take());
            }
        }
        held
    }

    /// The end of a run is recorded, or of no interest any more.
    pub fn forget(&mut self, run: RunId) -> Option<H> {
        self.kept.remove(&run).and_then(|kept| kept.held)
    }

    /// Queues again what was told and not answered: all of it, or what has waited too long.
    pub fn tell_again(&mut self, now: Instant, everything: bool) -> usize {
        let before = self.queue.len();
        for (run, kept) in &mut self.kept {
            if matches!(kept.told, Told::At(at) if everything || now.duration_since(at) >= TELL_AGAIN_AFTER) {
                kept.told = Told::Queued;
                self.queue.push_back(Item::Finished(*run));
            }
        }
        self.queue.len() - before
    }
}

fn inline_bytes(finished: &Finished) -> usize {
    use broker_config::message::Stream;
    [&finished.stdout, &finished.stderr].iter().map(|stream| if let Stream::Inline { bytes } = stream { bytes.len() } else { 0 }).sum()
}

#[cfg(test)]
mod tests {
    use broker_config::{
        ids::{Fence, TaskUid},
        message::{Outcome, Stream, Usage},
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
            AgentEvent::Chore(_) => ('c', 0),
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
        assert!(outbox.batch().is_none() && !outbox.is_told());
        assert_eq!(outbox.confirmed(id, Instant::now()), ["tag"]);
        assert!(outbox.is_told() && outbox.kept_count() == 1);
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
    fn a_new_dispatcher_is_told_again_and_a_silent_one_later() {
        let mut outbox: Outbox<()> = Outbox::default();
        outbox.finished(finished(1), None);
        let (id, _) = outbox.batch().unwrap();
        let now = Instant::now();
        assert_eq!(outbox.tell_again(now, true), 0, "it is on its way");
        outbox.confirmed(id, now);
        assert_eq!(outbox.tell_again(now, false), 0);
        assert_eq!(outbox.tell_again(now, true), 1);
        let (id, _) = outbox.batch().unwrap();
        outbox.confirmed(id, now);
        assert_eq!(outbox.tell_again(now + TELL_AGAIN_AFTER, false), 1);
        outbox.forget(RunId(1));
        assert!(outbox.batch().is_none() && outbox.is_told());
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
    fn reports_of_the_node_keep_their_order() {
        let mut outbox: Outbox<()> = Outbox::default();
        let report = |state| NodeReport { state, start_task: None, fault: None, is_drained: false, at: Timestamp(0) };
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
    fn batches_are_bounded_in_size_and_number() {
        let mut outbox: Outbox<()> = Outbox::default();
        (0..2000).for_each(|run| outbox.started(started(run)));
        let sizes: Vec<usize> = std::iter::from_fn(|| outbox.batch()).map(|(_, events)| events.len()).collect();
        assert_eq!(sizes, [EVENTS_PER_BATCH_MAX; BATCHES_IN_FLIGHT_MAX]);
    }
}
