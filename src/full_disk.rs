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
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Period of the checks of the disk.
const POLL_PERIOD: Duration = Duration::from_millis(500);
/// Period of the log lines while waiting.
const LOG_PERIOD: Duration = Duration::from_secs(30);
/// Time that a client has for its request and our answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of a request that are read before it is answered.
const REQUEST_BYTES_MAX: usize = 8 * 1024;

/// Whether so little space is left that nothing is added and the embedded broker takes no messages.
pub(crate) fn is_full(folder: &Path) -> bool {
    dispatcher::is_short(folder).unwrap_or_else(|error| {
        tracing::warn!(folder = %folder.display(), %error, "cannot measure the free space of a disk");
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
    let mut said: Option<Instant> = None;
    while !look()? {
        if said.is_none_or(|said| said.elapsed() > LOG_PERIOD) {
            tracing::error!(reason, "cannot start yet; the start continues by itself when the disk has free space");
            said = Some(Instant::now());
        }
        tokio::select! {
            () = tokio::time::sleep(POLL_PERIOD) => {}
            Some(stream) = accept(&listener) => {
                if tokio::time::timeout(ANSWER_TIMEOUT, refuse(stream, &reason)).await.is_err() {
                    tracing::debug!("a client was too slow to get the 503 answer");
                }
            }
        }
    }
    tracing::info!("the disk has free space again; starting");
    Ok(())
}

async fn accept(listener: &Option<TcpListener>) -> Option<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.ok().map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

/// Answers any request with 503, in the form of a running server's health.
async fn refuse(mut stream: TcpStream, reason: &str) {
    let talk = async {
        let mut request = Vec::new();
        while request.len() < REQUEST_BYTES_MAX && !request.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut request).await? == 0 {
                break;
            }
        }
        let body = json!({ "status": "unavailable", "problems": [{ "part": "disk", "reason": reason }] }).to_string();
        let head = format!(
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {}\r\nRetry-After: 5\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        stream.shutdown().await
    };
    if let Err(error) = talk.await {
        tracing::debug!(%error, "a client closed its connection before the 503 answer");
    }
}
