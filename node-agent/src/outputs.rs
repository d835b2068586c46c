//! Uploads output files: those that match a pattern go to the blob store once the process has ended.
//!
//! The dispatcher is asked first whether this run may publish, and only when there is something to upload.
//! Uploads are listed in `fileuploadout.txt`, failures in `fileuploaderr.txt`, next to the streams; both are new files,
//! whatever the task left in their place.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    os::fd::AsRawFd,
    path::Path,
    sync::Arc,
};

use clients::blobs::{BlobHeaders, Blobs, Location};
use contract::{
    ids::RunKey,
    outcome::Fault,
    spec::{OutputFile, UploadCondition},
};
use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::{
    beneath::Folder,
    context::NodeContext,
    fetch::fault,
    off_loop::{off_loop, try_off_loop},
    path::RelativePath,
    pattern::Pattern,
    process::environment::Environment,
    search::{self, Found, MATCHES_MAX, Unnameable},
    shortage::{blame, retry_on_shortage},
};

/// Files that one task uploads at the same time.
const UPLOADS_IN_FLIGHT: usize = 4;
const LOG_MODE: u32 = 0o664;

/// The destination of a pattern's matches.
struct Target {
    shown: String,
    place: Location,
    path: Option<String>,
    headers: Arc<BlobHeaders>,
}

struct Piece {
    path: RelativePath,
    place: Location,
    key: String,
    headers: Arc<BlobHeaders>,
}

/// Files to upload, and the lines for the logs.
struct Plan {
    folder: Arc<Folder>,
    pieces: Vec<Piece>,
    /// Lines for the report, one for each pattern.
    lines: String,
    /// Matches whose names cannot be uploaded.
    unnameable: Option<Unnameable>,
}

/// The files of a run that may be uploaded.
pub struct Source {
    pub folder: Arc<Path>,
    /// Variables that patterns may contain.
    pub environment: Environment,
    pub files: Vec<OutputFile>,
    /// Whether the task succeeded.
    pub is_success: bool,
}

/// Uploads the matches; returns how many bytes that was.
pub async fn upload(context: &Arc<NodeContext>, run: RunKey, source: Source, stop: &CancellationToken) -> Result<u64, Fault> {
    let folder = source.folder.clone();
    let (source, mut log) = (Arc::new(source), String::new());
    let result = tokio::select! {
        result = publish(context, run, &source, stop, &mut log) => result,
        () = stop.cancelled() => Err(misc("the run was stopped before its outputs were uploaded")),
    };
    let mut logs = vec![("fileuploadout.txt", log)];
    if let Err(fault) = &result {
        let details: String = fault.details.iter().map(|(name, value)| format!(" {name}={value}")).collect();
        logs.push(("fileuploaderr.txt", format!("{}: {}{details}\n", fault.code, fault.message)));
    }
    if let Err(error) = try_off_loop(move || write_logs(&folder, &logs)).await {
        tracing::warn!(%error, run = %run.run, "cannot write fileuploadout.txt or fileuploaderr.txt of a run");
    }
    result
}

async fn publish(
    context: &Arc<NodeContext>,
    run: RunKey,
    source: &Arc<Source>,
    stop: &CancellationToken,
    log: &mut String,
) -> Result<u64, Fault> {
    let Plan { folder, pieces, lines, unnameable } = retry_on_shortage(|| plan(context, source, stop)).await?;
    *log = lines;
    let bytes = if pieces.is_empty() { 0 } else { send(context, run, folder, pieces, log).await? };
    match unnameable {
        None => Ok(bytes),
        Some(Unnameable { count, first }) => {
            tracing::warn!(run = %run.run, count, first = ?first, "output files of a run are not uploaded, because their names are not UTF-8");
            let mut fault = misc(&format!("{count} files that match cannot be uploaded, for their names are not UTF-8; all others were"));
            fault.details.push(("FilePath".to_owned(), first.escape_debug().to_string()));
            Err(fault)
        }
    }
}

/// Finds the files to upload, off the loop.
async fn plan(context: &Arc<NodeContext>, source: &Arc<Source>, stop: &CancellationToken) -> Result<Plan, Fault> {
    let (context, source, stop) = (context.clone(), source.clone(), stop.clone());
    let planned = off_loop(move || plan_blocking(&context, &source, &stop)).await;
    planned.unwrap_or_else(|error| Err(misc(&format!("the search of the task's folder was lost: {error}"))))
}

