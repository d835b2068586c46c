//! Moves outputs to their target.

use std::{collections::HashSet, fs, os::unix::fs::MetadataExt, path::Path};

use clients::blobs::{BlobError, Blobs, Location};

use super::{
    inputs::Source,
    item::Item,
    plan::Plan,
    report::{Outcome, STREAM_BYTES_MAX, stream_of},
    target::Target,
};
use crate::{
    client::Client,
    exit_codes::{Failure, USAGE},
};

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

    /// Refuses outputs that would take the place of inputs.
    pub(crate) fn spare<'i>(&self, sources: impl Iterator<Item = &'i Source>, items: &[Item]) -> Result<(), Failure> {
        let refused = |place: String| {
            let hint = "give another --out, or a --name that differs from the inputs' names, such as --name '{stem}.out'";
            Err(Failure::new(USAGE, format!("the result for an input would overwrite the input {place}"), hint))
        };
        match self {
            Target::Print => {}
            Target::Folder(folder) => {
                // Whatever names lead there, a file is known by its number.
                let number = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
                let files = sources.filter_map(|source| match source {
                    Source::File(path) => number(path),
                    Source::Blob { .. } => None,
                });
                let files: HashSet<(u64, u64)> = files.collect();
                for path in items.iter().map(|item| folder.join(&item.output)) {
                    if number(&path).is_some_and(|number| files.contains(&number)) {
                        return refused(path.display().to_string());
                    }
                }
            }
            Target::Blobs(place) => {
                let blobs: HashSet<(&str, &str)> = sources
                    .filter_map(|source| match source {
                        Source::File(_) => None,
                        Source::Blob { bucket, key } => Some((bucket.as_str(), key.as_str())),
                    })
                    .collect();
                for key in items.iter().map(|item| key_in(place, item)) {
                    if blobs.contains(&(place.bucket.as_str(), key.as_str())) {
                        return refused(format!("s3://{}/{key}", place.bucket));
                    }
                }
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn item(source: Source, output: &str) -> Item {
        Item { id: "task-0000001".to_owned(), source, name: output.to_owned(), output: output.to_owned() }
    }

    fn check(target: &Target, items: &[Item]) -> Result<(), String> {
        target.spare(items.iter().map(|item| &item.source), items).map_err(|failure| failure.to_string())
    }

    #[test]
    fn outputs_never_take_the_place_of_inputs() {
        let folder = tempfile::tempdir().unwrap();
        let (input, link) = (folder.path().join("a.mov"), folder.path().join("link"));
        fs::write(&input, "x").unwrap();
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        let file = |output: &str| [item(Source::File(input.clone()), output)];
        for out in [folder.path().to_owned(), link] {
            let target = Target::Folder(out);
            let reason = check(&target, &file("a.mov")).unwrap_err();
            assert!(reason.contains("a.mov") && reason.contains("--name '{stem}.out'"), "{reason}");
            check(&target, &file("a.mp4")).unwrap();
        }
        check(&Target::Folder(folder.path().join("new")), &file("a.mov")).unwrap();
        check(&Target::Print, &file("a.mov")).unwrap();

        let blob = |output: &str| [item(Source::Blob { bucket: "b".to_owned(), key: "clips/a.mov".to_owned() }, output)];
        let place = |bucket: &str, prefix: &str| Target::Blobs(Location { bucket: bucket.to_owned(), prefix: prefix.to_owned() });
        assert!(check(&place("b", "clips/"), &blob("a.mov")).unwrap_err().contains("s3://b/clips/a.mov"));
        check(&place("b", "clips"), &blob("a.mp4")).unwrap();
        check(&place("b", "done"), &blob("a.mov")).unwrap();
        check(&place("c", "clips"), &blob("a.mov")).unwrap();
    }
}
