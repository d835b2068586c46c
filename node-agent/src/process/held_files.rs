//! Bytes of deleted files that the processes of runs hold open: they take disk space, and no folder shows them.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, Metadata},
    os::unix::fs::MetadataExt,
};

use rustix::process::Pid;

use crate::process::tree::{self, each_process};

/// Open files of one process that are looked at.
const FILES_MAX: usize = 65_536;
/// Generations between a process and the leader of its run at most.
const GENERATIONS_MAX: usize = 1_024;

/// Counts for every leader the bytes of deleted files on this disk that it, its process group, its descendants and its
/// strays hold open. With each leader come the streams that the agent holds open for it; `strays` names processes with
/// another parent and the leader of their run. It blocks.
pub fn count(leaders: &HashMap<i32, Vec<Metadata>>, strays: &HashMap<i32, i32>, disk: u64) -> HashMap<i32, u64> {
    if leaders.is_empty() {
        return HashMap::new();
    }
    let stats: HashMap<i32, (i32, i32)> =
        each_process().filter_map(|pid| tree::stat(pid).map(|stat| (pid.as_raw_nonzero().get(), (stat.parent, stat.group)))).collect();
    let leader_of = |pid: i32| {
        let mut at = pid;
        for _ in 0..GENERATIONS_MAX {
            if leaders.contains_key(&at) {
                return Some(at);
            }
            if let Some(leader) = strays.get(&at) {
                return Some(*leader);
            }
            let (parent, group) = stats.get(&at)?;
            if leaders.contains_key(group) {
                return Some(*group);
            }
            at = *parent;
        }
        None
    };
    let mut bytes: HashMap<i32, u64> = HashMap::new();
    // A file that several processes hold counts once for each run.
    let mut seen: HashSet<(i32, u64)> = HashSet::new();
    let mut add = |leader: i32, file: &Metadata| {
        if file.dev() == disk && is_deleted(file) && seen.insert((leader, file.ino())) {
            *bytes.entry(leader).or_default() += file.blocks() * 512;
        }
    };
    for (leader, streams) in leaders {
        streams.iter().for_each(|stream| add(*leader, stream));
    }
    for pid in stats.keys() {
        if let Some(leader) = leader_of(*pid) {
            open_files(*pid).for_each(|file| add(leader, &file));
        }
    }
    bytes
}

/// Whether a regular file has no name any more.
fn is_deleted(file: &Metadata) -> bool {
    file.is_file() && file.nlink() == 0
}

/// Open files of a process; none where it belongs to another user or has ended.
fn open_files(pid: i32) -> impl Iterator<Item = Metadata> {
    let entries = Pid::from_raw(pid).and_then(|pid| fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).ok());
    entries.into_iter().flatten().take(FILES_MAX).filter_map(|entry| fs::metadata(entry.ok()?.path()).ok())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, BufRead, BufReader},
        os::unix::process::CommandExt,
        process::{Child, Command, Stdio},
    };

    use super::*;

    /// Starts a shell in a group of its own, and waits until it says that it is ready.
    fn start(script: &str, folder: &std::path::Path) -> Child {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).current_dir(folder).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        child
    }

    #[test]
    fn deleted_files_count_for_the_run_whose_processes_hold_them() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().metadata().unwrap().dev();
        // Both wait for their input to close. The second shell's child inherits the file, and counts it no second time.
        let mut kept = start("exec 3>named; head -c 2000000 /dev/zero >&3; echo ready; read end", folder.path());
        let mut gone = start("exec 3>f; rm f; head -c 2000000 /dev/zero >&3; (echo ready; read end)", folder.path());
        let [kept_pid, gone_pid] = [&kept, &gone].map(|child| child.id().cast_signed());
        let leaders = |pids: &[i32]| pids.iter().map(|pid| (*pid, Vec::new())).collect::<HashMap<_, _>>();
        let counted = count(&leaders(&[kept_pid, gone_pid]), &HashMap::new(), disk);
        assert_eq!(counted.get(&kept_pid), None, "a file with a name is in its folder's count");
        assert!((2_000_000..3_000_000).contains(&counted[&gone_pid]), "{counted:?}");
        assert!(count(&leaders(&[gone_pid]), &HashMap::new(), disk + 1).is_empty(), "another disk");
        // A stray counts for the run that left it.
        let counted = count(&leaders(&[kept_pid]), &HashMap::from([(gone_pid, kept_pid)]), disk);
        assert!(counted[&kept_pid] >= 2_000_000, "{counted:?}");
        // A stream that the task deleted and closed, while the agent has it open.
        let stream = fs::File::create(folder.path().join("stream")).unwrap();
        io::Write::write_all(&mut &stream, &[1; 100_000]).unwrap();
        fs::remove_file(folder.path().join("stream")).unwrap();
        let counted = count(&HashMap::from([(kept_pid, vec![stream.metadata().unwrap()])]), &HashMap::new(), disk);
        assert!(counted[&kept_pid] >= 100_000, "{counted:?}");
        for child in [&mut kept, &mut gone] {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
    }
}
