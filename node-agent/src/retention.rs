//! Retention of task folders: each is kept for its own retention time from its end; folders of running tasks always.
//!
//! ```text
//! volatile/retention/begun        RETENTION PATH          runs since the agent's start, to be kept should it be killed
//! volatile/retention/due-<n>      ENDED RETENTION PATH    ended ones, by the ten minutes in which they are due
//! ```
//! Times in milliseconds, `-` means for ever. A line is a hint: a folder that is in use, or was touched since, stays.
//! Only `hold` and the [`Hold`] that it returns run on the agent's thread, and they touch memory alone; everything else
//! blocks.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    io::{self, BufRead, BufReader, ErrorKind, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use broker_config::private;
use contract::{ids::JobUid, period::Period, time::Timestamp};
use tokio::sync::Notify;

use crate::{
    owner::{Gone, Owner},
    root::Root,
};

/// Retention time of tasks that set none.
const DEFAULT: Period = Period::from_secs(7 * 24 * 3600);
/// Folders that are due within the same period share a file.
const BUCKET_MS: i64 = 10 * 60 * 1000;
/// File of the folders that are kept for ever.
const NEVER: &str = "due-never";
/// With more lines than this, the file of started runs is rewritten with the live ones.
const BEGUN_LINES_MAX: usize = 10_000;
const BEGUN: &str = "begun";
const BEGUN_BEFORE: &str = "begun-before";

/// Retention times of the node's task folders.
pub struct Retention {
    root: Root,
    folder: PathBuf,
    state: Mutex<State>,
    /// Notified when the check of a folder has ended.
    checked: Notify,
    started: (Timestamp, Instant),
}

#[derive(Default)]
struct State {
    live: HashMap<String, Live>,
    /// Folders that are being checked, with the number of checks.
    under_check: HashMap<String, u32>,
    /// Lines that are not written yet, by file.
    pending: BTreeMap<String, String>,
    /// Lines of started runs since their file was last rewritten.
    begun_lines: usize,
}

struct Live {
    holds: u32,
    is_pinned: bool,
    keeps: Keeps,
    owner: Owner,
}

/// A retention time in milliseconds; `None` means for ever.
type Keeps = Option<i64>;

/// Marks a folder as in use; its retention time begins when this is dropped.
pub struct Hold {
    retention: Arc<Retention>,
    path: String,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.retention.lock();
        if let Some(live) = state.live.get_mut(&self.path) {
            live.holds = live.holds.saturating_sub(1);
        }
        self.retention.end_unused(&mut state, &self.path);
    }
}

impl State {
    /// Begins a check; nothing takes the folder into use meanwhile.
    fn begin_check(&mut self, path: &str) {
        *self.under_check.entry(path.to_owned()).or_default() += 1;
    }

    /// The lines of the folders in use, which replace all lines written so far.
    fn begun_anew(&mut self) -> String {
        self.pending.remove(BEGUN);
        self.begun_lines = self.live.len();
        self.live.iter().map(|(path, live)| format!("{} {path}\n", shown(live.keeps))).collect()
    }
}

impl Hold {
    /// Keeps the folder in use until [`Retention::unpin`], because tasks use the files of their job's preparation.
    pub fn pin(&self) {
        if let Some(live) = self.retention.lock().live.get_mut(&self.path) {
            live.is_pinned = true;
        }
    }
}

impl Retention {
    /// Starts with the files of this node; `recover` reads them.
    pub fn new(root: Root) -> Arc<Retention> {
        let folder = root.path().join("volatile/retention");
        let started = (Timestamp::now(), Instant::now());
        Arc::new(Retention { root, folder, state: Mutex::default(), checked: Notify::new(), started })
    }

    /// Takes a folder into use; waits while a sweep checks that very folder.
    pub async fn hold(self: &Arc<Self>, folder: &Path, retention: Option<Period>, owner: Owner) -> Hold {
        let path = self.relative(folder);
        loop {
            let checked = self.checked.notified();
            {
                let mut state = self.lock();
                if !state.under_check.contains_key(&path) {
                    let keeps = keeps(retention.unwrap_or(DEFAULT));
                    let live = state.live.entry(path.clone()).or_insert(Live { holds: 0, is_pinned: false, keeps, owner });
                    (live.holds, live.keeps, live.owner) = (live.holds + 1, keeps, owner);
                    let line = format!("{} {path}\n", shown(keeps));
                    state.pending.entry(BEGUN.to_owned()).or_default().push_str(&line);
                    state.begun_lines += 1;
                    return Hold { retention: self.clone(), path };
                }
            }
            checked.await;
        }
    }

