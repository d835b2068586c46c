//! `piecework agent`, `dispatcher`, `autoscaler`: each part alone, by flags and `PIECEWORK_…` variables.

use std::{ffi::OsString, fs, io::Read, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context;
use autoscaler::{Command, CommandSettings, Process, ProcessSettings};
use broker_config::{
    ids::{NodeId, PoolId},
    settings::Secret,
};
use clap::Args;
use node_agent::Ending;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{oneshot, watch},
};

use crate::{
    access::{AccessArgs, scheme},
    exit_codes::{Failure, OK},
    settings::{S3_HELP, broker_url, parse_s3, s3_url},
    stack::{BEAT_MS, named},
};

/// A provider script must end within this time.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(120);
/// Agents get this long to drain when their autoscaler ends.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// With less free space than this a node takes no tasks.
const FILE_RESERVE_BYTES: u64 = 256 * 1024 * 1024;
/// An agent whose leash was cut ends within this time, or is left to its guardian.
const LEASH_MAX: Duration = Duration::from_secs(3);

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
    #[arg(long, value_name = "FILE", env = "PIECEWORK_TOKEN_FILE")]
    token_file: PathBuf,
    /// The node's root folder
    #[arg(long, value_name = "DIR", env = "PIECEWORK_ROOT")]
    root: PathBuf,
    /// The broker, as amqp://USER:PASSWORD@HOST:PORT/VHOST
    #[arg(long, value_name = "URL", env = "PIECEWORK_BROKER", hide_env_values = true)]
    broker: Option<String>,
    #[arg(long, value_name = "URL", env = "PIECEWORK_S3", hide_env_values = true, help = S3_HELP)]
    s3: Option<String>,
    /// The address other nodes reach this one at
    #[arg(long, default_value = "127.0.0.1")]
    address: String,
    /// How much tasks stand back for other processes
    #[arg(long, value_name = "NICE", env = "PIECEWORK_TASK_NICE")]
    task_nice: Option<i32>,
    /// End when stdin closes
    #[arg(long)]
    leash: bool,
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
    /// The broker, as amqp://USER:PASSWORD@HOST:PORT/VHOST
    #[arg(long, value_name = "URL", env = "PIECEWORK_BROKER", hide_env_values = true)]
    broker: Option<String>,
    #[arg(long, value_name = "URL", env = "PIECEWORK_S3", hide_env_values = true, help = S3_HELP)]
    s3: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
}

/// Runs the autoscaler
#[derive(Debug, Args)]
pub(crate) struct AutoscalerArgs {
    /// The broker, as amqp://USER:PASSWORD@HOST:PORT/VHOST
    #[arg(long, value_name = "URL", env = "PIECEWORK_BROKER", hide_env_values = true)]
    broker: Option<String>,
    #[arg(long, value_name = "URL", env = "PIECEWORK_S3", hide_env_values = true, help = S3_HELP)]
    s3: Option<String>,
    /// Makes nodes as processes of this machine, below this folder
    #[arg(long, value_name = "DIR", env = "PIECEWORK_DATA", required_unless_present = "script")]
    data: Option<PathBuf>,
    /// Makes nodes by this program: SCRIPT create|delete POOL NODE (the token on stdin), SCRIPT list
    #[arg(long, value_name = "PROGRAM", conflicts_with = "data")]
    script: Option<PathBuf>,
}

