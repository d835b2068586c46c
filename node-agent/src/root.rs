//! The node's folder: its lock, its layout, and the two values that an agent stores there (marker and credential).
//!
//! ```text
//! workitems/<job>/job-1/<task>/{stdout.txt,stderr.txt,wd/}   shared/  startup/  applications/  fsmounts/
//! workitems/<schedule>/job-<n>/<task>/{stdout.txt,stderr.txt,wd/}
//! volatile/{lock,marker,runs/,trash/,retention/,incoming/,functions/}             credential (0600)
//! ```

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, ErrorKind},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use broker_config::private;
use contract::ids::{JobId, RunId, TaskId};
use rustix::{
    fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, openat, renameat, unlinkat},
    io::Errno,
};

use crate::error::AgentError;

/// Mode of the folders of jobs and tasks, before the umask.
pub const SHARED_MODE: u32 = 0o777;
/// The folders that users may read.
pub const PUBLIC: [&str; 5] = ["workitems", "shared", "startup", "applications", "fsmounts"];
/// The agent's own folders.
const PRIVATE: [&str; 5] = ["volatile/trash", "volatile/retention", "volatile/runs", "volatile/incoming", "volatile/functions"];
/// Opens a folder and never a link in its place.
const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::PATH).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Tries to lock the folder while an earlier agent still holds it.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// The node's folder, locked by this agent.
#[derive(Debug, Clone)]
pub struct Root {
    path: Arc<Path>,
    marker: String,
    _lock: Arc<File>,
}

impl Root {
    /// Creates missing folders and locks the folder.
    pub async fn open(path: &Path) -> Result<Root, AgentError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| AgentError::Root { path, source }
        };
        let create = |path: &Path| private::folder(path).map_err(failed(path));
        create(path)?;
        let path: Arc<Path> = path.canonicalize().map_err(failed(path))?.into();
        for name in PUBLIC.iter().chain(&PRIVATE) {
            let folder = path.join(name);
            own_folder(&path, Path::new(name), private::FOLDER_MODE).map_err(failed(&folder))?;
            create(&folder)?;
        }
        let lock_path = path.join("volatile/lock");
        let lock = open_lock(&lock_path).map_err(failed(&lock_path))?;
        let mut tries = 0;
        while rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            tries += 1;
            if tries >= LOCK_TRIES {
                return Err(AgentError::RootInUse { path: path.to_path_buf() });
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
        let marker_path = path.join("volatile/marker");
        let identity = private::identity(&path).map_err(failed(&path))?;
        let kept = private::read(&marker_path).ok().and_then(|text| String::from_utf8(text).ok());
        let marker = match kept.and_then(|text| kept_marker(&text, &identity)) {
            Some(marker) => marker,
            None => {
                let marker = RunId::random().to_string();
                let text = format!("{marker}\n{identity}\n");
                private::replace(&marker_path, text.as_bytes()).map_err(failed(&marker_path))?;
                marker
            }
        };
        Ok(Root { path, marker, _lock: Arc::new(lock) })
    }

    pub fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// The value that every process of this node carries in its environment.
    pub fn marker(&self) -> &str {
        &self.marker
    }

    /// The credential of an earlier join. It blocks.
    pub fn credential(&self) -> Option<String> {
        let path = self.path.join("credential");
        match private::read(&path).and_then(|text| String::from_utf8(text).map_err(io::Error::other)) {
            Ok(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(%error, "cannot read the node's stored credential; joining with the token");
                None
            }
        }
    }

    /// Stores the credential for the next join. It blocks.
    pub fn keep_credential(&self, credential: &str) -> io::Result<()> {
        private::replace(&self.path.join("credential"), credential.as_bytes())
    }

    /// The folder that holds the folders of a job's tasks.
    pub fn job_folder(&self, job: &JobId) -> PathBuf {
        self.path.join("workitems").join(job.folder())
    }

    /// The folder of a task.
    pub fn task_folder(&self, job: &JobId, task: &TaskId) -> PathBuf {
        self.job_folder(job).join(task.as_str())
    }

    /// Makes a folder below the node's, with those on the way to it. What a task put in the place of one is removed.
    pub fn own_folder(&self, folder: &Path, mode: u32) -> io::Result<()> {
        let below = folder.strip_prefix(&self.path).map_err(|_| ErrorKind::InvalidInput)?;
        own_folder(&self.path, below, mode)
    }

    /// Makes an empty task folder with its `wd`; an earlier folder is moved to the trash.
    pub fn make_empty(&self, folder: &Path) -> io::Result<()> {
        self.own_folder(folder.parent().ok_or(ErrorKind::InvalidInput)?, SHARED_MODE)?;
        match make(folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                self.discard(folder)?;
                make(folder)
            }
            other => other,
        }
    }

    /// Moves a file or folder to the trash at once; `empty_trash` removes it later. A link on the way to it is an error.
    pub fn discard(&self, path: &Path) -> io::Result<()> {
        self.own_folder(&self.trash_folder(), private::FOLDER_MODE)?;
        let trash = self.open_folder(&self.trash_folder())?;
        let (parent, name) = match self.open_parent(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        match renameat(parent, name, trash, RunId::random().to_string()) {
            Err(Errno::NOENT) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Lists a folder below the node's; a link in its place, or on the way to it, is an error.
    pub fn list(&self, folder: &Path) -> io::Result<fs::ReadDir> {
        let folder = self.open_folder(folder)?;
        fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()))
    }

    /// Removes an empty folder below the node's; a link on the way to it is an error.
    pub fn remove_empty(&self, folder: &Path) -> io::Result<()> {
        let (parent, name) = self.open_parent(folder)?;
        Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?)
    }

    fn open_folder(&self, folder: &Path) -> io::Result<OwnedFd> {
        let below = folder.strip_prefix(&self.path).map_err(|_| ErrorKind::InvalidInput)?;
        let mut at = openat(CWD, &*self.path, FOLDER, Mode::empty())?;
        for part in below.components() {
            // A path with `..` is none of the agent's.
            let Component::Normal(name) = part else { return Err(ErrorKind::InvalidInput.into()) };
            at = openat(at, name, FOLDER, Mode::empty())?;
        }
        Ok(at)
    }

    fn open_parent<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let (parent, name) = path.parent().zip(path.file_name()).ok_or(ErrorKind::InvalidInput)?;
        Ok((self.open_folder(parent)?, name))
    }

    /// The folder of entries that wait for their removal.
    pub fn trash_folder(&self) -> PathBuf {
        self.path.join("volatile/trash")
    }
}

