//! What can keep the server from starting. Faults of clients are answered on the wire instead (see `refusal`).

use std::{io, net::SocketAddr, path::PathBuf};

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The listening socket could not be bound.
    #[error("could not listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The data folder or a file in it could not be used.
    #[error("could not use {}", path.display())]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another server holds the data folder.
    #[error("the data folder {} is in use by another server", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The journal is damaged before its end, so that confirmed messages would be lost by going on.
    #[error("the journal {} is damaged at byte {offset}", path.display())]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where reading stopped.
        offset: u64,
    },
    /// The journal was written by a newer version.
    #[error("the journal {} has format {found}, this version reads {known}", path.display())]
    Format {
        /// The segment.
        path: PathBuf,
        /// Format found.
        found: u32,
        /// Newest format known here.
        known: u32,
    },
    /// The certificate or the key is not PEM.
    #[error("certificate or key is no usable PEM")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// Certificate and key cannot be used together.
    #[error("certificate and key cannot be used")]
    Certificate(#[source] rustls::Error),
    /// The server's own thread ended before it was ready.
    #[error("the broker thread ended before it was ready")]
    ThreadEnded,
}

impl Error {
    /// Names the file in an I/O failure.
    pub(crate) fn data(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Data { path, source }
    }
}
