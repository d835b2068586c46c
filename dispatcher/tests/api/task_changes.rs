//! Changes of tasks at the API: constraints, reactivation, and collections with invalid items.

use serde_json::{Value, json};

use crate::test_dispatcher::TestDispatcher;

fn code(got: crate::signing::Got) -> String {
    got.json()["code"].as_str().unwrap().to_owned()
}

fn add(dispatcher: &TestDispatcher, task: Value) {
    dispatcher.send("POST", "/jobs/Job/tasks", task, 201);
}

#[test]
fn constraints_are_replaced_whole() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    add(
        &dispatcher,
        json!({"id": "t", "commandLine": "x", "displayName": "d", "constraints": {"maxTaskRetryCount": 2, "retentionTime": "PT1H"}}),
    );
    let old = dispatcher.get("/jobs/Job/tasks/t")["eTag"].as_str().unwrap().to_owned();
    let got = dispatcher.ask("PUT", "/jobs/Job/tasks/t", &[("if-match", &old)], &json!({"constraints": {"maxWallClockTime": "PT05M00S"}}));
    assert_eq!((got.status, got.body.len()), (200, 0));
    let task = dispatcher.get("/jobs/Job/tasks/t");
    assert_eq!(task["constraints"], json!({"maxTaskRetryCount": 0, "maxWallClockTime": "PT5M", "retentionTime": "P7D"}));
    assert_eq!((&task["displayName"], &task["commandLine"]), (&json!("d"), &json!("x")));
    assert_eq!(dispatcher.ask("PUT", "/jobs/Job/tasks/t", &[("if-match", &old)], &json!({})).status, 412);
    dispatcher.send("PUT", "/jobs/Job/tasks/t", json!({}), 200);
    assert_eq!(dispatcher.get("/jobs/Job/tasks/t")["constraints"]["maxWallClockTime"], "P10675199DT2H48M5.4775807S");
    let wrong = json!({"constraints": {"maxTaskRetryCount": -2}});
    assert_eq!(code(dispatcher.send("PUT", "/jobs/Job/tasks/t", wrong, 400)), "InvalidPropertyValue");
    assert_eq!(code(dispatcher.send("PUT", "/jobs/Job/tasks/none", json!({}), 404)), "TaskNotFound");
    assert_eq!(code(dispatcher.send("PUT", "/jobs/none/tasks/t", json!({}), 404)), "JobNotFound");
    dispatcher.send("POST", "/jobs/Job/tasks/t/terminate", Value::Null, 204);
    assert_eq!(code(dispatcher.send("PUT", "/jobs/Job/tasks/t", json!({}), 409)), "TaskCompleted");
}

#[test]
fn a_failed_task_is_reactivated_and_its_end_forgotten() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    add(&dispatcher, json!({"id": "t", "commandLine": "x", "requiredSlots": 2}));
    assert_eq!(code(dispatcher.send("POST", "/jobs/Job/tasks/t/reactivate", Value::Null, 409)), "TaskNotCompleted");
    dispatcher.send("POST", "/jobs/Job/tasks/t/terminate", Value::Null, 204);
    let old = dispatcher.get("/jobs/Job/tasks/t")["eTag"].as_str().unwrap().to_owned();
    assert!(dispatcher.send("POST", "/jobs/Job/tasks/t/reactivate", Value::Null, 204).body.is_empty());
    let task = dispatcher.get("/jobs/Job/tasks/t");
    assert_eq!((&task["state"], &task["previousState"]), (&json!("active"), &json!("completed")));
    assert_eq!(task["executionInfo"], json!({"retryCount": 0, "requeueCount": 0}));
    let counts = dispatcher.get("/jobs/Job/taskcounts");
    assert_eq!(counts["taskCounts"], json!({"active": 1, "running": 0, "completed": 0, "succeeded": 0, "failed": 0}));
    assert_eq!(counts["taskSlotCounts"], json!({"active": 2, "running": 0, "completed": 0, "succeeded": 0, "failed": 0}));
    dispatcher.send("POST", "/jobs/Job/tasks/t/terminate", Value::Null, 204);
    assert_eq!(dispatcher.ask("POST", "/jobs/Job/tasks/t/reactivate", &[("if-match", &old)], &Value::Null).status, 412);
    assert_eq!(code(dispatcher.send("POST", "/jobs/Job/tasks/none/reactivate", Value::Null, 404)), "TaskNotFound");
}

