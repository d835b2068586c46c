//! Measures the free space of the node's disk periodically, on a task that nothing waits for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::sleep;

use crate::{off_loop::try_off_loop, root::Root};

/// Period of the measurements.
const PERIOD: Duration = Duration::from_millis(250);
/// Pause after a failed measurement.
const PAUSE: Duration = Duration::from_secs(10);

/// Keeps the number of free bytes current until it is dropped; a disk that hangs leaves it unchanged.
pub async fn measure(root: Root, free_bytes: Arc<AtomicU64>) {
    loop {
        let path = root.path().clone();
        match try_off_loop(move || Ok(rustix::fs::statvfs(&*path)?)).await {
            Ok(stat) => {
                free_bytes.store(stat.f_bavail.saturating_mul(stat.f_frsize), Ordering::Relaxed);
                sleep(PERIOD).await;
            }
            Err(error) => {
                tracing::warn!(%error, path = %root.path().display(), "cannot measure the free space of the node's disk; trying again");
                sleep(PAUSE).await;
            }
        }
    }
}
