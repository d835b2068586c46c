//! The `command` provider: the user's own script makes the nodes.
//!
//! `SCRIPT create POOL NODE` reads the join token from its stdin, `SCRIPT list` prints `POOL NODE` lines of what
//! exists, with `stopped` behind those that were stopped, `SCRIPT delete POOL NODE` removes. `SCRIPT stop POOL NODE`
//! and `SCRIPT start POOL NODE` are asked for only when somebody deallocates a node.
//! Each may be called again for the same node and must then succeed.

use std::{
    ffi::OsString,
    io,
    path::PathBuf,
    process::{Output, Stdio},
    time::Duration,
};

use async_trait::async_trait;
use contract::{
    ids::{NodeId, PoolId},
    message::NodeTicket,
};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::{
    error::ProviderError,
    provider::{Instance, NodeProvider},
};

/// Bytes of a failed script's stderr that its error keeps.
const STDERR_BYTES_MAX: usize = 512;
/// A script that prints more than this to stdout or stderr is ended.
const OUTPUT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Settings of the `command` provider.
#[derive(Debug, Clone)]
pub struct CommandSettings {
    pub program: PathBuf,
    /// Arguments before the verb.
    pub arguments: Vec<OsString>,
    /// Variables added to the script's environment.
    pub environment: Vec<(OsString, OsString)>,
    /// A call that takes longer is given up, and its processes are killed.
    pub timeout: Duration,
}

/// Makes nodes by the user's own script.
#[derive(Debug)]
pub struct Command {
    settings: CommandSettings,
}

impl Command {
    /// Makes the provider; the script is not called yet.
    pub fn new(settings: CommandSettings) -> Command {
        Command { settings }
    }

    async fn call(&self, verb: &'static str, arguments: &[&str], stdin: &str) -> Result<String, ProviderError> {
        let run = async {
            let mut child = tokio::process::Command::new(&self.settings.program)
                .args(&self.settings.arguments)
                .arg(verb)
                .args(arguments)
                .envs(self.settings.environment.iter().map(|(name, value)| (name, value)))
                .process_group(0)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            let group = Group(child.id().and_then(|pid| Pid::from_raw(pid as i32)));
            if let Some(mut pipe) = child.stdin.take() {
                match pipe.write_all(stdin.as_bytes()).await {
                    // A script that ignores the token may end before it has read it.
                    Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                    _ => {}
                }
            }
            let (stdout, stderr) = tokio::try_join!(read(child.stdout.take()), read(child.stderr.take()))?;
            let status = child.wait().await?;
            group.leave();
            Ok(Output { status, stdout, stderr })
        };
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no end within {:?}", self.settings.timeout));
        let output = tokio::time::timeout(self.settings.timeout, run).await.unwrap_or_else(|_| Err(late()));
        let output = output.map_err(|source| ProviderError::ScriptRun { verb, source })?;
        if !output.status.success() {
            let start = output.stderr.len().saturating_sub(STDERR_BYTES_MAX);
            let stderr = String::from_utf8_lossy(&output.stderr[start..]).trim().to_owned();
            return Err(ProviderError::Script { verb, status: output.status.to_string(), stderr });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// A script's process group, which is killed on drop unless [`Group::leave`] was called.
struct Group(Option<Pid>);

impl Group {
    /// Keeps the group alive: the script has ended in time, and its background processes are meant to stay.
    fn leave(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.map(|group| kill_process_group(group, Signal::KILL)) {
            tracing::debug!(%error, "a provider script has ended before it could be killed");
        }
    }
}

/// Reads a pipe to its end.
async fn read(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![];
    if let Some(pipe) = pipe {
        pipe.take(OUTPUT_BYTES_MAX + 1).read_to_end(&mut bytes).await?;
    }
    if bytes.len() as u64 > OUTPUT_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it printed more than {OUTPUT_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

#[async_trait]
impl NodeProvider for Command {
    async fn create(&self, pool: &PoolId, ticket: &NodeTicket) -> Result<(), ProviderError> {
        self.call("create", &[pool.as_str(), ticket.node.as_str()], &ticket.token).await.map(drop)
    }

    async fn list(&self) -> Result<Vec<Instance>, ProviderError> {
        let text = self.call("list", &[], "").await?;
        let instance = |line: &str| {
            let mut words = line.split_ascii_whitespace();
            let (pool, node, more) = (words.next()?, words.next()?, words.next());
            let is_stopped = more == Some("stopped");
            let is_known = words.next().is_none() && (is_stopped || more.is_none());
            is_known.then_some(Instance { pool: pool.parse().ok()?, node: node.parse().ok()?, is_running: !is_stopped, is_stopped })
        };
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        lines.map(|line| instance(line).ok_or_else(|| ProviderError::ScriptLine { line: line.chars().take(120).collect() })).collect()
    }

    async fn stop(&self, pool: &PoolId, node: &NodeId) -> Result<(), ProviderError> {
        self.call("stop", &[pool.as_str(), node.as_str()], "").await.map(drop)
    }

    async fn start(&self, pool: &PoolId, node: &NodeId) -> Result<(), ProviderError> {
        self.call("start", &[pool.as_str(), node.as_str()], "").await.map(drop)
    }

    async fn delete(&self, pool: &PoolId, node: &NodeId) -> Result<(), ProviderError> {
        self.call("delete", &[pool.as_str(), node.as_str()], "").await.map(drop)
    }
}
