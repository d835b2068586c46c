//! Preparations and releases of jobs on this node, as pure bookkeeping.
//!
//! ```text
//! answer ──► preparation runs, once per number ──► ended: waiting runs begin ──► result sent until it is acknowledged
//! heartbeat   ──► release: waits for the job's runs ──► runs ──► ended ──► result sent until it is acknowledged
//! ```
//! The newest job task of a job is remembered after its end, so that a late answer starts nothing twice.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use contract::{
    ids::{JobId, JobUid, RunId},
    job_task::{JOB_TASKS_PER_HEARTBEAT_MAX, JobTask},
    outcome::{JobTaskEnd, JobTaskKey, JobTaskKind},
};

use crate::execution::RunControl;

/// An unacknowledged result is sent again after this long.
const RESEND_AFTER: Duration = Duration::from_secs(15);
/// Jobs whose job tasks are remembered at most; beyond it, acknowledged ones are forgotten.
pub const REMEMBERED_MAX: usize = 4_096;

/// Progress of a job task.
#[derive(Debug)]
enum State {
    /// A release that waits for its job's runs to end.
    Waiting(Box<JobTask>),
    Running(RunControl),
    Ended {
        end: Box<JobTaskEnd>,
        sent_at: Instant,
    },
}

#[derive(Debug)]
struct Known {
    key: JobTaskKey,
    job: JobId,
    state: State,
    is_over: bool,
    /// Runs that wait for the preparation.
    runs: Vec<RunId>,
}

/// Consequence of a preparation for the run whose answer brought it.
#[derive(Debug, PartialEq)]
pub enum Readiness {
    /// The preparation has to begin; the run waits unless the job does not ask for that.
    Begin(Box<JobTask>),
    /// The run waits for the preparation that is under way.
    Wait,
    /// The preparation has succeeded; the run begins.
    Ready,
    /// The preparation has failed, and so does the run.
    Failed(Box<JobTaskEnd>),
}

/// The newest preparation and release of each job.
#[derive(Debug, Default)]
pub struct JobTasks {
    known: HashMap<(JobUid, JobTaskKind), Known>,
}

impl JobTasks {
    /// Takes in the preparation that came with an answer.
    pub fn prepare(&mut self, job_task: Box<JobTask>, run: RunId) -> Readiness {
        let slot = (job_task.key.job, JobTaskKind::Preparation);
        let known = self.known.get_mut(&slot).filter(|known| known.key.number >= job_task.key.number);
        match known {
            Some(Known { state: State::Ended { end, .. }, .. }) if end.has_succeeded() || !job_task.is_awaited => Readiness::Ready,
            Some(Known { state: State::Ended { end, .. }, .. }) => Readiness::Failed(end.clone()),
            Some(_) if !job_task.is_awaited => Readiness::Ready,
            Some(known) => {
                known.runs.push(run);
                Readiness::Wait
            }
            None => {
                // An older one can run only when the dispatcher mistook this epoch for another.
                if let Some(Known { state: State::Running(run_control), .. }) = self.known.get(&slot) {
                    run_control.stop.cancel();
                }
                let runs = if job_task.is_awaited { vec![run] } else { Vec::new() };
                let state = State::Waiting(job_task.clone());
                self.known.insert(slot, Known { key: job_task.key, job: job_task.job.clone(), state, is_over: false, runs });
                Readiness::Begin(job_task)
            }
        }
    }

    /// Takes in a release that is due; false when it is known already.
    pub fn release(&mut self, job_task: Box<JobTask>) -> bool {
        let slot = (job_task.key.job, JobTaskKind::Release);
        if self.known.get(&slot).is_some_and(|known| known.key.number >= job_task.key.number) {
            return false;
        }
        let (key, job) = (job_task.key, job_task.job.clone());
        self.known.insert(slot, Known { key, job, state: State::Waiting(job_task), is_over: false, runs: Vec::new() });
        true
    }

    /// Releases that may begin: their jobs have no run on this node any more.
    pub fn ready(&self, has_runs: impl Fn(&JobId) -> bool) -> Vec<JobTask> {
        let is_clear = |job: JobUid| {
            let preparation = self.known.get(&(job, JobTaskKind::Preparation));
            !preparation.is_some_and(|known| matches!(known.state, State::Running(_)))
        };
        let waiting = self.known.values().filter(|known| known.key.kind == JobTaskKind::Release && !has_runs(&known.job));
        let waiting = waiting.filter_map(|known| if let State::Waiting(job_task) = &known.state { Some(job_task) } else { None });
        waiting.filter(|job_task| is_clear(job_task.key.job)).map(|job_task| (**job_task).clone()).collect()
    }

    /// Records that a job task's process is about to begin.
    pub fn began(&mut self, key: JobTaskKey, run_control: RunControl) {
        if let Some(known) = self.find(key) {
            known.state = State::Running(run_control);
        }
    }

