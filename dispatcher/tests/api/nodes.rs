//! Orders to nodes, with an agent and a provider played by hand: states at once, codes, and what the agent is told.

use std::time::{Duration, Instant};

use broker_config::topology;
use clients::amqp::{Caller, Link, Outgoing, Subscription};
use contract::{
    ids::Epoch,
    message::{
        AgentEvent, EventBatch, Heartbeat, HeartbeatReply, Join, Joined, NodeOrder, NodeReport, NodeSnapshot, Power, Reply, ReplyMessage,
        Request, RequestKind, StartTaskEnd, TaskMessage, VERSION,
    },
    outcome::{Fault, JobTaskKey, Outcome},
    state::{DeallocationOption, NodeState},
    time::Timestamp,
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::house::House;

const PATIENCE: Duration = Duration::from_secs(30);

/// An agent that does nothing by itself.
pub struct Puppet {
    runtime: Runtime,
    link: Link,
    caller: Caller,
    pub joined: Joined,
}

async fn request(caller: &Caller, key: &str, what: RequestKind) -> Reply {
    let reply: ReplyMessage = caller.call(topology::REQUESTS, key.to_owned(), &Request { v: VERSION, what }, PATIENCE).await.unwrap();
    reply.what
}

fn join(epoch: Option<Epoch>) -> RequestKind {
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

impl Puppet {
    /// A new node of the pool.
    pub fn join(house: &House) -> Puppet {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (link, caller, reply) = runtime.block_on(async {
            let link = Link::open(house.broker.clone()).await.unwrap();
            let caller = link.caller().await.unwrap();
            let reply = request(&caller, "asks", join(None)).await;
            (link, caller, reply)
        });
        let Reply::Joined(joined) = reply else { panic!("{reply:?}") };
        Puppet { runtime, link, caller, joined }
    }

    pub fn ask(&self, key: &str, what: RequestKind) -> Reply {
        self.runtime.block_on(request(&self.caller, key, what))
    }

    /// The agent starts anew.
    pub fn restart(&mut self) -> &Joined {
        let Reply::Joined(joined) = self.ask("asks", join(None)) else { panic!("a node that may join") };
        self.joined = joined;
        &self.joined
    }

    /// What the dispatcher wants of the running agent.
    fn order(&self) -> NodeOrder {
        let Reply::Joined(joined) = self.ask("asks", join(Some(self.joined.epoch))) else { panic!("a node that may join again") };
        joined.order
    }

    fn tell(&self, report: NodeReport) {
        self.happen(AgentEvent::Node(report));
    }

    /// Something happens on the node.
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

    /// A sign of life, and what the dispatcher says to it.
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

    fn report(&self, state: NodeState, is_drained: bool) {
        self.tell(NodeReport { state, start_task: None, fault: None, is_drained, at: Timestamp::now(), number: 0 });
    }

    /// The provider's side could not do what it decided.
    pub fn fail(&self, code: &str) {
        let fault = Some(Fault { code: code.to_owned(), message: "no machine is free".to_owned(), details: vec![] });
        let (pool, reason) = ("Pool".parse().unwrap(), "a node is missing".to_owned());
        assert_eq!(self.ask("scale", RequestKind::Decision { pool, target: 2, reason, fault }), Reply::Done);
    }

    /// The node as the provider's side sees it.
    fn snapshot(&self) -> NodeSnapshot {
        let Reply::Snapshot { pools, .. } = self.ask("scale", RequestKind::Snapshot) else { panic!("a snapshot") };
        pools[0].nodes[0].clone()
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.runtime.block_on(self.link.close());
    }
}

fn state(house: &House) -> String {
    house.get("/pools/Pool/nodes/n1")["state"].as_str().unwrap().to_owned()
}

fn becomes(house: &House, wanted: &str) {
    let deadline = Instant::now() + PATIENCE;
    while state(house) != wanted {
        assert!(Instant::now() < deadline, "the node stays {}, never {wanted}", state(house));
    }
}

pub fn idle(house: &House) -> Puppet {
    house.add_pool_and_job();
    let puppet = Puppet::join(house);
    puppet.report(NodeState::Idle, false);
    becomes(house, "idle");
    puppet
}

fn code(house: &House, order: &str, body: Value, status: u16) -> String {
    house.send("POST", &format!("/pools/Pool/nodes/n1/{order}"), body, status).json()["code"].as_str().unwrap().to_owned()
}

#[test]
fn a_reboot_is_seen_at_once_and_is_over_when_a_newer_start_joins() {
    let house = House::open();
    let mut puppet = idle(&house);
    let booted = house.get("/pools/Pool/nodes/n1")["lastBootTime"].clone();
    let got = house.send("POST", "/pools/Pool/nodes/n1/reboot", json!({"nodeRebootOption": "TaskCompletion"}), 202);
    assert!(got.body.is_empty());
    assert_eq!(state(&house), "rebooting");
    assert_eq!(puppet.order(), NodeOrder::Restart { option: DeallocationOption::TaskCompletion });
    assert_eq!(state(&house), "rebooting", "the same start is not a newer one");
    assert_eq!(code(&house, "reboot", Value::Null, 409), "NodeBeingRebooted");
    assert_eq!(code(&house, "deallocate", Value::Null, 409), "NodeBeingRebooted");
    let joined = puppet.restart();
    assert_eq!((joined.order, joined.is_reimaged), (NodeOrder::Work, false));
    assert_eq!(state(&house), "starting");
    assert_eq!(code(&house, "reboot", Value::Null, 409), "NodeBeingStarted");
    puppet.report(NodeState::Idle, false);
    becomes(&house, "idle");
    assert_ne!(house.get("/pools/Pool/nodes/n1")["lastBootTime"], booted);
}

#[test]
fn a_node_whose_pool_goes_while_it_starts_again_is_told_to_empty_itself() {
    let house = House::open();
    let mut puppet = idle(&house);
    house.send("POST", "/pools/Pool/nodes/n1/reboot", Value::Null, 202);
    house.send("DELETE", "/pools/Pool", Value::Null, 202);
    assert_eq!(puppet.restart().order, NodeOrder::Drain { option: DeallocationOption::Requeue });
    puppet.report(NodeState::Idle, true);
    let deadline = Instant::now() + PATIENCE;
    while !puppet.snapshot().is_drained {
        assert!(Instant::now() < deadline, "the node is never seen to be empty");
    }
}

#[test]
fn a_reimage_lasts_until_the_first_report_of_the_new_start() {
    let house = House::open();
    let mut puppet = idle(&house);
    house.send("POST", "/pools/Pool/nodes/n1/reimage", Value::Null, 202);
    assert_eq!(state(&house), "reimaging");
    assert_eq!(puppet.order(), NodeOrder::Restart { option: DeallocationOption::Requeue });
    assert!(puppet.restart().is_reimaged);
    assert!(puppet.restart().is_reimaged, "a start that was cut off before it said so");
    assert_eq!(state(&house), "reimaging");
    puppet.report(NodeState::WaitingForStartTask, false);
    becomes(&house, "waitingforstarttask");
    assert!(!puppet.restart().is_reimaged);
}

#[test]
fn a_deallocated_node_is_stopped_when_it_is_empty_stays_and_comes_back() {
    let house = House::open();
    let mut puppet = idle(&house);
    assert_eq!(code(&house, "start", Value::Null, 409), "OperationInvalidForCurrentState");
    house.send("POST", "/pools/Pool/nodes/n1/deallocate", json!({"nodeDeallocateOption": "terminate"}), 202);
    assert_eq!((state(&house).as_str(), puppet.snapshot().power), ("deallocating", None));
    assert_eq!(puppet.order(), NodeOrder::Drain { option: DeallocationOption::Terminate });
    puppet.report(NodeState::Idle, true);
    let deadline = Instant::now() + PATIENCE;
    while puppet.snapshot().power != Some(Power::Stop) {
        assert!(Instant::now() < deadline, "{:?}", puppet.snapshot());
    }
    let (pool, node) = ("Pool".parse().unwrap(), "n1".parse().unwrap());
    assert_eq!(puppet.ask("scale", RequestKind::NodeStopped { pool, node }), Reply::Done);
    assert_eq!((state(&house).as_str(), puppet.snapshot().power), ("deallocated", None));
    assert_eq!(house.get("/pools/Pool")["currentDedicatedNodes"], 1);
    assert!(matches!(puppet.ask("asks", join(None)), Reply::Refused(fault) if fault.code == "NodeDeallocated"));
    assert_eq!(code(&house, "reboot", Value::Null, 409), "OperationInvalidForCurrentState");
    house.send("POST", "/pools/Pool/nodes/n1/start", Value::Null, 202);
    assert_eq!((state(&house).as_str(), puppet.snapshot().power), ("starting", Some(Power::Start)));
    assert_eq!(puppet.restart().order, NodeOrder::Work);
    assert_eq!(puppet.snapshot().power, None);
    puppet.report(NodeState::Idle, false);
    becomes(&house, "idle");
}

#[test]
fn scheduling_is_switched_off_and_on() {
    let house = House::open();
    let puppet = idle(&house);
    house.send("POST", "/pools/Pool/nodes/n1/disablescheduling", json!({"nodeDisableSchedulingOption": "TaskCompletion"}), 200);
    let node = house.get("/pools/Pool/nodes/n1");
    assert_eq!((&node["state"], &node["schedulingState"]), (&json!("offline"), &json!("disabled")));
    assert_eq!(puppet.order(), NodeOrder::Hold);
    assert_eq!(code(&house, "disablescheduling", Value::Null, 409), "NodeAlreadyInTargetSchedulingState");
    house.send("POST", "/pools/Pool/nodes/n1/enablescheduling", Value::Null, 200);
    assert_eq!((state(&house).as_str(), puppet.order()), ("idle", NodeOrder::Work));
    assert_eq!(code(&house, "enablescheduling", Value::Null, 409), "NodeAlreadyInTargetSchedulingState");
    let by_az = json!({"nodeDisableSchedulingOption": {"nodeDisableSchedulingOption": "TaskCompletion"}});
    house.send("POST", "/pools/Pool/nodes/n1/disablescheduling", by_az, 200);
    let wrong = json!({"nodeDisableSchedulingOption": {"nodeDisableSchedulingOption": "never"}});
    assert_eq!(code(&house, "disablescheduling", wrong, 400), "InvalidPropertyValue");
}

#[test]
fn wrong_orders_have_their_codes() {
    let house = House::open();
    let _puppet = idle(&house);
    let logs = |more: Value| {
        let mut body = json!({"containerUrl": "s3://user/logs", "startTime": "2026-01-01T00:00:00Z"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for (order, body, status, wanted) in [
        ("reboot", json!({"nodeRebootOption": "now"}), 400, "InvalidPropertyValue"),
        ("reimage", json!({"nodeReimageOption": 5}), 400, "InvalidPropertyValue"),
        ("deallocate", json!([]), 400, "InvalidRequestBody"),
        ("disablescheduling", json!({"nodeDisableSchedulingOption": "retaineddata"}), 400, "InvalidPropertyValue"),
        ("users", json!({}), 400, "MissingRequiredProperty"),
        ("users", json!({"name": "x".repeat(21)}), 400, "InvalidPropertyValue"),
        ("users", json!({"name": "u", "password": "p", "sshPublicKey": "k"}), 400, "InvalidPropertyValue"),
        ("users", json!({"name": "u", "expiryTime": "tomorrow"}), 400, "InvalidPropertyValue"),
        ("users", json!({"name": "u", "isAdmin": true, "password": "p"}), 409, "OperationNotValidOnNode"),
        ("uploadbatchservicelogs", json!({"startTime": "2026-01-01T00:00:00Z"}), 400, "MissingRequiredProperty"),
        ("uploadbatchservicelogs", json!({"containerUrl": "s3://user/x"}), 400, "MissingRequiredProperty"),
        ("uploadbatchservicelogs", logs(json!({"containerUrl": "s3://own/x"})), 400, "InvalidPropertyValue"),
        ("uploadbatchservicelogs", logs(json!({"startTime": "x"})), 400, "InvalidPropertyValue"),
        ("uploadbatchservicelogs", logs(json!({"endTime": "2025-01-01T00:00:00Z"})), 400, "InvalidPropertyValue"),
    ] {
        assert_eq!(code(&house, order, body.clone(), status), wanted, "{order} {body}");
    }
    for (method, target) in [
        ("POST", "nodes/none/reboot"),
        ("POST", "nodes/none/reimage"),
        ("POST", "nodes/none/deallocate"),
        ("POST", "nodes/none/start"),
        ("POST", "nodes/none/disablescheduling"),
        ("POST", "nodes/none/enablescheduling"),
        ("GET", "nodes/none/remoteloginsettings"),
        ("DELETE", "nodes/none/users/u"),
    ] {
        let got = house.send(method, &format!("/pools/Pool/{target}"), Value::Null, 404);
        assert_eq!(got.json()["code"], "NodeNotFound", "{target}");
        let elsewhere = house.send(method, &format!("/pools/nowhere/{target}"), Value::Null, 404);
        assert_eq!(elsewhere.json()["code"], "PoolNotFound", "{target}");
    }
    house.send("DELETE", "/pools/Pool/nodes/n1/users/u", Value::Null, 409);
    house.send("PUT", "/pools/Pool/nodes/n1/users/u", json!({"password": "p"}), 409);
    let login = house.get("/pools/Pool/nodes/n1/remoteloginsettings");
    assert_eq!((&login["remoteLoginIPAddress"], &login["remoteLoginPort"]), (&json!("10.1.2.3"), &json!(22)));
    assert_eq!(state(&house), "idle", "nothing of this changed the node");
}

#[test]
fn a_node_shows_its_start_task_and_is_found_by_it() {
    let house = House::open();
    house.add_pool_and_job();
    house.send("PATCH", "/pools/Pool", json!({"startTask": {"commandLine": "setup", "maxTaskRetryCount": 1}}), 200);
    let puppet = Puppet::join(&house);
    puppet.report(NodeState::WaitingForStartTask, false);
    becomes(&house, "waitingforstarttask");
    let node = house.get("/pools/Pool/nodes/n1");
    assert_eq!((&node["startTask"]["commandLine"], &node["startTaskInfo"]["state"]), (&json!("setup"), &json!("running")));
    assert_eq!((&node["startTaskInfo"]["startTime"], &node["startTaskInfo"]["retryCount"]), (&node["lastBootTime"], &json!(0)));
    assert_eq!(node["virtualMachineInfo"]["imageReference"]["publisher"], "p");
    assert_eq!((&node["vmSize"], &node["affinityId"], &node["isDedicated"]), (&json!("x"), &json!("TVM:n1"), &json!(true)));
    let found = |filter: &str| house.get(&format!("/pools/Pool/nodes?$filter={filter}"))["value"].as_array().unwrap().len();
    assert_eq!((found("startTaskInfo/state%20eq%20'running'"), found("startTaskInfo/result%20eq%20'failure'")), (1, 0));

    house.send("PATCH", "/pools/Pool", json!({"startTask": {"commandLine": "other"}}), 200);
    let (started_at, ended_at) = (Timestamp::now(), Timestamp::now());
    let end = StartTaskEnd { started_at, ended_at, outcome: Outcome::Exit { code: 3 }, retries: 1, retried_at: Some(ended_at) };
    puppet.tell(NodeReport {
        state: NodeState::StartTaskFailed,
        start_task: Some(end),
        fault: None,
        is_drained: false,
        at: Timestamp::now(),
        number: 0,
    });
    becomes(&house, "starttaskfailed");
    let node = house.get("/pools/Pool/nodes/n1");
    assert_eq!(node["startTask"]["commandLine"], "setup", "a changed start task waits for the next start");
    let info = &node["startTaskInfo"];
    assert_eq!((&info["state"], &info["result"], &info["exitCode"]), (&json!("completed"), &json!("failure"), &json!(3)));
    assert_eq!((&info["retryCount"], &info["failureInfo"]["category"]), (&json!(1), &json!("usererror")));
    assert_eq!((&info["lastRetryTime"], info["lastRetryTime"].is_string()), (&info["endTime"], true));
    assert_eq!((found("startTaskInfo/exitCode%20ge%203"), found("startTaskInfo/result%20eq%20'success'")), (1, 0));
    assert_eq!(found("startTaskInfo/endTime%20gt%20DateTime'2020-01-01T00:00:00Z'%20and%20startTaskInfo/state%20eq%20'completed'"), 1);
    house.send("POST", "/pools/Pool/nodes/n1/reboot", Value::Null, 202);
}

#[test]
fn both_kinds_of_nodes_have_their_targets_and_a_node_named_twice_leaves_once() {
    let house = House::open();
    let puppet = idle(&house);
    house.send("POST", "/pools/Pool/resize", json!({"targetDedicatedNodes": 2, "targetLowPriorityNodes": 2}), 202);
    assert_eq!(house.send("POST", "/pools/Pool/removenodes", json!({"nodeList": ["n1"]}), 409).json()["code"], "PoolBeingResized");
    let Reply::Nodes { nodes } = puppet.ask("scale", RequestKind::CreateNodes { pool: "Pool".parse().unwrap(), count: 3 }) else {
        panic!("three nodes")
    };
    let kinds: Vec<Value> =
        nodes.iter().map(|ticket| house.get(&format!("/pools/Pool/nodes/{}", ticket.node))["isDedicated"].clone()).collect();
    assert_eq!(kinds, [json!(true), json!(false), json!(false)], "one dedicated node was there");
    let counts = &house.get("/nodecounts")["value"][0];
    assert_eq!((&counts["dedicated"]["creating"], &counts["lowPriority"]["creating"]), (&json!(1), &json!(2)));
    house.send("POST", "/pools/Pool/stopresize", Value::Null, 202);
    for (body, wanted) in [
        (json!({"nodeList": []}), "InvalidPropertyValue"),
        (json!({}), "MissingRequiredProperty"),
        (json!({"nodeList": (0..101).map(|n| format!("n{n}")).collect::<Vec<_>>()}), "InvalidPropertyValue"),
        (json!({"nodeList": ["n1"], "nodeDeallocationOption": "x"}), "InvalidPropertyValue"),
        (json!({"nodeList": ["n1"], "resizeTimeout": "PT1M"}), "InvalidPropertyValue"),
    ] {
        assert_eq!(house.send("POST", "/pools/Pool/removenodes", body.clone(), 400).json()["code"], wanted, "{body}");
    }
}

#[test]
fn a_removed_node_lowers_its_target_once() {
    let house = House::open();
    let _puppet = idle(&house);
    let steady = Instant::now() + PATIENCE;
    while house.get("/pools/Pool")["allocationState"] != "steady" {
        assert!(Instant::now() < steady, "{}", house.get("/pools/Pool"));
    }
    assert_eq!(house.send("POST", "/pools/Pool/removenodes", json!({"nodeList": ["none"]}), 404).json()["code"], "NodeNotFound");
    house.send(
        "POST",
        "/pools/Pool/removenodes",
        json!({"nodeList": ["n1", "N1"], "nodeDeallocationOption": "TaskCompletion", "resizeTimeout": "PT6M"}),
        202,
    );
    assert_eq!(house.get("/pools/Pool")["resizeTimeout"], "PT6M", "the removal has its own limit");
    let pool = house.get("/pools/Pool");
    assert_eq!((&pool["allocationState"], &pool["targetDedicatedNodes"]), (&json!("resizing"), &json!(0)));
    assert_eq!(state(&house), "leavingpool");
    assert_eq!(code(&house, "reboot", Value::Null, 409), "OperationInvalidForCurrentState");
}
