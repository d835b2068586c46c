//! Starts one process by posix_spawn and waits for its true end.
//!
//! Runs on one of `threads`. [`ProcessGroup`] lets a stop signal the process group meanwhile without ever signalling a
//! number that was given to another process.

use std::{
    fs::File,
    io,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

use contract::{
    ids::JobId,
    outcome::{Fault, Usage},
};
use rustix::process::{Pid, Signal};
use tokio::sync::oneshot;

use crate::{
    beneath::Folder,
    open_streams::OpenStreams,
    process::{
        command_line,
        environment::{Environment, RUN},
        orphans::Orphans,
        tree, umask,
        usage::{self, Exit},
    },
    shortage::{SHORTAGE, is_shortage},
};

const STREAM_MODE: u32 = 0o664;

/// Handle to signal the process group of a run from other threads.
#[derive(Debug, Default)]
pub struct ProcessGroup(Mutex<Hold>);

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Hold {
    #[default]
    Unborn,
    /// A stop came before the start; nothing may be started any more.
    Stopped,
    Alive(Pid),
    Ended,
}

impl ProcessGroup {
    fn lock(&self) -> MutexGuard<'_, Hold> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signals the group; before the start, forbids it instead.
    pub fn signal(&self, signal: Signal) {
        let mut hold = self.lock();
        match *hold {
            Hold::Alive(group) => tree::signal_group(group, signal),
            Hold::Unborn => *hold = Hold::Stopped,
            Hold::Stopped | Hold::Ended => {}
        }
    }

    #[cfg(test)]
    pub fn set_for_test(&self, group: Pid) {
        *self.lock() = Hold::Alive(group);
    }

    /// The number of the group while it lives.
    pub fn group(&self) -> Option<i32> {
        match *self.lock() {
            Hold::Alive(group) => Some(group.as_raw_nonzero().get()),
            _ => None,
        }
    }
}

/// Fate of the processes that outlive the started one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leftovers {
    /// They are killed after it.
    End,
    /// They stay when it succeeds: as long as the agent, or as long as this job runs here.
    Stay(Option<JobId>),
}

/// Standard input and output of a process that talks to the agent.
#[derive(Debug)]
pub struct Pipes {
    pub stdin: ChildStdin,
    pub stdout: ChildStdout,
}

/// Parameters of a start.
#[derive(Debug)]
pub struct Launch {
    /// As the user wrote it; it is split and expanded here.
    pub command_line: String,
    pub environment: Environment,
    /// The task's folder: the process runs in its `wd`, and the streams are files in it.
    pub folder: PathBuf,
    /// Where the process runs in place of `wd`.
    pub directory: Option<PathBuf>,
    pub leftovers: Leftovers,
}

/// Result of a launch.
#[derive(Debug)]
pub enum LaunchResult {
    /// The process ran.
    Ended { exit: Exit, usage: Usage, stdout: File, stderr: File },
    /// The process could not be started.
    NotStarted(Fault),
    /// A stop came before the start.
    Stopped,
}

impl Launch {
    /// Starts the process and waits for its end, calls `on_end` at once, and then ends the processes that outlive it.
    pub fn run(&self, group: &ProcessGroup, orphans: &Orphans, open: &OpenStreams, on_end: impl FnOnce()) -> LaunchResult {
        self.run_with(group, orphans, open, None, on_end)
    }

