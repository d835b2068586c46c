//! A queue: its ready messages in order, its consumers, and its limits. Messages are moved in and out by `publish`,
//! `deliver` and `settle`.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet, VecDeque},
};

use amq_protocol::types::FieldTable;

use crate::{
    arguments::{Overflow, QueueArguments},
    held::Held,
    ids::{ConnectionId, ConsumerId, Name},
    message::Entry,
};

/// Order of consumers: higher priority first, then in turn.
pub(crate) type ConsumerOrder = (Reverse<i32>, u64);

/// A queue.
#[derive(Debug)]
pub(crate) struct Queue {
    pub name: Name,
    pub is_durable: bool,
    /// Durable and not exclusive: the queue and its persistent messages are in the journal.
    pub is_kept: bool,
    pub is_auto_delete: bool,
    /// The only connection that may use it, for an exclusive queue.
    pub owner: Option<ConnectionId>,
    pub arguments: FieldTable,
    pub rules: QueueArguments,
    /// Ready messages, one list per priority, each ordered by position.
    levels: Vec<VecDeque<Entry>>,
    pub ready: u64,
    pub ready_bytes: u64,
    /// Held messages by the time of their release and their position.
    pub held: BTreeMap<(u64, u64), Held>,
    /// Bytes of the held messages' bodies.
    pub held_bytes: u64,
    /// The scheduled time of the next release; 0 when none is scheduled.
    pub held_timer_ms: u64,
    pub next_position: u64,
    /// All consumers, in the order in which they would become the active one.
    pub consumers: BTreeMap<ConsumerOrder, ConsumerId>,
    /// Consumers that can get a message now.
    pub eligible: BTreeMap<ConsumerOrder, ConsumerId>,
    /// The only consumer that gets messages, with `x-single-active-consumer`.
    pub active: Option<ConsumerId>,
    pub has_exclusive_consumer: bool,
    /// Exchanges and keys that are bound to this queue.
    pub bound: HashSet<(Name, Name)>,
    /// The scheduled time of the head's expiry; 0 when none is scheduled.
    pub timer_ms: u64,
    /// Last use in Unix milliseconds, for `x-expires`.
    pub used_ms: u64,
    /// Messages at positions below this may have been delivered; on disk already.
    pub reserved: u64,
    /// As `reserved`, including reservations that are not on disk yet; deliveries stay below `reserved`.
    pub reserving: u64,
    /// The number of positions of the next reservation.
    pub reserve_step: u64,
}

impl Queue {
    pub fn new(name: Name, is_durable: bool, arguments: FieldTable, rules: QueueArguments) -> Queue {
        let levels = (0..=rules.priority_max).map(|_| VecDeque::new()).collect();
        Queue {
            name,
            is_durable,
            is_kept: is_durable,
            is_auto_delete: false,
            owner: None,
            arguments,
            rules,
            levels,
            ready: 0,
            ready_bytes: 0,
            held: BTreeMap::new(),
            held_bytes: 0,
            held_timer_ms: 0,
            next_position: 1,
            consumers: BTreeMap::new(),
            eligible: BTreeMap::new(),
            active: None,
            has_exclusive_consumer: false,
            bound: HashSet::new(),
            timer_ms: 0,
            used_ms: 0,
            reserved: 1,
            reserving: 1,
            reserve_step: 0,
        }
    }

    fn level_of(&self, entry: &Entry) -> usize {
        usize::from(entry.priority.min(self.rules.priority_max))
    }

    /// Inserts a message by its position: new ones at the end, returned ones at their old place.
    pub fn insert(&mut self, entry: Entry) {
        self.ready += 1;
        self.ready_bytes += u64::from(entry.body_bytes);
        let level_index = self.level_of(&entry);
        let level = &mut self.levels[level_index];
        if level.back().is_none_or(|last| last.position < entry.position) {
            level.push_back(entry);
        } else if level.front().is_some_and(|first| first.position > entry.position) {
            level.push_front(entry);
        } else {
            let index = level.partition_point(|other| other.position < entry.position);
            level.insert(index, entry);
        }
    }

    /// The next message to deliver.
    pub fn head(&self) -> Option<&Entry> {
        self.levels.iter().rev().find_map(VecDeque::front)
    }

    /// The next messages to deliver that have the head's priority.
    pub fn next_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.levels.iter_mut().rev().find(|level| !level.is_empty()).into_iter().flatten()
    }

    /// A ready message by its position, and how many of its priority are before it.
    pub fn find_mut(&mut self, priority: u8, position: u64) -> Option<(&mut Entry, usize)> {
        let level = &mut self.levels[usize::from(priority.min(self.rules.priority_max))];
        let last = level.back()?;
        // New messages are at the end without gaps, so the first guess is usually right.
        let guess = last.position.checked_sub(position).and_then(|back| (level.len() - 1).checked_sub(back as usize));
        let index = match guess {
            Some(index) if level[index].position == position => index,
            _ => level.binary_search_by_key(&position, |entry| entry.position).ok()?,
        };
        Some((&mut level[index], index))
    }

    /// Removes the next message to deliver.
    pub fn pop(&mut self) -> Option<Entry> {
        let entry = self.levels.iter_mut().rev().find_map(VecDeque::pop_front)?;
        self.count_out(&entry);
        Some(entry)
    }

    /// Removes one expired message from the front of a priority.
    pub fn pop_expired(&mut self, now_ms: u64) -> Option<Entry> {
        let level = self.levels.iter_mut().find(|level| level.front().is_some_and(|entry| entry.is_expired(now_ms)))?;
        let entry = level.pop_front()?;
        self.count_out(&entry);
        Some(entry)
    }

    /// Earliest expiry at the front of any priority; 0 for never.
    pub fn next_expiry_ms(&self) -> u64 {
        self.levels.iter().filter_map(VecDeque::front).map(|entry| entry.expires_ms).filter(|expires| *expires != 0).min().unwrap_or(0)
    }

    fn count_out(&mut self, entry: &Entry) {
        self.ready -= 1;
        self.ready_bytes -= u64::from(entry.body_bytes);
    }

    /// All undelivered messages: the ready ones by priority, then the held ones.
    pub fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.levels.iter_mut().flatten().chain(self.held.values_mut().map(Held::entry_mut))
    }

    /// True when one more message of `bytes` is refused.
    pub fn refuses(&self, bytes: u64) -> bool {
        self.rules.overflow != Overflow::DropHead && self.exceeds(1, bytes)
    }

    /// True when the queue exceeds a limit.
    pub fn is_too_long(&self) -> bool {
        self.exceeds(0, 0)
    }

    fn exceeds(&self, more: u64, more_bytes: u64) -> bool {
        let count = self.ready + self.held.len() as u64 + more;
        let bytes = self.ready_bytes + self.held_bytes + more_bytes;
        self.rules.length_max.is_some_and(|most| count > most) || self.rules.bytes_max.is_some_and(|most| bytes > most)
    }
}
