//! Node actions with a fake agent and provider: states change at once, and the agent gets the order.

use std::time::{Duration, Instant};

use contract::{
    message::{NodeOrder, NodeReport, Power, Reply, RequestKind, StartTaskEnd},
    outcome::Outcome,
    state::{DeallocationOption, NodeState},
    time::Timestamp,
};
use serde_json::{Value, json};

use crate::{
    fake_agent::{FakeAgent, join},
    test_dispatcher::TestDispatcher,
};

const PATIENCE: Duration = Duration::from_secs(30);

fn state(dispatcher: &TestDispatcher) -> String {
    dispatcher.get("/pools/Pool/nodes/n1")["state"].as_str().unwrap().to_owned()
}

fn becomes(dispatcher: &TestDispatcher, wanted: &str) {
    let deadline = Instant::now() + PATIENCE;
    while state(dispatcher) != wanted {
        assert!(Instant::now() < deadline, "the node stays {}, never {wanted}", state(dispatcher));
    }
}

pub fn idle(dispatcher: &TestDispatcher) -> FakeAgent {
    dispatcher.add_pool_and_job();
    let agent = FakeAgent::join(dispatcher);
    agent.report(NodeState::Idle, false);
    becomes(dispatcher, "idle");
    agent
}

fn code(dispatcher: &TestDispatcher, order: &str, body: Value, status: u16) -> String {
    dispatcher.send("POST", &format!("/pools/Pool/nodes/n1/{order}"), body, status).json()["code"].as_str().unwrap().to_owned()
}

#[test]
fn a_reboot_is_seen_at_once_and_is_over_when_a_newer_start_joins() {
    let dispatcher = TestDispatcher::start();
    let mut agent = idle(&dispatcher);
    let booted = dispatcher.get("/pools/Pool/nodes/n1")["lastBootTime"].clone();
    let got = dispatcher.send("POST", "/pools/Pool/nodes/n1/reboot", json!({"nodeRebootOption": "TaskCompletion"}), 202);
    assert!(got.body.is_empty());
    assert_eq!(state(&dispatcher), "rebooting");
    assert_eq!(agent.order(), NodeOrder::Restart { option: DeallocationOption::TaskCompletion });
    assert_eq!(state(&dispatcher), "rebooting", "the same start is not a newer one");
    assert_eq!(code(&dispatcher, "reboot", Value::Null, 409), "NodeBeingRebooted");
    assert_eq!(code(&dispatcher, "deallocate", Value::Null, 409), "NodeBeingRebooted");
    let joined = agent.restart();
    assert_eq!((joined.order, joined.is_reimaged), (NodeOrder::Work, false));
    assert_eq!(state(&dispatcher), "starting");
    assert_eq!(code(&dispatcher, "reboot", Value::Null, 409), "NodeBeingStarted");
    agent.report(NodeState::Idle, false);
    becomes(&dispatcher, "idle");
    assert_ne!(dispatcher.get("/pools/Pool/nodes/n1")["lastBootTime"], booted);
}

#[test]
fn a_node_whose_pool_goes_while_it_starts_again_is_told_to_empty_itself() {
    let dispatcher = TestDispatcher::start();
    let mut agent = idle(&dispatcher);
    dispatcher.send("POST", "/pools/Pool/nodes/n1/reboot", Value::Null, 202);
    dispatcher.send("DELETE", "/pools/Pool", Value::Null, 202);
    assert_eq!(agent.restart().order, NodeOrder::Drain { option: DeallocationOption::Requeue });
    agent.report(NodeState::Idle, true);
    let deadline = Instant::now() + PATIENCE;
    while !agent.snapshot().is_drained {
        assert!(Instant::now() < deadline, "the node is never seen to be empty");
    }
}

