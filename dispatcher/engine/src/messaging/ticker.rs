//! Sends ticks to the engine. Ticks never wait for the broker; a second loop measures the queues beside them.
//!
//! ```text
//! measuring ──every 5 s, all queues together, one deadline──► [ last measurement ] ──► ticks ──every 250 ms──► engine
//! ```

use std::{collections::HashMap, sync::Arc, time::Duration};

use broker_config::topology;
use clients::amqp::{Link, LinkState};
use contract::ids::PoolId;
use futures::StreamExt;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};

use crate::{Engine, messages::Input};

/// Time between ticks.
const TICK: Duration = Duration::from_millis(250);
/// Time between two measurements of the queues.
const LOOK: Duration = Duration::from_secs(5);
/// Time limit for measuring all queues; the depth of a queue that has not answered by then is unknown.
const LOOK_MAX: Duration = Duration::from_secs(3);
/// Questions to the broker at the same time.
const QUESTIONS_MAX: usize = 16;
/// An older measurement no longer says whether events are waiting.
const LOOK_AGE_MAX: Duration = Duration::from_secs(10);
/// After the broker was away or blocked publishers, no node counts as silent for this long: agents reconnect with
/// pauses of up to ten seconds, then send heartbeats.
const HEARD_AGAIN: Duration = Duration::from_secs(20);
/// With this many events in the queue no node is counted as lost.
const EVENTS_BEHIND: u32 = 1;
/// With a fuller input queue no node is counted as lost.
const INPUTS_BEHIND: f64 = 0.5;

/// The last measurement of the queues.
#[derive(Debug, Clone)]
pub(super) struct Look {
    at: Instant,
    events: Option<u32>,
    depths: Arc<HashMap<PoolId, u32>>,
}

impl Look {
    /// The state before the first measurement.
    pub(super) fn none() -> Look {
        Look { at: Instant::now(), events: None, depths: Arc::default() }
    }

    /// Whether events may be waiting unread; true when the depth is unknown.
    fn is_behind(&self) -> bool {
        self.at.elapsed() > LOOK_AGE_MAX || self.events.is_none_or(|ready| ready > EVENTS_BEHIND)
    }
}

/// Whether heartbeats could arrive. While the broker blocks publishers, the silence of nodes means nothing.
#[derive(Debug, Default)]
struct Hearing {
    hindered_at: Option<Instant>,
}

impl Hearing {
    fn is_hindered(&mut self, state: LinkState, now: Instant) -> bool {
        if !matches!(state, LinkState::Connected { .. }) {
            self.hindered_at = Some(now);
        }
        self.hindered_at.is_some_and(|at| now.duration_since(at) < HEARD_AGAIN)
    }
}

/// Sends ticks until the engine or `stop` ends.
pub(super) async fn run(
    engine: Engine,
    link: watch::Receiver<LinkState>,
    mut looks: watch::Receiver<Look>,
    mut stop: watch::Receiver<bool>,
) {
    let mut hearing = Hearing::default();
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let is_new = looks.has_changed().unwrap_or(false);
        let look = looks.borrow_and_update().clone();
        let depths = if is_new { (*look.depths).clone() } else { HashMap::new() };
        let is_hindered = hearing.is_hindered(*link.borrow(), Instant::now());
        let events_behind = is_hindered || look.is_behind() || engine.load() > INPUTS_BEHIND;
        if engine.put(Input::Tick { events_behind, depths }).await.is_err() {
            return;
        }
    }
}

/// Measures the queues at intervals.
pub(super) async fn look(link: Link, engine: Engine, looks: watch::Sender<Look>, mut stop: watch::Receiver<bool>) {
    let mut interval = tokio::time::interval(LOOK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let pools = engine.pools();
        looks.send_replace(look_once(&link, &pools).await);
    }
}

