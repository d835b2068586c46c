//! Test environment: an embedded broker and blob store, and a dispatcher that answers as the test scripts it.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use broker_config::{
    settings::{BlobSettings, BrokerSettings, Secret},
    topology::{self, QueueKind},
};
use clients::{
    amqp::{Consumer, Link, Outgoing, Subscription},
    blobs::Blobs,
};
use contract::{
    function::PoolFunctions,
    ids::{AttemptKey, Epoch, Fence, NodeId, PoolId, TaskUid},
    job_task::JobTask,
    message::{
        AgentEvent, Answer, Ask, Control, ControlKind, EventBatch, Finished, Heartbeat, HeartbeatReply, Join, Joined, NodeOrder,
        NodeReport, Reply, ReplyMessage, Request, RequestKind, Start, Started, TaskMessage, VERSION, Verdict,
    },
    outcome::{JobTaskEnd, JobTaskKey},
    spec::{FillType, StartTask, TaskSpec},
};
use node_agent::{AgentError, DiskLimits, Ending, Settings};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

/// Fails a test that waits forever; nothing in a test takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The dispatcher's answers, changed by the test as it runs.
pub struct Script {
    pub slots: u32,
    pub lease_ms: u64,
    pub start_task: Option<StartTask>,
    pub answers: VecDeque<Answer>,
    pub may_publish: bool,
    pub order: NodeOrder,
    pub is_reimaged: bool,
    pub packages: Vec<contract::spec::Package>,
    pub boot: u64,
    pub records: bool,
    pub fenced: Vec<contract::ids::RunId>,
    pub joins: Vec<Join>,
    /// Sent with every heartbeat reply until the heartbeat names them.
    pub releases: Vec<JobTask>,
    pub over: Vec<JobTaskKey>,
    /// The task that slots are kept for.
    pub keep: Option<Box<TaskMessage>>,
    /// The wide task that no slots shall be reserved for.
    pub unwanted: Option<AttemptKey>,
    pub functions: PoolFunctions,
}

/// Handle to end an agent, and its result.
type Running = (oneshot::Sender<Ending>, JoinHandle<Result<(), AgentError>>);

pub struct Harness {
    pub folder: tempfile::TempDir,
    pub broker: Option<embedded_broker::Broker>,
    store: Option<embedded_blobs::Blobs>,
    pub blob_settings: Option<BlobSettings>,
    pub blobs: Option<Blobs>,
    pub link: Link,
    pub script: Arc<Mutex<Script>>,
    pub asked: mpsc::Receiver<Ask>,
    pub events: mpsc::Receiver<AgentEvent>,
    pub heartbeats: mpsc::Receiver<Heartbeat>,
    pub disk_limits: DiskLimits,
    /// The node's folder, when it is not beside the broker's.
    pub other_root: Option<PathBuf>,
    work: Vec<JoinHandle<()>>,
    agent: Option<Running>,
}

pub fn pool() -> PoolId {
    "pool".parse().unwrap()
}

pub fn node() -> NodeId {
    "node".parse().unwrap()
}

fn broker_settings(url: &str) -> BrokerSettings {
    BrokerSettings { url: Secret::new(url), name: "test".into() }
}

/// Settings of the test's blob store.
pub fn blob_settings(endpoint: String) -> BlobSettings {
    BlobSettings {
        endpoint,
        region: "us-east-1".into(),
        access_key: "key".into(),
        secret_key: Secret::new("secretsecret"),
        bucket: "users".into(),
        own_bucket: "piecework".into(),
    }
}

