//! Fills a new store with one job, straight through the store's writing half.

use std::path::Path;

use contract::{
    ids::{Fence, JobUid, TaskId, TaskUid},
    outcome::{Fault, Stream},
    spec::FillType,
    state::{AllocationState, DeallocationOption, JobState, PoolState},
    time::Timestamp,
};
use model::{job::Counts, pool::JobOrder, task::Failure};
use store::{
    Store,
    records::{Ending, JobRecord, NewTaskRecord, PoolRecord, Streams},
    sqlite::SqliteStore,
};

/// Tasks in one transaction.
const BATCH: usize = 10_000;
/// Of so many completed tasks one has failed.
const FAILED_EVERY: u64 = 1_000;
const DOCUMENT: &str = r#"{"commandLine":"/bin/sh -c 'render --frame 17 --scene s3.blend'","displayName":"a frame","constraints":{"maxWallClockTime":"PT1H","retentionTime":"P7D","maxTaskRetryCount":0},"userIdentity":{"autoUser":{"scope":"pool","elevationLevel":"nonadmin"}},"requiredSlots":1}"#;

/// Pool `Pool`, job `Job` and its tasks; so many of a hundred are completed.
pub fn fill(folder: &Path, tasks: usize, percent: u64) -> Result<(), Box<dyn std::error::Error>> {
    let mut store = SqliteStore::open(&folder.join("store.sqlite"))?;
    let loaded = store.load()?;
    let now = Timestamp::now();
    let mut job = job(loaded.next_job, now)?;
    store.begin()?;
    store.put_pool(&pool(now)?, Some("{}"))?;
    store.put_job(&job, Some("{}"))?;
    store.commit()?;
    let mut version = loaded.next_version.max(10);
    for batch in 0..tasks.div_ceil(BATCH) {
        store.begin()?;
        for index in batch * BATCH..tasks.min((batch + 1) * BATCH) {
            let (uid, id) = (TaskUid(loaded.next_task + index as u64), format!("task-{index:07}").parse::<TaskId>()?);
            version += 1;
            store.insert_task(job.uid, &record(uid, &id, version, now))?;
            if index as u64 % 100 < percent {
                let is_failure = (index as u64 / 100).is_multiple_of(FAILED_EVERY / 100) && index.is_multiple_of(100);
                version += 1;
                store.end(uid, &ending(is_failure, now)?, version)?;
                *(if is_failure { &mut job.tasks.failed } else { &mut job.tasks.succeeded }) += 1;
            } else {
                job.tasks.active += 1;
            }
        }
        (job.slots, job.version) = (job.tasks, version);
        store.put_job(&job, None)?;
        store.commit()?;
    }
    Ok(())
}

fn record(uid: TaskUid, id: &TaskId, version: u64, at: Timestamp) -> NewTaskRecord<'_> {
    NewTaskRecord {
        uid,
        id,
        document: DOCUMENT,
        exit_conditions: None,
        slots: 1,
        retries_max: 0,
        depends_on: &[],
        fits: true,
        fence: Fence(1),
        version,
        at,
    }
}

fn ending(is_failure: bool, at: Timestamp) -> Result<Ending, Box<dyn std::error::Error>> {
    let fault = Fault { code: "FailureExitCode".into(), message: "The task exited with an exit code.".into(), details: vec![] };
    Ok(Ending {
        fence: Fence(2),
        has_succeeded: !is_failure,
        exit_code: Some(i32::from(is_failure)),
        failure: is_failure.then_some(Failure { is_user_error: true, fault }),
        streams: Streams::Told,
        stdout: Stream::Inline { bytes: b"frame 17 rendered in 12 s\n".to_vec() },
        stderr: Stream::Empty,
        started_at: Some(at),
        node: Some("node-0001".parse()?),
        at,
    })
}

fn pool(at: Timestamp) -> Result<PoolRecord, Box<dyn std::error::Error>> {
    Ok(PoolRecord {
        id: "Pool".parse()?,
        version: 1,
        state: PoolState::Active,
        state_at: at,
        allocation: AllocationState::Steady,
        allocation_at: at,
        target_dedicated: 0,
        target_low_priority: 0,
        settings: Default::default(),
        deallocation: DeallocationOption::Requeue,
        resize_errors: Vec::new(),
        slots_per_node: 1,
        fill: FillType::Spread,
        job_order: JobOrder::None,
        start_task: None,
        packages: Vec::new(),
        policy: None,
        scaling: None,
        decision: None,
        next_node: 1,
        created_at: at,
        modified_at: at,
    })
}

fn job(uid: u64, at: Timestamp) -> Result<JobRecord, Box<dyn std::error::Error>> {
    Ok(JobRecord {
        uid: JobUid(uid),
        id: "Job".parse()?,
        version: 2,
        state: JobState::Active,
        state_at: at,
        previous: None,
        pool: "Pool".parse()?,
        auto_pool: None,
        scheduling_error: None,
        priority: 0,
        max_parallel: -1,
        environment: Vec::new(),
        max_task_retry_count: 0,
        max_wall_clock: None,
        terminate_when_complete: false,
        performs_exit_options: false,
        uses_dependencies: false,
        ends_with: None,
        created_at: at,
        modified_at: at,
        ended_at: None,
        terminate_reason: None,
        tasks: Counts::default(),
        slots: Counts::default(),
    })
}
