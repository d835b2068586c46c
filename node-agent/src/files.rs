//! File requests: listing, reading, uploading and deleting below the node's public folders.
//!
//! Requests come over the broker from the dispatcher; the node's own secrets lie outside these folders.

use std::{
    ffi::{CStr, CString},
    io,
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

use broker_config::removal::Mounts;
use contract::{
    message::{FileEntry, FileReply, FileRequest},
    outcome::{FILE_CHUNK_BYTES_MAX, Fault},
    time::Timestamp,
};
use rustix::fs::{FileType, Stat};

use crate::{
    beneath::Folder,
    context::NodeContext,
    listing::{self, Wanted},
    logs,
    off_loop::try_off_loop,
    path::RelativePath,
    root::PUBLIC,
};

/// Longest wait of a request for its turn; the sender has given up by then.
const TURN_MAX: Duration = Duration::from_secs(10);
/// Longest wait of an upload on request for its turn.
const UPLOAD_TURN_MAX: Duration = Duration::from_secs(600);

/// Nested folders at most; a removal holds one descriptor for each.
const DEPTH_MAX: usize = 128;

/// Answers one request once a turn is free.
pub async fn answer(context: Arc<NodeContext>, request: FileRequest) -> FileReply {
    let (turns, patience) = match &request {
        FileRequest::Upload { .. } => (&context.upload_turns, UPLOAD_TURN_MAX),
        _ => (&context.file_turns, TURN_MAX),
    };
    let turn = match tokio::time::timeout(patience, turns.acquire()).await {
        Ok(Ok(turn)) => turn,
        Ok(Err(_)) | Err(_) => return refused("OperationTimedOut", "the node is busy with other requests for files"),
    };
    let reply = answer_in_turn(context.clone(), request).await;
    drop(turn);
    reply
}

async fn answer_in_turn(context: Arc<NodeContext>, request: FileRequest) -> FileReply {
    if let FileRequest::Upload { path, key } = &request {
        return upload(&context, path, key).await.unwrap_or_else(reply_to_error);
    }
    if let FileRequest::UploadLogs { container_url, directory, from, until } = &request {
        return logs::upload(context, container_url, directory, *from, *until).await;
    }
    try_off_loop(move || answer_blocking(context.root.path(), request)).await.unwrap_or_else(reply_to_error)
}

fn answer_blocking(root: &Path, request: FileRequest) -> io::Result<FileReply> {
    match request {
        FileRequest::List { path, recursive, entries_max, after } => list(root, &path, recursive, entries_max as usize, after.as_deref()),
        FileRequest::Stat { path } => {
            let (folder, rest) = place(root, &path)?;
            let stat = match &rest {
                Some(rest) => folder.stat(rest)?,
                None => rustix::fs::stat(root.join(&path))?,
            };
            Ok(FileReply::Entry(entry(path, &stat)))
        }
        FileRequest::Read { path, offset, length } => {
            let (folder, rest) = place(root, &path)?;
            let Some(rest) = rest else { return Ok(refused("InvalidInput", "the path is a folder")) };
            let file = folder.open_file(&rest)?;
            let stat = rustix::fs::fstat(&file)?;
            let left = (stat.st_size as u64).saturating_sub(offset);
            let mut bytes = vec![0; length.min(left).min(FILE_CHUNK_BYTES_MAX as u64) as usize];
            let mut filled = 0;
            while filled < bytes.len() {
                match file.read_at(&mut bytes[filled..], offset + filled as u64) {
                    Ok(0) => break,
                    Ok(more) => filled += more,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            bytes.truncate(filled);
            Ok(FileReply::Chunk { entry: entry(path, &stat), bytes })
        }
        FileRequest::Delete { path, recursive } => delete(root, path, recursive),
        FileRequest::Upload { .. } | FileRequest::UploadLogs { .. } => Ok(refused("InvalidInput", "uploads are answered elsewhere")),
    }
}

/// The public folder a path lies in, and the path below it.
fn place(root: &Path, path: &str) -> io::Result<(Folder, Option<RelativePath>)> {
    let path = RelativePath::of_file(path).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let (first, rest) = path.split_first();
    if !PUBLIC.contains(&first) {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok((Folder::open(&root.join(first))?, rest))
}

fn list(root: &Path, path: &str, recursive: bool, entries_max: usize, after: Option<&str>) -> io::Result<FileReply> {
    let wanted = Wanted { recursive, entries_max, after };
    let page = if matches!(path.trim_matches('/'), "" | ".") {
        listing::list(&Folder::open(root)?, Some(&PUBLIC), wanted)?
    } else {
        let (folder, rest) = place(root, path)?;
        let folder = match rest {
            Some(rest) => folder.open_folder(&rest)?,
            None => folder,
        };
        listing::list(&folder, None, wanted)?
    };
    let Some((entries, has_more)) = page else { return Ok(refused("InvalidInput", "there are too many files to list")) };
    Ok(FileReply::Entries { entries: entries.into_iter().map(|(name, stat)| entry(name, &stat)).collect(), has_more })
}

fn delete(root: &Path, path: String, recursive: bool) -> io::Result<FileReply> {
    let (folder, rest) = place(root, &path)?;
    let Some(rest) = rest else { return Ok(refused("InvalidInput", "the node's own folders stay")) };
    let (parent, name) = rest.split_last();
    let parent = match &parent {
        Some(parent) => folder.open_folder(parent)?,
        None => folder,
    };
    let one = CString::new(name)?;
    let Some(stat) = parent.stat_entry(name)? else { return Ok(FileReply::NotFound) };
    if recursive {
        Mounts::now()?.refuse(&root.join(&path))?;
    }
    remove(&parent, &one, &stat, recursive, 0)?;
    Ok(FileReply::Entry(entry(path, &stat)))
}

fn remove(parent: &Folder, name: &CStr, stat: &Stat, recursive: bool, depth: usize) -> io::Result<()> {
    let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    if is_folder && recursive && depth < DEPTH_MAX {
        let folder = parent.enter_name(name)?;
        let mut inner = Vec::new();
        folder.each_name(|name, _| {
            inner.push(name.to_owned());
            Ok(())
        })?;
        for name in inner {
            let Some(stat) = folder.stat_entry(&*name)? else { continue };
            remove(&folder, &name, &stat, true, depth + 1)?;
        }
    }
    parent.remove(name, is_folder)
}

async fn upload(context: &Arc<NodeContext>, path: &str, key: &str) -> io::Result<FileReply> {
    let Some(blobs) = &context.blobs else { return Ok(refused("IOError", "this node has no blob store")) };
    let (root, wanted) = (context.root.clone(), path.to_owned());
    let opened = try_off_loop(move || {
        let (folder, rest) = place(root.path(), &wanted)?;
        let file = folder.open_file(&rest.ok_or(io::ErrorKind::IsADirectory)?)?;
        Ok((rustix::fs::fstat(&file)?, file))
    });
    let (stat, file) = opened.await?;
    let handle = format!("/proc/self/fd/{}", file.as_raw_fd());
    match blobs.upload_file(&blobs.settings().own_bucket, key, Path::new(&handle)).await {
        Ok(bytes) => Ok(FileReply::Entry(FileEntry { length: bytes, ..entry(path.to_owned(), &stat) })),
        Err(error) => {
            tracing::warn!(%error, path, "cannot upload a file on request");
            Ok(refused("IOError", "the file cannot be uploaded"))
        }
    }
}

fn entry(name: String, stat: &Stat) -> FileEntry {
    let ms = |secs: i64, nanos: i64| Timestamp(secs.saturating_mul(1000).saturating_add(nanos / 1_000_000));
    let modified_at = ms(stat.st_mtime, stat.st_mtime_nsec as i64);
    FileEntry {
        name,
        is_directory: FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
        length: if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile { stat.st_size as u64 } else { 0 },
        modified_at,
        created_at: modified_at,
        mode: stat.st_mode,
    }
}

fn reply_to_error(error: io::Error) -> FileReply {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FileReply::NotFound,
        io::ErrorKind::IsADirectory => refused("InvalidInput", "the path is a folder"),
        io::ErrorKind::DirectoryNotEmpty => refused("InvalidInput", "the folder is not empty"),
        io::ErrorKind::InvalidInput => refused("InvalidInput", &error.to_string()),
        // Most often a link that leads out of the node's folders.
        _ => refused("IOError", &error.to_string()),
    }
}

fn refused(code: &str, message: &str) -> FileReply {
    FileReply::Refused(Fault { code: code.to_owned(), message: message.to_owned(), details: vec![] })
}

#[cfg(test)]
mod tests {
    use std::{
        ffi::OsStr,
        fs,
        os::unix::{ffi::OsStrExt, fs::symlink},
    };

    use super::*;

    fn node() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in PUBLIC {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        fs::write(root.path().join("credential"), "secret").unwrap();
        let wd = root.path().join("workitems/j/job-1/t/wd");
        fs::create_dir_all(&wd).unwrap();
        fs::write(wd.join("out.txt"), "0123456789").unwrap();
        symlink("../../../../../credential", wd.join("leak")).unwrap();
        root
    }

    fn ask(root: &tempfile::TempDir, request: FileRequest) -> FileReply {
        answer_blocking(root.path(), request).unwrap_or_else(reply_to_error)
    }

    #[test]
    fn a_range_is_read_with_the_properties_of_the_whole() {
        let root = node();
        let path = "workitems/j/job-1/t/wd/out.txt".to_owned();
        let FileReply::Chunk { entry, bytes } = ask(&root, FileRequest::Read { path, offset: 2, length: 3 }) else { panic!() };
        assert_eq!((bytes.as_slice(), entry.length, entry.is_directory), (&b"234"[..], 10, false));
    }

    #[test]
    fn secrets_and_everything_outside_stay_unread() {
        let root = node();
        for path in [
            "credential",
            "volatile/lock",
            "../x",
            "/etc/passwd",
            "workitems/../credential",
            "workitems/j/job-1/t/wd/leak",
            "workitems\\..\\credential",
            "",
        ] {
            let reply = ask(&root, FileRequest::Read { path: path.to_owned(), offset: 0, length: 10 });
            assert!(matches!(reply, FileReply::NotFound | FileReply::Refused(_)), "{path}: {reply:?}");
            let reply = ask(&root, FileRequest::Stat { path: path.to_owned() });
            assert!(matches!(reply, FileReply::NotFound | FileReply::Refused(_)), "{path}: {reply:?}");
        }
    }

    #[test]
    fn what_is_listed_can_be_read_whatever_characters_its_name_has() {
        let root = node();
        let wd = "workitems/j/job-1/t/wd";
        let names = ["a\tb", "line\nbreak", "back\\slash", "C:\\x", "quote\"", "..\\y", "folder\\\n/z"];
        fs::create_dir(root.path().join(wd).join("folder\\\n")).unwrap();
        for name in names {
            fs::write(root.path().join(wd).join(name), name).unwrap();
        }
        let latin = OsStr::from_bytes(b"caf\xe9");
        fs::create_dir(root.path().join(wd).join(latin)).unwrap();
        fs::write(root.path().join(wd).join(latin).join(latin), "x").unwrap();
        let request = FileRequest::List { path: wd.into(), recursive: true, entries_max: 100, after: None };
        let FileReply::Entries { entries, .. } = ask(&root, request) else { panic!() };
        assert_eq!(entries.len(), names.len() + 3, "{entries:?}");
        for entry in entries.iter().filter(|entry| names.contains(&&*entry.name)) {
            let path = format!("{wd}/{}", entry.name);
            let FileReply::Chunk { bytes, .. } = ask(&root, FileRequest::Read { path, offset: 0, length: 100 }) else {
                panic!("{entry:?}")
            };
            assert_eq!(bytes, entry.name.as_bytes());
        }
        let reply = ask(&root, FileRequest::Delete { path: wd.into(), recursive: true });
        assert!(matches!(reply, FileReply::Entry(_)), "{reply:?}");
    }

    #[test]
    fn listings_are_in_order_and_paged() {
        let root = node();
        let page = |after: Option<&str>| {
            let path = "workitems/j/job-1/t".to_owned();
            let request = FileRequest::List { path, recursive: true, entries_max: 2, after: after.map(str::to_owned) };
            let FileReply::Entries { entries, has_more } = ask(&root, request) else { panic!() };
            (entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>(), has_more)
        };
        assert_eq!(page(None), (vec!["wd".to_owned(), "wd/leak".to_owned()], true));
        assert_eq!(page(Some("wd/leak")), (vec!["wd/out.txt".to_owned()], false));
        let all = FileRequest::List { path: String::new(), recursive: false, entries_max: 100, after: None };
        let FileReply::Entries { entries, .. } = ask(&root, all) else { panic!() };
        assert_eq!(entries.len(), PUBLIC.len());
        for listed in entries {
            let FileReply::Entry(found) = ask(&root, FileRequest::Stat { path: listed.name.clone() }) else { panic!("{}", listed.name) };
            assert_eq!((found.name, found.is_directory), (listed.name, true));
        }
    }

    #[test]
    fn folders_are_removed_only_when_asked_for_with_what_is_in_them() {
        let root = node();
        let delete = |recursive| ask(&root, FileRequest::Delete { path: "workitems/j/job-1/t".into(), recursive });
        assert!(matches!(delete(false), FileReply::Refused(_)));
        assert!(matches!(delete(true), FileReply::Entry(_)));
        assert_eq!(delete(true), FileReply::NotFound);
        assert!(root.path().join("credential").exists());
    }
}
