//! Requests to another part, with the replies on a private queue.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    sync::{Semaphore, oneshot, watch},
    time::timeout,
};

use super::{consumer::Consumer, error::AmqpError, limits::CALLS_MAX, outgoing::Outgoing, publisher::Publisher, subscription::Delivery};

/// Sends requests and waits for their replies; cheap to clone.
#[derive(Clone)]
pub struct Caller {
    inner: Arc<Inner>,
}

struct Inner {
    publisher: Publisher,
    queue: watch::Receiver<Option<String>>,
    waiting: Arc<Waiting>,
    permits: Semaphore,
    ids: AtomicU64,
    /// Ends the task that reads replies when it is dropped.
    _stop: oneshot::Sender<()>,
}

#[derive(Default)]
struct Waiting(Mutex<HashMap<String, oneshot::Sender<Delivery>>>);

impl Waiting {
    fn map(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Delivery>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a request from the waiting ones when its caller gives up.
struct PendingCall<'a> {
    waiting: &'a Waiting,
    id: String,
}

impl Drop for PendingCall<'_> {
    fn drop(&mut self) {
        self.waiting.map().remove(&self.id);
    }
}

impl Caller {
    pub(super) fn start(publisher: Publisher, replies: Consumer) -> Caller {
        let waiting = Arc::new(Waiting::default());
        let (stop, stopped) = oneshot::channel();
        let queue = replies.queue_name();
        tokio::spawn(read(replies, waiting.clone(), stopped));
        let inner = Inner { publisher, queue, waiting, permits: Semaphore::new(CALLS_MAX), ids: AtomicU64::new(1), _stop: stop };
        Caller { inner: Arc::new(inner) }
    }

    /// Sends a request and waits for its reply; an error at once when no queue is bound to that key.
    pub async fn call<Q: Serialize, R: DeserializeOwned>(
        &self,
        exchange: &'static str,
        key: String,
        request: &Q,
        timeout_in: Duration,
    ) -> Result<R, AmqpError> {
        let outgoing = Outgoing::message(exchange, key, request)?.transient();
        let reply = timeout(timeout_in, self.send_and_wait(outgoing)).await.unwrap_or(Err(AmqpError::Timeout { what: "a reply" }))?;
        Ok(reply.message()?)
    }

    /// Like [`call`](Caller::call) for a message that is no part's of Piecework; the reply is returned as it comes.
    pub async fn call_raw(&self, outgoing: Outgoing, timeout_in: Duration) -> Result<Delivery, AmqpError> {
        timeout(timeout_in, self.send_and_wait(outgoing)).await.unwrap_or(Err(AmqpError::Timeout { what: "a reply" }))
    }

    /// The private queue's current name; nothing while the queue is declared anew.
    pub fn reply_to(&self) -> watch::Receiver<Option<String>> {
        self.inner.queue.clone()
    }

    async fn send_and_wait(&self, mut outgoing: Outgoing) -> Result<Delivery, AmqpError> {
        let inner = &*self.inner;
        let _permit = inner.permits.acquire().await.map_err(|_| AmqpError::Closed)?;
        let queue = {
            let mut queue = inner.queue.clone();
            let present = queue.wait_for(Option::is_some).await.map_err(|_| AmqpError::Closed)?;
            present.clone()
        };
        let id = inner.ids.fetch_add(1, Ordering::Relaxed).to_string();
        let (reply, replied) = oneshot::channel();
        inner.waiting.map().insert(id.clone(), reply);
        let _pending = PendingCall { waiting: &inner.waiting, id: id.clone() };
        outgoing.reply_to = queue;
        outgoing.correlation_id = Some(id);
        let published = inner.publisher.publish(outgoing);
        tokio::pin!(published, replied);
        // The reply may arrive before the confirm of its request.
        tokio::select! {
            biased;
            reply = &mut replied => reply.map_err(|_| AmqpError::Disconnected),
            result = &mut published => {
                result?;
                replied.await.map_err(|_| AmqpError::Disconnected)
            }
        }
    }
}

async fn read(mut replies: Consumer, waiting: Arc<Waiting>, mut stopped: oneshot::Receiver<()>) {
    let mut queue = replies.queue_name();
    loop {
        tokio::select! {
            reply = replies.next() => {
                let Some(reply) = reply else { break };
                let caller = reply.correlation_id.as_ref().and_then(|id| waiting.map().remove(id));
                match caller {
                    // A caller that gave up meanwhile needs no reply.
                    Some(caller) => drop(caller.send(reply)),
                    None => tracing::debug!("a reply arrived after its caller had given up; it is dropped"),
                }
            }
            changed = queue.changed() => {
                if changed.is_err() {
                    break;
                }
                // Replies to the old queue are lost, so their callers fail at once.
                if queue.borrow_and_update().is_none() {
                    waiting.map().clear();
                }
            }
            _ = &mut stopped => return,
        }
    }
    waiting.map().clear();
}
