//! One run of a task, from its empty folder to its uploaded outputs.
//!
//! ```text
//! folder ──► stage in ──► process (a thread waits) ──► may publish? ──► stage out ──► streams ──► Ended
//!  (new, or   └─ a stop       └── a stop, or its wall clock: TERM, a little later KILL, daemons too
//!   of an earlier run)
//! ```
//! The agent spawns one of these for each run and gets its result. File access happens off the agent's thread. The wall
//! clock begins with the process: waiting for a thread or for inputs costs none of it.

use std::{
    error::Error,
    fs::File,
    io,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use broker_config::disk;
use contract::{
    outcome::{DISK_FULL, Fault, Outcome, Stream, Usage},
    spec::{Package, ResourceFile, TaskSpec},
};
use futures::FutureExt;
use rustix::process::Signal;
use tokio::{sync::oneshot, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    cleanup,
    context::NodeContext,
    disk_blame::{Size, blame},
    disk_watch::{Eviction, Subject, Watch},
    folder_bytes,
    folders::{self, Mark},
    off_loop::{off_loop, try_off_loop},
    open_streams::OpenStreams,
    outputs::{self, Source},
    owner::Owner,
    packages::{self, deployed::Deployed},
    process::{
        environment::{Environment, RUN, TaskFacts},
        launch::{Launch, LaunchResult, Leftovers, ProcessGroup},
        threads::{Panicked, Threads},
        tree,
        usage::Exit,
    },
    shortage::{self, SHORTAGE, retry_on_shortage},
    staging, streams,
};

/// Longest wait for an earlier run of the same task to stop; after it the run begins with an empty folder.
const EARLIER_RUN_MAX: Duration = Duration::from_secs(60);
/// Time between SIGTERM and SIGKILL, where the task sets none.
const KILL_GRACE: Duration = Duration::from_secs(2);

/// The result of a run.
#[derive(Debug)]
pub struct Ended {
    /// The true reason of the end.
    pub outcome: Outcome,
    pub stdout: Stream,
    pub stderr: Stream,
    pub usage: Usage,
    /// Present when there was a process.
    pub files: Option<StreamFiles>,
}

impl Ended {
    /// A result without a process.
    pub fn bare(outcome: Outcome) -> Ended {
        Ended { outcome, stdout: Stream::Empty, stderr: Stream::Empty, usage: Usage::default(), files: None }
    }

    /// Reads the streams again: daemons may have written since.
    fn measure(&mut self) {
        let Some(files) = &self.files else { return };
        let measure = |file| {
            streams::measure(file).unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot read a stream of an ended run; its result carries what was read before");
                Stream::Empty
            })
        };
        (self.stdout, self.stderr) = (measure(&files.stdout), measure(&files.stderr));
    }
}

/// The streams of a process, open for reading whatever became of their names.
#[derive(Debug)]
pub struct StreamFiles {
    pub stdout: File,
    pub stderr: File,
}

/// Handles to stop a run and its process from outside.
#[derive(Debug, Clone)]
pub struct RunControl {
    /// Ends the run.
    pub stop: CancellationToken,
    /// Cancelled when the run is over and its result was handed on.
    pub over: CancellationToken,
    pub group: Arc<ProcessGroup>,
    /// Set when the run is ended for what it wrote.
    pub eviction: Eviction,
    /// Set while the process lives.
    pub streams: OpenStreams,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Duration,
}

impl RunControl {
    /// Handles of a new run.
    pub fn new() -> RunControl {
        RunControl {
            stop: CancellationToken::new(),
            over: CancellationToken::new(),
            group: Arc::new(ProcessGroup::default()),
            eviction: Eviction::default(),
            streams: OpenStreams::default(),
            grace: KILL_GRACE,
        }
    }
}

