//! A job schedule: the request, its state, and the timetable that says when the next job is due.

use contract::{
    ids::{JobId, PoolId, ScheduleId},
    period::Period,
    state::ScheduleState,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{document::Properties, job::NewJob};

/// A job schedule as requested.
#[derive(Debug, Clone)]
pub struct NewSchedule {
    pub id: ScheduleId,
    pub timetable: Timetable,
    /// The job that is created each time; its name is a placeholder and is replaced.
    pub job: NewJob,
    /// Accepted properties as JSON, in Azure's names.
    pub document: String,
}

/// A change of a job schedule; `None` leaves a property as it is.
#[derive(Debug, Clone)]
pub struct ScheduleChange {
    pub timetable: Option<Timetable>,
    /// The job that is created from now on; jobs that exist are not changed.
    pub job: Option<NewJob>,
    /// Properties of the document; null removes one.
    pub fields: Properties,
}

/// When the jobs of a schedule are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Timetable {
    /// No job is created before this time.
    pub not_until: Option<Timestamp>,
    /// No job is created after this time.
    pub not_after: Option<Timestamp>,
    /// A job that could not be created within this time after it was due is skipped; `None` means no limit.
    pub start_window: Option<Period>,
    /// Time between two jobs; `None` means a single job.
    pub interval: Option<Period>,
}

/// Decision about a job that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobDue {
    /// Wait: it is too early, or the previous job still runs.
    Wait,
    Make,
    /// Too late: continue with the next one.
    Skip,
}

fn ms(period: Period) -> i64 {
    i64::try_from(period.as_ms()).unwrap_or(i64::MAX)
}

impl Timetable {
    /// Time of the first job; `None` when it would be after `not_after`.
    pub fn first(&self, now: Timestamp) -> Option<Timestamp> {
        self.allowed(self.not_until.map_or(now, |until| until.max(now)))
    }

    /// Time of the job that follows the one due at `last`: later than now, a whole number of intervals after `last`,
    /// and not before `not_until` where that was changed since.
    pub fn after(&self, last: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let interval = ms(self.interval?).max(1);
        let passed = now.since(last) / interval;
        let due = last.plus_ms(interval.saturating_mul(passed + 1));
        self.allowed(self.not_until.map_or(due, |until| until.max(due)))
    }

    fn allowed(&self, due: Timestamp) -> Option<Timestamp> {
        Some(due).filter(|due| self.not_after.is_none_or(|after| *due <= after))
    }

    /// Decides about the job that was due at `due`.
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

    /// The start window; one that is longer than the interval counts as no limit.
    fn window(&self) -> Option<i64> {
        let window = ms(self.start_window?);
        Some(window).filter(|window| self.interval.is_none_or(|interval| *window <= ms(interval)))
    }
}

/// A job schedule with all its state. The engine keeps all of them in memory; API handlers read them from the store.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleRow {
    pub id: ScheduleId,
    /// Counts changes; shown as the ETag.
    pub version: u64,
    pub state: ScheduleState,
    pub state_at: Timestamp,
    /// The state before, and when it entered that one.
    pub previous: Option<(ScheduleState, Timestamp)>,
    pub created_at: Timestamp,
    pub modified_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub timetable: Timetable,
    /// When the next job is due; `None` when no more follow.
    pub next_due: Option<Timestamp>,
    /// When the last job was due, whether it was created or skipped.
    pub last_due: Option<Timestamp>,
    /// The number for the next job's name.
    pub next_number: u64,
    /// The last job that was created.
    pub recent: Option<JobId>,
    /// The pool that all its jobs share; `None` until the first of them was created.
    pub auto_pool: Option<PoolId>,
    /// The job that is created each time.
    pub job: NewJob,
    /// Accepted properties as JSON, in Azure's names: displayName, schedule, jobSpecification, metadata.
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
