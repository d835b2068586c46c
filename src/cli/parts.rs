//! `piecework agent`, `dispatcher`, `autoscaler`: each part alone, by flags and `PIECEWORK_…` variables.

use std::{ffi::OsString, io::Read, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context;
use broker_config::settings::{AgentSecrets, Secret};
use clap::Args;
use contract::ids::{NodeId, PoolId};
use node_agent::{DiskLimits, Ending, STREAM_BYTES_MAX};
use providers::{Command, CommandSettings, Process, ProcessSettings};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{oneshot, watch},
};

use crate::{
    access::{AccessArgs, scheme},
    broker_admin::{self, BrokerAdminArgs},
    exit_codes::{Failure, OK},
    metrics_page, secrets,
    settings::{ServiceArgs, parse_s3},
    stack::{HEARTBEAT_MS, named},
    umask,
};

/// A provider script must end within this time.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(120);
/// Agents get this long to drain when their autoscaler ends.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// With less free space than this a node takes no tasks.
const FILE_RESERVE_BYTES: u64 = 256 * 1024 * 1024;
/// An agent whose stdin was closed ends within this time, or its guardian kills it.
const STDIN_CLOSED_MAX: Duration = Duration::from_secs(3);

/// Runs one node's agent
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// The pool
    #[arg(long, env = "PIECEWORK_POOL")]
    pool: PoolId,
    /// The node
    #[arg(long, env = "PIECEWORK_NODE")]
    node: NodeId,
    /// The file that holds the join token
    #[arg(long, value_name = "FILE", env = "PIECEWORK_TOKEN_FILE", required_unless_present = "secrets_on_stdin")]
    token_file: Option<PathBuf>,
    /// The node's root folder
    #[arg(long, value_name = "DIR", env = "PIECEWORK_ROOT")]
    root: PathBuf,
    #[command(flatten)]
    services: ServiceArgs,
    /// The address other nodes reach this one at
    #[arg(long, default_value = "127.0.0.1")]
    address: String,
    /// Where this agent's metrics are served for Prometheus; none are gathered without it
    #[arg(long, value_name = "ADDR", env = "PIECEWORK_AGENT_METRICS_LISTEN")]
    metrics_listen: Option<SocketAddr>,
    /// How much tasks stand back for other processes
    #[arg(long, value_name = "NICE", env = "PIECEWORK_TASK_NICE")]
    task_nice: Option<i32>,
    /// The umask of tasks, in octal; the one this agent was started with when absent
    #[arg(long, value_name = "MASK", env = umask::VARIABLE, value_parser = umask::parse)]
    task_umask: Option<u32>,
    /// Bytes that a task may write to stdout, and to stderr; with more it is ended as DiskFull
    #[arg(long, value_name = "BYTES", env = "PIECEWORK_TASK_STREAM_MAX_BYTES", default_value_t = STREAM_BYTES_MAX)]
    task_stream_max: u64,
    /// Bytes that a task's folder may take; with more it is ended as DiskFull
    #[arg(long, value_name = "BYTES", env = "PIECEWORK_TASK_FOLDER_MAX_BYTES")]
    task_folder_max: Option<u64>,
    /// A file that the agents on one disk share: when it is nearly full, one of them at a time ends a task
    #[arg(long, value_name = "FILE", env = "PIECEWORK_DISK_TURN_FILE")]
    disk_turn_file: Option<PathBuf>,
    /// End when stdin closes
    #[arg(long)]
    leash: bool,
    /// The first line of stdin brings join token, broker and S3 store: {"token":…,"broker":URL,"s3":URL or null}
    #[arg(long)]
    secrets_on_stdin: bool,
}

/// Runs the dispatcher
#[derive(Debug, Args)]
pub(crate) struct DispatcherArgs {
    /// The folder that keeps its state
    #[arg(long, value_name = "DIR", env = "PIECEWORK_DATA")]
    data: PathBuf,
    /// Where the API listens
    #[arg(long, value_name = "ADDR", env = "PIECEWORK_LISTEN", default_value = "127.0.0.1:7373")]
    listen: SocketAddr,
    /// Where metrics are served for Prometheus, instead of at /metrics of the API
    #[arg(long, value_name = "ADDR", env = "PIECEWORK_METRICS_LISTEN")]
    metrics_listen: Option<SocketAddr>,
    /// The URL that people and nodes are told, when it is not the address
    #[arg(long, value_name = "URL", env = "PIECEWORK_PUBLIC_URL")]
    public_url: Option<String>,
    /// The account's name
    #[arg(long, value_name = "NAME", env = "PIECEWORK_ACCOUNT")]
    account: String,
    /// The account's key; give two to change them without a pause
    #[arg(
        long,
        value_name = "BASE64",
        env = "PIECEWORK_KEY",
        hide_env_values = true,
        required_unless_present = "keys_file",
        value_delimiter = ','
    )]
    key: Vec<String>,
    #[command(flatten)]
    services: ServiceArgs,
    #[command(flatten)]
    broker_admin: BrokerAdminArgs,
    #[command(flatten)]
    access: AccessArgs,
}

