//! Waits of workers: for a time, and for the dispatcher's stop.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

/// Waits until then; for ever for nothing.
pub(super) async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Waits for the dispatcher's stop.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The sender lives longer than workers.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Waits, unless the dispatcher stops meanwhile; whether it goes on.
pub(super) async fn pause(time: Duration, stop: &mut watch::Receiver<bool>) -> bool {
    tokio::select! {
        () = sleep(time) => true,
        () = stopped(stop) => false,
    }
}
