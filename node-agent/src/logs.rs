//! Uploads the agent's own log on request, in the background.
//!
//! The log is the file that stderr is redirected to, as the `process` provider does.

use std::{fs, path::Path, sync::Arc, time::SystemTime};

use contract::{message::FileReply, outcome::Fault, time::Timestamp};

use crate::{context::NodeContext, off_loop::off_loop};

/// Name of the log in the container.
const NAME: &str = "agent.log";
const STDERR: &str = "/proc/self/fd/2";

/// Begins to upload the log, if it was written in that time; returns how many files are being uploaded.
pub async fn upload(
    context: Arc<NodeContext>,
    container_url: &str,
    directory: &str,
    from: Timestamp,
    until: Option<Timestamp>,
) -> FileReply {
    let Some(blobs) = context.blobs.clone() else { return refused("this node has no blob store".to_owned()) };
    let place = match blobs.locate(container_url) {
        Ok(place) => place,
        Err(error) => return refused(format!("the container cannot be used: {error}")),
    };
    match off_loop(move || is_wanted(Path::new(STDERR), from, until)).await {
        Ok(true) => {}
        Ok(false) => return FileReply::Uploading { files: 0 },
        Err(error) => return refused(format!("the log cannot be looked at: {error}")),
    }
    let parts = [place.prefix.as_str(), directory, NAME];
    let key = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
    tokio::spawn(async move {
        match blobs.upload_file(&place.bucket, &key, Path::new(STDERR)).await {
            Ok(bytes) => tracing::info!(bytes, bucket = place.bucket, key, "uploaded the agent's log"),
            Err(error) => tracing::warn!(%error, bucket = place.bucket, key, "the agent's log was not uploaded"),
        }
    });
    FileReply::Uploading { files: 1 }
}

/// Whether the log exists and was written to in that time.
fn is_wanted(path: &Path, from: Timestamp, until: Option<Timestamp>) -> bool {
    let Ok(file) = fs::metadata(path) else { return false };
    let at = |time: std::io::Result<SystemTime>| {
        let since = time.ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        i64::try_from(since.as_millis()).ok().map(Timestamp)
    };
    let is_late_enough = at(file.modified()).is_none_or(|modified| modified >= from);
    let is_early_enough = until.zip(at(file.created())).is_none_or(|(until, created)| created <= until);
    file.is_file() && file.len() > 0 && is_late_enough && is_early_enough
}

fn refused(message: String) -> FileReply {
    FileReply::Refused(Fault { code: "InvalidInput".to_owned(), message, details: vec![] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_counts_when_it_was_written_to_in_the_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        assert!(!is_wanted(&path, Timestamp(0), None));
        fs::write(&path, "").unwrap();
        assert!(!is_wanted(&path, Timestamp(0), None), "an empty log");
        fs::write(&path, "line").unwrap();
        let now = Timestamp::now();
        assert!(is_wanted(&path, Timestamp(0), None) && is_wanted(&path, Timestamp(0), Some(now.plus_ms(60_000))));
        assert!(!is_wanted(&path, now.plus_ms(60_000), None), "it ended before");
        assert!(!is_wanted(folder.path(), Timestamp(0), None), "a folder");
    }
}
