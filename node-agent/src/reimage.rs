//! Sets the node's folder up anew: nothing of earlier tasks is left, who the node is stays.

use std::{fs, io};

use crate::root::{PUBLIC, Root};

/// Moves everything that tasks can see to the trash, which the next sweep empties.
pub fn empty(root: &Root) -> io::Result<()> {
    for name in PUBLIC {
        let folder = root.path().join(name);
        root.discard(&folder)?;
        fs::create_dir(&folder)?;
    }
    tracing::info!("the node's folders were emptied");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