#[test]
fn a_reimage_lasts_until_the_first_report_of_the_new_start() {
    let dispatcher = TestDispatcher::start();
    let mut agent = idle(&dispatcher);
    dispatcher.send("POST", "/pools/Pool/nodes/n1/reimage", Value::Null, 202);
    assert_eq!(state(&dispatcher), "reimaging");
    assert_eq!(agent.order(), NodeOrder::Restart { option: DeallocationOption::Requeue });
    assert!(agent.restart().is_reimaged);
    assert!(agent.restart().is_reimaged, "a start that was cut off before it said so");
    assert_eq!(state(&dispatcher), "reimaging");
    agent.report(NodeState::WaitingForStartTask, false);
    becomes(&dispatcher, "waitingforstarttask");
    assert!(!agent.restart().is_reimaged);
}

#[test]
fn a_deallocated_node_is_stopped_when_it_is_empty_stays_and_comes_back() {
    let dispatcher = TestDispatcher::start();
    let mut agent = idle(&dispatcher);
    assert_eq!(code(&dispatcher, "start", Value::Null, 409), "OperationInvalidForCurrentState");
    dispatcher.send("POST", "/pools/Pool/nodes/n1/deallocate", json!({"nodeDeallocateOption": "terminate"}), 202);
    assert_eq!((state(&dispatcher).as_str(), agent.snapshot().power), ("deallocating", None));
    assert_eq!(agent.order(), NodeOrder::Drain { option: DeallocationOption::Terminate });
    agent.report(NodeState::Idle, true);
    let deadline = Instant::now() + PATIENCE;
    while agent.snapshot().power != Some(Power::Stop) {
        assert!(Instant::now() < deadline, "{:?}", agent.snapshot());
    }
    let (pool, node) = ("Pool".parse().unwrap(), "n1".parse().unwrap());
    assert_eq!(agent.ask("scale", RequestKind::NodeStopped { pool, node }), Reply::Done);
    assert_eq!((state(&dispatcher).as_str(), agent.snapshot().power), ("deallocated", None));
    assert_eq!(dispatcher.get("/pools/Pool")["currentDedicatedNodes"], 1);
    assert!(matches!(agent.ask("asks", join(None)), Reply::Refused(fault) if fault.code == "NodeDeallocated"));
    assert_eq!(code(&dispatcher, "reboot", Value::Null, 409), "OperationInvalidForCurrentState");
    dispatcher.send("POST", "/pools/Pool/nodes/n1/start", Value::Null, 202);
    assert_eq!((state(&dispatcher).as_str(), agent.snapshot().power), ("starting", Some(Power::Start)));
    assert_eq!(agent.restart().order, NodeOrder::Work);
    assert_eq!(agent.snapshot().power, None);
    agent.report(NodeState::Idle, false);
    becomes(&dispatcher, "idle");
}

#[test]
fn scheduling_is_switched_off_and_on() {
    let dispatcher = TestDispatcher::start();
    let agent = idle(&dispatcher);
    dispatcher.send("POST", "/pools/Pool/nodes/n1/disablescheduling", json!({"nodeDisableSchedulingOption": "TaskCompletion"}), 200);
    let node = dispatcher.get("/pools/Pool/nodes/n1");
    assert_eq!((&node["state"], &node["schedulingState"]), (&json!("offline"), &json!("disabled")));
    assert_eq!(agent.order(), NodeOrder::Hold);
    assert_eq!(code(&dispatcher, "disablescheduling", Value::Null, 409), "NodeAlreadyInTargetSchedulingState");
    dispatcher.send("POST", "/pools/Pool/nodes/n1/enablescheduling", Value::Null, 200);
    assert_eq!((state(&dispatcher).as_str(), agent.order()), ("idle", NodeOrder::Work));
    assert_eq!(code(&dispatcher, "enablescheduling", Value::Null, 409), "NodeAlreadyInTargetSchedulingState");
    let by_az = json!({"nodeDisableSchedulingOption": {"nodeDisableSchedulingOption": "TaskCompletion"}});
    dispatcher.send("POST", "/pools/Pool/nodes/n1/disablescheduling", by_az, 200);
    let wrong = json!({"nodeDisableSchedulingOption": {"nodeDisableSchedulingOption": "never"}});
    assert_eq!(code(&dispatcher, "disablescheduling", wrong, 400), "InvalidPropertyValue");
}

