//! Opens connections, and locks the file against a second writer.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    time::Duration,
};

use broker_config::private;
use rusqlite::{Connection, OpenFlags};

use crate::{StoreError, sqlite::schema};

/// How long a connection waits for another one's lock.
const BUSY_MAX: Duration = Duration::from_secs(5);
/// Page cache of the writer.
const WRITER_CACHE_KIB: i64 = 32 * 1024;
/// Page cache of each reader.
const READER_CACHE_KIB: i64 = 4 * 1024;
/// Part of the file that the writer maps into memory.
const WRITER_MAP_BYTES: i64 = 32 * 1024 * 1024;
/// Pages in the write-ahead log before a checkpoint.
const CHECKPOINT_PAGES: i64 = 4_000;
/// Size to which the log is truncated after a checkpoint.
const LOG_BYTES_MAX: i64 = 64 * 1024 * 1024;
/// Prepared statements that each connection keeps.
const STATEMENTS_MAX: usize = 64;

/// Opens the writing connection of a file and takes its lock.
pub(super) fn writer(path: &Path) -> Result<(Connection, File), StoreError> {
    let lock = lock(path)?;
    // SQLite would let others read it; its log and its index take the file's mode.
    private::file(path).map_err(|source| StoreError::File { path: path.display().to_string(), source })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_MAX)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    connection.pragma_update(None, "mmap_size", WRITER_MAP_BYTES)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES_MAX)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    schema::prepare(&mut connection)?;
    Ok((connection, lock))
}

/// Opens a connection that cannot write.
pub(super) fn reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_MAX)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    schema::verify(&connection)?;
    Ok(connection)
}

/// The operating system releases the lock with the process, so the file may stay.
fn lock(path: &Path) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let failed = |source| StoreError::File { path: name.display().to_string(), source };
    let file = private::open(private::options().create(true).truncate(false).write(true), &name).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: path.display().to_string() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}