#[test]
fn one_malformed_task_holds_up_no_other() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    let tasks = json!([
        {"id": "good", "commandLine": "x"},
        {"id": "silent"},
        {"id": "a b", "commandLine": "x"},
        {"id": "GOOD", "commandLine": "x"},
        {"id": "acts", "commandLine": "x", "exitConditions": {"default": {"jobAction": "terminate"}}},
        {"id": "needs", "commandLine": "x", "dependsOn": {"taskIds": ["good"]}},
        {"commandLine": "x"},
        {"id": "last", "commandLine": "x"},
    ]);
    let answer = dispatcher.send("POST", "/jobs/Job/addtaskcollection", json!({"value": tasks}), 200).json();
    let results: Vec<_> = answer["value"].as_array().unwrap().iter().collect();
    let brief: Vec<_> = results
        .iter()
        .map(|result| (result["taskId"].as_str().unwrap(), result["status"].as_str().unwrap(), result["error"]["code"].as_str()))
        .collect();
    assert_eq!(
        brief,
        [
            ("good", "success", None),
            ("silent", "clienterror", Some("MissingRequiredProperty")),
            ("a b", "clienterror", Some("InvalidPropertyValue")),
            ("GOOD", "clienterror", Some("TaskExists")),
            ("acts", "clienterror", Some("InvalidPropertyValue")),
            ("needs", "clienterror", Some("TaskDependenciesNotSpecifiedOnJob")),
            ("", "clienterror", Some("MissingRequiredProperty")),
            ("last", "success", None),
        ]
    );
    assert_eq!(results[1]["error"]["values"][0], json!({"key": "PropertyName", "value": "value[1].commandLine"}));
    assert!(results[1]["error"]["message"]["value"].is_string() && results[1].get("eTag").is_none());
    assert_eq!(dispatcher.get("/jobs/Job/taskcounts")["taskCounts"]["active"], 2);
}

#[test]
fn a_collection_that_is_none_is_refused_whole() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    let many: Vec<_> = (0..101).map(|n| json!({"id": format!("t{n}"), "commandLine": "x"})).collect();
    for (body, expected) in [
        (json!([]), "InvalidRequestBody"),
        (json!({}), "MissingRequiredProperty"),
        (json!({"value": []}), "InvalidPropertyValue"),
        (json!({"value": {"id": "t"}}), "InvalidPropertyValue"),
        (json!({"value": ["t"]}), "InvalidPropertyValue"),
        (json!({"value": many}), "InvalidPropertyValue"),
    ] {
        assert_eq!(code(dispatcher.send("POST", "/jobs/Job/addtaskcollection", body, 400)), expected);
    }
    assert_eq!(dispatcher.get("/jobs/Job/taskcounts")["taskCounts"]["active"], 0);
    assert_eq!(code(dispatcher.send("POST", "/jobs/none/addtaskcollection", json!({"value": [{"id": "t"}]}), 404)), "JobNotFound");
}

#[test]
fn what_azure_gave_up_answers_in_its_own_codes() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    let path = "/certificates(thumbprintAlgorithm=sha1,thumbprint=ff)";
    for (method, path) in [("GET", path.to_owned()), ("DELETE", path.to_owned()), ("POST", format!("{path}/canceldelete"))] {
        assert_eq!(code(dispatcher.send(method, &path, Value::Null, 404)), "CertificateNotFound", "{method}");
    }
    let certificate = json!({"thumbprint": "ff", "thumbprintAlgorithm": "sha1", "data": "AA=="});
    let got = dispatcher.send("POST", "/certificates", certificate, 400).json();
    assert!(got["code"] == "InvalidInput" && got["values"].as_array().unwrap().iter().any(|value| value["key"] == "Hint"), "{got}");
    assert_eq!(code(dispatcher.send("POST", "/certificates", json!({"thumbprint": "ff"}), 400)), "MissingRequiredProperty");
    for path in ["rdp", "extensions/e"] {
        assert_eq!(code(dispatcher.send("GET", &format!("/pools/none/nodes/n/{path}"), Value::Null, 404)), "PoolNotFound");
        assert_eq!(code(dispatcher.send("GET", &format!("/pools/Pool/nodes/n/{path}"), Value::Null, 404)), "NodeNotFound");
    }
}
