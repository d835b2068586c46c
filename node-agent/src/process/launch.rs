//! Starting one process on the posix_spawn path and waiting for its true end.
//!
//! Called on one of `threads`; `Leash` is how a stop reaches the process group meanwhile without ever
//! signalling a number that has been given to somebody else.

use std::{
    fs::File,
    io,
    os::unix::{
        fs::{OpenOptionsExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

use broker_config::message::{Fault, Usage};
use rustix::process::{Pid, Signal};

use crate::process::{
    command_line,
    environment::Environment,
    tree,
    usage::{self, Exit},
};

/// A hold on the process group of a run.
#[derive(Debug, Default)]
pub struct Leash(Mutex<Hold>);

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Hold {
    #[default]
    Unborn,
    /// No process is to be started any more.
    Cut,
    Alive(Pid),
    Ended,
}

impl Leash {
    fn lock(&self) -> MutexGuard<'_, Hold> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signals the group; before the start it forbids the start.
    pub fn signal(&self, signal: Signal) {
        let mut hold = self.lock();
        match *hold {
            Hold::Alive(group) => {
                tree::signal_group(group, signal);
            }
            Hold::Unborn => *hold = Hold::Cut,
            Hold::Cut | Hold::Ended => {}
        }
    }

    /// The living group.
    pub fn group(&self) -> Option<i32> {
        match *self.lock() {
            Hold::Alive(group) => Some(group.as_raw_nonzero().get()),
            _ => None,
        }
    }
}

/// Everything a start needs.
#[derive(Debug)]
pub struct Launch {
    /// As the user gave it.
    pub command_line: String,
    /// All variables.
    pub environment: Environment,
    /// The task's folder: the process runs in `wd` below it, and its streams are files in it.
    pub folder: PathBuf,
}

/// What became of it.
#[derive(Debug)]
pub enum Landed {
    /// It ran.
    Ended {
        /// How it ended.
        exit: Exit,
        /// What it used.
        usage: Usage,
        /// Its stdout, open for reading.
        stdout: File,
        /// Its stderr, open for reading.
        stderr: File,
    },
    /// It could not be started.
    NotStarted(Fault),
    /// A stop came first.
    Cut,
}

impl Launch {
    /// Starts the process and waits for its end; members of its group that outlive it are ended.
    pub fn run(self, leash: &Leash) -> Landed {
        let words = match command_line::split(&self.command_line, |name| self.environment.text(name)) {
            Ok(words) => words,
            Err(error) => return Landed::NotStarted(self.fault("CommandLaunchFailed", error.to_string(), None)),
        };
        let wd = self.folder.join("wd");
        let Some(program) = find(&words[0], &wd, &self.environment) else {
            let message = format!("the program {} was not found", words[0]);
            return Landed::NotStarted(self.fault("CommandProgramNotFound", message, None));
        };
        let (stdout, stderr) = match (stream(&self.folder, "stdout.txt"), stream(&self.folder, "stderr.txt")) {
            (Ok(stdout), Ok(stderr)) => (stdout, stderr),
            (Err(error), _) | (_, Err(error)) => {
                return Landed::NotStarted(self.fault("CommandLaunchFailed", "the stream files cannot be made".into(), Some(error)));
            }
        };
        let mut command = Command::new(program);
        command.args(&words[1..]).env_clear().envs(self.environment.iter()).current_dir(&wd).process_group(0);
        command.stdin(Stdio::null());
        match (stdout.try_clone(), stderr.try_clone()) {
            (Ok(out), Ok(err)) => command.stdout(out).stderr(err),
            (Err(error), _) | (_, Err(error)) => {
                return Landed::NotStarted(self.fault("CommandLaunchFailed", "no file handle is left".into(), Some(error)));
            }
        };
        let pid = {
            let mut hold = leash.lock();
            if *hold == Hold::Cut {
                return Landed::Cut;
            }
            match command.spawn() {
                Ok(child) => {
                    let pid = Pid::from_child(&child);
                    *hold = Hold::Alive(pid);
                    pid
                }
                Err(error) => {
                    let code = if error.kind() == io::ErrorKind::NotFound { "CommandProgramNotFound" } else { "CommandLaunchFailed" };
                    return Landed::NotStarted(self.fault(code, format!("{} cannot be started", words[0]), Some(error)));
                }
            }
        };
        drop(command);
        let ended = usage::wait_until_ended(pid);
        let mut hold = leash.lock();
        *hold = Hold::Ended;
        // The ended leader is still there, so the group's number is ours until it is reaped.
        tree::signal_group(pid, Signal::KILL);
        match ended.and_then(|()| usage::reap(pid)) {
            Ok((exit, usage)) => Landed::Ended { exit, usage, stdout, stderr },
            Err(error) => Landed::NotStarted(self.fault("CommandLaunchFailed", "the process was lost".into(), Some(error))),
        }
    }

    fn fault(&self, code: &str, message: String, error: Option<io::Error>) -> Fault {
        let mut details = vec![("CommandLine".to_owned(), self.command_line.chars().take(1024).collect())];
        details.extend(error.map(|error| ("Reason".to_owned(), error.to_string())));
        Fault { code: code.to_owned(), message, details }
    }
}

fn stream(folder: &Path, name: &str) -> io::Result<File> {
    // Appending, so that a program that opens the file by its name as well loses nothing.
    File::options().read(true).append(true).create(true).mode(0o664).open(folder.join(name))
}

fn find(program: &str, wd: &Path, environment: &Environment) -> Option<PathBuf> {
    let is_program = |path: &Path| path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    if program.contains('/') {
        // Whatever it is, the start says what is wrong with it.
        let path = wd.join(program);
        return path.exists().then_some(path);
    }
    let path = environment.get("PATH")?;
    std::env::split_paths(path).map(|folder| wd.join(folder).join(program)).find(|path| is_program(path))
}
