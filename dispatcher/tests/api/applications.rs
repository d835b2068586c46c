//! Applications and their packages: uploads, lists in Azure's form, references from pools and tasks.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::{
    fake_agent::FakeAgent,
    signing::{Account, Wire},
    test_dispatcher::TestDispatcher,
};

/// A zip without any file.
const EMPTY_ZIP: &[u8] = b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

fn code(dispatcher: &TestDispatcher, method: &str, target: &str, body: Value, status: u16) -> String {
    dispatcher.send(method, target, body, status).json()["code"].as_str().unwrap().to_owned()
}

/// Uploads to where the API said, without the account's key.
fn upload(dispatcher: &TestDispatcher, url: &str, bytes: &[u8]) {
    let target = url.strip_prefix(&dispatcher.blobs.endpoint).expect("a URL of the blob store");
    let store = Account { url: dispatcher.blobs.endpoint.clone(), ..dispatcher.account.clone() };
    let got = Wire::new("PUT", target, bytes).prepared(&store, SystemTime::now()).send(&store);
    assert_eq!(got.status, 200, "{}", String::from_utf8_lossy(&got.body));
}

fn add(dispatcher: &TestDispatcher, application: &str, version: &str, activation: Value) {
    let package = format!("/piecework/applications/{application}/versions/{version}");
    let begun = dispatcher.send("PUT", &package, Value::Null, 201).json();
    upload(dispatcher, begun["uploadUrl"].as_str().unwrap(), EMPTY_ZIP);
    dispatcher.send("POST", &format!("{package}/activate"), activation, 200);
}

fn pool(references: Value) -> Value {
    let machine = json!({"imageReference": {"publisher": "p", "offer": "o", "sku": "s"}, "nodeAgentSKUId": "a"});
    json!({"id": "Pool", "vmSize": "x", "targetDedicatedNodes": 0, "virtualMachineConfiguration": machine,
        "applicationPackageReferences": references})
}

#[test]
fn a_package_is_begun_uploaded_and_activated_and_then_listed() {
    let dispatcher = TestDispatcher::start();
    let application = "/piecework/applications/Blender";
    let made = dispatcher.send("PUT", application, json!({"displayName": "Blender 3D"}), 201).json();
    assert_eq!((&made["id"], &made["allowUpdates"], &made["versions"]), (&json!("Blender"), &json!(true), &json!([])));
    let package = format!("{application}/versions/2.7");
    let begun = dispatcher.send("PUT", &package, Value::Null, 201).json();
    assert_eq!((&begun["state"], &begun["version"]), (&json!("pending"), &json!("2.7")));
    assert_eq!(dispatcher.get("/applications/blender"), json!({"id": "Blender", "displayName": "Blender 3D", "versions": []}));
    assert_eq!(code(&dispatcher, "POST", &format!("{package}/activate"), Value::Null, 409), "OperationInvalidForCurrentState");
    upload(&dispatcher, begun["uploadUrl"].as_str().unwrap(), b"no zip at all");
    assert_eq!(code(&dispatcher, "POST", &format!("{package}/activate"), json!({"format": "zip"}), 400), "InvalidInput");
    upload(&dispatcher, begun["uploadUrl"].as_str().unwrap(), EMPTY_ZIP);
    let active = dispatcher.send("POST", &format!("{package}/activate"), json!({"format": "zip", "isDefault": true}), 200).json();
    assert_eq!((&active["state"], &active["bytes"]), (&json!("active"), &json!(22)));
    assert_eq!(code(&dispatcher, "POST", &format!("{package}/activate"), Value::Null, 409), "OperationInvalidForCurrentState");
    assert_eq!(dispatcher.get("/applications")["value"], json!([{"id": "Blender", "displayName": "Blender 3D", "versions": ["2.7"]}]));
    let shown = dispatcher.get("/piecework/applications/blender");
    assert_eq!((&shown["defaultVersion"], &shown["versions"][0]["state"]), (&json!("2.7"), &json!("active")));
    assert_eq!(dispatcher.get("/piecework/applications")["value"][0]["id"], "Blender");

    dispatcher.send("DELETE", &package, Value::Null, 204);
    let shown = dispatcher.get("/piecework/applications/blender");
    assert_eq!((shown.get("defaultVersion"), &shown["versions"]), (None, &json!([])));
    dispatcher.send("DELETE", application, Value::Null, 204);
    assert_eq!(code(&dispatcher, "GET", "/applications/Blender", Value::Null, 404), "ApplicationNotFound");
}