fn plan_blocking(context: &NodeContext, source: &Source, stop: &CancellationToken) -> Result<Plan, Fault> {
    let (mut targets, mut patterns) = (Vec::new(), Vec::new());
    for file in source.files.iter().filter(|file| is_wanted(file, source.is_success)) {
        targets.push(target(context, file)?);
        patterns.push(pattern(file, source)?);
    }
    let lost = |error: io::Error| blame(misc(&format!("the task's folder cannot be searched: {error}")), &error);
    let folder = Folder::open(&source.folder).map_err(lost)?;
    let Found { matches, unnameable } =
        if patterns.is_empty() { Found::default() } else { search::find(&folder, &patterns, stop).map_err(lost)? };
    if matches.len() > MATCHES_MAX {
        return Err(misc("more files match than one task may upload"));
    }
    let mut log = String::new();
    for (index, target) in targets.iter().enumerate() {
        let count = matches.iter().filter(|(of, _)| *of == index).count();
        writeln!(log, "{}: {count} files", target.shown).expect("a String takes everything");
        if let Some(Unnameable { count, first }) = unnameable.get(&index) {
            let first = first.escape_debug();
            writeln!(log, "{}: {count} files left out, for their names are not UTF-8: {first}", target.shown)
                .expect("a String takes everything");
        }
    }
    let piece = |(index, path): (usize, RelativePath)| {
        let Target { place, path: name, headers, .. } = &targets[index];
        let name = patterns[index].blob_name(&path, name.as_deref());
        let key = if place.prefix.is_empty() { name } else { format!("{}/{name}", place.prefix) };
        Piece { path, place: place.clone(), key, headers: headers.clone() }
    };
    let pieces = matches.into_iter().map(piece).collect();
    let unnameable =
        unnameable.into_values().reduce(|all, unnameable| Unnameable { count: all.count + unnameable.count, first: all.first });
    Ok(Plan { folder: Arc::new(folder), pieces, lines: log, unnameable })
}

fn is_wanted(file: &OutputFile, is_success: bool) -> bool {
    match file.upload_options.upload_condition {
        UploadCondition::TaskSuccess => is_success,
        UploadCondition::TaskFailure => !is_success,
        UploadCondition::TaskCompletion => true,
    }
}

fn target(context: &NodeContext, file: &OutputFile) -> Result<Target, Fault> {
    let container = &file.destination.container;
    let url = &container.container_url;
    let blobs = context.blobs.as_ref().ok_or_else(|| fault("FileUploadAccessDenied", "this node has no blob store", url, None))?;
    let place = blobs
        .locate(url)
        .map_err(|error| fault(error.code_for_upload(), "the container cannot be used", url, Some(("Reason", error.to_string()))))?;
    let headers = BlobHeaders::read(container.upload_headers.iter().map(|header| (header.name.as_str(), header.value.as_str())))
        .map_err(|(name, reason)| misc(&format!("the upload header {name} cannot be used: {reason}")))?;
    Ok(Target { shown: file.file_pattern.clone(), place, path: container.path.clone(), headers: Arc::new(headers) })
}

fn pattern(file: &OutputFile, source: &Source) -> Result<Pattern, Fault> {
    let text = expand(&file.file_pattern, &source.environment);
    Pattern::parse(&text, &source.folder.to_string_lossy()).map_err(|error| {
        let mut fault = misc(&format!("the file pattern cannot be used: {error}"));
        fault.details.push(("FilePattern".to_owned(), file.file_pattern.chars().take(256).collect()));
        fault
    })
}

async fn send(context: &NodeContext, run: RunKey, folder: Arc<Folder>, pieces: Vec<Piece>, log: &mut String) -> Result<u64, Fault> {
    match context.may_publish(run).await {
        Some(true) => {}
        Some(false) => return Err(misc("another run owns the task")),
        None => return Err(fault("FileUploadTimedOut", "the dispatcher did not say whether the run may upload", "", None)),
    }
    let blobs = context.blobs.as_ref().ok_or_else(|| misc("this node has no blob store"))?;
    let folder = &folder;
    let sending = stream::iter(pieces)
        .map(|piece| async move { retry_on_shortage(|| send_one(blobs, folder, &piece)).await })
        .buffered(UPLOADS_IN_FLIGHT);
    let sent: Vec<(String, u64)> = sending.try_collect().await?;
    for (line, _) in &sent {
        log.push_str(line);
    }
    Ok(sent.iter().map(|(_, bytes)| bytes).sum())
}

async fn send_one(blobs: &Blobs, folder: &Arc<Folder>, piece: &Piece) -> Result<(String, u64), Fault> {
    let Piece { path, place, key, headers } = piece;
    let url = format!("s3://{}/{key}", place.bucket);
    let named = |mut fault: Fault| {
        fault.details.push(("FilePath".to_owned(), path.to_string()));
        fault
    };
    let (from, wanted) = (folder.clone(), path.clone());
    let opened = try_off_loop(move || from.open_file(&wanted)).await;
    let file = opened.map_err(|error| named(blame(misc(&format!("the file cannot be read: {error}")), &error)))?;
    // By its descriptor, so that the uploaded file is the one that was found.
    let handle = format!("/proc/self/fd/{}", file.as_raw_fd());
    let bytes = blobs.upload_file_with(&place.bucket, key, Path::new(&handle), headers).await.map_err(|error| {
        let reason = Some(("Reason", error.to_string()));
        named(blame(fault(error.code_for_upload(), "the blob store did not take the file", &url, reason), &error))
    })?;
    Ok((format!("{path} -> {url} ({bytes} bytes)\n"), bytes))
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

fn write_logs(folder: &Path, logs: &[(&str, String)]) -> io::Result<()> {
    let folder = Folder::open(folder)?;
    logs.iter().try_for_each(|(name, text)| folder.create_anew(name, LOG_MODE)?.write_all(text.as_bytes()))
}

fn misc(message: &str) -> Fault {
    Fault { code: "FileUploadMiscError".to_owned(), message: message.to_owned(), details: vec![] }
}
