//! What this agent knows of jobs' preparations and releases, as pure bookkeeping.
//!
//! ```text
//! answer ──► preparation runs, once per number ──► ended: runs that waited go on ──► told until it is over
//! beat   ──► release: waits for the job's runs ──► runs ──► ended ──► told until it is over
//! ```
//! The newest chore of a job is remembered after its end, so that an answer that comes late starts nothing twice.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use broker_config::{
    chore::{CHORES_PER_BEAT_MAX, Chore, ChoreEnd, ChoreKey, ChoreKind},
    ids::{JobId, JobUid, RunId},
};

use crate::execution::Reins;

/// An end without an answer is told again after this long.
const TELL_AGAIN_AFTER: Duration = Duration::from_secs(15);
/// Jobs whose chores are remembered at most; of more, those that are over are forgotten.
pub const REMEMBERED_MAX: usize = 4_096;

/// How far a chore is.
#[derive(Debug)]
enum State {
    /// A release that waits for its job's runs to end.
    Waiting(Box<Chore>),
    Running(Reins),
    Ended {
        end: Box<ChoreEnd>,
        told_at: Instant,
    },
}

#[derive(Debug)]
struct Known {
    key: ChoreKey,
    job: JobId,
    state: State,
    is_over: bool,
    /// Runs that wait for it.
    runs: Vec<RunId>,
}

/// What becomes of a run whose answer brought a preparation.
#[derive(Debug, PartialEq)]
pub enum Outlook {
    /// The preparation has to begin, and the run waits unless the job does not.
    Begin(Box<Chore>),
    /// It waits for the preparation that is under way.
    Wait,
    /// The preparation has succeeded.
    Go,
    /// It has not.
    Fail(Box<ChoreEnd>),
}

/// The newest preparation and release of each job.
#[derive(Debug, Default)]
pub struct Chores {
    known: HashMap<(JobUid, ChoreKind), Known>,
}

impl Chores {
    /// Takes in the preparation that came with an answer.
    pub fn prepare(&mut self, chore: Box<Chore>, run: RunId) -> Outlook {
        let slot = (chore.key.job, ChoreKind::Preparation);
        let known = self.known.get_mut(&slot).filter(|known| known.key.number >= chore.key.number);
        match known {
            Some(Known { state: State::Ended { end, .. }, .. }) if end.has_succeeded() || !chore.is_awaited => Outlook::Go,
            Some(Known { state: State::Ended { end, .. }, .. }) => Outlook::Fail(end.clone()),
            Some(_) if !chore.is_awaited => Outlook::Go,
            Some(known) => {
                known.runs.push(run);
                Outlook::Wait
            }
            None => {
                // An older one can run only when the dispatcher took this start for another.
                if let Some(Known { state: State::Running(reins), .. }) = self.known.get(&slot) {
                    reins.stop.cancel();
                }
                let runs = if chore.is_awaited { vec![run] } else { Vec::new() };
                let state = State::Waiting(chore.clone());
                self.known.insert(slot, Known { key: chore.key, job: chore.job.clone(), state, is_over: false, runs });
                Outlook::Begin(chore)
            }
        }
    }

    /// Takes in a release that is due; false when it is known.
    pub fn release(&mut self, chore: Box<Chore>) -> bool {
        let slot = (chore.key.job, ChoreKind::Release);
        if self.known.get(&slot).is_some_and(|known| known.key.number >= chore.key.number) {
            return false;
        }
        let (key, job) = (chore.key, chore.job.clone());
        self.known.insert(slot, Known { key, job, state: State::Waiting(chore), is_over: false, runs: Vec::new() });
        true
    }

    /// The releases whose jobs have no run here any more, to be begun.
    pub fn ready(&self, has_runs: impl Fn(&JobId) -> bool) -> Vec<Chore> {
        let is_clear = |job: JobUid| {
            let preparation = self.known.get(&(job, ChoreKind::Preparation));
            !preparation.is_some_and(|known| matches!(known.state, State::Running(_)))
        };
        let waiting = self.known.values().filter(|known| known.key.kind == ChoreKind::Release && !has_runs(&known.job));
        let waiting = waiting.filter_map(|known| if let State::Waiting(chore) = &known.state { Some(chore) } else { None });
        waiting.filter(|chore| is_clear(chore.key.job)).map(|chore| (**chore).clone()).collect()
    }

