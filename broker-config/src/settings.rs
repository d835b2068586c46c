//! Addresses and credentials that every part needs, as plain data.
//!
//! The command line reads them from flags, `PIECEWORK_…` variables and a file, and passes them on.

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

    /// The value; called only where it is sent.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// The secrets of an agent. The process that starts the agent writes them as one line of JSON to its stdin, because other
/// processes of the same user can read its command line and its environment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AgentSecrets {
    /// The join token.
    pub token: Secret,
    /// The broker's URL.
    pub broker: Secret,
    /// The blob store's URL; absent without a store.
    pub s3: Option<Secret>,
}

/// Variables that hold secrets. They are read once and then leave the environment, so that no child inherits them.
pub const SECRET_VARIABLES: [&str; 7] = [
    "PIECEWORK_KEY",
    "PIECEWORK_BROKER",
    "PIECEWORK_BROKER_ADMIN",
    "PIECEWORK_S3",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
];

/// The address of the broker; the URL contains the credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerSettings {
    /// `amqp://user:password@host:port/vhost`, or `amqps://…`.
    pub url: Secret,
    /// The connection's name, as shown in the broker's management page.
    pub name: String,
}

/// The address of the blob store, with credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobSettings {
    /// `http(s)://host:port`.
    pub endpoint: String,
    /// The region used in signatures.
    pub region: String,
    /// The id of the access key.
    pub access_key: String,
    pub secret_key: Secret,
    /// The default bucket for users' files; `autoStorageContainerName` names a container beside it.
    pub bucket: String,
    /// Piecework's own bucket, for long streams and requested files.
    pub own_bucket: String,
}
