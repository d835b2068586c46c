//! Changing pools: PATCH changes the given properties, POST replaces all that can be replaced.

use serde_json::{Value, json};

use crate::{fake_agent::FakeAgent, schedules::eventually, test_dispatcher::TestDispatcher};

fn code(dispatcher: &TestDispatcher, method: &str, target: &str, body: Value, status: u16) -> String {
    dispatcher.send(method, target, body, status).json()["code"].as_str().unwrap().to_owned()
}

#[test]
fn a_patch_changes_what_it_names_and_keeps_the_rest() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    let before = dispatcher.get("/pools/Pool");
    let body = json!({"metadata": [{"name": "a", "value": "b"}], "startTask": {"commandLine": "x"}, "displayName": "shown"});
    let got = dispatcher.send("PATCH", "/pools/pool", body, 200);
    assert!(got.body.is_empty());
    let after = dispatcher.get("/pools/Pool");
    assert_eq!(
        (got.header("etag"), got.header("dataserviceid")),
        (after["eTag"].as_str(), Some(format!("{}/pools/pool", dispatcher.account.url).as_str()))
    );
    assert_ne!(before["eTag"], after["eTag"]);
    assert_eq!((&after["displayName"], &after["metadata"][0]["value"]), (&json!("shown"), &json!("b")));
    assert_eq!(
        after["startTask"],
        json!({"commandLine": "x", "maxTaskRetryCount": 0, "waitForSuccess": true, "userIdentity": {"autoUser": {"scope": "pool", "elevationLevel": "nonadmin"}}})
    );
    assert_eq!((&after["virtualMachineConfiguration"], &after["vmSize"]), (&before["virtualMachineConfiguration"], &before["vmSize"]));
    dispatcher.send("PATCH", "/pools/Pool", json!({"metadata": []}), 200);
    let pool = dispatcher.get("/pools/Pool");
    assert_eq!((pool.get("metadata"), &pool["startTask"]["commandLine"]), (None, &json!("x")));
    assert_eq!(pool["currentNodeCommunicationMode"], "simplified");
}

#[test]
fn a_replacement_removes_what_it_leaves_out_and_needs_its_lists() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    dispatcher.send("PATCH", "/pools/Pool", json!({"startTask": {"commandLine": "x"}, "displayName": "stays"}), 200);
    let whole = json!({"applicationPackageReferences": [], "certificateReferences": [], "metadata": [{"name": "a", "value": "b"}]});
    assert!(dispatcher.send("POST", "/pools/Pool/updateproperties", whole, 204).body.is_empty());
    let pool = dispatcher.get("/pools/Pool");
    assert_eq!((pool.get("startTask"), &pool["displayName"], &pool["metadata"][0]["name"]), (None, &json!("stays"), &json!("a")));
    assert_eq!(code(&dispatcher, "POST", "/pools/Pool/updateproperties", json!({"metadata": []}), 400), "MissingRequiredProperty");
    assert_eq!(
        code(&dispatcher, "POST", "/pools/none/updateproperties", json!({"applicationPackageReferences": [], "metadata": []}), 404),
        "PoolNotFound"
    );
}

#[test]
fn conditions_and_wrong_bodies_change_nothing() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    let etag = dispatcher.get("/pools/Pool")["eTag"].as_str().unwrap().to_owned();
    assert_eq!(dispatcher.ask("PATCH", "/pools/Pool", &[("if-match", "0x1")], &json!({"displayName": "x"})).status, 412);
    for (body, wanted) in [
        (json!({"metadata": [{"name": "", "value": "b"}]}), "EmptyMetadataKey"),
        (json!({"startTask": {"commandLine": ""}}), "InvalidPropertyValue"),
        (json!({"startTask": "x"}), "InvalidPropertyValue"),
        (json!({"taskSlotsPerNode": 0}), "InvalidPropertyValue"),
        (json!({"applicationPackageReferences": [{"applicationId": ""}]}), "InvalidPropertyValue"),
        (json!({"targetNodeCommunicationMode": "loud"}), "InvalidPropertyValue"),
        (json!([]), "InvalidRequestBody"),
    ] {
        assert_eq!(code(&dispatcher, "PATCH", "/pools/Pool", body.clone(), 400), wanted, "{body}");
    }
    assert_eq!(code(&dispatcher, "PATCH", "/pools/none", json!({}), 404), "PoolNotFound");
    assert_eq!(dispatcher.get("/pools/Pool")["eTag"], etag);
    assert_eq!(dispatcher.ask("PATCH", "/pools/Pool", &[("if-match", &etag)], &json!({"displayName": "x"})).status, 200);
}

#[test]
fn what_nodes_are_made_of_changes_only_while_there_are_none() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    let change = json!({"taskSlotsPerNode": 4, "vmSize": "large", "taskSchedulingPolicy": {"nodeFillType": "Pack"}});
    dispatcher.send("PATCH", "/pools/Pool", change.clone(), 200);
    let pool = dispatcher.get("/pools/Pool");
    assert_eq!((&pool["taskSlotsPerNode"], &pool["vmSize"]), (&json!(4), &json!("large")));
    assert_eq!(pool["taskSchedulingPolicy"]["nodeFillType"], "pack");
    let found = |filter: &str| dispatcher.get(&format!("/pools?$filter={filter}"))["value"].as_array().unwrap().len();
    assert_eq!((found("vmSize%20eq%20'LARGE'"), found("vmSize%20ne%20'large'")), (1, 0));
    assert_eq!((found("enableInterNodeCommunication%20eq%20false"), found("enableInterNodeCommunication%20eq%20true")), (1, 0));

    let agent = FakeAgent::join(&dispatcher);
    assert_eq!(agent.joined.slots, 4);
    let refused = dispatcher.send("PATCH", "/pools/Pool", change, 409).json();
    assert_eq!((&refused["code"], &refused["values"][0]["value"]), (&json!("OperationInvalidForCurrentState"), &json!("vmSize")));
    let message = refused["message"]["value"].as_str().unwrap();
    assert!(message.starts_with("The specified operation is not valid for the current state of the resource.\n"), "{message}");
    let reason = json!({"key": "Reason", "value": "The property can only change while the pool has no nodes."});
    assert!(refused["values"].as_array().unwrap().contains(&reason), "{refused}");
    dispatcher.send("PATCH", "/pools/Pool", json!({"displayName": "still"}), 200);
    dispatcher.send("DELETE", "/pools/Pool", Value::Null, 202);
    assert_eq!(code(&dispatcher, "PATCH", "/pools/Pool", json!({"displayName": "x"}), 409), "PoolBeingDeleted");
    assert_eq!(code(&dispatcher, "POST", "/pools/Pool/nodes/n1/reboot", Value::Null, 409), "PoolBeingDeleted");
}

#[test]
fn a_resize_that_goes_on_shows_no_errors_and_its_last_fault_in_words() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    let agent = FakeAgent::join(&dispatcher);
    dispatcher.send("POST", "/pools/Pool/resize", json!({"targetDedicatedNodes": 2}), 202);
    agent.fail("AllocationFailed");
    let pool = dispatcher.get("/pools/Pool");
    assert_eq!((&pool["allocationState"], pool.get("resizeErrors")), (&json!("resizing"), None));
    assert_eq!(dispatcher.get("/pools?$select=resizeErrors")["value"], json!([{}]));
    let decision = "set by hand to 2; it failed: no machine is free (AllocationFailed)";
    eventually("the fault beside the size", || (dispatcher.get("/piecework/pools/Pool")["decision"] == decision).then_some(()));
}
