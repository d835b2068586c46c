//! Reads the journal at start, oldest segment first, into the state it describes.
//! The newest segment may end in an incomplete record after a crash; damage anywhere else is an error.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, OpenOptions},
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use amq_protocol::types::FieldTable;

use crate::{
    error::Error,
    exchange::{Binding, Exchange},
    ids::{Name, QueueId},
    journal::{
        record::{FORMAT, MAGIC, RECORD_HEADER_BYTES, Record, SEGMENT_HEADER_BYTES, checksum, read},
        writer::open_file,
    },
    message::{Entry, Message, Place, Stored},
};

/// A queue with its messages by position.
pub(crate) struct ReplayedQueue {
    pub name: String,
    pub is_auto_delete: bool,
    pub arguments: FieldTable,
    pub next_position: u64,
    /// Messages at positions below this may have been delivered.
    pub reserved: u64,
    pub messages: BTreeMap<u64, Entry>,
}

/// The state a journal describes.
#[derive(Default)]
pub(crate) struct Replayed {
    pub exchanges: BTreeMap<String, Exchange>,
    pub queues: BTreeMap<QueueId, ReplayedQueue>,
    pub bindings: Vec<(Name, Name, Binding)>,
    /// Bytes of each segment.
    pub segments: BTreeMap<u32, u64>,
    names: HashMap<String, Name>,
    /// Memory of the messages found so far, and the bound above which further ones stay on disk.
    held_bytes: u64,
    resident_max_bytes: u64,
}

/// Reads all segments in a folder.
pub(crate) fn replay(folder: &Path, resident_max_bytes: u64) -> Result<Replayed, Error> {
    let mut replayed = Replayed { resident_max_bytes, ..Replayed::default() };
    let paths = segments(folder)?;
    let newest = paths.keys().next_back().copied();
    for (number, path) in paths {
        let mut bytes = Vec::new();
        open_file(OpenOptions::new().read(true), &path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(Error::data(&path))?;
        let is_newest = Some(number) == newest;
        let valid = replayed.read_segment(number, &path, &bytes, is_newest)?;
        if valid == 0 {
            // A crash happened between creating the file and writing its header.
            fs::remove_file(&path).map_err(Error::data(&path))?;
            continue;
        }
        if valid < bytes.len() {
            open_file(OpenOptions::new().write(true), &path)
                .and_then(|file| file.set_len(valid as u64).and_then(|()| file.sync_all()))
                .map_err(Error::data(&path))?;
        }
        replayed.segments.insert(number, valid as u64);
    }
    Ok(replayed)
}

fn segments(folder: &Path) -> Result<BTreeMap<u32, PathBuf>, Error> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(Error::data(folder))? {
        let path = entry.map_err(Error::data(folder))?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix("journal-")?.strip_suffix(".log")?.parse().ok());
        if let Some(number) = number {
            found.insert(number, path);
        }
    }
    Ok(found)
}

impl Replayed {
    /// Applies a segment's records; returns the number of valid bytes.
    fn read_segment(&mut self, number: u32, path: &Path, bytes: &[u8], is_newest: bool) -> Result<usize, Error> {
        if bytes.len() < SEGMENT_HEADER_BYTES || bytes[..8] != MAGIC[..] {
            return match is_newest {
                true => Ok(0),
                false => Err(Error::Damaged { path: path.to_owned(), offset: 0 }),
            };
        }
        let found = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        if found > FORMAT {
            return Err(Error::Format { path: path.to_owned(), found, known: FORMAT });
        }
        let mut offset = SEGMENT_HEADER_BYTES;
        while offset < bytes.len() {
            match next_record(number, &bytes[offset..]) {
                Some((record, length)) => {
                    self.apply(record, Place { file: number, offset: offset as u32, length: length as u32 });
                    offset += length;
                }
                // Space filled with zeros ahead of the records.
                None if bytes[offset..].iter().all(|byte| *byte == 0) => return Ok(offset),
                None if is_newest => {
                    tracing::warn!(path = %path.display(), offset, "the journal ends in an incomplete record, as after a crash; it is cut off there");
                    return Ok(offset);
                }
                None => {
                    return Err(Error::Damaged { path: path.to_owned(), offset: offset as u64 });
                }
            }
        }
        Ok(offset)
    }