#[test]
fn applications_change_by_their_rules() {
    let dispatcher = TestDispatcher::start();
    dispatcher.send("PUT", "/piecework/applications/a", Value::Null, 201);
    add(&dispatcher, "a", "1", Value::Null);
    let old = dispatcher.get("/piecework/applications/a")["eTag"].as_str().unwrap().to_owned();
    dispatcher.send("POST", "/piecework/applications/a", json!({"allowUpdates": false, "defaultVersion": "1"}), 200);
    let got = dispatcher.ask("POST", "/piecework/applications/a", &[("if-match", &old)], &json!({"displayName": "x"}));
    assert_eq!((got.status, got.json()["code"].as_str()), (412, Some("ConditionNotMet")));
    let shown = dispatcher.get("/piecework/applications/A");
    assert_eq!((&shown["allowUpdates"], &shown["defaultVersion"], shown.get("displayName")), (&json!(false), &json!("1"), None));
    assert_eq!(code(&dispatcher, "PUT", "/piecework/applications/a/versions/1", Value::Null, 409), "OperationInvalidForCurrentState");
    dispatcher.send("PUT", "/piecework/applications/a", json!({}), 200);
    assert_eq!(dispatcher.get("/piecework/applications/a").get("defaultVersion"), None, "a PUT resets what it leaves out");
    dispatcher.send("PUT", "/piecework/applications/a/versions/1", Value::Null, 201);
    assert_eq!(dispatcher.get("/applications/a")["versions"], json!(["1"]), "the version stays while it is uploaded again");

    for (method, target, body, status, expected) in [
        ("POST", "/piecework/applications/none", json!({}), 404, "ApplicationNotFound"),
        ("DELETE", "/piecework/applications/none", Value::Null, 404, "ApplicationNotFound"),
        ("PUT", "/piecework/applications/none/versions/1", Value::Null, 404, "ApplicationNotFound"),
        ("POST", "/piecework/applications/a/versions/2/activate", Value::Null, 404, "ResourceNotFound"),
        ("DELETE", "/piecework/applications/a/versions/2", Value::Null, 404, "ResourceNotFound"),
        ("PUT", "/piecework/applications/a%20b", json!({}), 400, "InvalidUri"),
        ("PUT", "/piecework/applications/a/versions/..", Value::Null, 400, "InvalidUri"),
        ("PUT", "/piecework/applications/b", json!({"defaultVersion": "9"}), 400, "InvalidPropertyValue"),
        ("POST", "/piecework/applications/a", json!({"allowUpdates": "perhaps"}), 400, "InvalidPropertyValue"),
        ("POST", "/piecework/applications/a/versions/1/activate", json!({"format": "tar"}), 400, "InvalidPropertyValue"),
    ] {
        assert_eq!(code(&dispatcher, method, target, body, status), expected, "{method} {target}");
    }
    for n in 1..20 {
        dispatcher.send("PUT", &format!("/piecework/applications/more{n}"), Value::Null, 201);
    }
    assert_eq!(code(&dispatcher, "PUT", "/piecework/applications/last", Value::Null, 409), "OperationInvalidForCurrentState");
    for n in 2..=40 {
        dispatcher.send("PUT", &format!("/piecework/applications/a/versions/{n}"), Value::Null, 201);
    }
    assert_eq!(code(&dispatcher, "PUT", "/piecework/applications/a/versions/41", Value::Null, 409), "OperationInvalidForCurrentState");
}

#[test]
fn references_name_packages_that_nodes_can_get() {
    let dispatcher = TestDispatcher::start();
    dispatcher.send("PUT", "/piecework/applications/tool", Value::Null, 201);
    add(&dispatcher, "tool", "1", Value::Null);
    let missing = "InvalidApplicationPackageReferences";
    for references in
        [json!([{"applicationId": "none"}]), json!([{"applicationId": "tool"}]), json!([{"applicationId": "tool", "version": "2"}])]
    {
        assert_eq!(code(&dispatcher, "POST", "/pools", pool(references), 409), missing);
    }
    let first = json!([{"applicationId": "Tool", "version": "1"}]);
    dispatcher.send("POST", "/pools", pool(first.clone()), 201);
    assert_eq!(dispatcher.get("/pools/Pool")["applicationPackageReferences"], first);
    dispatcher.send("POST", "/jobs", json!({"id": "Job", "poolInfo": {"poolId": "Pool"}}), 201);
    let task = |id: &str, references: &Value| json!({"id": id, "commandLine": "x", "applicationPackageReferences": references});
    assert_eq!(code(&dispatcher, "POST", "/jobs/Job/tasks", task("t", &json!([{"applicationId": "tool"}])), 409), missing);
    let manager = json!({"id": "J", "poolInfo": {"poolId": "Pool"}, "jobManagerTask": task("m", &json!([{"applicationId": "x"}]))});
    assert_eq!(code(&dispatcher, "POST", "/jobs", manager, 409), missing);
    dispatcher.send("GET", "/jobs/J", Value::Null, 404);
    add(&dispatcher, "tool", "2", json!({"isDefault": true}));
    dispatcher.send("POST", "/jobs/Job/tasks", task("t", &json!([{"applicationId": "tool"}])), 201);
    assert_eq!(dispatcher.get("/jobs/Job/tasks/t")["applicationPackageReferences"], json!([{"applicationId": "tool"}]));
    let two = json!({"value": [task("u", &json!([{"applicationId": "gone"}])), task("v", &first)]});
    let results = dispatcher.send("POST", "/jobs/Job/addtaskcollection", two, 200).json();
    assert_eq!((&results["value"][0]["error"]["code"], &results["value"][1]["status"]), (&json!(missing), &json!("success")));

    let mut node = FakeAgent::join(&dispatcher);
    let packages = |node: &FakeAgent| {
        node.joined.packages.iter().map(|package| (package.version.as_ref().unwrap().to_string(), package.is_default)).collect::<Vec<_>>()
    };
    assert_eq!(packages(&node), [("1".to_owned(), false)]);
    assert!(node.joined.packages[0].blob.as_ref().unwrap().starts_with("applications/tool/1/"));
    dispatcher.send("PATCH", "/pools/Pool", json!({"applicationPackageReferences": [{"applicationId": "tool"}]}), 200);
    assert_eq!(code(&dispatcher, "PATCH", "/pools/Pool", json!({"applicationPackageReferences": [{"applicationId": "x"}]}), 409), missing);
    node.restart();
    assert_eq!(packages(&node), [("2".to_owned(), true)]);
    dispatcher.send("DELETE", "/piecework/applications/tool", Value::Null, 204);
    node.restart();
    assert_eq!(node.joined.packages[0].blob, None, "what is gone is told as gone");
}
