//! Bytes that a folder takes of its disk, counted on a thread of its own. Callers wait for a bounded time and take what
//! was counted by then, so that neither millions of files nor a disk that hangs hold up the watch.

use std::{
    fs::{self, ReadDir},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::off_loop::off_loop;

/// Nested folders that are open at the same time; deeper ones are counted afterwards.
const OPEN_MAX: usize = 16;

/// The usage of one folder, and the count that may be under way.
#[derive(Debug, Default)]
pub struct Usage {
    /// Bytes that the running count has found so far.
    counting: Mutex<Option<Arc<AtomicU64>>>,
    /// Set when the result is not wanted any more.
    is_over: AtomicBool,
}

impl Usage {
    /// Bytes that the folder takes; when the count does not end within `patience`, those found so far.
    pub async fn measure(self: &Arc<Usage>, folder: &Path, patience: Duration) -> u64 {
        let (found, is_new) = {
            let mut counting = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
            match &*counting {
                // An earlier count has not ended; its partial result is used without waiting again.
                Some(found) => (found.clone(), false),
                None => (counting.insert(Arc::default()).clone(), true),
            }
        };
        if is_new {
            let (usage, counted, folder) = (self.clone(), found.clone(), folder.to_owned());
            let count = off_loop(move || {
                count(&folder, &counted, &usage.is_over);
                *usage.counting.lock().unwrap_or_else(PoisonError::into_inner) = None;
            });
            match tokio::time::timeout(patience, count).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the count of a task folder's size failed inside the agent; the bytes found so far are used")
                }
                Err(_) => tracing::debug!("counting a task folder's size takes long; the bytes found so far are used"),
            }
        }
        found.load(Ordering::Relaxed)
    }

    /// Cancels a count that is under way.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// Counts the bytes of a folder on its own disk. Links are not followed; entries that cannot be read, or lie on another
/// disk, count nothing.
fn count(top: &Path, found: &AtomicU64, is_over: &AtomicBool) {
    let Ok(disk) = fs::symlink_metadata(top).map(|top| top.dev()) else { return };
    let mut left: Vec<PathBuf> = vec![top.to_owned()];
    while let Some(folder) = left.pop() {
        let mut open: Vec<ReadDir> = fs::read_dir(folder).into_iter().collect();
        while let Some(entries) = open.last_mut() {
            let Some(entry) = entries.next() else {
                open.pop();
                continue;
            };
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            let Ok(entry) = entry else { continue };
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.dev() != disk {
                continue;
            }
            // A file with several names takes its room once: each name counts a share.
            let names = if metadata.is_dir() { 1 } else { metadata.nlink().max(1) };
            found.fetch_add(metadata.blocks() * 512 / names, Ordering::Relaxed);
            if metadata.is_dir() {
                if open.len() < OPEN_MAX {
                    open.extend(fs::read_dir(entry.path()));
                } else {
                    left.push(entry.path());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(folder: &Path) -> u64 {
        let found = AtomicU64::default();
        count(folder, &found, &AtomicBool::default());
        found.into_inner()
    }

    #[test]
    fn every_entry_counts_however_many_and_however_deep() {
        let folder = tempfile::tempdir().unwrap();
        let mut deep = folder.path().to_owned();
        for _ in 0..3 * OPEN_MAX {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        for number in 0..200 {
            fs::write(folder.path().join(number.to_string()), "x").unwrap();
        }
        std::os::unix::fs::symlink("/", folder.path().join("root")).unwrap();
        let before = counted(folder.path());
        fs::write(deep.join("large"), vec![1; 1 << 20]).unwrap();
        fs::write(folder.path().join("another"), vec![1; 1 << 20]).unwrap();
        let grown = counted(folder.path()) - before;
        assert!(((2 << 20)..(3 << 20)).contains(&grown), "{grown}");
    }

    #[test]
    fn a_file_with_several_names_counts_once() {
        let folder = tempfile::tempdir().unwrap();
        let first = folder.path().join("first");
        fs::write(&first, vec![1; 1 << 20]).unwrap();
        let before = counted(folder.path());
        for number in 0..7 {
            fs::hard_link(&first, folder.path().join(number.to_string())).unwrap();
        }
        assert!(counted(folder.path()) < before + (1 << 19));
    }

    #[tokio::test]
    async fn a_count_that_does_not_end_is_waited_for_once_and_nobody_hangs() {
        let (folder, usage) = (tempfile::tempdir().unwrap(), Arc::new(Usage::default()));
        *usage.counting.lock().unwrap() = Some(Arc::new(AtomicU64::new(7)));
        assert_eq!(usage.measure(folder.path(), Duration::MAX).await, 7, "what an earlier count has found so far");
        *usage.counting.lock().unwrap() = None;
        fs::write(folder.path().join("f"), vec![1; 1 << 20]).unwrap();
        assert!(usage.measure(folder.path(), Duration::MAX).await >= 1 << 20);
        assert!(usage.counting.lock().unwrap().is_none());
    }
}