impl Harness {
    /// Starts broker and dispatcher without an agent.
    pub async fn new(slots: u32) -> Harness {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("broker");
        let settings = embedded_broker::Settings::new("127.0.0.1:0".parse().unwrap(), data, "user", "password");
        let broker = embedded_broker::Broker::start(settings).await.unwrap();
        let link = Link::open_to_any(broker_settings(&broker.url())).await.unwrap();
        link.declare(&topology::base()).await.unwrap();
        link.declare(&topology::pool(&pool(), QueueKind::Classic)).await.unwrap();
        let script = Script {
            slots,
            lease_ms: 60_000,
            start_task: None,
            answers: VecDeque::new(),
            may_publish: true,
            order: NodeOrder::Work,
            is_reimaged: false,
            packages: Vec::new(),
            boot: 1,
            records: true,
            fenced: vec![],
            joins: vec![],
            releases: vec![],
            over: vec![],
            keep: None,
            unwanted: None,
            functions: PoolFunctions::default(),
        };
        let script = Arc::new(Mutex::new(script));
        let (asks_in, asked) = mpsc::channel(100_000);
        let (events_in, events) = mpsc::channel(100_000);
        let (heartbeats_in, heartbeats) = mpsc::channel(100_000);
        let asks = link.subscribe(Subscription::plain(topology::ASK_QUEUE, 64)).await.unwrap();
        let happened = link.subscribe(Subscription::plain(topology::EVENT_QUEUE, 64)).await.unwrap();
        let alive = link.subscribe(Subscription::plain(topology::HEARTBEAT_QUEUE, 64)).await.unwrap();
        let work = vec![
            tokio::spawn(answer_asks(link.clone(), asks, script.clone(), asks_in)),
            tokio::spawn(read_events(happened, events_in)),
            tokio::spawn(answer_heartbeats(link.clone(), alive, script.clone(), heartbeats_in)),
        ];
        let broker = Some(broker);
        let disk_limits = DiskLimits::default();
        Harness {
            folder,
            broker,
            store: None,
            blob_settings: None,
            blobs: None,
            link,
            script,
            asked,
            events,
            heartbeats,
            disk_limits,
            other_root: None,
            work,
            agent: None,
        }
    }

    /// Starts broker, dispatcher and an agent, and waits until it has joined.
    pub async fn with_agent(slots: u32) -> Harness {
        let mut harness = Harness::new(slots).await;
        harness.start_agent();
        harness.report().await;
        harness
    }

    /// Adds a blob store with a bucket `users`.
    pub async fn add_blobs(&mut self) {
        let data = self.folder.path().join("blobs");
        let settings = embedded_blobs::Settings::new("127.0.0.1:0".parse().unwrap(), data, "key", "secretsecret");
        let store = embedded_blobs::Blobs::start(settings).await.unwrap();
        let settings = blob_settings(store.endpoint());
        let blobs = Blobs::new(settings.clone()).unwrap();
        blobs.check().await.unwrap();
        (self.store, self.blobs, self.blob_settings) = (Some(store), Some(blobs), Some(settings));
    }

    pub fn root(&self) -> PathBuf {
        self.other_root.clone().unwrap_or_else(|| self.folder.path().join("node"))
    }

    pub fn url(&self) -> String {
        self.broker.as_ref().unwrap().url()
    }

    pub fn start_agent(&mut self) {
        self.start_agent_at(&self.url());
    }

    /// Starts an agent that knows the broker by this URL.
    pub fn start_agent_at(&mut self, url: &str) {
        let settings = Settings {
            broker: broker_settings(url),
            blobs: self.blob_settings.clone(),
            pool: pool(),
            node: node(),
            token: Secret::new("token"),
            root: self.root(),
            address: "127.0.0.1".into(),
            guardian: crate::roles::command("guardian"),
            nice: None,
            task_umask: None,
            is_alone: false,
            file_reserve_bytes: 0,
            disk_limits: self.disk_limits.clone(),
        };
        let (end, ending) = oneshot::channel();
        let agent = tokio::spawn(node_agent::run(settings, async { ending.await.unwrap_or(Ending::Now) }));
        self.agent = Some((end, agent));
    }

