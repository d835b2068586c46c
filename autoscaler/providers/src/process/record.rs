//! Records of the `process` provider's nodes on disk, from which a new start continues.
//!
//! ```text
//! STATE/POOL/NODE/   node.json   names, and the agent's process with its start time     (version 1)
//!                    token       the agent's join token, mode 0600
//!                    agent.log   the agent's stderr
//!                    root/       the node's own folder
//! ```
//! Tasks may run as the same user and change all this, so a record that cannot be read ends no start: its folder is
//! left as it is, and the dispatcher, which misses the node, has it deleted. The same goes for records of another
//! version.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use crate::error::ProviderError;
use broker_config::{private, removal};
use contract::ids::{NodeId, PoolId};
use serde::{Deserialize, Serialize};

const VERSION: u32 = 1;
const FILE: &str = "node.json";
/// A log larger than this is emptied when its agent starts.
const LOG_BYTES_MAX: u64 = 1024 * 1024;
/// The longest join token.
const TOKEN_BYTES_MAX: usize = 1024;

/// A node's folder.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

/// Contents of `node.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    v: u32,
    pub(crate) pool: PoolId,
    pub(crate) node: NodeId,
    pub(crate) agent: Option<Running>,
    /// Set while the node is stopped: its agent is not started.
    #[serde(default)]
    pub(crate) is_stopped: bool,
    /// The folder that the record was written to; in a copy of that folder, the agent belongs to the original. Absent
    /// in records of earlier builds.
    #[serde(default)]
    folder: Option<String>,
}

/// Identifies a process so that a later one with the same number is not mistaken for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    pub(crate) pid: i32,
    /// Start time in clock ticks after boot, and the id of that boot.
    started: u64,
    boot: String,
}

impl Running {
    /// The process with this number, if there is one.
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

    /// The agent's join token.
    pub(crate) fn token(&self) -> Result<String, ProviderError> {
        let path = self.0.join("token");
        let text = private::read(&path).and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other));
        match text {
            Ok(text) if text.len() <= TOKEN_BYTES_MAX => Ok(text),
            Ok(_) => Err(ProviderError::State { path, source: io::Error::other("this is no join token") }),
            Err(source) => Err(ProviderError::State { path, source }),
        }
    }

    /// Opens the agent's log; one that is too long, or is no regular file, is replaced.
    pub(crate) fn log(&self) -> Result<File, ProviderError> {
        let path = self.0.join("agent.log");
        let kept = private::open(private::options().append(true).create(true), &path);
        match kept {
            Ok(file) if file.metadata().is_ok_and(|file| file.len() <= LOG_BYTES_MAX) => Ok(file),
            _ => private::create(&path).map_err(|source| ProviderError::State { path, source }),
        }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    /// Makes anew what a task put in the place of the node's folders or of its token; links are not followed.
    pub(crate) fn restore(&self, token: &str) -> Result<(), ProviderError> {
        let folders = [self.0.parent().unwrap_or(&self.0), &self.0, &self.root()];
        for folder in folders {
            own_folder(folder).map_err(|source| ProviderError::State { path: folder.to_owned(), source })?;
        }
        if !self.token().is_ok_and(|found| found == token) {
            tracing::warn!(folder = %self.0.display(), "a node's join token was changed or replaced; it is written anew");
            self.replace("token", token.as_bytes())?;
        }
        Ok(())
    }

    /// Makes the folder and writes the token into it.
    pub(crate) fn create(&self, pool: &PoolId, node: &NodeId, token: &str) -> Result<(), ProviderError> {
        private::folder(&self.0).and_then(|()| private::folder(&self.root())).map_err(|source| self.error(source))?;
        self.replace("token", token.as_bytes())?;
        self.write(pool, node, None)
    }

    /// Records the agent's process.
    pub(crate) fn write(&self, pool: &PoolId, node: &NodeId, agent: Option<Running>) -> Result<(), ProviderError> {
        self.put(&Record { v: VERSION, pool: pool.clone(), node: node.clone(), agent, is_stopped: false, folder: Some(self.identity()?) })
    }

    /// Records that the agent shall not run. A process of it that is recorded stays so, that a later start can end it.
    pub(crate) fn stop(&self, pool: &PoolId, node: &NodeId) -> Result<(), ProviderError> {
        // A task may have replaced the record; the agent has ended in any case.
        let agent = read(&self.0).ok().and_then(|record| record.agent);
        let folder = Some(self.identity()?);
        self.put(&Record { v: VERSION, pool: pool.clone(), node: node.clone(), agent, is_stopped: true, folder })
    }

    fn identity(&self) -> Result<String, ProviderError> {
        private::identity(&self.0).map_err(|source| self.error(source))
    }

    fn put(&self, record: &Record) -> Result<(), ProviderError> {
        let bytes = serde_json::to_vec(record).map_err(|error| self.error(error.into()))?;
        self.replace(FILE, &bytes)
    }

    /// Removes the folder and everything below, unless something is mounted there.
    pub(crate) fn remove(&self) -> Result<(), ProviderError> {
        match removal::folder(&self.0) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(self.error(source)),
            _ => Ok(()),
        }
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), ProviderError> {
        let path = self.0.join(name);
        private::replace(&path, bytes).map_err(|source| ProviderError::State { path, source })
    }

    fn error(&self, source: io::Error) -> ProviderError {
        ProviderError::State { path: self.0.clone(), source }
    }
}

