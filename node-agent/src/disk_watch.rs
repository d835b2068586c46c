//! Keeps tasks from filling the node's disk: a cap for each of their streams, a quota for their folders where one is
//! set, and, when little space is left, the end of the run that is to blame for it. Where none is, all go on.
//!
//! A run is watched while its process lives. File access happens on threads beside the agent's loop.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use broker_config::disk::{self, Space};
use contract::{ids::RunId, message::DISK_FULL, outcome::Fault};
use futures::{StreamExt, stream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    disk_blame::{Blame, Growth, Size, blame},
    disk_limits::DiskLimits,
    disk_turn::Turn,
    disk_usage::Usage,
    off_loop::{off_loop, try_off_loop},
    open_streams::OpenStreams,
    process::{held_files, launch::ProcessGroup, orphans::Orphans},
};

/// Period of the checks.
const CHECK_PERIOD: Duration = Duration::from_millis(500);
/// Longest count of one folder before the check goes on with the bytes found so far.
const COUNT_MAX: Duration = Duration::from_secs(2);
/// Folders that are counted at the same time.
const COUNTS_AT_ONCE: usize = 4;
/// While less than this many times the lower limit is free, folders are counted now and then, so that the watch knows
/// which of them grow when the disk becomes full.
const NEAR_FACTOR: u64 = 64;
/// Pause between two warnings about a full disk that no run here filled.
const WARNING_PAUSE: Duration = Duration::from_secs(60);

/// Carries the reason to a run that is ended for what it wrote.
#[derive(Debug, Clone, Default)]
pub struct Eviction(Arc<OnceLock<(Fault, Cause)>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The run wrote more than its task may.
    Limit,
    /// The disk is nearly full.
    WantOfRoom,
}

impl Eviction {
    /// The reason, once the run was ended for what it wrote.
    pub fn fault(&self) -> Option<Fault> {
        self.0.get().map(|(fault, _)| fault.clone())
    }

    /// Whether other runs need the space, so that the working directory is removed at once.
    pub fn frees_space(&self) -> bool {
        self.0.get().is_some_and(|(_, cause)| *cause == Cause::WantOfRoom)
    }
}

/// The parts of a run that the watch needs.
#[derive(Debug, Clone)]
pub struct Subject {
    pub folder: PathBuf,
    /// Ends the run.
    pub stop: CancellationToken,
    /// Carries the reason to the run.
    pub eviction: Eviction,
    pub streams: OpenStreams,
    pub group: Arc<ProcessGroup>,
}

#[derive(Debug, Clone)]
struct Watched {
    subject: Subject,
    usage: Arc<Usage>,
}

/// The watched runs of this node.
#[derive(Debug, Clone)]
pub struct DiskWatch {
    runs: Arc<Mutex<HashMap<RunId, Watched>>>,
    limits: DiskLimits,
    turn: Arc<Mutex<Turn>>,
    orphans: Orphans,
    /// Taken while open files of processes are looked at, which may hang with the file systems that these are on.
    looking: Arc<Semaphore>,
    warned_at: Arc<Mutex<Option<Instant>>>,
    /// What was used on the whole disk.
    used: Arc<Mutex<Growth>>,
}

/// Keeps a run watched until it is dropped.
#[derive(Debug)]
pub struct Watch {
    run: RunId,
    all: DiskWatch,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(watched) = self.all.lock().remove(&self.run) {
            watched.usage.end();
            watched.subject.streams.close();
        }
    }
}

impl DiskWatch {
    /// Makes a watch without runs.
    pub fn new(limits: DiskLimits, orphans: Orphans) -> DiskWatch {
        let turn = Arc::new(Mutex::new(Turn::new(limits.turn_file.as_deref())));
        let looking = Arc::new(Semaphore::new(1));
        DiskWatch { runs: Arc::default(), limits, turn, orphans, looking, warned_at: Arc::default(), used: Arc::default() }
    }

    /// Watches a run; `is_fresh` says that its folder was made for it, so that all in it is its own.
    pub fn watch(&self, run: RunId, subject: Subject, is_fresh: bool) -> Watch {
        let usage = Arc::new(if is_fresh { Usage::of_empty() } else { Usage::default() });
        self.lock().insert(run, Watched { subject, usage });
        Watch { run, all: self.clone() }
    }