/// Runs the autoscaler
#[derive(Debug, Args)]
pub(crate) struct AutoscalerArgs {
    #[command(flatten)]
    services: ServiceArgs,
    /// Makes nodes as processes of this machine, below this folder
    #[arg(long, value_name = "DIR", env = "PIECEWORK_DATA", required_unless_present = "script")]
    data: Option<PathBuf>,
    /// Makes nodes by this program: SCRIPT create|delete POOL NODE (the token on stdin), SCRIPT list
    #[arg(long, value_name = "PROGRAM", conflicts_with = "data")]
    script: Option<PathBuf>,
    /// Where the autoscaler's metrics are served for Prometheus; none are gathered without it
    #[arg(long, value_name = "ADDR", env = "PIECEWORK_METRICS_LISTEN")]
    metrics_listen: Option<SocketAddr>,
}

/// Runs an agent until the dispatcher dismisses it, its stdin closes (with `--leash`), or SIGTERM.
pub(crate) async fn agent(args: AgentArgs) -> anyhow::Result<u8> {
    secrets::conceal()?;
    let inherited = umask::for_owner_only();
    metrics_page::serve(args.metrics_listen).await?;
    let AgentSecrets { token, broker, s3 } = agent_secrets(&args)?;
    let guardian = vec![std::env::current_exe().context("this executable cannot be found")?.into_os_string(), OsString::from("guardian")];
    let settings = node_agent::Settings {
        broker: named(broker.expose(), &format!("piecework agent {}/{}", args.pool, args.node)),
        blobs: s3.as_ref().map(|s3| parse_s3(s3.expose())).transpose()?,
        pool: args.pool,
        node: args.node,
        token,
        root: args.root,
        address: args.address,
        guardian,
        nice: args.task_nice,
        task_umask: Some(args.task_umask.unwrap_or(inherited)),
        is_alone: true,
        file_reserve_bytes: FILE_RESERVE_BYTES,
        disk_limits: DiskLimits {
            stream_bytes_max: args.task_stream_max,
            folder_bytes_max: args.task_folder_max,
            free_bytes_min: FILE_RESERVE_BYTES / 2,
            turn_file: args.disk_turn_file,
        },
    };
    let (mut interrupts, mut terms) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut stdin = if args.leash { Some(watch_stdin()?) } else { None };
    let (order, ordered) = oneshot::channel();
    let shutdown = async move { ordered.await.unwrap_or(Ending::Now) };
    let mut running = std::pin::pin!(node_agent::run(settings, shutdown));
    let is_stdin_closed = tokio::select! {
        result = &mut running => return result.map(|()| OK).map_err(Into::into),
        () = stdin_closed(&mut stdin) => true,
        _ = interrupts.recv() => false,
        _ = terms.recv() => false,
    };
    if order.send(if is_stdin_closed { Ending::Now } else { Ending::Drain }).is_err() {
        tracing::debug!("the agent has ended already");
    }
    let give_up = async {
        if !is_stdin_closed {
            tokio::select! {
                () = stdin_closed(&mut stdin) => return,
                _ = interrupts.recv() => return,
                _ = terms.recv() => return,
            }
        }
        tokio::time::sleep(STDIN_CLOSED_MAX).await;
    };
    tokio::select! {
        result = running => result.map(|()| OK).map_err(Into::into),
        // The guardian kills the remaining processes.
        () = give_up => Ok(OK),
    }
}

/// The secrets from the line that the parent writes to stdin, or from files, variables and the settings file.
fn agent_secrets(args: &AgentArgs) -> anyhow::Result<AgentSecrets> {
    match &args.token_file {
        _ if args.secrets_on_stdin => secrets::read_line(&mut std::io::stdin().lock()),
        Some(file) => Ok(AgentSecrets {
            token: Secret::new(secrets::read_file(file)?),
            broker: Secret::new(args.services.broker()?),
            s3: args.services.s3()?.map(Secret::new),
        }),
        None => Err(Failure::usage("give --token-file").into()),
    }
}

