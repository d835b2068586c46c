//! Rows of submissions by message: which messages were carried out lately, and who waits for the end of which task.

use contract::{
    ids::{JobUid, PoolId, TaskUid},
    time::Timestamp,
};
use model::{
    health::Unreadable,
    submission::{Answer, DIGEST_BYTES, MessageKey},
};
use rusqlite::Connection;

use crate::{
    StoreError,
    sqlite::cells::{self, Cells},
};

/// Notes that a message was carried out.
pub(super) fn remember(connection: &Connection, pool: &PoolId, key: &MessageKey, at: Timestamp) -> Result<(), StoreError> {
    let mut statement =
        connection.prepare_cached("INSERT OR REPLACE INTO submissions (pool, message_id, digest, at) VALUES (?1, ?2, ?3, ?4)")?;
    statement.execute((pool.as_str(), &key.id, &key.digest[..], at.0))?;
    Ok(())
}

/// The digest of the body that was carried out under this id, if it is still known; nothing inside for one that cannot be read.
pub(super) fn remembered(connection: &Connection, pool: &PoolId, id: &str) -> Result<Option<[u8; DIGEST_BYTES]>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT digest FROM submissions WHERE pool = ?1 AND message_id = ?2")?;
    let mut rows = statement.query((pool.as_str(), id))?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let cells = &Cells::new(row, "submissions");
    // One that is no digest equals none, so its message is refused as a conflict rather than carried out again.
    Ok(Some(cells.bytes("digest").ok().flatten().and_then(|bytes| bytes.try_into().ok()).unwrap_or_default()))
}

/// Forgets the oldest messages, `count` at most: those from before a time, and those beyond a number of them.
pub(super) fn forget(connection: &Connection, before: Timestamp, most: u64, count: usize) -> Result<usize, StoreError> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM submissions WHERE number IN (SELECT number FROM submissions ORDER BY number LIMIT ?3)
         AND (at < ?1 OR number <= (SELECT max(number) FROM submissions) - ?2)",
    )?;
    Ok(statement.execute((before.0, most.cast_signed(), count.cast_signed()))?)
}

/// Notes who waits for a task's end.
pub(super) fn wait(connection: &Connection, job: JobUid, task: TaskUid, answer: &Answer) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached("INSERT INTO awaited (job, task, answer) VALUES (?1, ?2, ?3)")?;
    statement.execute((job.0.cast_signed(), task.0.cast_signed(), cells::json(answer)))?;
    Ok(())
}

/// Takes the answers that wait for a task's end.
pub(super) fn take(connection: &Connection, job: JobUid, task: TaskUid) -> Result<Vec<Answer>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT number, answer FROM awaited WHERE job = ?1 AND task = ?2 ORDER BY number")?;
    let rows = statement.query((job.0.cast_signed(), task.0.cast_signed()))?;
    taken(connection, rows).map(|(answers, _)| answers)
}

/// Takes some of the answers that wait for tasks of a job; how many rows went.
pub(super) fn take_of_job(connection: &Connection, job: JobUid, count: usize) -> Result<(Vec<Answer>, usize), StoreError> {
    let mut statement = connection.prepare_cached("SELECT number, answer FROM awaited WHERE job = ?1 ORDER BY task LIMIT ?2")?;
    let rows = statement.query((job.0.cast_signed(), count.cast_signed()))?;
    taken(connection, rows)
}

/// Reads answers and removes their rows, those that cannot be read too: nobody could be told by them.
fn taken(connection: &Connection, mut rows: rusqlite::Rows<'_>) -> Result<(Vec<Answer>, usize), StoreError> {
    let (mut answers, mut numbers, mut noted) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let cells = &Cells::new(row, "awaited");
        numbers.push(cells.get::<i64>("number")?);
        let answer = cells.json_if("answer").and_then(|answer| answer.ok_or(StoreError::Corrupt { table: "awaited", column: "answer" }));
        answers.extend(cells::or_note(row, answer, &mut noted)?);
    }
    for Unreadable { row, .. } in noted {
        tracing::error!(number = row, "an answer to a submission cannot be read and is not sent");
    }
    let mut delete = connection.prepare_cached("DELETE FROM awaited WHERE number = ?1")?;
    for number in &numbers {
        delete.execute([number])?;
    }
    Ok((answers, numbers.len()))
}

/// The next job, by number, of which tasks are waited for.
pub(super) fn next_job(connection: &Connection, after: Option<JobUid>) -> Result<Option<JobUid>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT min(job) AS job FROM awaited WHERE job > ?1")?;
    let mut rows = statement.query([after.map_or(-1, |job| job.0.cast_signed())])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Cells::new(row, "awaited").get::<Option<i64>>("job")?.map(|job| JobUid(job.cast_unsigned())))
}
