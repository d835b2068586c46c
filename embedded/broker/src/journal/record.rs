//! Encoding of records: length, checksum, kind, fields; all numbers little-endian. The checksum is seeded with the
//! segment's number, so that a stale record is never valid in a new one.
//!
//! A segment begins with a magic word, the format version and its number. A newer version than this build's is refused.

use amq_protocol::{
    frame::WriteContext,
    types::{FieldTable, generation::gen_field_table, parsing::parse_field_table},
};

use crate::{
    exchange::{Binding, Kind, Target as Destination},
    ids::Name,
    journal::op::{Op, Target},
    message::Message,
};

/// First bytes of every segment.
pub(crate) const MAGIC: &[u8; 8] = b"PWKAMQP\n";
/// The format that this version writes; 2 added the number of returns.
pub(crate) const FORMAT: u32 = 2;
/// Bytes before a segment's first record.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 16;
/// Bytes before a record's payload.
pub(crate) const RECORD_HEADER_BYTES: usize = 8;

/// Bytes of a target in a record.
const TARGET_BYTES: usize = 25;

const PUBLISH: u8 = 1;
const SETTLE: u8 = 2;
const RESERVE: u8 = 3;
const FLAG: u8 = 4;
const DECLARE_QUEUE: u8 = 5;
const DELETE_QUEUE: u8 = 6;
const DECLARE_EXCHANGE: u8 = 7;
const DELETE_EXCHANGE: u8 = 8;
const BIND: u8 = 9;
const UNBIND: u8 = 10;
const RETURNS: u8 = 11;
/// In spill files only.
const SPILL: u8 = 12;

/// A record read back.
#[derive(Debug)]
pub(crate) enum Record {
    Publish { targets: Vec<Target>, exchange: String, routing_key: String, priority: u8, properties: Box<[u8]>, body: Box<[u8]> },
    Settle { queue: u64, position: u64 },
    Reserve { queue: u64, upto: u64 },
    Flag { queue: u64, position: u64 },
    Returns { queue: u64, position: u64, returns: u32 },
    DeclareQueue { id: u64, name: String, is_auto_delete: bool, next_position: u64, arguments: FieldTable },
    DeleteQueue { id: u64 },
    DeclareExchange { name: String, kind: Kind, is_auto_delete: bool, is_internal: bool, arguments: FieldTable },
    DeleteExchange { name: String },
    Bind { source: String, key: String, binding: Binding },
    Unbind { source: String, key: String, binding: Binding },
}

/// The start of a segment.
pub(crate) fn segment_header(number: u32) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[12..].copy_from_slice(&number.to_le_bytes());
    header
}

/// Checksum of a record's payload in a segment.
pub(crate) fn checksum(segment: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(segment);
    hasher.update(payload);
    hasher.finalize()
}

/// Appends an operation's record; a publish that was cancelled has none.
pub(crate) fn write(out: &mut Vec<u8>, segment: u32, op: &Op) {
    let start = out.len();
    out.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
    match op {
        Op::Publish { targets, .. } if targets.is_empty() => return out.truncate(start),
        Op::Nothing | Op::Move { .. } | Op::DropSpill { .. } => return out.truncate(start),
        Op::NextSegment { .. } | Op::DropSegment { .. } => return out.truncate(start),
        Op::Publish { message, targets } => {
            out.push(PUBLISH);
            put_targets(out, targets);
            put_message(out, message);
        }
        Op::Spill { message, .. } => {
            out.push(SPILL);
            out.push(u8::from(message.is_persistent));
            put_message(out, message);
        }
        Op::Returns { queue, position, returns } => {
            put_pair(out, RETURNS, *queue, *position);
            put_u32(out, *returns);
        }
        Op::Settle { queue, position } => put_pair(out, SETTLE, *queue, *position),
        Op::Reserve { queue, upto } => put_pair(out, RESERVE, *queue, *upto),
        Op::Flag { queue, position } => put_pair(out, FLAG, *queue, *position),
        Op::DeclareQueue { id, name, is_auto_delete, next_position, arguments } => {
            out.push(DECLARE_QUEUE);
            put_u64(out, *id);
            put_bytes(out, name.as_bytes());
            out.push(u8::from(*is_auto_delete));
            put_u64(out, *next_position);
            put_table(out, arguments);
        }
        Op::DeleteQueue { id } => {
            out.push(DELETE_QUEUE);
            put_u64(out, *id);
        }
        Op::DeclareExchange { name, kind, is_auto_delete, is_internal, arguments } => {
            out.push(DECLARE_EXCHANGE);
            put_bytes(out, name.as_bytes());
            put_bytes(out, kind.name().as_bytes());
            out.push(u8::from(*is_auto_delete));
            out.push(u8::from(*is_internal));
            put_table(out, arguments);
        }
        Op::DeleteExchange { name } => {
            out.push(DELETE_EXCHANGE);
            put_bytes(out, name.as_bytes());
        }
        Op::Bind { source, key, binding } => put_binding(out, BIND, source, key, binding),
        Op::Unbind { source, key, binding } => put_binding(out, UNBIND, source, key, binding),
    }
    close(out, segment, start);
}

