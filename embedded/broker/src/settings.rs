//! The settings of a server: address, folder, login, and every limit with its default.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::tls::Tls;

/// Settings of one server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address to listen on; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Folder for the journal; created when missing.
    pub data: PathBuf,
    /// The user who may do everything and cannot be removed; further ones are added by `Broker::users`.
    pub user: String,
    /// The user's password.
    pub password: String,
    /// When set, the server accepts AMQPS only, with this certificate.
    pub tls: Option<Tls>,
    /// Connections at once. A further one takes the place of the oldest one that has not logged in, and is closed
    /// immediately when all have.
    pub connections_max: usize,
    /// Highest channel number offered.
    pub channel_max: u16,
    /// Largest frame offered, in bytes.
    pub frame_max_bytes: u32,
    /// Largest message body, in bytes.
    pub message_max_bytes: u64,
    /// Heartbeat interval offered, in seconds.
    pub heartbeat_seconds: u16,
    /// Time a client has to log in and open the vhost.
    pub handshake_timeout: Duration,
    /// Message bytes in memory above which publishers are blocked.
    pub memory_max_bytes: u64,
    /// Message bytes in memory above which the content of further ready messages is on disk only.
    pub resident_max_bytes: u64,
    /// Free bytes on the data disk below which publishers are blocked.
    pub disk_free_min_bytes: u64,
    /// Size at which a journal segment is closed, in bytes.
    pub segment_max_bytes: u64,
}

impl Settings {
    /// Settings with default limits.
    pub fn new(listen: SocketAddr, data: impl Into<PathBuf>, user: impl Into<String>, password: impl Into<String>) -> Settings {
        Settings {
            listen,
            data: data.into(),
            user: user.into(),
            password: password.into(),
            tls: None,
            connections_max: 4_096,
            channel_max: 2_047,
            frame_max_bytes: 131_072,
            message_max_bytes: 128 << 20,
            heartbeat_seconds: 60,
            handshake_timeout: Duration::from_secs(10),
            memory_max_bytes: 2 << 30,
            resident_max_bytes: 64 << 20,
            disk_free_min_bytes: 50 << 20,
            segment_max_bytes: 32 << 20,
        }
    }
}
