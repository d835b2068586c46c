//! Unknown properties are named in the response, and refused when the client asks for that.

use serde_json::{Value, json};

use crate::test_dispatcher::TestDispatcher;

const STRICT: (&str, &str) = ("piecework-strict", "true");

#[test]
fn unknown_properties_are_named_in_the_answer_and_known_ones_are_not() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    let ignored = |target: &str, body: Value, status: u16| {
        let got = dispatcher.send("POST", target, body, status);
        got.header("piecework-ignored").map(str::to_owned)
    };
    let task = json!({"id": "a", "commandLine": "x", "comandLine": "y", "constraints": {"maxRetries": 3}});
    assert_eq!(ignored("/jobs/Job/tasks", task, 201).as_deref(), Some("comandLine, constraints.maxRetries"));
    let tasks = json!({"value": [{"id": "b", "commandLine": "x"}, {"id": "c", "commandLine": "x", "priority": 7}]});
    assert_eq!(ignored("/jobs/Job/addtaskcollection", tasks, 200).as_deref(), Some("value[1].priority"));
    assert_eq!(ignored("/jobs/Job/tasks", json!({"id": "d", "commandLine": "x", "displayName": null, "none": null}), 201), None);
    let job = json!({"id": "J", "poolInfo": {"poolId": "Pool"}, "metadata": [{"name": "a", "value": "b", "kind": 1}]});
    assert_eq!(ignored("/jobs", job, 201).as_deref(), Some("metadata[0].kind"));
    let misspelt = json!({"id": "f", "comandLine": "x"});
    let error = dispatcher.send("POST", "/jobs/Job/tasks", misspelt, 400).json();
    let told = error["values"].as_array().unwrap().iter().find(|value| value["key"] == "IgnoredProperties").unwrap();
    assert_eq!((&error["code"], &told["value"]), (&json!("MissingRequiredProperty"), &json!("comandLine")));
    let line = json!({"id": "e", "commandLine": "x", "a\r\nset-cookie: b": 1});
    assert_eq!(ignored("/jobs/Job/tasks", line, 201).as_deref(), Some("a%0D%0Aset-cookie:%20b"), "no name leaves its header");
}

#[test]
fn a_strict_request_with_an_unknown_property_changes_nothing() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    let task = json!({"id": "t", "commandLine": "x", "constraints": {"maxTaskRetryCount": 1, "maxRetries": 3}});
    let got = dispatcher.ask("POST", "/jobs/Job/tasks", &[STRICT], &task);
    let error = got.json();
    assert_eq!(
        (got.status, &error["code"], &error["values"][0]["value"]),
        (400, &json!("UnsupportedProperty"), &json!("constraints.maxRetries"))
    );
    dispatcher.send("GET", "/jobs/Job/tasks/t", Value::Null, 404);
    let tasks = json!({"value": [{"id": "b", "commandLine": "x"}, task.clone()]});
    let got = dispatcher.ask("POST", "/jobs/Job/addtaskcollection", &[STRICT], &tasks);
    assert_eq!((got.status, &got.json()["values"][0]["value"]), (400, &json!("value[1].constraints.maxRetries")), "none is added");
    assert_eq!(dispatcher.get("/jobs/Job/tasks")["value"], json!([]));
    let known = json!({"id": "t", "commandLine": "x", "constraints": {"maxTaskRetryCount": 1}});
    assert_eq!(dispatcher.ask("POST", "/jobs/Job/tasks", &[STRICT], &known).status, 201);
    assert_eq!(dispatcher.ask("POST", "/jobs/Job/tasks", &[("piecework-strict", "perhaps")], &known).json()["code"], "InvalidHeaderValue");
    assert_eq!(dispatcher.ask("GET", "/jobs/Job", &[STRICT], &Value::Null).status, 200);
}