    /// A chore's process is about to begin.
    pub fn began(&mut self, key: ChoreKey, reins: Reins) {
        if let Some(known) = self.find(key) {
            known.state = State::Running(reins);
        }
    }

    /// A chore ended; the runs that waited for it.
    pub fn ended(&mut self, end: Box<ChoreEnd>, now: Instant) -> Vec<RunId> {
        let key = end.key;
        let runs = match self.find(key) {
            Some(known) => {
                known.state = State::Ended { end, told_at: now };
                std::mem::take(&mut known.runs)
            }
            None => Vec::new(),
        };
        if self.known.len() > REMEMBERED_MAX {
            self.known.retain(|_, known| !known.is_over || known.key == key);
        }
        runs
    }

    /// The dispatcher does not wait for a chore any more; what runs is stopped.
    pub fn over(&mut self, key: ChoreKey) {
        let Some(known) = self.find(key) else { return };
        known.is_over = true;
        match &known.state {
            State::Running(reins) => reins.stop.cancel(),
            State::Waiting(_) => drop(self.known.remove(&(key.job, key.kind))),
            State::Ended { .. } => {}
        }
    }

    /// Whether a job was released here after its last preparation: what the dispatcher said before is void.
    pub fn is_released(&self, job: &JobId, preparation: Option<ChoreKey>) -> bool {
        let releases = self.known.values().filter(|known| known.key.kind == ChoreKind::Release && known.job == *job);
        releases.map(|known| known.key).any(|release| {
            let known = self.known.get(&(release.job, ChoreKind::Preparation)).map(|known| known.key);
            let newest = preparation.into_iter().chain(known).filter(|key| key.job == release.job).map(|key| key.number).max();
            let is_other_job = preparation.is_some_and(|key| key.job != release.job);
            !is_other_job && newest.is_none_or(|number| number <= release.number)
        })
    }

    /// Forgets a job that was deleted.
    pub fn forget(&mut self, job: &JobId) {
        self.known.retain(|_, known| known.job != *job || matches!(known.state, State::Running(_)));
    }

    /// What a beat says.
    pub fn shown(&self) -> Vec<ChoreKey> {
        self.known.values().filter(|known| !known.is_over).map(|known| known.key).take(CHORES_PER_BEAT_MAX).collect()
    }

    /// Ends that nobody answered: all of them, or those that have waited too long.
    pub fn tell_again(&mut self, now: Instant, everything: bool) -> Vec<ChoreEnd> {
        let mut due = Vec::new();
        for known in self.known.values_mut().filter(|known| !known.is_over) {
            if let State::Ended { end, told_at } = &mut known.state
                && (everything || now.duration_since(*told_at) >= TELL_AGAIN_AFTER)
            {
                *told_at = now;
                due.push((**end).clone());
            }
        }
        due
    }

    /// The reins of what runs.
    pub fn reins(&self) -> impl Iterator<Item = &Reins> {
        self.known.values().filter_map(|known| if let State::Running(reins) = &known.state { Some(reins) } else { None })
    }

    fn find(&mut self, key: ChoreKey) -> Option<&mut Known> {
        self.known.get_mut(&(key.job, key.kind)).filter(|known| known.key == key)
    }
}

#[cfg(test)]
mod tests {
    use broker_config::{message::Outcome, spec::TaskSpec, time::Timestamp};

    use super::*;

    fn chore(kind: ChoreKind, number: u32, is_awaited: bool) -> Box<Chore> {
        let key = ChoreKey { job: JobUid(1), kind, number };
        Box::new(Chore { key, job: "j".parse().unwrap(), task: "t".parse().unwrap(), is_awaited, spec: TaskSpec::default() })
    }

    fn end(key: ChoreKey, code: i32) -> Box<ChoreEnd> {
        let outcome = Outcome::Exit { code };
        Box::new(ChoreEnd { key, started_at: Timestamp(1), ended_at: Timestamp(2), outcome, retries: 0, retried_at: None })
    }

    fn job() -> JobId {
        "j".parse().unwrap()
    }

