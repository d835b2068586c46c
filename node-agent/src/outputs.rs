//! Outputs: files that match a pattern go to the blob store once the process has ended.
//!
//! The dispatcher is asked first whether this run may publish, and only when there is something to upload.
//! What was done stands in `fileuploadout.txt`, what failed in `fileuploaderr.txt`, next to the streams.

use std::{fmt::Write as _, io::ErrorKind, path::Path, sync::Arc};

use broker_config::{
    blobs::{BlobHeaders, Blobs, Location},
    ids::RunKey,
    message::Fault,
    spec::{OutputFile, UploadCondition},
};
use futures::{StreamExt, TryStreamExt, stream};
use rustix::fs::FileType;
use tokio_util::sync::CancellationToken;

use crate::{beneath::Folder, fetch::fault, path::RelativePath, pattern::Pattern, process::environment::Environment, room::Room};

/// Files uploaded at once by one task.
const UPLOADS_IN_FLIGHT: usize = 4;
/// Matches of one task at most.
const MATCHES_MAX: usize = 100_000;
/// Entries looked at for one pattern at most.
const ENTRIES_MAX: usize = 1_000_000;
/// Folders within folders at most.
const DEPTH_MAX: usize = 128;

struct Piece {
    path: RelativePath,
    place: Location,
    key: String,
    headers: Arc<BlobHeaders>,
}

/// Uploads what matches; how many bytes that was.
pub async fn upload(
    room: &Room,
    run: RunKey,
    folder: &Path,
    environment: &Environment,
    files: &[OutputFile],
    is_success: bool,
    stop: &CancellationToken,
) -> Result<u64, Fault> {
    let mut log = String::new();
    let result = match pieces(room, folder, environment, files, is_success, &mut log) {
        Ok(pieces) if pieces.is_empty() => Ok(0),
        Ok(pieces) => tokio::select! {
            sent = send(room, run, folder, pieces, &mut log) => sent,
            () = stop.cancelled() => Err(misc("the run was stopped before its outputs were uploaded")),
        },
        Err(fault) => Err(fault),
    };
    write_log(folder, "fileuploadout.txt", &log);
    if let Err(fault) = &result {
        let details: String = fault.details.iter().map(|(name, value)| format!(" {name}={value}")).collect();
        write_log(folder, "fileuploaderr.txt", &format!("{}: {}{details}\n", fault.code, fault.message));
    }
    result
}

fn pieces(
    room: &Room,
    folder: &Path,
    environment: &Environment,
    files: &[OutputFile],
    is_success: bool,
    log: &mut String,
) -> Result<Vec<Piece>, Fault> {
    let mut pieces = Vec::new();
    for file in files {
        let is_wanted = match file.upload_options.upload_condition {
            UploadCondition::TaskSuccess => is_success,
            UploadCondition::TaskFailure => !is_success,
            UploadCondition::TaskCompletion => true,
        };
        if !is_wanted {
            continue;
        }
        let url = &file.destination.container.container_url;
        let blobs = room.blobs.as_ref().ok_or_else(|| fault("FileUploadAccessDenied", "this node has no blob store", url, None))?;
        let place = blobs
            .locate(url)
            .map_err(|error| fault(error.code_for_upload(), "the container cannot be used", url, Some(("Reason", error.to_string()))))?;
        let headers = &file.destination.container.upload_headers;
        let headers = BlobHeaders::read(headers.iter().map(|header| (header.name.as_str(), header.value.as_str())))
            .map_err(|(name, reason)| misc(&format!("the upload header {name} cannot be used: {reason}")))?;
        let headers = Arc::new(headers);
        let text = expand(&file.file_pattern, environment);
        let pattern = Pattern::parse(&text, &folder.to_string_lossy()).map_err(|error| {
            let mut fault = misc(&format!("the file pattern cannot be used: {error}"));
            fault.details.push(("FilePattern".to_owned(), file.file_pattern.chars().take(256).collect()));
            fault
        })?;
        let matches = find(folder, &pattern).map_err(|error| misc(&format!("the task's folder cannot be searched: {error}")))?;
        writeln!(log, "{}: {} files", file.file_pattern, matches.len()).expect("a String takes everything");
        for path in matches {
            let name = pattern.blob_name(&path, file.destination.container.path.as_deref());
            let key = if place.prefix.is_empty() { name } else { format!("{}/{name}", place.prefix) };
            if pieces.len() >= MATCHES_MAX {
                return Err(misc("more files match than one task may upload"));
            }
            pieces.push(Piece { path, place: place.clone(), key, headers: headers.clone() });
        }
    }
    Ok(pieces)
}

async fn send(room: &Room, run: RunKey, folder: &Path, pieces: Vec<Piece>, log: &mut String) -> Result<u64, Fault> {
    match room.may_publish(run).await {
        Some(true) => {}
        Some(false) => return Err(misc("another run owns the task")),
        None => return Err(fault("FileUploadTimedOut", "the dispatcher did not say whether the run may upload", "", None)),
    }
    let blobs = room.blobs.as_ref().ok_or_else(|| misc("this node has no blob store"))?;
    let folder = Folder::open(folder).map_err(|error| misc(&format!("the task's folder is gone: {error}")))?;
    let folder = &folder;
    let sending = stream::iter(pieces).map(|piece| async move { send_one(blobs, folder, piece).await }).buffered(UPLOADS_IN_FLIGHT);
    let sent: Vec<(String, u64)> = sending.try_collect().await?;
    for (line, _) in &sent {
        log.push_str(line);
    }
    Ok(sent.iter().map(|(_, bytes)| bytes).sum())
}

