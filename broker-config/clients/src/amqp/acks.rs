//! Settles deliveries without waiting for the network, and joins runs of acks into one frame.
//!
//! The ledger records, for one channel at a time, which tags are settled. Below a tag of which everything is settled
//! or about to be, one `multiple` ack is enough; above it each ack is its own frame. Tags of older channels are dropped.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesOrdered};
use lapin::{
    Channel,
    options::{BasicAckOptions, BasicNackOptions},
};
use tokio::{sync::Notify, time::timeout};

use super::{error::AmqpError, limits::OPERATION_TIMEOUT, subscription::Tag};

/// Settles a consumer's deliveries from anywhere, without waiting.
#[derive(Clone)]
pub struct Acker {
    ledger: Arc<Ledger>,
}

impl Acker {
    pub(super) fn new(ledger: Arc<Ledger>) -> Acker {
        Acker { ledger }
    }

    /// Acknowledges one delivery.
    pub fn ack(&self, tag: Tag) {
        self.ledger.settle(tag, |state, number| state.ack(number));
    }

    /// Acknowledges this delivery and all earlier ones of its channel.
    pub fn ack_multiple(&self, tag: Tag) {
        self.ledger.settle(tag, AckState::ack_multiple);
    }

    /// Gives a delivery back: to its queue when `requeue` is set, else to the dead letter exchange.
    pub fn nack(&self, tag: Tag, requeue: bool) {
        self.ledger.settle(tag, |state, number| state.nack(number, requeue));
    }

    /// Age of the oldest unsettled delivery; nothing when all are settled.
    pub fn oldest(&self) -> Option<Duration> {
        self.ledger.state().arrived.front().map(Instant::elapsed)
    }

    /// Sends a delivery that can never be processed to the dead letter exchange.
    pub fn reject_to_dead(&self, tag: Tag) {
        self.nack(tag, false);
    }
}

/// Settled tags of the present channel; never longer than the list of delivered and unsettled ones.
pub(super) struct Ledger {
    state: Mutex<AckState>,
    work: Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AckFrame {
    Ack { number: u64, multiple: bool },
    Nack { number: u64, requeue: bool },
}

#[derive(Default)]
struct AckState {
    generation: u64,
    delivered: u64,
    /// Arrival times of the deliveries above `floor`.
    arrived: VecDeque<Instant>,
    /// All tags up to this one are settled at the broker.
    floor: u64,
    /// Tags above `floor` that are settled at the broker.
    settled: BTreeSet<u64>,
    acks: BTreeSet<u64>,
    nacks: VecDeque<(u64, bool)>,
    nacking: BTreeSet<u64>,
}

impl AckState {
    fn deliver(&mut self, number: u64) {
        for _ in self.delivered..number {
            self.arrived.push_back(Instant::now());
        }
        self.delivered = self.delivered.max(number);
    }

    fn is_open(&self, number: u64) -> bool {
        number > self.floor
            && number <= self.delivered
            && !self.settled.contains(&number)
            && !self.acks.contains(&number)
            && !self.nacking.contains(&number)
    }

    fn ack(&mut self, number: u64) {
        if self.is_open(number) {
            self.acks.insert(number);
        }
    }

    fn ack_multiple(&mut self, number: u64) {
        for number in self.floor + 1..=number.min(self.delivered) {
            self.ack(number);
        }
    }

    fn nack(&mut self, number: u64, requeue: bool) {
        if self.is_open(number) {
            self.nacks.push_back((number, requeue));
            self.nacking.insert(number);
        }
    }

    fn unsettled(&self) -> u64 {
        self.delivered - self.floor - self.settled.len() as u64
    }

