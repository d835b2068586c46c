//! Decides how many nodes a pool has, and makes and removes them.
//!
//! ```text
//! dispatcher ── Snapshot ──► decide (pure) ──► act ── CreateNodes, DrainNode, NodeGone ──► dispatcher
//!                                               └──── create, list, delete ──► NodeProvider
//! ```
//! The autoscaler keeps no state: nodes are rows of the dispatcher, and their ids are the provider's tags.

mod act;
mod command;
mod decide;
mod error;
mod process;
mod provider;
mod record;
mod sweep;

use std::{future::Future, time::Duration};

use broker_config::settings::BrokerSettings;

pub use crate::{
    command::{Command, CommandSettings},
    decide::{Decision, Instances, decide},
    error::Error,
    process::{Process, ProcessSettings},
    provider::{Instance, NodeProvider},
};

/// Time between two looks at the pools, unless told otherwise.
pub const TICK: Duration = Duration::from_millis(500);

/// What the autoscaler needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Time between two looks at the pools.
    pub tick: Duration,
    /// Where the broker is.
    pub broker: BrokerSettings,
}

impl Settings {
    /// The usual settings for a broker.
    pub fn new(broker: BrokerSettings) -> Settings {
        Settings { tick: TICK, broker }
    }
}

/// Watches the pools and keeps their nodes as wanted until `shutdown` resolves; nodes stay as they are then.
pub async fn run(settings: Settings, provider: impl NodeProvider, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    act::run(settings, provider, shutdown).await
}