/// Runs one task, once an earlier run of it on this node is over. It always returns a result, also when the work
/// panics.
pub async fn execute(
    context: Arc<NodeContext>,
    task: TaskFacts,
    spec: TaskSpec,
    run_control: RunControl,
    earlier: Option<CancellationToken>,
) -> Ended {
    let run = task.run;
    let ended = AssertUnwindSafe(execute_all(context, task, spec, run_control, earlier)).catch_unwind().await;
    ended.unwrap_or_else(|_| {
        tracing::error!(run = %run.run, uid = run.uid.0, "the work on a run failed inside the agent; its task is tried again");
        Ended::bare(Outcome::Node(node_fault("the node agent failed internally while it worked on the run", &io::ErrorKind::Other.into())))
    })
}

async fn execute_all(
    context: Arc<NodeContext>,
    task: TaskFacts,
    spec: TaskSpec,
    run_control: RunControl,
    earlier: Option<CancellationToken>,
) -> Ended {
    let grace = spec.piecework.kill_grace.map_or(KILL_GRACE, |grace| Duration::from_millis(grace.as_ms()));
    let run_control = RunControl { grace, ..run_control };
    let is_alone = match earlier {
        None => true,
        Some(earlier) => tokio::select! {
            () = earlier.cancelled() => true,
            () = run_control.stop.cancelled() => return Ended::bare(Outcome::Stopped),
            () = sleep(grace + EARLIER_RUN_MAX) => false,
        },
    };
    let folder = context.root.task_folder(&task.job, &task.task);
    let owner = Owner::Task(task.run.uid);
    let _kept = context.retention.hold(&folder, spec.constraints.retention_time, owner).await;
    let limit = spec.constraints.max_wall_clock_time.and_then(|time| time.limit());
    let mut environment = Environment::new(&context.facts, Some(&task), &folder, &spec.environment_settings);
    if let Some(traceparent) = &spec.piecework.traceparent {
        environment.add_trace(traceparent);
    }
    environment.add_packages(context.packages.get().into_iter().flatten());
    if let Some(preparation) = &spec.preparation {
        environment.add_preparation(&context.root.task_folder(&task.job, preparation));
    }
    match deploy(&context, &spec.packages, &run_control).await {
        Ok(packages) => environment.add_packages(&packages),
        Err(outcome) => return Ended::bare(outcome),
    }
    let mark = Mark::new(&context.root, &task.job, &task.task, owner);
    let is_reused = match reuse(&context, &folder, &mark, &spec, task.run.attempt > 1, is_alone).await {
        Ok(is_reused) => is_reused,
        Err(error) => return Ended::bare(Outcome::Node(folder_fault(&folder, &error))),
    };
    let has_inputs = !is_reused && !spec.resource_files.is_empty();
    if has_inputs {
        if let Err(outcome) = prepare(&context, &folder, &spec.resource_files, &run_control).await {
            return Ended::bare(blame_for_full_disk(&context, &folder, outcome).await);
        }
        let mark = mark.clone();
        if let Err(error) = try_off_loop(move || mark.set()).await {
            return Ended::bare(Outcome::Node(folder_fault(&folder, &error)));
        }
    }
    let makes_folder = (!is_reused && !has_inputs).then_some(mark);
    let launch = Launch {
        command_line: spec.command_line.clone(),
        environment: environment.clone(),
        folder: folder.clone(),
        directory: None,
        leftovers: Leftovers::End,
    };
    let RunControl { stop, eviction, streams, group, .. } = run_control.clone();
    let watch = context.disk.watch(task.run.run, Subject { folder: folder.clone(), stop, eviction, streams, group }, !is_reused);
    let mut ended = process(&context, &context.threads, launch, &run_control, limit, Some(task.run.run.to_string()), makes_folder).await;
    if let (Outcome::Stopped, Some(fault)) = (&ended.outcome, run_control.eviction.fault()) {
        ended.outcome = Outcome::Launch(fault);
        if run_control.eviction.frees_space() {
            remove_working_directory(&context, &folder, watch).await;
        }
    } else {
        drop(watch);
    }
    if !spec.output_files.is_empty() && !matches!(ended.outcome, Outcome::Node(_) | Outcome::Launch(_)) {
        let code = match ended.outcome {
            Outcome::Exit { code } => Some(code),
            _ => None,
        };
        let source = Source { folder: folder.as_path().into(), environment, files: spec.output_files, is_success: code == Some(0) };
        match outputs::upload(&context, task.run, source, &run_control.stop).await {
            Ok(bytes) => ended.usage.out_bytes = bytes,
            // A run that was stopped or timed out keeps that reason.
            Err(fault) if matches!(ended.outcome, Outcome::Exit { .. } | Outcome::Signal { .. }) => {
                ended.outcome = shortage::settle(Outcome::Upload { code, fault });
            }
            Err(fault) => tracing::warn!(code = fault.code, "outputs of a stopped or timed out run were not uploaded"),
        }
    }
    if let Some(files) = ended.files.take() {
        ended.stdout = streams::ship(&context, ended.stdout, task.run, &files.stdout, "stdout.txt").await;
        ended.stderr = streams::ship(&context, ended.stderr, task.run, &files.stderr, "stderr.txt").await;
    }
    ended
}

