//! Files of a task: kept streams of an ended task from the store, everything else from the node.
//!
//! ```text
//! stdout.txt, stderr.txt of a run that is over ── inline in its row, or in our bucket: they outlive the node
//! every other file ── the node, below workitems/{job}/job-1/{task}
//! ```

use axum::body::Body;
use contract::{message::FileEntry, outcome::Stream, state::TaskState};
use engine::command::Command;
use model::{
    refusal::{Code, Refusal},
    task::StreamName,
};
use store::rows::{JobRow, TaskRow};

use crate::{
    answer::Answer,
    call::Call,
    file_answer::{self, Range, STREAM_MODE, Wanted},
    nodes::place::Place,
    state::ApiState,
    tasks::directory,
    transfer,
};

const STREAMS: [&str; 2] = ["stderr.txt", "stdout.txt"];

/// The kept stream that a path names.
fn kept<'a>(row: &'a TaskRow, path: &str) -> Option<(&'a Stream, FileEntry)> {
    let stream = match path {
        "stdout.txt" => &row.stdout,
        "stderr.txt" => &row.stderr,
        _ => return None,
    };
    let length = match stream {
        Stream::Empty => 0,
        Stream::Inline { bytes } => bytes.len() as u64,
        Stream::Blob { bytes, .. } => *bytes,
        Stream::Node { .. } => return None,
    };
    let modified_at = row.ended_at.unwrap_or(row.modified_at);
    let created_at = match row.state {
        TaskState::Completed | TaskState::Active if *stream != Stream::Empty => row.started_at.unwrap_or(modified_at),
        TaskState::Completed => row.started_at?,
        _ => return None,
    };
    Some((stream, FileEntry { name: path.to_owned(), is_directory: false, length, modified_at, created_at, mode: STREAM_MODE }))
}

/// The task's directory on its node.
fn place(job: &JobRow, row: &TaskRow) -> Result<Place, Refusal> {
    let node = row.node.clone().ok_or_else(|| {
        Refusal::new(Code::TaskFilesUnavailable, "The task has no files because it has not run on a node.")
            .with("TaskState", row.state)
            .hint("Wait until the task runs.")
    })?;
    Ok(Place { pool: row.pool.as_ref().unwrap_or(&job.pool).clone(), node, directory: directory(&job.id, &row.id) })
}

/// Refuses files whose node has left the pool, instead of waiting for an answer.
async fn reachable(api: &ApiState, job: &JobRow, row: &TaskRow) -> Result<Place, Refusal> {
    let place = place(job, row)?;
    match api.node(&place.pool, &place.node).await {
        Ok(_) => Ok(place),
        Err(refusal) if matches!(refusal.code, Code::NodeNotFound | Code::PoolNotFound) => {
            Err(Refusal::new(Code::TaskFilesUnavailable, "The task's files went with the node that held them.")
                .with("NodeId", &place.node)
                .hint("Use outputFiles for what shall outlive its node; stdout.txt and stderr.txt do."))
        }
        Err(refusal) => Err(refusal),
    }
}

/// Bytes of a task's file.
pub async fn get(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let path = file_answer::path(call.value(2))?;
    let (job, row) = api.task(&call.job()?, &call.task()?).await?;
    let Some((stream, entry)) = kept(&row, path) else {
        return reachable(api, &job, &row).await?.content(api, call, path).await;
    };
    let range = Range::within(Range::read(&call.headers)?, entry.length)?;
    if let Some(answer) = file_answer::not_modified(call, &entry)? {
        return Ok(answer);
    }
    let length = range.end - range.start;
    let body = match stream {
        Stream::Inline { bytes } => Body::from(bytes[range.start as usize..range.end as usize].to_vec()),
        Stream::Blob { key, .. } if length > 0 => transfer::open(api, key, range).await?,
        _ => Body::empty(),
    };
    Ok(file_answer::content(call, &entry, body, length))
}

/// Properties of a task's file.
pub async fn head(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let path = file_answer::path(call.value(2))?;
    let (job, row) = api.task(&call.job()?, &call.task()?).await?;
    match kept(&row, path) {
        Some((_, entry)) => {
            let unmodified = file_answer::not_modified(call, &entry)?;
            Ok(unmodified.unwrap_or_else(|| file_answer::properties(call, &entry)))
        }
        None => reachable(api, &job, &row).await?.properties(api, call, path).await,
    }
}

