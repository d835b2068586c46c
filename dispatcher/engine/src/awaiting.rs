//! What memory holds of those who wait for ends of tasks; the answers themselves are rows.

use std::collections::VecDeque;

use contract::ids::JobUid;

/// Answers that wait, as far as memory must know.
#[derive(Default)]
pub(super) struct Awaiting {
    /// Whether the store may hold answers that wait; while it holds none, ends of tasks ask it nothing.
    pub(super) may_be: bool,
    /// Jobs that ended before tasks of theirs did.
    pub(super) over: VecDeque<JobUid>,
}

impl Awaiting {
    /// Whether answers are left that nothing else will send.
    pub(super) fn has_slices_left(&self) -> bool {
        !self.over.is_empty()
    }
}