/// Makes the folder and fetches the inputs, unless a stop comes first.
pub async fn prepare(context: &Arc<NodeContext>, folder: &Path, files: &[ResourceFile], run_control: &RunControl) -> Result<(), Outcome> {
    let work = async {
        retry_on_shortage(|| make_empty(context, folder)).await.map_err(Outcome::Node)?;
        staging::stage(context, folder, files).await.map_err(Outcome::Staging)
    };
    tokio::select! {
        staged = work => staged.map(|_| ()).map_err(shortage::settle),
        () = run_control.stop.cancelled() => Err(Outcome::Stopped),
    }
}

/// Blames the node when inputs found a disk that was filled by others; what was fetched of them is removed, for it takes
/// room and is fetched again.
async fn blame_for_full_disk(context: &Arc<NodeContext>, folder: &Path, outcome: Outcome) -> Outcome {
    if !matches!(&outcome, Outcome::Staging(fault) if fault.code == DISK_FULL) {
        return outcome;
    }
    let (root, path) = (context.root.clone(), folder.to_owned());
    let settled = try_off_loop(move || {
        let (space, bytes) = (disk::space(root.path())?, AtomicU64::default());
        folder_bytes::count(&path, &bytes, &AtomicBool::default());
        let size = Size { bytes: bytes.into_inner(), grown: 0 };
        let is_tasks = blame(size, Size { bytes: space.used, grown: 0 }).is_some();
        root.discard(&path.join("wd")).map(|()| is_tasks)
    });
    let is_tasks = settled.await.unwrap_or_else(|error| {
        tracing::warn!(%error, folder = %folder.display(), "cannot remove the inputs of a task for which a full disk had no room; they stay for their retention time");
        false
    });
    context.trash.notify_one();
    match outcome {
        Outcome::Staging(fault) if !is_tasks => Outcome::Node(fault),
        other => other,
    }
}

/// Removes the working directory of a run that was ended for lack of disk space; its streams stay. The run counts as
/// ending until the space is free.
async fn remove_working_directory(context: &Arc<NodeContext>, folder: &Path, watch: Watch) {
    let (root, wd) = (context.root.clone(), folder.join("wd"));
    let discarded = try_off_loop(move || root.discard(&wd)).await;
    if let Err(error) = discarded {
        return tracing::warn!(%error, folder = %folder.display(), "cannot remove the working directory of a run that was ended for lack of disk space; it stays for its retention time");
    }
    tracing::info!(folder = %folder.display(), "removed the working directory of a run that was ended for lack of disk space");
    let root = context.root.clone();
    tokio::spawn(async move {
        if let Err(error) = off_loop(move || cleanup::empty_trash(&root, true)).await {
            tracing::warn!(%error, "the work on emptying the trash failed inside the agent; the trash is emptied at the next sweep");
        }
        drop(watch);
    });
}

