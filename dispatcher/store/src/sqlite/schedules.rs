//! Rows of job schedules; there are few, so they are read whole.

use contract::{
    ids::{JobId, PoolId, ScheduleId},
    state::ScheduleState,
};
use model::{health::Unreadable, schedule::ScheduleRow};
use rusqlite::{Connection, Row, params};

use crate::{
    StoreError,
    sqlite::cells::{self, Cells},
};

/// The columns that [`row`] reads.
pub(super) const SELECT: &str = "
SELECT id, version, state, state_at, previous_state, previous_at, created_at, modified_at, ended_at, timetable, next_due, last_due,
    next_number, recent, job, document, auto_pool
FROM job_schedules WHERE 1";

/// Inserts or replaces a schedule.
pub(super) fn put(connection: &Connection, schedule: &ScheduleRow) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO job_schedules (id, version, state, state_at, previous_state, previous_at, created_at, modified_at,
        ended_at, timetable, next_due, last_due, next_number, recent, job, document, not_until, not_after, auto_pool)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)";
    connection.prepare_cached(sql)?.execute(params![
        schedule.id.as_str(),
        schedule.version.cast_signed(),
        schedule.state.as_str(),
        schedule.state_at.0,
        schedule.previous.map(|(state, _)| state.as_str()),
        schedule.previous.map(|(_, at)| at.0),
        schedule.created_at.0,
        schedule.modified_at.0,
        schedule.ended_at.map(|at| at.0),
        cells::json(&schedule.timetable),
        schedule.next_due.map(|at| at.0),
        schedule.last_due.map(|at| at.0),
        schedule.next_number.cast_signed(),
        schedule.recent.as_ref().map(JobId::as_str),
        cells::json(&schedule.job),
        schedule.document,
        schedule.timetable.not_until.map(|at| at.0),
        schedule.timetable.not_after.map(|at| at.0),
        schedule.auto_pool.as_ref().map(PoolId::as_str),
    ])?;
    Ok(())
}

/// Removes a schedule.
pub(super) fn delete(connection: &Connection, schedule: &ScheduleId) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM job_schedules WHERE id = ?1")?.execute([schedule.as_str()])?;
    Ok(())
}

/// All schedules.
pub(super) fn load(connection: &Connection, noted: &mut Vec<Unreadable>) -> Result<Vec<ScheduleRow>, StoreError> {
    let mut statement = connection.prepare(SELECT)?;
    let mut rows = statement.query([])?;
    let mut schedules = Vec::new();
    while let Some(found) = rows.next()? {
        schedules.extend(cells::or_note(found, row(found), noted)?);
    }
    Ok(schedules)
}

/// Some jobs that a schedule created, including completed ones.
pub(super) fn jobs(connection: &Connection, schedule: &ScheduleId, count: usize) -> Result<Vec<JobId>, StoreError> {
    // '.' follows '-', so the range holds exactly the names with this prefix.
    let sql = "SELECT id FROM jobs WHERE id > ?1 || ':job-' AND id < ?1 || ':job.' LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![schedule.as_str(), count as i64])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        // A job whose name cannot be read gets another one when jobs are loaded.
        found.extend(Cells::new(row, "jobs").name("id").ok());
    }
    Ok(found)
}

/// Reads a row of [`SELECT`].
pub(super) fn row(row: &Row<'_>) -> Result<ScheduleRow, StoreError> {
    let corrupt = |column| StoreError::Corrupt { table: "job_schedules", column };
    let cells = &Cells::new(row, "job_schedules");
    Ok(ScheduleRow {
        id: cells.name("id")?,
        version: cells.number("version")?,
        state: cells.word("state", ScheduleState::parse)?,
        state_at: cells.time("state_at")?,
        previous: cells.word_if("previous_state", ScheduleState::parse)?.zip(cells.time_if("previous_at")?),
        created_at: cells.time("created_at")?,
        modified_at: cells.time("modified_at")?,
        ended_at: cells.time_if("ended_at")?,
        timetable: cells.json_if("timetable")?.ok_or_else(|| corrupt("timetable"))?,
        next_due: cells.time_if("next_due")?,
        last_due: cells.time_if("last_due")?,
        next_number: cells.number("next_number")?,
        recent: cells.name_if("recent")?,
        job: cells.json_if("job")?.ok_or_else(|| corrupt("job"))?,
        document: cells.document("document")?,
        auto_pool: cells.name_if("auto_pool")?,
    })
}
