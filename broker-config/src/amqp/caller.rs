//! Questions to another part, and their answers over a private queue.

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

use super::{AmqpError, CALLS_MAX, Consumer, Delivery, Outgoing, Publisher};

/// Asks and awaits answers; cheap to clone.
#[derive(Clone)]
pub struct Caller {
    inner: Arc<Inner>,
}

struct Inner {
    publisher: Publisher,
    queue: watch::Receiver<Option<String>>,
    waiting: Arc<Waiting>,
    room: Semaphore,
    ids: AtomicU64,
    /// Ends the task that reads answers.
    _stop: oneshot::Sender<()>,
}

#[derive(Default)]
struct Waiting(Mutex<HashMap<String, oneshot::Sender<Delivery>>>);

impl Waiting {
    fn map(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Delivery>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets a question whose asker is gone.
struct Question<'a> {
    waiting: &'a Waiting,
    id: String,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.waiting.map().remove(&self.id);
    }
}

impl Caller {
    pub(super) fn start(publisher: Publisher, answers: Consumer) -> Caller {
        let waiting = Arc::new(Waiting::default());
        let (stop, stopped) = oneshot::channel();
        let queue = answers.queue_name();
        tokio::spawn(read(answers, waiting.clone(), stopped));
        let inner = Inner { publisher, queue, waiting, room: Semaphore::new(CALLS_MAX), ids: AtomicU64::new(1), _stop: stop };
        Caller { inner: Arc::new(inner) }
    }

    /// Asks and awaits the answer; an error at once when nobody takes questions with that key.
    pub async fn call<Q: Serialize, R: DeserializeOwned>(
        &self,
        exchange: &'static str,
        key: String,
        question: &Q,
        timeout_in: Duration,
    ) -> Result<R, AmqpError> {
        let outgoing = Outgoing::message(exchange, key, question)?.transient();
        let answer = timeout(timeout_in, self.ask(outgoing)).await.unwrap_or(Err(AmqpError::Timeout { what: "an answer" }))?;
        Ok(answer.message()?)
    }

    /// The private queue's present name; nothing while it is being made anew.
    pub fn reply_to(&self) -> watch::Receiver<Option<String>> {
        self.inner.queue.clone()
    }

    async fn ask(&self, mut outgoing: Outgoing) -> Result<Delivery, AmqpError> {
        let inner = &*self.inner;
        let _room = inner.room.acquire().await.map_err(|_| AmqpError::Closed)?;
        let queue = {
            let mut queue = inner.queue.clone();
            let present = queue.wait_for(Option::is_some).await.map_err(|_| AmqpError::Closed)?;
            present.clone()
        };
        let id = inner.ids.fetch_add(1, Ordering::Relaxed).to_string();
        let (answer, answered) = oneshot::channel();
        inner.waiting.map().insert(id.clone(), answer);
        let _question = Question { waiting: &inner.waiting, id: id.clone() };
        outgoing.reply_to = queue;
        outgoing.correlation_id = Some(id);
        let published = inner.publisher.publish(outgoing);
        tokio::pin!(published, answered);
        // An answer may overtake the confirm of its question.
        tokio::select! {
            biased;
            answer = &mut answered => answer.map_err(|_| AmqpError::Disconnected),
            result = &mut published => {
                result?;
                answered.await.map_err(|_| AmqpError::Disconnected)
            }
        }
    }
}

async fn read(mut answers: Consumer, waiting: Arc<Waiting>, mut stopped: oneshot::Receiver<()>) {
    let mut queue = answers.queue_name();
    loop {
        tokio::select! {
            answer = answers.next() => {
                let Some(answer) = answer else { break };
                let asker = answer.correlation_id.as_ref().and_then(|id| waiting.map().remove(id));
                match asker {
                    // An asker that left meanwhile needs no answer.
                    Some(asker) => drop(asker.send(answer)),
                    None => tracing::debug!("an answer came to a question that nobody asks any more"),
                }
            }
            changed = queue.changed() => {
                if changed.is_err() {
                    break;
                }
                // Answers to the old queue are lost, so waiting for them is in vain.
                if queue.borrow_and_update().is_none() {
                    waiting.map().clear();
                }
            }
            _ = &mut stopped => return,
        }
    }
    waiting.map().clear();
}
