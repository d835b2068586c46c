//! Fetches inputs: resource files are written below `wd` before the process starts.
//!
//! A file comes by HTTP, a container's blobs from the blob store. Nothing is written outside `wd`; every failure
//! becomes a fault that names the file and its URL.

use std::{io, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use clients::blobs::{BlobError, Blobs, Location};
use contract::{
    outcome::{DISK_FULL, Fault},
    spec::ResourceFile,
};
use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    beneath::Folder,
    context::NodeContext,
    fetch::{self, fault},
    off_loop::try_off_loop,
    path::RelativePath,
    shortage::{blame, retry_on_shortage},
};

/// Files that one task fetches at the same time.
const FETCHES_IN_FLIGHT: usize = 4;
/// Blobs of one container at most.
const BLOBS_MAX: usize = 100_000;
const PAGE_BLOBS: usize = 1000;
const MODE_DEFAULT: u32 = 0o770;

/// A file to fetch.
struct Piece {
    from: From,
    path: RelativePath,
    mode: u32,
}

enum From {
    Web(String),
    Blob { bucket: String, key: String },
}

/// Fetches all inputs; returns how many bytes they had.
pub async fn stage(context: &NodeContext, folder: &Path, files: &[ResourceFile]) -> Result<u64, Fault> {
    let wd = retry_on_shortage(|| open_wd(folder)).await?;
    let wd = &wd;
    let mut bytes = 0;
    for file in files {
        let pieces = retry_on_shortage(|| pieces(context, file)).await?;
        let landing = |piece| async move { retry_on_shortage(|| land(context, wd, &piece)).await };
        let fetching = stream::iter(pieces).map(landing).buffer_unordered(FETCHES_IN_FLIGHT);
        bytes += fetching.try_fold(0, |sum, more| async move { Ok(sum + more) }).await?;
    }
    Ok(bytes)
}

async fn open_wd(folder: &Path) -> Result<Arc<Folder>, Fault> {
    let path = folder.join("wd");
    let opened = try_off_loop(move || Folder::open(&path)).await;
    opened.map(Arc::new).map_err(|error| local_fault("ResourceDirectoryCreateFailed", "wd", &error))
}

async fn pieces(context: &NodeContext, file: &ResourceFile) -> Result<Vec<Piece>, Fault> {
    let mode = mode(file)?;
    if let Some(url) = &file.http_url {
        let path = target(file.file_path.as_deref().unwrap_or_default(), url)?;
        // Unsigned URLs of our own blob store are read with the node's credential.
        let location = context.blobs.as_ref().and_then(|blobs| blobs.locate(url).ok()).filter(|place| !place.prefix.is_empty());
        let from = match location {
            Some(Location { bucket, prefix }) => From::Blob { bucket, key: prefix },
            None => From::Web(url.clone()),
        };
        return Ok(vec![Piece { from, path, mode }]);
    }
    let url = match (&file.storage_container_url, &file.auto_storage_container_name) {
        (Some(url), _) => url.clone(),
        (None, Some(name)) => format!("s3://{name}"),
        (None, None) => return Err(fault("BlobDownloadMiscError", "a resource file names no source", "", None)),
    };
    let blobs = context.blobs.as_ref().ok_or_else(|| fault("BlobAccessDenied", "this node has no blob store", &url, None))?;
    let place = blobs.locate(&url).map_err(|error| blob_fault(&error, &url))?;
    let folder = file.file_path.as_deref().filter(|path| !matches!(path.trim_matches('/'), "" | "."));
    list(blobs, &place, file.blob_prefix.as_deref().unwrap_or_default(), folder, mode, &url).await
}

