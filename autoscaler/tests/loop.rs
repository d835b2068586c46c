//! The whole loop against a real broker, with a fake dispatcher.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use autoscaler::Settings;
use broker_config::{
    settings::{BrokerSettings, Secret},
    topology::{self, SCALE_QUEUE},
};
use clients::amqp::{Link, Outgoing, Subscription};
use contract::{
    ids::{NodeId, PoolId},
    message::{NodeSnapshot, NodeTicket, PoolSnapshot, Reply, ReplyMessage, Request, RequestKind, VERSION},
    state::{AllocationState, DeallocationOption, NodeState, PoolState, SchedulingState},
};
use providers::{Instance, NodeProvider, ProviderError};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Fails a test that waits forever; nothing in here takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// An action of the loop, in order.
#[derive(Debug, PartialEq, Eq)]
enum Action {
    Asked(u32),
    Created(String),
    Drained(String),
    Deleted(String),
    Stopped(String),
    Started(String),
    Gone(String),
}

/// A provider with nodes in memory that records every action.
struct RecordingProvider {
    nodes: Mutex<BTreeSet<String>>,
    actions: mpsc::UnboundedSender<Action>,
    /// Holds back the nodes of the pool `slow`.
    gate: Semaphore,
    /// Calls that hang: nodes of the pools `hung…` are never made, and instances `stuck…` are deleted when `gate` is
    /// opened.
    hanging: AtomicUsize,
}