    fn name(&mut self, text: String) -> Name {
        self.names.entry(text).or_insert_with_key(|text| text.as_str().into()).clone()
    }

    fn apply(&mut self, record: Record, place: Place) {
        match record {
            Record::Publish { targets, exchange, routing_key, priority, properties, body } => {
                let message = Arc::new(Message {
                    exchange: self.name(exchange),
                    routing_key: self.name(routing_key),
                    properties,
                    body,
                    is_persistent: true,
                    priority,
                });
                let stored = Stored { segment: place.file, slot: 0, batch: 0 };
                for target in targets {
                    let Some(queue) = self.queues.get_mut(&target.queue) else { continue };
                    queue.next_position = queue.next_position.max(target.position + 1);
                    let mut entry = Entry::new(message.clone(), target.position, target.expires_ms, stored);
                    entry.place = place;
                    entry.is_redelivered = target.is_redelivered;
                    if self.held_bytes > self.resident_max_bytes {
                        entry.drop_content();
                    }
                    self.held_bytes += entry.cost();
                    if let Some(old) = queue.messages.insert(target.position, entry) {
                        self.held_bytes -= old.cost();
                    }
                }
            }
            Record::Settle { queue, position } => {
                if let Some(queue) = self.queues.get_mut(&queue) {
                    let settled = queue.messages.remove(&position);
                    self.held_bytes -= settled.map_or(0, |entry| entry.cost());
                }
            }
            Record::Reserve { queue, upto } => {
                if let Some(queue) = self.queues.get_mut(&queue) {
                    queue.reserved = upto;
                }
            }
            Record::Flag { queue, position } => {
                if let Some(message) = self.queues.get_mut(&queue).and_then(|queue| queue.messages.get_mut(&position)) {
                    message.is_redelivered = true;
                }
            }
            Record::Returns { queue, position, returns } => {
                if let Some(message) = self.queues.get_mut(&queue).and_then(|queue| queue.messages.get_mut(&position)) {
                    message.returns = returns;
                    message.is_redelivered = true;
                }
            }
            Record::DeclareQueue { id, name, is_auto_delete, next_position, arguments } => {
                let queue = self.queues.entry(id).or_insert_with(|| ReplayedQueue {
                    name,
                    is_auto_delete,
                    arguments,
                    next_position,
                    reserved: 1,
                    messages: BTreeMap::new(),
                });
                queue.next_position = queue.next_position.max(next_position);
            }
            Record::DeleteQueue { id } => {
                let messages = self.queues.remove(&id).map(|queue| queue.messages).unwrap_or_default();
                self.held_bytes -= messages.values().map(Entry::cost).sum::<u64>();
            }
            Record::DeclareExchange { name, kind, is_auto_delete, is_internal, arguments } => {
                let mut exchange = Exchange::new(kind, true);
                exchange.is_auto_delete = is_auto_delete;
                exchange.is_internal = is_internal;
                exchange.arguments = arguments;
                self.exchanges.insert(name, exchange);
            }
            Record::DeleteExchange { name } => {
                self.exchanges.remove(&name);
                self.bindings.retain(|(source, _, binding)| {
                    **source != *name && binding.target != crate::exchange::Target::Exchange(name.as_str().into())
                });
            }
            Record::Bind { source, key, binding } => {
                let (source, key) = (self.name(source), self.name(key));
                self.bindings.push((source, key, binding));
            }
            Record::Unbind { source, key, binding } => {
                self.bindings.retain(|(old_source, old_key, old)| **old_source != *source || **old_key != *key || *old != binding);
            }
        }
    }
}

/// Decodes the record at the start of `bytes`, and its whole length, if it is valid.
fn next_record(segment: u32, bytes: &[u8]) -> Option<(Record, usize)> {
    let header = bytes.get(..RECORD_HEADER_BYTES)?;
    let length = u32::from_le_bytes(header[..4].try_into().ok()?) as usize;
    let sum = u32::from_le_bytes(header[4..].try_into().ok()?);
    let payload = bytes.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES.checked_add(length)?)?;
    if checksum(segment, payload) != sum {
        return None;
    }
    Some((read(payload)?, RECORD_HEADER_BYTES + length))
}
