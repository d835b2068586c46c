//! A job schedule: what people asked for, its state, and the timetable that says when its next job is due.

use contract::{
    ids::{JobId, PoolId, ScheduleId},
    period::Period,
    state::ScheduleState,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{document::Properties, job::NewJob};

/// A job schedule as asked for.
#[derive(Debug, Clone)]
pub struct NewSchedule {
    /// Its name.
    pub id: ScheduleId,
    /// When jobs are due.
    pub timetable: Timetable,
    /// What they are made from; the name is replaced.
    pub job: NewJob,
    /// Azure's fields as JSON.
    pub document: String,
}

/// Parts of a job schedule to change; absent ones stay.
#[derive(Debug, Clone)]
pub struct ScheduleChange {
    /// When jobs are due.
    pub timetable: Option<Timetable>,
    /// What later jobs are made from.
    pub job: Option<NewJob>,
    /// Properties of the document; null removes one.
    pub fields: Properties,
}

/// When jobs are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Timetable {
    /// No job before this.
    pub not_until: Option<Timestamp>,
    /// No job after this.
    pub not_after: Option<Timestamp>,
    /// A job that cannot start this long after it was due is left out; no limit when absent.
    pub start_window: Option<Period>,
    /// Between two jobs; a single job when absent.
    pub interval: Option<Period>,
}

/// What to do about a job that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobDue {
    /// It is too early, or the job before still runs.
    Wait,
    /// Make the job.
    Make,
    /// The opportunity is lost.
    Skip,
}

fn ms(period: Period) -> i64 {
    i64::try_from(period.as_ms()).unwrap_or(i64::MAX)
}

impl Timetable {
    /// When the first job is due.
    pub fn first(&self, now: Timestamp) -> Option<Timestamp> {
        self.allowed(self.not_until.map_or(now, |until| until.max(now)))
    }

    /// When the job after the one due at `last` is due: on the grid that `last` is on, later than now, but not before
    /// a start that was set since.
    pub fn after(&self, last: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let interval = ms(self.interval?).max(1);
        let passed = now.since(last) / interval;
        let due = last.plus_ms(interval.saturating_mul(passed + 1));
        self.allowed(self.not_until.map_or(due, |until| until.max(due)))
    }

    fn allowed(&self, due: Timestamp) -> Option<Timestamp> {
        Some(due).filter(|due| self.not_after.is_none_or(|after| *due <= after))
    }

    /// What to do now about the job due at `due`.
    pub fn verdict(&self, due: Timestamp, is_busy: bool, now: Timestamp) -> JobDue {
        if now < due {
            return JobDue::Wait;
        }
        let is_late = self.not_after.is_some_and(|after| now > after) || self.window().is_some_and(|window| now.since(due) > window);
        match (is_late, is_busy) {
            (true, _) => JobDue::Skip,
            (false, true) => JobDue::Wait,
            (false, false) => JobDue::Make,
        }
    }

    /// A window longer than the interval is none.
    fn window(&self) -> Option<i64> {
        let window = ms(self.start_window?);
        Some(window).filter(|window| self.interval.is_none_or(|interval| *window <= ms(interval)))
    }
}

