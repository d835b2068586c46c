//! The journal's own thread: writes a batch, syncs it, and reports it, with the positions of messages if the core needs
//! them. A full disk is waited out; a failed sync is fatal, because the kernel may have dropped the unwritten pages.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::mpsc::Receiver,
    time::Duration,
};

use rustix::fs::OFlags;

use crate::{
    journal::{
        Batch, Committed, Placed,
        op::{Op, Target},
        record::{SEGMENT_HEADER_BYTES, checked, segment_header, write, write_again},
        spill::{remove_spilled, spill_path},
    },
    message::Place,
};

/// Pause before a failed write is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Space is filled with zeros ahead of the records in steps of this size. A sync without a new file length is a single
/// write; one that changes the length waits for all other changes of the file system.
const FILL_STEP_BYTES: u64 = 1 << 20;
/// A larger buffer is freed after use.
const KEEP_BYTES: usize = 4 << 20;

/// Path of a segment in the data folder.
pub(crate) fn segment_path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("journal-{number:010}.log"))
}

/// Owns the newest segment's file.
pub(crate) struct Writer {
    folder: PathBuf,
    segment: u32,
    file: File,
    /// Bytes of whole batches in the file.
    length: u64,
    /// Size of the file, with the space filled ahead.
    filled: u64,
    buffer: Vec<u8>,
    placed: Vec<Placed>,
    spill: SpillFile,
    /// The old segment from which messages are moved.
    moved_from: Option<(u32, File)>,
}

/// The spill file that is being written.
#[derive(Default)]
struct SpillFile {
    number: u32,
    file: Option<File>,
    length: u64,
    buffer: Vec<u8>,
}

impl Writer {
    /// Begins a new segment.
    pub fn create(folder: &Path, segment: u32) -> io::Result<Writer> {
        let file = create_segment(folder, segment)?;
        Ok(Writer {
            folder: folder.to_owned(),
            segment,
            file,
            length: SEGMENT_HEADER_BYTES as u64,
            filled: SEGMENT_HEADER_BYTES as u64,
            buffer: Vec::new(),
            placed: Vec::new(),
            spill: SpillFile::default(),
            moved_from: None,
        })
    }

    /// Writes batches until the sender is dropped; calls `report` for each one that is on disk.
    pub fn run(mut self, batches: &Receiver<Batch>, mut report: impl FnMut(Committed)) {
        while let Ok(batch) = batches.recv() {
            if let Err(error) = self.write_batch(&batch) {
                tracing::error!(%error, "syncing the journal failed; no more messages are confirmed and the broker ends");
                return;
            }
            report(Committed { number: batch.number, placed: std::mem::take(&mut self.placed) });
        }
        if let Err(error) = self.file.set_len(self.length) {
            tracing::warn!(%error, "unused space at the end of the journal could not be freed");
        }
        if let Err(error) = remove_spilled(&self.folder) {
            tracing::warn!(%error, "a spill file could not be removed; the next start does it");
        }
    }

