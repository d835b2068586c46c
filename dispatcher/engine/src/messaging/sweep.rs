//! Sweeps Piecework's bucket for blobs that no row refers to: streams of deleted tasks and of superseded attempts, and
//! file transfers whose readers are gone. Also ends the retention of streams.
//!
//! No row knows what a run ships after its task was deleted, or what a node uploads after its reader went away. A
//! dispatcher sweeps only the bucket that its own store has marked first.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clients::blobs::{BlobError, Blobs};
use contract::{ids::TaskUid, outcome::Stream, spec::TaskConstraints, state::TaskState, time::Timestamp};
use serde::Deserialize;
use store::{StoreError, read::Read, rows::TaskRow};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{Engine, command::Command, task_changes::RETENTION};

/// Pause before the first sweep.
const FIRST: Duration = Duration::from_secs(120);
/// Pause between sweeps.
const PERIOD: Duration = Duration::from_secs(3600);
/// Time limit of a sweep; the next one starts where nothing was deleted yet.
const SWEEP_MAX: Duration = Duration::from_secs(1800);
/// Younger streams may belong to a run that has not heard yet that its task is gone.
const STREAM_AGE_MS: i64 = 3_600_000;
/// Younger transfers may still be read.
const TRANSFER_AGE_MS: i64 = 24 * 3_600_000;
/// Blobs per page.
const PAGE: usize = 500;
/// Tasks whose retention ends in one sweep at most; the next sweep finds the others.
const EXPIRED_MAX: usize = 50_000;
/// Key of the blob that holds the id of the store that owns the bucket.
const MARK: &str = "piecework-store";
const MARK_BYTES_MAX: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum SweepError {
    #[error("the bucket does not answer as expected")]
    Blobs(#[from] BlobError),
    #[error("tasks cannot be looked up")]
    Store(#[from] StoreError),
}

/// The result of a sweep.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Swept {
    /// Blobs that belonged to nothing and were deleted.
    deleted: u64,
    /// Tasks whose retention time is over, with the version that was read.
    expired: Vec<(TaskUid, u64)>,
}

/// Sweeps regularly until `stop`.
pub(super) async fn run(blobs: Blobs, read: Arc<dyn Read>, engine: Engine, store: String, mut stop: watch::Receiver<bool>) {
    let began = (Timestamp::now(), Instant::now());
    let mut pause = FIRST;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        pause = PERIOD;
        let swept = tokio::select! {
            swept = tokio::time::timeout(SWEEP_MAX, sweep(&blobs, &*read, &store, now(began))) => swept,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match swept {
            Ok(Ok(Some(Swept { deleted, expired }))) => {
                if deleted > 0 {
                    info!(count = deleted, "blobs that belonged to nobody were deleted");
                }
                expire(&engine, &expired).await;
            }
            Ok(Ok(None)) => info!("the bucket belongs to another store and is not swept"),
            Ok(Err(error)) => {
                warn!(%error, source = ?std::error::Error::source(&error), "the bucket was not swept to the end; it is tried again")
            }
            Err(_) => warn!("the bucket was not swept to the end in time; the next sweep goes on"),
        }
    }
}

/// The present time by the monotonic clock, so that setting the wall clock forward deletes nothing early.
fn now((time, instant): (Timestamp, Instant)) -> Timestamp {
    Timestamp::now().min(time.plus_ms(i64::try_from(instant.elapsed().as_millis()).unwrap_or(i64::MAX)))
}

/// Makes the engine delete the streams of these tasks, in slices between which other commands run.
async fn expire(engine: &Engine, expired: &[(TaskUid, u64)]) {
    for tasks in expired.chunks(PAGE) {
        if let Err(error) = engine.call(Command::ExpireStreams(tasks.to_vec())).await {
            return warn!(?error, "streams whose retention time is over are not deleted yet; the next sweep tries again");
        }
    }
    if !expired.is_empty() {
        info!(tasks = expired.len(), "streams of ended tasks were deleted, because their retention time is over");
    }
}

/// Deletes blobs that belong to nothing and returns the tasks whose retention is over; nothing when another store owns
/// the bucket.
pub(super) async fn sweep(blobs: &Blobs, read: &dyn Read, store: &str, now: Timestamp) -> Result<Option<Swept>, SweepError> {
    if !is_ours(blobs, store).await? {
        return Ok(None);
    }
    let mut swept = Swept::default();
    pages(blobs, read, "transfer/", now.plus_ms(-TRANSFER_AGE_MS), now, &mut swept).await?;
    pages(blobs, read, "logs/", now.plus_ms(-STREAM_AGE_MS), now, &mut swept).await?;
    swept.expired.sort_unstable();
    swept.expired.dedup();
    Ok(Some(swept))
}

async fn is_ours(blobs: &Blobs, store: &str) -> Result<bool, BlobError> {
    let bucket = &blobs.settings().own_bucket;
    match blobs.get(bucket, MARK, None, MARK_BYTES_MAX).await {
        Ok(mark) => Ok(mark == store.as_bytes()),
        Err(BlobError::NotFound { .. }) => {
            blobs.put(bucket, MARK, Bytes::copy_from_slice(store.as_bytes())).await?;
            // When two stores write the mark at once, the last writer owns the bucket.
            Ok(blobs.get(bucket, MARK, None, MARK_BYTES_MAX).await? == store.as_bytes())
        }
        Err(error) => Err(error),
    }
}

async fn pages(
    blobs: &Blobs,
    read: &dyn Read,
    prefix: &str,
    before: Timestamp,
    now: Timestamp,
    swept: &mut Swept,
) -> Result<(), SweepError> {
    let bucket = &blobs.settings().own_bucket;
    let mut after = None;
    loop {
        let page = blobs.list(bucket, prefix, after.as_deref(), PAGE).await?;
        let numbers: HashSet<TaskUid> = page.blobs.iter().filter_map(|blob| Some(run_of(&blob.key)?.0)).collect();
        let tasks: HashMap<TaskUid, TaskRow> = if numbers.is_empty() {
            HashMap::new()
        } else {
            read.tasks_by_number(numbers.iter().copied().collect()).await?.into_iter().map(|(_, task)| (task.uid, task)).collect()
        };
        let old = page.blobs.iter().filter(|blob| blob.modified_at < before).map(|blob| blob.key.as_str());
        // A task whose row cannot be read exists, so its streams stay.
        let there = read.tasks_there(numbers.into_iter().collect()).await?;
        let is_damaged = |uid: TaskUid| there.contains(&uid) && !tasks.contains_key(&uid);
        let is_kept = |key: &str| run_of(key).is_some_and(|(uid, _)| is_damaged(uid));
        let gone: Vec<&str> = old.filter(|key| prefix == "transfer/" || !is_kept(key) && belongs_to_nobody(key, &tasks)).collect();
        blobs.delete_keys(bucket, &gone).await?;
        swept.deleted += gone.len() as u64;
        let room = EXPIRED_MAX.saturating_sub(swept.expired.len());
        swept.expired.extend(tasks.values().filter(|task| is_over(task, now)).map(|task| (task.uid, task.version)).take(room));
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

/// Whether a stream has no row. A key that names no task is left alone. A stream of an attempt that was followed by
/// another is in use only while the task's row names it.
fn belongs_to_nobody(key: &str, tasks: &HashMap<TaskUid, TaskRow>) -> bool {
    let Some((uid, attempt)) = run_of(key) else { return false };
    let Some(task) = tasks.get(&uid) else { return true };
    attempt.is_some_and(|attempt| attempt < task.attempt) && !blobs_of(task).any(|kept| kept == key)
}

fn blobs_of(task: &TaskRow) -> impl Iterator<Item = &str> {
    [&task.stdout, &task.stderr].into_iter().filter_map(|stream| match stream {
        Stream::Blob { key, .. } => Some(key.as_str()),
        _ => None,
    })
}

/// Whether an ended task has streams in the bucket and its retention time is over.
fn is_over(task: &TaskRow, now: Timestamp) -> bool {
    #[derive(Deserialize)]
    struct Document {
        constraints: Option<TaskConstraints>,
    }
    let (TaskState::Completed, Some(ended_at), Some(_)) = (task.state, task.ended_at, blobs_of(task).next()) else { return false };
    let constraints = match serde_json::from_str::<Document>(&task.document) {
        Ok(document) => document.constraints.unwrap_or_default(),
        Err(error) => {
            warn!(%error, uid = task.uid.0, "a task's retention time cannot be read; its streams stay");
            return false;
        }
    };
    let kept = constraints.retention_time.unwrap_or(RETENTION).limit();
    kept.is_some_and(|kept| i64::try_from(kept.as_millis()).is_ok_and(|kept| now.since(ended_at) >= kept))
}

/// Parses `logs/TASK/ATTEMPT/…`.
fn run_of(key: &str) -> Option<(TaskUid, Option<u32>)> {
    let mut parts = key.strip_prefix("logs/")?.split('/');
    let uid = parts.next()?.parse().ok().map(TaskUid)?;
    Some((uid, parts.next().and_then(|attempt| attempt.parse().ok())))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use broker_config::settings::{BlobSettings, Secret};
    use contract::{clock::Clock, spec::TaskSpec};
    use model::{job::NewJob, task::NewTask};
    use scheduler::Timers;
    use store::sqlite::{SqliteReader, SqliteStore};

    use super::*;
    use crate::{Identity, task_token::TaskTokens};

    const HOUR_MS: i64 = 3_600_000;

    /// A store that holds one task, the first.
    async fn store(folder: &std::path::Path) -> SqliteReader {
        let path = folder.join("store.sqlite");
        let identity = Identity {
            account: "a".into(),
            account_url: "http://x".into(),
            join_secret: None,
            heartbeat_ms: 5_000,
            tokens: TaskTokens::new(b"t"),
        };
        let store = Box::new(SqliteStore::open(&path).unwrap());
        let (engine, _outlets, _thread) = Engine::start(store, identity, Timers::default(), Clock::system()).unwrap();
        let new = NewJob {
            id: "job".parse().unwrap(),
            document: "{}".into(),
            pool: "pool".parse::<contract::ids::PoolId>().unwrap().into(),
            priority: 0,
            max_parallel: -1,
            environment: vec![],
            max_task_retry_count: 0,
            max_wall_clock: None,
            terminate_when_complete: false,
            performs_exit_options: false,
            uses_dependencies: false,
            manager: None,
            job_tasks: None,
        };
        engine.call(Command::CreateJob(Box::new(new))).await.unwrap();
        let task = NewTask {
            id: "t".parse().unwrap(),
            document: Default::default(),
            spec: TaskSpec::default(),
            depends_on: vec![],
            exit_conditions: None,
        };
        engine.call(Command::CreateTasks("job".parse().unwrap(), vec![task])).await.unwrap();
        SqliteReader::open(&path, 1).unwrap()
    }

    #[tokio::test]
    async fn what_belongs_to_nobody_goes_and_all_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let read = store(folder.path()).await;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let settings = embedded_blobs::Settings::new(any, folder.path().join("blobs"), "access", "secret");
        let server = embedded_blobs::Blobs::start(settings).await.unwrap();
        let blobs = Blobs::new(BlobSettings {
            endpoint: server.endpoint(),
            region: "us-east-1".into(),
            access_key: "access".into(),
            secret_key: Secret::new("secret"),
            bucket: "user".into(),
            own_bucket: "own".into(),
        })
        .unwrap();
        blobs.ensure_bucket("own").await.unwrap();
        let keys = ["applications/a/1.zip", "logs/1/1/r/stdout", "logs/2/1/r/stdout", "logs/odd", "transfer/x"];
        for key in keys {
            blobs.put("own", key, Bytes::from_static(b"x")).await.unwrap();
        }
        let left = async || {
            let page = blobs.list("own", "", None, 100).await.unwrap();
            page.blobs.into_iter().map(|blob| blob.key).filter(|key| key != MARK).collect::<Vec<_>>()
        };
        let now = Timestamp::now();
        let swept = async |who: &str, hours: i64| {
            let swept = sweep(&blobs, &read, who, now.plus_ms(hours * HOUR_MS)).await.unwrap();
            swept.map(|swept| swept.deleted)
        };
        assert_eq!(swept("me", 0).await, Some(0));
        assert_eq!(left().await, keys, "all of it is young");
        assert_eq!(swept("me", 2).await, Some(1));
        assert_eq!(swept("somebody else", 25).await, None);
        assert_eq!(left().await, ["applications/a/1.zip", "logs/1/1/r/stdout", "logs/odd", "transfer/x"]);
        assert_eq!(swept("me", 25).await, Some(1));
        assert_eq!(left().await, ["applications/a/1.zip", "logs/1/1/r/stdout", "logs/odd"]);
        server.stop().await;
    }

    /// A task that ended at time zero, with the stdout of its second attempt in the bucket.
    fn ended(document: &str) -> TaskRow {
        TaskRow {
            uid: TaskUid(7),
            job_uid: contract::ids::JobUid(1),
            id: "t".parse().unwrap(),
            document: document.into(),
            version: 3,
            state: TaskState::Completed,
            state_at: Timestamp(0),
            previous: None,
            created_at: Timestamp(0),
            modified_at: Timestamp(0),
            attempt: 2,
            node: None,
            pool: None,
            started_at: None,
            ended_at: Some(Timestamp(0)),
            exit_code: Some(0),
            has_succeeded: Some(true),
            failure: None,
            retry_count: 1,
            retried_at: None,
            requeue_count: 0,
            requeued_at: None,
            stdout: Stream::Blob { key: "logs/7/2/r/stdout.txt".into(), bytes: 9 },
            stderr: Stream::Empty,
            slots: 1,
        }
    }

    #[test]
    fn streams_are_kept_for_their_tasks_retention_time() {
        let hours = |hours| Timestamp(hours * HOUR_MS);
        let task = ended(r#"{"constraints":{"retentionTime":"PT2H"}}"#);
        assert!(!is_over(&task, hours(1)) && is_over(&task, hours(2)));
        assert!(!is_over(&TaskRow { state: TaskState::Active, ..task.clone() }, hours(9)), "it runs again");
        assert!(!is_over(&TaskRow { stdout: Stream::Node { bytes: 0 }, ..task.clone() }, hours(9)), "they are gone");
        assert!(!is_over(&ended("{}"), hours(7 * 24 - 1)) && is_over(&ended("{}"), hours(7 * 24)), "a week where nothing is said");
        let for_ever = serde_json::json!({ "constraints": { "retentionTime": contract::period::Period::UNLIMITED } });
        assert!(!is_over(&ended(&for_ever.to_string()), Timestamp(i64::MAX)));
        assert!(!is_over(&ended("not legible"), Timestamp(i64::MAX)));
    }

    #[test]
    fn attempts_that_another_one_has_followed_belong_to_nobody() {
        let tasks = HashMap::from([(TaskUid(7), ended("{}"))]);
        let nobody = |key: &str| belongs_to_nobody(key, &tasks);
        assert!(nobody("logs/7/1/r/stdout.txt") && nobody("logs/8/1/r/stdout.txt"));
        assert!(!nobody("logs/7/2/r/stdout.txt") && !nobody("logs/7/2/other/stdout.txt") && !nobody("logs/7/3/r/stdout.txt"));
        assert!(!nobody("logs/7/odd") && !nobody("logs/odd"));
    }
}