    /// Records the result of a job task; returns the runs that waited for it.
    pub fn ended(&mut self, end: Box<JobTaskEnd>, now: Instant) -> Vec<RunId> {
        let key = end.key;
        let runs = match self.find(key) {
            Some(known) => {
                known.state = State::Ended { end, sent_at: now };
                std::mem::take(&mut known.runs)
            }
            None => Vec::new(),
        };
        if self.known.len() > REMEMBERED_MAX {
            self.known.retain(|_, known| !known.is_over || known.key == key);
        }
        runs
    }

    /// Forgets a job task that the dispatcher does not wait for any more, and stops it.
    pub fn over(&mut self, key: JobTaskKey) {
        let Some(known) = self.find(key) else { return };
        known.is_over = true;
        match &known.state {
            State::Running(run_control) => run_control.stop.cancel(),
            State::Waiting(_) => drop(self.known.remove(&(key.job, key.kind))),
            State::Ended { .. } => {}
        }
    }

    /// Whether the job was released on this node after this preparation, so that an older answer is void.
    pub fn is_released(&self, job: &JobId, preparation: Option<JobTaskKey>) -> bool {
        let releases = self.known.values().filter(|known| known.key.kind == JobTaskKind::Release && known.job == *job);
        releases.map(|known| known.key).any(|release| {
            let known = self.known.get(&(release.job, JobTaskKind::Preparation)).map(|known| known.key);
            let newest = preparation.into_iter().chain(known).filter(|key| key.job == release.job).map(|key| key.number).max();
            let is_other_job = preparation.is_some_and(|key| key.job != release.job);
            !is_other_job && newest.is_none_or(|number| number <= release.number)
        })
    }

    /// Forgets a deleted job up to this number; returns whether a later job of the same name is known.
    pub fn forget(&mut self, job: &JobId, last: Option<JobUid>) -> bool {
        let is_later = |uid: JobUid| last.is_some_and(|last| uid > last);
        self.known.retain(|(uid, _), known| known.job != *job || is_later(*uid) || matches!(known.state, State::Running(_)));
        self.known.iter().any(|((uid, _), known)| known.job == *job && is_later(*uid))
    }

    /// Job tasks for the next heartbeat.
    pub fn shown(&self) -> Vec<JobTaskKey> {
        self.known.values().filter(|known| !known.is_over).map(|known| known.key).take(JOB_TASKS_PER_HEARTBEAT_MAX).collect()
    }

    /// Results without an acknowledgement: all of them, or those that have waited too long.
    pub fn resend(&mut self, now: Instant, everything: bool) -> Vec<JobTaskEnd> {
        let mut due = Vec::new();
        for known in self.known.values_mut().filter(|known| !known.is_over) {
            if let State::Ended { end, sent_at } = &mut known.state
                && (everything || now.duration_since(*sent_at) >= RESEND_AFTER)
            {
                *sent_at = now;
                due.push((**end).clone());
            }
        }
        due
    }

    /// Stop handles of the running job tasks.
    pub fn run_control(&self) -> impl Iterator<Item = &RunControl> {
        self.known.values().filter_map(|known| if let State::Running(run_control) = &known.state { Some(run_control) } else { None })
    }

    fn find(&mut self, key: JobTaskKey) -> Option<&mut Known> {
        self.known.get_mut(&(key.job, key.kind)).filter(|known| known.key == key)
    }
}

#[cfg(test)]
mod tests {
    use contract::{outcome::Outcome, spec::TaskSpec, time::Timestamp};

    use super::*;

    fn job_task(kind: JobTaskKind, number: u32, is_awaited: bool) -> Box<JobTask> {
        let key = JobTaskKey { job: JobUid(1), kind, number };
        Box::new(JobTask { key, job: "j".parse().unwrap(), task: "t".parse().unwrap(), is_awaited, spec: TaskSpec::default() })
    }

    fn end(key: JobTaskKey, code: i32) -> Box<JobTaskEnd> {
        let outcome = Outcome::Exit { code };
        Box::new(JobTaskEnd { key, started_at: Timestamp(1), ended_at: Timestamp(2), outcome, retries: 0, retried_at: None })
    }

    fn job() -> JobId {
        "j".parse().unwrap()
    }