/// Takes over the folder that an earlier run of the task left; returns false when the run must begin with an empty one.
async fn reuse(context: &NodeContext, folder: &Path, mark: &Mark, spec: &TaskSpec, is_further: bool, is_alone: bool) -> io::Result<bool> {
    if !is_further {
        return Ok(false);
    }
    let wants_fresh = spec.piecework.fresh_directory || !is_alone;
    let (root, folder, mark) = (context.root.clone(), folder.to_owned(), mark.clone());
    try_off_loop(move || if wants_fresh { mark.unset().map(|()| false) } else { folders::reuse(&root, &folder, &mark) }).await
}

/// Prepares a folder for a further try of the same execution.
pub async fn prepare_again(context: &NodeContext, folder: &Path) -> Result<(), Outcome> {
    let (root, path) = (context.root.clone(), folder.to_owned());
    let cleared = try_off_loop(move || folders::clear_streams(&root, &path)).await;
    cleared.map_err(|error| Outcome::Node(folder_fault(folder, &error)))
}

async fn make_empty(context: &Arc<NodeContext>, folder: &Path) -> Result<(), Fault> {
    let (root, path) = (context.root.clone(), folder.to_owned());
    try_off_loop(move || root.make_empty(&path)).await.map_err(|error| folder_fault(folder, &error))
}

/// Deploys the task's packages, unless a stop comes first.
async fn deploy(context: &NodeContext, packages: &[Package], run_control: &RunControl) -> Result<Vec<Deployed>, Outcome> {
    if packages.is_empty() {
        return Ok(Vec::new());
    }
    tokio::select! {
        deployed = packages::deploy(context, packages) => deployed.map_err(|fault| match fault.code.as_str() {
            DISK_FULL => Outcome::Node(fault),
            _ => shortage::settle(Outcome::Staging(fault)),
        }),
        () = run_control.stop.cancelled() => Err(Outcome::Stopped),
    }
}

/// Runs a process on one of these threads, again while the node lacks resources for it, and ends what it leaves. With a
/// mark it makes the folder first.
pub async fn process(
    context: &Arc<NodeContext>,
    threads: &Threads,
    launch: Launch,
    run_control: &RunControl,
    limit: Option<Duration>,
    run: Option<String>,
    makes_folder: Option<Mark>,
) -> Ended {
    let launch = Arc::new(launch);
    let attempt = || async {
        let ended = process_once(context, threads, launch.clone(), run_control, limit, run.clone(), makes_folder.clone()).await;
        match &ended.outcome {
            // The process never started.
            Outcome::Launch(fault) | Outcome::Node(fault) if fault.code == SHORTAGE => Err(fault.clone()),
            _ => Ok(ended),
        }
    };
    // A stop meanwhile ends the next try before its process.
    retry_on_shortage(attempt).await.unwrap_or_else(|fault| Ended::bare(Outcome::Node(fault)))
}