    fn write_batch(&mut self, batch: &Batch) -> io::Result<()> {
        let mut dropped = Vec::new();
        for op in &batch.ops {
            let start = self.buffer.len();
            match op {
                Op::NextSegment { number } => {
                    self.write_out();
                    // The rest of the space filled ahead is cut off.
                    self.file.set_len(self.length)?;
                    self.file.sync_all()?;
                    self.file = retry(|| create_segment(&self.folder, *number));
                    self.segment = *number;
                    self.length = SEGMENT_HEADER_BYTES as u64;
                    self.filled = self.length;
                }
                Op::DropSegment { number } => dropped.push(segment_path(&self.folder, *number)),
                Op::DropSpill { file } => {
                    if *file == self.spill.number {
                        self.spill.file = None;
                    }
                    dropped.push(spill_path(&self.folder, *file));
                }
                Op::Move { from, priority, target, .. } => {
                    self.move_message(*from, target)?;
                    self.place(start, *priority, std::slice::from_ref(target));
                }
                Op::Spill { .. } => self.spill(op),
                Op::Publish { message, targets } if batch.wants_places => {
                    write(&mut self.buffer, self.segment, op);
                    self.place(start, message.priority, targets);
                }
                op => write(&mut self.buffer, self.segment, op),
            }
        }
        self.write_out();
        self.spill.write_out(&self.folder);
        if batch.must_sync || !dropped.is_empty() {
            self.file.sync_data()?;
        }
        self.moved_from = None;
        for path in dropped {
            // A spill file whose records were all settled in time was never created.
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%error, path = %path.display(), "an old file of the journal could not be removed and takes space on the disk");
            }
        }
        Ok(())
    }

    /// Records the position of the record that begins at `start` of the buffer.
    fn place(&mut self, start: usize, priority: u8, targets: &[Target]) {
        let offset = self.length + start as u64;
        let length = self.buffer.len() - start;
        let (Ok(offset), Ok(length)) = (u32::try_from(offset), u32::try_from(length)) else { return };
        for target in targets {
            self.placed.push(Placed {
                queue: target.queue,
                position: target.position,
                priority,
                place: Place { file: self.segment, offset, length },
                is_spilled: false,
            });
        }
    }

    /// Writes a message of an old segment again.
    fn move_message(&mut self, from: Place, target: &Target) -> io::Result<()> {
        if self.moved_from.as_ref().is_none_or(|(number, _)| *number != from.file) {
            self.moved_from = Some((from.file, open_file(OpenOptions::new().read(true), &segment_path(&self.folder, from.file))?));
        }
        let Some((_, file)) = &self.moved_from else { return Ok(()) };
        let mut record = vec![0; from.length as usize];
        file.read_exact_at(&mut record, u64::from(from.offset))?;
        checked(from.file, &record)
            .and_then(|payload| write_again(&mut self.buffer, self.segment, payload, target))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a live message is damaged on disk"))
    }

    fn spill(&mut self, op: &Op) {
        let Op::Spill { file, queue, position, message } = op else { return };
        if *file != self.spill.number {
            self.spill.write_out(&self.folder);
            self.spill = SpillFile { number: *file, ..SpillFile::default() };
        }
        let start = self.spill.buffer.len();
        write(&mut self.spill.buffer, *file, op);
        let offset = self.spill.length + start as u64;
        let length = self.spill.buffer.len() - start;
        let (Ok(offset), Ok(length)) = (u32::try_from(offset), u32::try_from(length)) else { return };
        let place = Place { file: *file, offset, length };
        self.placed.push(Placed { queue: *queue, position: *position, priority: message.priority, place, is_spilled: true });
    }

    /// Writes the buffer after the last record.
    fn write_out(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let end = self.length + self.buffer.len() as u64;
        let (file, buffer, length) = (&self.file, &self.buffer, self.length);
        if end > self.filled {
            let filled = end.next_multiple_of(FILL_STEP_BYTES);
            let zeros = vec![0; (filled - end) as usize];
            retry(|| file.write_all_at(buffer, length).and_then(|()| file.write_all_at(&zeros, end)));
            self.filled = filled;
        } else {
            retry(|| file.write_all_at(buffer, length));
        }
        self.length = end;
        self.buffer.clear();
        self.buffer.shrink_to(KEEP_BYTES);
    }
}

impl SpillFile {
    fn write_out(&mut self, folder: &Path) {
        if self.buffer.is_empty() {
            return;
        }
        let path = spill_path(folder, self.number);
        let file = self.file.get_or_insert_with(|| retry(|| create_private(&path)));
        let (buffer, length) = (&self.buffer, self.length);
        retry(|| file.write_all_at(buffer, length));
        self.length += self.buffer.len() as u64;
        self.buffer.clear();
        self.buffer.shrink_to(KEEP_BYTES);
    }
}

/// Retries until it works: an operator must free a full disk, and the disk alarm blocks publishers meanwhile.
fn retry<T>(mut attempt: impl FnMut() -> io::Result<T>) -> T {
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) => {
                tracing::error!(%error, "writing the journal failed, trying again; no message is confirmed meanwhile");
                std::thread::sleep(RETRY_PAUSE);
            }
        }
    }
}

/// Creates or truncates a file that its owner alone may read.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    open_file(OpenOptions::new().write(true).create(true).truncate(true).mode(0o600), path)
}

/// Opens a file; other programs of the same user may have put a link or a FIFO in its place, which is an error at once.
pub(crate) fn open_file(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::new(io::ErrorKind::InvalidInput, "this is not a file")) }
}

fn create_segment(folder: &Path, number: u32) -> io::Result<File> {
    let mut file = create_private(&segment_path(folder, number))?;
    file.write_all(&segment_header(number))?;
    file.sync_all()?;
    File::open(folder)?.sync_all()?;
    Ok(file)
}