/// The stored marker, unless this folder is a copy of the one that it was made for: processes that carry it belong to
/// the original. Earlier builds did not store the folder; their marker is valid wherever it is found.
fn kept_marker(text: &str, identity: &str) -> Option<String> {
    let mut lines = text.lines();
    let marker = lines.next().filter(|marker| marker.parse::<RunId>().is_ok())?;
    lines.next().is_none_or(|noted| noted == identity).then(|| marker.to_owned())
}

/// Makes a folder and those on the way to it. Tasks may run as the agent's user, so what stands in the place of one and
/// is no folder, a link for example, is not followed but removed.
fn own_folder(root: &Path, below: &Path, mode: u32) -> io::Result<()> {
    let mut path = root.to_owned();
    for part in below.components() {
        path.push(part);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => continue,
            Ok(_) => {
                tracing::warn!(path = %path.display(), "something that is no folder stands in the place of one of the node's; it is removed");
                match fs::remove_file(&path) {
                    // Another run has removed it, or has made the folder already.
                    Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory) => return Err(error),
                    _ => {}
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        match fs::DirBuilder::new().mode(mode).create(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && fs::symlink_metadata(&path)?.is_dir() => {}
            other => other?,
        }
    }
    Ok(())
}

/// The file whose lock holds the folder; what is no file in its place is removed.
fn open_lock(path: &Path) -> io::Result<File> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => {
            tracing::warn!(path = %path.display(), "something that is no file stands in the place of the node's lock; it is removed");
            private::create(path)
        }
        _ => private::open(private::options().create(true).append(true), path),
    }
}