async fn process_once(
    context: &Arc<NodeContext>,
    threads: &Threads,
    launch: Arc<Launch>,
    run_control: &RunControl,
    limit: Option<Duration>,
    run: Option<String>,
    makes_folder: Option<Mark>,
) -> Ended {
    let (begin, begun) = oneshot::channel();
    let (end, over) = oneshot::channel();
    let (root, group, folder, orphans) = (context.root.clone(), run_control.group.clone(), launch.folder.clone(), context.orphans.clone());
    let streams = run_control.streams.clone();
    let turn = Arc::new(AtomicBool::new(false));
    let taken = turn.clone();
    let on_end = move || {
        // The receiver is gone once the run was stopped.
        end.send(()).ok();
    };
    let started = threads.run(move || {
        if taken.swap(true, Ordering::Relaxed) {
            // The run was stopped, and its result reported, while it waited for this thread.
            return Ok(Ended::bare(Outcome::Stopped));
        }
        let made = makes_folder.map(|mark| root.make_empty(&launch.folder).and_then(|()| mark.set()));
        let result = made.unwrap_or(Ok(()));
        // Fails only when the whole agent has ended.
        begin.send(()).ok();
        result.map(|()| land(launch.run(&group, &orphans, &streams, on_end)))
    });
    let mut landed = match started {
        Ok(landed) => landed,
        Err(error) => return Ended::bare(Outcome::Node(node_fault("no thread can be started for the process", &error))),
    };
    let cause = tokio::select! {
        biased;
        // A stop that comes while daemons are being ended has no effect. Without a process this channel stays silent.
        _ = over => return finish(landed.await, &folder),
        () = run_control.stop.cancelled() => Outcome::Stopped,
        () = expiry(begun, limit) => Outcome::Timeout { limit_ms: limit.unwrap_or_default().as_millis() as u64 },
    };
    if !turn.swap(true, Ordering::Relaxed) {
        return Ended::bare(cause);
    }
    // A run that fills the disk gets no long grace.
    let grace = if run_control.eviction.fault().is_some() { run_control.grace.min(KILL_GRACE) } else { run_control.grace };
    run_control.group.signal(Signal::TERM);
    let result = tokio::select! {
        result = &mut landed => result,
        () = sleep(grace) => {
            run_control.group.signal(Signal::KILL);
            landed.await
        }
    };
    let mut ended = Ended { outcome: cause, ..finish(result, &folder) };
    let Some(run) = run else { return ended };
    let cleared = tokio::task::spawn_blocking(move || {
        let left = tree::kill_all(RUN, &run, &Default::default(), &Default::default());
        // Daemons may have written until now.
        ended.measure();
        (left, ended)
    });
    match cleared.await {
        Ok((left, ended)) => {
            if left > 0 {
                tracing::warn!(left, folder = %folder.display(), "processes of a stopped run survived SIGKILL and are left behind");
            }
            ended
        }
        Err(error) => Ended::bare(Outcome::Node(node_fault(
            "the node agent failed internally while it waited for the process",
            &io::Error::other(error),
        ))),
    }
}

fn land(landed: LaunchResult) -> Ended {
    match landed {
        LaunchResult::Stopped => Ended::bare(Outcome::Stopped),
        LaunchResult::NotStarted(fault) => Ended::bare(Outcome::Launch(fault)),
        LaunchResult::Ended { exit, usage, stdout, stderr } => {
            let outcome = match exit {
                Exit::Code(code) => Outcome::Exit { code },
                Exit::Signal(number) => Outcome::Signal { number },
            };
            let mut ended = Ended { usage, files: Some(StreamFiles { stdout, stderr }), ..Ended::bare(outcome) };
            ended.measure();
            ended
        }
    }
}

fn finish(result: Result<Result<io::Result<Ended>, Panicked>, oneshot::error::RecvError>, folder: &Path) -> Ended {
    let lost = |error: Box<dyn Error + Send + Sync>| {
        tracing::error!(%error, folder = %folder.display(), "the work on a process failed inside the agent; its task is tried again");
        Ended::bare(Outcome::Node(node_fault("the node agent failed internally while it worked on the process", &io::Error::other(error))))
    };
    match result {
        Ok(Ok(Ok(ended))) => ended,
        Ok(Ok(Err(error))) => Ended::bare(Outcome::Node(folder_fault(folder, &error))),
        Ok(Err(panicked)) => lost(panicked.into()),
        Err(error) => lost(error.into()),
    }
}

/// Completes when the limit has passed since the process began; never when it does not begin, or has no limit.
async fn expiry(begun: oneshot::Receiver<()>, limit: Option<Duration>) {
    match (begun.await, limit) {
        (Ok(()), Some(limit)) => sleep(limit).await,
        _ => std::future::pending().await,
    }
}

fn folder_fault(folder: &Path, error: &io::Error) -> Fault {
    let mut fault = node_fault("the task's folder cannot be made", error);
    fault.details.push(("Folder".to_owned(), PathBuf::from(folder.file_name().unwrap_or_default()).display().to_string()));
    fault
}

/// A fault that blames the node, not the task.
pub fn node_fault(message: &str, error: &io::Error) -> Fault {
    let code = match error.kind() {
        io::ErrorKind::StorageFull => DISK_FULL,
        _ if shortage::is_shortage(error) => SHORTAGE,
        _ => "NodeError",
    };
    Fault { code: code.to_owned(), message: message.to_owned(), details: vec![("Reason".to_owned(), error.to_string())] }
}