#[async_trait]
impl NodeProvider for RecordingProvider {
    async fn create(&self, pool: &PoolId, ticket: &NodeTicket) -> Result<(), ProviderError> {
        if pool.as_str() == "slow" {
            self.gate.acquire().await.unwrap().forget();
            self.actions.send(Action::Created("slow".to_owned())).unwrap();
            return Ok(());
        }
        if pool.as_str().starts_with("hung") {
            self.hanging.fetch_add(1, Ordering::Relaxed);
            return std::future::pending().await;
        }
        self.nodes.lock().unwrap().insert(ticket.node.to_string());
        self.actions.send(Action::Created(ticket.node.to_string())).unwrap();
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Instance>, ProviderError> {
        let instance =
            |node: &String| Instance { pool: "p".parse().unwrap(), node: node.parse().unwrap(), is_running: true, is_stopped: false };
        Ok(self.nodes.lock().unwrap().iter().map(instance).collect())
    }

    async fn stop(&self, _pool: &PoolId, node: &NodeId) -> Result<(), ProviderError> {
        self.actions.send(Action::Stopped(node.to_string())).unwrap();
        Ok(())
    }

    async fn start(&self, _pool: &PoolId, node: &NodeId) -> Result<(), ProviderError> {
        self.actions.send(Action::Started(node.to_string())).unwrap();
        Ok(())
    }

    async fn delete(&self, _pool: &PoolId, node: &NodeId) -> Result<(), ProviderError> {
        if node.as_str().starts_with("stuck") {
            self.hanging.fetch_add(1, Ordering::Relaxed);
            self.gate.acquire().await.unwrap().forget();
        }
        self.nodes.lock().unwrap().remove(node.as_str());
        self.actions.send(Action::Deleted(node.to_string())).unwrap();
        Ok(())
    }
}

/// Answers as a dispatcher with one pool whose size the test sets.
struct FakeDispatcher {
    target: u32,
    nodes: Vec<NodeSnapshot>,
    /// Requests for nodes of the pool `slow`, which always wants one; absent without that pool.
    slow: Option<u32>,
    /// Pools that always want eight nodes.
    hung: usize,
    actions: mpsc::UnboundedSender<Action>,
}

impl FakeDispatcher {
    fn answer(&mut self, what: RequestKind) -> Reply {
        match what {
            RequestKind::Snapshot => {
                let greedy = |pool: String, target_dedicated| PoolSnapshot {
                    pool: pool.parse().unwrap(),
                    target_dedicated,
                    nodes: vec![],
                    ..self.pool()
                };
                let slow = self.slow.map(|_| greedy("slow".to_owned(), 1));
                let hung = (0..self.hung).map(|number| greedy(format!("hung{number}"), 8));
                Reply::Snapshot { boot: 1, pools: slow.into_iter().chain(hung).chain([self.pool()]).collect() }
            }
            RequestKind::CreateNodes { pool, count } if pool.as_str().starts_with("hung") => {
                let nodes = (0..count).map(|number| format!("n{number}").parse().unwrap());
                Reply::Nodes { nodes: nodes.map(|node| NodeTicket { node, token: "t".into() }).collect() }
            }
            RequestKind::CreateNodes { pool, .. } if pool.as_str() == "slow" => {
                *self.slow.as_mut().unwrap() += 1;
                Reply::Nodes { nodes: vec![NodeTicket { node: "s".parse().unwrap(), token: "t".into() }] }
            }
            RequestKind::CreateNodes { count, .. } => {
                self.actions.send(Action::Asked(count)).unwrap();
                let nodes: Vec<_> = (0..count).map(|number| format!("n{number}").parse::<NodeId>().unwrap()).collect();
                self.nodes.extend(nodes.iter().cloned().map(idle));
                Reply::Nodes { nodes: nodes.into_iter().map(|node| NodeTicket { node, token: "t".into() }).collect() }
            }
            RequestKind::DrainNode { node, .. } => {
                let row = self.nodes.iter_mut().find(|row| row.node == node).unwrap();
                (row.is_draining, row.is_drained) = (true, true);
                self.actions.send(Action::Drained(node.to_string())).unwrap();
                Reply::Done
            }
            RequestKind::NodeGone { node, .. } => {
                self.nodes.retain(|row| row.node != node);
                self.actions.send(Action::Gone(node.to_string())).unwrap();
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
            reason: String::new(),
            failed_creations: 0,
            creation_rests_ms: 0,
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
        power: None,
    }
}

async fn serve(link: Link, dispatcher: Arc<Mutex<FakeDispatcher>>) {
    let mut questions = link.subscribe(Subscription::plain(SCALE_QUEUE, 16)).await.unwrap();
    while let Some(question) = questions.next().await {
        let request: Request = question.message().unwrap();
        let reply = ReplyMessage { v: VERSION, what: dispatcher.lock().unwrap().answer(request.what) };
        let (to, id) = (question.reply_to.clone().unwrap(), question.correlation_id.clone().unwrap());
        let answer = Outgoing::message("", to, &reply).unwrap().transient().optional().correlation(id);
        link.publisher().publish(answer).await.unwrap();
        questions.acker().ack(question.tag);
    }
}

/// The loop over a broker of its own.
struct Harness {
    _folder: tempfile::TempDir,
    broker: embedded_broker::Broker,
    link: Link,
    dispatcher: Arc<Mutex<FakeDispatcher>>,
    provider: Arc<RecordingProvider>,
    done: mpsc::UnboundedReceiver<Action>,
    server: tokio::task::JoinHandle<()>,
    stop: oneshot::Sender<()>,
    scaler: tokio::task::JoinHandle<Result<(), autoscaler::Error>>,
}

impl Harness {
    async fn start(nodes: BTreeSet<String>, slow: Option<u32>) -> Harness {
        let folder = tempfile::tempdir().unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let broker = embedded_broker::Broker::start(embedded_broker::Settings::new(listen, folder.path(), "u", "p")).await.unwrap();
        let settings = BrokerSettings { url: Secret::new(broker.url()), name: "test".into() };
        let link = Link::open(settings.clone()).await.unwrap();
        link.declare(&topology::base()).await.unwrap();
        let (actions, done) = mpsc::unbounded_channel();
        let dispatcher = Arc::new(Mutex::new(FakeDispatcher { target: 1, nodes: vec![], slow, hung: 0, actions: actions.clone() }));
        let server = tokio::spawn(serve(link.clone(), dispatcher.clone()));
        let provider =
            Arc::new(RecordingProvider { nodes: Mutex::new(nodes), actions, gate: Semaphore::new(0), hanging: AtomicUsize::new(0) });
        let (stop, stopped) = oneshot::channel::<()>();
        let settings = Settings { tick: Duration::from_millis(5), broker: settings };
        let scaler = tokio::spawn(autoscaler::run(settings, provider.clone(), async move {
            let _ = stopped.await;
        }));
        Harness { _folder: folder, broker, link, dispatcher, provider, done, server, stop, scaler }
    }

    async fn next(&mut self) -> Action {
        tokio::time::timeout(PATIENCE, self.done.recv()).await.unwrap().unwrap()
    }

    async fn hanging(&self, count: usize) {
        let looking = async {
            while self.provider.hanging.load(Ordering::Relaxed) < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("never {count} calls"));
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.scaler.await.unwrap().unwrap();
        self.link.close().await;
        self.server.await.unwrap();
        self.broker.stop().await;
    }
}

#[tokio::test]
async fn nodes_are_rows_before_they_are_made_drained_before_they_are_deleted_and_orphans_go() {
    let mut harness = Harness::start(["orphan".to_owned()].into(), None).await;
    // The orphan is deleted while the pool is scaled.
    let mut actions = [harness.next().await, harness.next().await, harness.next().await];
    actions.sort_by_key(|action| matches!(action, Action::Deleted(_)));
    assert_eq!(actions, [Action::Asked(1), Action::Created("n0".into()), Action::Deleted("orphan".into())]);
    harness.dispatcher.lock().unwrap().target = 0;
    assert_eq!(harness.next().await, Action::Drained("n0".into()));
    assert_eq!(harness.next().await, Action::Deleted("n0".into()));
    assert_eq!(harness.next().await, Action::Gone("n0".into()));
    harness.stop().await;
}

#[tokio::test]
async fn a_pool_whose_provider_takes_for_ever_holds_up_no_other() {
    let mut harness = Harness::start(BTreeSet::new(), Some(0)).await;
    assert_eq!(harness.next().await, Action::Asked(1));
    assert_eq!(harness.next().await, Action::Created("n0".into()));
    harness.dispatcher.lock().unwrap().target = 0;
    assert_eq!(harness.next().await, Action::Drained("n0".into()));
    assert_eq!(harness.next().await, Action::Deleted("n0".into()));
    assert_eq!(harness.next().await, Action::Gone("n0".into()));
    assert_eq!(harness.dispatcher.lock().unwrap().slow, Some(1), "what is under way is not asked for again");
    harness.provider.gate.add_permits(1);
    assert_eq!(harness.next().await, Action::Created("slow".into()));
    harness.stop().await;
}

#[tokio::test]
async fn pools_whose_calls_all_hang_leave_every_other_its_place() {
    let mut harness = Harness::start(BTreeSet::new(), None).await;
    assert_eq!((harness.next().await, harness.next().await), (Action::Asked(1), Action::Created("n0".into())));
    harness.dispatcher.lock().unwrap().hung = 12;
    // One call on each pool's own permit, and one on every shared permit.
    harness.hanging(12 + 64).await;
    harness.dispatcher.lock().unwrap().target = 0;
    assert_eq!(harness.next().await, Action::Drained("n0".into()));
    assert_eq!(harness.next().await, Action::Deleted("n0".into()));
    assert_eq!(harness.next().await, Action::Gone("n0".into()));
    assert_eq!(harness.provider.hanging.load(Ordering::Relaxed), 12 + 64, "and no more than that");
    harness.stop().await;
}

#[tokio::test]
async fn orphans_whose_deletion_hangs_are_bounded_and_hold_up_no_pool() {
    let mut harness = Harness::start((0..40).map(|number| format!("stuck{number}")).collect(), None).await;
    harness.hanging(16).await;
    assert_eq!((harness.next().await, harness.next().await), (Action::Asked(1), Action::Created("n0".into())));
    harness.dispatcher.lock().unwrap().target = 0;
    assert_eq!(harness.next().await, Action::Drained("n0".into()));
    assert_eq!(harness.next().await, Action::Deleted("n0".into()));
    assert_eq!(harness.next().await, Action::Gone("n0".into()));
    assert_eq!(harness.provider.hanging.load(Ordering::Relaxed), 16);
    harness.provider.gate.add_permits(40);
    let mut left: BTreeSet<String> = (0..40).map(|number| format!("stuck{number}")).collect();
    while !left.is_empty() {
        let action = harness.next().await;
        let Action::Deleted(node) = &action else { panic!("{action:?}") };
        left.remove(node);
    }
    harness.stop().await;
}
