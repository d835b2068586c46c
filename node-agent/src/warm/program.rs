//! The process of a host: start, end, last words.
//!
//! It is started and ended as the processes of tasks are: a group of its own, the node's marker and a run id in its
//! environment, a thread that waits for it, daemons ended with it. Its streams are files in a folder of its own, which
//! goes with it.

use std::{
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use contract::ids::RunId;
use rustix::process::Signal;
use tokio::sync::{oneshot, watch};

use crate::{
    context::NodeContext,
    off_loop::{off_loop, try_off_loop},
    open_streams::OpenStreams,
    process::{
        environment::{Environment, RUN},
        launch::{Launch, LaunchResult, Leftovers, Pipes, ProcessGroup},
        usage::Exit,
    },
    warm::event::Failure,
};

/// The folder of hosts below the node's.
pub const FOLDER: &str = "volatile/functions";
/// Bytes of a program's streams that a failure repeats.
const LAST_WORDS_BYTES: u64 = 2_048;
/// A stream of a program that grows beyond this begins anew.
const STREAM_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// `exit code 3`, `signal 9`.
    pub how: String,
    pub is_success: bool,
    /// The end of its streams.
    pub last_words: String,
    /// Whether it never began.
    pub is_unstarted: bool,
}

/// The processes of all hosts that live.
#[derive(Default)]
pub struct Programs(Mutex<Vec<Weak<ProcessGroup>>>);

impl Programs {
    fn add(&self, group: &Arc<ProcessGroup>) {
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        groups.retain(|group| group.strong_count() > 0);
        groups.push(Arc::downgrade(group));
    }

    fn each<T>(&self, act: impl Fn(&ProcessGroup) -> Option<T>) -> Vec<T> {
        let groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        groups.iter().filter_map(Weak::upgrade).filter_map(|group| act(&group)).collect()
    }

    /// The numbers of their process groups.
    pub fn groups(&self) -> Vec<i32> {
        self.each(ProcessGroup::group)
    }

    pub fn kill_all(&self) {
        self.each(|group| {
            group.signal(Signal::KILL);
            None::<()>
        });
    }
}

/// What to start.
pub struct Start {
    pub command_line: String,
    pub environment: Environment,
    /// The program's folder, which has to exist.
    pub folder: PathBuf,
    /// Where it runs; `wd` in its folder when absent.
    pub directory: Option<PathBuf>,
    pub has_pipes: bool,
}

/// A program that was started; it is killed when this is dropped.
pub struct Program {
    group: Arc<ProcessGroup>,
    streams: OpenStreams,
    ended: watch::Receiver<Option<End>>,
}

impl Drop for Program {
    fn drop(&mut self) {
        self.group.signal(Signal::KILL);
    }
}

/// A new folder for a program, with the run id that its processes carry.
pub async fn folder(context: &NodeContext) -> Result<(PathBuf, RunId), Failure> {
    let run = RunId::random();
    let folder = context.root.path().join(FOLDER).join(run.to_string());
    let (root, path) = (context.root.clone(), folder.clone());
    let made = try_off_loop(move || root.make_empty(&path)).await;
    made.map(|()| (folder, run)).map_err(|error| Failure::new("NodeError", format!("the folder of the program cannot be made: {error}")))
}

impl Program {
    /// Starts it on a thread of its own, with pipes if they were asked for. A program that cannot be started ends at once.
    pub fn start(
        context: &Arc<NodeContext>,
        programs: &Programs,
        run: RunId,
        start: Start,
    ) -> Result<(Program, Option<oneshot::Receiver<Pipes>>), Failure> {
        let Start { command_line, mut environment, folder, directory, has_pipes } = start;
        environment.set(RUN, run.to_string());
        let launch = Launch { command_line, environment, folder: folder.clone(), directory, leftovers: Leftovers::End };
        let (group, streams) = (Arc::new(ProcessGroup::default()), OpenStreams::default());
        programs.add(&group);
        let (pipes_in, pipes) = has_pipes.then(oneshot::channel).unzip();
        let (told, ended) = watch::channel(None);
        let (its_group, its_streams, orphans) = (group.clone(), streams.clone(), context.orphans.clone());
        let landed = context.function_threads.run(move || launch.run_with(&its_group, &orphans, &its_streams, pipes_in, || ()));
        let landed = landed.map_err(|error| Failure::new("NodeError", format!("no thread can be started for the program: {error}")))?;
        let (root, trash, open) = (context.root.clone(), context.trash.clone(), streams.clone());
        tokio::spawn(async move {
            let result = landed.await;
            open.close();
            let (how, is_success, is_unstarted) = match result {
                Ok(Ok(LaunchResult::Ended { exit: Exit::Code(code), .. })) => (format!("exit code {code}"), code == 0, false),
                Ok(Ok(LaunchResult::Ended { exit: Exit::Signal(number), .. })) => (format!("signal {number}"), false, false),
                Ok(Ok(LaunchResult::NotStarted(fault))) => {
                    let reason = fault.details.iter().find(|(name, _)| name == "Reason").map(|(_, reason)| format!(": {reason}"));
                    (format!("{}{}", fault.message, reason.unwrap_or_default()), false, true)
                }
                Ok(Ok(LaunchResult::Stopped)) => ("a stop before its start".to_owned(), false, true),
                Ok(Err(panicked)) => (panicked.to_string(), false, true),
                Err(_) => ("the end of the agent".to_owned(), false, true),
            };
            let last_words = {
                let folder = folder.clone();
                off_loop(move || last_words(&folder)).await.unwrap_or_default()
            };
            told.send_replace(Some(End { how, is_success, last_words, is_unstarted }));
            if let Err(error) = try_off_loop(move || root.discard(&folder)).await {
                tracing::debug!(%error, "cannot remove the folder of a function's program; it stays until the agent starts again");
            }
            trash.notify_one();
        });
        Ok((Program { group, streams, ended }, pipes))
    }

    /// How it ended, if it has.
    pub fn end(&self) -> Option<End> {
        self.ended.borrow().clone()
    }

    /// Waits for its end.
    pub async fn ended(&self) -> End {
        let mut ended = self.ended.clone();
        let end = ended.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        end.unwrap_or(End { how: "the end of the agent".to_owned(), is_success: false, last_words: String::new(), is_unstarted: false })
    }

    pub fn kill(&self) {
        self.group.signal(Signal::KILL);
    }

    /// Keeps its streams within their limit.
    pub async fn cut_streams(&self) {
        let streams = self.streams.clone();
        if let Err(error) = try_off_loop(move || streams.cut(STREAM_BYTES_MAX)).await {
            tracing::debug!(%error, "cannot cut the streams of a function's program; the next look tries again");
        }
    }

    /// Resident memory of its first process, in bytes; its children are not counted.
    pub fn resident_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.group.group()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
    }
}

/// The end of what a program wrote, standard error last.
fn last_words(folder: &Path) -> String {
    let tail = |name: &str| {
        let mut file = std::fs::File::open(folder.join(name)).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS_BYTES))).ok()?;
        let mut bytes = Vec::new();
        file.take(LAST_WORDS_BYTES).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned()).filter(|text| !text.is_empty())
    };
    ["stdout.txt", "stderr.txt"].into_iter().filter_map(tail).collect::<Vec<_>>().join("\n")
}
