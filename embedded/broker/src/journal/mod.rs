//! The core's side of the journal: operations are collected into a batch, and a batch is written when something waits
//! for it and the one before is on disk. So an idle server syncs at once, and a busy one groups commits by itself.
//!
//! The log is a sequence of segments. Once the log is much larger than its live messages, those of the oldest segment
//! are written again at the end and that segment is removed. Each segment begins with the whole topology, so any
//! number of old ones can be removed.

mod op;
mod promise;
mod record;
mod replay;
mod spill;
mod writer;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, mpsc},
};

pub(crate) use op::{Op, Target, publish_bytes};
use promise::Promises;
pub(crate) use record::{StoredMessage, checked, read_message};
pub(crate) use replay::{Replayed, replay};
use spill::Spill;
pub(crate) use spill::{remove_spilled, spill_path};
pub(crate) use writer::{Writer, create_private, open_file, segment_path};

use crate::{
    ids::{ConnectionId, QueueId},
    message::{ConfirmKey, Entry, Message, Place, Stored},
};

/// Lazy operations (acks) that make a batch leave although nothing waits for it.
const LAZY_OPS_MAX: usize = 4_096;
/// Bytes of messages that make a batch leave although nothing waits for it.
const LAZY_BYTES_MAX: u64 = 8 << 20;
/// Bytes of messages collected during the write of a batch, at most; then publishers wait for the disk.
const BACKLOG_MAX_BYTES: u64 = 32 << 20;
/// Upper bound of the segment size in the settings; positions in a segment have 32 bits.
const SEGMENT_MAX_BYTES: u64 = 1 << 30;
/// Segments that the log may exceed its live messages by before they are written again.
const SLACK_SEGMENTS: u64 = 3;

/// Operations to be written.
pub(crate) struct Batch {
    pub number: u64,
    pub ops: Vec<Op>,
    /// True when a confirm depends on it, so it must survive a power loss.
    pub must_sync: bool,
    /// True when the positions of all messages are to be reported, so that their content can leave memory.
    pub wants_places: bool,
}

/// A batch that was written.
pub(crate) struct Committed {
    pub number: u64,
    pub placed: Vec<Placed>,
}

/// The position of a message of a batch.
pub(crate) struct Placed {
    pub queue: QueueId,
    pub position: u64,
    pub priority: u8,
    pub place: Place,
    pub is_spilled: bool,
}

/// The clients that wait for a batch.
#[derive(Default)]
pub(crate) struct Waiting {
    pub promises: Promises,
    pub reservations: Vec<(QueueId, u64)>,
    pub held: Vec<ConnectionId>,
}

/// Usage of a segment.
#[derive(Clone, Copy, Debug, Default)]
struct Use {
    bytes: u64,
    live_bytes: u64,
}

/// The core's side of the journal.
pub(crate) struct Journal {
    writer: mpsc::SyncSender<Batch>,
    number: u64,
    ops: Vec<Op>,
    /// Bytes of the messages in `ops`.
    content_bytes: u64,
    waiting_now: Waiting,
    waiting: VecDeque<(u64, Waiting)>,
    is_urgent: bool,
    is_lazy_due: bool,
    is_busy: bool,
    committed: u64,
    segment: u32,
    segment_max_bytes: u64,
    segments: BTreeMap<u32, Use>,
    spill: Spill,
    /// Segments whose messages were all written again, with the batch that contains them.
    rewritten: VecDeque<(u64, u32)>,
}

impl Journal {
    pub fn new(writer: mpsc::SyncSender<Batch>, segment: u32, segment_max_bytes: u64, old: &BTreeMap<u32, u64>) -> Journal {
        let mut segments: BTreeMap<u32, Use> = old.iter().map(|(number, bytes)| (*number, Use { bytes: *bytes, live_bytes: 0 })).collect();
        segments.insert(segment, Use::default());
        Journal {
            writer,
            number: 1,
            ops: Vec::new(),
            content_bytes: 0,
            waiting_now: Waiting::default(),
            waiting: VecDeque::new(),
            is_urgent: false,
            is_lazy_due: false,
            is_busy: false,
            committed: 0,
            segment,
            segment_max_bytes: segment_max_bytes.min(SEGMENT_MAX_BYTES),
            segments,
            spill: Spill::default(),
            rewritten: VecDeque::new(),
        }
    }

    /// Number of the last batch on disk.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// True when lazy operations wait.
    pub fn has_lazy(&self) -> bool {
        !self.ops.is_empty() && !self.is_urgent && !self.is_lazy_due
    }

    /// Makes lazy operations leave with the next batch.
    pub fn flush_lazy(&mut self) {
        self.is_lazy_due = !self.ops.is_empty();
    }

