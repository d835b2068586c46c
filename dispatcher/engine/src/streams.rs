//! Blobs with the output streams of tasks. A blob is deleted when no row names it any more, or when its task's
//! retention time is over.
//!
//! The blobs that a row names are read before and after a change. A fence decides whether a late run may still be
//! accepted or came too late for any row.

use contract::{
    ids::{Fence, TaskUid},
    message::Finished,
    outcome::Stream,
    state::TaskState,
};
use model::task::StreamName;
use store::StoreError;

use crate::world::World;

/// Blobs that a run has uploaded.
pub(super) struct Shipped {
    uid: TaskUid,
    fence: Fence,
    keys: Vec<String>,
}

impl Shipped {
    /// `None` when the run uploaded nothing under a key of its own.
    pub(super) fn of(finished: &Finished) -> Option<Shipped> {
        let own = format!("logs/{}/{}/{}/", finished.uid.0, finished.attempt, finished.run);
        let key = |stream: &Stream| match stream {
            Stream::Blob { key, .. } if key.starts_with(&own) => Some(key.clone()),
            _ => None,
        };
        let keys: Vec<String> = [&finished.stdout, &finished.stderr].into_iter().filter_map(key).collect();
        (!keys.is_empty()).then_some(Shipped { uid: finished.uid, fence: finished.fence, keys })
    }
}

impl World {
    /// Deletes the blobs that the task's row named before a change and does not name now.
    pub(super) fn discard_replaced(&mut self, uid: TaskUid, before: [Option<String>; 2]) -> Result<(), StoreError> {
        let before: Vec<String> = before.into_iter().flatten().collect();
        self.discard_unnamed(uid, before)
    }

    /// Deletes what a run uploaded, unless the task's row names it or may still come to.
    pub(super) fn discard_unkept(&mut self, shipped: Shipped) -> Result<(), StoreError> {
        let Shipped { uid, fence, keys } = shipped;
        match self.store.task_by_uid(uid) {
            // The end is reported again, and may be accepted then.
            Ok(Some(task)) if task.is_live && task.fence <= fence => Ok(()),
            Ok(_) => self.discard_unnamed(uid, keys),
            // An operator has to look at the row first.
            Err(StoreError::Corrupt { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn discard_unnamed(&mut self, uid: TaskUid, mut keys: Vec<String>) -> Result<(), StoreError> {
        if keys.is_empty() {
            return Ok(());
        }
        let named = self.store.blobs_of(uid)?;
        keys.retain(|key| !named.iter().flatten().any(|other| other == key));
        self.discard(&keys)
    }

    /// Deletes the streams of tasks whose retention time is over, unless the task has changed since it was read.
    pub(super) fn expire_streams(&mut self, tasks: &[(TaskUid, u64)]) -> Result<(), StoreError> {
        for (uid, version) in tasks {
            match self.store.task_by_uid(*uid) {
                Ok(Some(task)) if task.state == TaskState::Completed && task.version == *version => {}
                Ok(_) | Err(StoreError::Corrupt { .. }) => continue,
                Err(error) => return Err(error),
            }
            let blobs = self.store.blobs_of(*uid)?;
            for (key, stream) in blobs.iter().zip([StreamName::Stdout, StreamName::Stderr]) {
                if key.is_some() {
                    self.store.forget_stream(*uid, stream)?;
                }
            }
            self.discard_replaced(*uid, blobs)?;
        }
        Ok(())
    }
}