/// Appends the record of a message again, for one queue only; `old` is the payload of a publish.
pub(crate) fn write_again(out: &mut Vec<u8>, segment: u32, old: &[u8], target: &Target) -> Option<()> {
    let mut fields = Fields(old);
    if fields.u8()? != PUBLISH {
        return None;
    }
    fields.targets()?;
    let start = out.len();
    out.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
    out.push(PUBLISH);
    put_targets(out, std::slice::from_ref(target));
    out.extend_from_slice(fields.0);
    close(out, segment, start);
    Some(())
}

/// Fills in length and checksum of the record that begins at `start`.
fn close(out: &mut [u8], segment: u32, start: usize) {
    let payload = start + RECORD_HEADER_BYTES;
    let length = (out.len() - payload) as u32;
    let sum = checksum(segment, &out[payload..]);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..payload].copy_from_slice(&sum.to_le_bytes());
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}
fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}
fn put_targets(out: &mut Vec<u8>, targets: &[Target]) {
    put_u32(out, targets.len() as u32);
    for target in targets {
        put_u64(out, target.queue);
        put_u64(out, target.position);
        put_u64(out, target.expires_ms);
        out.push(u8::from(target.is_redelivered));
    }
}
fn put_message(out: &mut Vec<u8>, message: &Message) {
    put_bytes(out, message.exchange.as_bytes());
    put_bytes(out, message.routing_key.as_bytes());
    out.push(message.priority);
    put_bytes(out, &message.properties);
    put_bytes(out, &message.body);
}
fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(out, bytes.len() as u32);
    out.extend_from_slice(bytes);
}
fn put_pair(out: &mut Vec<u8>, kind: u8, first: u64, second: u64) {
    out.push(kind);
    put_u64(out, first);
    put_u64(out, second);
}
fn put_table(out: &mut Vec<u8>, table: &FieldTable) {
    let bytes = gen_field_table(table)(WriteContext::from(Vec::new())).expect("writing to memory cannot fail").into_inner().0;
    put_bytes(out, &bytes);
}
fn put_binding(out: &mut Vec<u8>, kind: u8, source: &Name, key: &Name, binding: &Binding) {
    out.push(kind);
    put_bytes(out, source.as_bytes());
    put_bytes(out, key.as_bytes());
    match &binding.target {
        Destination::Queue(id) => {
            out.push(0);
            put_u64(out, *id);
        }
        Destination::Exchange(name) => {
            out.push(1);
            put_bytes(out, name.as_bytes());
        }
    }
    put_table(out, &binding.arguments);
}

