//! Turns wished pauses of slots into orders to the broker, one after the other, off the agent's own loop.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use broker_config::amqp::SlotControl;
use tokio::{sync::Notify, task::AbortHandle, time::sleep};

const TRY_AGAIN: Duration = Duration::from_millis(200);

/// The wished state of every slot of one consumer.
pub struct Gate {
    wished: Arc<(Mutex<Vec<bool>>, Notify)>,
    work: AbortHandle,
}

impl Gate {
    /// All slots are open.
    pub fn new(control: SlotControl, slots: u32) -> Gate {
        let wished = Arc::new((Mutex::new(vec![false; slots as usize]), Notify::new()));
        let work = tokio::spawn(follow(control, wished.clone())).abort_handle();
        Gate { wished, work }
    }

    /// Wishes slots paused or open.
    pub fn wish(&self, changes: &[(u32, bool)]) {
        if changes.is_empty() {
            return;
        }
        let mut wished = self.wished.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (slot, is_paused) in changes {
            if let Some(wish) = wished.get_mut(*slot as usize) {
                *wish = *is_paused;
            }
        }
        drop(wished);
        self.wished.1.notify_one();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.work.abort();
    }
}

async fn follow(control: SlotControl, wished: Arc<(Mutex<Vec<bool>>, Notify)>) {
    let mut actual = vec![false; wished.0.lock().unwrap_or_else(PoisonError::into_inner).len()];
    loop {
        let next = {
            let wished = wished.0.lock().unwrap_or_else(PoisonError::into_inner);
            (0..actual.len()).find(|slot| wished[*slot] != actual[*slot]).map(|slot| (slot, wished[slot]))
        };
        let Some((slot, is_paused)) = next else {
            wished.1.notified().await;
            continue;
        };
        let done = if is_paused { control.pause(slot as u32).await } else { control.resume(slot as u32).await };
        match done {
            Ok(()) => actual[slot] = is_paused,
            Err(error) => {
                tracing::debug!(%error, slot, "cannot change a slot yet");
                sleep(TRY_AGAIN).await;
            }
        }
    }
}
