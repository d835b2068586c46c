//! Bookkeeping of processes that outlive their parents, pure: which runs they may belong to, and which must end.
//!
//! A process belongs to the run that its environment, its process group or its session names. Where none does, every
//! run of that time may have left it, and it ends with the last of them. Daemons of a start task or a preparation that
//! succeeded stay.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use contract::ids::JobId;

/// The run that a process belongs to; `None` is the start task.
pub type Origin = Option<String>;
/// Identifies a process for ever: its number and its start time.
pub type Process = (i32, u64);

/// A session is remembered this long after its last process, because children forked during the kill may still appear.
const SESSION_MEMORY: Duration = Duration::from_secs(10);

/// A process that no run leads.
#[derive(Debug)]
struct Stray {
    /// All runs that it may belong to.
    origins: HashSet<Origin>,
    session: i32,
    /// Whether its environment has been read.
    is_decided: bool,
    /// Set when it survived SIGKILL, so that nothing waits for it any more.
    is_given_up: bool,
}

#[derive(Debug)]
struct Session {
    origins: HashSet<Origin>,
    seen_at: Instant,
}

/// The leaders of runs, and the processes that runs left.
#[derive(Debug, Default)]
pub struct Strays {
    leaders: HashMap<i32, Origin>,
    /// Ended runs whose daemons stay, with the job that they stay for.
    kept: HashMap<Origin, Option<JobId>>,
    known: HashMap<Process, Stray>,
    /// Sessions of strays only, by number.
    sessions: HashMap<i32, Session>,
}

impl Strays {
    /// Records the leader of a run.
    pub fn leads(&mut self, pid: i32, origin: Origin) {
        self.leaders.insert(pid, origin);
    }

    /// Whether a process leads a run.
    pub fn is_leader(&self, pid: i32) -> bool {
        self.leaders.contains_key(&pid)
    }

    /// Forgets a leader that has ended; its daemons may have to end.
    pub fn over(&mut self, pid: i32) {
        self.leaders.remove(&pid);
    }

    /// Lets the daemons of a run stay after its end; with a job, until [`Strays::release_job`].
    pub fn keep(&mut self, origin: Origin, job: Option<JobId>) {
        self.kept.insert(origin, job);
    }

    /// Ends the stay of daemons for a job; returns the runs that they belong to.
    pub fn release_job(&mut self, job: &JobId) -> Vec<Origin> {
        self.kept.extract_if(|_, keeper| keeper.as_ref() == Some(job)).map(|(origin, _)| origin).collect()
    }

    /// Records a process; returns whether its environment must be read to know its run. `session` is absent where it is
    /// the one that the agent and the leaders share, which identifies nothing.
    pub fn note(&mut self, process: Process, group: i32, session: Option<i32>, now: Instant) -> bool {
        if let Some(stray) = self.known.get(&process) {
            return !stray.is_decided;
        }
        let origins = match (self.leaders.get(&group), session.and_then(|session| self.sessions.get(&session))) {
            (Some(origin), _) => HashSet::from([origin.clone()]),
            (None, Some(session)) => session.origins.clone(),
            (None, None) => self.leaders.values().cloned().collect(),
        };
        let session = session.unwrap_or_default();
        self.known.insert(process, Stray { origins, session, is_decided: false, is_given_up: false });
        self.see(process, now);
        true
    }

    /// Records the run that a process's environment names, if any.
    pub fn decide(&mut self, process: Process, claim: Option<Origin>, now: Instant) {
        let Some(stray) = self.known.get_mut(&process) else { return };
        stray.is_decided = true;
        if let Some(origin) = claim {
            stray.origins = HashSet::from([origin]);
        }
        self.see(process, now);
    }

    fn see(&mut self, process: Process, now: Instant) {
        if let Some(stray) = self.known.get(&process).filter(|stray| stray.session > 0) {
            self.sessions.insert(stray.session, Session { origins: stray.origins.clone(), seen_at: now });
        }
    }

    /// Forgets processes that have ended.
    pub fn forget(&mut self, has_ended: impl Fn(Process) -> bool, now: Instant) {
        self.known.retain(|process, _| !has_ended(*process));
        for stray in self.known.values() {
            self.sessions.entry(stray.session).and_modify(|session| session.seen_at = now);
        }
        self.sessions.retain(|_, session| now.duration_since(session.seen_at) <= SESSION_MEMORY);
        let (known, leaders) = (&self.known, &self.leaders);
        self.kept.retain(|origin, _| {
            leaders.values().any(|led| led == origin) || known.values().any(|stray| stray.origins.contains(origin) || !stray.is_decided)
        });
    }

    /// Processes whose runs are all over.
    pub fn due(&self) -> Vec<Process> {
        self.over_with(|_| true)
    }

    /// The due processes that the end of this run waits for.
    pub fn awaited(&self, run: &Origin) -> Vec<Process> {
        self.over_with(|stray| !stray.is_given_up && stray.origins.contains(run))
    }

    fn over_with(&self, counts: impl Fn(&Stray) -> bool) -> Vec<Process> {
        let living: HashSet<&Origin> = self.leaders.values().chain(self.kept.keys()).collect();
        let is_due = |stray: &Stray| {
            stray.is_decided && !stray.origins.is_empty() && stray.origins.iter().all(|origin| !living.contains(origin)) && counts(stray)
        };
        self.known.iter().filter(|(_, stray)| is_due(stray)).map(|(process, _)| *process).collect()
    }

