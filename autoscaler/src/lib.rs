//! Decides how many nodes a pool has, and makes and removes them.
//!
//! ```text
//! dispatcher ── Snapshot ──► decide (pure) ──► act ── CreateNodes, DrainNode, NodeGone ──► dispatcher
//!                                               └──── create, list, delete ──► NodeProvider
//! ```
//! The autoscaler keeps no state: nodes are rows of the dispatcher, and their ids are the provider's tags.

mod act;
mod decide;
mod error;
mod executor;
mod repeats;
mod settings;
mod sweep;

use std::future::Future;

use providers::NodeProvider;

pub use crate::{
    decide::{Decision, Instances, decide},
    error::Error,
    settings::{Settings, TICK},
};

/// Watches the pools and creates and removes nodes until `shutdown` completes; it leaves the nodes as they are then.
pub async fn run(settings: Settings, provider: impl NodeProvider, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    act::run(settings, provider, shutdown).await
}
