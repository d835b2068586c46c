//! Runs errands: deletes folders on nodes, blobs, and queues of triggers. The declarer deletes queues of pools.

use std::time::Duration;

use broker_config::topology;
use clients::{
    amqp::{Link, Outgoing},
    blobs::Blobs,
};
use contract::{
    body::BodyError,
    ids::PoolId,
    message::{Control, ControlKind, VERSION},
};
use store::errands::{Errand, Place};
use tracing::{debug, warn};

use crate::{Engine, messages::Input};

/// Time limit for deleting the blobs of one errand.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(30);
/// Prefix of the streams that nodes ship; keys elsewhere are never deleted on a node's report.
const STREAMS: &str = "logs/";

/// Runs errands and reports their results to the engine.
pub(super) async fn run(link: Link, blobs: Blobs, engine: Engine, errands: Vec<(u64, Errand)>) {
    let publisher = link.publisher();
    let (mut ids, mut messages, mut results) = (Vec::new(), Vec::new(), Vec::new());
    let mut is_there = true;
    for (id, errand) in errands {
        match errand {
            Errand::Forget { pool, job, task, last, job_uid } => match order(&pool, ControlKind::Forget { job, task, last, job_uid }) {
                Ok(message) => {
                    ids.push(id);
                    messages.push(message);
                }
                Err(error) => {
                    warn!(%error, "an order to delete folders of tasks cannot be encoded; nodes delete them after their retention time");
                    results.push((Place::Broker, id, true));
                }
            },
            Errand::Discard { keys } => {
                // Once the bucket did not answer, the remaining errands of the batch fail without trying.
                is_there = is_there && discard(&blobs, &keys).await;
                results.push((Place::Bucket, id, is_there));
            }
            Errand::DeleteQueue { queue } => {
                let deleted = link.delete_queue(&queue).await;
                if let Err(error) = &deleted {
                    warn!(queue, %error, "the queue of a deleted trigger cannot be deleted yet; it is tried again");
                }
                results.push((Place::Broker, id, deleted.is_ok()));
            }
            // The declarer's, the answerer's and the starter's.
            Errand::Undeclare { .. } | Errand::Tell(_) | Errand::Start(_) => results.push((Place::Broker, id, false)),
        }
    }
    if !messages.is_empty() {
        let sent = publisher.publish_all(messages).await;
        results.extend(ids.into_iter().zip(sent).map(|(id, sent)| (Place::Broker, id, sent.is_ok())));
    }
    if engine.put(Input::Errands(results)).await.is_err() {
        debug!("the engine stopped before it got the results of errands; they run again after the next start");
    }
}

fn order(pool: &PoolId, what: ControlKind) -> Result<Outgoing, BodyError> {
    let control = Control { v: VERSION, what };
    // Nobody listens when the pool has no agents, and then there are no folders either.
    Ok(Outgoing::message(topology::CONTROL, topology::pool_control_key(pool), &control)?.transient().optional())
}

async fn discard(blobs: &Blobs, keys: &[String]) -> bool {
    let bucket = &blobs.settings().own_bucket;
    let ours: Vec<&str> = keys.iter().map(String::as_str).filter(|key| key.starts_with(STREAMS)).collect();
    if ours.len() < keys.len() {
        warn!("a stream was kept outside of {STREAMS}, and stays there");
    }
    match tokio::time::timeout(DISCARD_TIMEOUT, blobs.delete_keys(bucket, &ours)).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            warn!(%error, count = ours.len(), "streams of deleted tasks cannot be deleted yet; it is tried again");
            false
        }
        Err(_) => {
            warn!(count = ours.len(), "streams of deleted tasks cannot be deleted yet: no answer in time; it is tried again");
            false
        }
    }
}
