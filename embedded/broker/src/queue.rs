//! A queue: its ready messages in order, its consumers, and its limits. Who moves messages in and out stands in
//! `publish`, `deliver` and `settle`.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet, VecDeque},
};

use amq_protocol::types::FieldTable;

use crate::{
    arguments::QueueArguments,
    ids::{ConnectionId, ConsumerId, Name},
    message::Entry,
};

/// Order of consumers: higher priority first, then by turn.
pub(crate) type ConsumerOrder = (Reverse<i32>, u64);

/// A queue.
#[derive(Debug)]
pub(crate) struct Queue {
    pub name: Name,
    pub is_durable: bool,
    /// Durable and not exclusive: it and its persistent messages are in the journal.
    pub is_kept: bool,
    pub is_auto_delete: bool,
    /// The only connection that may use it.
    pub owner: Option<ConnectionId>,
    pub arguments: FieldTable,
    pub rules: QueueArguments,
    /// Ready messages, one lane per priority, each ordered by position.
    lanes: Vec<VecDeque<Entry>>,
    pub ready: u64,
    pub ready_bytes: u64,
    pub next_position: u64,
    /// All consumers, in the order in which they would become the active one.
    pub consumers: BTreeMap<ConsumerOrder, ConsumerId>,
    /// Consumers that can take a message now.
    pub eligible: BTreeMap<ConsumerOrder, ConsumerId>,
    /// The one that gets everything, with `x-single-active-consumer`.
    pub active: Option<ConsumerId>,
    pub has_exclusive_consumer: bool,
    /// Exchanges and keys that lead here.
    pub bound: HashSet<(Name, Name)>,
    /// When the head was last scheduled to expire, 0 for not.
    pub timer_ms: u64,
    /// Last use in Unix milliseconds, for `x-expires`.
    pub used_ms: u64,
    /// Positions below this may have been delivered, as far as the journal knows.
    pub reserved: u64,
    /// The part of `reserved` that is on its way or done; deliveries stay below `reserved`.
    pub reserving: u64,
    /// How far the next reservation reaches ahead.
    pub reserve_step: u64,
}

impl Queue {
    pub fn new(name: Name, is_durable: bool, arguments: FieldTable, rules: QueueArguments) -> Queue {
        let lanes = (0..=rules.priority_max).map(|_| VecDeque::new()).collect();
        Queue {
            name,
            is_durable,
            is_kept: is_durable,
            is_auto_delete: false,
            owner: None,
            arguments,
            rules,
            lanes,
            ready: 0,
            ready_bytes: 0,
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

    fn lane_of(&self, entry: &Entry) -> usize {
        usize::from(entry.priority.min(self.rules.priority_max))
    }

    /// Puts a message where its position says: new ones at the end, returned ones back to their place.
    pub fn insert(&mut self, entry: Entry) {
        self.ready += 1;
        self.ready_bytes += u64::from(entry.body_bytes);
        let lane_index = self.lane_of(&entry);
        let lane = &mut self.lanes[lane_index];
        if lane.back().is_none_or(|last| last.position < entry.position) {
            lane.push_back(entry);
        } else if lane.front().is_some_and(|first| first.position > entry.position) {
            lane.push_front(entry);
        } else {
            let index = lane.partition_point(|other| other.position < entry.position);
            lane.insert(index, entry);
        }
    }

    /// The message that would be delivered next.
    pub fn head(&self) -> Option<&Entry> {
        self.lanes.iter().rev().find_map(VecDeque::front)
    }

    /// The messages that would be delivered next, as far as they share the head's priority.
    pub fn next_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.lanes.iter_mut().rev().find(|lane| !lane.is_empty()).into_iter().flatten()
    }

    /// A ready message by its position, and how many of its priority stand before it.
    pub fn find_mut(&mut self, priority: u8, position: u64) -> Option<(&mut Entry, usize)> {
        let lane = &mut self.lanes[usize::from(priority.min(self.rules.priority_max))];
        let last = lane.back()?;
        // New messages stand at the end without gaps, so one look mostly finds them.
        let guess = last.position.checked_sub(position).and_then(|back| (lane.len() - 1).checked_sub(back as usize));
        let index = match guess {
            Some(index) if lane[index].position == position => index,
            _ => lane.binary_search_by_key(&position, |entry| entry.position).ok()?,
        };
        Some((&mut lane[index], index))
    }

    /// Takes the message that is to be delivered next.
    pub fn pop(&mut self) -> Option<Entry> {
        let entry = self.lanes.iter_mut().rev().find_map(VecDeque::pop_front)?;
        self.count_out(&entry);
        Some(entry)
    }

    /// Takes one message at the front of a lane that is past its time.
    pub fn pop_expired(&mut self, now_ms: u64) -> Option<Entry> {
        let lane = self.lanes.iter_mut().find(|lane| lane.front().is_some_and(|entry| entry.is_expired(now_ms)))?;
        let entry = lane.pop_front()?;
        self.count_out(&entry);
        Some(entry)
    }

    /// Earliest time at which a lane's front expires, 0 for never.
    pub fn next_expiry_ms(&self) -> u64 {
        self.lanes.iter().filter_map(VecDeque::front).map(|entry| entry.expires_ms).filter(|expires| *expires != 0).min().unwrap_or(0)
    }

    fn count_out(&mut self, entry: &Entry) {
        self.ready -= 1;
        self.ready_bytes -= u64::from(entry.body_bytes);
    }

    /// All ready messages, lane by lane.
    pub fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.lanes.iter_mut().flatten()
    }

    /// Whether one more message of `bytes` would exceed a limit.
    pub fn has_no_room(&self, bytes: u64) -> bool {
        self.rules.length_max.is_some_and(|most| self.ready + 1 > most)
            || self.rules.bytes_max.is_some_and(|most| self.ready_bytes + bytes > most)
    }

    /// Whether it holds more than a limit allows.
    pub fn is_too_long(&self) -> bool {
        self.rules.length_max.is_some_and(|most| self.ready > most) || self.rules.bytes_max.is_some_and(|most| self.ready_bytes > most)
    }
}
