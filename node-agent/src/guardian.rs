//! The guardian: a small process that outlives a killed agent just long enough to end what it left running.
//!
//! It holds the other end of a pipe. The agent writes lines, `marker M` once, `group N` and `gone N` as runs
//! come and go; when the pipe closes, for whatever reason, the guardian kills until nothing is left.

use std::{
    collections::HashSet,
    ffi::OsString,
    io::{self, BufRead, Write},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Command, ExitCode, Stdio},
};

use crate::process::{environment::MARKER, tree};

/// The longest line that is listened to.
const LINE_BYTES_MAX: usize = 256;

/// The body of the hidden subcommand: reads its stdin, and kills what is left when it closes.
pub fn guardian() -> ExitCode {
    let mut marker = None;
    let mut groups = HashSet::new();
    for line in io::stdin().lock().lines() {
        // A broken pipe is the end as well.
        let Ok(line) = line else { break };
        if line.len() > LINE_BYTES_MAX {
            continue;
        }
        match line.split_once(' ') {
            Some(("marker", value)) => marker = Some(value.to_owned()),
            Some(("group", number)) => groups.extend(number.parse::<i32>().ok().filter(|number| *number > 1)),
            Some(("gone", number)) => {
                number.parse().map(|number: i32| groups.remove(&number)).ok();
            }
            _ => {}
        }
    }
    match marker {
        Some(marker) if tree::kill_all(MARKER, &marker, &groups) > 0 => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// The agent's end of the pipe.
#[derive(Debug)]
pub struct Guard {
    command: Vec<OsString>,
    marker: String,
    child: Child,
    pipe: ChildStdin,
    told: HashSet<i32>,
}

impl Guard {
    /// Starts the guardian process.
    pub fn start(command: Vec<OsString>, marker: String) -> io::Result<Guard> {
        let (child, pipe) = spawn(&command, &marker)?;
        Ok(Guard { command, marker, child, pipe, told: HashSet::new() })
    }

    /// Tells which groups live now, and replaces a guardian that has died.
    pub fn watch(&mut self, living: impl Iterator<Item = i32>) {
        let living: HashSet<i32> = living.collect();
        if !matches!(self.child.try_wait(), Ok(None)) {
            tracing::warn!("the guardian process has died; starting another");
            match spawn(&self.command, &self.marker) {
                Ok((child, pipe)) => {
                    (self.child, self.pipe) = (child, pipe);
                    self.told.clear();
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot start the guardian process");
                    return;
                }
            }
        }
        let mut text = String::new();
        living.difference(&self.told).for_each(|group| text.push_str(&format!("group {group}\n")));
        self.told.difference(&living).for_each(|group| text.push_str(&format!("gone {group}\n")));
        if text.is_empty() {
            return;
        }
        match self.pipe.write_all(text.as_bytes()) {
            Ok(()) => self.told = living,
            Err(error) => tracing::warn!(%error, "the guardian process does not listen"),
        }
    }

    /// Closes the pipe and waits for the guardian to have cleaned up; it bounds itself.
    pub fn finish(self) {
        let Guard { mut child, pipe, .. } = self;
        drop(pipe);
        if let Err(error) = child.wait() {
            tracing::warn!(%error, "lost the guardian process");
        }
    }
}

fn spawn(command: &[OsString], marker: &str) -> io::Result<(Child, ChildStdin)> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    // Its own group, so that Ctrl-C in a terminal does not reach it; not the agent's variables, which may be secrets.
    command.args(arguments).process_group(0).env_clear().stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let mut pipe = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    writeln!(pipe, "marker {marker}")?;
    Ok((child, pipe))
}
