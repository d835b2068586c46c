//! Numbers that are never reused, also after deletions, restarts and crashes.
//!
//! The engine counts. The file stores a bound above every number in use, which is raised by a block in the transaction
//! of the first number beyond it. A restart continues at the bound.

use rusqlite::Connection;

use crate::{StoreError, sqlite::cells::Cells};

/// Numbers by which a bound is raised.
const BLOCK: u64 = 10_000;

/// The counters.
#[derive(Debug, Clone, Copy)]
pub(super) enum Count {
    Task,
    Job,
    Version,
}

impl Count {
    const ALL: [Count; 3] = [Count::Task, Count::Job, Count::Version];

    fn key(self) -> &'static str {
        match self {
            Count::Task => "next_task",
            Count::Job => "next_job",
            Count::Version => "next_version",
        }
    }
}

/// The stored bounds, including changes of the open transaction.
#[derive(Debug, Default)]
pub(super) struct Bounds([u64; 3]);

impl Bounds {
    /// Reads the bounds, after opening and after a rollback.
    pub(super) fn read(connection: &Connection) -> Result<Bounds, StoreError> {
        let mut bounds = Bounds::default();
        for count in Count::ALL {
            bounds.0[count as usize] = meta(connection, count.key())?.unwrap_or(1);
        }
        Ok(bounds)
    }

    /// Larger than every number in use.
    pub(super) fn next(&self, count: Count) -> u64 {
        self.0[count as usize]
    }

    /// Raises the bound above a number in use.
    pub(super) fn note(&mut self, connection: &Connection, count: Count, number: u64) -> Result<(), StoreError> {
        let bound = &mut self.0[count as usize];
        if number < *bound {
            return Ok(());
        }
        let raised = number.saturating_add(BLOCK);
        put_meta(connection, count.key(), raised)?;
        *bound = raised;
        Ok(())
    }
}

/// A number that belongs to the file as a whole.
pub(super) fn meta(connection: &Connection, key: &str) -> Result<Option<u64>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
    let mut rows = statement.query([key])?;
    rows.next()?.map(|row| Cells::new(row, "meta").number("value")).transpose()
}

/// Stores a number that belongs to the file as a whole.
pub(super) fn put_meta(connection: &Connection, key: &str, value: u64) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?;
    statement.execute((key, value.cast_signed()))?;
    Ok(())
}
