//! Finds and ends processes: a group by its number, daemons by a variable in their environment.
//!
//! Used by runs that are stopped, by an agent that starts where an earlier one was killed, and by the guardian.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal};

use crate::shortage::is_shortage;

/// Period of the checks for processes that are left.
pub const POLL_PERIOD: Duration = Duration::from_millis(10);
/// Checks in a row that must find nothing, because a program that is just being started has no environment yet.
const QUIET_POLLS: u32 = 3;
/// A process that lives longer than this after SIGKILL hangs in the kernel.
pub const KILL_WAIT_MAX: Duration = Duration::from_secs(10);
/// Bytes of an environment that are read at most.
const ENVIRON_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Sends a signal to a process group.
pub fn signal_group(group: Pid, signal: Signal) {
    // It may have ended already, which is the goal.
    rustix::process::kill_process_group(group, signal).ok();
}

/// Processes whose environment holds `variable=value`, without zombies and the caller.
pub fn carriers(variable: &str, value: &str) -> Vec<Pid> {
    let wanted = format!("{variable}={value}").into_bytes();
    let own = rustix::process::getpid();
    each_process()
        .filter(|pid| *pid != own)
        .filter(|pid| environ(*pid).is_some_and(|bytes| bytes.split(|byte| *byte == 0).any(|entry| entry == wanted)))
        .collect()
}

/// A process's environment; `None` for processes of other users, whose environment cannot be read.
pub fn environ(pid: Pid) -> Option<Vec<u8>> {
    fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).ok().filter(|bytes| bytes.len() <= ENVIRON_BYTES_MAX)
}

/// Children of this process's first thread; adopted processes are always among them. An error means a shortage of the
/// node.
pub fn own_children() -> io::Result<Vec<Pid>> {
    let own = rustix::process::getpid().as_raw_nonzero();
    match fs::read_to_string(format!("/proc/self/task/{own}/children")) {
        Ok(text) => Ok(text.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()),
        Err(error) if is_shortage(&error) => Err(error),
        // Some systems do not keep this list.
        Err(_) => {
            let mut children = Vec::new();
            for pid in processes(fs::read_dir("/proc")?) {
                if try_stat(pid)?.is_some_and(|stat| stat.parent == own.get()) {
                    children.push(pid);
                }
            }
            Ok(children)
        }
    }
}

/// Returns these processes and all their descendants.
pub fn with_descendants(tops: &[Pid]) -> Vec<Pid> {
    let mut below: HashMap<i32, Vec<Pid>> = HashMap::new();
    for pid in each_process() {
        if let Some(stat) = stat(pid) {
            below.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut all = tops.to_vec();
    let mut next = 0;
    while let Some(pid) = all.get(next) {
        all.extend(below.remove(&pid.as_raw_nonzero().get()).into_iter().flatten());
        next += 1;
    }
    all
}

/// Returns the processes among these that are alive, and all their descendants.
fn living(strays: &HashSet<(i32, u64)>) -> Vec<Pid> {
    let tops: Vec<Pid> = strays.iter().filter(|process| !has_ended(**process)).filter_map(|(pid, _)| Pid::from_raw(*pid)).collect();
    if tops.is_empty() { tops } else { with_descendants(&tops) }
}

/// The living members of these groups.
fn members(groups: &HashSet<i32>) -> Vec<Pid> {
    if groups.is_empty() {
        return Vec::new();
    }
    each_process().filter(|pid| stat(*pid).is_some_and(|stat| !stat.has_ended() && groups.contains(&stat.group))).collect()
}

/// All processes that this one sees.
pub fn each_process() -> impl Iterator<Item = Pid> {
    fs::read_dir("/proc").into_iter().flat_map(processes)
}

fn processes(entries: fs::ReadDir) -> impl Iterator<Item = Pid> {
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok()).filter_map(Pid::from_raw)
}

/// A process's entry in `/proc`.
#[derive(Debug, Clone, Copy)]
pub struct Stat {
    /// State letter; Z has ended and is not reaped, unless other threads of the process go on.
    pub state: char,
    pub parent: i32,
    pub group: i32,
    pub session: i32,
    /// The first thread counts until all have ended.
    pub threads: u32,
    /// Start time in ticks after boot; with the number it identifies the process for ever.
    pub started: u64,
}

impl Stat {
    /// Whether all threads of the process have ended.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X') && self.threads <= 1
    }
}

/// A process's entry; `None` also when it cannot be read.
pub fn stat(pid: Pid) -> Option<Stat> {
    try_stat(pid).ok().flatten()
}

/// A process's entry; `None` when it does not exist or is hidden. An error is a shortage of the node: the process may
/// exist.
pub fn try_stat(pid: Pid) -> io::Result<Option<Stat>> {
    match fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())) {
        Ok(bytes) => Ok(parse_stat(&bytes)),
        Err(error) if is_shortage(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Whether the process with this number and start time has ended; one that cannot be seen counts as alive.
pub fn has_ended((pid, started): (i32, u64)) -> bool {
    let Some(pid) = Pid::from_raw(pid) else { return true };
    try_stat(pid).is_ok_and(|stat| stat.is_none_or(|stat| stat.started != started || stat.has_ended()))
}

fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    // The name in it may contain any character.
    let text = String::from_utf8_lossy(bytes);
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse().ok();
    let state = fields.first()?.chars().next()?;
    let (threads, started) = (fields.get(17)?.parse().ok()?, fields.get(19)?.parse().ok()?);
    Some(Stat { state, parent: number(1)?, group: number(2)?, session: number(3)?, threads, started })
}

/// Kills the groups, the strays (by number and start time) with all their descendants, and every process that carries
/// the variable, until none is left; returns how many survived.
pub fn kill_all(variable: &str, value: &str, groups: &HashSet<i32>, strays: &HashSet<(i32, u64)>) -> usize {
    let started = Instant::now();
    let mut quiet = 0;
    loop {
        for group in groups.iter().filter_map(|group| Pid::from_raw(*group)) {
            signal_group(group, Signal::KILL);
        }
        let mut left = carriers(variable, value);
        left.extend(members(groups));
        left.extend(living(strays));
        quiet = if left.is_empty() { quiet + 1 } else { 0 };
        if quiet >= QUIET_POLLS || started.elapsed() > KILL_WAIT_MAX {
            return left.len();
        }
        for pid in left {
            // The process may have ended already, which is the goal.
            rustix::process::kill_process(pid, Signal::KILL).ok();
        }
        std::thread::sleep(POLL_PERIOD);
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::CommandExt, process::Command};

    use super::*;

    #[test]
    fn a_daemon_is_found_by_its_environment_and_a_group_by_its_number() {
        let value = format!("tree-test-{}", std::process::id());
        let mut daemon =
            Command::new("/bin/sh").args(["-c", "setsid sleep 600 & wait"]).env("TREE_TEST", &value).process_group(0).spawn().unwrap();
        let mut bare = Command::new("/bin/sleep").arg("600").env_clear().process_group(0).spawn().unwrap();
        let groups = HashSet::from([bare.id() as i32]);
        // Reaped by another thread, or the zombies of this very process would count as living members.
        let reaper = std::thread::spawn(move || (daemon.wait().unwrap(), bare.wait().unwrap()));
        assert_eq!(kill_all("TREE_TEST", &value, &groups, &HashSet::new()), 0);
        let (first, second) = reaper.join().unwrap();
        assert!(!first.success() && !second.success());
        assert!(carriers("TREE_TEST", &value).is_empty());
    }
}
