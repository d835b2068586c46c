//! Ids and names of connections, channels, queues and consumers, and a map keyed by ids.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

/// A shared name of an exchange, queue or key.
pub(crate) type Name = Arc<str>;
/// A connection's id; never reused while the server runs.
pub(crate) type ConnectionId = u64;
/// A queue's id; stored in the journal, never reused.
pub(crate) type QueueId = u64;
/// A consumer's id; never reused while the server runs.
pub(crate) type ConsumerId = u64;
/// A channel's number within its connection.
pub(crate) type ChannelId = u16;

/// A map keyed by an id.
pub(crate) type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// Spreads counters over a hash table; the server chooses the keys, so no client can provoke collisions.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u16(&mut self, value: u16) {
        self.write_u64(u64::from(value));
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(GOLDEN);
    }
}
