//! A task's folder before a run: empty for the first one, as it was left for a further one on the same node.
//!
//! A mark outside the folder names its owner and says that its inputs are complete: `volatile/runs/JOB/TASK`, a link
//! whose target is the task's number, or the job's number where the folder belongs to a preparation or release. Without
//! a mark, or with another number, a run begins with an empty folder.

use std::{
    ffi::OsStr,
    fs,
    io::{self, ErrorKind},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use broker_config::private::FOLDER_MODE;
use contract::ids::{JobId, TaskId};

use crate::{owner::Owner, root::Root};

/// Files that the agent writes next to `wd`, replacing those of earlier runs.
const OWN_FILES: [&str; 4] = ["stdout.txt", "stderr.txt", "fileuploadout.txt", "fileuploaderr.txt"];
const MARKS: &str = "volatile/runs";

/// The mark of one task's folder.
#[derive(Debug, Clone)]
pub struct Mark {
    root: Root,
    path: PathBuf,
    number: String,
}

impl Mark {
    /// The mark of a folder with this owner; nothing is written yet.
    pub fn new(root: &Root, job: &JobId, task: &TaskId, owner: Owner) -> Mark {
        Mark { root: root.clone(), path: place(root, job, OsStr::new(task.as_str())), number: owner.text() }
    }

    /// Writes the mark: the folder belongs to the task and has all its inputs.
    pub fn set(&self) -> io::Result<()> {
        // Its mode is named, for the threads of tasks have the tasks' umask.
        self.root.own_folder(self.path.parent().ok_or(ErrorKind::InvalidInput)?, FOLDER_MODE)?;
        match symlink(&self.number, &self.path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                self.unset()?;
                symlink(&self.number, &self.path)
            }
            other => other,
        }
    }

    /// Removes the mark, because the folder is about to be emptied.
    pub fn unset(&self) -> io::Result<()> {
        remove(&self.path)
    }

    fn is_set(&self) -> bool {
        fs::read_link(&self.path).is_ok_and(|target| target.as_os_str() == self.number.as_str())
    }
}

fn remove(mark: &Path) -> io::Result<()> {
    match fs::remove_file(mark) {
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Err(error),
        _ => Ok(()),
    }
}

fn place(root: &Root, job: &JobId, name: &OsStr) -> PathBuf {
    root.path().join(MARKS).join(job.folder()).join(name)
}

/// The owner that a folder's mark names, if there is a mark.
pub fn owner(root: &Root, job: &JobId, name: &OsStr) -> Option<Owner> {
    Owner::parse(fs::read_link(place(root, job, name)).ok()?.to_str()?)
}

/// Prepares the folder of an earlier run for a further one and removes its streams; false when there is none to reuse.
pub fn reuse(root: &Root, folder: &Path, mark: &Mark) -> io::Result<bool> {
    if !mark.is_set() || !fs::symlink_metadata(folder.join("wd")).is_ok_and(|meta| meta.is_dir()) {
        return Ok(false);
    }
    clear_streams(root, folder)?;
    Ok(true)
}

/// Removes the files that the agent wrote for an earlier run.
pub fn clear_streams(root: &Root, folder: &Path) -> io::Result<()> {
    OWN_FILES.iter().try_for_each(|name| root.discard(&folder.join(name)))
}

/// Removes the mark of a folder that was discarded.
pub fn forget(root: &Root, job: &JobId, name: &OsStr) -> io::Result<()> {
    remove(&place(root, job, name))
}

/// Removes marks whose folders are gone.
pub fn sweep(root: &Root) -> io::Result<()> {
    let (mut left, top) = (vec![PathBuf::new()], root.path().join(MARKS));
    root.own_folder(&top, FOLDER_MODE)?;
    while let Some(at) = left.pop() {
        let entries = match fs::read_dir(top.join(&at)) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            let path = at.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                left.push(path);
            } else if fs::symlink_metadata(root.path().join("workitems").join(&path)).is_err() {
                fs::remove_file(entry.path())?;
            }
        }
        // Removes empty folders only; a run may be about to put its mark into one.
        if !at.as_os_str().is_empty()
            && let Err(error) = fs::remove_dir(top.join(&at))
            && !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty)
        {
            return Err(error);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use contract::ids::TaskUid;

    use super::*;

    #[tokio::test]
    async fn only_the_same_task_finds_its_folder_and_only_when_its_inputs_were_complete() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).await.unwrap();
        let (job, task): (JobId, TaskId) = ("j".parse().unwrap(), "t".parse().unwrap());
        let mark = |uid| Mark::new(&root, &job, &task, Owner::Task(TaskUid(uid)));
        let place = root.task_folder(&job, &task);
        root.make_empty(&place).unwrap();
        fs::write(place.join("wd/part"), "1").unwrap();
        fs::create_dir(place.join("stdout.txt")).unwrap();
        assert!(!reuse(&root, &place, &mark(7)).unwrap(), "its inputs may be missing");
        mark(7).set().unwrap();
        assert!(!reuse(&root, &place, &mark(8)).unwrap(), "a new task of the same name");
        assert!(reuse(&root, &place, &mark(7)).unwrap());
        assert!(place.join("wd/part").exists() && !place.join("stdout.txt").exists());
        mark(8).set().unwrap();
        assert!(!reuse(&root, &place, &mark(7)).unwrap() && reuse(&root, &place, &mark(8)).unwrap());
        sweep(&root).unwrap();
        assert!(mark(8).is_set());
        root.discard(&place).unwrap();
        assert!(!reuse(&root, &place, &mark(8)).unwrap());
        sweep(&root).unwrap();
        assert!(!mark(8).is_set() && !root.path().join(MARKS).join(job.folder()).exists());
        mark(8).set().unwrap();
        let name = OsStr::new("t");
        assert_eq!(owner(&root, &job, name), Some(Owner::Task(TaskUid(8))));
        forget(&root, &job, name).unwrap();
        forget(&root, &job, name).unwrap();
        assert!(!mark(8).is_set() && owner(&root, &job, name).is_none());
    }
}
