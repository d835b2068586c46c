//! Runs file access on threads of its own: the agent's loop and what shares its thread never wait for a disk.
//!
//! A file system that hangs (a dead mount, a stopped FUSE server) then blocks only the run that touches it.

use std::io;

/// Does blocking work on another thread.
pub async fn off_loop<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

/// Like [`off_loop`], for work that returns an I/O error itself.
pub async fn try_off_loop<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    off_loop(work).await?
}
