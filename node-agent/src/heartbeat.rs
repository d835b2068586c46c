//! Sends heartbeats from a thread and a broker connection of their own, which wait for no file and no other work.
//!
//! The agent's loop hands over the next heartbeat; when none comes for a while, the last one is sent again. So a node
//! whose loop is busy keeps its lease, and one whose loop hangs is killed by its guardian, with its runs.

use std::{io, thread, time::Duration};

use broker_config::{settings::BrokerSettings, topology};
use clients::amqp::{Link, Outgoing, Publisher};
use contract::message::Heartbeat;
use tokio::{
    sync::{oneshot, watch},
    time::{sleep, timeout},
};

/// Shortest period of heartbeats, whatever the dispatcher orders.
pub const HEARTBEAT_MIN_MS: u64 = 50;
/// Timeout of one publish; a later heartbeat would be worthless.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Periods without a new heartbeat after which the last one is sent again.
const PERIODS_MAX: u32 = 2;
/// Longest wait for the end of the thread.
const FINISH_MAX: Duration = Duration::from_secs(2);
const STACK_BYTES: usize = 1024 * 1024;

/// The next heartbeat to send.
#[derive(Debug, Clone)]
pub struct Shown {
    pub heartbeat: Heartbeat,
    /// The queue that gets the dispatcher's reply; absent until it is declared.
    pub reply_to: Option<String>,
}

/// Handle of the sending thread, which ends when this is dropped.
#[derive(Debug)]
pub struct HeartbeatThread {
    shown: watch::Sender<Option<Shown>>,
    ended: oneshot::Receiver<()>,
}

impl HeartbeatThread {
    /// Starts the thread, which connects by itself; it sends nothing before the first `show`.
    pub fn start(broker: BrokerSettings, period: Duration) -> io::Result<HeartbeatThread> {
        let (shown, to_send) = watch::channel(None);
        let (end, ended) = oneshot::channel();
        thread::Builder::new().name("heartbeat".into()).stack_size(STACK_BYTES).spawn(move || {
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    runtime.block_on(serve(broker, period, to_send));
                    runtime.shutdown_background();
                }
                Err(error) => tracing::error!(%error, "the heartbeat thread cannot start; the dispatcher will take this node for lost"),
            }
            // The receiver is gone when the agent was dropped.
            end.send(()).ok();
        })?;
        Ok(HeartbeatThread { shown, ended })
    }

    /// Sends this heartbeat; it replaces one that was not sent yet.
    pub fn show(&self, shown: Shown) {
        self.shown.send_replace(Some(shown));
    }

    /// Stops sending and waits until the connection is closed.
    pub async fn finish(self) {
        drop(self.shown);
        if timeout(FINISH_MAX, self.ended).await.is_err() {
            tracing::debug!("the heartbeat connection was not closed in time");
        }
    }
}

async fn serve(broker: BrokerSettings, period: Duration, mut to_send: watch::Receiver<Option<Shown>>) {
    let Some(link) = connect(broker, &to_send).await else { return };
    let publisher = link.publisher();
    loop {
        match timeout(period * PERIODS_MAX, to_send.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => break,
            Err(_) => tracing::warn!("the agent's loop is late with its heartbeat; sending the last one again"),
        }
        let Some(shown) = to_send.borrow_and_update().clone() else { continue };
        send(&publisher, shown).await;
    }
    drop(publisher);
    link.close().await;
}

/// Connects, again and again; `None` once the agent has ended.
async fn connect(broker: BrokerSettings, to_send: &watch::Receiver<Option<Shown>>) -> Option<Link> {
    // A connection of its own, so metrics do not take it for the agent's other one.
    let broker = BrokerSettings { name: broker.name.replacen(" agent ", " heartbeats ", 1), ..broker };
    let mut pause = PAUSE_FIRST;
    // A closed channel means that the agent has ended.
    while to_send.has_changed().is_ok() {
        match Link::open_single(broker.clone()).await {
            Ok(link) => return Some(link),
            Err(error) => tracing::warn!(%error, "cannot connect to the broker for heartbeats; trying again"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
    None
}

async fn send(publisher: &Publisher, Shown { heartbeat, reply_to }: Shown) {
    let mut outgoing = match Outgoing::message(topology::HEARTBEATS, "beat", &heartbeat) {
        Ok(outgoing) => outgoing.transient().optional(),
        Err(error) => return tracing::error!(%error, "a heartbeat cannot be serialized and is not sent"),
    };
    if let Some(queue) = reply_to {
        outgoing = outgoing.reply_to(queue);
    }
    match timeout(SEND_TIMEOUT, publisher.publish(outgoing)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a heartbeat was lost; the next one follows"),
        Err(_) => tracing::debug!("the broker did not confirm a heartbeat in time; the next one follows"),
    }
}

#[cfg(test)]
mod tests {
    use broker_config::settings::Secret;
    use clients::amqp::Subscription;
    use contract::{
        ids::{Epoch, NodeId, PoolId},
        message::VERSION,
    };

    use super::*;

    /// Fails a test that waits forever; nothing in here takes longer.
    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn heartbeats_go_on_while_the_loop_shows_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let settings = embedded_broker::Settings::new("127.0.0.1:0".parse().unwrap(), folder.path().join("broker"), "user", "password");
        let broker = embedded_broker::Broker::start(settings).await.unwrap();
        let settings = BrokerSettings { url: Secret::new(broker.url()), name: "test".into() };
        let link = Link::open(settings.clone()).await.unwrap();
        link.declare(&topology::base()).await.unwrap();
        let mut heartbeats = link.subscribe(Subscription::plain(topology::HEARTBEAT_QUEUE, 64)).await.unwrap();
        let heartbeat_thread = HeartbeatThread::start(settings, Duration::from_millis(50)).unwrap();
        let (pool, node): (PoolId, NodeId) = ("p".parse().unwrap(), "n".parse().unwrap());
        for free_slots in [1, 2] {
            let (pool, node) = (pool.clone(), node.clone());
            let (live, kept, job_tasks) = (vec![], vec![], vec![]);
            let heartbeat = Heartbeat {
                v: VERSION,
                pool,
                node,
                epoch: Epoch(1),
                live,
                kept,
                free_slots,
                is_consuming: true,
                job_tasks,
                report: None,
                sets_aside: None,
                invocations: 0,
            };
            heartbeat_thread.show(Shown { heartbeat, reply_to: Some("answers".into()) });
            // One `show` leads to several heartbeats.
            let mut times = 0;
            while times < 3 {
                let delivery = timeout(PATIENCE, heartbeats.next()).await.unwrap().unwrap();
                assert_eq!(delivery.reply_to.as_deref(), Some("answers"));
                times += u32::from(delivery.message::<Heartbeat>().unwrap().free_slots == free_slots);
            }
        }
        heartbeat_thread.finish().await;
        drop(heartbeats);
        link.close().await;
        broker.stop().await;
    }
}