    /// Like [`run`](Launch::run); with a receiver of pipes, standard input and output are pipes.
    pub fn run_with(
        &self,
        group: &ProcessGroup,
        orphans: &Orphans,
        open: &OpenStreams,
        pipes: Option<oneshot::Sender<Pipes>>,
        on_end: impl FnOnce(),
    ) -> LaunchResult {
        let words = match command_line::split(&self.command_line, |name| self.environment.text(name)) {
            Ok(words) => words,
            Err(error) => return LaunchResult::NotStarted(self.fault("CommandLaunchFailed", error.to_string(), None)),
        };
        let wd = self.directory.clone().unwrap_or_else(|| self.folder.join("wd"));
        let Some(program) = find(&words[0], &wd, &self.environment) else {
            let message = format!("the program {} was not found", words[0]);
            return LaunchResult::NotStarted(self.fault("CommandProgramNotFound", message, None));
        };
        let (stdout, stderr) = match self.streams() {
            Ok(streams) => streams,
            Err(error) => {
                return LaunchResult::NotStarted(self.start_fault("CommandLaunchFailed", "the stream files cannot be made".into(), error));
            }
        };
        let mut command = Command::new(program);
        command.args(&words[1..]).env_clear().envs(self.environment.iter()).current_dir(&wd).process_group(0);
        command.stdin(Stdio::null());
        umask::give(&mut command);
        match (stdout.try_clone(), stderr.try_clone(), open.set(&stdout, &stderr)) {
            (Ok(out), Ok(err), Ok(())) => command.stdout(out).stderr(err),
            (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
                return LaunchResult::NotStarted(self.start_fault("CommandLaunchFailed", "no file handle is left".into(), error));
            }
        };
        if pipes.is_some() {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        }
        let run = self.environment.text(RUN);
        let pid = {
            let mut hold = group.lock();
            if *hold == Hold::Stopped {
                return LaunchResult::Stopped;
            }
            let start = orphans.starting();
            match command.spawn() {
                Ok(mut child) => {
                    let pid = Pid::from_child(&child);
                    if let (Some(pipes), Some(stdin), Some(stdout)) = (pipes, child.stdin.take(), child.stdout.take()) {
                        // Without a receiver both ends are closed, and the process ends by that.
                        pipes.send(Pipes { stdin, stdout }).ok();
                    }
                    start.leads(pid, run.clone());
                    *hold = Hold::Alive(pid);
                    pid
                }
                Err(error) => {
                    let code = if error.kind() == io::ErrorKind::NotFound { "CommandProgramNotFound" } else { "CommandLaunchFailed" };
                    return LaunchResult::NotStarted(self.start_fault(code, format!("{} cannot be started", words[0]), error));
                }
            }
        };
        drop(command);
        let ended = usage::wait_until_ended(pid);
        *group.lock() = Hold::Ended;
        on_end();
        match (&self.leftovers, &ended) {
            (Leftovers::Stay(job), Ok(true)) => orphans.keep(run.clone(), job.clone()),
            // The ended leader is not reaped yet, so the group's number cannot be another's.
            _ => tree::signal_group(pid, Signal::KILL),
        }
        let reaped = orphans.end(pid, || ended.and_then(|_| usage::reap(pid)));
        orphans.clear(&run);
        match reaped {
            Ok((exit, usage)) => LaunchResult::Ended { exit, usage, stdout, stderr },
            Err(error) => {
                LaunchResult::NotStarted(self.fault("CommandLaunchFailed", "the end of the process cannot be read".into(), Some(error)))
            }
        }
    }

    /// Opens both streams for appending, so that a program that opens the file by its name as well overwrites nothing.
    fn streams(&self) -> io::Result<(File, File)> {
        let folder = Folder::open(&self.folder)?;
        Ok((folder.append("stdout.txt", STREAM_MODE)?, folder.append("stderr.txt", STREAM_MODE)?))
    }

    /// The fault of a failed start: the command line's, or the node's when resources are short.
    fn start_fault(&self, code: &str, message: String, error: io::Error) -> Fault {
        let is_short = is_shortage(&error);
        self.fault(if is_short { SHORTAGE } else { code }, message, Some(error))
    }

    fn fault(&self, code: &str, message: String, error: Option<io::Error>) -> Fault {
        let mut details = vec![("CommandLine".to_owned(), self.command_line.chars().take(1024).collect())];
        details.extend(error.map(|error| ("Reason".to_owned(), error.to_string())));
        Fault { code: code.to_owned(), message, details }
    }
}

fn find(program: &str, wd: &Path, environment: &Environment) -> Option<PathBuf> {
    let is_program = |path: &Path| path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    if program.contains('/') {
        // Any other problem with the file is reported by the start itself.
        let path = wd.join(program);
        return path.exists().then_some(path);
    }
    let path = environment.get("PATH")?;
    std::env::split_paths(path).map(|folder| wd.join(folder).join(program)).find(|path| is_program(path))
}
