//! The life of a job at the API: disabled, moved, enabled, ended by its manager or by its last task.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::test_dispatcher::TestDispatcher;

fn code(got: crate::signing::Got) -> String {
    got.json()["code"].as_str().unwrap().to_owned()
}

const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// The longest wait for a job's state.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until a job is in a state; only intermediate states may come before it.
fn until(dispatcher: &TestDispatcher, job: &str, state: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let job = dispatcher.get(&format!("/jobs/{job}"));
        let now = job["state"].as_str().unwrap();
        if now == state {
            return;
        }
        assert!(["disabling", "enabling", "terminating"].contains(&now), "{job}");
        assert!(Instant::now() < deadline, "{job} is not {state} in time");
        std::thread::sleep(POLL_INTERVAL);
    }
}

fn add_pool(dispatcher: &TestDispatcher, id: &str, slots: u32) {
    let machine = json!({"imageReference": {"publisher": "p", "offer": "o", "sku": "s"}, "nodeAgentSKUId": "a"});
    let pool =
        json!({"id": id, "vmSize": "x", "targetDedicatedNodes": 0, "taskSlotsPerNode": slots, "virtualMachineConfiguration": machine});
    dispatcher.send("POST", "/pools", pool, 201);
}

#[test]
fn a_job_is_disabled_moved_and_enabled_again() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    add_pool(&dispatcher, "Other", 4);
    dispatcher.send("POST", "/jobs/Job/tasks", json!({"id": "wide", "commandLine": "x", "requiredSlots": 3}), 201);
    let got = dispatcher.send("PATCH", "/jobs/Job", json!({"poolInfo": {"poolId": "other"}}), 409);
    assert_eq!(code(got), "OperationInvalidForCurrentState");
    assert_eq!(code(dispatcher.send("POST", "/jobs/Job/enable", Value::Null, 409)), "OperationInvalidForCurrentState");
    let old = dispatcher.get("/jobs/Job")["eTag"].as_str().unwrap().to_owned();
    let got = dispatcher.ask("POST", "/jobs/Job/disable", &[("if-match", &old)], &json!({"disableTasks": "Wait"}));
    assert_eq!((got.status, got.body.len()), (202, 0));
    assert_ne!(got.header("etag"), Some(old.as_str()));
    let stale = dispatcher.ask("POST", "/jobs/Job/disable", &[("if-match", &old)], &json!({"disableTasks": "requeue"}));
    assert_eq!(stale.status, 412);
    until(&dispatcher, "Job", "disabled");
    let job = dispatcher.get("/jobs/Job");
    assert_eq!(job["previousState"], "disabling");
    dispatcher.send("PATCH", "/jobs/Job", json!({"poolInfo": {"poolId": "OTHER"}, "priority": 3}), 200);
    let job = dispatcher.get("/jobs/Job");
    assert_eq!((&job["poolInfo"]["poolId"], &job["priority"]), (&json!("OTHER"), &json!(3)));
    assert_eq!(dispatcher.get("/piecework/pools/Other")["poolId"], dispatcher.get("/piecework/pools/other")["poolId"]);
    dispatcher.send("POST", "/jobs/Job/disable", json!({"disableTasks": "terminate"}), 202);
    assert!(dispatcher.send("POST", "/jobs/Job/enable", Value::Null, 202).body.is_empty());
    until(&dispatcher, "Job", "active");
    assert_eq!(dispatcher.get("/jobs/Job")["previousState"], "enabling");
    dispatcher.send("PUT", "/jobs/Job", json!({"poolInfo": {"poolId": "other"}}), 200);
}

