//! `piecework function …`: functions of a pool, from a folder on this machine to an answer.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use clap::{Args, Subcommand};
use contract::ids::{FunctionId, PoolId};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{
    archive,
    client::{Client, path},
    exit_codes::{FAILED, Failure, OK},
    output::{Column, Output},
    settings::ServerArgs,
};

/// How long the bytes of a package may take to the blob store.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(4 * 3600);
/// How every zip begins.
const ZIP: &[u8] = b"PK";

const COLUMNS: &[Column] = &[
    ("FUNCTION", "/id"),
    ("VERSION", "/version"),
    ("RUNTIME", "/runtime"),
    ("HANDLER", "/handler"),
    ("COMMAND", "/commandLine"),
    ("CHANGED", "/lastModified"),
];

#[derive(Debug, Subcommand)]
pub(crate) enum FunctionCommand {
    /// Deploy a function, or a new version of it
    Deploy(Box<DeployArgs>),
    /// List the functions of a pool
    List {
        #[command(flatten)]
        server: ServerArgs,
        #[arg(long)]
        pool: PoolId,
    },
    /// Show a function with its versions
    Show(Named),
    /// Delete a function
    Delete(Named),
    /// Send an event to a function and print its answer
    Invoke {
        #[command(flatten)]
        named: Named,
        /// The event; standard input when left out
        #[arg(long)]
        data: Option<String>,
        /// Do not wait for an answer
        #[arg(long = "async")]
        is_async: bool,
    },
    /// Let an earlier version take new invocations
    Rollback {
        #[command(flatten)]
        named: Named,
        /// The version's number; the one before the present one when left out
        #[arg(long)]
        to: Option<u32>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Named {
    #[command(flatten)]
    server: ServerArgs,
    /// Its name
    function: FunctionId,
    #[arg(long)]
    pool: PoolId,
}

#[derive(Debug, Args)]
pub(crate) struct DeployArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// A folder or a zip; without it the command needs what nodes have
    package: Option<PathBuf>,
    #[arg(long)]
    pool: PoolId,
    /// The function's name
    #[arg(long)]
    name: FunctionId,
    /// lambda, lines, exec or http; needed for a new function
    #[arg(long)]
    runtime: Option<String>,
    /// Such as app.handler, for runtime lambda
    #[arg(long)]
    handler: Option<String>,
    /// Starts the program
    #[arg(long)]
    command: Option<String>,
    /// Time of one invocation at most, such as PT30S
    #[arg(long)]
    timeout: Option<String>,
    /// Memory of the program at most, in MiB
    #[arg(long, value_name = "MIB")]
    memory: Option<u32>,
    /// Invocations on one node at the same time at most
    #[arg(long)]
    concurrency: Option<u32>,
    /// A variable of its environment; may be given several times
    #[arg(long = "env", value_name = "NAME=VALUE")]
    environment: Vec<String>,
    /// Programs that each node keeps started
    #[arg(long, value_name = "COUNT")]
    warm: Option<u32>,
    /// Retries of a failed invocation
    #[arg(long)]
    retries: Option<u32>,
    /// Time after which a program without invocations ends, such as PT10M
    #[arg(long, value_name = "PERIOD")]
    idle: Option<String>,
}

impl Named {
    fn path(&self, more: &[&str]) -> String {
        place(&self.pool, &[&[self.function.as_str()], more].concat())
    }
}

fn place(pool: &PoolId, more: &[&str]) -> String {
    path(&[&["piecework", "pools", pool.as_str(), "functions"], more].concat())
}

pub(crate) async fn run(command: FunctionCommand, out: &dyn Output) -> anyhow::Result<u8> {
    match command {
        FunctionCommand::Deploy(args) => deploy(*args, out).await?,
        FunctionCommand::List { server, pool } => {
            out.list(COLUMNS, &server.open()?.client.list::<Value>(&place(&pool, &[]), &[]).await?)?;
        }
        FunctionCommand::Show(named) => out.one(&named.server.open()?.client.get(&named.path(&[]), &[]).await?)?,
        FunctionCommand::Delete(named) => {
            named.server.open()?.client.delete(&named.path(&[])).await?;
            out.done(&format!("function {} deleted", named.function))?;
        }
        FunctionCommand::Invoke { named, data, is_async } => return invoke(&named, data, is_async, out).await,
        FunctionCommand::Rollback { named, to } => rollback(&named, to, out).await?,
    }
    Ok(OK)
}

async fn deploy(args: DeployArgs, out: &dyn Output) -> anyhow::Result<()> {
    let client = args.server.open()?.client;
    let mut settings = settings(&args)?;
    if let Some(package) = &args.package {
        settings.insert("package".to_owned(), upload(&client, package.clone()).await?.into());
    }
    let at = place(&args.pool, &[args.name.as_str()]);
    let answer = match client.get::<Value>(&at, &[]).await {
        Ok(_) => client.patch(&at, &Value::Object(settings)).await?,
        Err(error) if error.is("FunctionNotFound") => {
            settings.insert("id".to_owned(), args.name.as_str().into());
            client.post(&place(&args.pool, &[]), Some(&Value::Object(settings))).await?
        }
        Err(error) => return Err(error.into()),
    };
    let function: Value = serde_json::from_slice(&answer)?;
    out.done(&format!("version {} of {} takes new invocations", function["version"], args.name))?;
    out.summary(&function)?;
    Ok(())
}

/// The given properties of a version.
fn settings(args: &DeployArgs) -> anyhow::Result<Map<String, Value>> {
    let mut settings = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            settings.insert(name.to_owned(), value);
        }
    };
    set("runtime", args.runtime.clone().map(Value::from));
    set("handler", args.handler.clone().map(Value::from));
    set("commandLine", args.command.clone().map(Value::from));
    set("timeout", args.timeout.clone().map(Value::from));
    set("idleTime", args.idle.clone().map(Value::from));
    set("memoryMiB", args.memory.map(Value::from));
    set("concurrencyPerNode", args.concurrency.map(Value::from));
    set("warmInstances", args.warm.map(Value::from));
    set("maxRetryCount", args.retries.map(Value::from));
    let mut variables = Vec::new();
    for variable in &args.environment {
        let (name, value) = variable.split_once('=').ok_or_else(|| Failure::usage(format!("--env {variable} is not NAME=VALUE")))?;
        variables.push(json!({"name": name, "value": value}));
    }
    set("environmentSettings", (!variables.is_empty()).then_some(Value::Array(variables)));
    Ok(settings)
}

