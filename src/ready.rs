//! The ready file: everything a script or another command needs to use a running stack.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use broker_config::settings::{BlobSettings, Secret};
use serde::{Deserialize, Serialize};

use crate::exit_codes::{Failure, UNREACHABLE};

/// What the file holds; other readers may ignore fields that come later.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// The server.
    pub(crate) url: String,
    /// The account.
    pub(crate) account: String,
    /// Its key.
    pub(crate) key: String,
    /// The broker's URL.
    pub(crate) broker: String,
    /// The blob store.
    pub(crate) s3: ReadyS3,
}

/// The blob store in a ready file.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct ReadyS3 {
    endpoint: String,
    bucket: String,
    own_bucket: String,
    region: String,
    access_key: String,
    secret_key: String,
}

impl Ready {
    /// Reads the file of a running stack.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Ready> {
        let hint = "is `piecework up` running with this --ready-file, or with this data folder?";
        let text = fs::read(path).map_err(|error| Failure::new(UNREACHABLE, format!("{}: {error}", path.display()), hint))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is not a ready file", path.display()))
    }

    /// Writes the file so that nobody sees half of it, for the owner's eyes only.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        write_private(path, &serde_json::to_vec_pretty(self)?)
    }

    /// The blob store.
    pub(crate) fn blobs(&self) -> BlobSettings {
        let ReadyS3 { endpoint, bucket, own_bucket, region, access_key, secret_key } = self.s3.clone();
        BlobSettings { endpoint, region, access_key, secret_key: Secret::new(secret_key), bucket, own_bucket }
    }
}

impl From<&BlobSettings> for ReadyS3 {
    fn from(blobs: &BlobSettings) -> ReadyS3 {
        ReadyS3 {
            endpoint: blobs.endpoint.clone(),
            bucket: blobs.bucket.clone(),
            own_bucket: blobs.own_bucket.clone(),
            region: blobs.region.clone(),
            access_key: blobs.access_key.clone(),
            secret_key: blobs.secret_key.expose().to_owned(),
        }
    }
}

/// Replaces a file at once, mode 0600.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut temporary = PathBuf::from(path).into_os_string();
    temporary.push(format!(".{}.new", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
