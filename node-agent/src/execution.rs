//! One run of a task, from its empty folder to its uploaded outputs.
//!
//! ```text
//! folder ──► stage in ──► process (a thread waits) ──► may publish? ──► stage out ──► streams ──► Ended
//!              └── stop or wall clock: TERM, a little later KILL, daemons too ──┘
//! ```
//! Spawned by the agent, one task each; it tells the agent the end and nothing else.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use broker_config::{
    message::{Fault, Outcome, Stream, Usage},
    spec::{Package, ResourceFile, TaskSpec},
};
use rustix::process::Signal;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    outputs,
    packages::{self, Deployed},
    process::{
        environment::{Environment, RUN, TaskFacts},
        launch::{Landed, Launch, Leash},
        tree,
        usage::Exit,
    },
    room::Room,
    staging, streams,
};

/// Between SIGTERM and SIGKILL.
pub const KILL_GRACE: Duration = Duration::from_secs(2);

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// The true reason.
    pub outcome: Outcome,
    /// What it wrote.
    pub stdout: Stream,
    /// What it complained.
    pub stderr: Stream,
    /// What it used.
    pub usage: Usage,
}

impl Ended {
    /// An end without a process.
    pub fn bare(outcome: Outcome) -> Ended {
        Ended { outcome, stdout: Stream::Empty, stderr: Stream::Empty, usage: Usage::default() }
    }
}

/// What may end a process before its time, and how to reach it.
#[derive(Debug, Clone)]
pub struct Reins {
    /// Ends the run.
    pub stop: CancellationToken,
    /// Holds its process group.
    pub leash: Arc<Leash>,
}

impl Reins {
    /// For a new run.
    pub fn new() -> Reins {
        Reins { stop: CancellationToken::new(), leash: Arc::new(Leash::default()) }
    }
}

/// Runs one task.
pub async fn execute(room: Arc<Room>, task: TaskFacts, spec: TaskSpec, reins: Reins) -> Ended {
    let folder = room.root.task_folder(&task.job, &task.task);
    let limit = spec.constraints.max_wall_clock_time.and_then(|time| time.limit());
    let deadline = limit.map(|limit| Instant::now() + limit);
    let mut environment = Environment::new(&room.facts, Some(&task), &folder, &spec.environment_settings);
    environment.add_packages(room.packages.get().into_iter().flatten());
    if let Some(preparation) = &spec.preparation {
        environment.add_preparation(&room.root.task_folder(&task.job, preparation));
    }
    match deploy(&room, &spec.packages, &reins, deadline, limit).await {
        Ok(packages) => environment.add_packages(&packages),
        Err(outcome) => return Ended::bare(outcome),
    }
    let has_inputs = !spec.resource_files.is_empty();
    if has_inputs && let Err(outcome) = prepare(&room, &folder, &spec.resource_files, &reins, deadline, limit).await {
        return Ended::bare(outcome);
    }
    let launch = Launch { command_line: spec.command_line.clone(), environment: environment.clone(), folder: folder.clone() };
    let mut ended = process(&room, launch, &reins, deadline, limit, Some(task.run.run.to_string()), !has_inputs).await;
    if !spec.output_files.is_empty() && !matches!(ended.outcome, Outcome::Node(_) | Outcome::Launch(_)) {
        let code = match ended.outcome {
            Outcome::Exit { code } => Some(code),
            _ => None,
        };
        match outputs::upload(&room, task.run, &folder, &environment, &spec.output_files, code == Some(0), &reins.stop).await {
            Ok(bytes) => ended.usage.out_bytes = bytes,
            // A stopped or timed out run has a truer reason already.
            Err(fault) if matches!(ended.outcome, Outcome::Exit { .. } | Outcome::Signal { .. }) => {
                ended.outcome = Outcome::Upload { code, fault };
            }
            Err(fault) => tracing::warn!(code = fault.code, "outputs of an ended run were not uploaded"),
        }
    }
    ended.stdout = streams::ship(&room, ended.stdout, task.run, &folder, "stdout.txt").await;
    ended.stderr = streams::ship(&room, ended.stderr, task.run, &folder, "stderr.txt").await;
    ended
}

/// Makes the folder and fetches the inputs, unless a stop or the wall clock comes first.
pub async fn prepare(
    room: &Arc<Room>,
    folder: &Path,
    files: &[ResourceFile],
    reins: &Reins,
    deadline: Option<Instant>,
    limit: Option<Duration>,
) -> Result<(), Outcome> {
    room.root.make_empty(folder).map_err(|error| folder_fault(folder, &error))?;
    tokio::select! {
        staged = staging::stage(room, folder, files) => staged.map(|_| ()).map_err(Outcome::Staging),
        () = reins.stop.cancelled() => Err(Outcome::Stopped),
        () = passed(deadline) => Err(timeout(limit)),
    }
}

