//! Job schedules: changes that clients request, and jobs that become due.
//!
//! ```text
//! active ⇄ disabled      active | disabled ─► terminating ─job ended─► completed
//! active ─last job ended, none due─► completed      any ─► deleting ─its jobs gone─► gone
//! ```

use contract::{
    ids::{JobId, ScheduleId},
    state::ScheduleState,
    time::Timestamp,
};
use model::{
    auto_pool::Lifetime,
    condition::Condition,
    document,
    health::Unreadable,
    refusal::{Code, Refusal},
    schedule::{JobDue, NewSchedule, ScheduleChange, ScheduleRow},
};
use store::StoreError;

use crate::{command::Done, command_error::CommandError, refusals::illegible, world::World};

/// Jobs of a deleted schedule whose deletion begins in one tick at most.
const DELETED_JOBS_MAX: usize = 100;

fn missing(schedule: &ScheduleId) -> Refusal {
    Refusal::new(Code::JobScheduleNotFound, "The specified job schedule does not exist.").with("JobScheduleId", schedule)
}

/// The refusal of a change to a schedule in this state, if the state forbids it.
fn closed(state: ScheduleState) -> Option<Refusal> {
    let refusal = |code, message: &str| Some(Refusal::new(code, message));
    match state {
        ScheduleState::Completed => refusal(Code::JobScheduleCompleted, "The specified job schedule is already in completed state."),
        ScheduleState::Terminating => refusal(Code::JobScheduleBeingTerminated, "The specified job schedule is being terminated."),
        ScheduleState::Deleting => {
            refusal(Code::JobScheduleBeingDeleted, "The specified job schedule has been marked for deletion and is being reclaimed.")
        }
        ScheduleState::Active | ScheduleState::Disabled => None,
    }
}

impl World {
    pub(super) fn create_schedule(&mut self, asked: NewSchedule, now: Timestamp) -> Result<Done, CommandError> {
        if self.schedules.contains_key(&asked.id) {
            return Err(Refusal::new(Code::JobScheduleExists, "The specified job schedule already exists.")
                .with("JobScheduleId", &asked.id)
                .into());
        }
        if let Ok(job) = asked.id.as_str().parse::<JobId>()
            && (self.alive(&job).is_some() || self.stored_job(&job)?.is_some())
        {
            let refusal = Refusal::new(Code::JobWithSameIdExists, "A job with the same id exists; a job and a schedule may not share one.");
            return Err(refusal.with("JobId", &job).into());
        }
        self.check_job(&asked.job)?;
        let row = ScheduleRow {
            version: self.next_version(),
            state: ScheduleState::Active,
            state_at: now,
            previous: None,
            created_at: now,
            modified_at: now,
            ended_at: None,
            next_due: asked.timetable.first(now),
            timetable: asked.timetable,
            last_due: None,
            next_number: 1,
            recent: None,
            auto_pool: None,
            job: asked.job,
            document: asked.document,
            id: asked.id.clone(),
        };
        let done = Done::Changed { version: row.version, at: now };
        self.store.put_schedule(&row)?;
        self.schedules.insert(asked.id.clone(), row);
        self.tick_schedule(&asked.id, now)?;
        Ok(done)
    }

    /// A schedule that may be changed, or the refusal.
    fn open_schedule(&self, schedule: &ScheduleId, condition: &Condition) -> Result<&ScheduleRow, Refusal> {
        let row = self.schedules.get(schedule).ok_or_else(|| missing(schedule))?;
        condition.check(row.version, row.modified_at)?;
        match closed(row.state) {
            Some(refusal) => Err(refusal.with("JobScheduleId", schedule)),
            None => Ok(row),
        }
    }

