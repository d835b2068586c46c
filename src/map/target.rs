//! The target of outputs: a local folder, blobs, or stdout.

use std::{fs, path::PathBuf};

use anyhow::Context;
use clients::blobs::{Blobs, Location};

use crate::exit_codes::Failure;

/// The target of outputs.
pub(crate) enum Target {
    /// Each task's stdout is printed.
    Print,
    Folder(PathBuf),
    Blobs(Location),
}

impl Target {
    pub(crate) fn parse(given: Option<&str>, blobs: &Blobs) -> anyhow::Result<Target> {
        match given {
            None => Ok(Target::Print),
            Some(url) if url.starts_with("s3://") => {
                Ok(Target::Blobs(blobs.locate(url).map_err(|error| Failure::usage(error.to_string()))?))
            }
            Some(folder) => {
                fs::create_dir_all(folder).with_context(|| format!("cannot make {folder}"))?;
                Ok(Target::Folder(PathBuf::from(folder)))
            }
        }
    }
}
