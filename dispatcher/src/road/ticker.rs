//! The clock of the engine: ticks, with what the broker says of the queues now and then.

use std::{collections::HashMap, time::Duration};

use broker_config::{amqp::Link, ids::PoolId, topology};
use tokio::{sync::watch, time::MissedTickBehavior};

use crate::engine::{Engine, Input};

/// Between ticks.
const TICK: Duration = Duration::from_millis(250);
/// Ticks between two looks at the queues.
const TICKS_PER_DEPTH: u32 = 20;
/// How long a look may take.
const DEPTH_TIMEOUT: Duration = Duration::from_secs(3);
/// More events than this waiting in the queue mean that nobody is reaped.
const EVENTS_BEHIND: u32 = 1;
/// Inputs fuller than this mean the same.
const INPUTS_BEHIND: f64 = 0.5;

pub(super) async fn run(link: Link, engine: Engine, mut stop: watch::Receiver<bool>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count: u32 = 0;
    let mut events_behind = true;
    let mut pools: Vec<PoolId> = Vec::new();
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let mut depths = HashMap::new();
        if count.is_multiple_of(TICKS_PER_DEPTH) {
            events_behind = depth(&link, topology::EVENT_QUEUE).await.is_none_or(|ready| ready > EVENTS_BEHIND);
            pools = engine.pools();
            for pool in &pools {
                if let Some(ready) = depth(&link, &topology::pool_queue(pool)).await {
                    let wide = depth(&link, &topology::wide_queue(pool)).await.unwrap_or(0);
                    depths.insert(pool.clone(), ready + wide);
                }
            }
        }
        count = count.wrapping_add(1);
        metrics::gauge!("piecework_pools").set(pools.len() as f64);
        let behind = events_behind || engine.load() > INPUTS_BEHIND;
        if engine.put(Input::Tick { events_behind: behind, depths }).await.is_err() {
            return;
        }
    }
}

async fn depth(link: &Link, queue: &str) -> Option<u32> {
    match tokio::time::timeout(DEPTH_TIMEOUT, link.depth(queue)).await {
        Ok(Ok(Some(depth))) => Some(depth.ready),
        Ok(Ok(None)) => Some(0),
        Ok(Err(_)) | Err(_) => None,
    }
}
