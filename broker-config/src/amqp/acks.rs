//! Settles deliveries: nobody waits for the wire, and runs of acks leave as one.
//!
//! The ledger knows for one channel at a time which tags are settled. Below a tag of which everything is settled
//! or about to be, one `multiple` ack does; above it acks go singly. Tags of older channels are dropped.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{StreamExt, stream::FuturesOrdered};
use lapin::{
    Channel,
    options::{BasicAckOptions, BasicNackOptions},
};
use tokio::{sync::Notify, time::timeout};

use super::{AmqpError, OPERATION_TIMEOUT, Tag};

/// Settles a consumer's deliveries from anywhere, without waiting.
#[derive(Clone)]
pub struct Acker {
    ledger: Arc<Ledger>,
}

impl Acker {
    pub(super) fn new(ledger: Arc<Ledger>) -> Acker {
        Acker { ledger }
    }

    /// Done with it.
    pub fn ack(&self, tag: Tag) {
        self.ledger.settle(tag, |page, number| page.ack(number));
    }

    /// Done with it and with all that came before it.
    pub fn ack_multiple(&self, tag: Tag) {
        self.ledger.settle(tag, Page::ack_multiple);
    }

    /// Not done; the queue gets it back when `requeue` is set, else it goes to the dead letters.
    pub fn nack(&self, tag: Tag, requeue: bool) {
        self.ledger.settle(tag, |page, number| page.nack(number, requeue));
    }

    /// Never to be done: it goes to the dead letters.
    pub fn reject_to_dead(&self, tag: Tag) {
        self.nack(tag, false);
    }
}

/// What is settled on the present channel; at most as long as what is delivered and unsettled.
pub(super) struct Ledger {
    page: Mutex<Page>,
    work: Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stroke {
    Ack { number: u64, multiple: bool },
    Nack { number: u64, requeue: bool },
}

#[derive(Default)]
struct Page {
    generation: u64,
    delivered: u64,
    /// Everything up to here is settled on the wire.
    floor: u64,
    /// Settled on the wire above the floor.
    settled: BTreeSet<u64>,
    acks: BTreeSet<u64>,
    nacks: VecDeque<(u64, bool)>,
    nacking: BTreeSet<u64>,
}

impl Page {
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

    /// What to write now; from then on it counts as written.
    fn take(&mut self) -> Vec<Stroke> {
        let mut strokes = Vec::new();
        for (number, requeue) in self.nacks.drain(..) {
            strokes.push(Stroke::Nack { number, requeue });
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
        }
        strokes.extend(last.map(|number| Stroke::Ack { number, multiple: true }));
        strokes.extend(acks.iter().map(|&number| Stroke::Ack { number, multiple: false }));
        self.settled.append(&mut acks);
        strokes
    }
}

impl Ledger {
    pub(super) fn new() -> Arc<Ledger> {
        Arc::new(Ledger { page: Mutex::default(), work: Notify::new() })
    }

    fn page(&self) -> MutexGuard<'_, Page> {
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Turns to a new channel; whatever concerned the old one is void.
    pub(super) fn begin(&self, generation: u64) {
        *self.page() = Page { generation, ..Page::default() };
        self.work.notify_one();
    }

    /// Notes that a tag was delivered.
    pub(super) fn delivered(&self, number: u64) {
        let mut page = self.page();
        page.delivered = page.delivered.max(number);
    }

    /// Deliveries that nobody has settled yet.
    pub(super) fn unsettled(&self) -> u64 {
        self.page().unsettled()
    }

    fn settle(&self, tag: Tag, stroke: impl FnOnce(&mut Page, u64)) {
        let mut page = self.page();
        if page.generation != tag.generation {
            return;
        }
        stroke(&mut page, tag.number);
        let has_work = !page.acks.is_empty() || !page.nacks.is_empty();
        drop(page);
        if has_work {
            self.work.notify_one();
        }
    }