    /// Checks periodically until it is dropped.
    pub async fn run(self, root: PathBuf) {
        loop {
            tokio::time::sleep(CHECK_PERIOD).await;
            self.pass_the_turn_on(Instant::now());
            if self.lock().is_empty() {
                continue;
            }
            let root = root.clone();
            match try_off_loop(move || disk::space(&root)).await {
                Ok(space) => self.check(space).await,
                Err(error) => tracing::warn!(%error, "cannot measure the node's free disk space; the disk is not checked this time"),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RunId, Watched>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass_the_turn_on(&self, now: Instant) {
        self.turn().update(now, |run| !self.lock().contains_key(&run));
    }

    async fn check(&self, space: Space) {
        let disk = self.note_used(space.used, Instant::now());
        let runs: Vec<(RunId, Watched)> = self.lock().iter().map(|(run, watched)| (*run, watched.clone())).collect();
        for (run, watched) in &runs {
            self.check_streams(*run, &watched.subject, space.free);
        }
        let is_short = space.free < self.limits.free_bytes_min;
        let is_near = space.free < self.limits.free_bytes_min.saturating_mul(NEAR_FACTOR);
        let wants_all = is_short || self.limits.folder_bytes_max.is_some();
        // A run that is being ended already frees its space soon.
        let counted = runs.iter().filter(|(_, watched)| watched.subject.eviction.fault().is_none());
        let counted: Vec<_> = counted.filter(|(_, watched)| wants_all || (is_near && watched.usage.is_due())).collect();
        if counted.is_empty() {
            return;
        }
        let held = self.held_bytes(&counted).await;
        let counts: Vec<_> = counted.into_iter().map(|run| measured(run, held.get(&run.0).copied().unwrap_or_default())).collect();
        let sizes: Vec<(Size, &(RunId, Watched))> = stream::iter(counts).buffer_unordered(COUNTS_AT_ONCE).collect().await;
        for (size, (run, watched)) in &sizes {
            if let Some(most) = self.limits.folder_bytes_max.filter(|most| size.bytes > *most) {
                let message = format!("the task's folder takes {} bytes, and {most} are allowed", size.bytes);
                evict(*run, &watched.subject, Cause::Limit, message, size.bytes, space.free);
            }
        }
        if is_short {
            self.end_who_is_to_blame(&sizes, disk, space);
        }
    }

    /// What is used on the disk, and by how much that grew lately.
    fn note_used(&self, used: u64, now: Instant) -> Size {
        let mut growth = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        growth.note(used, now, Duration::ZERO);
        Size { bytes: used, grown: growth.lately(used) }
    }

    /// Ends one run that is to blame for a disk that is nearly full; where there is none, all go on.
    fn end_who_is_to_blame(&self, sizes: &[(Size, &(RunId, Watched))], disk: Size, space: Space) {
        let left = sizes.iter().filter(|(_, (_, watched))| watched.subject.eviction.fault().is_none());
        let blamed = left.filter_map(|(size, run)| blame(*size, disk).map(|blame| (blame, size.bytes, run)));
        let Some((blame, bytes, (run, watched))) = blamed.max_by_key(|(blame, ..)| *blame) else {
            return self.warn_of_nobody_to_blame(space);
        };
        match self.turn().take(*run, Instant::now()) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(%error, "cannot lock the file that agents of one disk share; ending a run of this agent although another agent may do the same")
            }
        }
        let message = match blame {
            Blame::Grew(grown) => format!("the node's disk is nearly full, and the task's folder grew by {grown} bytes lately, to {bytes}"),
            Blame::Shares(_) => {
                format!(
                    "the node's disk is nearly full, filled slowly by several, and of the node's tasks that grow this one takes the most: {bytes} bytes"
                )
            }
            Blame::Takes(_) => format!("the node's disk is nearly full, and the task's folder takes the most of it: {bytes} bytes"),
        };
        evict(*run, &watched.subject, Cause::WantOfRoom, message, bytes, space.free);
    }

    fn warn_of_nobody_to_blame(&self, space: Space) {
        let mut warned_at = self.warned_at.lock().unwrap_or_else(PoisonError::into_inner);
        // The end of a run that was to blame takes a moment to free its space.
        if self.turn().is_taken() || warned_at.is_some_and(|warned_at| warned_at.elapsed() < WARNING_PAUSE) {
            return;
        }
        *warned_at = Some(Instant::now());
        tracing::warn!(
            free = space.free,
            used = space.used,
            "the node's disk is nearly full, and no folder of a running task grew much lately or takes half of it; \
             running tasks go on, and the node takes no others until there is room"
        );
    }

    /// Bytes of deleted files that the processes of these runs hold open; without an answer in time, none.
    async fn held_bytes(&self, runs: &[&(RunId, Watched)]) -> HashMap<RunId, u64> {
        let Ok(turn) = self.looking.clone().try_acquire_owned() else { return HashMap::new() };
        let leaders = runs.iter().filter_map(|(run, watched)| Some((*run, watched.subject.group.group()?, watched.subject.clone())));
        let leaders: Vec<(RunId, i32, Subject)> = leaders.collect();
        let orphans = self.orphans.clone();
        let look = off_loop(move || {
            let _turn = turn;
            held_bytes(&leaders, &orphans)
        });
        match tokio::time::timeout(COUNT_MAX, look).await {
            Ok(Ok(held)) => held,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the search for deleted files that tasks hold open failed inside the agent; they are not counted this time");
                HashMap::new()
            }
            Err(_) => {
                tracing::debug!("the search for deleted files that tasks hold open takes long; they are not counted this time");
                HashMap::new()
            }
        }
    }

