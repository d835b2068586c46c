//! Keeps tasks from filling the node's disk: a cap for each of their streams, a quota for their folders where one is
//! set, and, when little space is left, the end of the run whose folder takes the most.
//!
//! A run is watched while its process lives. File access happens on threads beside the agent's loop.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use broker_config::disk;
use contract::{ids::RunId, message::DISK_FULL, outcome::Fault};
use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::{disk_turn::Turn, disk_usage::Usage, off_loop::try_off_loop, open_streams::OpenStreams};

/// Period of the checks.
const CHECK_PERIOD: Duration = Duration::from_millis(500);
/// Longest count of one folder before the check goes on with the bytes found so far.
const COUNT_MAX: Duration = Duration::from_secs(2);
/// Folders that are counted at the same time.
const COUNTS_AT_ONCE: usize = 4;
/// On a full disk, a run whose folder takes less is not ended.
const OFFENDER_BYTES_MIN: u64 = 32 << 20;
/// Bytes of a stream at most, unless the operator sets another limit.
pub const STREAM_BYTES_MAX: u64 = 4 << 30;

/// Limits on what tasks may write.
#[derive(Debug, Clone)]
pub struct DiskLimits {
    /// Bytes of a task's stdout, and of its stderr.
    pub stream_bytes_max: u64,
    /// Bytes of a task's folder; `None` leaves only the limit of a nearly full disk.
    pub folder_bytes_max: Option<u64>,
    /// With fewer free bytes than this, the run that takes the most is ended.
    pub free_bytes_min: u64,
    /// The file that agents on one disk share, so that one agent at a time ends a run for lack of space.
    pub turn_file: Option<PathBuf>,
}

impl Default for DiskLimits {
    fn default() -> DiskLimits {
        DiskLimits { stream_bytes_max: STREAM_BYTES_MAX, folder_bytes_max: None, free_bytes_min: 0, turn_file: None }
    }
}

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

#[derive(Debug, Clone)]
struct Watched {
    folder: PathBuf,
    stop: CancellationToken,
    eviction: Eviction,
    streams: OpenStreams,
    usage: Arc<Usage>,
}

/// The watched runs of this node.
#[derive(Debug, Clone)]
pub struct DiskWatch {
    runs: Arc<Mutex<HashMap<RunId, Watched>>>,
    limits: DiskLimits,
    turn: Arc<Mutex<Turn>>,
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
            watched.streams.close();
        }
    }
}

impl DiskWatch {
    /// Makes a watch without runs.
    pub fn new(limits: DiskLimits) -> DiskWatch {
        let turn = Arc::new(Mutex::new(Turn::new(limits.turn_file.as_deref())));
        DiskWatch { runs: Arc::default(), limits, turn }
    }

    /// Watches a run's folder and streams; `stop` ends the run, and `eviction` carries the reason to it.
    pub fn watch(&self, run: RunId, folder: &Path, stop: CancellationToken, eviction: Eviction, streams: OpenStreams) -> Watch {
        self.lock().insert(run, Watched { folder: folder.to_owned(), stop, eviction, streams, usage: Arc::default() });
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
            match try_off_loop(move || disk::free(&root)).await {
                Ok(free) => self.check(free).await,
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

    async fn check(&self, free: u64) {
        let runs: Vec<(RunId, Watched)> = self.lock().iter().map(|(run, watched)| (*run, watched.clone())).collect();
        for (run, watched) in &runs {
            self.check_streams(*run, watched, free);
        }
        let is_short = free < self.limits.free_bytes_min;
        if !is_short && self.limits.folder_bytes_max.is_none() {
            return;
        }
        // A run that is being ended already frees its space soon.
        let counts: Vec<_> = runs.iter().filter(|(_, watched)| watched.eviction.fault().is_none()).map(counted).collect();
        let sizes: Vec<(u64, &(RunId, Watched))> = stream::iter(counts).buffer_unordered(COUNTS_AT_ONCE).collect().await;
        for (bytes, (run, watched)) in &sizes {
            if let Some(most) = self.limits.folder_bytes_max.filter(|most| bytes > most) {
                let message = format!("the task's folder takes {bytes} bytes, and {most} are allowed");
                evict(*run, watched, Cause::Limit, message, *bytes, free);
            }
        }
        let largest = sizes.iter().filter(|(_, (_, watched))| watched.eviction.fault().is_none()).max_by_key(|(bytes, _)| *bytes);
        let Some((bytes, (run, watched))) = largest.filter(|(bytes, _)| is_short && *bytes >= OFFENDER_BYTES_MIN) else { return };
        match self.turn().take(*run, Instant::now()) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(%error, "cannot lock the file that agents of one disk share; ending a run of this agent although another agent may do the same")
            }
        }
        let message = format!("the node's disk is nearly full, and the task's folder takes the most of it: {bytes} bytes");
        evict(*run, watched, Cause::WantOfRoom, message, *bytes, free);
    }

    fn check_streams(&self, run: RunId, watched: &Watched, free: u64) {
        let most = self.limits.stream_bytes_max;
        for (name, length) in watched.streams.lengths() {
            match length {
                Ok(length) if length > most => {
                    evict(run, watched, Cause::Limit, format!("{name} has {length} bytes, and {most} are allowed"), length, free);
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, %run, name, "cannot measure a stream of a run; its limit is not checked this time"),
            }
        }
    }
}