    /// Ends the agent and everything else.
    pub async fn stop(mut self) {
        self.end_agent(Ending::Now).await.unwrap();
        self.link.close().await;
        self.work.iter().for_each(JoinHandle::abort);
        if let Some(store) = self.store.take() {
            store.stop().await;
        }
        if let Some(broker) = self.broker.take() {
            broker.stop().await;
        }
    }

    pub async fn end_agent(&mut self, ending: Ending) -> Result<(), AgentError> {
        let Some((end, agent)) = self.agent.take() else { return Ok(()) };
        end.send(ending).ok();
        timeout(PATIENCE, agent).await.expect("the agent ends").unwrap()
    }

    /// Waits for an agent that ends by itself.
    pub async fn agent_ends(&mut self) -> Result<(), AgentError> {
        let (_end, agent) = self.agent.take().unwrap();
        timeout(PATIENCE, agent).await.expect("the agent ends").unwrap()
    }

    pub fn change_script(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }

    /// Releases a task to the pool's queue.
    pub async fn release(&self, message: &TaskMessage) {
        let key = if message.slots > 1 { topology::wide_key(&pool()) } else { topology::pool_key(&pool()) };
        self.link.publisher().publish(Outgoing::message(topology::TASKS, key, message).unwrap()).await.unwrap();
    }

    pub async fn control(&self, what: ControlKind) {
        let key = topology::node_key(&pool(), &node());
        let control = Control { v: VERSION, what };
        self.link.publisher().publish(Outgoing::message(topology::CONTROL, key, &control).unwrap()).await.unwrap();
    }

    pub async fn event(&mut self) -> AgentEvent {
        timeout(PATIENCE, self.events.recv()).await.expect("an event comes").unwrap()
    }

    /// The next report of the node, other events skipped.
    pub async fn report(&mut self) -> NodeReport {
        loop {
            if let AgentEvent::Node(report) = self.event().await {
                return report;
            }
        }
    }

    /// The next start of a run.
    pub async fn started(&mut self) -> Started {
        loop {
            match self.event().await {
                AgentEvent::Started(started) => return started,
                AgentEvent::Finished(finished) => panic!("an end came first: {finished:?}"),
                AgentEvent::Node(_) | AgentEvent::JobTask(_) => {}
            }
        }
    }

    /// The next end of a preparation or release.
    pub async fn job_task_ended(&mut self) -> JobTaskEnd {
        loop {
            if let AgentEvent::JobTask(end) = self.event().await {
                return *end;
            }
        }
    }

    /// The next end of a run.
    pub async fn finished(&mut self) -> Finished {
        loop {
            if let AgentEvent::Finished(finished) = self.event().await {
                return *finished;
            }
        }
    }

    pub async fn asked(&mut self) -> Ask {
        timeout(PATIENCE, self.asked.recv()).await.expect("a question comes").unwrap()
    }

    /// The next heartbeat that meets the condition.
    pub async fn heartbeat(&mut self, condition: impl Fn(&Heartbeat) -> bool) -> Heartbeat {
        let found = async {
            loop {
                let heartbeat = self.heartbeats.recv().await.unwrap();
                if condition(&heartbeat) {
                    return heartbeat;
                }
            }
        };
        timeout(PATIENCE, found).await.expect("such a beat comes")
    }

    /// Waits until the pool's queues hold nothing, delivered or not, by purging what closed consumers returned.
    pub async fn queue_is_empty(&self) -> bool {
        self.link.depth(&topology::pool_queue(&pool())).await.unwrap().unwrap().ready == 0
    }
}

/// A message that starts at once.
pub fn task(uid: u64, command_line: &str) -> TaskMessage {
    task_with(uid, TaskSpec { command_line: command_line.into(), ..TaskSpec::default() })
}

pub fn task_with(uid: u64, spec: TaskSpec) -> TaskMessage {
    TaskMessage {
        v: VERSION,
        uid: TaskUid(uid),
        attempt: 1,
        fence: Fence(uid),
        job: "job".parse().unwrap(),
        task: format!("t{uid}").parse().unwrap(),
        start: Start::Now,
        slots: 1,
        spec: Some(spec),
    }
}

