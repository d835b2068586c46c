//! What the `process` provider keeps of each node, so that a new start finds what the last one left.
//!
//! ```text
//! STATE/POOL/NODE/   node.json   names, and the agent's process with its start time     (version 1)
//!                    token       what the agent joins with, mode 0600
//!                    agent.log   the agent's stderr
//!                    root/       the node's own folder
//! ```
//! A record of another version is an error: the folder is then left as it is.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use broker_config::ids::{NodeId, PoolId};
use serde::{Deserialize, Serialize};

use crate::Error;

const VERSION: u32 = 1;
const FILE: &str = "node.json";

/// A node's folder.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

/// What `node.json` holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    v: u32,
    pub(crate) pool: PoolId,
    pub(crate) node: NodeId,
    pub(crate) agent: Option<Running>,
    /// Whether its agent shall not run.
    #[serde(default)]
    pub(crate) is_stopped: bool,
}

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    pub(crate) pid: i32,
    /// Clock ticks after boot, and which boot.
    started: u64,
    boot: String,
}

impl Running {
    /// The process as it is now, if there is one.
    pub(crate) fn of(pid: i32) -> Option<Running> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?;
        let started = fields.nth(18)?.parse().ok()?;
        (state != "Z").then(|| Running { pid, started, boot: boot.trim().to_owned() })
    }

    /// Whether this very process still runs.
    pub(crate) fn is_alive(&self) -> bool {
        Running::of(self.pid).as_ref() == Some(self)
    }
}

impl Folder {
    pub(crate) fn of(state: &Path, pool: &PoolId, node: &NodeId) -> Folder {
        Folder(state.join(pool.as_str().to_ascii_lowercase()).join(node.as_str().to_ascii_lowercase()))
    }

    pub(crate) fn token(&self) -> PathBuf {
        self.0.join("token")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("agent.log")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    /// Makes the folder and puts the token into it.
    pub(crate) fn create(&self, pool: &PoolId, node: &NodeId, token: &str) -> Result<(), Error> {
        fs::create_dir_all(self.root()).map_err(|source| self.error(source))?;
        self.replace("token", token.as_bytes())?;
        self.write(pool, node, None)
    }

    /// Notes the agent's process.
    pub(crate) fn write(&self, pool: &PoolId, node: &NodeId, agent: Option<Running>) -> Result<(), Error> {
        self.put(&Record { v: VERSION, pool: pool.clone(), node: node.clone(), agent, is_stopped: false })
    }

    /// Notes that the agent shall not run; the process is still noted, so that a next start can end it.
    pub(crate) fn stop(&self) -> Result<(), Error> {
        let failed = |source| Error::State { path: self.0.join(FILE), source };
        let text = fs::read(self.0.join(FILE)).map_err(failed)?;
        let record: Record = serde_json::from_slice(&text).map_err(|error| failed(error.into()))?;
        self.put(&Record { is_stopped: true, ..record })
    }

    fn put(&self, record: &Record) -> Result<(), Error> {
        let bytes = serde_json::to_vec(record).map_err(|error| self.error(error.into()))?;
        self.replace(FILE, &bytes)
    }

    /// Removes the folder and everything below.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.0) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(self.error(source)),
            _ => Ok(()),
        }
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let (path, temporary) = (self.0.join(name), self.0.join(format!("{name}.new")));
        let write = || {
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            file.write_all(bytes)?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|source| Error::State { path: path.clone(), source })
    }

    fn error(&self, source: io::Error) -> Error {
        Error::State { path: self.0.clone(), source }
    }
}

/// Every node that has a record below `state`; a folder without one was cut off while it was made, and is removed.
pub(crate) fn all(state: &Path) -> Result<Vec<Record>, Error> {
    let mut records = vec![];
    for pool in folders(state)? {
        for node in folders(&pool)? {
            let path = node.join(FILE);
            let failed = |source| Error::State { path: path.clone(), source };
            let text = match fs::read(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Folder(node).remove()?;
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            let record: Record = serde_json::from_slice(&text).map_err(|error| failed(error.into()))?;
            if record.v != VERSION {
                return Err(failed(io::Error::new(io::ErrorKind::InvalidData, format!("record has version {}", record.v))));
            }
            records.push(record);
        }
    }
    Ok(records)
}

fn folders(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::State { path: path.to_owned(), source };
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries.map_err(failed)?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    Ok(paths.into_iter().filter(|path| path.is_dir()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_number() {
        let me = Running::of(std::process::id() as i32).unwrap();
        assert!(me.is_alive());
        assert!(!Running { started: me.started + 1, ..me.clone() }.is_alive());
        assert!(!Running { boot: "another".into(), ..me }.is_alive());
    }

    #[test]
    fn records_survive_and_half_made_folders_do_not() {
        let state = tempfile::tempdir().unwrap();
        let (pool, node): (PoolId, NodeId) = ("P".parse().unwrap(), "N".parse().unwrap());
        Folder::of(state.path(), &pool, &node).create(&pool, &node, "secret").unwrap();
        fs::create_dir_all(state.path().join("p/half")).unwrap();
        let records = all(state.path()).unwrap();
        assert_eq!(records.len(), 1);
        assert_eq!((records[0].pool.as_str(), records[0].node.as_str()), ("P", "N"));
        assert!(!state.path().join("p/half").exists());
    }
}
