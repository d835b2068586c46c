//! Access to the API: flags that `up` and `dispatcher` share.

use std::{fs, path::PathBuf};

use api::{OidcSettings, Role, TlsFiles};
use clap::Args;
use dispatcher::Access;

use crate::exit_codes::Failure;

/// TLS, keys and tokens
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct AccessArgs {
    /// The certificate, with those up to its authority, in PEM; read again when it changes
    #[arg(long, value_name = "FILE", env = "PIECEWORK_TLS_CERT", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key, in PEM
    #[arg(long, value_name = "FILE", env = "PIECEWORK_TLS_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Lets plain HTTP leave this machine, where something in front of it does TLS
    #[arg(long, env = "PIECEWORK_ALLOW_HTTP")]
    allow_http: bool,
    /// The account's keys, one a line, instead of --key; read again when it changes
    #[arg(long, value_name = "FILE", env = "PIECEWORK_KEYS_FILE")]
    keys_file: Option<PathBuf>,
    /// Accepts bearer tokens of this OpenID Connect issuer
    #[arg(long, value_name = "URL", env = "PIECEWORK_OIDC_ISSUER", requires = "oidc_audience")]
    oidc_issuer: Option<String>,
    /// The audience that bearer tokens must name
    #[arg(long, value_name = "NAME", env = "PIECEWORK_OIDC_AUDIENCE", requires = "oidc_issuer")]
    oidc_audience: Option<String>,
    /// What bearers of tokens without roles may do: reader, submitter or contributor; nothing without it
    #[arg(long, value_name = "ROLE", env = "PIECEWORK_OIDC_DEFAULT_ROLE", requires = "oidc_issuer")]
    oidc_default_role: Option<Role>,
}

impl AccessArgs {
    /// The first key of the keys file, for our own commands.
    pub(crate) fn first_key(&self) -> anyhow::Result<Option<String>> {
        let Some(path) = &self.keys_file else { return Ok(None) };
        let text = fs::read_to_string(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
        let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
        let first = first.ok_or_else(|| Failure::usage(format!("{} holds no key", path.display())))?;
        Ok(Some(first.to_owned()))
    }

    /// Converts the flags to the dispatcher's settings.
    pub(crate) fn access(self) -> Access {
        let default_role = self.oidc_default_role;
        let oidc = self.oidc_issuer.zip(self.oidc_audience);
        Access {
            keys_file: self.keys_file,
            oidc: oidc.map(|(issuer, audience)| OidcSettings { issuer, audience, default_role }),
            tls: self.tls_cert.zip(self.tls_key).map(|(cert, key)| TlsFiles { cert, key }),
            allows_http: self.allow_http,
        }
    }
}

/// The scheme of the API's URL.
pub(crate) fn scheme(access: &Access) -> &'static str {
    if access.tls.is_some() { "https" } else { "http" }
}