    pub(super) fn change_schedule(
        &mut self,
        schedule: &ScheduleId,
        change: ScheduleChange,
        condition: &Condition,
        now: Timestamp,
    ) -> Result<Done, CommandError> {
        let row = self.open_schedule(schedule, condition)?;
        let Some(document) = document::read(&row.document) else {
            self.name_unreadable(Unreadable { table: "job_schedules", row: schedule.to_string(), column: "document" });
            return Err(illegible("job schedule").with("JobScheduleId", schedule).into());
        };
        if let Some(job) = &change.job {
            self.check_job(job)?;
            if job.pool.tie().is_none_or(|tie| tie.lifetime == Lifetime::Job) {
                self.part_with_pool(schedule, now)?;
            }
        }
        let version = self.next_version();
        let Some(row) = self.schedules.get_mut(schedule) else { return Err(missing(schedule).into()) };
        row.job = change.job.unwrap_or_else(|| row.job.clone());
        row.document = document::changed(document, change.fields);
        if let Some(timetable) = change.timetable {
            row.timetable = timetable;
            row.next_due = match row.last_due {
                Some(last) => timetable.after(last, now),
                None => timetable.first(now),
            };
        }
        (row.version, row.modified_at) = (version, now);
        self.store.put_schedule(row)?;
        Ok(Done::Changed { version, at: now })
    }

    pub(super) fn switch_schedule(
        &mut self,
        schedule: &ScheduleId,
        enabled: bool,
        condition: &Condition,
        now: Timestamp,
    ) -> Result<Done, CommandError> {
        self.open_schedule(schedule, condition)?;
        self.enter_schedule(schedule, if enabled { ScheduleState::Active } else { ScheduleState::Disabled }, now)?;
        if enabled {
            self.tick_schedule(schedule, now)?;
        }
        Ok(self.schedule_done(schedule, now))
    }

    pub(super) fn terminate_schedule(
        &mut self,
        schedule: &ScheduleId,
        condition: &Condition,
        now: Timestamp,
    ) -> Result<Done, CommandError> {
        let recent = self.open_schedule(schedule, condition)?.recent.clone();
        self.enter_schedule(schedule, ScheduleState::Terminating, now)?;
        if let Some(job) = recent.filter(|job| self.alive(job).is_some()) {
            let (reason, any) = (Some("TerminateJobSchedule".to_owned()), Condition::default());
            if let Err(refusal) = self.refusable(|world| world.terminate_job(&job, reason, &any, now))? {
                tracing::debug!(%job, %refusal, "the job of a schedule ends already");
            }
        }
        Ok(self.schedule_done(schedule, now))
    }

    pub(super) fn remove_schedule(&mut self, schedule: &ScheduleId, condition: &Condition, now: Timestamp) -> Result<Done, CommandError> {
        let Some(row) = self.schedules.get(schedule) else { return Err(missing(schedule).into()) };
        condition.check(row.version, row.modified_at)?;
        if row.state == ScheduleState::Deleting {
            return Err(closed(row.state).unwrap_or_else(|| missing(schedule)).with("JobScheduleId", schedule).into());
        }
        self.enter_schedule(schedule, ScheduleState::Deleting, now)?;
        Ok(self.schedule_done(schedule, now))
    }

    fn schedule_done(&self, schedule: &ScheduleId, now: Timestamp) -> Done {
        Done::Changed { version: self.schedules.get(schedule).map_or(self.version, |row| row.version), at: now }
    }

    fn enter_schedule(&mut self, schedule: &ScheduleId, state: ScheduleState, now: Timestamp) -> Result<(), StoreError> {
        let version = self.next_version();
        let Some(row) = self.schedules.get_mut(schedule) else { return Ok(()) };
        if row.state != state {
            row.previous = Some((row.state, row.state_at));
            (row.state, row.state_at) = (state, now);
        }
        if state == ScheduleState::Completed {
            row.ended_at = Some(now);
            row.next_due = None;
        }
        (row.version, row.modified_at) = (version, now);
        self.store.put_schedule(row)
    }

