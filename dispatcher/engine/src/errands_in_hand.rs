//! The errands that are in memory, by the place where they are done.

use std::collections::BTreeMap;

use contract::clock::Moment;
use store::errands::{Errand, Place};

pub(super) struct Hand {
    pub(super) errand: Errand,
    pub(super) tries: u32,
    /// `None` while messaging is working on it.
    pub(super) retry_at: Option<Moment>,
}

/// The errands of one place.
pub(super) struct Lane {
    pub(super) place: Place,
    pub(super) in_hand: BTreeMap<u64, Hand>,
    /// Rows up to this number have been read into memory.
    pub(super) reached: u64,
    pub(super) has_more: bool,
}

/// All errands in memory.
pub(super) struct Errands {
    pub(super) next: u64,
    pub(super) lanes: [Lane; 4],
}

impl Errands {
    /// An empty set; the store may hold errands that are read later.
    pub(super) fn new(next: u64) -> Errands {
        let lane = |place| Lane { place, in_hand: BTreeMap::new(), reached: 0, has_more: true };
        Errands { next, lanes: [lane(Place::Broker), lane(Place::Bucket), lane(Place::Replies), lane(Place::Starts)] }
    }

    pub(super) fn lane(&mut self, place: Place) -> &mut Lane {
        let [broker, bucket, replies, starts] = &mut self.lanes;
        match place {
            Place::Broker => broker,
            Place::Bucket => bucket,
            Place::Replies => replies,
            Place::Starts => starts,
        }
    }

    /// A number that no errand has had, even after memory was loaded again.
    pub(super) fn next(&self) -> u64 {
        self.next
    }
}
