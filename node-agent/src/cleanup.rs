//! Background removal: folders of deleted tasks, folders past their retention time, the trash, leftover processes.
//!
//! One thread does it all, so that runs keep their threads however much is deleted.

use std::{ffi::OsStr, fs, io, sync::Arc, time::Duration};

use broker_config::{private, removal::Mounts};
use contract::ids::{JobId, TaskId};
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval},
};

use crate::{
    folders,
    off_loop::try_off_loop,
    owner::Gone,
    process::{environment::MARKER, tree},
    retention::Retention,
    root::Root,
};

/// Period of the search for folders past their retention time.
const SWEEP_PERIOD: Duration = Duration::from_secs(60);
/// Period of the search for marks whose folders are gone.
const MARKS_PERIOD: Duration = Duration::from_secs(3600);
/// Period in which the retention times in memory are written to disk.
const PERSIST_PERIOD: Duration = Duration::from_secs(5);

/// Cleans up until it is dropped; `trash` is notified when something was moved to the trash.
pub async fn serve(root: Root, retention: Arc<Retention>, trash: Arc<Notify>) {
    let periodic = |period| {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    };
    let (mut sweeps, mut writings, mut marks) = (periodic(SWEEP_PERIOD), periodic(PERSIST_PERIOD), periodic(MARKS_PERIOD));
    let kept = retention.clone();
    report("the folders that an earlier agent left have no retention time yet", try_off_loop(move || kept.recover()).await);
    loop {
        let (root, retention) = (root.clone(), retention.clone());
        let done = tokio::select! {
            _ = writings.tick() => try_off_loop(move || retention.persist()).await,
            () = trash.notified() => try_off_loop(move || { empty_trash(&root, false); Ok(()) }).await,
            _ = marks.tick() => try_off_loop(move || folders::sweep(&root)).await,
            _ = sweeps.tick() => try_off_loop(move || {
                let swept = retention.sweep();
                empty_trash(&root, true);
                swept
            }).await,
        };
        report("old folders of tasks stay for now; trying again", done);
    }
}

fn report(what: &str, done: io::Result<()>) {
    if let Err(error) = done {
        tracing::warn!(%error, "{what}");
    }
}

/// Moves a deleted task's folder, or those of a deleted job's tasks, to the trash; spares folders of later tasks of the
/// same name.
pub fn forget(root: &Root, retention: &Retention, job: &JobId, task: Option<&TaskId>, gone: &Gone) {
    let Some(task) = task else { return forget_job(root, retention, job, gone) };
    if let Err(error) = forget_one(root, retention, job, OsStr::new(task.as_str()), gone) {
        tracing::warn!(%error, %job, %task, "cannot discard a deleted task's folder; it stays until its retention time has passed");
    }
}

fn forget_job(root: &Root, retention: &Retention, job: &JobId, gone: &Gone) {
    let folder = root.job_folder(job);
    // Links are not followed: they may lead to what is not this node's.
    let entries = match root.list(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => {
            return tracing::warn!(%error, %job, "cannot read a deleted job's folder; it stays until its retention time has passed");
        }
    };
    for entry in entries {
        if let Err(error) = entry.and_then(|entry| forget_one(root, retention, job, &entry.file_name(), gone)) {
            tracing::warn!(%error, %job, "cannot discard a folder of a deleted job; it stays until its retention time has passed");
        }
    }
    for folder in [Some(&*folder), folder.parent()].into_iter().flatten() {
        if let Err(error) = root.remove_empty(folder)
            && !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty)
        {
            tracing::warn!(%error, %job, "cannot remove a deleted job's folder");
        }
    }
}

fn forget_one(root: &Root, retention: &Retention, job: &JobId, name: &OsStr, gone: &Gone) -> io::Result<()> {
    if retention.forget(&root.job_folder(job).join(name), gone, || folders::owner(root, job, name))? {
        return folders::forget(root, job, name);
    }
    tracing::info!(%job, task = %name.display(), "the folder of a deleted task stays, for another task of this name has it now");
    Ok(())
}

/// Removes what is in the trash. An entry with a mount inside stays and is tried again at the next sweep.
pub fn empty_trash(root: &Root, is_loud: bool) {
    let mounts = match Mounts::now() {
        Ok(mounts) => mounts,
        Err(error) => {
            return tracing::warn!(%error, "the trash is not emptied, because the mounts inside it cannot be listed; trying again every minute");
        }
    };
    let trash = root.trash_folder();
    let entries = match root.own_folder(&trash, private::FOLDER_MODE).and_then(|()| fs::read_dir(&trash)) {
        Ok(entries) => entries,
        Err(error) => return tracing::warn!(%error, "cannot list the trash; trying again every minute"),
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let removed = if entry.file_type().is_ok_and(|kind| kind.is_dir()) { mounts.remove(&path) } else { fs::remove_file(&path) };
        match removed {
            // Another sweep removed it first.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && !is_loud => {}
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "cannot remove an entry of the trash; trying again every minute")
            }
            _ => {}
        }
    }
}

/// Kills every process that carries the node's marker; returns how many survived.
pub fn end_processes(root: &Root) -> usize {
    let left = tree::kill_all(MARKER, root.marker(), &Default::default(), &Default::default());
    if left > 0 {
        tracing::error!(left, "processes of this node survived SIGKILL and are left behind");
    }
    left
}