pub fn key(uid: u64) -> AttemptKey {
    AttemptKey { uid: TaskUid(uid), attempt: 1, fence: Fence(uid) }
}

async fn answer_asks(link: Link, mut asks: Consumer, script: Arc<Mutex<Script>>, told: mpsc::Sender<Ask>) {
    let (acker, publisher) = (asks.acker(), link.publisher());
    while let Some(delivery) = asks.next().await {
        acker.ack(delivery.tag);
        let request: Request = delivery.message().unwrap();
        let what = match request.what {
            RequestKind::Join(join) => {
                let mut script = script.lock().unwrap();
                script.joins.push(join);
                Reply::Joined(Joined {
                    epoch: Epoch(script.joins.len() as u64),
                    credential: "credential".into(),
                    account: "account".into(),
                    account_url: "http://account".into(),
                    slots: script.slots,
                    fill: FillType::Spread,
                    rank: 0,
                    start_task: script.start_task.clone(),
                    heartbeat_ms: 100,
                    lease_ms: script.lease_ms,
                    is_dedicated: true,
                    order: script.order,
                    is_reimaged: script.is_reimaged,
                    packages: script.packages.clone(),
                })
            }
            RequestKind::Ask(ask) => {
                told.try_send(ask).unwrap();
                Reply::Answer(script.lock().unwrap().answers.pop_front().unwrap_or(Answer::Drop))
            }
            RequestKind::Functions { .. } => Reply::Functions(script.lock().unwrap().functions.clone()),
            RequestKind::MayPublish { .. } => Reply::MayPublish { allowed: script.lock().unwrap().may_publish },
            other => panic!("an agent does not ask {other:?}"),
        };
        let reply = ReplyMessage { v: VERSION, what };
        let outgoing = Outgoing::message("", delivery.reply_to.unwrap(), &reply).unwrap().optional();
        publisher.publish(outgoing.correlation(delivery.correlation_id.unwrap())).await.ok();
    }
}

async fn read_events(mut events: Consumer, told: mpsc::Sender<AgentEvent>) {
    let acker = events.acker();
    while let Some(delivery) = events.next().await {
        acker.ack(delivery.tag);
        let batch: EventBatch = delivery.message().unwrap();
        batch.events.into_iter().for_each(|event| told.try_send(event).unwrap());
    }
}

async fn answer_heartbeats(link: Link, mut heartbeats: Consumer, script: Arc<Mutex<Script>>, told: mpsc::Sender<Heartbeat>) {
    let (acker, publisher) = (heartbeats.acker(), link.publisher());
    while let Some(delivery) = heartbeats.next().await {
        acker.ack(delivery.tag);
        let heartbeat: Heartbeat = delivery.message().unwrap();
        let reply = {
            let script = script.lock().unwrap();
            let recorded = heartbeat.kept.iter().filter(|_| script.records).map(|run| (run.run, Verdict::Recorded));
            let fenced = script.fenced.iter().map(|run| (*run, Verdict::Fenced));
            let verdicts = recorded.chain(fenced).collect();
            let releases = script.releases.iter().filter(|job_task| !heartbeat.job_tasks.contains(&job_task.key)).cloned().collect();
            let over = script.over.iter().filter(|key| heartbeat.job_tasks.contains(key)).copied().collect();
            HeartbeatReply {
                v: VERSION,
                boot: script.boot,
                verdicts,
                order: script.order,
                releases,
                over,
                keep: script.keep.clone(),
                functions: script.functions.number,
                set_aside_in_vain: heartbeat.sets_aside.filter(|key| script.unwanted == Some(*key)),
            }
        };
        told.try_send(heartbeat).unwrap();
        if let Some(queue) = delivery.reply_to {
            publisher.publish(Outgoing::message("", queue, &reply).unwrap().transient().optional()).await.ok();
        }
    }
}
