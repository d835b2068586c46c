//! The running parts of a stack: each can be waited for and stopped, whether all of them have started or only some.

use std::{sync::Arc, time::Duration};

use anyhow::anyhow;
use providers::Process;
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use crate::exit_codes::{Failure, PART_ENDED};

/// Time of a whole stop, whatever hangs: the later a part stops, the later its own deadline, so that one which does not
/// end takes no time from those that follow.
pub(super) const STOP_MAX: Duration = Duration::from_millis(9_600);
/// By then the autoscaler has stopped.
const AUTOSCALER_BY: Duration = Duration::from_secs(1);
/// By then the agents have returned their tasks; the stdin of those that have not ended is closed then.
const DRAINED_BY: Duration = Duration::from_secs(5);
/// By then agents whose stdin was closed have ended, as they wait for three seconds at most.
const NODES_BY: Duration = Duration::from_millis(8_200);
/// By then the dispatcher has stored what the agents told, and stopped.
const DISPATCHER_BY: Duration = Duration::from_millis(8_900);
/// By then the blob store has finished its requests; the rest is the broker's.
const BLOBS_BY: Duration = Duration::from_millis(9_300);

/// The parts that have been started so far.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) broker: Option<embedded_broker::Broker>,
    pub(super) blobs: Option<embedded_blobs::Blobs>,
    pub(super) blob_events: Option<Part>,
    pub(super) nodes: Option<Arc<Process>>,
    pub(super) dispatcher: Option<Part>,
    pub(super) autoscaler: Option<Part>,
}

impl Parts {
    /// Resolves with the reason when a part ends by itself.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        let (broker, blobs) = (&mut self.broker, &mut self.blobs);
        let broker = async {
            match broker {
                Some(broker) => broker.ended().await,
                None => std::future::pending().await,
            }
        };
        let blobs = async {
            match blobs {
                Some(blobs) => blobs.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The other parts may end because these servers did, so these reasons are the better error.
            biased;
            reason = broker => ended_by_itself("embedded broker", anyhow!(reason)),
            reason = blobs => ended_by_itself("embedded blob store", anyhow!(reason)),
            reason = ended(&mut self.dispatcher) => reason,
            reason = ended(&mut self.autoscaler) => reason,
            reason = ended(&mut self.blob_events) => reason,
        }
    }

    /// Stops everything within [`STOP_MAX`]; agents get `patience`, as far as there is time, to return their tasks to the
    /// queue.
    pub(super) async fn stop(self, patience: Duration) {
        let began = Instant::now();
        stop(self.autoscaler, began + AUTOSCALER_BY).await;
        if let Some(nodes) = self.nodes {
            let patience = patience.min((began + DRAINED_BY).saturating_duration_since(Instant::now()));
            // Agents that are left end with this process: their stdin closes, and their guardians kill their tasks.
            within("agents", began + NODES_BY, nodes.stop(patience)).await;
        }
        stop(self.dispatcher, began + DISPATCHER_BY).await;
        let stop_blobs = async {
            if let Some(blobs) = self.blobs {
                within("embedded blob store", began + BLOBS_BY, blobs.stop()).await;
            }
        };
        // The relay ends after the store's last event.
        tokio::join!(stop_blobs, stop(self.blob_events, began + BLOBS_BY));
        if let Some(broker) = self.broker {
            within("embedded broker", began + STOP_MAX, broker.stop()).await;
        }
    }
}

/// Waits for the end of something until a deadline.
async fn within(part: &str, deadline: Instant, stop: impl Future<Output = ()>) {
    if tokio::time::timeout_at(deadline, stop).await.is_err() {
        tracing::warn!(part, "a part of the stack does not end in time; ending without it");
    }
}

/// A part that runs as a task of this process, with its own stop.
pub(super) struct Part {
    name: &'static str,
    stop: watch::Sender<bool>,
    /// `None` once its end was seen.
    pub(super) task: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Part {
    pub(super) fn start<F>(name: &'static str, run: impl FnOnce(Stop) -> F) -> Part
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (stop, stopped) = watch::channel(false);
        Part { name, task: Some(tokio::spawn(run(Stop(stopped)))), stop }
    }

    /// Resolves with the reason when the part ends by itself.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        let Some(task) = &mut self.task else { return ended_by_itself(self.name, anyhow!("it ended before")) };
        let result = task.await;
        self.task = None;
        let reason = match result {
            Ok(Ok(())) => anyhow!("it stopped"),
            Ok(Err(error)) => error,
            Err(error) => error.into(),
        };
        ended_by_itself(self.name, reason)
    }

    async fn stop(self, deadline: Instant) {
        self.stop.send_replace(true);
        let Some(task) = self.task else { return };
        let abort = task.abort_handle();
        match tokio::time::timeout_at(deadline, task).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(part = self.name, error = format!("{error:#}"), "a part of the stack ended with an error"),
            Ok(Err(error)) => tracing::warn!(part = self.name, %error, "a part of the stack failed inside the program"),
            Err(_) => {
                tracing::warn!(part = self.name, "a part of the stack does not end in time; ending without it");
                abort.abort();
            }
        }
    }
}

/// Resolves with the reason when a part that was started ends by itself.
async fn ended(part: &mut Option<Part>) -> anyhow::Error {
    match part {
        Some(part) => part.ended().await,
        None => std::future::pending().await,
    }
}

async fn stop(part: Option<Part>, deadline: Instant) {
    if let Some(part) = part {
        part.stop(deadline).await;
    }
}

fn ended_by_itself(part: &str, reason: anyhow::Error) -> anyhow::Error {
    let failure = Failure::new(PART_ENDED, format!("the {part} ended by itself: {reason:#}"), "the log says more");
    reason.context(failure)
}

/// Resolves when the part shall stop.
pub(super) struct Stop(watch::Receiver<bool>);

impl Stop {
    pub(super) async fn wait(mut self) {
        if self.0.wait_for(|stop| *stop).await.is_err() {
            tracing::debug!("the stack that owns this part is gone; stopping the part");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn parts_that_do_not_end_share_one_deadline() {
        let hangs = |name| Some(Part::start(name, |_| std::future::pending()));
        let parts = Parts {
            blob_events: hangs("blob events"),
            dispatcher: hangs("dispatcher"),
            autoscaler: hangs("autoscaler"),
            ..Parts::default()
        };
        let began = Instant::now();
        parts.stop(Duration::from_secs(3_600)).await;
        // Twice the promise, and half of what one such wait after the other would take.
        assert!(began.elapsed() < STOP_MAX * 2, "{:?}", began.elapsed());
    }
}