/// Watches stdin from a thread of its own, so that the runtime needs no entry for a silent pipe.
fn watch_stdin() -> anyhow::Result<watch::Receiver<bool>> {
    let (closed, is_closed) = watch::channel(false);
    std::thread::Builder::new().name("stdin".to_owned()).stack_size(64 * 1024).spawn(move || {
        let (mut stdin, mut buffer) = (std::io::stdin().lock(), [0u8; 64]);
        while matches!(stdin.read(&mut buffer), Ok(count) if count > 0) {}
        closed.send_replace(true);
    })?;
    Ok(is_closed)
}

async fn stdin_closed(stdin: &mut Option<watch::Receiver<bool>>) {
    match stdin {
        Some(stdin) => {
            if stdin.wait_for(|is_closed| *is_closed).await.is_err() {
                tracing::debug!("the thread that reads stdin has ended; taking stdin for closed");
            }
        }
        None => std::future::pending().await,
    }
}

/// Runs the dispatcher until Ctrl-C or SIGTERM.
pub(crate) async fn dispatcher(args: DispatcherArgs) -> anyhow::Result<u8> {
    secrets::conceal()?;
    node_agent::raise_limits();
    umask::for_owner_only();
    let broker = args.services.broker()?;
    let settings =
        dispatcher::Settings {
            listen: args.listen,
            metrics_listen: args.metrics_listen,
            public_url: args.public_url,
            data: args.data,
            account: args.account,
            keys: args.key.into_iter().map(Secret::new).collect(),
            broker: named(&broker, "piecework dispatcher"),
            broker_users: broker_admin::of_rabbitmq(args.broker_admin.given()?.as_ref(), &broker)?,
            blobs: parse_s3(&args.services.s3()?.ok_or_else(|| {
                Failure::usage("no blob store is given: --s3-file, --s3, their variables, or `s3` in the settings file")
            })?)?,
            join_secret: None,
            timers: Default::default(),
            heartbeat_ms: HEARTBEAT_MS,
            access: args.access.access(),
        };
    let scheme = scheme(&settings.access);
    let (progress, seen) = watch::channel(dispatcher::Progress::default());
    let announce = async {
        match dispatcher::Progress::ready(seen).await {
            Some(address) => println!("piecework is ready at {scheme}://{address}"),
            None => tracing::debug!("the dispatcher ended before it was ready"),
        }
        std::future::pending::<()>().await
    };
    tokio::select! {
        result = dispatcher::run(settings, progress, asked_to_end()?) => result.map(|()| OK).map_err(Into::into),
        () = announce => Ok(OK),
    }
}

/// Runs the autoscaler until Ctrl-C or SIGTERM.
pub(crate) async fn autoscaler(args: AutoscalerArgs) -> anyhow::Result<u8> {
    secrets::conceal()?;
    let inherited = umask::for_owner_only();
    metrics_page::serve(args.metrics_listen).await?;
    let broker = args.services.broker()?;
    let settings = autoscaler::Settings::new(named(&broker, "piecework autoscaler"));
    let shutdown = asked_to_end()?;
    if let Some(program) = args.script {
        // The script is the operator's own, and finds the variables that the autoscaler was started with.
        let environment = secrets::variables().map(|(name, value)| (name.into(), value.into())).collect();
        let provider = Command::new(CommandSettings { program, arguments: vec![], environment, timeout: SCRIPT_TIMEOUT });
        autoscaler::run(settings, provider, shutdown).await?;
        return Ok(OK);
    }
    let data = args.data.ok_or_else(|| Failure::usage("give --data or --script"))?;
    let provider = ProcessSettings {
        program: std::env::current_exe().context("this executable cannot be found")?,
        arguments: vec!["agent".into()],
        environment: vec![(umask::VARIABLE.into(), umask::format(inherited).into())],
        broker: Secret::new(broker),
        s3: args.services.s3()?.map(Secret::new),
        state: data.join("nodes"),
    };
    let provider = std::sync::Arc::new(Process::open(provider).await?);
    let result = autoscaler::run(settings, provider.clone(), shutdown).await;
    provider.stop(DRAIN_MAX).await;
    result?;
    Ok(OK)
}

fn asked_to_end() -> anyhow::Result<impl Future<Output = ()> + Send> {
    let (mut interrupts, mut terms) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupts.recv() => {}
            _ = terms.recv() => {}
        }
    })
}