/// Runs an agent until it is told to leave, its leash closes, or SIGTERM.
pub(crate) async fn agent(args: AgentArgs) -> anyhow::Result<u8> {
    let token = fs::read_to_string(&args.token_file).with_context(|| format!("cannot read {}", args.token_file.display()))?;
    let guardian = vec![std::env::current_exe().context("this executable cannot be found")?.into_os_string(), OsString::from("guardian")];
    let settings = node_agent::Settings {
        broker: named(&broker_url(args.broker)?, &format!("piecework agent {}/{}", args.pool, args.node)),
        blobs: s3_url(args.s3)?.as_deref().map(parse_s3).transpose()?,
        pool: args.pool,
        node: args.node,
        token: Secret::new(token.trim()),
        root: args.root,
        address: args.address,
        guardian,
        nice: args.task_nice,
        file_reserve_bytes: FILE_RESERVE_BYTES,
    };
    let (mut interrupts, mut terms) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut leash = if args.leash { Some(hold_leash()?) } else { None };
    let (order, ordered) = oneshot::channel();
    let shutdown = async move { ordered.await.unwrap_or(Ending::Now) };
    let mut running = std::pin::pin!(node_agent::run(settings, shutdown));
    let is_cut = tokio::select! {
        result = &mut running => return result.map(|()| OK).map_err(Into::into),
        () = cut(&mut leash) => true,
        _ = interrupts.recv() => false,
        _ = terms.recv() => false,
    };
    if order.send(if is_cut { Ending::Now } else { Ending::Drain }).is_err() {
        tracing::debug!("the agent ends already");
    }
    let give_up = async {
        if !is_cut {
            tokio::select! {
                () = cut(&mut leash) => return,
                _ = interrupts.recv() => return,
                _ = terms.recv() => return,
            }
        }
        tokio::time::sleep(LEASH_MAX).await;
    };
    tokio::select! {
        result = running => result.map(|()| OK).map_err(Into::into),
        // The guardian ends what is left.
        () = give_up => Ok(OK),
    }
}

/// Watches stdin from a thread of its own: a pipe that nobody writes to is not worth an entry in the reactor.
fn hold_leash() -> anyhow::Result<watch::Receiver<bool>> {
    let (tell, told) = watch::channel(false);
    std::thread::Builder::new().name("leash".to_owned()).stack_size(64 * 1024).spawn(move || {
        let (mut stdin, mut buffer) = (std::io::stdin().lock(), [0u8; 64]);
        while matches!(stdin.read(&mut buffer), Ok(count) if count > 0) {}
        tell.send_replace(true);
    })?;
    Ok(told)
}

async fn cut(leash: &mut Option<watch::Receiver<bool>>) {
    match leash {
        Some(leash) => {
            if leash.wait_for(|cut| *cut).await.is_err() {
                tracing::debug!("the leash's thread ended, which only happens when it was cut");
            }
        }
        None => std::future::pending().await,
    }
}

/// Runs the dispatcher until Ctrl-C or SIGTERM.
pub(crate) async fn dispatcher(args: DispatcherArgs) -> anyhow::Result<u8> {
    let settings = dispatcher::Settings {
        listen: args.listen,
        public_url: args.public_url,
        data: args.data,
        account: args.account,
        keys: args.key.into_iter().map(Secret::new).collect(),
        broker: named(&broker_url(args.broker)?, "piecework dispatcher"),
        blobs: parse_s3(
            &s3_url(args.s3)?.ok_or_else(|| Failure::usage("no blob store is given: --s3, PIECEWORK_S3, or `s3` in the settings file"))?,
        )?,
        join_secret: None,
        timers: Default::default(),
        beat_ms: BEAT_MS,
        access: args.access.access(),
    };
    let scheme = scheme(&settings.access);
    let (ready, is_ready) = oneshot::channel();
    let announce = async {
        match is_ready.await {
            Ok(address) => println!("piecework is ready at {scheme}://{address}"),
            Err(_) => tracing::debug!("the dispatcher ended before it was ready"),
        }
        std::future::pending::<()>().await
    };
    tokio::select! {
        result = dispatcher::run(settings, ready, asked_to_end()?) => result.map(|()| OK).map_err(Into::into),
        () = announce => Ok(OK),
    }
}

/// Runs the autoscaler until Ctrl-C or SIGTERM.
pub(crate) async fn autoscaler(args: AutoscalerArgs) -> anyhow::Result<u8> {
    let broker = broker_url(args.broker)?;
    let settings = autoscaler::Settings::new(named(&broker, "piecework autoscaler"));
    let shutdown = asked_to_end()?;
    if let Some(program) = args.script {
        let provider = Command::new(CommandSettings { program, arguments: vec![], timeout: SCRIPT_TIMEOUT });
        autoscaler::run(settings, provider, shutdown).await?;
        return Ok(OK);
    }
    let data = args.data.ok_or_else(|| Failure::usage("give --data or --script"))?;
    let mut environment: Vec<(OsString, OsString)> = vec![("PIECEWORK_BROKER".into(), broker.into())];
    environment.extend(s3_url(args.s3)?.map(|s3| ("PIECEWORK_S3".into(), s3.into())));
    let program = std::env::current_exe().context("this executable cannot be found")?;
    let provider = ProcessSettings { program, arguments: vec!["agent".into()], environment, state: data.join("nodes") };
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
