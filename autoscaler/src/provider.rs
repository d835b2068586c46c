//! The seam to whatever makes nodes: every provider passes `tests/conformance.rs`.

use std::sync::Arc;

use async_trait::async_trait;
use broker_config::{
    ids::{NodeId, PoolId},
    message::NodeTicket,
};

use crate::Error;

/// A node as its provider sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The pool it was made for.
    pub pool: PoolId,
    /// Its tag.
    pub node: NodeId,
    /// Whether it runs at this moment; a provider starts it again when it does not, unless it was stopped.
    pub is_running: bool,
    /// Whether it was stopped and is kept.
    pub is_stopped: bool,
}

/// Makes nodes and removes them.
#[async_trait]
pub trait NodeProvider: Send + Sync + 'static {
    /// Makes a node with this tag; harmless when it exists.
    async fn create(&self, pool: &PoolId, ticket: &NodeTicket) -> Result<(), Error>;

    /// All nodes that were made and not deleted.
    async fn list(&self) -> Result<Vec<Instance>, Error>;

    /// Stops a node and keeps what it left, also across the provider's own restart; harmless when it does not exist.
    async fn stop(&self, pool: &PoolId, node: &NodeId) -> Result<(), Error>;

    /// Starts a node that was stopped; harmless when it runs.
    async fn start(&self, pool: &PoolId, node: &NodeId) -> Result<(), Error>;

    /// Ends a node for good and removes what it left; harmless when it does not exist.
    async fn delete(&self, pool: &PoolId, node: &NodeId) -> Result<(), Error>;
}

#[async_trait]
impl<P: NodeProvider + ?Sized> NodeProvider for Arc<P> {
    async fn create(&self, pool: &PoolId, ticket: &NodeTicket) -> Result<(), Error> {
        (**self).create(pool, ticket).await
    }

    async fn list(&self) -> Result<Vec<Instance>, Error> {
        (**self).list().await
    }

    async fn stop(&self, pool: &PoolId, node: &NodeId) -> Result<(), Error> {
        (**self).stop(pool, node).await
    }

    async fn start(&self, pool: &PoolId, node: &NodeId) -> Result<(), Error> {
        (**self).start(pool, node).await
    }

    async fn delete(&self, pool: &PoolId, node: &NodeId) -> Result<(), Error> {
        (**self).delete(pool, node).await
    }
}
