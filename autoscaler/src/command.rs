//! The `command` provider: the user's own script makes the nodes.
//!
//! `SCRIPT create POOL NODE` reads the join token from its stdin, `SCRIPT list` prints `POOL NODE` lines of what
//! exists, with `stopped` behind those that were stopped, `SCRIPT delete POOL NODE` removes. `SCRIPT stop POOL NODE`
//! and `SCRIPT start POOL NODE` are asked for only when somebody deallocates a node.
//! Each may be called again for the same node and must then succeed.

use std::{ffi::OsString, io, path::PathBuf, process::Stdio, time::Duration};

use async_trait::async_trait;
use broker_config::{
    ids::{NodeId, PoolId},
    message::NodeTicket,
};
use tokio::io::AsyncWriteExt;

use crate::{
    Error,
    provider::{Instance, NodeProvider},
};

/// What is kept of a failed script's stderr.
const STDERR_BYTES_MAX: usize = 512;

/// How the script is called.
#[derive(Debug, Clone)]
pub struct CommandSettings {
    /// The script.
    pub program: PathBuf,
    /// Arguments before the verb.
    pub arguments: Vec<OsString>,
    /// A call is given up and its process killed after this long.
    pub timeout: Duration,
}

/// Nodes by the user's own script.
#[derive(Debug)]
pub struct Command {
    settings: CommandSettings,
}

impl Command {
    /// Uses a script.
    pub fn new(settings: CommandSettings) -> Command {
        Command { settings }
    }

    async fn call(&self, verb: &'static str, arguments: &[&str], stdin: &str) -> Result<String, Error> {
        let run = async {
            let mut child = tokio::process::Command::new(&self.settings.program)
                .args(&self.settings.arguments)
                .arg(verb)
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .spawn()?;
            if let Some(mut pipe) = child.stdin.take() {
                match pipe.write_all(stdin.as_bytes()).await {
                    // A script that does not want the token may end before it has read it.
                    Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                    _ => {}
                }
            }
            child.wait_with_output().await
        };
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no end within {:?}", self.settings.timeout));
        let output = tokio::time::timeout(self.settings.timeout, run).await.unwrap_or_else(|_| Err(late()));
        let output = output.map_err(|source| Error::ScriptRun { verb, source })?;
        if !output.status.success() {
            let start = output.stderr.len().saturating_sub(STDERR_BYTES_MAX);
            let stderr = String::from_utf8_lossy(&output.stderr[start..]).trim().to_owned();
            return Err(Error::Script { verb, status: output.status.to_string(), stderr });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

#[async_trait]
impl NodeProvider for Command {
    async fn create(&self, pool: &PoolId, ticket: &NodeTicket) -> Result<(), Error> {
        self.call("create", &[pool.as_str(), ticket.node.as_str()], &ticket.token).await.map(drop)
    }

    async fn list(&self) -> Result<Vec<Instance>, Error> {
        let text = self.call("list", &[], "").await?;
        let instance = |line: &str| {
            let mut words = line.split_ascii_whitespace();
            let (pool, node, more) = (words.next()?, words.next()?, words.next());
            let is_stopped = more == Some("stopped");
            let is_known = words.next().is_none() && (is_stopped || more.is_none());
            is_known.then_some(Instance { pool: pool.parse().ok()?, node: node.parse().ok()?, is_running: !is_stopped, is_stopped })
        };
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        lines.map(|line| instance(line).ok_or_else(|| Error::ScriptLine { line: line.chars().take(120).collect() })).collect()
    }

    async fn stop(&self, pool: &PoolId, node: &NodeId) -> Result<(), Error> {
        self.call("stop", &[pool.as_str(), node.as_str()], "").await.map(drop)
    }

    async fn start(&self, pool: &PoolId, node: &NodeId) -> Result<(), Error> {
        self.call("start", &[pool.as_str(), node.as_str()], "").await.map(drop)
    }

    async fn delete(&self, pool: &PoolId, node: &NodeId) -> Result<(), Error> {
        self.call("delete", &[pool.as_str(), node.as_str()], "").await.map(drop)
    }
}
