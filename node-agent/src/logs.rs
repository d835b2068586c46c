//! The agent's own log, on its way to people: uploaded on request, in the background.
//!
//! The log is what stderr is bound to, when that is a file, as it is below the `process` provider.

use std::{fs, path::Path, sync::Arc, time::SystemTime};

use broker_config::{
    message::{Fault, FileReply},
    time::Timestamp,
};

use crate::room::Room;

/// What the log is called in the container.
const NAME: &str = "agent.log";
const STDERR: &str = "/proc/self/fd/2";

/// Begins to upload the log, if it has something of that time; says how many files are on their way.
pub fn upload(room: Arc<Room>, container_url: &str, directory: &str, from: Timestamp, until: Option<Timestamp>) -> FileReply {
    let Some(blobs) = room.blobs.clone() else { return refused("this node has no blob store".to_owned()) };
    let place = match blobs.locate(container_url) {
        Ok(place) => place,
        Err(error) => return refused(format!("the container cannot be used: {error}")),
    };
    if !is_wanted(Path::new(STDERR), from, until) {
        return FileReply::Uploading { files: 0 };
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

/// Whether there is a log that was written to in that time.
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
