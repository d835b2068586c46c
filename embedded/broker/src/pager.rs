//! Moves the content of messages to disk when memory is short, and reads it back. `journal` reports the positions of
//! records; queues read a few messages ahead of their consumers, and the kernel is asked to read further ahead.

use std::{collections::VecDeque, fs::File, io, os::unix::fs::FileExt, path::PathBuf, sync::Arc};

use rustix::fs::{Advice, fadvise};

use crate::{
    core::Core,
    ids::{Name, QueueId},
    journal::{Journal, Placed, StoredMessage, checked, open_file, read_message, segment_path, spill_path},
    message::{Entry, Message, Place},
    queue::Queue,
};

/// Bytes read from disk at once.
const CHUNK_BYTES: usize = 256 << 10;
/// Bytes after a chunk that the kernel is asked to read ahead.
const AHEAD_BYTES: u64 = 1 << 20;
/// A chunk that grew beyond this for a large message is freed.
const KEEP_BYTES: usize = 1 << 20;
/// Open files, at most.
const FILES_MAX: usize = 8;
/// Messages of a queue read back at once, while memory is short and while it is not.
const LOAD_SHORT: usize = 16;
const LOAD_MAX: usize = 256;
/// Messages at the front of a queue with consumers that stay in memory.
const KEEP_AHEAD: usize = 64;

/// A journal segment or a spill file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileKey {
    number: u32,
    is_spilled: bool,
}

/// Reads records back from disk.
pub(crate) struct Pager {
    folder: PathBuf,
    files: VecDeque<(FileKey, File)>,
    chunk: Vec<u8>,
    chunk_of: Option<(FileKey, u64)>,
    /// The last exchange and routing key read; the next record usually has the same.
    names: [Name; 2],
}

impl Pager {
    pub fn new(folder: PathBuf) -> Pager {
        Pager { folder, files: VecDeque::new(), chunk: Vec::new(), chunk_of: None, names: ["".into(), "".into()] }
    }

    /// Closes deleted files, so that their space is freed.
    fn close_dropped(&mut self, journal: &Journal) {
        let is_there = |key: &FileKey| journal.has_file(key.number, key.is_spilled);
        self.files.retain(|(key, _)| is_there(key));
        self.chunk_of = self.chunk_of.filter(|(key, _)| is_there(key));
    }

    fn file(&mut self, key: FileKey) -> io::Result<&File> {
        if let Some(index) = self.files.iter().position(|(open, _)| *open == key) {
            return Ok(&self.files[index].1);
        }
        let path = if key.is_spilled { spill_path(&self.folder, key.number) } else { segment_path(&self.folder, key.number) };
        let file = open_file(File::options().read(true), &path)?;
        if self.files.len() >= FILES_MAX {
            self.files.pop_front();
        }
        self.files.push_back((key, file));
        Ok(&self.files[self.files.len() - 1].1)
    }

    /// The part of the chunk with the record, if it is inside.
    fn in_chunk(&self, key: FileKey, place: Place) -> Option<std::ops::Range<usize>> {
        let (chunk_key, start) = self.chunk_of?;
        let from = u64::from(place.offset).checked_sub(start)? as usize;
        let to = from + place.length as usize;
        (chunk_key == key && to <= self.chunk.len()).then_some(from..to)
    }

