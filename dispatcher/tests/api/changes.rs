//! Adding, reading, changing and removing resources, with the headers and statuses that clients rely on.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{signing::Wire, test_dispatcher::TestDispatcher};

#[test]
fn health_needs_no_signature_and_says_ok() {
    let dispatcher = TestDispatcher::start();
    let wire = Wire::new("GET", "/piecework/health", "").prepared(&dispatcher.account, std::time::SystemTime::now());
    let got = wire.send(&dispatcher.account);
    assert_eq!((got.status, got.json()["status"].as_str()), (200, Some("ok")));
}

#[test]
fn what_was_added_is_read_back_with_its_headers() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    let got = dispatcher.ask("GET", "/pools/POOL", &[("client-request-id", "mine"), ("return-client-request-id", "true")], &Value::Null);
    assert_eq!(got.status, 200);
    let pool = got.json();
    let url = format!("{}/pools/Pool", dispatcher.account.url);
    assert_eq!((pool["id"].as_str(), pool["url"].as_str()), (Some("Pool"), Some(url.as_str())));
    assert_eq!((pool["state"].as_str(), pool["allocationState"].as_str()), (Some("active"), Some("steady")));
    assert_eq!((&pool["taskSlotsPerNode"], &pool["resizeTimeout"], &pool["enableAutoScale"]), (&json!(1), &json!("PT15M"), &json!(false)));
    assert_eq!(pool["virtualMachineConfiguration"]["imageReference"]["publisher"], "p");
    assert!(pool.get("resizeErrors").is_none());
    assert_eq!(got.header("etag"), pool["eTag"].as_str());
    assert_eq!(got.header("client-request-id"), Some("mine"));
    assert_eq!(got.header("dataserviceid"), Some(url.as_str()));
    assert!(got.header("last-modified").unwrap().ends_with(" GMT"));
    let job = dispatcher.get("/jobs/job");
    assert_eq!((&job["poolInfo"]["poolId"], &job["priority"], &job["maxParallelTasks"]), (&json!("pool"), &json!(0), &json!(-1)));
    assert_eq!(job["constraints"], json!({"maxWallClockTime": "P10675199DT2H48M5.4775807S", "maxTaskRetryCount": 0}));
    assert_eq!(job["executionInfo"]["poolId"], "pool");
}

#[test]
fn a_create_answers_201_with_its_location_and_no_body() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    let got = dispatcher.send("POST", "/jobs/Job/tasks", json!({"id": "T", "commandLine": "x"}), 201);
    assert!(got.body.is_empty());
    assert_eq!(got.header("location"), Some(format!("{}/jobs/Job/tasks/T", dispatcher.account.url).as_str()));
    assert!(got.header("etag").unwrap().starts_with("0x"));
    let task = dispatcher.get("/jobs/job/tasks/t");
    assert_eq!((task["id"].as_str(), task["state"].as_str()), (Some("T"), Some("active")));
    assert_eq!(task["executionInfo"], json!({"retryCount": 0, "requeueCount": 0}));
    assert_eq!(
        task["constraints"],
        json!({"maxTaskRetryCount": 0, "maxWallClockTime": "P10675199DT2H48M5.4775807S", "retentionTime": "P7D"})
    );
    assert_eq!(task["userIdentity"], json!({"autoUser": {"scope": "pool", "elevationLevel": "nonadmin"}}));
    assert!(task.get("nodeInfo").is_none() && task.get("previousState").is_none());
}

#[test]
fn conditions_are_honoured_on_reads_and_writes() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    let old = dispatcher.get("/jobs/Job")["eTag"].as_str().unwrap().to_owned();
    assert_eq!(dispatcher.ask("GET", "/jobs/Job", &[("if-none-match", &old)], &Value::Null).status, 304);
    assert_eq!(dispatcher.ask("PATCH", "/jobs/Job", &[("if-match", &old)], &json!({"priority": 7})).status, 200);
    let got = dispatcher.ask("PATCH", "/jobs/Job", &[("if-match", &old)], &json!({"priority": 8}));
    assert_eq!((got.status, got.json()["code"].as_str()), (412, Some("ConditionNotMet")));
    assert_eq!(dispatcher.ask("GET", "/jobs/Job", &[("if-match", &old)], &Value::Null).status, 412);
    assert_eq!(dispatcher.ask("GET", "/jobs/Job", &[("if-modified-since", "Mon, 01 Jan 2035 00:00:00 GMT")], &Value::Null).status, 304);
    assert_eq!(dispatcher.ask("GET", "/jobs/Job", &[("if-unmodified-since", "Mon, 01 Jan 2001 00:00:00 GMT")], &Value::Null).status, 412);
    assert_eq!(dispatcher.get("/jobs/Job")["priority"], 7);
}

#[test]
fn a_patch_keeps_the_rest_and_a_put_resets_it() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    let metadata = json!([{"name": "a", "value": "b"}]);
    dispatcher.send("PATCH", "/jobs/Job", json!({"metadata": metadata, "priority": 5, "onAllTasksComplete": "NoAction"}), 200);
    dispatcher.send("PATCH", "/jobs/Job", json!({"maxParallelTasks": "3"}), 200);
    let job = dispatcher.get("/jobs/Job");
    assert_eq!((&job["metadata"], &job["priority"], &job["maxParallelTasks"]), (&metadata, &json!(5), &json!(3)));
    dispatcher.send("PUT", "/jobs/Job", json!({"poolInfo": {"poolId": "POOL"}}), 200);
    let job = dispatcher.get("/jobs/Job");
    assert_eq!((job.get("metadata"), &job["priority"], &job["maxParallelTasks"]), (None, &json!(0), &json!(-1)));
}