    #[test]
    fn one_preparation_runs_however_many_runs_wait_for_it() {
        let mut job_tasks = JobTasks::default();
        let preparation = job_task(JobTaskKind::Preparation, 1, true);
        assert_eq!(job_tasks.prepare(preparation.clone(), RunId(1)), Readiness::Begin(preparation.clone()));
        assert_eq!(job_tasks.prepare(preparation.clone(), RunId(2)), Readiness::Wait);
        job_tasks.began(preparation.key, RunControl::new());
        assert_eq!(job_tasks.prepare(preparation.clone(), RunId(3)), Readiness::Wait);
        assert_eq!(job_tasks.shown(), [preparation.key]);
        assert_eq!(job_tasks.ended(end(preparation.key, 0), Instant::now()), [RunId(1), RunId(2), RunId(3)]);
        job_tasks.over(preparation.key);
        assert!(job_tasks.shown().is_empty(), "it is not reported any more");
        assert_eq!(job_tasks.prepare(preparation, RunId(4)), Readiness::Ready, "an answer that comes late starts nothing twice");
        let again = job_task(JobTaskKind::Preparation, 2, true);
        assert_eq!(job_tasks.prepare(again.clone(), RunId(5)), Readiness::Begin(again));
    }

    #[test]
    fn a_failed_preparation_fails_runs_only_of_jobs_that_wait() {
        let mut job_tasks = JobTasks::default();
        let preparation = job_task(JobTaskKind::Preparation, 1, true);
        job_tasks.prepare(preparation.clone(), RunId(1));
        job_tasks.ended(end(preparation.key, 1), Instant::now());
        assert_eq!(job_tasks.prepare(preparation.clone(), RunId(2)), Readiness::Failed(end(preparation.key, 1)));
        assert_eq!(job_tasks.prepare(job_task(JobTaskKind::Preparation, 1, false), RunId(2)), Readiness::Ready);
    }

    #[test]
    fn a_release_waits_for_runs_and_the_preparation_and_voids_older_answers() {
        let mut job_tasks = JobTasks::default();
        let (preparation, release) = (job_task(JobTaskKind::Preparation, 1, true), job_task(JobTaskKind::Release, 1, true));
        job_tasks.prepare(preparation.clone(), RunId(1));
        job_tasks.began(preparation.key, RunControl::new());
        assert!(!job_tasks.is_released(&job(), None));
        assert!(job_tasks.release(release.clone()) && !job_tasks.release(release.clone()));
        assert!(job_tasks.is_released(&job(), None) && job_tasks.is_released(&job(), Some(preparation.key)));
        assert!(job_tasks.ready(|_| false).is_empty(), "its preparation runs");
        job_tasks.ended(end(preparation.key, 0), Instant::now());
        assert!(job_tasks.ready(|_| true).is_empty());
        assert_eq!(job_tasks.ready(|_| false), [*release]);
        let newer = job_task(JobTaskKind::Preparation, 2, true).key;
        assert!(!job_tasks.is_released(&job(), Some(newer)), "the job came back");
        let other = JobTaskKey { job: JobUid(2), ..newer };
        assert!(!job_tasks.is_released(&job(), Some(other)), "another job has the name now");
        assert!(!job_tasks.is_released(&"other".parse().unwrap(), None));
    }

    #[test]
    fn ends_are_sent_again_until_they_are_over() {
        let (mut job_tasks, now) = (JobTasks::default(), Instant::now());
        let release = job_task(JobTaskKind::Release, 1, true);
        job_tasks.release(release.clone());
        let run_control = RunControl::new();
        job_tasks.began(release.key, run_control.clone());
        assert!(job_tasks.resend(now, true).is_empty());
        job_tasks.ended(end(release.key, 0), now);
        assert!(job_tasks.resend(now, false).is_empty());
        assert_eq!(job_tasks.resend(now, true).len(), 1);
        assert_eq!(job_tasks.resend(now + RESEND_AFTER, false).len(), 1);
        job_tasks.over(release.key);
        assert!(job_tasks.resend(now + 2 * RESEND_AFTER, true).is_empty());
        assert!(!run_control.stop.is_cancelled(), "it had ended by itself");
    }

    #[test]
    fn a_job_that_came_back_is_not_forgotten_for_the_one_before_it() {
        let mut job_tasks = JobTasks::default();
        let preparation = job_task(JobTaskKind::Preparation, 1, true);
        job_tasks.prepare(preparation.clone(), RunId(1));
        job_tasks.ended(end(preparation.key, 0), Instant::now());
        assert!(job_tasks.forget(&job(), Some(JobUid(0))), "it is job 1");
        assert_eq!(job_tasks.prepare(preparation.clone(), RunId(2)), Readiness::Ready);
        assert!(!job_tasks.forget(&job(), Some(JobUid(1))));
        assert!(matches!(job_tasks.prepare(preparation, RunId(3)), Readiness::Begin(_)));
    }

    #[test]
    fn what_is_over_while_it_runs_is_stopped() {
        let mut job_tasks = JobTasks::default();
        let (preparation, run_control) = (job_task(JobTaskKind::Preparation, 1, true), RunControl::new());
        job_tasks.prepare(preparation.clone(), RunId(1));
        job_tasks.began(preparation.key, run_control.clone());
        job_tasks.over(preparation.key);
        assert!(run_control.stop.is_cancelled());
    }
}
