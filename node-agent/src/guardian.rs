//! The guardian: a small process that outlives a killed agent just long enough to kill the processes that it left.
//!
//! It reads a pipe from the agent. The agent writes lines: `marker M` once, `group N` and `gone N` as runs come and go,
//! `stray N START` and `left N START` as it adopts processes and they end, `silence MS` and then `alive` periodically.
//! When the pipe closes, for whatever reason, the guardian kills until nothing is left; an agent that writes nothing
//! for the time in `silence` hangs, and is killed first.

use std::{
    collections::HashSet,
    ffi::OsString,
    io::{self, BufRead, Write},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Command, ExitCode, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::OFlags,
    process::{Pid, Signal},
};

use crate::{
    process::{environment::MARKER, orphans::Orphans, tree},
    silence::Silence,
};

/// Longest line that is accepted.
const LINE_BYTES_MAX: usize = 256;
/// Lines that were read and not yet processed, at most.
const LINES_MAX: usize = 256;
/// Period of the check for a hung agent.
const CHECK_PERIOD: Duration = Duration::from_secs(1);
/// A write of up to this many bytes goes into the pipe whole or not at all.
const PIPE_BYTES_MAX: usize = 4096;
/// Shortest silence that counts as a hang.
const SILENCE_MIN: Duration = Duration::from_secs(5);

/// State that the agent's lines have set so far.
struct AgentState {
    marker: Option<String>,
    groups: HashSet<i32>,
    strays: HashSet<(i32, u64)>,
    silence: Silence,
}

impl AgentState {
    fn on_line(&mut self, line: &str) {
        self.silence.reset(Instant::now());
        match line.split_once(' ') {
            Some(("marker", value)) => self.marker = Some(value.to_owned()),
            Some(("group", number)) => self.groups.extend(number.parse::<i32>().ok().filter(|number| *number > 1)),
            Some(("gone", number)) => {
                number.parse().map(|number: i32| self.groups.remove(&number)).ok();
            }
            Some(("stray", process)) => self.strays.extend(stray(process)),
            Some(("left", process)) => {
                stray(process).map(|process| self.strays.remove(&process));
            }
            Some(("silence", ms)) => self.silence.limit(ms.parse().ok().filter(|ms| *ms > 0).map(Duration::from_millis)),
            // `alive`, and lines of newer agents.
            _ => {}
        }
    }
}