    /// Takes the frames to write now; from then on they count as written.
    fn take(&mut self) -> Vec<AckFrame> {
        let mut frames = Vec::new();
        for (number, requeue) in self.nacks.drain(..) {
            frames.push(AckFrame::Nack { number, requeue });
        }
        self.settled.append(&mut self.nacking);
        let mut acks = std::mem::take(&mut self.acks);
        // A `multiple` ack must name a tag that is itself open, so it ends at the last ack of the run.
        let mut last = None;
        loop {
            let next = self.floor + 1;
            if acks.remove(&next) {
                last = Some(next);
            } else if !self.settled.remove(&next) {
                break;
            }
            self.floor = next;
            self.arrived.pop_front();
        }
        frames.extend(last.map(|number| AckFrame::Ack { number, multiple: true }));
        frames.extend(acks.iter().map(|&number| AckFrame::Ack { number, multiple: false }));
        self.settled.append(&mut acks);
        frames
    }
}

impl Ledger {
    pub(super) fn new() -> Arc<Ledger> {
        Arc::new(Ledger { state: Mutex::default(), work: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, AckState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts with a new channel; acks for the old one are void.
    pub(super) fn begin(&self, generation: u64) {
        *self.state() = AckState { generation, ..AckState::default() };
        self.work.notify_one();
    }

    /// Records that a tag was delivered.
    pub(super) fn delivered(&self, number: u64) {
        self.state().deliver(number);
    }

    /// The number of unsettled deliveries.
    pub(super) fn unsettled(&self) -> u64 {
        self.state().unsettled()
    }

    fn settle(&self, tag: Tag, apply: impl FnOnce(&mut AckState, u64)) {
        let mut state = self.state();
        if state.generation != tag.generation {
            return;
        }
        apply(&mut state, tag.number);
        let has_work = !state.acks.is_empty() || !state.nacks.is_empty();
        drop(state);
        if has_work {
            self.work.notify_one();
        }
    }

    fn take(&self, generation: u64) -> Option<Vec<AckFrame>> {
        let mut state = self.state();
        (state.generation == generation).then(|| state.take())
    }

    /// Writes the pending acks on the channel of a generation.
    pub(super) async fn flush(&self, generation: u64, channel: &Channel) -> Result<(), AmqpError> {
        let frames = self.take(generation).unwrap_or_default();
        let mut writes: FuturesOrdered<_> = frames.into_iter().map(|frame| write(channel, frame)).collect();
        let all = async {
            while let Some(written) = writes.next().await {
                written?;
            }
            Ok::<_, AmqpError>(())
        };
        timeout(OPERATION_TIMEOUT, all).await.unwrap_or(Err(AmqpError::Timeout { what: "writing acks" }))
    }

    /// Writes until the generation is over or the channel fails.
    pub(super) async fn keep_writing(&self, generation: u64, channel: &Channel) -> Result<(), AmqpError> {
        loop {
            self.work.notified().await;
            if self.state().generation != generation {
                return Ok(());
            }
            self.flush(generation, channel).await?;
        }
    }
}

async fn write(channel: &Channel, frame: AckFrame) -> lapin::Result<()> {
    match frame {
        AckFrame::Ack { number, multiple } => channel.basic_ack(number, BasicAckOptions { multiple }).await,
        AckFrame::Nack { number, requeue } => channel.basic_nack(number, BasicNackOptions { multiple: false, requeue }).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(delivered: u64) -> AckState {
        let mut state = AckState { generation: 1, ..AckState::default() };
        state.deliver(delivered);
        state
    }

    fn ack(number: u64, multiple: bool) -> AckFrame {
        AckFrame::Ack { number, multiple }
    }

    #[test]
    fn a_run_from_the_floor_is_one_ack() {
        let mut state = state(10);
        [3, 1, 2, 7].into_iter().for_each(|number| state.ack(number));
        assert_eq!(state.take(), [ack(3, true), ack(7, false)]);
        [4, 5, 6].into_iter().for_each(|number| state.ack(number));
        assert_eq!(state.take(), [ack(6, true)]);
        assert_eq!((state.floor, state.unsettled()), (7, 3));
    }

    #[test]
    fn a_multiple_ack_never_names_a_tag_that_is_settled_already() {
        let mut state = state(5);
        state.ack(2);
        assert_eq!(state.take(), [ack(2, false)]);
        state.ack(1);
        assert_eq!(state.take(), [ack(1, true)]);
        assert_eq!(state.floor, 2);
    }

    #[test]
    fn a_tag_is_settled_once() {
        let mut state = state(3);
        state.nack(1, true);
        state.ack(1);
        state.ack(2);
        state.ack(2);
        assert_eq!(state.take(), [AckFrame::Nack { number: 1, requeue: true }, ack(2, true)]);
        state.ack(2);
        state.nack(1, false);
        assert!(state.take().is_empty());
    }

    #[test]
    fn tags_that_were_never_delivered_are_ignored() {
        let mut state = state(2);
        state.ack(3);
        state.ack_multiple(9);
        assert_eq!(state.take(), [ack(2, true)]);
    }

    #[test]
    fn a_running_task_below_keeps_the_others_single() {
        let mut state = state(100);
        (2..=100).for_each(|number| state.ack(number));
        let frames = state.take();
        assert_eq!(frames.len(), 99);
        assert!(frames.iter().all(|frame| matches!(frame, AckFrame::Ack { multiple: false, .. })));
        assert_eq!(state.unsettled(), 1);
    }

    #[test]
    fn the_oldest_delivery_is_the_first_above_what_is_settled() {
        let mut state = state(3);
        let second = state.arrived[1];
        state.ack(3);
        state.take();
        assert_eq!(state.arrived.len(), 3, "the first is still open");
        state.nack(1, true);
        state.take();
        assert_eq!((state.arrived.len(), state.arrived[0]), (2, second));
        state.ack(2);
        state.take();
        assert!(state.arrived.is_empty());
    }

    #[test]
    fn an_older_generation_is_dropped_silently() {
        let ledger = Ledger::new();
        ledger.begin(1);
        ledger.delivered(1);
        ledger.begin(2);
        ledger.delivered(1);
        Acker::new(ledger.clone()).ack(Tag { generation: 1, number: 1 });
        assert_eq!(ledger.take(2), Some(vec![]));
        assert_eq!(ledger.take(1), None);
    }

    proptest::proptest! {
        #[test]
        fn every_ack_reaches_the_wire_exactly_once(order in proptest::collection::vec((1u64..40, 0u8..4), 1..120)) {
            let mut state = state(40);
            let mut open: BTreeSet<u64> = (1..=40).collect();
            let mut wanted = BTreeSet::new();
            for (number, action) in order {
                match action {
                    0 => {
                        for frame in state.take() {
                            match frame {
                                AckFrame::Ack { number, multiple: false } | AckFrame::Nack { number, .. } => assert!(open.remove(&number)),
                                AckFrame::Ack { number, multiple: true } => {
                                    assert!(open.contains(&number));
                                    let gone: Vec<u64> = open.range(..=number).copied().collect();
                                    assert!(gone.iter().all(|number| wanted.contains(number)));
                                    gone.iter().for_each(|number| { open.remove(number); });
                                }
                            }
                        }
                    }
                    1 => { state.nack(number, true); wanted.insert(number); }
                    _ => { state.ack(number); wanted.insert(number); }
                }
            }
            assert_eq!(state.unsettled() as usize, open.len());
        }
    }
}
