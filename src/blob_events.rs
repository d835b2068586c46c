//! Publishes the embedded blob store's events to the broker, so that other programs can follow a bucket.
//! Wired by `stack.rs`; the callback runs on the store's own thread, the relay as a part of the stack.

use std::{future::Future, sync::Arc, time::Duration};

use broker_config::{settings::BrokerSettings, topology};
use clients::amqp::{AmqpError, Link, Outgoing};
use contract::body::Format;
use embedded_blobs::{Event, OnEvent};
use tokio::sync::mpsc;

/// Events between the store's thread and the relay; beyond them the store buffers a bounded number of its own.
const WAITING_MAX: usize = 1024;
/// Events published together.
const BATCH_MAX: usize = 256;
/// Tries for one batch before it is given up.
const TRIES_MAX: u32 = 60;
/// Time between two tries.
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// A callback for the store, and the receiver of its events.
pub(crate) fn channel() -> (OnEvent, mpsc::Receiver<Event>) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let on_event = move |event| {
        if sender.blocking_send(event).is_err() {
            tracing::warn!("an event of the blob store came after its relay had ended, so it is lost");
        }
    };
    (Arc::new(on_event), receiver)
}

/// Publishes events until their source ends; after `shutdown` a failed batch is not tried again.
pub(crate) async fn relay(
    broker: BrokerSettings,
    mut events: mpsc::Receiver<Event>,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut shutdown = std::pin::pin!(shutdown);
    let (mut link, mut batch, mut is_stopping) = (None, Vec::new(), false);
    while events.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let mut left: Vec<_> = batch.drain(..).map(|event| outgoing(&event)).collect();
        let mut tries = 0;
        loop {
            let Err((failed, error)) = publish(&mut link, &broker, left).await else { break };
            tries += 1;
            if is_stopping || tries >= TRIES_MAX {
                tracing::warn!(%error, events = failed.len(), "events of the blob store could not be published and are lost");
                break;
            }
            tracing::debug!(%error, events = failed.len(), "events of the blob store wait for the broker");
            left = failed;
            tokio::select! {
                () = tokio::time::sleep(RETRY_WAIT) => {}
                () = &mut shutdown => is_stopping = true,
            }
        }
    }
    if let Some(link) = link {
        link.close().await;
    }
    Ok(())
}

fn outgoing(event: &Event) -> Outgoing {
    let body = event.to_json().to_string().into_bytes();
    // `optional`: a bucket without subscribers is no error.
    Outgoing::raw(topology::BLOBS, event.bucket.as_str(), body, Format::Json).optional()
}

/// Publishes a batch; returns the events that failed.
async fn publish(link: &mut Option<Link>, broker: &BrokerSettings, batch: Vec<Outgoing>) -> Result<(), (Vec<Outgoing>, AmqpError)> {
    // Opened by the first event: a stack whose buckets have no events needs no connection for it.
    let live = match link.take() {
        Some(live) => live,
        None => match open(broker).await {
            Ok(live) => live,
            Err(error) => return Err((batch, error)),
        },
    };
    let results = link.insert(live).publisher().publish_all(batch.clone()).await;
    let mut reason = None;
    let failed: Vec<_> = batch
        .into_iter()
        .zip(results)
        .filter_map(|(outgoing, result)| {
            reason = Some(result.err()?);
            Some(outgoing)
        })
        .collect();
    reason.map_or(Ok(()), |reason| Err((failed, reason)))
}

async fn open(broker: &BrokerSettings) -> Result<Link, AmqpError> {
    let link = Link::open(broker.clone()).await?;
    link.declare(&topology::base()).await?;
    Ok(link)
}

#[cfg(test)]
mod tests {
    use broker_config::{
        settings::Secret,
        topology::{Queue, Topology},
    };
    use clients::amqp::Subscription;
    use embedded_blobs::{Asked, Happening};
    use embedded_broker::{Broker, Settings};

    use super::*;

    const WAIT_MAX: Duration = Duration::from_secs(60);

    fn event(key: &str) -> Event {
        Event {
            what: Happening::Deleted,
            bucket: "bucket".to_owned(),
            key: key.to_owned(),
            content: None,
            at_ms: 0,
            sequencer: "01".to_owned(),
            asked: Asked { id: "all".to_owned(), arn: "arn".to_owned() },
            region: "us-east-1".to_owned(),
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn events_wait_for_a_broker_that_is_away() {
        let folder = tempfile::tempdir().unwrap();
        let broker = |port| Broker::start(Settings::new(([127, 0, 0, 1], port).into(), folder.path(), "guest", "guest"));
        let first = broker(0).await.unwrap();
        let settings = BrokerSettings { url: Secret::new(first.url()), name: "test".to_owned() };
        let link = Link::open(settings.clone()).await.unwrap();
        link.declare(&topology::base()).await.unwrap();
        let follower = Queue { name: "follower".to_owned(), arguments: vec![], bindings: vec![(topology::BLOBS, "bucket".to_owned())] };
        link.declare(&Topology { exchanges: vec![], queues: vec![follower] }).await.unwrap();
        link.close().await;
        let port = first.address().port();
        first.stop().await;

        let (on_event, events) = channel();
        let relaying = tokio::spawn(relay(settings.clone(), events, std::future::pending()));
        let on_blob_event = on_event.clone();
        tokio::task::spawn_blocking(move || ["one", "two"].into_iter().for_each(|key| on_blob_event(event(key)))).await.unwrap();
        let second = broker(port).await.unwrap();
        let link = Link::open(settings).await.unwrap();
        let mut consumer = link.subscribe(Subscription::plain("follower", 10)).await.unwrap();
        for key in ["one", "two"] {
            let delivery = tokio::time::timeout(WAIT_MAX, consumer.next()).await.expect("an event").expect("a consumer");
            let body: serde_json::Value = serde_json::from_slice(&delivery.body).unwrap();
            assert_eq!(body["Records"][0]["s3"]["object"]["key"], key);
            consumer.acker().ack(delivery.tag);
        }
        drop(on_event);
        tokio::time::timeout(WAIT_MAX, relaying).await.expect("the relay ends with its source").unwrap().unwrap();
        link.close().await;
        second.stop().await;
    }
}