    fn check_streams(&self, run: RunId, subject: &Subject, free: u64) {
        let most = self.limits.stream_bytes_max;
        for (name, length) in subject.streams.lengths() {
            match length {
                Ok(length) if length > most => {
                    evict(run, subject, Cause::Limit, format!("{name} has {length} bytes, and {most} are allowed"), length, free);
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, %run, name, "cannot measure a stream of a run; its limit is not checked this time"),
            }
        }
    }
}

async fn measured(run: &(RunId, Watched), held: u64) -> (Size, &(RunId, Watched)) {
    (run.1.usage.measure(&run.1.subject.folder, held, COUNT_MAX).await, run)
}

fn held_bytes(runs: &[(RunId, i32, Subject)], orphans: &Orphans) -> HashMap<RunId, u64> {
    // The folders of one node are on one disk.
    let disk = runs.iter().find_map(|(.., subject)| fs::symlink_metadata(&subject.folder).ok());
    let Some(disk) = disk.map(|folder| folder.dev()) else { return HashMap::new() };
    let by_name: HashMap<String, i32> = runs.iter().map(|(run, leader, _)| (run.to_string(), *leader)).collect();
    let strays = orphans.certain().into_iter().filter_map(|(pid, run)| Some((pid, *by_name.get(&run)?))).collect();
    let leaders = runs.iter().map(|(_, leader, subject)| (*leader, subject.streams.properties())).collect();
    let held = held_files::count(&leaders, &strays, disk);
    runs.iter().filter_map(|(run, leader, _)| Some((*run, *held.get(leader)?))).collect()
}

