//! The thread that works after commits: removes files that no row names any more.
//! The writer and dropped uploads queue its work, so that neither waits for the disk.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::files::Files;

const CLEANUPS_MAX: usize = 16 * 1024;

/// Work to do after a commit.
#[derive(Debug)]
pub(crate) enum Cleanup {
    /// Removes the files of a content that was replaced or deleted, once nothing reads it.
    Retire {
        /// The content's number, by which readers pin it.
        content: i64,
        files: Vec<String>,
    },
    /// Removes a file that never became an object.
    Discard(PathBuf),
    /// Ends the thread.
    Finish,
}

/// A handle to the thread's queue.
#[derive(Clone, Debug)]
pub(crate) struct Reaper {
    cleanups: SyncSender<Cleanup>,
    pins: Arc<Mutex<Pins>>,
}

/// Contents that are being read, and files to remove when their readers are done.
#[derive(Debug, Default)]
struct Pins {
    readers: HashMap<i64, usize>,
    waiting: HashMap<i64, Vec<String>>,
}

impl Reaper {
    /// Starts the thread; it ends after `finish`.
    pub(crate) fn start(files: Files) -> io::Result<(Self, JoinHandle<()>)> {
        let (cleanups, queue) = sync_channel(CLEANUPS_MAX);
        let pins = Arc::new(Mutex::new(Pins::default()));
        let reaper = Self { cleanups, pins: pins.clone() };
        let thread = std::thread::Builder::new().name("blobs-reaper".to_owned()).spawn(move || work(&queue, &files, &pins))?;
        Ok((reaper, thread))
    }

    /// Queues work; waits while the queue is full. Not for async threads.
    pub(crate) fn queue(&self, cleanup: Cleanup) {
        if self.cleanups.send(cleanup).is_err() {
            tracing::warn!("a file could not be queued for removal, because the store is stopping; the next start removes it");
        }
    }

    /// Queues the removal of an unfinished file; never waits.
    pub(crate) fn discard(&self, path: PathBuf) {
        match self.cleanups.try_send(Cleanup::Discard(path)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                tracing::warn!("too many files wait for removal; the file of a failed upload stays until the next start");
            }
        }
    }

    /// Ends the thread after the queued work.
    pub(crate) fn finish(&self) {
        self.queue(Cleanup::Finish);
    }

    /// Keeps a content's files until the pin is dropped.
    pub(crate) fn pin(&self, content: i64) -> Pin {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        *pins.readers.entry(content).or_default() += 1;
        Pin { content, reaper: self.clone() }
    }

    fn unpin(&self, content: i64) {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(readers) = pins.readers.get_mut(&content) else { return };
        *readers -= 1;
        if *readers > 0 {
            return;
        }
        pins.readers.remove(&content);
        let Some(files) = pins.waiting.remove(&content) else { return };
        drop(pins);
        if self.cleanups.try_send(Cleanup::Retire { content, files }).is_err() {
            tracing::warn!("too many files wait for removal; the files of a replaced object stay until the next start");
        }
    }
}

/// Keeps the files of one content while it is being read.
#[derive(Debug)]
pub(crate) struct Pin {
    content: i64,
    reaper: Reaper,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.reaper.unpin(self.content);
    }
}

fn work(queue: &Receiver<Cleanup>, files: &Files, pins: &Mutex<Pins>) {
    while let Ok(cleanup) = queue.recv() {
        match cleanup {
            Cleanup::Retire { content, files: ids } => retire(files, pins, content, ids),
            Cleanup::Discard(path) => {
                if let Err(error) = std::fs::remove_file(&path) {
                    tracing::warn!(%error, path = %path.display(), "the file of a failed upload could not be removed; the next start removes it");
                }
            }
            Cleanup::Finish => return,
        }
    }
}

fn retire(files: &Files, pins: &Mutex<Pins>, content: i64, ids: Vec<String>) {
    {
        let mut pins = pins.lock().unwrap_or_else(PoisonError::into_inner);
        if pins.readers.contains_key(&content) {
            pins.waiting.insert(content, ids);
            return;
        }
    }
    for id in ids {
        if let Err(error) = files.remove(&id) {
            tracing::warn!(%error, id, "the file of a deleted or replaced object could not be removed; the next start removes it");
        }
    }
}
