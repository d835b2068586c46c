//! All state of the server, on one thread. Clients' methods arrive through `methods`, committed batches through
//! `on_committed`, time through `timers`; output leaves through outboxes and the journal at the end of a turn.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use amq_protocol::protocol::AMQPClass;
use tokio::sync::Notify;

use crate::{
    alarms::Alarms,
    connection::Connections,
    consumers::Consumer,
    encode,
    exchange::{Exchange, Kind},
    held::ReturnKind,
    ids::{ChannelId, ConnectionId, ConsumerId, IdMap, Name, QueueId},
    journal::{Committed, Journal},
    message::{ConfirmKey, Entry},
    outbox::Flush,
    pager::Pager,
    queue::Queue,
    replyto::ReplyAddresses,
    settings::Settings,
    timers::Timers,
    users::Table,
};

/// Rounds of flushing and refilling in one turn before other work is done.
const REFILL_ROUNDS_MAX: usize = 4;

/// The state of the server.
pub(crate) struct Core {
    pub settings: Arc<Settings>,
    pub users: Table,
    pub connections: Connections,
    pub exchanges: HashMap<Name, Exchange>,
    pub queues: IdMap<QueueId, Queue>,
    pub queue_names: HashMap<Name, QueueId>,
    pub consumers: IdMap<ConsumerId, Consumer>,
    pub reply_addresses: ReplyAddresses,
    pub journal: Journal,
    pub pager: Pager,
    pub timers: Timers,
    pub alarms: Alarms,
    /// Publishers that wait for the journal.
    pub slowed: Vec<ConnectionId>,
    /// Memory of all messages in the server, ready or unacknowledged.
    pub held_bytes: u64,
    pub last_queue_id: QueueId,
    pub last_id: u64,
    pub last_turn: u64,
    /// Seed of generated names.
    pub name_seed: u64,
    /// Runs the end of a turn after all ready sockets were handled.
    pub turn: Rc<Notify>,
    dirty: Vec<ConnectionId>,
    dirty_confirms: Vec<(ConnectionId, ChannelId)>,
    /// Buffer for the queues of a route, kept to save allocations.
    pub routed: Vec<QueueId>,
    /// Queues to deliver from after the current method.
    pub later: Vec<QueueId>,
}

impl Core {
    pub fn new(settings: Arc<Settings>, users: Table, journal: Journal, turn: Rc<Notify>) -> Core {
        let mut exchanges = HashMap::new();
        for (name, kind) in [
            ("", Kind::Direct),
            ("amq.direct", Kind::Direct),
            ("amq.fanout", Kind::Fanout),
            ("amq.topic", Kind::Topic),
            ("amq.headers", Kind::Headers),
            ("amq.match", Kind::Headers),
        ] {
            exchanges.insert(Name::from(name), Exchange::new(kind, true));
        }
        Core {
            pager: Pager::new(settings.data.clone()),
            settings,
            users,
            connections: Connections::default(),
            exchanges,
            queues: IdMap::default(),
            queue_names: HashMap::new(),
            consumers: IdMap::default(),
            reply_addresses: ReplyAddresses::default(),
            journal,
            timers: Timers::default(),
            alarms: Alarms::default(),
            slowed: Vec::new(),
            held_bytes: 0,
            last_queue_id: 0,
            last_id: 0,
            last_turn: 0,
            name_seed: random_seed(),
            turn,
            dirty: Vec::new(),
            dirty_confirms: Vec::new(),
            routed: Vec::new(),
            later: Vec::new(),
        }
    }

    /// A unique name with the prefix that the protocol reserves for the server.
    pub fn random_name(&mut self, prefix: &str) -> String {
        self.last_id += 1;
        let mut mixed = self.name_seed ^ self.last_id.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        format!("{prefix}{:016x}{:06x}", mixed ^ (mixed >> 31), self.last_id & 0xff_ffff)
    }

    /// Queues a method for a client.
    pub fn send(&mut self, connection: ConnectionId, channel: ChannelId, class: AMQPClass) {
        if let Some(state) = self.connections.get_mut(connection) {
            encode::method(&mut state.outbox.bytes, channel, class);
        }
        self.mark_dirty(connection);
    }

    /// Records that a connection has bytes to send.
    pub fn mark_dirty(&mut self, connection: ConnectionId) {
        if let Some(state) = self.connections.get_mut(connection)
            && !std::mem::replace(&mut state.is_dirty, true)
        {
            self.dirty.push(connection);
            self.turn.notify_one();
        }
    }

    /// Settles a publish for its confirm.
    pub fn confirm(&mut self, key: ConfirmKey, is_taken: bool) {
        let Ok(channel) = self.connections.channel_mut(key.connection, key.channel) else { return };
        if channel.incarnation != key.incarnation {
            return;
        }
        if let Some(confirms) = channel.confirms.as_mut()
            && confirms.settle(key.sequence, is_taken)
        {
            self.dirty_confirms.push((key.connection, key.channel));
            self.turn.notify_one();
        }
    }