/// Body of the hidden subcommand `guardian`: reads its stdin, and kills what is left when the pipe closes or the agent
/// hangs.
pub fn guardian() -> ExitCode {
    let agent = rustix::process::getppid();
    let mut state = AgentState { marker: None, groups: HashSet::new(), strays: HashSet::new(), silence: Silence::new(Instant::now()) };
    let (lines, read) = mpsc::sync_channel(LINES_MAX);
    thread::spawn(move || {
        // A broken pipe counts as closed.
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if line.len() <= LINE_BYTES_MAX && lines.send(line).is_err() {
                break;
            }
        }
    });
    loop {
        match read.recv_timeout(CHECK_PERIOD) {
            Ok(line) => state.on_line(&line),
            Err(RecvTimeoutError::Timeout) if state.silence.is_too_long(Instant::now()) => {
                end_agent(agent);
                break;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    match state.marker {
        Some(marker) if tree::kill_all(MARKER, &marker, &state.groups, &state.strays) > 0 => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// Kills the agent that started this process, unless this process has another parent by now.
fn end_agent(agent: Option<Pid>) {
    let Some(agent) = agent.filter(|agent| rustix::process::getppid() == Some(*agent)) else { return };
    // Goes to the agent's own log; an error here cannot be reported.
    writeln!(io::stderr(), "the node agent hangs: its guardian kills it and its tasks, and its supervisor starts it again").ok();
    // It may have ended already, which is the goal.
    rustix::process::kill_process(agent, Signal::KILL).ok();
}

fn stray(text: &str) -> Option<(i32, u64)> {
    let (number, started) = text.split_once(' ')?;
    Some((number.parse().ok().filter(|number| *number > 1)?, started.parse().ok()?))
}

/// The agent's end of the pipe, and the guardian process.
#[derive(Debug)]
pub struct Guard {
    command: Vec<OsString>,
    marker: String,
    /// Knows the guardian's process, so that it is not taken for a daemon of a task.
    orphans: Orphans,
    child: Child,
    /// Killed guardians that are not reaped yet.
    ended: Vec<Child>,
    pipe: ChildStdin,
    reported_groups: HashSet<i32>,
    reported_strays: HashSet<(i32, u64)>,
    silence: Option<Duration>,
}

impl Guard {
    pub fn start(command: Vec<OsString>, marker: String, orphans: Orphans) -> io::Result<Guard> {
        let (child, pipe) = spawn(&command, &marker, None, &orphans)?;
        let (reported_groups, reported_strays) = (HashSet::new(), HashSet::new());
        Ok(Guard { command, marker, orphans, child, ended: Vec::new(), pipe, reported_groups, reported_strays, silence: None })
    }

    /// Has the agent killed from now on when [`Guard::watch`] is not called for most of the lease.
    pub fn expect(&mut self, lease: Duration) {
        let silence = (lease * 3 / 4).max(SILENCE_MIN);
        self.silence = Some(silence);
        self.write(&silence_line(silence));
    }

    /// Ends that watch, because the agent is about to end.
    pub fn rest(&mut self) {
        self.silence = None;
        self.write(&silence_line(Duration::ZERO));
    }

    /// Tells the guardian that the agent is alive, which groups live, and which adopted processes, where that is known.
    /// Called periodically.
    pub fn watch(&mut self, living: impl Iterator<Item = i32>, strays: Option<Vec<(i32, u64)>>) {
        let living: HashSet<i32> = living.collect();
        let strays = strays.map_or_else(|| self.reported_strays.clone(), HashSet::from_iter);
        if !matches!(self.child.try_wait(), Ok(None)) {
            tracing::warn!("the guardian process has ended; starting another");
            self.replace();
        }
        let orphans = &self.orphans;
        self.ended.retain_mut(|child| {
            let is_left = matches!(child.try_wait(), Ok(None));
            if !is_left {
                orphans.reaped(child.id());
            }
            is_left
        });
        let mut lines = vec!["alive\n".to_owned()];
        lines.extend(living.difference(&self.reported_groups).map(|group| format!("group {group}\n")));
        lines.extend(self.reported_groups.difference(&living).map(|group| format!("gone {group}\n")));
        lines.extend(strays.difference(&self.reported_strays).map(|(pid, start)| format!("stray {pid} {start}\n")));
        lines.extend(self.reported_strays.difference(&strays).map(|(pid, start)| format!("left {pid} {start}\n")));
        let mut text = String::new();
        for line in lines {
            if text.len() + line.len() > PIPE_BYTES_MAX {
                if !self.write(&text) {
                    return;
                }
                text.clear();
            }
            text.push_str(&line);
        }
        if self.write(&text) {
            (self.reported_groups, self.reported_strays) = (living, strays);
        }
    }

    /// Closes the pipe and waits until the guardian has cleaned up; the guardian limits how long that takes.
    pub fn finish(self) {
        let Guard { mut child, pipe, .. } = self;
        drop(pipe);
        if let Err(error) = child.wait() {
            tracing::warn!(%error, "cannot wait for the guardian process; processes of this node may be left behind");
        }
    }

    /// Writes without waiting: a guardian whose pipe is full is killed and replaced.
    fn write(&mut self, text: &str) -> bool {
        match self.pipe.write(text.as_bytes()) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tracing::warn!("the guardian process does not read its pipe; starting another");
                if let Err(error) = self.child.kill() {
                    tracing::warn!(%error, "cannot kill the guardian process that does not read its pipe");
                }
                self.replace();
                false
            }
            Err(error) => {
                tracing::warn!(%error, "cannot write to the guardian process; starting another");
                false
            }
        }
    }

    fn replace(&mut self) {
        match spawn(&self.command, &self.marker, self.silence, &self.orphans) {
            Ok((child, pipe)) => {
                self.pipe = pipe;
                self.ended.push(std::mem::replace(&mut self.child, child));
                self.reported_groups.clear();
                self.reported_strays.clear();
            }
            Err(error) => tracing::warn!(%error, "cannot start the guardian process; trying again"),
        }
    }
}

fn silence_line(silence: Duration) -> String {
    format!("silence {}\n", silence.as_millis())
}

fn spawn(command: &[OsString], marker: &str, silence: Option<Duration>, orphans: &Orphans) -> io::Result<(Child, ChildStdin)> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    // Its own group, so that Ctrl-C in a terminal does not reach it; no variables of the agent, which may be secrets.
    command.args(arguments).process_group(0).env_clear().stdin(Stdio::piped()).stdout(Stdio::null());
    let start = orphans.starting();
    let mut child = command.spawn()?;
    let mut pipe = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    rustix::fs::fcntl_setfl(&pipe, OFlags::NONBLOCK)?;
    pipe.write_all(format!("marker {marker}\n{}", silence.map(silence_line).unwrap_or_default()).as_bytes())?;
    // One that could not be told its task is reaped like any other child.
    start.spares(child.id());
    Ok((child, pipe))
}
