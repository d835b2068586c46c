//! The whole loop over a real broker, with the dispatcher's side played by hand.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use autoscaler::{Error, Instance, NodeProvider, Settings};
use broker_config::{
    amqp::{Link, Outgoing, Subscription},
    ids::{NodeId, PoolId},
    message::{NodeSnapshot, NodeTicket, PoolSnapshot, Reply, ReplyMessage, Request, RequestKind, VERSION},
    settings::{BrokerSettings, Secret},
    state::{AllocationState, DeallocationOption, NodeState, PoolState, SchedulingState},
    topology::{self, SCALE_QUEUE},
};
use tokio::sync::{mpsc, oneshot};

/// Far longer than anything here takes; only a test that fails gets there.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the loop did, in order.
#[derive(Debug, PartialEq, Eq)]
enum Deed {
    Asked(u32),
    Created(String),
    Drained(String),
    Deleted(String),
    Stopped(String),
    Started(String),
    Gone(String),
}

/// Nodes in memory, and a note of every deed.
struct Notes {
    nodes: Mutex<BTreeSet<String>>,
    deeds: mpsc::UnboundedSender<Deed>,
}

#[async_trait]
impl NodeProvider for Notes {
    async fn create(&self, _pool: &PoolId, ticket: &NodeTicket) -> Result<(), Error> {
        self.nodes.lock().unwrap().insert(ticket.node.to_string());
        self.deeds.send(Deed::Created(ticket.node.to_string())).unwrap();
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Instance>, Error> {
        let instance =
            |node: &String| Instance { pool: "p".parse().unwrap(), node: node.parse().unwrap(), is_running: true, is_stopped: false };
        Ok(self.nodes.lock().unwrap().iter().map(instance).collect())
    }

    async fn stop(&self, _pool: &PoolId, node: &NodeId) -> Result<(), Error> {
        self.deeds.send(Deed::Stopped(node.to_string())).unwrap();
        Ok(())
    }

    async fn start(&self, _pool: &PoolId, node: &NodeId) -> Result<(), Error> {
        self.deeds.send(Deed::Started(node.to_string())).unwrap();
        Ok(())
    }

    async fn delete(&self, _pool: &PoolId, node: &NodeId) -> Result<(), Error> {
        self.nodes.lock().unwrap().remove(node.as_str());
        self.deeds.send(Deed::Deleted(node.to_string())).unwrap();
        Ok(())
    }
}

/// The dispatcher's rows: one pool that is set by hand.
struct Rows {
    target: u32,
    nodes: Vec<NodeSnapshot>,
    deeds: mpsc::UnboundedSender<Deed>,
}

impl Rows {
    fn answer(&mut self, what: RequestKind) -> Reply {
        match what {
            RequestKind::Snapshot => Reply::Snapshot { boot: 1, pools: vec![self.pool()] },
            RequestKind::CreateNodes { count, .. } => {
                self.deeds.send(Deed::Asked(count)).unwrap();
                let nodes: Vec<_> = (0..count).map(|number| format!("n{number}").parse::<NodeId>().unwrap()).collect();
                self.nodes.extend(nodes.iter().cloned().map(idle));
                Reply::Nodes { nodes: nodes.into_iter().map(|node| NodeTicket { node, token: "t".into() }).collect() }
            }
            RequestKind::DrainNode { node, .. } => {
                let row = self.nodes.iter_mut().find(|row| row.node == node).unwrap();
                (row.is_draining, row.is_drained) = (true, true);
                self.deeds.send(Deed::Drained(node.to_string())).unwrap();
                Reply::Done
            }
            RequestKind::NodeGone { node, .. } => {
                self.nodes.retain(|row| row.node != node);
                self.deeds.send(Deed::Gone(node.to_string())).unwrap();
                Reply::Done
            }
            _ => Reply::Done,
        }
    }

    fn pool(&self) -> PoolSnapshot {
        PoolSnapshot {
            pool: "p".parse().unwrap(),
            state: PoolState::Active,
            allocation: AllocationState::Steady,
            target_dedicated: self.target,
            target_low_priority: 0,
            deallocation: DeallocationOption::Requeue,
            policy: None,
            slots_per_node: 1,
            waiting_slots: 0,
            running_slots: 0,
            waiting_for_ms: 0,
            nodes: self.nodes.clone(),
        }
    }
}

fn idle(node: NodeId) -> NodeSnapshot {
    NodeSnapshot {
        node,
        state: NodeState::Idle,
        scheduling: SchedulingState::Enabled,
        runs: 0,
        idle_ms: 0,
        state_ms: 0,
        is_draining: false,
        is_drained: false,
        is_dedicated: true,
        token: None,
        power: None,
    }
}

async fn play(link: Link, rows: Arc<Mutex<Rows>>) {
    let mut questions = link.subscribe(Subscription::plain(SCALE_QUEUE, 16)).await.unwrap();
    while let Some(question) = questions.next().await {
        let request: Request = question.message().unwrap();
        let reply = ReplyMessage { v: VERSION, what: rows.lock().unwrap().answer(request.what) };
        let (to, id) = (question.reply_to.clone().unwrap(), question.correlation_id.clone().unwrap());
        let answer = Outgoing::message("", to, &reply).unwrap().transient().optional().correlation(id);
        link.publisher().publish(answer).await.unwrap();
        questions.acker().ack(question.tag);
    }
}

#[tokio::test]
async fn nodes_are_rows_before_they_are_made_drained_before_they_are_deleted_and_orphans_go() {
    let folder = tempfile::tempdir().unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let broker = embedded_broker::Broker::start(embedded_broker::Settings::new(listen, folder.path(), "u", "p")).await.unwrap();
    let settings = BrokerSettings { url: Secret::new(broker.url()), name: "test".into() };
    let link = Link::open(settings.clone()).await.unwrap();
    link.declare(&topology::base()).await.unwrap();

    let (deeds, mut done) = mpsc::unbounded_channel();
    let rows = Arc::new(Mutex::new(Rows { target: 1, nodes: vec![], deeds: deeds.clone() }));
    let player = tokio::spawn(play(link.clone(), rows.clone()));
    let provider = Notes { nodes: Mutex::new(["orphan".to_owned()].into()), deeds };
    let (stop, stopped) = oneshot::channel::<()>();
    let settings = Settings { tick: Duration::from_millis(5), broker: settings };
    let scaler = tokio::spawn(autoscaler::run(settings, provider, async move {
        let _ = stopped.await;
    }));

    let mut next = async || tokio::time::timeout(PATIENCE, done.recv()).await.unwrap().unwrap();
    assert_eq!(next().await, Deed::Asked(1));
    assert_eq!(next().await, Deed::Created("n0".into()));
    assert_eq!(next().await, Deed::Deleted("orphan".into()));
    rows.lock().unwrap().target = 0;
    assert_eq!(next().await, Deed::Drained("n0".into()));
    assert_eq!(next().await, Deed::Deleted("n0".into()));
    assert_eq!(next().await, Deed::Gone("n0".into()));

    stop.send(()).unwrap();
    scaler.await.unwrap().unwrap();
    link.close().await;
    player.await.unwrap();
    broker.stop().await;
}
