//! Addresses and credentials that every part needs, as plain data.
//!
//! The roof reads them from flags, `PIECEWORK_…` variables and a file, and hands them down.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A value that must not reach a log.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Secret {
        Secret(value.into())
    }

    /// The value, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Where the broker is; the URL holds the credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerSettings {
    /// `amqp://user:password@host:port/vhost`, or `amqps://…`.
    pub url: Secret,
    /// What the broker's operators see as the connection's name.
    pub name: String,
}

/// Where the blobs are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobSettings {
    /// `http(s)://host:port`.
    pub endpoint: String,
    /// The signing region.
    pub region: String,
    /// The key's id.
    pub access_key: String,
    /// The key.
    pub secret_key: Secret,
    /// The default bucket of users' files; `autoStorageContainerName` names a prefix-free sibling.
    pub bucket: String,
    /// Piecework's own bucket: long streams, files on request.
    pub own_bucket: String,
}
