//! Rows of unmet dependencies between tasks.
//!
//! Meeting a dependency deletes its row, so nothing is counted twice. Names that are integers are stored as plain
//! decimals (`007` as `7`), because Azure Batch treats both as one.

use std::{borrow::Cow, collections::HashSet};

use contract::ids::{JobUid, TaskId, TaskUid};
use rusqlite::Connection;

use crate::{
    StoreError,
    sqlite::cells::{self, Cells},
};

/// A name as dependencies store it.
pub(super) fn plain(name: &str) -> Cow<'_, str> {
    let (sign, digits) = match name.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", name),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Cow::Borrowed(name);
    }
    match digits.trim_start_matches('0') {
        "" => Cow::Borrowed("0"),
        rest if rest.len() == digits.len() => Cow::Borrowed(name),
        rest => Cow::Owned(format!("{sign}{rest}")),
    }
}

/// The plain form of a name, when it differs from the name.
pub(super) fn other_spelling(name: &str) -> Option<Cow<'_, str>> {
    Some(plain(name)).filter(|plain| plain.as_ref() != name)
}

const IS_MET: &str = "
SELECT EXISTS (SELECT 1 FROM tasks WHERE job = ?1 AND id = ?2 AND satisfies = 1)
    OR EXISTS (SELECT 1 FROM tasks WHERE job = ?1 AND plain = ?2 AND satisfies = 1) AS satisfies";

/// The dependencies that are not met yet, each once.
pub(super) fn open<'a>(connection: &Connection, job: JobUid, needs: &'a [String]) -> Result<Vec<Cow<'a, str>>, StoreError> {
    if needs.is_empty() {
        return Ok(Vec::new());
    }
    let mut seen = HashSet::with_capacity(needs.len());
    let mut open = Vec::new();
    let mut is_met = connection.prepare_cached(IS_MET)?;
    for need in needs {
        let need = plain(need);
        if !seen.insert(need.to_ascii_lowercase()) {
            continue;
        }
        let mut rows = is_met.query((job.0.cast_signed(), &need))?;
        if !rows.next()?.map_or(Ok(false), |row| Cells::new(row, "tasks").flag("satisfies"))? {
            open.push(need);
        }
    }
    Ok(open)
}

/// Stores the unmet dependencies of a task.
pub(super) fn insert(connection: &Connection, job: JobUid, uid: TaskUid, needs: &[Cow<'_, str>]) -> Result<(), StoreError> {
    if needs.is_empty() {
        return Ok(());
    }
    let mut statement = connection.prepare_cached("INSERT INTO dependencies (job, needs, uid) VALUES (?1, ?2, ?3)")?;
    for need in needs {
        statement.execute((job.0.cast_signed(), need, uid.0.cast_signed()))?;
    }
    Ok(())
}

/// By a range of rows, because thousands may depend on one task; NULL when fewer rows are left.
const DELETE_SOME: &str = "
DELETE FROM dependencies WHERE job = ?1
    AND (needs, uid) <= (SELECT needs, uid FROM dependencies WHERE job = ?1 ORDER BY needs, uid LIMIT 1 OFFSET ?2 - 1)";

/// Deletes some dependencies of a deleted job; returns how many.
pub(super) fn delete_some(connection: &Connection, job: JobUid, count: usize) -> Result<usize, StoreError> {
    if count == 0 {
        return Ok(0);
    }
    let uid = job.0.cast_signed();
    match connection.prepare_cached(DELETE_SOME)?.execute((uid, count.cast_signed()))? {
        0 => Ok(connection.prepare_cached("DELETE FROM dependencies WHERE job = ?1")?.execute([uid])?),
        gone => Ok(gone),
    }
}

const MARK: &str = "UPDATE tasks SET satisfies = 1 WHERE job = ?1 AND id = ?2";

const MEET: &str = "DELETE FROM dependencies WHERE job = ?1 AND needs = ?2 RETURNING uid";

const UNBLOCK: &str = "
UPDATE tasks SET blockers = blockers - 1, ready = (blockers = 1 AND fits = 1 AND state = 0 AND live = 0)
WHERE uid = ?1 RETURNING ready";

/// Records that a task satisfies its dependents, and returns those that wait for nothing else.
pub(super) fn satisfy(connection: &Connection, job: JobUid, task: &TaskId) -> Result<Vec<TaskUid>, StoreError> {
    connection.prepare_cached(MARK)?.execute((job.0.cast_signed(), task.as_str()))?;
    let mut statement = connection.prepare_cached(MEET)?;
    // A row that names no task is skipped.
    let waiting = cells::task_uids(statement.query((job.0.cast_signed(), plain(task.as_str())))?)?;
    let mut unblock = connection.prepare_cached(UNBLOCK)?;
    let mut free = Vec::new();
    for uid in waiting {
        let mut rows = unblock.query([uid.0.cast_signed()])?;
        // A task that was deleted meanwhile has no row.
        if let Some(row) = rows.next()?
            && Cells::new(row, "tasks").flag("ready")?
        {
            free.push(uid);
        }
        // SQLite has completed an UPDATE with RETURNING only when its last row was read.
        while rows.next()?.is_some() {}
    }
    free.sort_unstable();
    Ok(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_lose_their_leading_zeros_and_other_names_stay() {
        for (name, expected) in [
            ("4", "4"),
            ("004", "4"),
            ("0", "0"),
            ("000", "0"),
            ("-04", "-4"),
            ("-0", "0"),
            ("0a", "0a"),
            ("-", "-"),
            ("", ""),
            ("A-1", "A-1"),
        ] {
            assert_eq!(plain(name), expected, "{name}");
        }
        assert_eq!(other_spelling("4"), None);
        assert_eq!(other_spelling("04").as_deref(), Some("4"));
    }
}