    fn take(&self, generation: u64) -> Option<Vec<Stroke>> {
        let mut page = self.page();
        (page.generation == generation).then(|| page.take())
    }

    /// Writes what there is to write on a generation's channel.
    pub(super) async fn flush(&self, generation: u64, channel: &Channel) -> Result<(), AmqpError> {
        let strokes = self.take(generation).unwrap_or_default();
        let mut writes: FuturesOrdered<_> = strokes.into_iter().map(|stroke| write(channel, stroke)).collect();
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
            if self.page().generation != generation {
                return Ok(());
            }
            self.flush(generation, channel).await?;
        }
    }
}

async fn write(channel: &Channel, stroke: Stroke) -> lapin::Result<()> {
    match stroke {
        Stroke::Ack { number, multiple } => channel.basic_ack(number, BasicAckOptions { multiple }).await,
        Stroke::Nack { number, requeue } => channel.basic_nack(number, BasicNackOptions { multiple: false, requeue }).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(delivered: u64) -> Page {
        Page { generation: 1, delivered, ..Page::default() }
    }

    fn ack(number: u64, multiple: bool) -> Stroke {
        Stroke::Ack { number, multiple }
    }

    #[test]
    fn a_run_from_the_floor_is_one_ack() {
        let mut page = page(10);
        [3, 1, 2, 7].into_iter().for_each(|number| page.ack(number));
        assert_eq!(page.take(), [ack(3, true), ack(7, false)]);
        [4, 5, 6].into_iter().for_each(|number| page.ack(number));
        assert_eq!(page.take(), [ack(6, true)]);
        assert_eq!((page.floor, page.unsettled()), (7, 3));
    }

    #[test]
    fn a_multiple_ack_never_names_a_tag_that_is_settled_already() {
        let mut page = page(5);
        page.ack(2);
        assert_eq!(page.take(), [ack(2, false)]);
        page.ack(1);
        assert_eq!(page.take(), [ack(1, true)]);
        assert_eq!(page.floor, 2);
    }

    #[test]
    fn a_tag_is_settled_once() {
        let mut page = page(3);
        page.nack(1, true);
        page.ack(1);
        page.ack(2);
        page.ack(2);
        assert_eq!(page.take(), [Stroke::Nack { number: 1, requeue: true }, ack(2, true)]);
        page.ack(2);
        page.nack(1, false);
        assert!(page.take().is_empty());
    }

    #[test]
    fn tags_that_were_never_delivered_are_ignored() {
        let mut page = page(2);
        page.ack(3);
        page.ack_multiple(9);
        assert_eq!(page.take(), [ack(2, true)]);
    }

    #[test]
    fn a_running_task_below_keeps_the_others_single() {
        let mut page = page(100);
        (2..=100).for_each(|number| page.ack(number));
        let strokes = page.take();
        assert_eq!(strokes.len(), 99);
        assert!(strokes.iter().all(|stroke| matches!(stroke, Stroke::Ack { multiple: false, .. })));
        assert_eq!(page.unsettled(), 1);
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
            let mut page = page(40);
            let mut open: BTreeSet<u64> = (1..=40).collect();
            let mut wanted = BTreeSet::new();
            for (number, action) in order {
                match action {
                    0 => {
                        for stroke in page.take() {
                            match stroke {
                                Stroke::Ack { number, multiple: false } | Stroke::Nack { number, .. } => assert!(open.remove(&number)),
                                Stroke::Ack { number, multiple: true } => {
                                    assert!(open.contains(&number));
                                    let gone: Vec<u64> = open.range(..=number).copied().collect();
                                    assert!(gone.iter().all(|number| wanted.contains(number)));
                                    gone.iter().for_each(|number| { open.remove(number); });
                                }
                            }
                        }
                    }
                    1 => { page.nack(number, true); wanted.insert(number); }
                    _ => { page.ack(number); wanted.insert(number); }
                }
            }
            assert_eq!(page.unsettled() as usize, open.len());
        }
    }
}