    #[test]
    fn one_preparation_runs_however_many_runs_wait_for_it() {
        let mut chores = Chores::default();
        let preparation = chore(ChoreKind::Preparation, 1, true);
        assert_eq!(chores.prepare(preparation.clone(), RunId(1)), Outlook::Begin(preparation.clone()));
        assert_eq!(chores.prepare(preparation.clone(), RunId(2)), Outlook::Wait);
        chores.began(preparation.key, Reins::new());
        assert_eq!(chores.prepare(preparation.clone(), RunId(3)), Outlook::Wait);
        assert_eq!(chores.shown(), [preparation.key]);
        assert_eq!(chores.ended(end(preparation.key, 0), Instant::now()), [RunId(1), RunId(2), RunId(3)]);
        chores.over(preparation.key);
        assert!(chores.shown().is_empty(), "it is told no more");
        assert_eq!(chores.prepare(preparation, RunId(4)), Outlook::Go, "an answer that comes late starts nothing twice");
        let again = chore(ChoreKind::Preparation, 2, true);
        assert_eq!(chores.prepare(again.clone(), RunId(5)), Outlook::Begin(again));
    }

    #[test]
    fn a_failed_preparation_fails_runs_only_of_jobs_that_wait() {
        let mut chores = Chores::default();
        let preparation = chore(ChoreKind::Preparation, 1, true);
        chores.prepare(preparation.clone(), RunId(1));
        chores.ended(end(preparation.key, 1), Instant::now());
        assert_eq!(chores.prepare(preparation.clone(), RunId(2)), Outlook::Fail(end(preparation.key, 1)));
        assert_eq!(chores.prepare(chore(ChoreKind::Preparation, 1, false), RunId(2)), Outlook::Go);
    }

    #[test]
    fn a_release_waits_for_runs_and_the_preparation_and_voids_older_answers() {
        let mut chores = Chores::default();
        let (preparation, release) = (chore(ChoreKind::Preparation, 1, true), chore(ChoreKind::Release, 1, true));
        chores.prepare(preparation.clone(), RunId(1));
        chores.began(preparation.key, Reins::new());
        assert!(!chores.is_released(&job(), None));
        assert!(chores.release(release.clone()) && !chores.release(release.clone()));
        assert!(chores.is_released(&job(), None) && chores.is_released(&job(), Some(preparation.key)));
        assert!(chores.ready(|_| false).is_empty(), "its preparation runs");
        chores.ended(end(preparation.key, 0), Instant::now());
        assert!(chores.ready(|_| true).is_empty());
        assert_eq!(chores.ready(|_| false), [*release]);
        let newer = chore(ChoreKind::Preparation, 2, true).key;
        assert!(!chores.is_released(&job(), Some(newer)), "the job came back");
        let other = ChoreKey { job: JobUid(2), ..newer };
        assert!(!chores.is_released(&job(), Some(other)), "another job has the name now");
        assert!(!chores.is_released(&"other".parse().unwrap(), None));
    }

    #[test]
    fn ends_are_told_again_until_they_are_over() {
        let (mut chores, now) = (Chores::default(), Instant::now());
        let release = chore(ChoreKind::Release, 1, true);
        chores.release(release.clone());
        let reins = Reins::new();
        chores.began(release.key, reins.clone());
        assert!(chores.tell_again(now, true).is_empty());
        chores.ended(end(release.key, 0), now);
        assert!(chores.tell_again(now, false).is_empty());
        assert_eq!(chores.tell_again(now, true).len(), 1);
        assert_eq!(chores.tell_again(now + TELL_AGAIN_AFTER, false).len(), 1);
        chores.over(release.key);
        assert!(chores.tell_again(now + 2 * TELL_AGAIN_AFTER, true).is_empty());
        assert!(!reins.stop.is_cancelled(), "it had ended by itself");
    }

    #[test]
    fn what_is_over_while_it_runs_is_stopped() {
        let mut chores = Chores::default();
        let (preparation, reins) = (chore(ChoreKind::Preparation, 1, true), Reins::new());
        chores.prepare(preparation.clone(), RunId(1));
        chores.began(preparation.key, reins.clone());
        chores.over(preparation.key);
        assert!(reins.stop.is_cancelled());
    }
}