#[test]
fn a_collection_has_a_result_for_each_task_and_may_be_sent_twice() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    let tasks: Vec<_> = (0..100).map(|n| json!({"id": format!("t{n}"), "commandLine": "/bin/true", "requiredSlots": 2})).collect();
    let first = dispatcher.send("POST", "/jobs/Job/addtaskcollection", json!({"value": tasks}), 200).json();
    let results = first["value"].as_array().unwrap();
    assert_eq!(results.len(), 100);
    assert!(results.iter().all(|result| result["status"] == "success" && result["eTag"].is_string() && result["lastModified"].is_string()));
    let again =
        dispatcher.send("POST", "/jobs/Job/addtaskcollection", json!({"value": [tasks[0], {"id": "new", "commandLine": "x"}]}), 200).json();
    assert_eq!((&again["value"][0]["status"], &again["value"][0]["error"]["code"]), (&json!("clienterror"), &json!("TaskExists")));
    assert_eq!(again["value"][1]["status"], "success");
    let counts = dispatcher.get("/jobs/Job/taskcounts");
    assert_eq!(counts["taskCounts"], json!({"active": 101, "running": 0, "completed": 0, "succeeded": 0, "failed": 0}));
    assert_eq!(counts["taskSlotCounts"]["active"], 201);
}

#[test]
fn a_task_is_terminated_and_removed() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    for id in ["a", "b"] {
        dispatcher.send("POST", "/jobs/Job/tasks", json!({"id": id, "commandLine": "x"}), 201);
    }
    assert!(dispatcher.send("POST", "/jobs/Job/tasks/a/terminate", Value::Null, 204).body.is_empty());
    let task = dispatcher.get("/jobs/Job/tasks/a");
    assert_eq!(
        (&task["state"], &task["previousState"], &task["executionInfo"]["result"]),
        (&json!("completed"), &json!("active"), &json!("failure"))
    );
    assert_eq!(task["executionInfo"]["failureInfo"]["code"], "TaskEnded");
    let got = dispatcher.send("POST", "/jobs/Job/tasks/a/terminate", Value::Null, 409);
    assert_eq!(got.json()["code"], "TaskCompleted");
    dispatcher.send("DELETE", "/jobs/Job/tasks/b", Value::Null, 200);
    dispatcher.send("GET", "/jobs/Job/tasks/b", Value::Null, 404);
    assert_eq!(dispatcher.get("/jobs/Job/taskcounts")["taskCounts"]["failed"], 1);
}

#[test]
fn ended_jobs_take_no_tasks_and_removed_things_are_gone() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    dispatcher.send("POST", "/jobs/Job/terminate", json!({"terminateReason": "enough"}), 202);
    let job = dispatcher.get("/jobs/Job");
    assert!(["terminating", "completed"].contains(&job["state"].as_str().unwrap()));
    assert_eq!(dispatcher.send("POST", "/jobs/Job/tasks", json!({"id": "t", "commandLine": "x"}), 409).status, 409);
    assert!(dispatcher.send("DELETE", "/jobs/Job", Value::Null, 202).body.is_empty());
    dispatcher.send("DELETE", "/pools/Pool", Value::Null, 202);
}

#[test]
fn a_resize_is_visible_before_its_answer_and_a_policy_excludes_it() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    dispatcher.send("POST", "/pools/Pool/resize", json!({"targetDedicatedNodes": 2}), 202);
    let pool = dispatcher.get("/pools/Pool");
    assert_eq!((&pool["allocationState"], &pool["targetDedicatedNodes"]), (&json!("resizing"), &json!(2)));
    assert_eq!(dispatcher.send("POST", "/pools/Pool/resize", json!({"targetDedicatedNodes": 1}), 409).json()["code"], "PoolBeingResized");
    dispatcher.send("POST", "/pools/Pool/stopresize", Value::Null, 202);
    let deadline = Instant::now() + Duration::from_secs(60);
    let stopped = loop {
        let pool = dispatcher.get("/pools/Pool");
        assert!(Instant::now() < deadline, "{pool}");
        if pool["allocationState"] == "steady" {
            break pool;
        }
        assert_eq!((&pool["allocationState"], pool.get("resizeErrors")), (&json!("stopping"), None));
    };
    let error = &stopped["resizeErrors"][0];
    assert_eq!((&stopped["targetDedicatedNodes"], &error["code"]), (&json!(0), &json!("ResizeStopped")));
    assert_eq!(error["values"][0], json!({"name": "TargetDedicatedNodes", "value": "2"}));
    let policy = json!({"minNodes": 0, "maxNodes": 4, "reactMs": 500, "idleMs": 1000, "deallocation": "taskcompletion"});
    assert_eq!(dispatcher.send("PUT", "/piecework/pools/Pool/policy", policy.clone(), 200).json(), policy);
    assert_eq!(dispatcher.get("/piecework/pools/Pool/policy"), policy);
    assert_eq!(dispatcher.get("/piecework/pools/Pool")["policy"], policy);
    dispatcher.send("POST", "/pools/Pool/resize", json!({"targetDedicatedNodes": 1}), 409);
    dispatcher.send("DELETE", "/piecework/pools/Pool/policy", Value::Null, 204);
    dispatcher.send("GET", "/piecework/pools/Pool/policy", Value::Null, 404);
}

#[test]
fn both_keys_open_and_every_version_is_served() {
    let dispatcher = TestDispatcher::start();
    let other = crate::signing::Account { key: "b2xka2V5".into(), ..dispatcher.account.clone() };
    let got = Wire::new("GET", "/jobs?api-version=2025-06-01", "").send_signed(&other);
    assert_eq!(got.status, 200);
    assert_eq!(got.header("content-type"), Some("application/json;odata=minimalmetadata"));
}
