//! Ends processes that outlive their runs: daemons, also those with a session of their own and without our variables.
//!
//! The agent is the subreaper of its descendants: a process whose parent dies becomes its child, so whatever outlives a
//! run shows up there. `strays` decides which of them must end. The end of a run waits until its daemons are gone, but
//! not for processes that cannot be killed: those of another user, or those that hang in the kernel.

use std::{
    collections::HashSet,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use contract::ids::JobId;
use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions},
};

use crate::process::{
    environment::{MARKER, RUN},
    strays::{Origin, Process, Strays},
    tree::{self, KILL_WAIT_MAX, POLL_PERIOD},
};

/// Longest pause between two checks of processes that do not end.
const POLL_PERIOD_MAX: Duration = Duration::from_millis(200);
const REFUSED: &str = "the agent's user may not kill processes that a run left behind; they keep running";

/// The children that the agent did not start itself; `None` inside means that nothing is adopted.
#[derive(Debug, Clone)]
pub struct Orphans(Option<Arc<Mutex<State>>>);

#[derive(Debug)]
struct State {
    marker: String,
    /// The agent's session, which the leaders of its runs share. It is 0 in a container whose first process began none:
    /// the session's leader has no number here.
    session: i32,
    /// Leaders that are being started and have no entry yet.
    starting: usize,
    /// Children that belong to no run, such as the guardian.
    spared: HashSet<i32>,
    strays: Strays,
}

/// Guard of a child that is being started.
#[derive(Debug)]
pub struct Start<'a>(&'a Orphans);

impl Drop for Start<'_> {
    fn drop(&mut self) {
        if let Some(mut state) = self.0.lock() {
            state.starting -= 1;
        }
    }
}

impl Start<'_> {
    /// Records the started child as the leader of a run.
    pub fn leads(self, pid: Pid, run: Origin) {
        if let Some(mut state) = self.0.lock() {
            state.strays.leads(number(pid), run);
        }
    }

    /// Records the started child as one that belongs to no run.
    pub fn spares(self, pid: u32) {
        if let Some(mut state) = self.0.lock() {
            state.spared.insert(pid.cast_signed());
        }
    }
}

impl Orphans {
    /// Makes this process the subreaper of its descendants; `marker` is the value that its tasks carry in their
    /// environment.
    pub fn adopt(marker: &str) -> io::Result<Orphans> {
        let own = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(own))?;
        let session = tree::stat(own).ok_or_else(|| io::Error::other("/proc does not show this process"))?.session;
        let state = State { marker: marker.to_owned(), session, starting: 0, spared: HashSet::new(), strays: Strays::default() };
        Ok(Orphans(Some(Arc::new(Mutex::new(state)))))
    }

    /// Adopts nothing, for an agent that shares its process with other parts.
    pub fn leave() -> Orphans {
        Orphans(None)
    }

    fn lock(&self) -> Option<MutexGuard<'_, State>> {
        self.0.as_ref().map(|state| state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Announces a child that is about to be started in a process group of its own.
    pub fn starting(&self) -> Start<'_> {
        if let Some(mut state) = self.lock() {
            state.starting += 1;
        }
        Start(self)
    }

    /// Forgets a reaped child of no run: its number may be another's now.
    pub fn reaped(&self, pid: u32) {
        if let Some(mut state) = self.lock() {
            state.spared.remove(&pid.cast_signed());
        }
    }

    /// Reaps children that have ended and records new ones; returns whether all could be seen.
    pub fn poll(&self) -> bool {
        let Some((marker, fresh, is_complete)) = self.lock().map(|mut state| {
            let (fresh, is_complete) = state.list();
            (state.marker.clone(), fresh, is_complete)
        }) else {
            return true;
        };
        for process in fresh {
            // Reading an environment can hang with its process in the kernel, so it happens without the lock.
            let claim = claim(&marker, process);
            if let Some(mut state) = self.lock() {
                state.strays.decide(process, claim, Instant::now());
            }
        }
        is_complete
    }

    /// Records the daemons of a run whose leader has ended, then reaps the leader: until then its number is its own and
    /// identifies its process group.
    pub fn end<T>(&self, leader: Pid, reap: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        // A check that failed for lack of descriptors saw none of the run's daemons.
        while !self.poll() && begun.elapsed() < KILL_WAIT_MAX {
            std::thread::sleep(POLL_PERIOD);
        }
        let mut state = self.lock();
        let reaped = reap();
        if let Some(state) = &mut state {
            state.strays.over(number(leader));
        }
        reaped
    }

    /// Lets the daemons of a run stay: those of the start task, or of a job's preparation for its job.
    pub fn keep(&self, run: Origin, job: Option<JobId>) {
        if let Some(mut state) = self.lock() {
            state.strays.keep(run, job);
        }
    }

    /// Ends the daemons that a job's preparation left for the job's tasks.
    pub fn release_job(&self, job: &JobId) {
        let runs = self.lock().map(|mut state| state.strays.release_job(job)).unwrap_or_default();
        runs.iter().for_each(|run| self.clear(run));
    }

    /// Ends the daemons of an ended run, and all others whose runs are over; waits only for the former.
    pub fn clear(&self, run: &Origin) {
        let begun = Instant::now();
        let mut dying: HashSet<Process> = HashSet::new();
        let (mut rounds, mut pause) = (0, POLL_PERIOD);
        loop {
            let (due, awaited) = self.lock().map(|state| (state.strays.due(), state.strays.awaited(run))).unwrap_or_default();
            if rounds == 0 && due.len() > awaited.len() {
                // Another thread waits for these and does the rest.
                kill(&due);
            }
            let killed = kill(&awaited);
            dying.extend(killed.dying);
            dying.retain(|process| !tree::has_ended(*process));
            if awaited.is_empty() && dying.is_empty() {
                if rounds > 0 {
                    // Reaps the last of them.
                    self.poll();
                }
                return;
            }
            self.give_up(&killed.refused, REFUSED);
            if begun.elapsed() > KILL_WAIT_MAX {
                self.give_up(
                    &awaited,
                    "processes that a run left behind survived SIGKILL; the end of the run does not wait for them any longer",
                );
                return;
            }
            rounds += 1;
            std::thread::sleep(pause);
            pause = (pause * 2).min(POLL_PERIOD_MAX);
            self.poll();
        }
    }

    /// Checks again, and ends processes that appear only now although their runs are over.
    pub fn tidy(&self) {
        self.poll();
        let due = self.lock().map(|state| state.strays.due()).unwrap_or_default();
        self.give_up(&kill(&due).refused, REFUSED);
    }

    fn give_up(&self, processes: &[Process], why: &str) {
        let Some(mut state) = self.lock() else { return };
        let fresh: Vec<i32> = processes.iter().filter(|process| state.strays.give_up(**process)).map(|(pid, _)| *pid).collect();
        if !fresh.is_empty() {
            tracing::warn!(processes = ?fresh, "{why}");
        }
    }

    /// Processes that no run leads, and that belong to one run for certain, with that run.
    pub fn certain(&self) -> Vec<(i32, String)> {
        self.lock().map(|state| state.strays.certain()).unwrap_or_default()
    }

    /// Living processes that no run leads, by number and start time; `None` while another thread holds the lock.
    pub fn living(&self) -> Option<Vec<Process>> {
        let state = self.0.as_ref()?.try_lock().ok()?;
        Some(state.strays.all())
    }
}

