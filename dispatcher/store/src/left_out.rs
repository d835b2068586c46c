//! Tells whoever asked for a list which rows it lacks because they cannot be read.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::health::Unreadable;

/// Rows that [`LeftOut`] names; of the others it only counts how many there are.
const LEFT_OUT_MAX: usize = 100;

/// Rows that reads have left out because they cannot be read. Clones share one list.
#[derive(Debug, Clone, Default)]
pub struct LeftOut(Arc<Mutex<(Vec<Unreadable>, usize)>>);

impl LeftOut {
    fn lock(&self) -> MutexGuard<'_, (Vec<Unreadable>, usize)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds rows.
    pub fn note(&self, rows: Vec<Unreadable>) {
        if rows.is_empty() {
            return;
        }
        let (named, count) = &mut *self.lock();
        *count += rows.len();
        named.extend(rows.into_iter().take(LEFT_OUT_MAX.saturating_sub(named.len())));
    }

    /// The first hundred rows, and how many there are.
    pub fn rows(&self) -> (Vec<Unreadable>, usize) {
        self.lock().clone()
    }
}
