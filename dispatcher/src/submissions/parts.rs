//! What the loops that take submissions and send answers share.

use std::sync::Arc;

use clients::{amqp::Link, blobs::Blobs};
use engine::Engine;
use store::read::Read;

/// The parts of the dispatcher that submissions use.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) link: Link,
    pub(crate) engine: Engine,
    pub(crate) read: Arc<dyn Read>,
    pub(crate) blobs: Blobs,
    /// Where the API is, for URLs in answers.
    pub(crate) base: String,
}