fn make(folder: &Path) -> io::Result<()> {
    fs::create_dir(folder)?;
    fs::create_dir(folder.join("wd"))
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
    async fn a_copy_of_the_folder_has_a_marker_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (first, moved, copy) = (folder.path().join("first"), folder.path().join("moved"), folder.path().join("copy"));
        let marker = Root::open(&first).await.unwrap().marker().to_owned();
        fs::rename(&first, &moved).unwrap();
        assert_eq!(Root::open(&moved).await.unwrap().marker(), marker);
        fs::create_dir_all(copy.join("volatile")).unwrap();
        fs::copy(moved.join("volatile/marker"), copy.join("volatile/marker")).unwrap();
        let own = Root::open(&copy).await.unwrap().marker().to_owned();
        assert_ne!(own, marker, "the processes of the original are not the copy's to end");
        assert_eq!(Root::open(&copy).await.unwrap().marker(), own);
        // The format of earlier builds.
        fs::write(copy.join("volatile/marker"), &marker).unwrap();
        assert_eq!(Root::open(&copy).await.unwrap().marker(), marker);
    }

    #[tokio::test]
    async fn what_a_task_put_in_place_of_the_agents_files_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).await.unwrap();
        let marker = root.marker().to_owned();
        drop(root);
        for name in ["volatile/marker", "credential"] {
            fs::remove_file(folder.path().join(name)).ok();
            let path = folder.path().join(name);
            rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        }
        let root = Root::open(folder.path()).await.unwrap();
        assert_ne!(root.marker(), marker);
        assert_eq!(root.credential(), None);
        root.keep_credential("c").unwrap();
        assert_eq!(root.credential().as_deref(), Some("c"));
    }

    #[tokio::test]
    async fn links_and_fifos_in_place_of_the_nodes_folders_are_removed_and_not_followed() {
        let (scratch, victim) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(victim.path().join("trash")).unwrap();
        fs::write(victim.path().join("trash/kept"), "x").unwrap();
        let path = scratch.path().join("node");
        for name in ["volatile", "workitems", "volatile/runs", "volatile/trash", "volatile/retention", "volatile/lock", "volatile/incoming"]
        {
            drop(Root::open(&path).await.unwrap());
            for is_link in [true, false] {
                let place = path.join(name);
                if place.is_dir() {
                    fs::remove_dir_all(&place).unwrap();
                } else {
                    fs::remove_file(&place).unwrap();
                }
                if is_link {
                    std::os::unix::fs::symlink(victim.path(), &place).unwrap();
                } else {
                    rustix::fs::mknodat(rustix::fs::CWD, &place, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
                }
                let root = Root::open(&path).await.unwrap();
                let task = root.task_folder(&"j".parse().unwrap(), &"t".parse().unwrap());
                root.make_empty(&task).unwrap();
                root.discard(&task).unwrap();
                assert!(!fs::symlink_metadata(&place).unwrap().is_symlink(), "{name}");
            }
        }
        // A link that is made while the agent runs.
        let root = Root::open(&path).await.unwrap();
        for name in ["volatile/trash", "volatile/runs"] {
            fs::remove_dir_all(path.join(name)).unwrap();
            std::os::unix::fs::symlink(victim.path().join("trash"), path.join(name)).unwrap();
        }
        crate::cleanup::empty_trash(&root, true);
        crate::folders::sweep(&root).unwrap();
        // A deleted job whose folder is a link: what it leads to is nobody's to remove.
        let job: JobId = "j".parse().unwrap();
        fs::create_dir_all(victim.path().join("job-1/t")).unwrap();
        for link in [root.job_folder(&job), root.job_folder(&job).parent().unwrap().to_owned()] {
            fs::remove_dir_all(root.job_folder(&job)).ok();
            fs::remove_dir(&link).ok();
            let target = if link.ends_with("job-1") { victim.path().join("job-1") } else { victim.path().to_owned() };
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(target, &link).unwrap();
            let retention = crate::retention::Retention::new(root.clone());
            crate::cleanup::forget(&root, &retention, &job, None, &crate::owner::Gone::default());
            root.discard(&root.job_folder(&job).join("t")).unwrap_err();
            root.remove_empty(&root.job_folder(&job).join("t")).unwrap_err();
            assert!(victim.path().join("job-1/t").exists());
            fs::remove_file(&link).unwrap();
        }
        fs::remove_dir_all(victim.path().join("job-1")).unwrap();
        let left: Vec<_> = fs::read_dir(victim.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["trash"]);
        assert!(victim.path().join("trash/kept").exists());
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
