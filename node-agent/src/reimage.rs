//! Empties the node's folder for a reimage; the node's identity stays.

use std::{fs, io, path::Path};

use broker_config::removal::Mounts;

use crate::root::{PUBLIC, Root};

/// Moves everything that tasks can see to the trash, which the next sweep empties; folders with a mount inside stay.
pub fn empty(root: &Root) -> io::Result<()> {
    empty_beside(root, &Mounts::now()?)
}

fn empty_beside(root: &Root, mounts: &Mounts) -> io::Result<()> {
    for name in PUBLIC {
        let folder = root.path().join(name);
        if mounts.below(&folder)?.is_none() {
            root.discard(&folder)?;
            fs::create_dir(&folder)?;
        } else if !stays(mounts, &folder)? {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                if mounts.below(&path)?.is_none() {
                    root.discard(&path)?;
                } else {
                    stays(mounts, &path)?;
                }
            }
        }
    }
    tracing::info!("emptied the node's folders for a reimage");
    Ok(())
}

/// Logs that a folder with a mount inside stays; returns whether the folder itself is the mount.
fn stays(mounts: &Mounts, folder: &Path) -> io::Result<bool> {
    let Some(point) = mounts.below(folder)? else { return Ok(false) };
    tracing::error!(folder = %folder.display(), mount = %point.display(), "a folder of this node has a mount inside, so its files stay although the node was reimaged; unmount it and reimage the node again");
    mounts.has(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_mounted_stays_with_the_folders_on_the_way_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).await.unwrap();
        for name in ["fsmounts/data", "shared", "workitems/a/b", "workitems/c"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("file"), "").unwrap();
        }
        let mounted = ["fsmounts/data", "shared", "workitems/a/b"].map(|name| root.path().join(name));
        empty_beside(&root, &Mounts::of(mounted)).unwrap();
        let is_there = |name: &str| folder.path().join(name).exists();
        assert!(is_there("fsmounts/data/file") && is_there("shared/file") && is_there("workitems/a/b/file"));
        assert!(!is_there("workitems/c") && is_there("startup"));
    }

    #[tokio::test]
    async fn what_tasks_left_is_gone_and_the_credential_stays() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).await.unwrap();
        root.keep_credential("c").unwrap();
        for file in ["shared/data", "startup/stdout.txt", "workitems/x"] {
            fs::write(folder.path().join(file), "old").unwrap();
        }
        empty(&root).unwrap();
        for name in PUBLIC {
            assert_eq!(fs::read_dir(folder.path().join(name)).unwrap().count(), 0, "{name}");
        }
        assert_eq!(root.credential().as_deref(), Some("c"));
    }
}