async fn list(blobs: &Blobs, place: &Location, blob_prefix: &str, folder: Option<&str>, mode: u32, url: &str) -> Result<Vec<Piece>, Fault> {
    let root = if place.prefix.is_empty() { String::new() } else { format!("{}/", place.prefix) };
    let prefix = format!("{root}{blob_prefix}");
    let mut pieces = Vec::new();
    let mut after = None;
    loop {
        let page = blobs.list(&place.bucket, &prefix, after.as_deref(), PAGE_BLOBS).await.map_err(|error| blob_fault(&error, url))?;
        for blob in page.blobs {
            let Some(name) = blob.key.strip_prefix(&root).filter(|name| !name.is_empty() && !name.ends_with('/')) else { continue };
            let path = match folder {
                Some(folder) => target(&format!("{}/{name}", folder.trim_end_matches('/')), url)?,
                None => target(name, url)?,
            };
            if pieces.len() >= BLOBS_MAX {
                return Err(fault("BlobDownloadMiscError", "the container holds too many blobs", url, None));
            }
            pieces.push(Piece { from: From::Blob { bucket: place.bucket.clone(), key: blob.key.clone() }, path, mode });
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(pieces),
        }
    }
}

async fn land(context: &NodeContext, wd: &Arc<Folder>, piece: &Piece) -> Result<u64, Fault> {
    let (parent, name) = piece.path.split_last();
    let shown = piece.path.as_str();
    let below = wd.clone();
    let made = try_off_loop(move || below.create_folders(parent.as_ref())).await;
    let folder = made.map_err(|error| local_fault("ResourceDirectoryCreateFailed", shown, &error))?;
    let path = folder.path_of(name);
    let fetched = match &piece.from {
        From::Web(url) => match context.web() {
            Some(client) => fetch::fetch(client, url, &path).await,
            None => Err(fault("BlobDownloadMiscError", "this node has no client for HTTP", url, None)),
        },
        From::Blob { bucket, key } => match &context.blobs {
            Some(blobs) => {
                blobs.download_file(bucket, key, &path).await.map_err(|error| blob_fault(&error, &format!("s3://{bucket}/{key}")))
            }
            None => Err(fault("BlobAccessDenied", "this node has no blob store", &format!("s3://{bucket}/{key}"), None)),
        },
    };
    let named = |mut fault: Fault| {
        fault.details.push(("FilePath".to_owned(), shown.to_owned()));
        fault
    };
    let bytes = fetched.map_err(named)?;
    let (name, mode) = (name.to_owned(), piece.mode);
    let set = try_off_loop(move || folder.open_plain(&name)?.set_permissions(std::fs::Permissions::from_mode(mode))).await;
    set.map_err(|error| local_fault("ResourceFileCreateFailed", shown, &error))?;
    Ok(bytes)
}

fn target(path: &str, url: &str) -> Result<RelativePath, Fault> {
    RelativePath::parse(path).map_err(|error| {
        let mut fault = fault("ResourceFileCreateFailed", &error.to_string(), url, None);
        fault.details.push(("FilePath".to_owned(), path.chars().take(256).collect()));
        fault
    })
}

fn mode(file: &ResourceFile) -> Result<u32, Fault> {
    let Some(text) = &file.file_mode else { return Ok(MODE_DEFAULT) };
    let digits = text.strip_prefix("0o").unwrap_or(text);
    match u32::from_str_radix(digits, 8) {
        // Set-user-id and sticky bits are refused.
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(Fault {
            code: "ResourceFileCreateFailed".to_owned(),
            message: "the file mode is not three octal digits".to_owned(),
            details: vec![("FileMode".to_owned(), text.chars().take(64).collect())],
        }),
    }
}

fn blob_fault(error: &BlobError, url: &str) -> Fault {
    if let BlobError::Local { source, .. } = error {
        let code = if source.kind() == io::ErrorKind::StorageFull { DISK_FULL } else { "ResourceFileWriteFailed" };
        return blame(fault(code, "the file cannot be written", url, Some(("Reason", source.to_string()))), source);
    }
    blame(fault(error.code_for_download(), "the blob store did not give the file", url, Some(("Reason", error.to_string()))), error)
}

fn local_fault(code: &str, path: &str, error: &io::Error) -> Fault {
    let code = if error.kind() == io::ErrorKind::StorageFull { DISK_FULL } else { code };
    let details = vec![("FilePath".to_owned(), path.to_owned()), ("Reason".to_owned(), error.to_string())];
    blame(Fault { code: code.to_owned(), message: "the file cannot be made on the node".to_owned(), details }, error)
}
