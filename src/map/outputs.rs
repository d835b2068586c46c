//! Moves outputs to their target.

use std::fs;

use clients::blobs::{BlobError, Blobs, Location};

use super::{
    item::Item,
    plan::Plan,
    report::{Outcome, STREAM_BYTES_MAX, stream_of},
    target::Target,
};
use crate::client::Client;

impl Target {
    /// Whether an item's output exists already.
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

    /// Moves the output of a successful task to its target.
    pub(crate) async fn fetch(&self, client: &Client, plan: &Plan, blobs: &Blobs, item: &Item) -> Outcome {
        if plan.needs_output() {
            match self.drop_empty(plan, blobs, item).await {
                Ok(false) => {}
                Ok(true) => return Outcome::failed("the command printed nothing and names no {out}, so there is no result"),
                Err(error) => return Outcome::failed(format!("its output could not be looked at: {error}")),
            }
        }
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

impl Target {
    /// Whether the result is empty; an empty one is removed.
    async fn drop_empty(&self, plan: &Plan, blobs: &Blobs, item: &Item) -> Result<bool, BlobError> {
        let (bucket, key) = match self {
            Target::Print => return Ok(false),
            Target::Folder(_) => (&plan.bucket, plan.output_key(item)),
            Target::Blobs(place) => (&place.bucket, key_in(place, item)),
        };
        if blobs.head(bucket, &key).await?.length > 0 {
            return Ok(false);
        }
        blobs.delete(bucket, &key).await?;
        Ok(true)
    }
}

fn key_in(place: &Location, item: &Item) -> String {
    match place.prefix.trim_end_matches('/') {
        "" => item.output.clone(),
        prefix => format!("{prefix}/{}", item.output),
    }
}