/// Decodes a record's payload; nothing if it is malformed.
pub(crate) fn read(payload: &[u8]) -> Option<Record> {
    let mut fields = Fields(payload);
    let record = match fields.u8()? {
        PUBLISH => Record::Publish {
            targets: fields.targets()?,
            exchange: fields.text()?,
            routing_key: fields.text()?,
            priority: fields.u8()?,
            properties: fields.bytes()?.into(),
            body: fields.bytes()?.into(),
        },
        SETTLE => Record::Settle { queue: fields.u64()?, position: fields.u64()? },
        RESERVE => Record::Reserve { queue: fields.u64()?, upto: fields.u64()? },
        FLAG => Record::Flag { queue: fields.u64()?, position: fields.u64()? },
        RETURNS => Record::Returns { queue: fields.u64()?, position: fields.u64()?, returns: fields.u32()? },
        DECLARE_QUEUE => Record::DeclareQueue {
            id: fields.u64()?,
            name: fields.text()?,
            is_auto_delete: fields.u8()? != 0,
            next_position: fields.u64()?,
            arguments: fields.table()?,
        },
        DELETE_QUEUE => Record::DeleteQueue { id: fields.u64()? },
        DECLARE_EXCHANGE => Record::DeclareExchange {
            name: fields.text()?,
            kind: Kind::parse(&fields.text()?)?,
            is_auto_delete: fields.u8()? != 0,
            is_internal: fields.u8()? != 0,
            arguments: fields.table()?,
        },
        DELETE_EXCHANGE => Record::DeleteExchange { name: fields.text()? },
        BIND => {
            let (source, key, binding) = fields.binding()?;
            Record::Bind { source, key, binding }
        }
        UNBIND => {
            let (source, key, binding) = fields.binding()?;
            Record::Unbind { source, key, binding }
        }
        _ => return None,
    };
    fields.0.is_empty().then_some(record)
}

/// A message inside its record.
pub(crate) struct StoredMessage<'a> {
    pub is_persistent: bool,
    pub exchange: &'a str,
    pub routing_key: &'a str,
    pub priority: u8,
    pub properties: &'a [u8],
    pub body: &'a [u8],
}

/// Decodes the message of a publish or spill record's payload; nothing if it is neither.
pub(crate) fn read_message(payload: &[u8]) -> Option<StoredMessage<'_>> {
    let mut fields = Fields(payload);
    let is_persistent = match fields.u8()? {
        PUBLISH => {
            let count = fields.u32()? as usize;
            fields.take(count.checked_mul(TARGET_BYTES)?)?;
            true
        }
        SPILL => fields.u8()? != 0,
        _ => return None,
    };
    Some(StoredMessage {
        is_persistent,
        exchange: std::str::from_utf8(fields.bytes()?).ok()?,
        routing_key: std::str::from_utf8(fields.bytes()?).ok()?,
        priority: fields.u8()?,
        properties: fields.bytes()?,
        body: fields.bytes()?,
    })
}

/// The payload of a whole record, if its checksum is right.
pub(crate) fn checked(segment: u32, record: &[u8]) -> Option<&[u8]> {
    let (header, payload) = record.split_at_checked(RECORD_HEADER_BYTES)?;
    let length = u32::from_le_bytes(header[..4].try_into().ok()?) as usize;
    let sum = u32::from_le_bytes(header[4..].try_into().ok()?);
    (length == payload.len() && checksum(segment, payload) == sum).then_some(payload)
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }
    fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }
    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }
    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
    fn targets(&mut self) -> Option<Vec<Target>> {
        let count = self.u32()?;
        let mut targets = Vec::new();
        for _ in 0..count {
            targets.push(Target { queue: self.u64()?, position: self.u64()?, expires_ms: self.u64()?, is_redelivered: self.u8()? != 0 });
        }
        Some(targets)
    }
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        self.take(length)
    }
    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }
    fn table(&mut self) -> Option<FieldTable> {
        match parse_field_table(self.bytes()?) {
            Ok(([], table)) => Some(table),
            _ => None,
        }
    }
    fn binding(&mut self) -> Option<(String, String, Binding)> {
        let source = self.text()?;
        let key = self.text()?;
        let target = match self.u8()? {
            0 => Destination::Queue(self.u64()?),
            1 => Destination::Exchange(self.text()?.into()),
            _ => return None,
        };
        Some((source, key, Binding { target, arguments: self.table()?, is_durable: true }))
    }
}
