//! Responses omit properties that the request's API version lacks.

use serde_json::{Value, json};

use crate::test_dispatcher::TestDispatcher;

const OLD: &str = "api-version=2020-03-01.11.0";
const V14: &str = "api-version=2021-06-01.14.0";
const V17: &str = "api-version=2023-05-01.17.0";
const V18: &str = "api-version=2023-11-01.18.0";
const V19: &str = "api-version=2024-02-01.19.0";
const V20: &str = "api-version=2024-07-01.20.0";
const NEW: &str = "api-version=2025-06-01";

fn has(value: &Value, path: &str) -> bool {
    value.pointer(&format!("/{path}")).is_some()
}

#[test]
fn fields_that_a_version_lacks_are_left_out_of_what_is_read_and_listed() {
    let dispatcher = TestDispatcher::start();
    let machine = json!({"imageReference": {"publisher": "p", "offer": "o", "sku": "s"}, "nodeAgentSKUId": "a"});
    let pool = json!({
        "id": "Pool", "vmSize": "x", "targetDedicatedNodes": 0, "virtualMachineConfiguration": machine, "taskSlotsPerNode": 3,
        "taskSchedulingPolicy": {"nodeFillType": "Pack", "jobDefaultOrder": "creationtime"},
        "resourceTags": {"jobDefaultOrder": "a tag"}, "targetNodeCommunicationMode": "simplified",
    });
    dispatcher.send("POST", &format!("/pools?{NEW}"), pool, 201);
    dispatcher.send("POST", "/jobs", json!({"id": "Job", "poolInfo": {"poolId": "Pool"}, "maxParallelTasks": 4}), 201);
    let task = json!({"id": "t", "commandLine": "x", "requiredSlots": 2, "authenticationTokenSettings": {"access": ["job"]}});
    dispatcher.send("POST", "/jobs/Job/tasks", task, 201);
    for (list, id, path, versions) in [
        ("/pools", "Pool", "taskSlotsPerNode", [false, true, true, true]),
        ("/pools", "Pool", "maxTasksPerNode", [true, false, false, false]),
        ("/pools", "Pool", "taskSchedulingPolicy/nodeFillType", [true, true, true, true]),
        ("/pools", "Pool", "taskSchedulingPolicy/jobDefaultOrder", [false, false, false, true]),
        ("/pools", "Pool", "resourceTags/jobDefaultOrder", [false, true, true, false]),
        ("/pools", "Pool", "targetNodeCommunicationMode", [false, true, true, false]),
        ("/pools", "Pool", "currentNodeCommunicationMode", [false, true, true, false]),
        ("/jobs", "Job", "maxParallelTasks", [false, true, true, true]),
        ("/jobs/Job/tasks", "t", "requiredSlots", [false, true, true, true]),
        ("/jobs/Job/tasks", "t", "authenticationTokenSettings", [true, true, true, false]),
    ] {
        for (version, is_there) in [OLD, V19, V20, NEW].into_iter().zip(versions) {
            let one = dispatcher.get(&format!("{list}/{id}?{version}"));
            assert_eq!(has(&one, path), is_there, "{path} of {list}/{id} by {version}: {one}");
            let all = dispatcher.get(&format!("{list}?{version}"));
            assert_eq!(has(&all["value"][0], path), is_there, "{path} of {list} by {version}");
            let field = path.split('/').next().unwrap();
            if field != "maxTasksPerNode" {
                let selected = dispatcher.get(&format!("{list}/{id}?{version}&$select=id,{field}"));
                assert_eq!((has(&selected, path), &selected["id"]), (is_there, &json!(id)), "{field} selected by {version}");
            }
        }
    }
    assert_eq!(dispatcher.get(&format!("/pools/Pool?{OLD}"))["maxTasksPerNode"], 3);
}

