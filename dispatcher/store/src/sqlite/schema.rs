//! The tables, and the version of their format.
//!
//! What changes with every task is kept in a narrow table (`tasks`); what is written once and read by clients is kept
//! apart (`task_texts`, `job_texts`). The queries of the engine use partial indexes that hold live rows only, however
//! many tasks have ended. A file newer than [`FORMAT`] is refused; an older one is upgraded step by step in
//! [`prepare`].

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::StoreError;

/// The format that this build reads and writes, kept in SQLite's `user_version`.
pub(super) const FORMAT: i64 = 6;

const TABLES: &str = "
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE pools (
    id                  TEXT PRIMARY KEY COLLATE NOCASE,
    version             INTEGER NOT NULL,
    state               TEXT NOT NULL,
    state_at            INTEGER NOT NULL,
    allocation          TEXT NOT NULL,
    allocation_at       INTEGER NOT NULL,
    target_dedicated    INTEGER NOT NULL,
    target_low_priority INTEGER NOT NULL,
    resize_timeout_ms   INTEGER NOT NULL,
    deallocation        TEXT NOT NULL,
    resize_errors       TEXT,
    slots_per_node      INTEGER NOT NULL,
    fill                TEXT NOT NULL,
    job_order           TEXT NOT NULL,
    start_task          TEXT,
    packages            TEXT,
    policy              TEXT,
    scaling             TEXT,
    decision            TEXT,
    next_node           INTEGER NOT NULL,
    created_at          INTEGER NOT NULL,
    modified_at         INTEGER NOT NULL,
    document            TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE pool_usage (
    interval INTEGER NOT NULL,
    pool     TEXT NOT NULL COLLATE NOCASE,
    vm_size  TEXT NOT NULL,
    core_ms  INTEGER NOT NULL,
    PRIMARY KEY (interval, pool)
) WITHOUT ROWID;

CREATE TABLE nodes (
    pool            TEXT NOT NULL COLLATE NOCASE,
    id              TEXT NOT NULL COLLATE NOCASE,
    token           TEXT NOT NULL,
    epoch           INTEGER NOT NULL,
    state           TEXT NOT NULL,
    state_at        INTEGER NOT NULL,
    scheduling      TEXT NOT NULL,
    drain           TEXT,
    is_drained      INTEGER NOT NULL,
    turn            TEXT,
    address         TEXT,
    allocated_at    INTEGER NOT NULL,
    booted_at       INTEGER,
    is_dedicated    INTEGER NOT NULL,
    rank            INTEGER NOT NULL,
    tasks_run       INTEGER NOT NULL,
    tasks_succeeded INTEGER NOT NULL,
    recent          TEXT,
    booted_with     TEXT,
    start_task      TEXT,
    faults          TEXT,
    agent_version   TEXT,
    cores           INTEGER NOT NULL,
    PRIMARY KEY (pool, id)
) WITHOUT ROWID;

CREATE TABLE jobs (
    uid                     INTEGER PRIMARY KEY,
    id                      TEXT NOT NULL UNIQUE COLLATE NOCASE,
    version                 INTEGER NOT NULL,
    state                   TEXT NOT NULL,
    state_at                INTEGER NOT NULL,
    previous_state          TEXT,
    previous_at             INTEGER,
    pool                    TEXT NOT NULL COLLATE NOCASE,
    priority                INTEGER NOT NULL,
    max_parallel            INTEGER NOT NULL,
    environment             TEXT,
    max_task_retry_count    INTEGER NOT NULL,
    max_wall_clock_ms       INTEGER,
    terminate_when_complete INTEGER NOT NULL,
    performs_exit_options   INTEGER NOT NULL,
    uses_dependencies       INTEGER NOT NULL,
    ends_with               INTEGER,
    created_at              INTEGER NOT NULL,
    modified_at             INTEGER NOT NULL,
    ended_at                INTEGER,
    terminate_reason        TEXT,
    tasks_active            INTEGER NOT NULL,
    tasks_running           INTEGER NOT NULL,
    tasks_succeeded         INTEGER NOT NULL,
    tasks_failed            INTEGER NOT NULL,
    slots_active            INTEGER NOT NULL,
    slots_running           INTEGER NOT NULL,
    slots_succeeded         INTEGER NOT NULL,
    slots_failed            INTEGER NOT NULL
);
CREATE INDEX jobs_alive ON jobs (uid) WHERE state <> 'completed';

CREATE TABLE applications (
    id              TEXT PRIMARY KEY COLLATE NOCASE,
    version         INTEGER NOT NULL,
    display_name    TEXT,
    allow_updates   INTEGER NOT NULL,
    default_version TEXT,
    packages        TEXT,
    created_at      INTEGER NOT NULL,
    modified_at     INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE job_schedules (
    id             TEXT PRIMARY KEY COLLATE NOCASE,
    version        INTEGER NOT NULL,
    state          TEXT NOT NULL,
    state_at       INTEGER NOT NULL,
    previous_state TEXT,
    previous_at    INTEGER,
    created_at     INTEGER NOT NULL,
    modified_at    INTEGER NOT NULL,
    ended_at       INTEGER,
    timetable      TEXT NOT NULL,
    next_due       INTEGER,
    last_due       INTEGER,
    next_number    INTEGER NOT NULL,
    recent         TEXT,
    job            TEXT NOT NULL,
    document       TEXT NOT NULL,
    not_until      INTEGER,
    not_after      INTEGER
) WITHOUT ROWID;

CREATE TABLE job_texts (
    uid      INTEGER PRIMARY KEY,
    document TEXT NOT NULL
);

CREATE TABLE tasks (
    uid            INTEGER PRIMARY KEY,
    job            INTEGER NOT NULL,
    id             TEXT NOT NULL COLLATE NOCASE,
    state          INTEGER NOT NULL DEFAULT 0,
    ready          INTEGER NOT NULL,
    live           INTEGER NOT NULL DEFAULT 0,
    fits           INTEGER NOT NULL,
    blockers       INTEGER NOT NULL,
    satisfies      INTEGER NOT NULL DEFAULT 0,
    plain          TEXT,
    attempt        INTEGER NOT NULL DEFAULT 0,
    fence          INTEGER NOT NULL,
    slots          INTEGER NOT NULL,
    crashes        INTEGER NOT NULL DEFAULT 0,
    retries        INTEGER NOT NULL DEFAULT 0,
    retries_max    INTEGER NOT NULL,
    retried_at     INTEGER,
    requeues       INTEGER NOT NULL DEFAULT 0,
    requeued_at    INTEGER,
    version        INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,
    modified_at    INTEGER NOT NULL,
    state_at       INTEGER NOT NULL,
    previous_state INTEGER,
    previous_at    INTEGER,
    released_at    INTEGER,
    node           TEXT COLLATE NOCASE,
    pool           TEXT COLLATE NOCASE,
    run            BLOB,
    epoch          INTEGER,
    started_at     INTEGER,
    ended_at       INTEGER,
    exit_code      INTEGER,
    success        INTEGER,
    UNIQUE (job, id)
);
CREATE INDEX tasks_ready ON tasks (job, uid) WHERE ready = 1;
CREATE INDEX tasks_live ON tasks (uid) WHERE live = 1;
CREATE INDEX tasks_state ON tasks (job, state, id);
CREATE INDEX tasks_failed ON tasks (job, id) WHERE success = 0;
CREATE INDEX tasks_plain ON tasks (job, plain) WHERE plain IS NOT NULL;

CREATE TABLE task_texts (
    uid             INTEGER PRIMARY KEY,
    document        TEXT NOT NULL,
    exit_conditions TEXT,
    failure         TEXT,
    stdout          BLOB,
    stderr          BLOB
);

CREATE TABLE outbox (
    uid INTEGER PRIMARY KEY
);

CREATE TABLE dependencies (
    job   INTEGER NOT NULL,
    needs TEXT NOT NULL COLLATE NOCASE,
    uid   INTEGER NOT NULL,
    PRIMARY KEY (job, needs, uid)
) WITHOUT ROWID;
";

/// Added by format 2.
const SUMS: &str = "
CREATE TABLE task_sums (
    owner     INTEGER PRIMARY KEY,
    user_ms   INTEGER NOT NULL,
    kernel_ms INTEGER NOT NULL,
    wall_ms   INTEGER NOT NULL,
    in_bytes  INTEGER NOT NULL,
    out_bytes INTEGER NOT NULL,
    wait_ms   INTEGER NOT NULL
);

CREATE TABLE job_sums (
    owner     INTEGER PRIMARY KEY,
    user_ms   INTEGER NOT NULL,
    kernel_ms INTEGER NOT NULL,
    wall_ms   INTEGER NOT NULL,
    in_bytes  INTEGER NOT NULL,
    out_bytes INTEGER NOT NULL,
    wait_ms   INTEGER NOT NULL,
    retries   INTEGER NOT NULL
);

CREATE TABLE pool_sums (
    owner             TEXT PRIMARY KEY COLLATE NOCASE,
    dedicated_core_ms INTEGER NOT NULL
) WITHOUT ROWID;
";

/// Added by format 3: a job's connection to the pool created for it, why that pool could not be created, and the pool
/// of a schedule.
const AUTO_POOLS: &str = "
ALTER TABLE jobs ADD COLUMN auto_pool TEXT;
ALTER TABLE jobs ADD COLUMN scheduling_error TEXT;
ALTER TABLE job_schedules ADD COLUMN auto_pool TEXT COLLATE NOCASE;
";

/// Added by format 3: job preparation and release.
const JOB_TASKS: &str = "
CREATE TABLE job_chores (
    uid    INTEGER PRIMARY KEY,
    chores TEXT NOT NULL
);

CREATE TABLE sites (
    job            INTEGER NOT NULL,
    node           TEXT NOT NULL COLLATE NOCASE,
    pool           TEXT NOT NULL COLLATE NOCASE,
    site           TEXT NOT NULL,
    preparation_at INTEGER,
    preparation    TEXT,
    release_at     INTEGER,
    release        TEXT,
    PRIMARY KEY (job, node, pool)
) WITHOUT ROWID;
";

/// Added by format 4: finds the few tasks of several slots that may no longer fit their pool's nodes.
const WIDE: &str = "CREATE INDEX tasks_wide ON tasks (job, fits, slots) WHERE slots > 1;";

/// Added by format 4: errands.
const ERRANDS: &str = "
CREATE TABLE errands (
    place INTEGER NOT NULL,
    id    INTEGER NOT NULL,
    what  TEXT NOT NULL,
    PRIMARY KEY (place, id)
) WITHOUT ROWID;
";

/// Added by format 4: until when a task pauses before a retry.
const RESTS: &str = "
ALTER TABLE tasks ADD COLUMN rests_until INTEGER;
CREATE INDEX tasks_resting ON tasks (job, rests_until) WHERE rests_until IS NOT NULL;
";

/// Added by format 5: messages that were carried out lately, and the answers that wait for ends of tasks.
const SUBMISSIONS: &str = "
CREATE TABLE submissions (
    number     INTEGER PRIMARY KEY,
    pool       TEXT NOT NULL COLLATE NOCASE,
    message_id TEXT NOT NULL,
    digest     BLOB NOT NULL,
    at         INTEGER NOT NULL,
    UNIQUE (pool, message_id)
);

CREATE TABLE awaited (
    number INTEGER PRIMARY KEY,
    job    INTEGER NOT NULL,
    task   INTEGER NOT NULL,
    answer TEXT NOT NULL
);
CREATE INDEX awaited_tasks ON awaited (job, task);
";

/// Added by format 5: functions of pools.
const FUNCTIONS: &str = "
CREATE TABLE functions (
    pool        TEXT NOT NULL COLLATE NOCASE,
    id          TEXT NOT NULL COLLATE NOCASE,
    version     INTEGER NOT NULL,
    active      INTEGER NOT NULL,
    versions    TEXT,
    created_at  INTEGER NOT NULL,
    modified_at INTEGER NOT NULL,
    PRIMARY KEY (pool, id)
) WITHOUT ROWID;
";

/// Added by format 6: triggers, and the events that each has acted on.
const TRIGGERS: &str = "
CREATE TABLE triggers (
    id          TEXT PRIMARY KEY COLLATE NOCASE,
    uid         INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    is_paused   INTEGER NOT NULL,
    spec        TEXT NOT NULL,
    progress    TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    modified_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE seen (
    owner   INTEGER NOT NULL,
    key     TEXT NOT NULL,
    content BLOB NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (owner, key, content)
) WITHOUT ROWID;
";

/// Creates the tables in an empty file, upgrades an older one, and refuses a newer one.
pub(super) fn prepare(connection: &mut Connection) -> Result<(), StoreError> {
    let transaction = Transaction::new(connection, TransactionBehavior::Immediate)?;
    let found = format(&transaction)?;
    check(found)?;
    if found < 1 {
        transaction.execute_batch(TABLES)?;
    }
    if found < 2 {
        transaction.execute_batch(SUMS)?;
    }
    if found < 3 {
        transaction.execute_batch(AUTO_POOLS)?;
        transaction.execute_batch(JOB_TASKS)?;
    }
    if found < 4 {
        transaction.execute_batch(WIDE)?;
        transaction.execute_batch(ERRANDS)?;
        transaction.execute_batch(RESTS)?;
    }
    if found < 5 {
        transaction.execute_batch(SUBMISSIONS)?;
        transaction.execute_batch(FUNCTIONS)?;
    }
    if found < 6 {
        transaction.execute_batch(TRIGGERS)?;
    }
    if found < FORMAT {
        transaction.pragma_update(None, "user_version", FORMAT)?;
    }
    transaction.commit()?;
    Ok(())
}

/// Refuses a file of another format, without changing it.
pub(super) fn verify(connection: &Connection) -> Result<(), StoreError> {
    check(format(connection)?)
}

fn format(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

fn check(found: i64) -> Result<(), StoreError> {
    match found {
        0..=FORMAT => Ok(()),
        _ => Err(StoreError::Format { found, known: FORMAT }),
    }
}