/// Makes a folder; a link or a special file in its place is removed.
fn own_folder(folder: &Path) -> io::Result<()> {
    if fs::symlink_metadata(folder).is_ok_and(|found| !found.is_dir()) {
        tracing::warn!(folder = %folder.display(), "something that is no folder stands in the place of a node's folder; it is removed");
        fs::remove_file(folder)?;
    }
    private::folder(folder)
}

/// Every node that has a record below `state`; a folder without one was cut off while it was made, and is removed.
pub(crate) fn all(state: &Path) -> Result<Vec<Record>, ProviderError> {
    let mut records = vec![];
    for pool in folders(state)? {
        let nodes = folders(&pool).unwrap_or_else(|error| {
            tracing::error!(error = error.fault().message, "cannot list the nodes of a pool; none of them is started");
            vec![]
        });
        for node in nodes {
            match read(&node) {
                Ok(record) => records.push(record),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if let Err(error) = Folder(node).remove() {
                        tracing::warn!(
                            error = error.fault().message,
                            "the folder of a node that was never started stays until the next start"
                        );
                    }
                }
                Err(error) => {
                    let folder = node.display();
                    tracing::error!(%folder, %error, "a node's record cannot be read; its agent is not started, and its pool gets another node");
                }
            }
        }
    }
    Ok(records)
}

/// Reads the record in a node's folder. Its names must be those of the folder: another node's record is refused.
fn read(node: &Path) -> io::Result<Record> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut record: Record = serde_json::from_slice(&private::read(&node.join(FILE))?)?;
    if record.v != VERSION {
        return Err(invalid(format!("the record has version {}, this build reads {VERSION}", record.v)));
    }
    let state = node.parent().and_then(Path::parent).unwrap_or(node);
    if Folder::of(state, &record.pool, &record.node).0 != node {
        return Err(invalid(format!("the record is that of node {} of pool {}", record.node, record.pool)));
    }
    let identity = private::identity(node)?;
    if record.folder.as_ref().is_some_and(|folder| *folder != identity) && record.agent.take().is_some() {
        tracing::info!(pool = %record.pool, node = %record.node, "this node's folder is a copy; the agent of the original keeps running");
    }
    Ok(record)
}

fn folders(path: &Path) -> Result<Vec<PathBuf>, ProviderError> {
    let failed = |source| ProviderError::State { path: path.to_owned(), source };
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries.map_err(failed)?,
    };
    let mut found = vec![];
    for entry in entries {
        let entry = entry.map_err(failed)?;
        // A link may lead outside of our folders and is not followed.
        if entry.file_type().map_err(failed)?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
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

    #[test]
    fn a_copied_record_does_not_name_the_originals_agent() {
        let state = tempfile::tempdir().unwrap();
        let (pool, node): (PoolId, NodeId) = ("p".parse().unwrap(), "n".parse().unwrap());
        let original = Folder::of(&state.path().join("original"), &pool, &node);
        original.create(&pool, &node, "secret").unwrap();
        original.write(&pool, &node, Running::of(std::process::id() as i32)).unwrap();
        let copy = state.path().join("copy/p/n");
        fs::create_dir_all(&copy).unwrap();
        fs::copy(original.0.join(FILE), copy.join(FILE)).unwrap();
        let agents =
            |name: &str| all(&state.path().join(name)).unwrap().into_iter().map(|record| record.agent.is_some()).collect::<Vec<_>>();
        assert_eq!((agents("original"), agents("copy")), (vec![true], vec![false]));
    }

    #[test]
    fn what_tasks_put_in_the_place_of_records_ends_no_start_and_leads_nowhere() {
        let scratch = tempfile::tempdir().unwrap();
        let (state, elsewhere) = (scratch.path().join("state"), scratch.path().join("elsewhere"));
        fs::create_dir_all(elsewhere.join("pictures")).unwrap();
        fs::create_dir_all(elsewhere.join("pool/pictures")).unwrap();
        let pool: PoolId = "p".parse().unwrap();
        type Put = fn(&Path);
        let put: [(&str, Put); 6] = [
            ("fifo", |path| rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap()),
            ("link", |path| std::os::unix::fs::symlink("/dev/zero", path).unwrap()),
            ("folder", |path| fs::create_dir(path).unwrap()),
            ("garbage", |path| fs::write(path, "{").unwrap()),
            ("version", |path| fs::write(path, r#"{"v":2,"pool":"p","node":"version","agent":null}"#).unwrap()),
            ("another", |path| fs::write(path, r#"{"v":1,"pool":"p","node":"whole","agent":null}"#).unwrap()),
        ];
        for (name, put) in put {
            let node: NodeId = name.parse().unwrap();
            let folder = Folder::of(&state, &pool, &node);
            folder.create(&pool, &node, "secret").unwrap();
            fs::remove_file(folder.0.join(FILE)).unwrap();
            put(&folder.0.join(FILE));
        }
        let whole: NodeId = "whole".parse().unwrap();
        Folder::of(&state, &pool, &whole).create(&pool, &whole, "secret").unwrap();
        std::os::unix::fs::symlink(&elsewhere, state.join("q")).unwrap();
        std::os::unix::fs::symlink(elsewhere.join("pool"), state.join("p/linked")).unwrap();
        let names: Vec<_> = all(&state).unwrap().into_iter().map(|record| record.node).collect();
        assert_eq!(names, [whole]);
        assert!(elsewhere.join("pictures").exists() && elsewhere.join("pool/pictures").exists());
        // The node may be made again under its name.
        let fifo: NodeId = "fifo".parse().unwrap();
        Folder::of(&state, &pool, &fifo).create(&pool, &fifo, "new").unwrap();
        assert_eq!(Folder::of(&state, &pool, &fifo).token().unwrap(), "new");
    }
}
