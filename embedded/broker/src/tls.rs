//! The server's certificate and key.

use std::{fmt, sync::Arc};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::error::Error;

/// A certificate chain with its private key, ready to serve AMQPS.
#[derive(Clone)]
pub struct Tls(Arc<ServerConfig>);

impl Tls {
    /// Parses both from PEM: the certificate with its intermediate certificates, and its key.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Tls, Error> {
        let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>().map_err(Error::Pem)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(Error::Pem)?;
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(Error::Certificate)?;
        Ok(Tls(Arc::new(config)))
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.0.clone()
    }
}

/// Hides the key.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(..)")
    }
}