    /// Removes an entry for good: it was acked, dropped or dead-lettered.
    pub fn retire(&mut self, queue: QueueId, entry: &Entry) {
        self.held_bytes = self.held_bytes.saturating_sub(entry.cost());
        if let Some(key) = self.journal.settle(queue, entry) {
            self.confirm(key, true);
        }
    }

    /// Ends a turn: writes confirms, journal and sockets. Connections that are empty again get more deliveries.
    pub fn finish_turn(&mut self) {
        self.check_memory();
        for _ in 0..REFILL_ROUNDS_MAX {
            self.send_confirms();
            if self.journal.wants_to_leave() {
                self.hand_over();
            }
            let dirty = std::mem::take(&mut self.dirty);
            if dirty.is_empty() {
                return;
            }
            for id in dirty {
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.is_dirty = false;
                }
                self.flush(id);
            }
        }
        if !self.dirty.is_empty() {
            self.turn.notify_one();
        }
    }

    fn send_confirms(&mut self) {
        for (connection, channel) in std::mem::take(&mut self.dirty_confirms) {
            let Some(state) = self.connections.get_mut(connection) else { continue };
            let out = &mut state.outbox.bytes;
            if let Some(confirms) = state.channels.get_mut(&channel).and_then(|channel| channel.confirms.as_mut()) {
                confirms.write(out, channel);
                self.mark_dirty(connection);
            }
        }
    }

    /// Writes a connection's outbox; once it has space again, its consumers become eligible.
    pub fn flush(&mut self, id: ConnectionId) {
        let committed = self.journal.committed();
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.held_until > committed {
            return;
        }
        let had_stopped_reading = connection.outbox.is_full();
        match connection.flush() {
            Ok(Flush::Done) => {
                if had_stopped_reading || connection.is_gone() {
                    connection.wake.notify_one();
                }
                let parked = std::mem::take(&mut connection.parked);
                if !parked.is_empty() {
                    self.wake_consumers(parked);
                }
            }
            Ok(Flush::Full) => {
                if !std::mem::replace(&mut connection.wants_write, true) {
                    connection.wake.notify_one();
                }
            }
            Err(error) => {
                tracing::debug!(%error, "writing to a client failed; its connection is closed");
                connection.break_off();
            }
        }
    }

    /// Sends the collected batch to the journal's thread.
    fn hand_over(&mut self) {
        let has_rotated = self.journal.must_rotate();
        if has_rotated {
            self.start_segment();
        }
        let wants_places = self.is_paging();
        self.journal.hand_over(wants_places);
        for id in self.slowed.drain(..) {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.is_slowed = false;
                connection.wake.notify_one();
            }
        }
        if has_rotated {
            self.compact();
        }
    }

    /// Handles a batch that is on disk: confirms, reservations and held replies.
    pub fn on_committed(&mut self, batch: Committed) {
        let waiting = self.journal.take_committed(batch.number);
        self.on_placed(batch.placed);
        for key in waiting.promises.owed() {
            self.confirm(key, true);
        }
        for (id, upto) in waiting.reservations {
            if let Some(queue) = self.queues.get_mut(&id) {
                queue.reserved = queue.reserved.max(upto);
                self.deliver_ready(id);
            }
        }
        for id in waiting.held {
            self.mark_dirty(id);
        }
        if self.journal.wants_to_leave() {
            self.turn.notify_one();
        }
    }

    /// Holds a connection's replies until the operations journaled so far are on disk.
    pub fn hold_replies(&mut self, id: ConnectionId) {
        let batch = self.journal.hold(id);
        if let Some(connection) = self.connections.get_mut(id) {
            connection.held_until = batch;
        }
        self.turn.notify_one();
    }

    /// Removes a closed connection with its consumers and exclusive queues; unacknowledged messages return to their queues.
    pub fn forget_connection(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let mut channels: Vec<ChannelId> = connection.channels.keys().copied().collect();
        channels.sort_unstable();
        for channel in channels {
            self.forget_channel(id, channel);
        }
        let Some(connection) = self.connections.remove(id) else { return };
        for queue in connection.exclusive_queues {
            self.delete_queue(queue);
        }
        self.turn.notify_one();
    }

    /// Removes a closed channel.
    pub fn forget_channel(&mut self, connection: ConnectionId, channel: ChannelId) {
        let Some(state) = self.connections.get_mut(connection) else { return };
        let Some(removed) = state.channels.remove(&channel) else { return };
        self.release_channel(connection, channel, removed);
    }

    /// Returns a channel's unacknowledged messages to their queues.
    pub fn release_channel(&mut self, connection: ConnectionId, channel: ChannelId, removed: crate::channel::Channel) {
        self.reply_addresses.remove(connection, channel);
        for consumer in removed.consumers.values() {
            self.drop_consumer(*consumer);
        }
        let unacked = removed.unacked.into_values().collect();
        self.give_back(unacked, ReturnKind::Failed);
    }
}

/// A seed that differs for each start of the server.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}
