//! The ready file: everything a script or another command needs to use a running stack.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use broker_config::{
    private,
    settings::{BlobSettings, Secret},
};
use serde::{Deserialize, Serialize};

use crate::exit_codes::{Failure, UNREACHABLE};

/// Contents of the file; readers ignore unknown fields.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) url: String,
    pub(crate) account: String,
    pub(crate) key: String,
    pub(crate) broker: String,
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

    /// Writes the file atomically, readable by its owner alone.
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

/// Replaces a file atomically, mode 0600; two processes may do so at the same time.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.new", std::process::id()));
    private::replace_by(&PathBuf::from(temporary), path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