fn evict(run: RunId, subject: &Subject, cause: Cause, message: String, bytes: u64, free: u64) {
    let details = vec![("TaskBytes".to_owned(), bytes.to_string()), ("FreeBytes".to_owned(), free.to_string())];
    let fault = Fault { code: DISK_FULL.to_owned(), message, details };
    if subject.eviction.0.set((fault.clone(), cause)).is_ok() {
        tracing::warn!(%run, folder = %subject.folder.display(), reason = fault.message, free, "ending a run for its disk usage");
        subject.stop.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io::{BufRead, BufReader, Write},
        path::Path,
        process::{Child, Command, Stdio},
    };

    use super::*;

    struct Run {
        stop: CancellationToken,
        eviction: Eviction,
        stdout: File,
        watch: Watch,
    }

    impl Run {
        fn is_ended(&self) -> bool {
            self.stop.is_cancelled()
        }
    }

    /// Registers a new run with so many megabytes in its folder and so many bytes of stdout.
    fn run(watch: &DiskWatch, folder: &Path, megabytes: usize, stdout: usize) -> Run {
        run_of(watch, folder, megabytes, stdout, true)
    }

    /// Registers a run; one that is not fresh found its folder as it is.
    fn run_of(watch: &DiskWatch, folder: &Path, megabytes: usize, stdout: usize, is_fresh: bool) -> Run {
        fs::create_dir_all(folder.join("wd/deep")).unwrap();
        fs::write(folder.join("wd/deep/data"), vec![1; megabytes << 20]).unwrap();
        let open = |name: &str| File::create(folder.join(name)).unwrap();
        let (mut file, streams) = (open("stdout.txt"), OpenStreams::default());
        streams.set(&file, &open("stderr.txt")).unwrap();
        file.write_all(&vec![b'x'; stdout]).unwrap();
        let (stop, eviction) = (CancellationToken::new(), Eviction::default());
        let group = Arc::default();
        let subject = Subject { folder: folder.to_owned(), stop: stop.clone(), eviction: eviction.clone(), streams, group };
        let watch = watch.watch(RunId::random(), subject, is_fresh);
        Run { stop, eviction, stdout: file, watch }
    }

    fn disk_watch(limits: DiskLimits) -> DiskWatch {
        DiskWatch::new(limits, Orphans::leave())
    }

    /// So many bytes are free on a disk of which a folder of a test is never half.
    fn free(free: u64) -> Space {
        Space { free, used: 1 << 50 }
    }

    fn limits() -> DiskLimits {
        DiskLimits { stream_bytes_max: 1 << 30, free_bytes_min: 1_000, ..DiskLimits::default() }
    }

    #[tokio::test]
    async fn the_largest_is_ended_when_little_is_left_and_nobody_else() {
        let scratch = tempfile::tempdir().unwrap();
        let watch = disk_watch(limits());
        let (small, large) = (run(&watch, &scratch.path().join("a"), 1, 0), run(&watch, &scratch.path().join("b"), 33, 0));
        watch.check(free(1_000)).await;
        assert!(!small.is_ended() && !large.is_ended(), "there is room");
        watch.check(free(999)).await;
        assert!(large.is_ended() && !small.is_ended());
        assert_eq!(large.eviction.fault().unwrap().code, "DiskFull");
        assert!(large.eviction.frees_space());
        drop(large);
        watch.pass_the_turn_on(Instant::now());
        watch.pass_the_turn_on(Instant::now() + Duration::from_secs(60));
        watch.check(free(999)).await;
        assert!(!small.is_ended(), "who takes little is not to blame");
    }

    #[tokio::test]
    async fn a_disk_that_something_else_filled_ends_no_run() {
        let scratch = tempfile::tempdir().unwrap();
        let watch = disk_watch(limits());
        let runs = ["a", "b", "c"].map(|name| run_of(&watch, &scratch.path().join(name), 40, 0, false));
        watch.check(free(20_000)).await;
        for _ in 0..3 {
            watch.check(free(0)).await;
            watch.pass_the_turn_on(Instant::now() + Duration::from_secs(600));
        }
        assert!(runs.iter().all(|run| !run.is_ended()), "they wrote nothing");
        assert!(watch.warned_at.lock().unwrap().is_some(), "it is said why");
        fs::write(scratch.path().join("b/more"), vec![1; 33 << 20]).unwrap();
        watch.check(free(0)).await;
        assert_eq!([false, true, false], runs.each_ref().map(Run::is_ended), "the one that grew");
        assert!(runs[1].eviction.fault().unwrap().message.contains("grew"));
        let (a, c) = (&runs[0], &runs[2]);
        drop(watch.lock().remove(&runs[1].watch.run));
        watch.pass_the_turn_on(Instant::now());
        watch.pass_the_turn_on(Instant::now() + Duration::from_secs(600));
        fs::write(scratch.path().join("c/wd/deep/data"), vec![1; 60 << 20]).unwrap();
        watch.check(Space { free: 0, used: 100 << 20 }).await;
        assert!(c.is_ended() && !a.is_ended(), "the one that takes more than half of the disk");
    }

    #[tokio::test]
    async fn deleted_files_that_a_task_holds_open_count() {
        let scratch = tempfile::tempdir().unwrap();
        let watch = disk_watch(DiskLimits { folder_bytes_max: Some(2 << 20), ..limits() });
        let run = run(&watch, scratch.path(), 0, 0);
        let mut child = hold(scratch.path());
        let subject = watch.lock()[&run.watch.run].subject.clone();
        watch.check(free(u64::MAX)).await;
        assert!(!run.is_ended(), "it is not this run's process");
        subject.group.set_for_test(rustix::process::Pid::from_child(&child));
        watch.check(free(u64::MAX)).await;
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(run.eviction.fault().unwrap().message.contains("folder") && run.is_ended());
    }

    /// Starts a process that holds a deleted file of three megabytes open until its input ends.
    fn hold(folder: &Path) -> Child {
        let script = "exec 3>f; rm f; head -c 3145728 /dev/zero >&3; echo ready; read end";
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        child
    }

    #[tokio::test]
    async fn one_run_is_ended_at_a_time_on_all_agents_of_a_disk() {
        let scratch = tempfile::tempdir().unwrap();
        let limits = DiskLimits { turn_file: Some(scratch.path().join("turn")), ..limits() };
        let (node, other) = (disk_watch(limits.clone()), disk_watch(limits));
        let runs = [("a", 34), ("b", 33)].map(|(name, size)| run(&node, &scratch.path().join(name), size, 0));
        let elsewhere = run(&other, &scratch.path().join("c"), 35, 0);
        let ended = || [runs[0].is_ended(), runs[1].is_ended(), elsewhere.is_ended()];
        for _ in 0..3 {
            node.check(free(0)).await;
            other.check(free(0)).await;
        }
        assert_eq!(ended(), [true, false, false]);
        let [first, second] = runs;
        drop(first);
        let over = Instant::now();
        node.pass_the_turn_on(over);
        node.check(free(0)).await;
        other.check(free(0)).await;
        assert!(!second.is_ended() && !elsewhere.is_ended(), "its space is about to be freed");
        node.pass_the_turn_on(over + Duration::from_secs(10));
        other.check(free(0)).await;
        node.check(free(0)).await;
        assert!(!second.is_ended() && elsewhere.is_ended());
    }

    #[tokio::test]
    async fn streams_and_folders_have_their_limits() {
        let scratch = tempfile::tempdir().unwrap();
        let limits = DiskLimits { stream_bytes_max: 100, folder_bytes_max: Some(2 << 20), free_bytes_min: 0, turn_file: None };
        let watch = disk_watch(limits);
        let fair = run(&watch, &scratch.path().join("a"), 1, 100);
        let loud = run(&watch, &scratch.path().join("b"), 0, 101);
        let wide = run(&watch, &scratch.path().join("c"), 3, 0);
        let mut sly = run(&watch, &scratch.path().join("d"), 0, 0);
        fs::rename(scratch.path().join("d/stdout.txt"), scratch.path().join("d/wd/other")).unwrap();
        fs::write(scratch.path().join("d/stdout.txt"), "").unwrap();
        watch.check(free(u64::MAX)).await;
        assert_eq!(fair.eviction.fault(), None);
        assert!(loud.eviction.fault().unwrap().message.contains("stdout.txt") && loud.is_ended());
        assert!(wide.eviction.fault().unwrap().message.contains("folder") && wide.is_ended());
        assert!(!wide.eviction.frees_space() && !sly.is_ended());
        sly.stdout.write_all(&[b'x'; 101]).unwrap();
        watch.check(free(u64::MAX)).await;
        assert!(sly.is_ended(), "another name is no way around the limit");
        [fair, loud, wide, sly].into_iter().for_each(|run| drop(run.watch));
        assert!(watch.lock().is_empty());
    }
}
