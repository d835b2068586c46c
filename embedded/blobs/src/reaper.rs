//! The thread that works after commits: removes files that nothing names any more.
//! Fed by the writer and by dropped uploads, so that neither waits for the disk.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::files::Files;

const CHORES_MAX: usize = 16 * 1024;

/// Something to do once a commit stands.
#[derive(Debug)]
pub(crate) enum Chore {
    /// The files of a content that was replaced or deleted.
    Retire {
        /// The content's number, by which readers pin it.
        content: i64,
        /// Its files.
        files: Vec<String>,
    },
    /// A file that never became an object.
    Discard(PathBuf),
    /// No more chores will come.
    Finish,
}

/// A handle to the thread's queue.
#[derive(Clone, Debug)]
pub(crate) struct Reaper {
    chores: SyncSender<Chore>,
    pins: Arc<Mutex<Pins>>,
}

/// Contents that are being read, and files that wait for their readers.
#[derive(Debug, Default)]
struct Pins {
    readers: HashMap<i64, usize>,
    waiting: HashMap<i64, Vec<String>>,
}

impl Reaper {
    /// Starts the thread; it ends after `finish`.
    pub(crate) fn start(files: Files) -> io::Result<(Self, JoinHandle<()>)> {
        let (chores, queue) = sync_channel(CHORES_MAX);
        let pins = Arc::new(Mutex::new(Pins::default()));
        let reaper = Self { chores, pins: pins.clone() };
        let thread = std::thread::Builder::new().name("blobs-reaper".to_owned()).spawn(move || work(&queue, &files, &pins))?;
        Ok((reaper, thread))
    }

    /// Queues a chore; waits while the queue is full. Not for async threads.
    pub(crate) fn queue(&self, chore: Chore) {
        if self.chores.send(chore).is_err() {
            tracing::warn!("a chore came after the reaper ended, the next start will do it");
        }
    }

    /// Queues the removal of an unfinished file; never waits.
    pub(crate) fn discard(&self, path: PathBuf) {
        match self.chores.try_send(Chore::Discard(path)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                tracing::warn!("an unfinished file stays until the next start");
            }
        }
    }

    /// Lets the thread end once it has done what is queued.
    pub(crate) fn finish(&self) {
        self.queue(Chore::Finish);
    }

    /// Keeps a content's files in place until the pin is dropped.
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
        if self.chores.try_send(Chore::Retire { content, files }).is_err() {
            tracing::warn!("files of a replaced object stay until the next start");
        }
    }
}

/// Keeps the files of one content while somebody reads them.
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

fn work(queue: &Receiver<Chore>, files: &Files, pins: &Mutex<Pins>) {
    while let Ok(chore) = queue.recv() {
        match chore {
            Chore::Retire { content, files: ids } => retire(files, pins, content, ids),
            Chore::Discard(path) => {
                if let Err(error) = std::fs::remove_file(&path) {
                    tracing::warn!(%error, path = %path.display(), "an unfinished file could not be removed");
                }
            }
            Chore::Finish => return,
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
            tracing::warn!(%error, id, "a file that nothing names could not be removed, the next start will");
        }
    }
}
