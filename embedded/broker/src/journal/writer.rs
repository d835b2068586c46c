//! The journal's own thread: writes a batch, syncs it, reports it. A full disk is waited out; a failed sync is fatal,
//! because the kernel may have dropped what it could not write.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::mpsc::Receiver,
    time::Duration,
};

use crate::journal::{
    Batch,
    op::Op,
    record::{SEGMENT_HEADER_BYTES, segment_header, write},
};

/// Pause before a failed write is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Space is filled with zeros ahead of the records in steps of this size: a sync that need not record a new file
/// length is a single write, while one that must waits for everybody else's changes to the file system.
const FILL_STEP_BYTES: u64 = 1 << 20;
/// A buffer that grew beyond this is given back.
const KEEP_BYTES: usize = 4 << 20;

/// Path of a segment in the data folder.
pub(crate) fn segment_path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("journal-{number:010}.log"))
}

/// Owner of the newest segment's file.
pub(crate) struct Writer {
    folder: PathBuf,
    segment: u32,
    file: File,
    /// Bytes of the file that are whole batches.
    length: u64,
    /// Bytes of the file that exist.
    filled: u64,
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
        })
    }

    /// Writes batches until the sender is gone; `report` is told each number once it is safe.
    pub fn run(mut self, batches: &Receiver<Batch>, mut report: impl FnMut(u64)) {
        while let Ok(batch) = batches.recv() {
            if let Err(error) = self.write_batch(&batch) {
                tracing::error!(%error, "the journal could not be synced, nothing more will be confirmed");
                return;
            }
            report(batch.number);
        }
        if let Err(error) = self.file.set_len(self.length) {
            tracing::warn!(%error, "space filled ahead could not be given back");
        }
    }

    fn write_batch(&mut self, batch: &Batch) -> io::Result<()> {
        let mut dropped = Vec::new();
        for op in &batch.ops {
            match op {
                Op::NextSegment { number } => {
                    self.write_out();
                    // What was filled ahead and not used goes.
                    self.file.set_len(self.length)?;
                    self.file.sync_all()?;
                    self.file = retry(|| create_segment(&self.folder, *number));
                    self.segment = *number;
                    self.length = SEGMENT_HEADER_BYTES as u64;
                    self.filled = self.length;
                }
                Op::DropSegment { number } => dropped.push(*number),
                op => write(&mut self.buffer, self.segment, op),
            }
        }
        self.write_out();
        if batch.must_sync || !dropped.is_empty() {
            self.file.sync_data()?;
        }
        for number in dropped {
            let path = segment_path(&self.folder, number);
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(%error, path = %path.display(), "an old segment could not be removed");
            }
        }
        Ok(())
    }

    /// Writes the buffer behind the last record.
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

/// Tries until it works: a full disk is the operator's to mend, and publishers are blocked by the disk alarm meanwhile.
fn retry<T>(mut attempt: impl FnMut() -> io::Result<T>) -> T {
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) => {
                tracing::error!(%error, "the journal could not be written, trying again");
                std::thread::sleep(RETRY_PAUSE);
            }
        }
    }
}

fn create_segment(folder: &Path, number: u32) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(segment_path(folder, number))?;
    file.write_all(&segment_header(number))?;
    file.sync_all()?;
    File::open(folder)?.sync_all()?;
    Ok(file)
}