/// Deletes a task's file from its node, and a kept stream from the store as well.
pub async fn delete(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let path = file_answer::path(call.value(2))?;
    call.query.flag("recursive")?;
    let (job, row) = api.task(&call.job()?, &call.task()?).await?;
    let removed = match reachable(api, &job, &row).await {
        Ok(place) => place.remove(api, call, path).await,
        Err(refusal) => Err(refusal),
    };
    if kept(&row, path).is_none() {
        return removed;
    }
    match removed {
        Err(refusal) if !matches!(refusal.code, Code::FileNotFound | Code::TaskFilesUnavailable) => return Err(refusal),
        _ => {}
    }
    let name = if path == STREAMS[0] { StreamName::Stderr } else { StreamName::Stdout };
    api.change(Command::ForgetStream(job.id, row.id.clone(), name)).await?;
    Ok(Answer::empty(200))
}

/// Adds kept streams to a page of entries that lacks them.
fn merge(entries: &mut Vec<FileEntry>, has_more: bool, after: Option<&str>, streams: Vec<FileEntry>) {
    for stream in streams {
        let is_before = after.is_some_and(|after| stream.name.as_str() <= after);
        let is_later = has_more && entries.last().is_some_and(|last| stream.name > last.name);
        if is_before || is_later {
            continue;
        }
        match entries.iter().position(|entry| entry.name == stream.name) {
            Some(index) => entries[index] = stream,
            None => {
                let index = entries.iter().position(|entry| entry.name > stream.name).unwrap_or(entries.len());
                entries.insert(index, stream);
            }
        }
    }
}

/// A task's files: those on the node, and kept streams.
pub async fn list(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let wanted = Wanted::read(call)?;
    let (job, row) = api.task(&call.job()?, &call.task()?).await?;
    let streams: Vec<_> = STREAMS.iter().filter_map(|name| kept(&row, name)).map(|(_, entry)| entry).collect();
    let found = match reachable(api, &job, &row).await {
        Ok(place) => place.entries(api, &wanted).await,
        Err(refusal) => Err(refusal),
    };
    let (mut entries, mut has_more) = match found {
        Ok(found) => found.unwrap_or_default(),
        Err(refusal) if refusal.code == Code::TaskFilesUnavailable && !streams.is_empty() => {
            tracing::debug!(%refusal, "listing kept streams only");
            Default::default()
        }
        Err(refusal) => return Err(refusal),
    };
    merge(&mut entries, has_more, wanted.paging.after.as_deref(), streams);
    has_more |= entries.len() > wanted.paging.rows_max;
    entries.truncate(wanted.paging.rows_max);
    Ok(file_answer::list(call, &wanted, &entries, has_more))
}

#[cfg(test)]
mod tests {
    use contract::time::Timestamp;

    use super::*;

    fn entry(name: &str, length: u64) -> FileEntry {
        FileEntry { name: name.into(), is_directory: false, length, modified_at: Timestamp(0), created_at: Timestamp(0), mode: STREAM_MODE }
    }

    fn names(entries: &[FileEntry]) -> Vec<&str> {
        entries.iter().map(|entry| entry.name.as_str()).collect()
    }

    #[test]
    fn kept_streams_take_their_place_once_over_all_pages() {
        let streams = || vec![entry("stderr.txt", 1), entry("stdout.txt", 1)];
        let mut whole = vec![entry("a", 0), entry("stdout.txt", 9), entry("wd", 0)];
        merge(&mut whole, false, None, streams());
        assert_eq!(names(&whole), ["a", "stderr.txt", "stdout.txt", "wd"]);
        assert_eq!(whole[2].length, 1);
        let mut first = vec![entry("a", 0)];
        merge(&mut first, true, None, streams());
        assert_eq!(names(&first), ["a"]);
        let mut last = vec![entry("wd", 0)];
        merge(&mut last, false, Some("a"), streams());
        assert_eq!(names(&last), ["stderr.txt", "stdout.txt", "wd"]);
        let mut after = vec![];
        merge(&mut after, false, Some("stdout.txt"), streams());
        assert!(after.is_empty());
    }
}
