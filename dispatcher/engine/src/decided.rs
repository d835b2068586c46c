//! The last decision on a pool's size.

use contract::outcome::Fault;

/// The last answer to how large a pool should be, and what the autoscaler met when it followed that.
#[derive(Debug, Default)]
pub struct Decided {
    /// In words; empty after a start until the question is asked again.
    pub reason: String,
    /// Why nodes could not be made or removed.
    pub fault: Option<Fault>,
}
