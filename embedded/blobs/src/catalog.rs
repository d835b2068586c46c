//! The catalogue of buckets, objects and uploads: one SQLite file in WAL mode, synced at every commit.
//! Opened by the server; every operation reads through `Readers`, and only the writer changes it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension};
use tokio::sync::Semaphore;

use crate::error::Error;
use crate::files;

/// Version of the folder's format; a newer one is refused, an older one is migrated when it is opened.
const FORMAT: i64 = 2;
const READERS_MAX: usize = 8;
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const STATEMENTS_MAX: usize = 64;
/// Content numbers reserved for one run of the server; skipped ones are never used again.
const SEQUENCE_STEP: i64 = 1 << 40;

const SCHEMA: &str = "
CREATE TABLE sequence (next INTEGER NOT NULL);
INSERT INTO sequence VALUES (1);
CREATE TABLE buckets (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_ms INTEGER NOT NULL
);
CREATE TABLE objects (
    bucket INTEGER NOT NULL,
    key BLOB NOT NULL,
    content INTEGER NOT NULL,
    is_inline INTEGER NOT NULL,
    size INTEGER NOT NULL,
    etag TEXT NOT NULL,
    modified_ms INTEGER NOT NULL,
    attributes TEXT NOT NULL,
    PRIMARY KEY (bucket, key)
) WITHOUT ROWID;
CREATE TABLE inline (content INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
CREATE TABLE pieces (
    content INTEGER NOT NULL,
    number INTEGER NOT NULL,
    file TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    PRIMARY KEY (content, number)
) WITHOUT ROWID;
CREATE TABLE uploads (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    bucket INTEGER NOT NULL,
    key BLOB NOT NULL,
    initiated_ms INTEGER NOT NULL,
    attributes TEXT NOT NULL
);
CREATE INDEX uploads_by_key ON uploads (bucket, key, name);
CREATE TABLE parts (
    upload INTEGER NOT NULL,
    number INTEGER NOT NULL,
    file TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    etag TEXT NOT NULL,
    modified_ms INTEGER NOT NULL,
    sums TEXT NOT NULL,
    PRIMARY KEY (upload, number)
) WITHOUT ROWID;
";

/// The changes of format 2.
const LIFT_TO_2: &str = "
CREATE TABLE configurations (
    bucket INTEGER NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (bucket, kind)
) WITHOUT ROWID;
";

/// The opened catalogue, before its parts go to their threads.
#[derive(Debug)]
pub(crate) struct Catalog {
    /// The only connection that writes.
    pub(crate) connection: Connection,
    /// Connections that only read.
    pub(crate) readers: Readers,
    /// The first content number of this run.
    pub(crate) first_number: i64,
    /// Locks the folder against other processes.
    pub(crate) lock: File,
}

impl Catalog {
    /// Opens or creates the catalogue in `data`, and locks the folder for this process.
    pub(crate) fn open(data: &Path) -> Result<Self, Error> {
        let folder = |source| Error::Folder { path: data.to_owned(), source };
        files::make_folder(data).map_err(folder)?;
        let lock = files::open(files::options().truncate(true), &data.join("lock")).map_err(folder)?;
        if lock.try_lock().is_err() {
            return Err(Error::InUse { path: data.to_owned() });
        }
        let path = data.join("catalog.sqlite");
        // SQLite would create it readable by others; its log and its index take the file's mode.
        files::open(&mut files::options(), &path).map_err(folder)?;
        let connection = Connection::open(&path)?;
        prepare(&connection)?;
        let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let begin = |steps: &str| connection.execute_batch(&format!("BEGIN; {steps} PRAGMA user_version = {FORMAT}; COMMIT"));
        match found {
            0 => begin(&format!("{SCHEMA} {LIFT_TO_2}"))?,
            1 => begin(LIFT_TO_2)?,
            FORMAT => {}
            _ => return Err(Error::Format { found, known: FORMAT }),
        }
        let first_number =
            connection.query_row("UPDATE sequence SET next = next + ?1 RETURNING next - ?1", [SEQUENCE_STEP], |row| row.get(0))?;
        let readers = Readers { idle: Arc::default(), permits: Arc::new(Semaphore::new(READERS_MAX)), path };
        Ok(Self { connection, readers, first_number, lock })
    }

    /// True when a row names this file.
    pub(crate) fn is_named(&self, file: &str) -> Result<bool, Error> {
        let found: Option<i64> = self
            .connection
            .prepare_cached("SELECT 1 FROM pieces WHERE file = ?1 UNION ALL SELECT 1 FROM parts WHERE file = ?1")?
            .query_row([file], |row| row.get(0))
            .optional()?;
        Ok(found.is_some())
    }
}

fn prepare(connection: &Connection) -> Result<(), Error> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000;
         PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -16384; PRAGMA temp_store = MEMORY;",
    )?;
    Ok(())
}

/// A bounded set of reading connections, used on blocking threads.
#[derive(Clone, Debug)]
pub(crate) struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
    path: PathBuf,
}

impl Readers {
    /// Runs one read on a blocking thread.
    pub(crate) async fn run<T, R>(&self, read: R) -> Result<T, Error>
    where
        T: Send + 'static,
        R: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| Error::Stopping)?;
        let readers = self.clone();
        let job = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match idle {
                Some(connection) => connection,
                None => readers.open()?,
            };
            let outcome = read(&connection);
            readers.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            outcome
        });
        job.await.map_err(|_| Error::Stopping)?
    }

    fn open(&self) -> Result<Connection, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        connection.execute_batch("PRAGMA cache_size = -8192; PRAGMA temp_store = MEMORY;")?;
        Ok(connection)
    }
}
