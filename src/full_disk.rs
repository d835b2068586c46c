//! Starts `up` on a full disk: frees the reserve file, and when even that is not enough, waits for free space, logs the
//! reason, and answers 503 with it at the API's address.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;
use broker_config::disk;
use tokio::net::TcpListener;

/// Period of the checks of the disk.
const POLL_PERIOD: Duration = Duration::from_millis(500);
/// Period of the log lines while waiting.
const LOG_PERIOD: Duration = Duration::from_secs(30);

/// Whether so little space is left that nothing is added and the embedded broker takes no messages.
pub(crate) fn is_full(folder: &Path) -> bool {
    dispatcher::is_short(folder).unwrap_or_else(|error| {
        tracing::warn!(folder = %folder.display(), %error, "cannot measure the free space of the disk; going on as if it had room");
        false
    })
}

/// Whether an operation failed because its disk is full.
pub(crate) fn is_cause(error: &anyhow::Error) -> bool {
    let mut kinds = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    kinds.any(|kind| matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

/// Returns once the folder's disk has enough free space for a start.
pub(crate) async fn wait_for_room(store: &Path, listen: Option<SocketAddr>) -> anyhow::Result<()> {
    let look = || dispatcher::make_room(store).with_context(|| format!("the disk of {} cannot be looked at", store.display()));
    if look()? {
        return Ok(());
    }
    let free = disk::free(store).unwrap_or(0) >> 10;
    let reason = format!("the disk of {} is full ({free} KiB left); make room there", store.display());
    let listener = match listen {
        Some(address) => {
            TcpListener::bind(address).await.inspect_err(|error| tracing::warn!(%address, %error, "cannot listen at the API's address while waiting for disk space; clients get no answer")).ok()
        }
        None => None,
    };
    let room = async {
        let mut said: Option<Instant> = None;
        while !look()? {
            if said.is_none_or(|said| said.elapsed() > LOG_PERIOD) {
                tracing::error!(reason, "cannot start yet; the start continues by itself when the disk has free space");
                said = Some(Instant::now());
            }
            tokio::time::sleep(POLL_PERIOD).await;
        }
        tracing::info!("the disk has free space again; starting");
        Ok(())
    };
    tokio::select! {
        result = room => result,
        never = dispatcher::answer_unavailable(listener.as_ref(), "disk", &reason) => match never {},
    }
}