async fn counted(run: &(RunId, Watched)) -> (u64, &(RunId, Watched)) {
    (run.1.usage.measure(&run.1.folder, COUNT_MAX).await, run)
}

fn evict(run: RunId, watched: &Watched, cause: Cause, message: String, bytes: u64, free: u64) {
    let details = vec![("TaskBytes".to_owned(), bytes.to_string()), ("FreeBytes".to_owned(), free.to_string())];
    let fault = Fault { code: DISK_FULL.to_owned(), message, details };
    if watched.eviction.0.set((fault.clone(), cause)).is_ok() {
        tracing::warn!(%run, folder = %watched.folder.display(), reason = fault.message, free, "ending a run for its disk usage");
        watched.stop.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io::Write,
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

    /// Registers a run with so many megabytes in its folder and so many bytes of stdout.
    fn run(watch: &DiskWatch, folder: &Path, megabytes: usize, stdout: usize) -> Run {
        fs::create_dir_all(folder.join("wd/deep")).unwrap();
        fs::write(folder.join("wd/deep/data"), vec![1; megabytes << 20]).unwrap();
        let open = |name: &str| File::create(folder.join(name)).unwrap();
        let (mut file, streams) = (open("stdout.txt"), OpenStreams::default());
        streams.set(&file, &open("stderr.txt")).unwrap();
        file.write_all(&vec![b'x'; stdout]).unwrap();
        let (stop, eviction) = (CancellationToken::new(), Eviction::default());
        let watch = watch.watch(RunId::random(), folder, stop.clone(), eviction.clone(), streams);
        Run { stop, eviction, stdout: file, watch }
    }

    fn limits() -> DiskLimits {
        DiskLimits { stream_bytes_max: 1 << 30, free_bytes_min: 1_000, ..DiskLimits::default() }
    }

    #[tokio::test]
    async fn the_largest_is_ended_when_little_is_left_and_nobody_else() {
        let scratch = tempfile::tempdir().unwrap();
        let watch = DiskWatch::new(limits());
        let (small, large) = (run(&watch, &scratch.path().join("a"), 1, 0), run(&watch, &scratch.path().join("b"), 33, 0));
        watch.check(1_000).await;
        assert!(!small.is_ended() && !large.is_ended(), "there is room");
        watch.check(999).await;
        assert!(large.is_ended() && !small.is_ended());
        assert_eq!(large.eviction.fault().unwrap().code, "DiskFull");
        assert!(large.eviction.frees_space());
        drop(large);
        watch.pass_the_turn_on(Instant::now());
        watch.pass_the_turn_on(Instant::now() + Duration::from_secs(60));
        watch.check(999).await;
        assert!(!small.is_ended(), "who takes little is not to blame");
    }

    #[tokio::test]
    async fn one_run_is_ended_at_a_time_on_all_agents_of_a_disk() {
        let scratch = tempfile::tempdir().unwrap();
        let limits = DiskLimits { turn_file: Some(scratch.path().join("turn")), ..limits() };
        let (node, other) = (DiskWatch::new(limits.clone()), DiskWatch::new(limits));
        let runs = [("a", 34), ("b", 33)].map(|(name, size)| run(&node, &scratch.path().join(name), size, 0));
        let elsewhere = run(&other, &scratch.path().join("c"), 35, 0);
        let ended = || [runs[0].is_ended(), runs[1].is_ended(), elsewhere.is_ended()];
        for _ in 0..3 {
            node.check(0).await;
            other.check(0).await;
        }
        assert_eq!(ended(), [true, false, false]);
        let [first, second] = runs;
        drop(first);
        let over = Instant::now();
        node.pass_the_turn_on(over);
        node.check(0).await;
        other.check(0).await;
        assert!(!second.is_ended() && !elsewhere.is_ended(), "its space is about to be freed");
        node.pass_the_turn_on(over + Duration::from_secs(10));
        other.check(0).await;
        node.check(0).await;
        assert!(!second.is_ended() && elsewhere.is_ended());
    }

    #[tokio::test]
    async fn streams_and_folders_have_their_limits() {
        let scratch = tempfile::tempdir().unwrap();
        let limits = DiskLimits { stream_bytes_max: 100, folder_bytes_max: Some(2 << 20), free_bytes_min: 0, turn_file: None };
        let watch = DiskWatch::new(limits);
        let fair = run(&watch, &scratch.path().join("a"), 1, 100);
        let loud = run(&watch, &scratch.path().join("b"), 0, 101);
        let wide = run(&watch, &scratch.path().join("c"), 3, 0);
        let mut sly = run(&watch, &scratch.path().join("d"), 0, 0);
        fs::rename(scratch.path().join("d/stdout.txt"), scratch.path().join("d/wd/other")).unwrap();
        fs::write(scratch.path().join("d/stdout.txt"), "").unwrap();
        watch.check(u64::MAX).await;
        assert_eq!(fair.eviction.fault(), None);
        assert!(loud.eviction.fault().unwrap().message.contains("stdout.txt") && loud.is_ended());
        assert!(wide.eviction.fault().unwrap().message.contains("folder") && wide.is_ended());
        assert!(!wide.eviction.frees_space() && !sly.is_ended());
        sly.stdout.write_all(&[b'x'; 101]).unwrap();
        watch.check(u64::MAX).await;
        assert!(sly.is_ended(), "another name is no way around the limit");
        [fair, loud, wide, sly].into_iter().for_each(|run| drop(run.watch));
        assert!(watch.lock().is_empty());
    }
}