#[test]
fn wrong_orders_have_their_codes() {
    let dispatcher = TestDispatcher::start();
    let _agent = idle(&dispatcher);
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
        assert_eq!(code(&dispatcher, order, body.clone(), status), wanted, "{order} {body}");
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
        let got = dispatcher.send(method, &format!("/pools/Pool/{target}"), Value::Null, 404);
        assert_eq!(got.json()["code"], "NodeNotFound", "{target}");
        let elsewhere = dispatcher.send(method, &format!("/pools/nowhere/{target}"), Value::Null, 404);
        assert_eq!(elsewhere.json()["code"], "PoolNotFound", "{target}");
    }
    dispatcher.send("DELETE", "/pools/Pool/nodes/n1/users/u", Value::Null, 409);
    dispatcher.send("PUT", "/pools/Pool/nodes/n1/users/u", json!({"password": "p"}), 409);
    let login = dispatcher.get("/pools/Pool/nodes/n1/remoteloginsettings");
    assert_eq!((&login["remoteLoginIPAddress"], &login["remoteLoginPort"]), (&json!("10.1.2.3"), &json!(22)));
    assert_eq!(state(&dispatcher), "idle", "nothing of this changed the node");
}

#[test]
fn a_node_shows_its_start_task_and_is_found_by_it() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    dispatcher.send("PATCH", "/pools/Pool", json!({"startTask": {"commandLine": "setup", "maxTaskRetryCount": 1}}), 200);
    let agent = FakeAgent::join(&dispatcher);
    agent.report(NodeState::WaitingForStartTask, false);
    becomes(&dispatcher, "waitingforstarttask");
    let node = dispatcher.get("/pools/Pool/nodes/n1");
    assert_eq!((&node["startTask"]["commandLine"], &node["startTaskInfo"]["state"]), (&json!("setup"), &json!("running")));
    assert_eq!((&node["startTaskInfo"]["startTime"], &node["startTaskInfo"]["retryCount"]), (&node["lastBootTime"], &json!(0)));
    assert_eq!(node["virtualMachineInfo"]["imageReference"]["publisher"], "p");
    assert_eq!((&node["vmSize"], &node["affinityId"], &node["isDedicated"]), (&json!("x"), &json!("TVM:n1"), &json!(true)));
    let found = |filter: &str| dispatcher.get(&format!("/pools/Pool/nodes?$filter={filter}"))["value"].as_array().unwrap().len();
    assert_eq!((found("startTaskInfo/state%20eq%20'running'"), found("startTaskInfo/result%20eq%20'failure'")), (1, 0));

    dispatcher.send("PATCH", "/pools/Pool", json!({"startTask": {"commandLine": "other"}}), 200);
    let (started_at, ended_at) = (Timestamp::now(), Timestamp::now());
    let end = StartTaskEnd { started_at, ended_at, outcome: Outcome::Exit { code: 3 }, retries: 1, retried_at: Some(ended_at) };
    agent.tell(NodeReport {
        state: NodeState::StartTaskFailed,
        start_task: Some(end),
        fault: None,
        is_drained: false,
        at: Timestamp::now(),
        number: 0,
    });
    becomes(&dispatcher, "starttaskfailed");
    let node = dispatcher.get("/pools/Pool/nodes/n1");
    assert_eq!(node["startTask"]["commandLine"], "setup", "a changed start task waits for the next start");
    let info = &node["startTaskInfo"];
    assert_eq!((&info["state"], &info["result"], &info["exitCode"]), (&json!("completed"), &json!("failure"), &json!(3)));
    assert_eq!((&info["retryCount"], &info["failureInfo"]["category"]), (&json!(1), &json!("usererror")));
    assert_eq!((&info["lastRetryTime"], info["lastRetryTime"].is_string()), (&info["endTime"], true));
    assert_eq!((found("startTaskInfo/exitCode%20ge%203"), found("startTaskInfo/result%20eq%20'success'")), (1, 0));
    assert_eq!(found("startTaskInfo/endTime%20gt%20DateTime'2020-01-01T00:00:00Z'%20and%20startTaskInfo/state%20eq%20'completed'"), 1);
    dispatcher.send("POST", "/pools/Pool/nodes/n1/reboot", Value::Null, 202);
}

