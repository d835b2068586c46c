//! Settings of the autoscaler.

use std::time::Duration;

use broker_config::settings::BrokerSettings;

/// Default time between two polls of the pools.
pub const TICK: Duration = Duration::from_millis(500);

/// Settings of the autoscaler.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Time between two polls of the pools.
    pub tick: Duration,
    pub broker: BrokerSettings,
}

impl Settings {
    /// Settings with the default tick.
    pub fn new(broker: BrokerSettings) -> Settings {
        Settings { tick: TICK, broker }
    }
}