    /// Gives up on a process that survived SIGKILL; returns whether that is new.
    pub fn give_up(&mut self, process: Process) -> bool {
        self.known.get_mut(&process).is_some_and(|stray| !std::mem::replace(&mut stray.is_given_up, true))
    }

    /// Processes that belong to one run for certain, with that run.
    pub fn certain(&self) -> Vec<(i32, String)> {
        let of_one = |stray: &Stray| match (stray.is_decided, stray.origins.len()) {
            (true, 1) => stray.origins.iter().next().cloned().flatten(),
            _ => None,
        };
        self.known.iter().filter_map(|((pid, _), stray)| of_one(stray).map(|run| (*pid, run))).collect()
    }

    pub fn all(&self) -> Vec<Process> {
        self.known.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str) -> Origin {
        Some(name.to_owned())
    }

    fn strays(leaders: &[(i32, &str)]) -> Strays {
        let mut strays = Strays::default();
        leaders.iter().for_each(|(pid, name)| strays.leads(*pid, run(name)));
        strays
    }

    /// Adds a process with a session of its own and this environment.
    fn leave(strays: &mut Strays, pid: i32, claim: Option<Origin>) {
        assert!(strays.note((pid, 1), pid, Some(pid), Instant::now()));
        strays.decide((pid, 1), claim, Instant::now());
    }

    fn due(strays: &Strays) -> Vec<i32> {
        let mut due: Vec<i32> = strays.due().into_iter().map(|(pid, _)| pid).collect();
        due.sort_unstable();
        due
    }

    #[test]
    fn a_process_is_due_when_all_that_may_have_left_it_are_over() {
        let mut strays = strays(&[(1, "a"), (2, "b")]);
        leave(&mut strays, 10, Some(run("a")));
        leave(&mut strays, 11, Some(run("b")));
        leave(&mut strays, 12, None);
        assert!(strays.note((13, 1), 1, None, Instant::now()), "it has the group of the first leader");
        assert_eq!(due(&strays), [0; 0]);
        assert_eq!(strays.certain().len(), 2, "two processes say whose they are");
        strays.over(1);
        assert_eq!(due(&strays), [10], "the environment of another is not known yet");
        strays.decide((13, 1), None, Instant::now());
        assert_eq!(due(&strays), [10, 13]);
        strays.over(2);
        assert_eq!(due(&strays), [10, 11, 12, 13]);
        leave(&mut strays, 14, None);
        assert_eq!(due(&strays), [10, 11, 12, 13], "nothing says whose the last one is");
        assert_eq!(strays.awaited(&run("a")).len(), 3);
    }

    #[test]
    fn what_would_not_die_is_awaited_by_no_later_end() {
        let mut strays = strays(&[(1, "a"), (2, "b")]);
        leave(&mut strays, 10, Some(run("a")));
        leave(&mut strays, 12, None);
        strays.over(1);
        assert_eq!(strays.awaited(&run("a")), [(10, 1)]);
        assert!(strays.give_up((10, 1)) && !strays.give_up((10, 1)), "it is reported once");
        assert!(strays.awaited(&run("a")).is_empty());
        strays.over(2);
        assert_eq!(strays.awaited(&run("b")), [(12, 1)], "the end of a run waits for nobody else's");
        assert_eq!(due(&strays), [10, 12]);
    }

    #[test]
    fn daemons_of_a_preparation_stay_until_their_job_is_released() {
        let job: JobId = "j".parse().unwrap();
        let mut strays = strays(&[(1, "preparation")]);
        strays.leads(2, None);
        leave(&mut strays, 10, Some(run("preparation")));
        leave(&mut strays, 11, Some(None));
        strays.keep(run("preparation"), Some(job.clone()));
        strays.keep(None, None);
        strays.over(1);
        strays.over(2);
        strays.forget(|_| false, Instant::now());
        assert_eq!(due(&strays), [0; 0]);
        assert!(strays.release_job(&"other".parse().unwrap()).is_empty());
        assert_eq!(strays.release_job(&job), [run("preparation")]);
        assert_eq!(due(&strays), [10], "the start task's stays");
        strays.forget(|_| true, Instant::now());
        assert!(strays.kept.is_empty(), "nothing is kept for processes that are gone");
    }

    #[test]
    fn what_a_daemon_forks_while_it_is_killed_goes_with_it() {
        let (mut strays, now) = (strays(&[(1, "a"), (2, "b")]), Instant::now());
        leave(&mut strays, 10, Some(run("a")));
        strays.over(1);
        strays.forget(|(pid, _)| pid == 10, now);
        strays.note((20, 2), 20, Some(10), now);
        strays.decide((20, 2), None, now);
        assert_eq!(due(&strays), [20]);
        strays.forget(|_| true, now + SESSION_MEMORY * 2);
        strays.note((21, 3), 21, Some(10), now + SESSION_MEMORY * 2);
        strays.decide((21, 3), None, now);
        assert_eq!(due(&strays), [0; 0], "the number of the session may be another's by now");
    }
}
