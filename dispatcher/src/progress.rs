//! How far a dispatcher's start has come, for those who wait for it.

use std::net::SocketAddr;

use tokio::sync::watch;

/// How far the start has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Progress {
    /// The store is being opened. This takes minutes while another process has locked it, and is bounded.
    #[default]
    OpensStore,
    /// The store is open; the parts are connected and checked.
    Connects,
    /// A task could run. The API has this address.
    Ready(SocketAddr),
}

impl Progress {
    /// Waits for the API's address; returns nothing when the dispatcher ended before it was ready.
    pub async fn ready(mut seen: watch::Receiver<Progress>) -> Option<SocketAddr> {
        let progress = *seen.wait_for(|progress| matches!(progress, Progress::Ready(_))).await.ok()?;
        match progress {
            Progress::Ready(address) => Some(address),
            Progress::OpensStore | Progress::Connects => None,
        }
    }
}
