//! The blobs that hold what tasks wrote: each goes when no row names it any more, or when its task's retention time is over.
//!
//! What a row names is read before and after a change of it. A run that came too late for any row is told from one that
//! is about to be believed by its fence.

use contract::{
    ids::{Fence, TaskUid},
    message::Finished,
    outcome::Stream,
    state::TaskState,
};
use model::task::StreamName;
use store::StoreError;

use crate::world::World;

/// What a run has put into the bucket.
pub(super) struct Shipped {
    uid: TaskUid,
    fence: Fence,
    keys: Vec<String>,
}

impl Shipped {
    /// Nothing when there is nothing, or nothing that is the run's own.
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
    /// What a task's row named before a change, and does not any more, goes.
    pub(super) fn discard_replaced(&mut self, uid: TaskUid, before: [Option<String>; 2]) -> Result<(), StoreError> {
        let before: Vec<String> = before.into_iter().flatten().collect();
        self.discard_unnamed(uid, before)
    }

    /// What a run shipped goes, unless its task's row names it or may still do so.
    pub(super) fn discard_unkept(&mut self, shipped: Shipped) -> Result<(), StoreError> {
        let Shipped { uid, fence, keys } = shipped;
        match self.store.task_by_uid(uid) {
            // The end is told again, and may be believed then.
            Ok(Some(task)) if task.is_live && task.fence <= fence => Ok(()),
            Ok(_) => self.discard_unnamed(uid, keys),
            // Somebody looks at the row first.
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

    /// The streams of tasks whose retention time is over go, unless a task has changed since it was looked at.
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