#[test]
fn parts_of_machines_and_networks_are_shown_since_the_version_that_brought_them() {
    let dispatcher = TestDispatcher::start();
    let machine = json!({
        "imageReference": {"publisher": "p", "offer": "o", "sku": "s"}, "nodeAgentSKUId": "a",
        "osDisk": {"caching": "readonly", "ephemeralOSDiskSettings": {"placement": "CacheDisk"}},
        "nodePlacementConfiguration": {"policy": "regional"},
        "securityProfile": {"encryptionAtHost": false},
    });
    let pool = json!({
        "id": "Pool", "vmSize": "x", "targetDedicatedNodes": 0, "virtualMachineConfiguration": machine, "resourceTags": {"a": "b"},
        "networkConfiguration": {"enableAcceleratedNetworking": true}, "upgradePolicy": {"mode": "manual"},
    });
    dispatcher.send("POST", "/pools", pool, 201);
    dispatcher.send("POST", "/jobs", json!({"id": "Job", "poolInfo": {"poolId": "Pool"}, "maxParallelTasks": 4}), 201);
    let machine = |part: &str| format!("virtualMachineConfiguration/{part}");
    for (target, path, versions) in [
        ("/pools/Pool", machine("imageReference"), [true, true, true, true, true]),
        ("/pools/Pool", machine("osDisk/ephemeralOSDiskSettings"), [false, true, true, true, true]),
        ("/pools/Pool", machine("osDisk/caching"), [false, false, false, true, true]),
        ("/pools/Pool", machine("nodePlacementConfiguration"), [false, true, true, true, true]),
        ("/pools/Pool", machine("securityProfile"), [false, false, false, true, true]),
        ("/pools/Pool", "networkConfiguration/enableAcceleratedNetworking".to_owned(), [false, false, true, true, true]),
        ("/pools/Pool", "resourceTags".to_owned(), [false, false, false, true, true]),
        ("/pools/Pool", "upgradePolicy".to_owned(), [false, false, false, false, true]),
        ("/jobs/Job", "maxParallelTasks".to_owned(), [false, true, true, true, true]),
    ] {
        for (version, is_there) in [OLD, V14, V17, V18, V19].into_iter().zip(versions) {
            let shown = dispatcher.get(&format!("{target}?{version}"));
            assert_eq!(has(&shown, &path), is_there, "{path} of {target} by {version}: {shown}");
        }
    }
}

#[test]
fn counts_have_the_shape_of_their_version() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    dispatcher.send("POST", "/jobs/Job/tasks", json!({"id": "t", "commandLine": "x"}), 201);
    let counts = |version| dispatcher.get(&format!("/nodecounts?{version}"))["value"][0]["lowPriority"].clone();
    assert_eq!(counts(V19).as_object().unwrap().len(), 15);
    assert_eq!(counts(NEW).as_object().unwrap().len(), 17);
    assert!(has(&counts(V20), "deallocated") && !has(&counts(V19), "deallocating"));
    assert!(has(&counts(V19), "upgradingOS") && !has(&counts(V18), "upgradingOS"));
    let tasks = |version| dispatcher.get(&format!("/jobs/Job/taskcounts?{version}"));
    let flat = tasks(OLD);
    assert_eq!((&flat["active"], &flat["completed"], has(&flat, "taskCounts")), (&json!(1), &json!(0), false));
    assert_eq!(tasks(V19)["taskCounts"]["active"], 1);
}

#[test]
fn operations_that_a_version_gave_up_are_not_found() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    let code = |method: &str, target: &str, status: u16| {
        dispatcher.send(method, target, Value::Null, status).json()["code"].as_str().map(str::to_owned).unwrap_or_default()
    };
    assert_eq!(dispatcher.get(&format!("/certificates?{V19}"))["value"], json!([]));
    assert_eq!(code("GET", &format!("/certificates?{NEW}"), 404), "ResourceNotFound");
    assert_eq!(code("GET", &format!("/pools/Pool/nodes/n/rdp?{NEW}"), 404), "ResourceNotFound");
    for version in [OLD, V19, NEW] {
        assert_eq!(code("POST", &format!("/pools/Pool/nodes/n/start?{version}"), 404), "NodeNotFound", "{version}");
    }
}