    fn push(&mut self, op: Op) -> u32 {
        self.segments.entry(self.segment).or_default().bytes += op.bytes();
        if let Op::Publish { message, .. } | Op::Spill { message, .. } = &op {
            self.content_bytes += publish_bytes(message);
        }
        self.ops.push(op);
        (self.ops.len() - 1) as u32
    }

    /// Writes a message for all the queues in `targets`, and registers its confirm for the end of the batch.
    pub fn publish(&mut self, message: Arc<Message>, targets: Vec<Target>, confirm: Option<ConfirmKey>) -> Stored {
        let count = targets.len() as u32;
        let live = publish_bytes(&message) * u64::from(count);
        let slot = self.push(Op::Publish { message, targets });
        self.segments.entry(self.segment).or_default().live_bytes += live;
        if let Some(key) = confirm {
            self.is_urgent = true;
            self.waiting_now.promises.add(slot, count, key);
        }
        Stored { segment: self.segment, slot, batch: self.number }
    }

    /// Writes a message that need not survive a restart to a spill file, to save memory.
    pub fn spill(&mut self, queue: QueueId, entry: &mut Entry) {
        let Some(message) = &entry.content else { return };
        if self.spill.must_rotate() {
            let file = self.spill.rotate();
            self.drop_spill(file);
        }
        let file = self.spill.add(u64::from(entry.record_bytes));
        let slot = self.push(Op::Spill { file, queue, position: entry.position, message: message.clone() });
        entry.stored = Stored { segment: 0, slot, batch: self.number };
    }

    /// Counts a spilled record as no longer needed.
    pub fn release_spilled(&mut self, file: u32) {
        let file = self.spill.release(file);
        self.drop_spill(file);
    }

    fn drop_spill(&mut self, file: Option<u32>) {
        if let Some(file) = file {
            self.ops.push(Op::DropSpill { file });
        }
    }

    /// Counts an entry found at start.
    pub fn count_live(&mut self, entry: &Entry) {
        self.segments.entry(entry.stored.segment).or_default().live_bytes += u64::from(entry.record_bytes);
    }

    /// Settles an entry. One whose batch has not left yet is not written at all. Returns the confirm that waited
    /// for its batch, once no queue needs the message any more.
    pub fn settle(&mut self, queue: QueueId, entry: &Entry) -> Option<ConfirmKey> {
        let stored = entry.stored;
        if stored.segment == 0 {
            self.settle_spilled(entry);
            return None;
        }
        if let Some(usage) = self.segments.get_mut(&stored.segment) {
            usage.live_bytes = usage.live_bytes.saturating_sub(u64::from(entry.record_bytes));
        }
        if stored.batch == self.number
            && let Some(op @ (Op::Publish { .. } | Op::Move { .. })) = self.ops.get_mut(stored.slot as usize)
        {
            op.cancel(queue);
            return self.waiting_now.promises.settle(stored.slot);
        }
        self.push(Op::Settle { queue, position: entry.position });
        if stored.batch <= self.committed {
            return None;
        }
        let (_, waiting) = self.waiting.iter_mut().find(|(number, _)| *number == stored.batch)?;
        waiting.promises.settle(stored.slot)
    }

    fn settle_spilled(&mut self, entry: &Entry) {
        if entry.place.is_known() {
            self.release_spilled(entry.place.file);
        } else if entry.stored.batch == self.number
            && let Some(op @ Op::Spill { .. }) = self.ops.get_mut(entry.stored.slot as usize)
            && let Op::Spill { file, .. } = std::mem::replace(op, Op::Nothing)
        {
            self.release_spilled(file);
        }
    }

    /// Reserves deliveries of `queue` up to a position; they may start once this is on disk.
    pub fn reserve(&mut self, queue: QueueId, upto: u64) {
        self.is_urgent = true;
        self.push(Op::Reserve { queue, upto });
        self.waiting_now.reservations.push((queue, upto));
    }

    /// Writes a change of exchanges, queues or bindings.
    pub fn topology(&mut self, op: Op) {
        self.is_urgent = true;
        self.push(op);
    }

    /// Writes an operation that nothing waits for.
    pub fn note(&mut self, op: Op) {
        self.push(op);
    }

    /// Records one more return of a message.
    pub fn returned(&mut self, queue: QueueId, entry: &Entry) {
        self.push(Op::Returns { queue, position: entry.position, returns: entry.returns });
    }

    /// Holds a connection's replies until the current batch is on disk; returns its number.
    pub fn hold(&mut self, connection: ConnectionId) -> u64 {
        self.is_urgent = true;
        self.waiting_now.held.push(connection);
        self.number
    }

