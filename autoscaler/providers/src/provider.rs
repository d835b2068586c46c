//! The interface of every provider; `tests/conformance.rs` holds its promises.

use std::sync::Arc;

use crate::error::ProviderError;
use async_trait::async_trait;
use contract::{
    ids::{NodeId, PoolId},
    message::NodeTicket,
};

/// A node as its provider lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The pool that the node was made for.
    pub pool: PoolId,
    /// The provider's tag of the machine.
    pub node: NodeId,
    /// Whether the node runs at this moment. Unless it was stopped, a provider starts it again when it does not.
    pub is_running: bool,
    /// Whether the node was stopped and is kept.
    pub is_stopped: bool,
}

/// Makes nodes and removes them.
#[async_trait]
pub trait NodeProvider: Send + Sync + 'static {
    /// Makes a node with this tag; does nothing when it exists.
    async fn create(&self, pool: &PoolId, ticket: &NodeTicket) -> Result<(), ProviderError>;

    /// All nodes that were made and not deleted.
    async fn list(&self) -> Result<Vec<Instance>, ProviderError>;

    /// Stops a node and keeps its files, also across the provider's own restart; does nothing when the node does not
    /// exist.
    async fn stop(&self, pool: &PoolId, node: &NodeId) -> Result<(), ProviderError>;

    /// Starts a node that was stopped; does nothing when it runs.
    async fn start(&self, pool: &PoolId, node: &NodeId) -> Result<(), ProviderError>;

    /// Ends a node for good and removes its files; does nothing when it does not exist.
    async fn delete(&self, pool: &PoolId, node: &NodeId) -> Result<(), ProviderError>;
}

#[async_trait]
impl<P: NodeProvider + ?Sized> NodeProvider for Arc<P> {
    async fn create(&self, pool: &PoolId, ticket: &NodeTicket) -> Result<(), ProviderError> {
        (**self).create(pool, ticket).await
    }

    async fn list(&self) -> Result<Vec<Instance>, ProviderError> {
        (**self).list().await
    }

    async fn stop(&self, pool: &PoolId, node: &NodeId) -> Result<(), ProviderError> {
        (**self).stop(pool, node).await
    }

    async fn start(&self, pool: &PoolId, node: &NodeId) -> Result<(), ProviderError> {
        (**self).start(pool, node).await
    }

    async fn delete(&self, pool: &PoolId, node: &NodeId) -> Result<(), ProviderError> {
        (**self).delete(pool, node).await
    }
}