    /// Ends the use of this folder and those below it that jobs up to this number pinned; without a number, of all
    /// jobs.
    pub fn unpin(&self, folder: &Path, last: Option<JobUid>) {
        let path = self.relative(folder);
        let mut state = self.lock();
        let below = format!("{path}/");
        let is_meant = |other: &String| *other == path || other.starts_with(&below);
        let gone = Gone { last: None, job: last };
        let is_pinned = |live: &Live| live.is_pinned && gone.covers(live.owner) != Some(false);
        let pinned: Vec<String> =
            state.live.iter().filter(|(other, live)| is_pinned(live) && is_meant(other)).map(|(other, _)| other.clone()).collect();
        for path in pinned {
            if let Some(live) = state.live.get_mut(&path) {
                live.is_pinned = false;
            }
            self.end_unused(&mut state, &path);
        }
    }

    /// Takes over the files of the previous agent; the runs that died with it end now.
    pub fn recover(&self) -> io::Result<()> {
        match fs::rename(self.folder.join(BEGUN), self.folder.join(BEGUN_BEFORE)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut known = HashSet::new();
        for (name, _) in self.buckets()? {
            known.extend(self.lines(&name)?.filter_map(|line| Some(parse(&line)?.2.to_owned())));
        }
        let mut begun = HashMap::new();
        for line in self.lines(BEGUN_BEFORE)? {
            if let Some((keeps, path)) = line.split_once(' ').and_then(|(keeps, path)| Some((read(keeps)?, path))) {
                begun.insert(path.to_owned(), keeps);
            }
        }
        for folder in self.task_folders() {
            let path = self.relative(&folder);
            let is_new = fs::symlink_metadata(&folder).is_ok_and(|meta| changed(&meta) >= self.started.0);
            if !known.contains(&path) && !is_new {
                let keeps = begun.get(&path).copied().unwrap_or_else(|| keeps(DEFAULT));
                self.ends(&mut self.lock(), &path, self.started.0, keeps);
            }
        }
        self.persist()?;
        match fs::remove_file(self.folder.join(BEGUN_BEFORE)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes what is only in memory.
    pub fn persist(&self) -> io::Result<()> {
        self.root.own_folder(&self.folder, private::FOLDER_MODE)?;
        let (pending, begun) = {
            let mut state = self.lock();
            let begun = (state.begun_lines > BEGUN_LINES_MAX.max(2 * state.live.len())).then(|| state.begun_anew());
            (std::mem::take(&mut state.pending), begun)
        };
        if let Some(lines) = begun {
            private::replace(&self.folder.join(BEGUN), lines.as_bytes())?;
        }
        for (name, lines) in pending {
            let mut file = private::open(private::options().create(true).append(true), &self.folder.join(name))?;
            file.write_all(lines.as_bytes())?;
        }
        Ok(())
    }

    /// Discards the folders whose retention time has passed.
    pub fn sweep(&self) -> io::Result<()> {
        self.sweep_at(self.now())
    }

    fn sweep_at(&self, now: Timestamp) -> io::Result<()> {
        self.persist()?;
        for (name, bucket) in self.buckets()? {
            if bucket.is_none_or(|bucket| (bucket + 1) * BUCKET_MS > now.0) {
                continue;
            }
            for line in self.lines(&name)? {
                if let Some((ended_at, keeps, path)) = parse(&line) {
                    self.check(path, ended_at, keeps, now);
                }
            }
            // A folder that stays has a line in another file.
            self.persist()?;
            fs::remove_file(self.folder.join(name))?;
        }
        Ok(())
    }

    /// Discards one folder if it is really due, else notes when it will be.
    fn check(&self, path: &str, ended_at: Timestamp, keeps: Keeps, now: Timestamp) {
        {
            let mut state = self.lock();
            if state.live.contains_key(path) {
                // The end of the use adds a line of its own.
                return;
            }
            state.begin_check(path);
        }
        if let Err(error) = self.discard_or_keep(path, ended_at, keeps, now) {
            tracing::warn!(%error, path, "cannot remove a task folder whose retention time has passed; trying again after the same time");
            self.ends(&mut self.lock(), path, now, keeps);
        }
        self.end_check(path);
    }

    fn end_check(&self, path: &str) {
        let mut state = self.lock();
        if let Some(checks) = state.under_check.get_mut(path) {
            *checks -= 1;
            if *checks == 0 {
                state.under_check.remove(path);
            }
        }
        drop(state);
        self.checked.notify_waiters();
    }

    /// Discards the folder of a deleted task; returns false when it belongs to another task, which keeps it. `marked`
    /// reads the owner while nothing runs in the folder; a folder without a mark has nothing that a further run would
    /// reuse.
    pub fn forget(&self, folder: &Path, gone: &Gone, marked: impl FnOnce() -> Option<Owner>) -> io::Result<bool> {
        let path = self.relative(folder);
        let is_in_use = {
            let mut state = self.lock();
            if let Some(live) = state.live.get_mut(&path) {
                if gone.covers(live.owner) != Some(true) {
                    return Ok(false);
                }
                // The run is being stopped; the files that it still writes are discarded after it.
                live.keeps = Some(0);
            }
            state.begin_check(&path);
            state.live.contains_key(&path)
        };
        let is_meant = is_in_use || marked().is_none_or(|owner| gone.covers(owner) != Some(false));
        let discarded = if is_meant { self.root.discard(folder) } else { Ok(()) };
        self.end_check(&path);
        discarded.map(|()| is_meant)
    }

    fn discard_or_keep(&self, path: &str, ended_at: Timestamp, keeps: Keeps, now: Timestamp) -> io::Result<()> {
        let folder = self.root.path().join(path);
        let meta = match fs::symlink_metadata(&folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        // A later run of the same task ended later, and so did whatever touched the folder since.
        let ended_at = if changed(&meta) <= now { ended_at.max(changed(&meta)) } else { ended_at };
        if keeps.is_some_and(|keeps| now.since(ended_at) >= keeps) {
            return self.root.discard(&folder);
        }
        self.ends(&mut self.lock(), path, ended_at, keeps);
        Ok(())
    }

    fn end_unused(&self, state: &mut State, path: &str) {
        let Some(live) = state.live.get(path).filter(|live| live.holds == 0 && !live.is_pinned) else { return };
        let keeps = live.keeps;
        state.live.remove(path);
        self.ends(state, path, self.now(), keeps);
    }

    fn ends(&self, state: &mut State, path: &str, ended_at: Timestamp, keeps: Keeps) {
        let name = keeps.map_or_else(|| NEVER.to_owned(), |keeps| format!("due-{}", ended_at.0.saturating_add(keeps) / BUCKET_MS));
        let line = format!("{} {} {path}\n", ended_at.0, shown(keeps));
        state.pending.entry(name).or_default().push_str(&line);
    }

    /// The time of day; setting the clock does not change it while the agent runs.
    fn now(&self) -> Timestamp {
        let (wall, moment) = self.started;
        wall.plus_ms(i64::try_from(moment.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn relative(&self, folder: &Path) -> String {
        folder.strip_prefix(self.root.path()).unwrap_or(folder).to_string_lossy().into_owned()
    }

    /// The files of ended runs with their numbers; the file of folders that are kept for ever has no number.
    fn buckets(&self) -> io::Result<Vec<(String, Option<i64>)>> {
        let mut buckets = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Some(number) = name.strip_prefix("due-") {
                let number = number.parse().ok();
                buckets.push((name, number));
            }
        }
        Ok(buckets)
    }

    fn lines(&self, name: &str) -> io::Result<impl Iterator<Item = String> + use<>> {
        let file = match private::open(private::options().read(true), &self.folder.join(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            other => Some(other?),
        };
        // A killed agent may have left the last line unfinished.
        Ok(file.into_iter().flat_map(|file| BufReader::new(file).lines().map_while(Result::ok)))
    }

    fn task_folders(&self) -> impl Iterator<Item = PathBuf> + use<> {
        let entries = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten();
        // A link that a task made in the place of a job's folder leads to folders that are not this node's.
        let is_folder = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        let folders = move |folder: PathBuf| entries(folder).filter(is_folder).map(|entry| entry.path());
        folders(self.root.path().join("workitems")).flat_map(folders).flat_map(entries).map(|entry| entry.path())
    }
}

fn changed(meta: &fs::Metadata) -> Timestamp {
    Timestamp(meta.ctime().saturating_mul(1000).saturating_add(meta.ctime_nsec() / 1_000_000))
}

fn keeps(retention: Period) -> Keeps {
    retention.limit().map(|limit| i64::try_from(limit.as_millis()).unwrap_or(i64::MAX))
}

fn shown(keeps: Keeps) -> String {
    keeps.map_or_else(|| "-".to_owned(), |keeps| keeps.to_string())
}

fn read(text: &str) -> Option<Keeps> {
    if text == "-" { Some(None) } else { text.parse().ok().map(Some) }
}

fn parse(line: &str) -> Option<(Timestamp, Keeps, &str)> {
    let mut words = line.splitn(3, ' ');
    let (ended_at, keeps, path) = (words.next()?, words.next()?, words.next()?);
    Some((Timestamp(ended_at.parse().ok()?), read(keeps)?, path))
}

#[cfg(test)]
mod tests {
    use contract::ids::TaskUid;

    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const A_TASK: Owner = Owner::Task(TaskUid(7));

    struct Node {
        folder: tempfile::TempDir,
        root: Root,
        retention: Arc<Retention>,
    }

    impl Node {
        async fn new() -> Node {
            let folder = tempfile::tempdir().unwrap();
            let root = Root::open(folder.path()).await.unwrap();
            let retention = Retention::new(root.clone());
            Node { folder, root, retention }
        }

        fn task(&self, name: &str) -> PathBuf {
            self.root.task_folder(&"j".parse().unwrap(), &name.parse().unwrap())
        }

        async fn run(&self, name: &str, retention: Period) -> Hold {
            let hold = self.retention.hold(&self.task(name), Some(retention), A_TASK).await;
            self.root.make_empty(&self.task(name)).unwrap();
            hold
        }

        fn sweep_after(&self, ms: i64) {
            self.retention.sweep_at(self.retention.now().plus_ms(ms)).unwrap();
        }

        /// The same folder with the next agent.
        fn restart(&mut self) {
            self.retention = Retention::new(self.root.clone());
            self.retention.recover().unwrap();
        }

        fn left(&self) -> String {
            let mut left: Vec<String> = fs::read_dir(self.folder.path().join("workitems/j/job-1"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                .collect();
            left.sort_unstable();
            left.concat()
        }
    }

    fn hours(hours: u64) -> Period {
        Period::from_secs(hours * 3600)
    }

    #[tokio::test]
    async fn what_ended_is_kept_for_its_own_time_and_what_runs_for_ever() {
        let node = Node::new().await;
        for (name, time) in [("a", hours(1)), ("b", hours(10)), ("c", Period::from_ms(0)), ("d", Period::UNLIMITED)] {
            drop(node.run(name, time).await);
        }
        let runs = node.run("r", Period::from_ms(0)).await;
        node.sweep_after(0);
        assert_eq!(node.left(), "abcdr", "a folder is checked at once its ten minutes have passed");
        node.sweep_after(HOUR_MS / 2);
        assert_eq!(node.left(), "abdr");
        node.sweep_after(2 * HOUR_MS);
        assert_eq!(node.left(), "bdr");
        node.sweep_after(24 * 365 * HOUR_MS);
        assert_eq!(node.left(), "dr");
        drop(runs);
        node.sweep_after(HOUR_MS);
        assert_eq!(node.left(), "d");
    }

    #[tokio::test]
    async fn a_task_that_ran_again_is_kept_from_its_last_end() {
        let node = Node::new().await;
        drop(node.run("a", Period::from_ms(0)).await);
        let again = node.run("a", hours(5)).await;
        node.sweep_after(HOUR_MS);
        assert_eq!(node.left(), "a", "it runs");
        drop(again);
        node.sweep_after(2 * HOUR_MS);
        assert_eq!(node.left(), "a");
        node.sweep_after(6 * HOUR_MS);
        assert_eq!(node.left(), "");
    }

    #[tokio::test]
    async fn a_link_in_the_place_of_a_jobs_folder_leads_to_nothing_that_is_removed() {
        let (mut node, victim) = (Node::new().await, tempfile::tempdir().unwrap());
        let workitems = node.folder.path().join("workitems");
        fs::create_dir_all(victim.path().join("job-1/t")).unwrap();
        fs::create_dir(workitems.join("k")).unwrap();
        std::os::unix::fs::symlink(victim.path(), workitems.join("j")).unwrap();
        std::os::unix::fs::symlink(victim.path().join("job-1"), workitems.join("k/job-1")).unwrap();
        node.restart();
        assert!(node.retention.task_folders().next().is_none());
        node.sweep_after(24 * 365 * HOUR_MS);
        assert!(victim.path().join("job-1/t").exists());
    }

    #[tokio::test]
    async fn the_next_agent_keeps_to_what_was_promised() {
        let mut node = Node::new().await;
        drop(node.run("a", hours(2)).await);
        let killed = node.run("b", hours(4)).await;
        node.retention.persist().unwrap();
        fs::create_dir_all(node.task("unknown")).unwrap();
        std::mem::forget(killed);
        // The next agent must start later than all of that.
        std::thread::sleep(std::time::Duration::from_millis(20));
        node.restart();
        node.sweep_after(HOUR_MS);
        assert_eq!(node.left(), "abunknown");
        node.sweep_after(3 * HOUR_MS);
        assert_eq!(node.left(), "bunknown");
        node.restart();
        node.sweep_after(5 * HOUR_MS);
        assert_eq!(node.left(), "unknown");
        node.sweep_after(8 * 24 * HOUR_MS);
        assert_eq!(node.left(), "");
    }

    #[tokio::test]
    async fn what_is_written_of_runs_that_began_stays_small() {
        let mut node = Node::new().await;
        let killed = node.run("a", hours(4)).await;
        for _ in 0..=BEGUN_LINES_MAX {
            node.retention.hold(&node.task("b"), None, A_TASK).await;
        }
        node.retention.persist().unwrap();
        assert_eq!(fs::read_to_string(node.folder.path().join("volatile/retention/begun")).unwrap().lines().count(), 1);
        std::mem::forget(killed);
        std::thread::sleep(std::time::Duration::from_millis(20));
        node.restart();
        node.sweep_after(3 * HOUR_MS);
        assert_eq!(node.left(), "a");
        node.sweep_after(5 * HOUR_MS);
        assert_eq!(node.left(), "");
    }

    #[tokio::test]
    async fn what_a_later_task_of_the_name_has_is_not_forgotten() {
        let node = Node::new().await;
        let forget = |last: Option<u64>, mark: Option<u64>| {
            let gone = Gone { last: last.map(TaskUid), job: None };
            node.retention.forget(&node.task("a"), &gone, || mark.map(|uid| Owner::Task(TaskUid(uid)))).unwrap()
        };
        let runs = node.run("a", hours(1)).await;
        assert!(!forget(Some(6), None) && !forget(Some(6), Some(6)), "task 7 runs in it");
        assert!(!forget(None, None), "the order does not say whose folder is meant");
        assert_eq!(node.left(), "a");
        drop(runs);
        assert!(!forget(Some(6), Some(7)), "it is kept for its retention time");
        assert_eq!(node.left(), "a");
        assert!(forget(Some(7), Some(7)));
        assert_eq!(node.left(), "");
        let stopped = node.run("a", Period::UNLIMITED).await;
        assert!(forget(Some(7), None), "the task that was deleted while it ran");
        fs::create_dir(node.task("a")).unwrap();
        drop(stopped);
        node.sweep_after(HOUR_MS);
        assert_eq!(node.left(), "", "what it left later");
        node.root.make_empty(&node.task("a")).unwrap();
        assert!(forget(None, Some(7)), "an earlier dispatcher sends no numbers");
    }

    #[tokio::test]
    async fn a_preparations_folder_stays_until_its_job_has_left() {
        let node = Node::new().await;
        let hold = node.retention.hold(&node.task("p"), Some(Period::from_ms(0)), Owner::Job(JobUid(2))).await;
        node.root.make_empty(&node.task("p")).unwrap();
        hold.pin();
        drop(hold);
        node.sweep_after(HOUR_MS);
        assert_eq!(node.left(), "p");
        let job = node.root.job_folder(&"j".parse().unwrap());
        node.retention.unpin(&job, Some(JobUid(1)));
        node.sweep_after(2 * HOUR_MS);
        assert_eq!(node.left(), "p", "an earlier job of its name left");
        node.retention.unpin(&job, Some(JobUid(2)));
        node.sweep_after(2 * HOUR_MS);
        assert_eq!(node.left(), "");
    }
}