    /// True when a batch is ready and the writer is free.
    pub fn wants_to_leave(&self) -> bool {
        let is_large = self.ops.len() >= LAZY_OPS_MAX || self.content_bytes >= LAZY_BYTES_MAX;
        !self.is_busy && (self.is_urgent || self.is_lazy_due || is_large)
    }

    /// True when messages arrive faster than they can be written.
    pub fn is_behind(&self) -> bool {
        self.is_busy && self.content_bytes > BACKLOG_MAX_BYTES
    }

    /// True when no batch is collected or being written.
    pub fn is_idle(&self) -> bool {
        !self.is_busy && self.ops.is_empty() && !self.is_urgent
    }

    /// True when a segment or spill file exists, or is about to.
    pub fn has_file(&self, number: u32, is_spilled: bool) -> bool {
        if is_spilled {
            return self.spill.has_file(number);
        }
        self.segments.contains_key(&number) || self.rewritten.iter().any(|(_, segment)| *segment == number)
    }

    /// Sends the collected batch to the writer.
    pub fn hand_over(&mut self, wants_places: bool) {
        let batch = Batch { number: self.number, ops: std::mem::take(&mut self.ops), must_sync: self.is_urgent, wants_places };
        self.waiting.push_back((self.number, std::mem::take(&mut self.waiting_now)));
        self.number += 1;
        self.content_bytes = 0;
        self.is_urgent = false;
        self.is_lazy_due = false;
        self.is_busy = true;
        if self.writer.send(batch).is_err() {
            tracing::error!("the journal's writer has ended; no more messages are confirmed and the broker ends");
        }
    }

    /// Handles a batch that is on disk; returns its waiting clients.
    pub fn take_committed(&mut self, batch: u64) -> Waiting {
        self.is_busy = false;
        self.committed = batch;
        // Until now a message may have been read from these files.
        while let Some((_, segment)) = self.rewritten.pop_front_if(|(rewritten_by, _)| *rewritten_by <= batch) {
            self.ops.push(Op::DropSegment { number: segment });
            self.is_lazy_due = true;
        }
        match self.waiting.pop_front() {
            Some((number, waiting)) => {
                debug_assert_eq!(number, batch, "batches are committed in order");
                waiting
            }
            None => Waiting::default(),
        }
    }

    /// Whether the current segment is full.
    pub fn must_rotate(&self) -> bool {
        self.segments.get(&self.segment).is_some_and(|usage| usage.bytes >= self.segment_max_bytes)
    }

    /// Ends the current segment after the collected operations; `topology` opens the next.
    pub fn next_segment(&mut self, topology: Vec<Op>) {
        self.ops.push(Op::NextSegment { number: self.segment + 1 });
        self.segment += 1;
        self.segments.insert(self.segment, Use::default());
        for op in topology {
            self.push(op);
        }
        while let Some((&oldest, usage)) = self.segments.first_key_value()
            && oldest != self.segment
            && usage.live_bytes == 0
        {
            self.drop_segment(oldest);
        }
    }

    /// Removes a segment once the current batch is on disk.
    fn drop_segment(&mut self, number: u32) {
        self.segments.remove(&number);
        self.ops.push(Op::DropSegment { number });
    }

    /// The oldest segment, when the log is so much larger than its live messages that it must be removed.
    pub fn segment_to_rewrite(&self) -> Option<u32> {
        if !self.rewritten.is_empty() {
            return None;
        }
        let total: u64 = self.segments.values().map(|usage| usage.bytes).sum();
        let live: u64 = self.segments.values().map(|usage| usage.live_bytes).sum();
        let oldest = *self.segments.keys().next()?;
        (oldest != self.segment && total > 2 * live + SLACK_SEGMENTS * self.segment_max_bytes).then_some(oldest)
    }

    /// Writes a live entry again at the end of the log.
    pub fn rewrite(&mut self, queue: QueueId, entry: &mut Entry) {
        let target = Target { queue, position: entry.position, expires_ms: entry.expires_ms, is_redelivered: entry.is_redelivered };
        entry.stored = match &entry.content {
            Some(message) => {
                entry.place = Place::default();
                self.publish(message.clone(), vec![target], None)
            }
            None => {
                let record_bytes = entry.record_bytes;
                let slot = self.push(Op::Move { from: entry.place, record_bytes, priority: entry.priority, target });
                self.segments.entry(self.segment).or_default().live_bytes += u64::from(record_bytes);
                Stored { segment: self.segment, slot, batch: self.number }
            }
        };
        if entry.returns > 0 {
            self.returned(queue, entry);
        }
    }

    /// Removes a segment whose live entries are all being written again.
    pub fn finish_rewrite(&mut self, number: u32) {
        self.segments.remove(&number);
        self.rewritten.push_back((self.number, number));
        self.is_lazy_due = true;
    }
}