async fn send_one(blobs: &Blobs, folder: &Folder, piece: Piece) -> Result<(String, u64), Fault> {
    let Piece { path, place, key, headers } = piece;
    let url = format!("s3://{}/{key}", place.bucket);
    let named = |mut fault: Fault| {
        fault.details.push(("FilePath".to_owned(), path.to_string()));
        fault
    };
    let file = folder.open_file(&path).map_err(|error| named(misc(&format!("the file cannot be read: {error}"))))?;
    // By its handle, so that nothing the name may point to by now is uploaded instead.
    let handle = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let bytes = blobs.upload_file_with(&place.bucket, &key, Path::new(&handle), &headers).await.map_err(|error| {
        named(fault(error.code_for_upload(), "the blob store did not take the file", &url, Some(("Reason", error.to_string()))))
    })?;
    Ok((format!("{path} -> {url} ({bytes} bytes)\n"), bytes))
}

/// All regular files that match, in order; links are followed only to what lies in the task's folder.
fn find(folder: &Path, pattern: &Pattern) -> std::io::Result<Vec<RelativePath>> {
    let root = Folder::open(folder)?;
    let mut matches = Vec::new();
    let mut seen = 0;
    let base = pattern.base();
    let start = match &base {
        None => root.create_folders(None)?,
        Some(base) => match root.open_folder(base) {
            // Nothing there, or a link that leaves the task's folder.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::CrossesDevices) => {
                return Ok(matches);
            }
            other => other?,
        },
    };
    let mut left = vec![(base, start, 0)];
    while let Some((at, open, depth)) = left.pop() {
        for (name, stat) in open.entries()? {
            seen += 1;
            if seen > ENTRIES_MAX || matches.len() > MATCHES_MAX {
                return Err(std::io::Error::other("too many files"));
            }
            let text = at.as_ref().map_or_else(|| name.clone(), |at| format!("{at}/{name}"));
            let Ok(path) = RelativePath::parse(&text) else { continue };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory if depth < DEPTH_MAX && pattern.may_match_below(&path) => {
                    let one = RelativePath::parse(&name).map_err(std::io::Error::other)?;
                    left.push((Some(path), open.open_folder(&one)?, depth + 1));
                }
                FileType::RegularFile if pattern.matches(&path) => matches.push(path),
                FileType::Symlink if pattern.matches(&path) && root.open_file(&path).is_ok() => matches.push(path),
                _ => {}
            }
        }
    }
    matches.sort_unstable();
    Ok(matches)
}

/// Replaces `$NAME` and `${NAME}` by the task's variables; unknown ones by nothing, as a shell does.
fn expand(text: &str, environment: &Environment) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let end = |text: &str| text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
        let (name, used) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((name, _)) => (name, name.len() + 2),
            None => (&after[..end(after)], end(after)),
        };
        if name.is_empty() {
            out.push('$');
        } else {
            out.push_str(&environment.text(name).unwrap_or_default());
        }
        rest = &after[used..];
    }
    out.push_str(rest);
    out
}

fn write_log(folder: &Path, name: &str, text: &str) {
    if let Err(error) = std::fs::write(folder.join(name), text) {
        tracing::warn!(%error, name, "cannot write the log of an upload");
    }
}

fn misc(message: &str) -> Fault {
    Fault { code: "FileUploadMiscError".to_owned(), message: message.to_owned(), details: vec![] }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn files_are_found_and_links_out_of_the_task_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let task = folder.path().join("t");
        fs::create_dir_all(task.join("wd/a/b")).unwrap();
        for file in ["stdout.txt", "wd/x.txt", "wd/a/y.txt", "wd/a/b/z.txt", "wd/.h.txt"] {
            fs::write(task.join(file), "1").unwrap();
        }
        fs::write(folder.path().join("secret.txt"), "s").unwrap();
        symlink("../../secret.txt", task.join("wd/leak.txt")).unwrap();
        symlink("a/y.txt", task.join("wd/inside.txt")).unwrap();
        symlink("/", task.join("wd/root")).unwrap();
        let found = |pattern: &str| {
            let pattern = Pattern::parse(pattern, &task.to_string_lossy()).unwrap();
            find(&task, &pattern).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(found("*.txt"), ["wd/inside.txt", "wd/x.txt"]);
        assert_eq!(found("**/*.txt"), ["wd/a/b/z.txt", "wd/a/y.txt", "wd/inside.txt", "wd/x.txt"]);
        assert_eq!(found("../std*.txt"), ["stdout.txt"]);
        assert_eq!(found("leak.txt"), Vec::<String>::new());
        assert_eq!(found("nothing/*.txt"), Vec::<String>::new());
        assert_eq!(found("root/**"), Vec::<String>::new());
    }
}
