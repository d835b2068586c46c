//! Where outputs go: a folder of this machine, blobs, or stdout.

use std::{fs, path::PathBuf};

use anyhow::Context;
use broker_config::blobs::{BlobError, Blobs, Location};

use super::{
    plan::{Item, Plan},
    report::{Outcome, STREAM_BYTES_MAX, stream_of},
};
use crate::{client::Client, exit_codes::Failure};

/// Where outputs go.
pub(crate) enum Target {
    /// Nowhere: each task's stdout is printed.
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

    /// Whether an item's output is there already.
    pub(crate) async fn has(&self, blobs: &Blobs, item: &Item) -> anyhow::Result<bool> {
        match self {
            Target::Print => Ok(false),
            Target::Folder(folder) => Ok(folder.join(&item.output).try_exists()?),
            Target::Blobs(place) => match blobs.head(&place.bucket, &key_in(place, item)).await {
                Ok(_) => Ok(true),
                Err(BlobError::NotFound { .. } | BlobError::NoBucket { .. }) => Ok(false),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// Brings the output of a task that succeeded to where it goes.
    pub(crate) async fn fetch(&self, client: &Client, plan: &Plan, blobs: &Blobs, item: &Item) -> Outcome {
        let brought = match self {
            Target::Print => return Outcome::Printed(stream_of(client, &plan.job, &item.id, "stdout.txt", STREAM_BYTES_MAX).await),
            Target::Folder(folder) => {
                let path = folder.join(&item.output);
                let made = path.parent().map_or(Ok(()), fs::create_dir_all);
                if let Err(error) = made {
                    return Outcome::failed(format!("{}: {error}", path.display()));
                }
                blobs.download_file(&plan.bucket, &plan.output_key(item), &path).await
            }
            Target::Blobs(place) => blobs.head(&place.bucket, &key_in(place, item)).await.map(|blob| blob.length),
        };
        match brought {
            Ok(bytes) => Outcome::Done { bytes },
            Err(BlobError::NotFound { .. }) => Outcome::failed("the command succeeded but did not write {out}"),
            Err(error) => Outcome::failed(format!("its output could not be fetched: {error}")),
        }
    }
}

fn key_in(place: &Location, item: &Item) -> String {
    match place.prefix.trim_end_matches('/') {
        "" => item.output.clone(),
        prefix => format!("{prefix}/{}", item.output),
    }
}