/// Makes the task's packages stand, unless a stop or the wall clock comes first.
async fn deploy(
    room: &Room,
    packages: &[Package],
    reins: &Reins,
    deadline: Option<Instant>,
    limit: Option<Duration>,
) -> Result<Vec<Deployed>, Outcome> {
    if packages.is_empty() {
        return Ok(Vec::new());
    }
    tokio::select! {
        deployed = packages::deploy(room, packages) => deployed.map_err(Outcome::Staging),
        () = reins.stop.cancelled() => Err(Outcome::Stopped),
        () = passed(deadline) => Err(timeout(limit)),
    }
}

/// Starts the process on a thread and sees to its end.
pub async fn process(
    room: &Arc<Room>,
    launch: Launch,
    reins: &Reins,
    deadline: Option<Instant>,
    limit: Option<Duration>,
    run: Option<String>,
    makes_folder: bool,
) -> Ended {
    let (done, mut landed) = oneshot::channel();
    let (root, leash, folder) = (room.root.clone(), reins.leash.clone(), launch.folder.clone());
    let started = room.threads.run(move || {
        let result = if makes_folder { root.make_empty(&launch.folder) } else { Ok(()) };
        // Nobody listens only when the whole agent has ended.
        done.send(result.map(|()| land(launch.run(&leash)))).ok();
    });
    if let Err(error) = started {
        return Ended::bare(Outcome::Node(node_fault("no thread can be made", &error)));
    }
    let cause = tokio::select! {
        result = &mut landed => return finish(result, &folder),
        () = reins.stop.cancelled() => Outcome::Stopped,
        () = passed(deadline) => timeout(limit),
    };
    reins.leash.signal(Signal::TERM);
    let result = tokio::select! {
        result = &mut landed => result,
        () = sleep(KILL_GRACE) => {
            reins.leash.signal(Signal::KILL);
            landed.await
        }
    };
    if let Some(run) = run {
        let left = tokio::task::spawn_blocking(move || tree::kill_all(RUN, &run, &Default::default())).await;
        if !matches!(left, Ok(0)) {
            tracing::warn!(?left, "processes of a stopped run would not die");
        }
    }
    Ended { outcome: cause, ..finish(result, &folder) }
}

fn land(landed: Landed) -> Ended {
    match landed {
        Landed::Cut => Ended::bare(Outcome::Stopped),
        Landed::NotStarted(fault) => Ended::bare(Outcome::Launch(fault)),
        Landed::Ended { exit, usage, stdout, stderr } => {
            let outcome = match exit {
                Exit::Code(code) => Outcome::Exit { code },
                Exit::Signal(number) => Outcome::Signal { number },
            };
            let measure = |file| {
                streams::measure(file).unwrap_or_else(|error| {
                    tracing::warn!(%error, "cannot read a stream of an ended run");
                    Stream::Empty
                })
            };
            Ended { outcome, stdout: measure(&stdout), stderr: measure(&stderr), usage }
        }
    }
}

fn finish(result: Result<io::Result<Ended>, oneshot::error::RecvError>, folder: &Path) -> Ended {
    match result {
        Ok(Ok(ended)) => ended,
        Ok(Err(error)) => Ended::bare(folder_fault(folder, &error)),
        Err(_) => Ended::bare(Outcome::Node(node_fault("the thread of a process was lost", &io::Error::from(io::ErrorKind::Other)))),
    }
}

async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn timeout(limit: Option<Duration>) -> Outcome {
    Outcome::Timeout { limit_ms: limit.unwrap_or_default().as_millis() as u64 }
}

fn folder_fault(folder: &Path, error: &io::Error) -> Outcome {
    let mut fault = node_fault("the task's folder cannot be made", error);
    fault.details.push(("Folder".to_owned(), PathBuf::from(folder.file_name().unwrap_or_default()).display().to_string()));
    Outcome::Node(fault)
}

/// A fault of the node itself.
pub fn node_fault(message: &str, error: &io::Error) -> Fault {
    let code = if error.kind() == io::ErrorKind::StorageFull { "DiskFull" } else { "NodeError" };
    Fault { code: code.to_owned(), message: message.to_owned(), details: vec![("Reason".to_owned(), error.to_string())] }
}