/// A job schedule, whole: the engine keeps it in memory, API handlers read it.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleRow {
    /// Its name.
    pub id: ScheduleId,
    /// For the ETag.
    pub version: u64,
    /// Where it is in its life.
    pub state: ScheduleState,
    /// Since when.
    pub state_at: Timestamp,
    /// Where it was before, and since when.
    pub previous: Option<(ScheduleState, Timestamp)>,
    /// When it was added.
    pub created_at: Timestamp,
    /// When it changed.
    pub modified_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// When jobs are due.
    pub timetable: Timetable,
    /// When the next one is.
    pub next_due: Option<Timestamp>,
    /// When the last one was, made or not.
    pub last_due: Option<Timestamp>,
    /// The number of the next job.
    pub next_number: u64,
    /// The last job that was made.
    pub recent: Option<JobId>,
    /// The pool that its jobs share, once the first of them was made.
    pub auto_pool: Option<PoolId>,
    /// What jobs are made from.
    pub job: NewJob,
    /// Azure's fields as JSON: displayName, schedule, jobSpecification, metadata.
    pub document: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: i64 = 60_000;

    fn every(minutes: u64) -> Timetable {
        Timetable { interval: Some(Period::from_secs(minutes * 60)), ..Timetable::default() }
    }

    #[test]
    fn a_schedule_without_an_interval_makes_one_job() {
        let single = Timetable { not_until: Some(Timestamp(500)), ..Timetable::default() };
        assert_eq!(single.first(Timestamp(100)), Some(Timestamp(500)));
        assert_eq!(single.first(Timestamp(900)), Some(Timestamp(900)));
        assert_eq!(single.after(Timestamp(500), Timestamp(600)), None);
    }

    #[test]
    fn a_job_that_still_runs_makes_the_next_one_wait_and_a_window_bounds_the_wait() {
        let mut table = every(10);
        let due = Timestamp(0);
        assert_eq!(table.verdict(due, true, Timestamp(9 * MINUTE)), JobDue::Wait);
        assert_eq!(table.verdict(due, true, Timestamp(60 * MINUTE)), JobDue::Wait);
        table.start_window = Some(Period::from_secs(120));
        assert_eq!(table.verdict(due, true, Timestamp(MINUTE)), JobDue::Wait);
        assert_eq!(table.verdict(due, false, Timestamp(2 * MINUTE)), JobDue::Make);
        assert_eq!(table.verdict(due, true, Timestamp(2 * MINUTE + 1)), JobDue::Skip);
        assert_eq!(table.verdict(due, false, Timestamp(2 * MINUTE + 1)), JobDue::Skip);
        table.start_window = Some(Period::from_secs(11 * 60));
        assert_eq!(table.verdict(due, false, Timestamp(30 * MINUTE)), JobDue::Make, "a window longer than the interval is none");
    }

    #[test]
    fn nothing_is_due_after_the_end() {
        let table = Timetable { not_after: Some(Timestamp(25 * MINUTE)), ..every(10) };
        assert_eq!(table.after(Timestamp(10 * MINUTE), Timestamp(11 * MINUTE)), Some(Timestamp(20 * MINUTE)));
        assert_eq!(table.after(Timestamp(20 * MINUTE), Timestamp(21 * MINUTE)), None);
        assert_eq!(table.verdict(Timestamp(20 * MINUTE), false, Timestamp(26 * MINUTE)), JobDue::Skip);
    }

    #[test]
    fn a_start_that_is_set_after_the_first_job_is_waited_for() {
        let table = Timetable { not_until: Some(Timestamp(95 * MINUTE)), ..every(10) };
        assert_eq!(table.after(Timestamp(0), Timestamp(MINUTE)), Some(Timestamp(95 * MINUTE)));
        assert_eq!(table.after(Timestamp(95 * MINUTE), Timestamp(96 * MINUTE)), Some(Timestamp(105 * MINUTE)));
        let ended = Timetable { not_after: Some(Timestamp(90 * MINUTE)), ..table };
        assert_eq!(ended.after(Timestamp(0), Timestamp(MINUTE)), None);
    }

    proptest! {
        #[test]
        fn the_next_job_is_on_the_grid_and_within_one_interval(last in 0i64..1 << 40, ahead in 0i64..1 << 40, minutes in 1u64..10_000) {
            let (last, now) = (Timestamp(last), Timestamp(last + ahead));
            let next = every(minutes).after(last, now).unwrap();
            let interval = minutes as i64 * MINUTE;
            prop_assert!(next > now && next.since(now) <= interval);
            prop_assert_eq!(next.since(last) % interval, 0);
        }
    }
}
