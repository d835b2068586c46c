//! Bytes that a folder takes of its disk, counted on a thread of its own. Callers wait for a bounded time and take what
//! was counted by then, so that neither millions of files nor a disk that hangs hold up the watch.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    disk_blame::{Growth, Size},
    folder_bytes,
    off_loop::off_loop,
};

/// The usage of one folder, and the count that may be under way.
#[derive(Debug, Default)]
pub struct Usage {
    /// Bytes that the running count has found so far.
    counting: Mutex<Option<Arc<AtomicU64>>>,
    /// Earlier counts.
    growth: Mutex<Growth>,
    /// Set when the result is not wanted any more.
    is_over: AtomicBool,
}

impl Usage {
    /// The usage of a folder that is empty now.
    pub fn of_empty() -> Usage {
        Usage { growth: Mutex::new(Growth::of_empty(Instant::now())), ..Usage::default() }
    }

    /// Whether the folder must be counted to keep its growth known.
    pub fn is_due(&self) -> bool {
        self.growth().is_due(Instant::now())
    }

    /// Space that the folder takes, together with `held` bytes of deleted files; when the count does not end within
    /// `patience`, what it found so far.
    pub async fn measure(self: &Arc<Usage>, folder: &Path, held: u64, patience: Duration) -> Size {
        let (found, is_new) = {
            let mut counting = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
            match &*counting {
                // An earlier count has not ended; its partial result is used without waiting again.
                Some(found) => (found.clone(), false),
                None => (counting.insert(Arc::new(AtomicU64::new(held))).clone(), true),
            }
        };
        if is_new {
            let (usage, counted, folder) = (self.clone(), found.clone(), folder.to_owned());
            let count = off_loop(move || {
                let began = Instant::now();
                folder_bytes::count(&folder, &counted, &usage.is_over);
                usage.growth().note(counted.load(Ordering::Relaxed), began, began.elapsed());
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
        let bytes = found.load(Ordering::Relaxed);
        Size { bytes, grown: self.growth().lately(bytes) }
    }

    fn growth(&self) -> MutexGuard<'_, Growth> {
        self.growth.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cancels a count that is under way.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_count_that_does_not_end_is_waited_for_once_and_nobody_hangs() {
        let (folder, usage) = (tempfile::tempdir().unwrap(), Arc::new(Usage::default()));
        *usage.counting.lock().unwrap() = Some(Arc::new(AtomicU64::new(7)));
        assert_eq!(usage.measure(folder.path(), 0, Duration::MAX).await.bytes, 7, "what an earlier count has found so far");
        *usage.counting.lock().unwrap() = None;
        fs::write(folder.path().join("f"), vec![1; 1 << 20]).unwrap();
        assert!(usage.measure(folder.path(), 0, Duration::MAX).await.bytes >= 1 << 20);
        assert!(usage.counting.lock().unwrap().is_none());
    }
}
