//! Workers of triggers, one for each: they take events, find objects whose event never came, and start what follows.
//!
//! ```text
//! queue of the trigger ─► [ read, told apart from what was seen ] ─► engine ─commit─► ack
//! bucket ─ listing, page by page ─► [ the same ] ─► engine
//! ```

mod intake;
mod listing;
mod progress;
mod repeats;
mod waits;
mod worker;

use std::{collections::HashMap, time::Duration};

use model::trigger::TriggerRow;
use tokio::{sync::watch, task::JoinSet};
use tracing::warn;

use crate::{submissions::Parts, triggers::worker::Worker};

/// How long workers may take at the end; what they have in hand comes again.
const END_MAX: Duration = Duration::from_secs(5);
/// Before a worker that broke is started again.
const BROKEN_PAUSE: Duration = Duration::from_secs(1);

/// Runs a worker for each trigger until `stop`.
pub(crate) async fn run(parts: Parts, mut stop: watch::Receiver<bool>) {
    let mut rules = parts.engine.triggers();
    let mut known: HashMap<u64, watch::Sender<TriggerRow>> = HashMap::new();
    let mut workers: JoinSet<u64> = JoinSet::new();
    loop {
        let rows = rules.borrow_and_update().clone();
        // A worker ends when nobody can tell it anything any more.
        known.retain(|uid, _| rows.iter().any(|row| row.uid == *uid));
        for row in rows {
            match known.get(&row.uid) {
                Some(rule) => drop(rule.send_if_modified(|known| {
                    let is_new = known.version != row.version;
                    if is_new {
                        *known = row;
                    }
                    is_new
                })),
                None => {
                    let (uid, (rule, told)) = (row.uid, watch::channel(row));
                    known.insert(uid, rule);
                    let worker = Worker::new(parts.clone(), told, stop.clone());
                    workers.spawn(async move {
                        worker.run().await;
                        uid
                    });
                }
            }
        }
        let is_broken = tokio::select! {
            changed = rules.changed() => if changed.is_err() { break } else { false },
            Some(ended) = workers.join_next() => match ended {
                Ok(uid) => {
                    known.remove(&uid);
                    false
                }
                // Its trigger has no worker any more, and gets another one in the next turn.
                Err(error) => {
                    warn!(%error, "the worker of a trigger broke; it is started again");
                    known.retain(|_, rule| rule.receiver_count() > 0);
                    true
                }
            },
            _ = stop.wait_for(|stop| *stop) => break,
        };
        if is_broken {
            tokio::time::sleep(BROKEN_PAUSE).await;
        }
    }
    drop(known);
    let rest = async { while workers.join_next().await.is_some() {} };
    if tokio::time::timeout(END_MAX, rest).await.is_err() {
        warn!("workers of triggers were still busy at the end; the broker delivers their events again");
    }
}
