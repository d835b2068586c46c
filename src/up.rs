//! `piecework up`: starts the stack, says how to use it, keeps it until Ctrl-C.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    access::AccessArgs,
    exit_codes::Failure,
    output::Output,
    settings::{S3_HELP, parse_s3},
    stack::{Stack, StackSettings},
};

/// Agents get this long to give back what they run.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Starts everything on this machine and keeps it until Ctrl-C
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// The folder that keeps everything
    #[arg(long, value_name = "DIR", env = "PIECEWORK_DATA", default_value = "piecework-data")]
    data: PathBuf,
    /// Where the API listens; port 0 takes a free one
    #[arg(long, value_name = "ADDR", env = "PIECEWORK_LISTEN", default_value = "127.0.0.1:7373")]
    listen: SocketAddr,
    /// The account's name; made once and kept in the data folder
    #[arg(long, value_name = "NAME", env = "PIECEWORK_ACCOUNT")]
    account: Option<String>,
    /// The account's key; made once and kept in the data folder
    #[arg(long, value_name = "BASE64", env = "PIECEWORK_KEY", hide_env_values = true)]
    key: Option<String>,
    /// A broker to use instead of the embedded one, as amqp://USER:PASSWORD@HOST:PORT/VHOST
    #[arg(long, value_name = "URL", env = "PIECEWORK_BROKER", hide_env_values = true)]
    broker: Option<String>,
    #[arg(long, value_name = "URL", env = "PIECEWORK_S3", hide_env_values = true, help = S3_HELP)]
    s3: Option<String>,
    /// Where the dispatcher keeps its state, as sqlite:DIR; in the data folder when absent
    #[arg(long, value_name = "URL", env = "PIECEWORK_STORE")]
    store: Option<String>,
    /// The URL that people and nodes are told, when it is not the address
    #[arg(long, value_name = "URL", env = "PIECEWORK_PUBLIC_URL")]
    public_url: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
    /// Written once a task could run: JSON with url, account, key, broker and s3
    #[arg(long, value_name = "FILE", env = "PIECEWORK_READY_FILE")]
    ready_file: Option<PathBuf>,
}

/// Runs until Ctrl-C or SIGTERM; a second one stops at once.
pub(crate) async fn run(args: UpArgs, out: &dyn Output) -> anyhow::Result<u8> {
    let (mut interrupts, mut terms) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let settings = StackSettings {
        data: args.data,
        listen: Some(args.listen),
        account: args.account,
        key: args.access.first_key()?.or(args.key),
        broker: args.broker,
        blobs: args.s3.as_deref().map(parse_s3).transpose()?,
        store: args.store.as_deref().map(parse_store).transpose()?,
        ready_file: args.ready_file,
        public_url: args.public_url,
        access: args.access.access(),
    };
    let mut stack = tokio::select! {
        stack = Stack::start(settings) => stack?,
        _ = interrupts.recv() => return Ok(crate::exit_codes::INTERRUPTED),
        _ = terms.recv() => return Ok(crate::exit_codes::INTERRUPTED),
    };
    announce(&stack, out)?;
    let failed = tokio::select! {
        reason = stack.ended() => Some(reason),
        _ = interrupts.recv() => None,
        _ = terms.recv() => None,
    };
    if failed.is_none() {
        eprintln!("stopping; running tasks go back to the queue (Ctrl-C again stops at once)");
    }
    tokio::select! {
        () = stack.stop(DRAIN_MAX) => {}
        // The agents' leashes close with this process, and their guardians end what they ran.
        _ = interrupts.recv() => return Ok(crate::exit_codes::INTERRUPTED),
    }
    failed.map_or(Ok(crate::exit_codes::OK), Err)
}

fn announce(stack: &Stack, out: &dyn Output) -> anyhow::Result<()> {
    let ready = &stack.ready;
    eprintln!("account {}, key {}", ready.account, ready.key);
    eprintln!("use it from another terminal:");
    eprintln!("  export PIECEWORK_SERVER={}", stack.ready_files[0].display());
    eprintln!("  piecework run -- echo hello");
    eprintln!("an Azure Batch client takes the URL as its endpoint, and the account and key as its shared key");
    out.ready(&format!("piecework is ready at {}", ready.url), &serde_json::to_value(ready)?)?;
    Ok(())
}

fn parse_store(text: &str) -> anyhow::Result<PathBuf> {
    match text.strip_prefix("sqlite:") {
        Some(folder) if !folder.is_empty() => Ok(PathBuf::from(folder.strip_prefix("//").unwrap_or(folder))),
        _ => Err(Failure::usage(format!("--store {text:?} is not sqlite:DIR; other stores are not served yet")).into()),
    }
}