#[test]
fn wrong_orders_to_a_job_are_refused() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    let cases = [
        ("disable", json!({}), 400, "MissingRequiredProperty"),
        ("disable", json!({"disableTasks": "later"}), 400, "InvalidPropertyValue"),
        ("disable", json!([]), 400, "InvalidRequestBody"),
        ("disable", Value::Null, 400, "InvalidRequestBody"),
    ];
    for (action, body, status, expected) in cases {
        assert_eq!(code(dispatcher.send("POST", &format!("/jobs/Job/{action}"), body.clone(), status)), expected, "{body}");
    }
    for (action, body) in [("disable", json!({"disableTasks": "wait"})), ("enable", Value::Null), ("terminate", Value::Null)] {
        assert_eq!(code(dispatcher.send("POST", &format!("/jobs/none/{action}"), body, 404)), "JobNotFound");
    }
    let got = dispatcher.send("GET", "/jobs/Job/jobpreparationandreleasetaskstatus", Value::Null, 409);
    assert_eq!(code(got), "JobPreparationTaskNotSpecified");
    dispatcher.send("GET", "/jobs/none/jobpreparationandreleasetaskstatus", Value::Null, 404);
    dispatcher.send("POST", "/jobs/Job/terminate?force=true", Value::Null, 202);
    until(&dispatcher, "Job", "completed");
    let job = dispatcher.get("/jobs/Job");
    assert_eq!((&job["executionInfo"]["terminateReason"], &job["previousState"]), (&json!("UserTerminate"), &json!("terminating")));
    assert!(job["executionInfo"].get("schedulingError").is_none() && job["executionInfo"]["endTime"].is_string());
    for (action, body) in [("disable", json!({"disableTasks": "wait"})), ("enable", Value::Null), ("terminate", Value::Null)] {
        assert_eq!(code(dispatcher.send("POST", &format!("/jobs/Job/{action}"), body, 409)), "JobCompleted", "{action}");
    }
    assert_eq!(code(dispatcher.send("PATCH", "/jobs/Job", json!({"priority": 1}), 409)), "JobCompleted");
}

#[test]
fn a_job_whose_tasks_have_all_ended_ends_when_it_is_told_to() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    dispatcher.send("POST", "/jobs/Job/tasks", json!({"id": "t", "commandLine": "x"}), 201);
    dispatcher.send("POST", "/jobs/Job/tasks/t/terminate", Value::Null, 204);
    assert_eq!(dispatcher.get("/jobs/Job")["state"], "active");
    dispatcher.send("PATCH", "/jobs/Job", json!({"onAllTasksComplete": "terminatejob"}), 200);
    until(&dispatcher, "Job", "completed");
    assert_eq!(dispatcher.get("/jobs/Job")["executionInfo"]["terminateReason"], "AllTasksComplete");
    assert_eq!(code(dispatcher.send("POST", "/jobs/Job/tasks/t/reactivate", Value::Null, 409)), "JobCompleted");
    assert_eq!(code(dispatcher.send("PUT", "/jobs/Job/tasks/t", json!({}), 409)), "JobCompleted");
}

#[test]
fn a_task_that_is_terminated_takes_its_job_along_only_where_its_exit_conditions_say_so() {
    let dispatcher = TestDispatcher::start();
    add_pool(&dispatcher, "Pool", 4);
    let job = |id: &str| json!({"id": id, "poolInfo": {"poolId": "Pool"}, "onTaskFailure": "performExitOptionsJobAction"});
    let task = |id: &str, conditions: Value| json!({"id": id, "commandLine": "x", "exitConditions": conditions});
    for (id, conditions) in [("Plain", json!({})), ("Bound", json!({"default": {"jobAction": "terminate"}}))] {
        dispatcher.send("POST", "/jobs", job(id), 201);
        dispatcher.send("POST", &format!("/jobs/{id}/tasks"), task("t", conditions), 201);
        dispatcher.send("POST", &format!("/jobs/{id}/tasks/t/terminate"), Value::Null, 204);
    }
    assert_eq!(dispatcher.get("/jobs/Plain")["state"], "active");
    dispatcher.send("POST", "/jobs/Plain/tasks/t/reactivate", Value::Null, 204);
    assert_eq!(dispatcher.get("/jobs/Plain/tasks/t")["state"], "active");
    until(&dispatcher, "Bound", "completed");
    assert_eq!(dispatcher.get("/jobs/Bound")["executionInfo"]["terminateReason"], "TaskFailed");
}

#[test]
fn a_job_may_come_before_its_pool_but_not_before_that_of_a_manager_that_takes_a_whole_node() {
    let dispatcher = TestDispatcher::start();
    dispatcher.send("POST", "/jobs", json!({"id": "Early", "poolInfo": {"poolId": "later"}}), 201);
    dispatcher.send("POST", "/jobs/Early/tasks", json!({"id": "t", "commandLine": "x"}), 201);
    assert_eq!(dispatcher.get("/jobs/Early")["poolInfo"]["poolId"], "later");
    let managed = |exclusive: bool| {
        let manager = json!({"id": "m", "commandLine": "x", "runExclusive": exclusive});
        json!({"id": "Managed", "poolInfo": {"poolId": "later"}, "jobManagerTask": manager})
    };
    assert_eq!(code(dispatcher.send("POST", "/jobs", managed(true), 404)), "PoolNotFound");
    dispatcher.send("POST", "/jobs", managed(false), 201);
    add_pool(&dispatcher, "Later", 1);
    let view = dispatcher.get("/piecework/pools/Later");
    assert_eq!(view["waiting"], json!({"tasks": 2, "slots": 2}), "{view}");
}

