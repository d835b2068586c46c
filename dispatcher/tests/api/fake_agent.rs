//! An agent without tasks and a provider without machines, played over the broker by the test.

use std::time::Duration;

use broker_config::topology;
use clients::amqp::{Caller, Link, Outgoing, Subscription};
use contract::{
    ids::Epoch,
    message::{
        AgentEvent, EventBatch, Heartbeat, HeartbeatReply, Join, Joined, NodeOrder, NodeReport, NodeSnapshot, Reply, ReplyMessage, Request,
        RequestKind, TaskMessage, VERSION,
    },
    outcome::{Fault, JobTaskKey},
    state::NodeState,
    time::Timestamp,
};
use tokio::runtime::Runtime;

use crate::test_dispatcher::TestDispatcher;

const PATIENCE: Duration = Duration::from_secs(30);

/// An agent that does nothing by itself.
pub struct FakeAgent {
    runtime: Runtime,
    link: Link,
    caller: Caller,
    pub joined: Joined,
}

async fn request(caller: &Caller, key: &str, what: RequestKind) -> Reply {
    let reply: ReplyMessage = caller.call(topology::REQUESTS, key.to_owned(), &Request { v: VERSION, what }, PATIENCE).await.unwrap();
    reply.what
}

pub fn join(epoch: Option<Epoch>) -> RequestKind {
    RequestKind::Join(Join {
        pool: "Pool".parse().unwrap(),
        node: "n1".parse().unwrap(),
        token: "join".into(),
        epoch,
        address: "10.1.2.3".into(),
        cores: 1,
        version: "test".into(),
    })
}

impl FakeAgent {
    /// Joins as a new node of the pool.
    pub fn join(dispatcher: &TestDispatcher) -> FakeAgent {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (link, caller, reply) = runtime.block_on(async {
            let link = Link::open(dispatcher.broker.clone()).await.unwrap();
            let caller = link.caller().await.unwrap();
            let reply = request(&caller, "asks", join(None)).await;
            (link, caller, reply)
        });
        let Reply::Joined(joined) = reply else { panic!("{reply:?}") };
        FakeAgent { runtime, link, caller, joined }
    }

    pub fn ask(&self, key: &str, what: RequestKind) -> Reply {
        self.runtime.block_on(request(&self.caller, key, what))
    }

    /// Joins as a newly started agent.
    pub fn restart(&mut self) -> &Joined {
        let Reply::Joined(joined) = self.ask("asks", join(None)) else { panic!("a node that may join") };
        self.joined = joined;
        &self.joined
    }

    /// The order that the dispatcher gives the running agent.
    pub fn order(&self) -> NodeOrder {
        let Reply::Joined(joined) = self.ask("asks", join(Some(self.joined.epoch))) else { panic!("a node that may join again") };
        joined.order
    }

    pub fn tell(&self, report: NodeReport) {
        self.happen(AgentEvent::Node(report));
    }

    /// Publishes an event of the node and waits for the confirm.
    pub fn happen(&self, event: AgentEvent) {
        let (pool, node) = ("Pool".parse().unwrap(), "n1".parse().unwrap());
        let key = topology::node_key(&pool, &node);
        let batch = EventBatch { v: VERSION, pool, node, epoch: self.joined.epoch, events: vec![event] };
        let publisher = self.link.publisher();
        self.runtime.block_on(publisher.publish(Outgoing::message(topology::EVENTS, key, &batch).unwrap())).unwrap();
    }

    /// The next task in the pool's queue.
    pub fn take(&self) -> TaskMessage {
        let queue = topology::pool_queue(&"Pool".parse().unwrap());
        self.runtime.block_on(async {
            let mut tasks = self.link.subscribe(Subscription::plain(queue, 1)).await.unwrap();
            let delivery = tokio::time::timeout(PATIENCE, tasks.next()).await.unwrap().unwrap();
            tasks.acker().ack(delivery.tag);
            delivery.message().unwrap()
        })
    }

    /// Sends a heartbeat and returns the reply.
    pub fn heartbeat(&self, job_tasks: Vec<JobTaskKey>) -> HeartbeatReply {
        let (pool, node, epoch) = ("Pool".parse().unwrap(), "n1".parse().unwrap(), self.joined.epoch);
        let heartbeat = Heartbeat {
            v: VERSION,
            pool,
            node,
            epoch,
            live: vec![],
            kept: vec![],
            free_slots: 1,
            is_consuming: true,
            job_tasks,
            report: None,
            sets_aside: None,
            invocations: 0,
        };
        self.runtime.block_on(self.caller.call(topology::HEARTBEATS, "beat".to_owned(), &heartbeat, PATIENCE)).unwrap()
    }

    pub fn report(&self, state: NodeState, is_drained: bool) {
        self.tell(NodeReport { state, start_task: None, fault: None, is_drained, at: Timestamp::now(), number: 0 });
    }

    /// Reports that the provider failed to make a node.
    pub fn fail(&self, code: &str) {
        let fault = Some(Fault { code: code.to_owned(), message: "no machine is free".to_owned(), details: vec![] });
        let (pool, reason) = ("Pool".parse().unwrap(), "a node is missing".to_owned());
        assert_eq!(self.ask("scale", RequestKind::Decision { pool, target: 2, reason, fault }), Reply::Done);
    }

    /// The node as the autoscaler sees it.
    pub fn snapshot(&self) -> NodeSnapshot {
        let Reply::Snapshot { pools, .. } = self.ask("scale", RequestKind::Snapshot) else { panic!("a snapshot") };
        pools[0].nodes[0].clone()
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        self.runtime.block_on(self.link.close());
    }
}
