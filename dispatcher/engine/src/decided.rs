//! The last decision about a pool's size.

use contract::outcome::Fault;

/// The last decision about a pool's size, and the autoscaler's problem with carrying it out.
#[derive(Debug, Default)]
pub struct Decided {
    /// A sentence for people; empty after a start until the first decision.
    pub reason: String,
    /// Why nodes could not be created or removed.
    pub fault: Option<Fault>,
}
