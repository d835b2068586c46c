//! Removing what is not needed any more, off everybody's way: deleted tasks, the trash, leftover processes.

use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

use broker_config::ids::{JobId, TaskId};

use crate::{
    process::{environment::MARKER, tree},
    root::Root,
};

/// How long a task's folder stays without a word to the contrary.
const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// Moves a deleted task's folder, or a deleted job's, to the trash and empties it.
pub fn forget(root: &Root, job: &JobId, task: Option<&TaskId>) {
    let folder = match task {
        Some(task) => root.task_folder(job, task),
        None => root.job_folder(job),
    };
    if let Err(error) = root.discard(&folder) {
        tracing::warn!(%error, %job, "cannot discard a deleted task's folder");
    }
    if let (None, Some(parent)) = (task, folder.parent())
        && let Err(error) = fs::remove_dir(parent)
        && !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty)
    {
        tracing::warn!(%error, %job, "cannot remove a deleted job's folder");
    }
    empty_trash(root);
}

/// Removes everything in the trash.
pub fn empty_trash(root: &Root) {
    let entries = match fs::read_dir(root.trash_folder()) {
        Ok(entries) => entries,
        Err(error) => return tracing::warn!(%error, "cannot read the trash"),
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let removed = if entry.file_type().is_ok_and(|kind| kind.is_dir()) { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            // Another sweep was faster.
            Err(error) if error.kind() != io::ErrorKind::NotFound => tracing::warn!(%error, "cannot empty the trash"),
            _ => {}
        }
    }
}

/// Discards folders of tasks that nothing has touched for the retention time.
pub fn sweep(root: &Root) {
    for name in entries(&root.path().join("workitems")) {
        for task in entries(&name).iter().flat_map(|job| entries(job)) {
            let age = fs::metadata(task.join("stdout.txt")).and_then(|meta| meta.modified()).map(|at| SystemTime::now().duration_since(at));
            if matches!(age, Ok(Ok(age)) if age > RETENTION)
                && let Err(error) = root.discard(&task)
            {
                tracing::warn!(%error, "cannot discard an old task's folder");
            }
        }
    }
    empty_trash(root);
}

fn entries(folder: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Kills every process that carries the node's mark; how many would not die.
pub fn end_processes(root: &Root) -> usize {
    let left = tree::kill_all(MARKER, root.marker(), &Default::default());
    if left > 0 {
        tracing::error!(left, "processes of this node would not die");
    }
    left
}
