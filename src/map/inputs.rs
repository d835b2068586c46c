//! Finds the inputs: files, folders with all that is below, and blobs under a prefix.

use std::path::{Path, PathBuf};

use anyhow::Context;
use broker_config::blobs::Blobs;

use crate::exit_codes::Failure;

/// Blobs listed at once.
const LIST_MAX: usize = 1_000;
/// Inputs at most.
const INPUTS_MAX: usize = 1_000_000;
/// Folders inside each other at most.
const DEPTH_MAX: usize = 64;

/// Where an input's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    File(PathBuf),
    Blob { bucket: String, key: String },
}

/// One input and its name, which may hold folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Input {
    pub(crate) source: Source,
    pub(crate) name: String,
}

/// The inputs that are files of this machine.
pub(crate) fn local(given: &[String]) -> anyhow::Result<Vec<Input>> {
    let mut found = vec![];
    for text in given.iter().filter(|text| !is_remote(text)) {
        let path = Path::new(text);
        let kind = std::fs::metadata(path).map_err(|error| Failure::usage(format!("input {text}: {error}")))?;
        if kind.is_dir() {
            below(path, "", 0, &mut found)?;
        } else {
            let name = path.file_name().with_context(|| format!("input {text} has no name"))?;
            found.push(Input { source: Source::File(path.to_owned()), name: utf8(name)? });
        }
    }
    Ok(found)
}

/// The inputs that are blobs.
pub(crate) async fn remote(given: &[String], blobs: &Blobs) -> anyhow::Result<Vec<Input>> {
    let mut found = vec![];
    for text in given.iter().filter(|text| is_remote(text)) {
        let place = blobs.locate(text).map_err(|error| Failure::usage(error.to_string()))?;
        let (before, mut after) = (found.len(), None);
        loop {
            let page = blobs.list(&place.bucket, &place.prefix, after.as_deref(), LIST_MAX).await?;
            for blob in page.blobs {
                if let Some(name) = name_below(&place.prefix, &blob.key) {
                    found.push(Input { source: Source::Blob { bucket: place.bucket.clone(), key: blob.key }, name });
                }
            }
            anyhow::ensure!(found.len() <= INPUTS_MAX, "more than {INPUTS_MAX} inputs");
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        if found.len() == before {
            return Err(Failure::usage(format!("nothing is at {text}")).into());
        }
    }
    Ok(found)
}

fn is_remote(text: &str) -> bool {
    text.starts_with("s3://")
}

/// The name of a blob as seen from a prefix, which is a folder or the blob itself.
fn name_below(prefix: &str, key: &str) -> Option<String> {
    let rest = key.strip_prefix(prefix)?;
    let name = match rest {
        "" => key.rsplit('/').next()?,
        _ if prefix.is_empty() || prefix.ends_with('/') => rest,
        _ => rest.strip_prefix('/')?,
    };
    (!name.is_empty() && !name.ends_with('/')).then(|| name.to_owned())
}

fn below(folder: &Path, name: &str, depth: usize, found: &mut Vec<Input>) -> anyhow::Result<()> {
    anyhow::ensure!(depth < DEPTH_MAX, "{} is nested too deeply", folder.display());
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let part = utf8(&entry.file_name())?;
        let path = entry.path();
        let name = if name.is_empty() { part } else { format!("{name}/{part}") };
        let kind = std::fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if kind.is_dir() {
            below(&path, &name, depth + 1, found)?;
        } else if kind.is_file() {
            anyhow::ensure!(found.len() < INPUTS_MAX, "more than {INPUTS_MAX} inputs");
            found.push(Input { source: Source::File(path), name });
        }
    }
    Ok(())
}

fn utf8(name: &std::ffi::OsStr) -> anyhow::Result<String> {
    name.to_str().map(str::to_owned).with_context(|| format!("the name {name:?} is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_give_all_files_below_with_their_folders_as_names() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("b/c")).unwrap();
        for name in ["z.txt", "b/a.txt", "b/c/x y.txt"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let found = local(&[text(folder.path()), text(&folder.path().join("z.txt"))]).unwrap();
        let names: Vec<_> = found.iter().map(|input| input.name.as_str()).collect();
        assert_eq!(names, ["b/a.txt", "b/c/x y.txt", "z.txt", "z.txt"]);
        assert!(local(&["/no/such/file".into()]).is_err());
    }

    #[test]
    fn blobs_are_named_as_seen_from_the_prefix() {
        assert_eq!(name_below("clips", "clips/a/b.mov").as_deref(), Some("a/b.mov"));
        assert_eq!(name_below("clips/", "clips/b.mov").as_deref(), Some("b.mov"));
        assert_eq!(name_below("clips/b.mov", "clips/b.mov").as_deref(), Some("b.mov"));
        assert_eq!(name_below("", "b.mov").as_deref(), Some("b.mov"));
        assert_eq!(name_below("clips", "clipsother/b.mov"), None);
        assert_eq!(name_below("clips/", "clips/"), None);
    }
}
