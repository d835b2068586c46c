//! The API's certificate: read from two PEM files, and again when they change, without closing connections.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use thiserror::Error;
use tokio::sync::watch;

/// Time between two checks of the files.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Size limit of each file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Paths of certificate and private key.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate and its chain, in PEM.
    pub cert: PathBuf,
    /// Private key of the certificate, in PEM.
    pub key: PathBuf,
}

/// Why certificate and key cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path} cannot be read")]
    Read { path: PathBuf, source: std::io::Error },
    /// A file is too large.
    #[error("{path} is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge { path: PathBuf },
    /// A file is not PEM.
    #[error("{path} holds no usable PEM")]
    Pem { path: PathBuf, source: rustls::pki_types::pem::Error },
    /// Certificate and key do not belong together.
    #[error("certificate and key cannot be used")]
    Pair(#[from] rustls::Error),
}

/// The texts of both files, to notice changes.
#[derive(PartialEq, Eq)]
struct Texts {
    cert: Vec<u8>,
    key: Vec<u8>,
}

/// The configuration that new connections use.
pub type Current = watch::Receiver<Arc<ServerConfig>>;

fn read(path: &PathBuf) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { path: path.clone(), source };
    if fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(TlsError::TooLarge { path: path.clone() });
    }
    fs::read(path).map_err(failed)
}

impl TlsFiles {
    fn texts(&self) -> Result<Texts, TlsError> {
        Ok(Texts { cert: read(&self.cert)?, key: read(&self.key)? })
    }

    fn configure(&self, texts: &Texts) -> Result<Arc<ServerConfig>, TlsError> {
        let pem = |path: &PathBuf| {
            let path = path.clone();
            move |source| TlsError::Pem { path, source }
        };
        let chain = CertificateDer::pem_slice_iter(&texts.cert).collect::<Result<Vec<_>, _>>().map_err(pem(&self.cert))?;
        let key = PrivateKeyDer::from_pem_slice(&texts.key).map_err(pem(&self.key))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Reads both files now, and watches them until the receivers are gone.
    pub fn open(self) -> Result<(Current, impl Future<Output = ()> + Send), TlsError> {
        let mut known = self.texts()?;
        let (tell, told) = watch::channel(self.configure(&known)?);
        let watching = async move {
            while !tell.is_closed() {
                tokio::time::sleep(LOOK_INTERVAL).await;
                let Ok(now) = self.texts().inspect_err(|error| tracing::debug!(%error, "cannot look at the certificate")) else { continue };
                if now == known {
                    continue;
                }
                match self.configure(&now) {
                    Ok(config) => {
                        tell.send_replace(config);
                        tracing::info!(cert = %self.cert.display(), "certificate reloaded");
                    }
                    // Often only one of the files has been written yet; the next check tries again.
                    Err(error) => {
                        tracing::warn!(%error, cert = %self.cert.display(), "the new certificate cannot be used; the old one stays")
                    }
                }
                known = now;
            }
        };
        Ok((told, watching))
    }
}
