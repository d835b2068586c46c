//! The reason why additions are refused at present: set by the watcher of the disk, read by API handlers and by the
//! engine's thread.

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

/// The reason, if there is one. Empty until a watcher is connected. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Shortage(Arc<OnceLock<watch::Receiver<Option<String>>>>);

impl Shortage {
    /// Connects a watcher; only the first call has an effect.
    pub(super) fn follow(&self, shortage: watch::Receiver<Option<String>>) {
        if self.0.set(shortage).is_err() {
            tracing::warn!("the disk is watched already; another watch changes nothing");
        }
    }

    /// The present reason.
    pub(super) fn reason(&self) -> Option<String> {
        self.0.get().and_then(|shortage| shortage.borrow().clone())
    }
}