    /// Reads a chunk that begins with the record.
    fn read_chunk(&mut self, key: FileKey, place: Place) -> io::Result<()> {
        let mut chunk = std::mem::take(&mut self.chunk);
        self.chunk_of = None;
        let length = place.length as usize;
        chunk.resize(length.max(CHUNK_BYTES), 0);
        let file = self.file(key)?;
        let offset = u64::from(place.offset);
        let mut filled = 0;
        while filled < chunk.len() {
            match file.read_at(&mut chunk[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if filled < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // The read-ahead is only an optimisation.
        if let Err(error) = fadvise(file, offset + filled as u64, std::num::NonZeroU64::new(AHEAD_BYTES), Advice::WillNeed) {
            tracing::debug!(%error, "the kernel refused to read a journal file ahead; reads take longer");
        }
        chunk.truncate(filled);
        self.chunk = chunk;
        self.chunk_of = Some((key, offset));
        Ok(())
    }

    /// Reads a message.
    fn read(&mut self, key: FileKey, place: Place) -> io::Result<Arc<Message>> {
        if let Some(range) = self.in_chunk(key, place)
            && let Some(payload) = checked(key.number, &self.chunk[range])
            && let Some(stored) = read_message(payload)
        {
            return Ok(Arc::new(message(&stored, &mut self.names)));
        }
        // The chunk may have been read before the record was written.
        self.read_chunk(key, place)?;
        let read = self
            .in_chunk(key, place)
            .and_then(|range| checked(key.number, &self.chunk[range]))
            .and_then(read_message)
            .map(|stored| Arc::new(message(&stored, &mut self.names)))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "record is damaged"));
        if self.chunk.capacity() > KEEP_BYTES {
            self.chunk = Vec::new();
            self.chunk_of = None;
        }
        read
    }

    /// The content of an entry, from memory or from disk.
    pub fn content(&mut self, entry: &Entry) -> io::Result<Arc<Message>> {
        match &entry.content {
            Some(message) => Ok(message.clone()),
            None => self.read(FileKey { number: entry.place.file, is_spilled: entry.stored.segment == 0 }, entry.place),
        }
    }

    /// Reads the content of an entry into memory.
    pub fn load(&mut self, entry: &mut Entry) -> io::Result<()> {
        if entry.content.is_none() {
            entry.content = Some(self.content(entry)?);
            // The message is being moved to another segment, and its old position becomes invalid.
            if entry.stored.segment != 0 && entry.place.file != entry.stored.segment {
                entry.place = Place::default();
            }
        }
        Ok(())
    }
}

fn message(stored: &StoredMessage<'_>, names: &mut [Name; 2]) -> Message {
    for (name, text) in names.iter_mut().zip([stored.exchange, stored.routing_key]) {
        if **name != *text {
            *name = text.into();
        }
    }
    Message {
        exchange: names[0].clone(),
        routing_key: names[1].clone(),
        properties: stored.properties.into(),
        body: stored.body.into(),
        is_persistent: stored.is_persistent,
        priority: stored.priority,
    }
}

impl Queue {
    /// Messages at the front that stay in memory.
    fn kept_ahead(&self) -> usize {
        if self.consumers.is_empty() { 0 } else { KEEP_AHEAD }
    }
}

impl Core {
    /// True when messages should move from memory to disk.
    pub(crate) fn is_paging(&self) -> bool {
        self.held_bytes > self.settings.resident_max_bytes
    }

    /// Reads the next messages for a queue's consumers. An unreadable message is left to the next start, which
    /// refuses to continue without it.
    pub(crate) fn load_ahead(&mut self, id: QueueId) {
        let most = if self.held_bytes > 2 * self.settings.resident_max_bytes { LOAD_SHORT } else { LOAD_MAX };
        let Some(queue) = self.queues.get_mut(&id) else { return };
        let mut loaded_bytes = 0;
        let mut is_lost = false;
        for entry in queue.next_mut().take(most).take_while(|entry| entry.content.is_none()) {
            let before = entry.cost();
            if let Err(error) = self.pager.load(entry) {
                tracing::error!(%error, queue = id, position = entry.position, "a message of this queue could not be read from disk; it is not delivered");
                is_lost = loaded_bytes == 0;
                break;
            }
            self.held_bytes += entry.cost() - before;
            loaded_bytes += entry.body_bytes as usize;
            if loaded_bytes >= CHUNK_BYTES {
                break;
            }
        }
        if is_lost && let Some(lost) = queue.pop() {
            self.held_bytes -= lost.cost();
        }
    }

    /// The content of an entry outside any queue; nothing when it cannot be read.
    pub(crate) fn content(&mut self, entry: &Entry) -> Option<Arc<Message>> {
        match self.pager.content(entry) {
            Ok(message) => Some(message),
            Err(error) => {
                tracing::error!(%error, position = entry.position, "a message could not be read from disk; it is not delivered");
                None
            }
        }
    }

    /// Drops the content of an entry from memory if disk has it and memory is short.
    pub(crate) fn page_out(&mut self, entry: &mut Entry) {
        if self.is_paging() && entry.place.is_known() {
            self.held_bytes -= entry.drop_content();
        }
    }

    /// Spills a new message that need not survive a restart, when memory is short.
    pub(crate) fn spill_new(&mut self, id: QueueId, priority: u8, position: u64) {
        if !self.is_paging() {
            return;
        }
        let Some(queue) = self.queues.get_mut(&id) else { return };
        let ahead = queue.kept_ahead();
        if let Some((entry, index)) = queue.find_mut(priority, position)
            && entry.stored.segment == 0
            && index >= ahead
        {
            self.journal.spill(id, entry);
        }
    }

    /// Handles written records: messages far from delivery leave memory.
    pub(crate) fn on_placed(&mut self, placed: Vec<Placed>) {
        for one in placed {
            let is_paging = self.is_paging();
            let found = self.queues.get_mut(&one.queue).and_then(|queue| {
                let ahead = queue.kept_ahead();
                let (entry, index) = queue.find_mut(one.priority, one.position)?;
                Some((entry, index >= ahead))
            });
            match found {
                Some((entry, is_far)) if one.is_spilled || entry.stored.segment == one.place.file => {
                    entry.place = one.place;
                    if is_paging && is_far {
                        self.held_bytes -= entry.drop_content();
                    }
                }
                _ if one.is_spilled => self.journal.release_spilled(one.place.file),
                _ => {}
            }
        }
        self.pager.close_dropped(&self.journal);
    }
}
