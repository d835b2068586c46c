//! Finds the inputs: files, folders with all that is below, and blobs under a prefix.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clients::blobs::Blobs;

use crate::exit_codes::Failure;

/// Blobs of one list request.
const LIST_MAX: usize = 1_000;
/// Inputs at most.
const INPUTS_MAX: usize = 1_000_000;
/// Nested folders at most.
const DEPTH_MAX: usize = 64;

/// The location of an input's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    File(PathBuf),
    Blob { bucket: String, key: String },
}

/// An input and its name, which may hold folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Input {
    pub(crate) source: Source,
    pub(crate) name: String,
    /// Present when the input cannot be used.
    pub(crate) problem: Option<String>,
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
            found.push(file(path.to_owned(), text_of(name)));
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
                    found.push(Input { source: Source::Blob { bucket: place.bucket.clone(), key: blob.key }, name, problem: None });
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
    let entries = std::fs::read_dir(folder).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let mut entries = match entries {
        Ok(entries) => entries,
        // A folder below what was named is one input that fails; the others run.
        Err(error) if depth > 0 => {
            found.push(unreadable(folder.to_owned(), name.to_owned(), &error));
            return Ok(());
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", folder.display())),
    };
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (part, is_text) = text_of(&entry.file_name());
        let path = entry.path();
        let name = (if name.is_empty() { part } else { format!("{name}/{part}") }, is_text);
        anyhow::ensure!(found.len() < INPUTS_MAX, "more than {INPUTS_MAX} inputs");
        let kind = match std::fs::metadata(&path) {
            Ok(kind) => kind,
            Err(error) => {
                found.push(unreadable(path, name.0, &error));
                continue;
            }
        };
        if kind.is_dir() {
            if name.1 {
                below(&path, &name.0, depth + 1, found)?;
            } else {
                found.push(file(path, name));
            }
        } else if kind.is_file() {
            found.push(file(path, name));
        }
    }
    Ok(())
}

fn unreadable(path: PathBuf, name: String, error: &std::io::Error) -> Input {
    Input { source: Source::File(path), name, problem: Some(format!("it cannot be read: {error}")) }
}

fn file(path: PathBuf, (name, is_text): (String, bool)) -> Input {
    Input { source: Source::File(path), name, problem: (!is_text).then(|| "its name is not UTF-8".to_owned()) }
}

/// A name to be shown, and whether it is the name itself.
fn text_of(name: &std::ffi::OsStr) -> (String, bool) {
    (name.to_string_lossy().into_owned(), name.to_str().is_some())
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
    fn a_link_that_leads_nowhere_is_one_input_that_fails() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("fine.txt"), "x").unwrap();
        std::os::unix::fs::symlink("/no/such/file", folder.path().join("dangling.txt")).unwrap();
        let found = local(&[folder.path().to_string_lossy().into_owned()]).unwrap();
        let seen: Vec<_> = found.iter().map(|input| (input.name.as_str(), input.problem.is_some())).collect();
        assert_eq!(seen, [("dangling.txt", true), ("fine.txt", false)]);
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