/// Publishes a small message at intervals, so that the broker reports an alarm to this dispatcher even when it
/// publishes nothing else. Under an alarm the heartbeats of nodes are held up, and their silence means nothing.
pub(super) async fn probe(link: Link, mut stop: watch::Receiver<bool>) {
    let mut interval = tokio::time::interval(LOOK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let published = tokio::select! {
            published = link.probe() => published,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        if let Err(error) = published {
            tracing::debug!(%error, "the broker did not take a probe");
        }
    }
}

async fn look_once(link: &Link, pools: &[PoolId]) -> Look {
    let at = Instant::now();
    let events = async { link.depth(topology::EVENT_QUEUE).await.ok().map(|depth| depth.map_or(0, |depth| depth.ready)) };
    let mut depths = HashMap::new();
    let all = async {
        let questions = pools.iter().cloned().map(|pool| ready(link.clone(), pool));
        let mut answers = futures::stream::iter(questions).buffer_unordered(QUESTIONS_MAX);
        while let Some(answer) = answers.next().await {
            depths.extend(answer);
        }
    };
    let (events, _) = tokio::join!(tokio::time::timeout_at(at + LOOK_MAX, events), tokio::time::timeout_at(at + LOOK_MAX, all));
    Look { at, events: events.ok().flatten(), depths: Arc::new(depths) }
}

/// Ready task messages of a pool; `None` when the broker does not answer.
async fn ready(link: Link, pool: PoolId) -> Option<(PoolId, u32)> {
    let (plain, wide) = (topology::pool_queue(&pool), topology::wide_queue(&pool));
    let plain = link.depth(&plain).await.ok()?.map_or(0, |depth| depth.ready);
    let wide = link.depth(&wide).await.ok()?.map_or(0, |depth| depth.ready);
    Some((pool, plain + wide))
}

#[cfg(test)]
mod tests {
    use std::{
        net::SocketAddr,
        sync::atomic::{AtomicBool, Ordering},
    };

    use broker_config::settings::{BrokerSettings, Secret};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{
            TcpListener, TcpStream,
            tcp::{OwnedReadHalf, OwnedWriteHalf},
        },
    };

    use super::*;

    async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, is_silent: Arc<AtomicBool>) {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            if is_silent.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            if to.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    }

    /// A relay in front of a broker. While it is silent, it drops what arrives and keeps connections open.
    async fn relay(broker: SocketAddr, is_silent: Arc<AtomicBool>) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (from, to) = client.into_split();
                let (back, forth) = TcpStream::connect(broker).await.unwrap().into_split();
                tokio::spawn(carry(from, forth, is_silent.clone()));
                tokio::spawn(carry(back, to, is_silent.clone()));
            }
        });
        address
    }

    #[tokio::test]
    async fn ticks_come_though_the_broker_says_nothing_and_then_nobody_is_reaped() {
        let (engine, mut inputs) = Engine::detached();
        let (looks, seen) = watch::channel(Look::none());
        let (stop, stopped) = watch::channel(false);
        let (tell, link) = watch::channel(LinkState::Connected { generation: 1 });
        let ticks = tokio::spawn(run(engine, link, seen, stopped));
        let mut tick = async || match inputs.recv().await.unwrap() {
            Input::Tick { events_behind, depths } => (events_behind, depths),
            other => panic!("{other:?}"),
        };
        for _ in 0..3 {
            assert_eq!(tick().await, (true, HashMap::new()));
        }
        let depths = HashMap::from([("p".parse().unwrap(), 3)]);
        looks.send_replace(Look { at: Instant::now(), events: Some(0), depths: Arc::new(depths.clone()) });
        assert_eq!(tick().await, (false, depths));
        assert_eq!(tick().await, (false, HashMap::new()), "a depth is told once");
        tell.send_replace(LinkState::Blocked { generation: 1 });
        assert!(tick().await.0, "nobody can tell anything");
        let long_ago = Instant::now().checked_sub(2 * LOOK_AGE_MAX).unwrap();
        looks.send_replace(Look { at: long_ago, events: Some(0), depths: Arc::default() });
        assert!(tick().await.0, "an old look says nothing");
        stop.send_replace(true);
        ticks.await.unwrap();
    }

    #[test]
    fn nobody_is_silent_while_the_broker_takes_no_messages_and_shortly_after() {
        let (mut hearing, start) = (Hearing::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let well = LinkState::Connected { generation: 1 };
        assert!(!hearing.is_hindered(well, start));
        for seconds in [1, 61, 121] {
            assert!(hearing.is_hindered(LinkState::Blocked { generation: 1 }, after(seconds)));
        }
        assert!(hearing.is_hindered(well, after(121) + HEARD_AGAIN - TICK));
        assert!(!hearing.is_hindered(well, after(121) + HEARD_AGAIN));
        assert!(hearing.is_hindered(LinkState::Connecting, after(200)));
    }

    #[tokio::test]
    async fn a_look_at_many_queues_has_one_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let broker = embedded_broker::Broker::start(embedded_broker::Settings::new(any, folder.path(), "u", "p")).await.unwrap();
        let is_silent = Arc::new(AtomicBool::new(false));
        let address = relay(broker.address(), is_silent.clone()).await;
        let url = Secret::new(format!("amqp://u:p@{address}/%2f"));
        let link = Link::open(BrokerSettings { url, name: "test".to_owned() }).await.unwrap();
        link.declare(&topology::base()).await.unwrap();
        let pools: Vec<PoolId> = (0..40).map(|n| format!("pool-{n}").parse().unwrap()).collect();
        let look = look_once(&link, &pools).await;
        assert_eq!((look.is_behind(), look.depths.len()), (false, 40));
        is_silent.store(true, Ordering::SeqCst);
        let began = Instant::now();
        let look = look_once(&link, &pools).await;
        assert!(began.elapsed() < 2 * LOOK_MAX, "{:?}", began.elapsed());
        assert_eq!((look.is_behind(), look.depths.len()), (true, 0));
    }
}