#[test]
fn both_kinds_of_nodes_have_their_targets_and_a_node_named_twice_leaves_once() {
    let dispatcher = TestDispatcher::start();
    let agent = idle(&dispatcher);
    dispatcher.send("POST", "/pools/Pool/resize", json!({"targetDedicatedNodes": 2, "targetLowPriorityNodes": 2}), 202);
    assert_eq!(dispatcher.send("POST", "/pools/Pool/removenodes", json!({"nodeList": ["n1"]}), 409).json()["code"], "PoolBeingResized");
    let Reply::Nodes { nodes } = agent.ask("scale", RequestKind::CreateNodes { pool: "Pool".parse().unwrap(), count: 3 }) else {
        panic!("three nodes")
    };
    let kinds: Vec<Value> =
        nodes.iter().map(|ticket| dispatcher.get(&format!("/pools/Pool/nodes/{}", ticket.node))["isDedicated"].clone()).collect();
    assert_eq!(kinds, [json!(true), json!(false), json!(false)], "one dedicated node was there");
    let counts = &dispatcher.get("/nodecounts")["value"][0];
    assert_eq!((&counts["dedicated"]["creating"], &counts["lowPriority"]["creating"]), (&json!(1), &json!(2)));
    dispatcher.send("POST", "/pools/Pool/stopresize", Value::Null, 202);
    for (body, wanted) in [
        (json!({"nodeList": []}), "InvalidPropertyValue"),
        (json!({}), "MissingRequiredProperty"),
        (json!({"nodeList": (0..101).map(|n| format!("n{n}")).collect::<Vec<_>>()}), "InvalidPropertyValue"),
        (json!({"nodeList": ["n1"], "nodeDeallocationOption": "x"}), "InvalidPropertyValue"),
        (json!({"nodeList": ["n1"], "resizeTimeout": "PT1M"}), "InvalidPropertyValue"),
    ] {
        assert_eq!(dispatcher.send("POST", "/pools/Pool/removenodes", body.clone(), 400).json()["code"], wanted, "{body}");
    }
}

#[test]
fn a_removed_node_lowers_its_target_once() {
    let dispatcher = TestDispatcher::start();
    let _agent = idle(&dispatcher);
    let steady = Instant::now() + PATIENCE;
    while dispatcher.get("/pools/Pool")["allocationState"] != "steady" {
        assert!(Instant::now() < steady, "{}", dispatcher.get("/pools/Pool"));
    }
    assert_eq!(dispatcher.send("POST", "/pools/Pool/removenodes", json!({"nodeList": ["none"]}), 404).json()["code"], "NodeNotFound");
    dispatcher.send(
        "POST",
        "/pools/Pool/removenodes",
        json!({"nodeList": ["n1", "N1"], "nodeDeallocationOption": "TaskCompletion", "resizeTimeout": "PT6M"}),
        202,
    );
    assert_eq!(dispatcher.get("/pools/Pool")["resizeTimeout"], "PT6M", "the removal has its own limit");
    let pool = dispatcher.get("/pools/Pool");
    assert_eq!((&pool["allocationState"], &pool["targetDedicatedNodes"]), (&json!("resizing"), &json!(0)));
    assert_eq!(state(&dispatcher), "leavingpool");
    assert_eq!(code(&dispatcher, "reboot", Value::Null, 409), "OperationInvalidForCurrentState");
}