#[test]
fn a_manager_comes_with_its_job_and_its_end_is_the_jobs() {
    let dispatcher = TestDispatcher::start();
    add_pool(&dispatcher, "Pool", 4);
    let manager =
        json!({"id": "Boss", "commandLine": "run all", "displayName": "the boss", "environmentSettings": [{"name": "A", "value": "b"}]});
    let job = json!({"id": "Job", "poolInfo": {"poolId": "Pool"}, "jobManagerTask": manager});
    dispatcher.send("POST", "/jobs", job, 201);
    let shown = dispatcher.get("/jobs/Job")["jobManagerTask"].clone();
    assert_eq!((&shown["id"], &shown["displayName"], &shown["requiredSlots"]), (&json!("Boss"), &json!("the boss"), &json!(1)));
    assert_eq!(
        (&shown["killJobOnCompletion"], &shown["runExclusive"], &shown["allowLowPriorityNode"]),
        (&json!(true), &json!(true), &json!(true))
    );
    assert_eq!(shown["environmentSettings"], manager["environmentSettings"]);
    let counts = dispatcher.get("/jobs/Job/taskcounts");
    assert_eq!((&counts["taskCounts"]["active"], &counts["taskSlotCounts"]["active"]), (&json!(1), &json!(4)), "alone on its node");
    assert_eq!(dispatcher.get("/jobs/Job/tasks/boss")["commandLine"], "run all");
    assert_eq!(code(dispatcher.send("POST", "/jobs/Job/tasks", json!({"id": "BOSS", "commandLine": "x"}), 409)), "TaskExists");
    dispatcher.send("POST", "/jobs/Job/tasks", json!({"id": "other", "commandLine": "x"}), 201);
    dispatcher.send("POST", "/jobs/Job/tasks/Boss/terminate", Value::Null, 204);
    until(&dispatcher, "Job", "completed");
    assert_eq!(dispatcher.get("/jobs/Job")["executionInfo"]["terminateReason"], "JMComplete");
    assert_eq!(dispatcher.get("/jobs/Job/tasks/other")["state"], "active", "what waits stays");

    let kind = json!({"id": "m", "commandLine": "x", "killJobOnCompletion": false, "runExclusive": false});
    dispatcher.send("POST", "/jobs", json!({"id": "Kind", "poolInfo": {"poolId": "Pool"}, "jobManagerTask": kind}), 201);
    assert_eq!(dispatcher.get("/jobs/Kind/taskcounts")["taskSlotCounts"]["active"], 1);
    dispatcher.send("POST", "/jobs/Kind/tasks/m/terminate", Value::Null, 204);
    assert_eq!(dispatcher.get("/jobs/Kind")["state"], "active");
}

#[test]
fn what_jobs_do_not_have_is_refused_by_name() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    for (name, value, expected) in [
        ("jobManagerTask", json!({"id": "m"}), "MissingRequiredProperty"),
        ("jobManagerTask", json!({"commandLine": "x"}), "MissingRequiredProperty"),
        ("jobManagerTask", json!({"id": "a b", "commandLine": "x"}), "InvalidPropertyValue"),
        ("jobPreparationTask", json!({"id": "p"}), "MissingRequiredProperty"),
        ("jobPreparationTask", json!({"commandLine": "x", "containerSettings": {"imageName": "i"}}), "UnsupportedProperty"),
        ("jobReleaseTask", json!({"commandLine": "x"}), "InvalidPropertyValue"),
        ("networkConfiguration", json!({"subnetId": "x"}), "UnsupportedProperty"),
    ] {
        let got = dispatcher.send("POST", "/jobs", json!({"id": "new", "poolInfo": {"poolId": "pool"}, name: value}), 400).json();
        assert_eq!(got["code"], expected, "{name}");
        assert!(got["values"][0]["value"].as_str().unwrap().starts_with(name), "{got}");
    }
    dispatcher.send("GET", "/jobs/new", Value::Null, 404);
}
