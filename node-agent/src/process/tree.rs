//! Finding and ending processes: a group by its number, daemons by a variable in their environment.
//!
//! Used by runs that are stopped, by an agent that starts over another's leftovers, and by the guardian.

use std::{
    collections::HashSet,
    fs,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal};

/// Between two looks at the processes that are left.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Looks in a row that must find nothing: a program that is just being started has no environment yet.
const QUIET_LOOKS: u32 = 3;
/// A process that lives longer than this after SIGKILL hangs in the kernel.
pub const KILL_WAIT_MAX: Duration = Duration::from_secs(10);
/// Bytes of an environment that are looked at.
const ENVIRON_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Sends a signal to a process group; whether there was one.
pub fn signal_group(group: Pid, signal: Signal) -> bool {
    rustix::process::kill_process_group(group, signal).is_ok()
}

/// The processes whose environment holds `variable=value`, zombies and the caller apart.
pub fn carriers(variable: &str, value: &str) -> Vec<Pid> {
    let wanted = format!("{variable}={value}").into_bytes();
    let own = rustix::process::getpid();
    each_process()
        .filter(|pid| *pid != own)
        .filter(|pid| {
            let path = format!("/proc/{}/environ", pid.as_raw_nonzero());
            // Processes of others cannot be read and are not ours.
            fs::read(path)
                .is_ok_and(|bytes| bytes.len() <= ENVIRON_BYTES_MAX && bytes.split(|byte| *byte == 0).any(|entry| entry == wanted))
        })
        .collect()
}

/// The living members of these groups.
fn members(groups: &HashSet<i32>) -> Vec<Pid> {
    if groups.is_empty() {
        return Vec::new();
    }
    each_process().filter(|pid| stat(*pid).is_some_and(|(state, group)| state != 'Z' && groups.contains(&group))).collect()
}

fn each_process() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok()).filter_map(Pid::from_raw)
}

/// A process's state letter and group.
fn stat(pid: Pid) -> Option<(char, i32)> {
    let text = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(1)?.parse().ok()?))
}

/// Kills the groups and every process that carries the variable, until none is left; how many would not die.
pub fn kill_all(variable: &str, value: &str, groups: &HashSet<i32>) -> usize {
    let started = Instant::now();
    let mut quiet = 0;
    loop {
        for group in groups.iter().filter_map(|group| Pid::from_raw(*group)) {
            signal_group(group, Signal::KILL);
        }
        let mut left = carriers(variable, value);
        left.extend(members(groups));
        quiet = if left.is_empty() { quiet + 1 } else { 0 };
        if quiet >= QUIET_LOOKS || started.elapsed() > KILL_WAIT_MAX {
            return left.len();
        }
        for pid in left {
            // It may be gone by now, which is what is wanted.
            rustix::process::kill_process(pid, Signal::KILL).ok();
        }
        std::thread::sleep(LOOK_AGAIN);
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
        // Reaped elsewhere, or the zombies of this very process would count as living members.
        let reaper = std::thread::spawn(move || (daemon.wait().unwrap(), bare.wait().unwrap()));
        assert_eq!(kill_all("TREE_TEST", &value, &groups), 0);
        let (first, second) = reaper.join().unwrap();
        assert!(!first.success() && !second.success());
        assert!(carriers("TREE_TEST", &value).is_empty());
    }
}