/// Uploads a package unless the server has it; returns its hash.
async fn upload(client: &Client, package: PathBuf) -> anyhow::Result<String> {
    let zip = tokio::task::spawn_blocking(move || read(&package)).await??;
    let hash: String = Sha256::digest(&zip).iter().map(|byte| format!("{byte:02x}")).collect();
    let begun: Value = serde_json::from_slice(&client.put(&path(&["piecework", "functionpackages", &hash]), &json!({})).await?)?;
    if let Some(url) = begun["uploadUrl"].as_str() {
        let length = zip.len() as u64;
        client.upload_body(url, zip.into(), length, UPLOAD_TIMEOUT).await?;
    }
    Ok(hash)
}

fn read(package: &PathBuf) -> anyhow::Result<Vec<u8>> {
    if package.is_dir() {
        return archive::of_folder(package);
    }
    let shown = package.display();
    let bytes = std::fs::read(package).map_err(|error| Failure::usage(format!("cannot read {shown}: {error}")))?;
    if !bytes.starts_with(ZIP) {
        return Err(Failure::usage(format!("{shown} is neither a folder nor a zip")).into());
    }
    Ok(bytes)
}

async fn invoke(named: &Named, data: Option<String>, is_async: bool, out: &dyn Output) -> anyhow::Result<u8> {
    let event = match data {
        Some(data) => Bytes::from(data),
        None => Bytes::from(
            tokio::task::spawn_blocking(|| {
                let mut event = Vec::new();
                std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut event).map(|_| event)
            })
            .await??,
        ),
    };
    let client = named.server.open()?.client;
    if is_async {
        let (answer, _) = client.invoke(&named.path(&["invoke-async"]), event).await?;
        let answer: Value = serde_json::from_slice(&answer)?;
        out.done(&format!("sent as {}", answer["messageId"].as_str().unwrap_or_default()))?;
        out.summary(&answer)?;
        return Ok(OK);
    }
    let (mut answer, headers) = client.invoke(&named.path(&["invoke"]), event).await?;
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(url) = header(contract::function::header::BLOB_URL) {
        answer = client.download(url).await?;
    }
    let is_error = header(contract::function::header::STATUS) == Some("error");
    std::io::Write::write_all(&mut std::io::stdout().lock(), &answer)?;
    if is_error {
        let code = header(contract::function::header::ERROR).unwrap_or("FunctionError");
        eprintln!("\nerror: the function failed ({code})");
        return Ok(FAILED);
    }
    Ok(OK)
}

async fn rollback(named: &Named, to: Option<u32>, out: &dyn Output) -> anyhow::Result<()> {
    let client = named.server.open()?.client;
    let to = match to {
        Some(to) => to,
        None => {
            let function: Value = client.get(&named.path(&[]), &[]).await?;
            before(&function).ok_or_else(|| Failure::usage(format!("{} has no version before the present one", named.function)))?
        }
    };
    let answer: Value = serde_json::from_slice(&client.patch(&named.path(&[]), &json!({"version": to})).await?)?;
    out.done(&format!("version {} of {} takes new invocations", answer["version"], named.function))?;
    out.summary(&answer)?;
    Ok(())
}

/// The version before the present one.
fn before(function: &Value) -> Option<u32> {
    let present = function["version"].as_u64()?;
    let versions = function["versions"].as_array()?.iter().filter_map(|version| version["version"].as_u64());
    versions.filter(|number| *number < present).max().and_then(|number| u32::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollback_goes_to_the_version_before() {
        let function = json!({"version": 4, "versions": [{"version": 1}, {"version": 3}, {"version": 4}, {"version": 5}]});
        assert_eq!(before(&function), Some(3));
        assert_eq!(before(&json!({"version": 1, "versions": [{"version": 1}]})), None);
    }
}