impl State {
    /// Lists the children: reaps those that ended, forgets those that are gone, returns new ones and whether all were
    /// seen.
    fn list(&mut self) -> (Vec<Process>, bool) {
        let now = Instant::now();
        let (children, mut is_complete) = match tree::own_children() {
            Ok(children) => (children, true),
            Err(_) => (Vec::new(), false),
        };
        let mut fresh = Vec::new();
        for pid in children {
            let plain = number(pid);
            if self.strays.is_leader(plain) || self.spared.contains(&plain) {
                continue;
            }
            let stat = match tree::try_stat(pid) {
                Ok(Some(stat)) => stat,
                Ok(None) => continue,
                Err(_) => {
                    is_complete = false;
                    continue;
                }
            };
            // Possibly a child whose start is not recorded yet.
            if self.starting > 0 && stat.group == plain && stat.session == self.session {
                continue;
            }
            if stat.has_ended() {
                // Nothing else waits for this child.
                rustix::process::waitpid(Some(pid), WaitOptions::NOHANG).ok();
                continue;
            }
            let (process, session) = ((plain, stat.started), Some(stat.session).filter(|session| *session != self.session));
            if self.strays.note(process, stat.group, session, now) {
                fresh.push(process);
            }
        }
        self.strays.forget(tree::has_ended, now);
        (fresh, is_complete)
    }
}

/// Results of signals to processes and all below them.
#[derive(Default)]
struct Killed {
    /// Signalled and not yet gone.
    dying: Vec<Process>,
    /// Processes of another user.
    refused: Vec<Process>,
}

fn kill(tops: &[Process]) -> Killed {
    let mut killed = Killed::default();
    if tops.is_empty() {
        return killed;
    }
    let tops: Vec<Pid> = tops.iter().filter(|process| !tree::has_ended(**process)).filter_map(|(pid, _)| Pid::from_raw(*pid)).collect();
    for pid in tree::with_descendants(&tops) {
        let Some(stat) = tree::stat(pid).filter(|stat| !stat.has_ended()) else { continue };
        let process = (number(pid), stat.started);
        match rustix::process::kill_process(pid, Signal::KILL) {
            Ok(()) => killed.dying.push(process),
            Err(Errno::PERM) => killed.refused.push(process),
            // The process has ended already, which is the goal.
            Err(_) => {}
        }
    }
    killed
}

/// The run that a process's environment names, if it names one.
fn claim(marker: &str, (pid, _): Process) -> Option<Origin> {
    let environment = tree::environ(Pid::from_raw(pid)?)?;
    let value = |name: &str| {
        let mut entries = environment.split(|byte| *byte == 0);
        let value = entries.find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
        Some(String::from_utf8_lossy(value).into_owned())
    };
    value(MARKER).filter(|found| found == marker).map(|_| value(RUN))
}

fn number(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}
