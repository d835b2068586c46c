//! Errors at the start of the server. Errors of clients are answered on the wire instead (see `refusal`).

use std::{io, net::SocketAddr, path::PathBuf};

/// The reason why the server could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The listening socket could not be bound.
    #[error("could not listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    /// The data folder or a file in it could not be used.
    #[error("could not use {}", path.display())]
    Data {
        /// The file or folder.
        path: PathBuf,
        source: io::Error,
    },
    /// Another server uses the data folder.
    #[error("the data folder {} is in use by another server", path.display())]
    Locked {
        /// The data folder.
        path: PathBuf,
    },
    /// The journal is damaged before its end, so continuing would lose confirmed messages.
    #[error("the journal {} is damaged at byte {offset}", path.display())]
    Damaged {
        /// The damaged segment.
        path: PathBuf,
        /// The first byte that could not be read.
        offset: u64,
    },
    /// The journal was written by a newer version.
    #[error("the journal {} has format {found}, this version reads {known}", path.display())]
    Format {
        /// The segment with the newer format.
        path: PathBuf,
        found: u32,
        /// Newest format that this version can read.
        known: u32,
    },
    /// The file of users is damaged or of another version; without it, who may log in is not known.
    #[error("the users in {} cannot be read: {reason}", path.display())]
    Users {
        /// The file.
        path: PathBuf,
        reason: String,
    },
    /// The certificate or the key is not PEM.
    #[error("certificate or key is not valid PEM")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// Certificate and key cannot be used together.
    #[error("certificate and key do not fit together or cannot be used")]
    Certificate(#[source] rustls::Error),
    /// The server's own thread ended before it was ready.
    #[error("the broker thread ended before it was ready")]
    ThreadEnded,
}

impl Error {
    /// Adds the path to an I/O error.
    pub(crate) fn data(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Data { path, source }
    }
}
