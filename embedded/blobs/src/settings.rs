//! Settings of a server, and its limits with their defaults.
//! Filled in by whoever starts the server; read by every other module.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::events::OnEvent;

/// Returns the current time; tests replace it.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Settings of one server.
#[derive(Clone)]
pub struct Settings {
    /// Address to bind; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Folder that holds everything the server keeps.
    pub data: PathBuf,
    /// The only access key.
    pub access_key: String,
    pub secret_key: String,
    /// The region in answers.
    pub region: String,
    pub limits: Limits,
    /// Called after objects were written or deleted, as buckets are configured.
    pub on_event: Option<OnEvent>,
    /// Lifecycle rules expire objects by this clock.
    pub clock: Clock,
}

impl Settings {
    /// Settings with default limits, region `us-east-1` and no callback.
    pub fn new(listen: SocketAddr, data: impl Into<PathBuf>, access_key: impl Into<String>, secret_key: impl Into<String>) -> Self {
        Self {
            listen,
            data: data.into(),
            access_key: access_key.into(),
            secret_key: secret_key.into(),
            region: "us-east-1".to_owned(),
            limits: Limits::default(),
            on_event: None,
            clock: Arc::new(SystemTime::now),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("listen", &self.listen)
            .field("data", &self.data)
            .field("access_key", &self.access_key)
            .field("region", &self.region)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Bounds on clients' requests.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections. A further one takes the place of the one that has been idle for longest, and waits
    /// while all of them are busy.
    pub connections_max: usize,
    /// Longest wait for the head of a request, including idle time between requests.
    pub head_timeout: Duration,
    /// Longest wait for the next bytes of a body, in either direction.
    pub body_timeout: Duration,
    /// A client that was waited for as long as `body_timeout` must have sent this many bytes, or it is too slow.
    pub body_bytes_min: u64,
    /// Largest object of one PUT, and largest part.
    pub put_bytes_max: u64,
    /// Smallest part other than the last.
    pub part_bytes_min: u64,
    /// Largest completed object.
    pub object_bytes_max: u64,
    /// Older unfinished multipart uploads are removed at start.
    pub upload_age_max: Duration,
    /// Interval between checks of the lifecycle rules.
    pub lifecycle_period: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            head_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
            body_bytes_min: 64 * 1024,
            put_bytes_max: 5 << 30,
            part_bytes_min: 5 << 20,
            object_bytes_max: 5 << 40,
            upload_age_max: Duration::from_secs(7 * 24 * 3600),
            lifecycle_period: Duration::from_secs(3600),
        }
    }
}
