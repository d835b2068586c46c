//! Why nothing may be added at present: told by whoever watches the disk, asked by API handlers and by the engine's thread.

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

/// A reason against more rows, if there is one; nothing is short until somebody watches. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Shortage(Arc<OnceLock<watch::Receiver<Option<String>>>>);

impl Shortage {
    /// Follows a watch from now on; the first one counts.
    pub(super) fn follow(&self, shortage: watch::Receiver<Option<String>>) {
        if self.0.set(shortage).is_err() {
            tracing::warn!("the disk is watched already; another watch changes nothing");
        }
    }

    /// The reason, while there is one.
    pub(super) fn reason(&self) -> Option<String> {
        self.0.get().and_then(|shortage| shortage.borrow().clone())
    }
}
