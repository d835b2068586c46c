//! The operations of the journal, one per record.

use std::sync::Arc;

use amq_protocol::types::FieldTable;

use crate::{
    exchange::{Binding, Exchange, Kind},
    ids::{Name, QueueId},
    message::{Message, Place},
    queue::Queue,
};

/// Bytes of a message's record in addition to the message.
const PUBLISH_OVERHEAD_BYTES: u64 = 64;
/// Bytes of any other record, approximately.
const SMALL_BYTES: u64 = 32;

/// The position of a message in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub queue: QueueId,
    pub position: u64,
    pub expires_ms: u64,
    pub is_redelivered: bool,
}

/// An operation of the journal.
#[derive(Debug)]
pub(crate) enum Op {
    Publish {
        message: Arc<Message>,
        targets: Vec<Target>,
    },
    /// Writes again a message whose content is on disk only.
    Move {
        from: Place,
        record_bytes: u32,
        priority: u8,
        target: Target,
    },
    Settle {
        queue: QueueId,
        position: u64,
    },
    Reserve {
        queue: QueueId,
        upto: u64,
    },
    Flag {
        queue: QueueId,
        position: u64,
    },
    /// The number of returns of a message.
    Returns {
        queue: QueueId,
        position: u64,
        returns: u32,
    },
    DeclareQueue {
        id: QueueId,
        name: Name,
        is_auto_delete: bool,
        next_position: u64,
        arguments: FieldTable,
    },
    DeleteQueue {
        id: QueueId,
    },
    DeclareExchange {
        name: Name,
        kind: Kind,
        is_auto_delete: bool,
        is_internal: bool,
        arguments: FieldTable,
    },
    DeleteExchange {
        name: Name,
    },
    Bind {
        source: Name,
        key: Name,
        binding: Binding,
    },
    Unbind {
        source: Name,
        key: Name,
        binding: Binding,
    },
    /// Not in the journal: writes a message that need not survive a restart to a spill file.
    Spill {
        file: u32,
        queue: QueueId,
        position: u64,
        message: Arc<Message>,
    },
    /// Not a record: removes a spill file.
    DropSpill {
        file: u32,
    },
    /// Not a record: its message was settled before the batch left.
    Nothing,
    /// Not a record: continues in another file.
    NextSegment {
        number: u32,
    },
    /// Not a record: removes a file once the batch is on disk.
    DropSegment {
        number: u32,
    },
}

impl Op {
    pub fn declare_queue(id: QueueId, queue: &Queue) -> Op {
        Op::DeclareQueue {
            id,
            name: queue.name.clone(),
            is_auto_delete: queue.is_auto_delete,
            next_position: queue.next_position,
            arguments: queue.arguments.clone(),
        }
    }

    pub fn declare_exchange(name: &Name, exchange: &Exchange) -> Op {
        Op::DeclareExchange {
            name: name.clone(),
            kind: exchange.kind,
            is_auto_delete: exchange.is_auto_delete,
            is_internal: exchange.is_internal,
            arguments: exchange.arguments.clone(),
        }
    }

    /// Removes a queue from a message that has not been written.
    pub fn cancel(&mut self, queue: QueueId) {
        match self {
            Op::Publish { targets, .. } => targets.retain(|target| target.queue != queue),
            // A replay must still read that the old record is settled.
            Op::Move { target, .. } => *self = Op::Settle { queue, position: target.position },
            _ => {}
        }
    }

    /// Bytes of its record, approximately.
    pub fn bytes(&self) -> u64 {
        match self {
            Op::Publish { message, .. } => publish_bytes(message),
            Op::Move { record_bytes, .. } => u64::from(*record_bytes),
            Op::Spill { .. } | Op::Nothing => 0,
            Op::DeclareQueue { name, .. } => SMALL_BYTES + 2 * name.len() as u64,
            Op::Bind { source, key, .. } => SMALL_BYTES + (source.len() + key.len()) as u64,
            _ => SMALL_BYTES,
        }
    }
}

/// Bytes of a message's record, approximately.
pub(crate) fn publish_bytes(message: &Message) -> u64 {
    PUBLISH_OVERHEAD_BYTES + (message.body.len() + message.properties.len() + message.routing_key.len()) as u64
}
