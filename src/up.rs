//! `piecework up`: starts the stack, prints how to use it, keeps it until Ctrl-C.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use broker_config::settings::Secret;
use clap::Args;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    access::AccessArgs,
    broker_admin::BrokerAdminArgs,
    exit_codes::Failure,
    output::Output,
    settings::{ServiceArgs, parse_s3},
    shared_key::SharedKey,
    stack::{Stack, StackSettings},
    umask,
};

/// Time that agents get to return their tasks to the queue; the whole stop takes less than ten seconds.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Starts everything on this machine and keeps it until Ctrl-C
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// The folder that keeps everything
    #[arg(long, value_name = "DIR", env = "PIECEWORK_DATA", default_value = "piecework-data")]
    data: PathBuf,
    /// Where the API listens; port 0 takes a free one
    #[arg(long, value_name = "ADDR", env = "PIECEWORK_LISTEN", default_value = "127.0.0.1:7373")]
    listen: SocketAddr,
    /// Where metrics are served for Prometheus, instead of at /metrics of the API
    #[arg(long, value_name = "ADDR", env = "PIECEWORK_METRICS_LISTEN")]
    metrics_listen: Option<SocketAddr>,
    /// The account's name; made once and kept in the data folder
    #[arg(long, value_name = "NAME", env = "PIECEWORK_ACCOUNT")]
    account: Option<String>,
    /// The account's key; made once and kept in the data folder
    #[arg(long, value_name = "BASE64", env = "PIECEWORK_KEY", hide_env_values = true)]
    key: Option<String>,
    #[command(flatten)]
    services: ServiceArgs,
    #[command(flatten)]
    broker_admin: BrokerAdminArgs,
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

/// Runs until Ctrl-C or SIGTERM; a Ctrl-C after that stops at once.
pub(crate) async fn run(args: UpArgs, out: &dyn Output) -> anyhow::Result<u8> {
    let (mut interrupts, mut terms) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let settings = StackSettings {
        data: args.data,
        listen: Some(args.listen),
        metrics_listen: args.metrics_listen,
        account: args.account,
        key: checked_key(args.access.first_key()?.or(args.key))?,
        broker: args.services.given_broker()?,
        broker_admin: args.broker_admin.given()?,
        blobs: args.services.given_s3()?.as_deref().map(parse_s3).transpose()?,
        store: args.store.as_deref().map(parse_store).transpose()?,
        ready_file: args.ready_file,
        public_url: args.public_url,
        access: args.access.access(),
        task_umask: Some(umask::for_owner_only()),
    };
    let interrupted = async {
        tokio::select! {
            _ = interrupts.recv() => {}
            _ = terms.recv() => {}
        }
    };
    let Some(mut stack) = Stack::start(settings, interrupted).await? else { return Ok(crate::exit_codes::INTERRUPTED) };
    announce(&stack, out)?;
    let failed = tokio::select! {
        reason = stack.ended() => Some(reason),
        _ = interrupts.recv() => None,
        _ = terms.recv() => None,
    };
    match &failed {
        Some(reason) => tracing::error!(reason = format!("{reason:#}"), "stopping; running tasks go back to the queue"),
        None => eprintln!("stopping; running tasks go back to the queue (Ctrl-C again stops at once)"),
    }
    tokio::select! {
        () = stack.stop(DRAIN_MAX) => {}
        // The agents' stdin closes with this process, and their guardians kill their tasks.
        _ = interrupts.recv() => return Ok(crate::exit_codes::INTERRUPTED),
    }
    failed.map_or(Ok(crate::exit_codes::OK), Err)
}

fn announce(stack: &Stack, out: &dyn Output) -> anyhow::Result<()> {
    let ready = &stack.ready;
    eprintln!("account {}; its key is `key` in {}, which only you may read", ready.account, stack.secrets_file().display());
    eprintln!("use it from another terminal:");
    eprintln!("  export PIECEWORK_SERVER={}", stack.ready_files[0].display());
    eprintln!("  piecework run -- echo hello");
    eprintln!("an Azure Batch client takes the URL as its endpoint, and the account and key as its shared key");
    // Programs read the secrets from the ready file: stdout often ends in a log.
    let printed = json!({ "url": ready.url, "account": ready.account, "ready_file": stack.ready_files[0] });
    out.ready(&format!("piecework is ready at {}", ready.url), &printed)?;
    Ok(())
}

/// Refuses a key that no part could use, before the data folder keeps it.
fn checked_key(key: Option<String>) -> anyhow::Result<Option<String>> {
    match key {
        Some(key) if SharedKey::parse("", &Secret::new(key.clone())).is_none() => {
            Err(Failure::usage("the account key is not base64; `openssl rand -base64 64` prints one that is").into())
        }
        key => Ok(key),
    }
}

fn parse_store(text: &str) -> anyhow::Result<PathBuf> {
    match text.strip_prefix("sqlite:") {
        Some(folder) if !folder.is_empty() => Ok(PathBuf::from(folder.strip_prefix("//").unwrap_or(folder))),
        _ => Err(Failure::usage(format!("--store {text:?} is not sqlite:DIR; other stores are not served yet")).into()),
    }
}
