//! The authorities that commands trust.

use std::{env, fs, path::PathBuf};

use crate::exit_codes::Failure;

/// Names a file of certificates, in PEM, that commands trust beside the system's.
pub(crate) const CA_FILE: &str = "PIECEWORK_CA_FILE";

/// The certificates that [`CA_FILE`] names.
pub(crate) fn trusted() -> anyhow::Result<Vec<reqwest::Certificate>> {
    let Some(path) = env::var_os(CA_FILE).filter(|path| !path.is_empty()).map(PathBuf::from) else { return Ok(vec![]) };
    let wrong = |error: String| Failure::usage(format!("{CA_FILE} {}: {error}", path.display()));
    let text = fs::read(&path).map_err(|error| wrong(error.to_string()))?;
    Ok(reqwest::Certificate::from_pem_bundle(&text).map_err(|error| wrong(error.to_string()))?)
}