    /// Creates jobs that are due and completes schedules that have ended.
    pub(super) fn tick_schedules(&mut self, now: Timestamp) -> Result<(), StoreError> {
        if self.holds_schedules && self.shortage.reason().is_none() {
            tracing::info!("the disk has enough free space again; job schedules create jobs again");
            self.holds_schedules = false;
        }
        let ids: Vec<ScheduleId> = self.schedules.keys().cloned().collect();
        ids.iter().try_for_each(|id| self.tick_schedule(id, now))
    }

    fn tick_schedule(&mut self, id: &ScheduleId, now: Timestamp) -> Result<(), StoreError> {
        let Some(row) = self.schedules.get(id) else { return Ok(()) };
        let is_busy = row.recent.as_ref().is_some_and(|job| self.alive(job).is_some());
        match (row.state, row.next_due) {
            (ScheduleState::Active, Some(due)) => match row.timetable.verdict(due, is_busy, now) {
                JobDue::Wait => Ok(()),
                JobDue::Make if self.is_short() => Ok(()),
                JobDue::Make => self.make_job(id, due, now),
                JobDue::Skip => self.pass(id, due, None, now),
            },
            (ScheduleState::Active, None) | (ScheduleState::Terminating, _) if !is_busy => {
                self.part_with_pool(id, now)?;
                self.enter_schedule(id, ScheduleState::Completed, now)
            }
            (ScheduleState::Deleting, _) => self.sweep_schedule(id, now),
            _ => Ok(()),
        }
    }

    /// Whether a due job has to wait because the disk is nearly full. It is created once there is room, unless its
    /// start window has passed.
    fn is_short(&mut self) -> bool {
        let Some(reason) = self.shortage.reason() else { return false };
        if !self.holds_schedules {
            tracing::warn!(reason, "the disk is nearly full: job schedules create no jobs until there is space");
            self.holds_schedules = true;
        }
        true
    }

    fn make_job(&mut self, id: &ScheduleId, due: Timestamp, now: Timestamp) -> Result<(), StoreError> {
        let Some(row) = self.schedules.get(id) else { return Ok(()) };
        let mut job = row.job.clone();
        job.id = JobId::of_schedule(id, row.next_number);
        let name = job.id.clone();
        match self.refusable(|world| world.create_job(job, now))? {
            Ok(_) => self.pass(id, due, Some(name), now),
            Err(refusal) => {
                tracing::warn!(schedule = %id, job = %name, %refusal, "a schedule's job could not be created; the next one is tried when it is due");
                self.pass(id, due, None, now)
            }
        }
    }

    /// Moves on to the next due time, after the job was created or skipped.
    fn pass(&mut self, id: &ScheduleId, due: Timestamp, made: Option<JobId>, now: Timestamp) -> Result<(), StoreError> {
        let version = self.next_version();
        let Some(row) = self.schedules.get_mut(id) else { return Ok(()) };
        row.last_due = Some(due);
        row.next_due = row.timetable.after(due, now);
        if made.is_some() {
            row.recent = made;
            row.next_number += 1;
        }
        (row.version, row.modified_at) = (version, now);
        self.store.put_schedule(row)
    }

    /// Deletes the jobs of a deleted schedule, and the schedule after its last job.
    fn sweep_schedule(&mut self, id: &ScheduleId, now: Timestamp) -> Result<(), StoreError> {
        let jobs = self.store.jobs_of_schedule(id, DELETED_JOBS_MAX)?;
        if jobs.is_empty() {
            self.part_with_pool(id, now)?;
            self.store.delete_schedule(id)?;
            self.schedules.remove(id);
            return Ok(());
        }
        for job in jobs {
            if let Err(refusal) = self.refusable(|world| world.remove_job(&job, &Condition::default(), now))? {
                tracing::trace!(%job, %refusal, "a job of a deleted schedule is being deleted already");
            }
        }
        Ok(())
    }
}
