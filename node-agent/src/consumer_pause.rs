//! Pauses and resumes consumers one at a time, off the agent's own loop.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clients::amqp::SlotControl;
use tokio::{sync::Notify, task::AbortHandle, time::sleep};

const TRY_AGAIN: Duration = Duration::from_millis(200);

/// The wanted state of every slot of one consumer; a task of its own applies it.
pub struct ConsumerPause {
    wanted: Arc<(Mutex<Vec<bool>>, Notify)>,
    work: AbortHandle,
}

impl ConsumerPause {
    /// Starts with all slots open.
    pub fn new(control: SlotControl, slots: u32) -> ConsumerPause {
        let wanted = Arc::new((Mutex::new(vec![false; slots as usize]), Notify::new()));
        let work = tokio::spawn(follow(control, wanted.clone())).abort_handle();
        ConsumerPause { wanted, work }
    }

    /// Sets slots to paused (true) or open (false).
    pub fn set(&self, changes: &[(u32, bool)]) {
        if changes.is_empty() {
            return;
        }
        let mut wanted = self.wanted.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (slot, is_paused) in changes {
            if let Some(wanted) = wanted.get_mut(*slot as usize) {
                *wanted = *is_paused;
            }
        }
        drop(wanted);
        self.wanted.1.notify_one();
    }
}

impl Drop for ConsumerPause {
    fn drop(&mut self) {
        self.work.abort();
    }
}

async fn follow(control: SlotControl, wanted: Arc<(Mutex<Vec<bool>>, Notify)>) {
    let mut actual = vec![false; wanted.0.lock().unwrap_or_else(PoisonError::into_inner).len()];
    loop {
        let next = {
            let wanted = wanted.0.lock().unwrap_or_else(PoisonError::into_inner);
            (0..actual.len()).find(|slot| wanted[*slot] != actual[*slot]).map(|slot| (slot, wanted[slot]))
        };
        let Some((slot, is_paused)) = next else {
            wanted.1.notified().await;
            continue;
        };
        let done = if is_paused { control.pause(slot as u32).await } else { control.resume(slot as u32).await };
        match done {
            Ok(()) => actual[slot] = is_paused,
            Err(error) => {
                tracing::debug!(%error, slot, "cannot pause or resume the consumer of a slot; trying again");
                sleep(TRY_AGAIN).await;
            }
        }
    }
}
