//! The node's folder: who holds it, what stands in it, and the two things an agent remembers there.
//!
//! ```text
//! workitems/<job>/job-1/<task>/{stdout.txt,stderr.txt,wd/}   shared/  startup/  applications/  fsmounts/
//! workitems/<schedule>/job-<n>/<task>/{stdout.txt,stderr.txt,wd/}
//! volatile/{lock,marker,trash/,retention/}                   credential (0600)
//! ```

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use broker_config::ids::{JobId, RunId, TaskId};
use rustix::fs::FlockOperation;

use crate::error::AgentError;

/// The folders people may read.
pub const PUBLIC: [&str; 5] = ["workitems", "shared", "startup", "applications", "fsmounts"];
/// How long an earlier agent's hold on the folder is waited for.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// The node's folder, held by this agent.
#[derive(Debug, Clone)]
pub struct Root {
    path: Arc<Path>,
    marker: String,
    trash: Arc<AtomicU64>,
    _lock: Arc<File>,
}

impl Root {
    /// Makes what is missing and takes hold of the folder.
    pub async fn open(path: &Path) -> Result<Root, AgentError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| AgentError::Root { path, source }
        };
        let create = |path: &Path| fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(failed(path));
        create(path)?;
        let path: Arc<Path> = path.canonicalize().map_err(failed(path))?.into();
        for name in PUBLIC.iter().chain(&["volatile/trash", "volatile/retention"]) {
            create(&path.join(name))?;
        }
        let lock_path = path.join("volatile/lock");
        let lock = File::options().create(true).append(true).mode(0o600).open(&lock_path).map_err(failed(&lock_path))?;
        let mut tries = 0;
        while rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            tries += 1;
            if tries >= LOCK_TRIES {
                return Err(AgentError::RootInUse { path: path.to_path_buf() });
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
        let marker_path = path.join("volatile/marker");
        let marker = match fs::read_to_string(&marker_path) {
            Ok(text) if text.trim().parse::<RunId>().is_ok() => text.trim().to_owned(),
            _ => {
                let marker = RunId::random().to_string();
                write_private(&marker_path, &marker).map_err(failed(&marker_path))?;
                marker
            }
        };
        Ok(Root { path, marker, trash: Arc::new(AtomicU64::new(0)), _lock: Arc::new(lock) })
    }

    /// Where it is.
    pub fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// What every process of this node carries in its environment.
    pub fn marker(&self) -> &str {
        &self.marker
    }

    /// The credential of an earlier join.
    pub fn credential(&self) -> Option<String> {
        let path = self.path.join("credential");
        match fs::read_to_string(&path) {
            Ok(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(%error, "cannot read the node's credential");
                None
            }
        }
    }

    /// Keeps the credential for the next join.
    pub fn keep_credential(&self, credential: &str) -> io::Result<()> {
        write_private(&self.path.join("credential"), credential)
    }

    /// The folder of a job's tasks.
    pub fn job_folder(&self, job: &JobId) -> PathBuf {
        self.path.join("workitems").join(job.folder())
    }

    /// The folder of a task.
    pub fn task_folder(&self, job: &JobId, task: &TaskId) -> PathBuf {
        self.job_folder(job).join(task.as_str())
    }

    /// Makes an empty task folder with its `wd`; what an earlier run left goes to the trash.
    pub fn make_empty(&self, folder: &Path) -> io::Result<()> {
        match make(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let parent = folder.parent().ok_or(ErrorKind::InvalidInput)?;
                fs::create_dir_all(parent)?;
                make(folder)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                self.discard(folder)?;
                make(folder)
            }
            other => other,
        }
    }

    /// Moves something out of the way at once; `empty_trash` removes it later.
    pub fn discard(&self, path: &Path) -> io::Result<()> {
        let number = self.trash.fetch_add(1, Ordering::Relaxed);
        let target = self.trash_folder().join(format!("{}-{number}", std::process::id()));
        match fs::rename(path, target) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Where discarded things wait for their removal.
    pub fn trash_folder(&self) -> PathBuf {
        self.path.join("volatile/trash")
    }
}

fn make(folder: &Path) -> io::Result<()> {
    fs::create_dir(folder)?;
    fs::create_dir(folder.join("wd"))
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().create_new(true).write(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn the_credential_is_private_and_the_marker_stays() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).await.unwrap();
        let marker = root.marker().to_owned();
        assert_eq!(root.credential(), None);
        root.keep_credential("c").unwrap();
        root.keep_credential("d").unwrap();
        assert_eq!(root.credential().as_deref(), Some("d"));
        let mode = folder.path().join("credential").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(root);
        assert_eq!(Root::open(folder.path()).await.unwrap().marker(), marker);
    }

    #[tokio::test]
    async fn a_rerun_starts_from_an_empty_folder() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).await.unwrap();
        let task = root.task_folder(&"j".parse().unwrap(), &"t".parse().unwrap());
        root.make_empty(&task).unwrap();
        fs::write(task.join("wd/old"), "x").unwrap();
        root.make_empty(&task).unwrap();
        assert!(task.join("wd").is_dir() && !task.join("wd/old").exists());
        assert_eq!(fs::read_dir(root.trash_folder()).unwrap().count(), 1);
    }
}
