//! Applications and their packages: uploaded beside the API, listed as Azure lists them, named by pools and tasks.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::{
    house::House,
    nodes::Puppet,
    signing::{Account, Wire},
};

/// A zip without any file.
const EMPTY_ZIP: &[u8] = b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

fn code(house: &House, method: &str, target: &str, body: Value, status: u16) -> String {
    house.send(method, target, body, status).json()["code"].as_str().unwrap().to_owned()
}

/// Uploads to where the API said, without the account's key.
fn upload(house: &House, url: &str, bytes: &[u8]) {
    let target = url.strip_prefix(&house.blobs.endpoint).expect("a URL of the blob store");
    let store = Account { url: house.blobs.endpoint.clone(), ..house.account.clone() };
    let got = Wire::new("PUT", target, bytes).prepared(&store, SystemTime::now()).send(&store);
    assert_eq!(got.status, 200, "{}", String::from_utf8_lossy(&got.body));
}

fn add(house: &House, application: &str, version: &str, activation: Value) {
    let package = format!("/piecework/applications/{application}/versions/{version}");
    let begun = house.send("PUT", &package, Value::Null, 201).json();
    upload(house, begun["uploadUrl"].as_str().unwrap(), EMPTY_ZIP);
    house.send("POST", &format!("{package}/activate"), activation, 200);
}

fn pool(references: Value) -> Value {
    let machine = json!({"imageReference": {"publisher": "p", "offer": "o", "sku": "s"}, "nodeAgentSKUId": "a"});
    json!({"id": "Pool", "vmSize": "x", "targetDedicatedNodes": 0, "virtualMachineConfiguration": machine,
        "applicationPackageReferences": references})
}

#[test]
fn a_package_is_begun_uploaded_and_activated_and_then_listed() {
    let house = House::open();
    let application = "/piecework/applications/Blender";
    let made = house.send("PUT", application, json!({"displayName": "Blender 3D"}), 201).json();
    assert_eq!((&made["id"], &made["allowUpdates"], &made["versions"]), (&json!("Blender"), &json!(true), &json!([])));
    let package = format!("{application}/versions/2.7");
    let begun = house.send("PUT", &package, Value::Null, 201).json();
    assert_eq!((&begun["state"], &begun["version"]), (&json!("pending"), &json!("2.7")));
    assert_eq!(house.get("/applications/blender"), json!({"id": "Blender", "displayName": "Blender 3D", "versions": []}));
    assert_eq!(code(&house, "POST", &format!("{package}/activate"), Value::Null, 409), "OperationInvalidForCurrentState");
    upload(&house, begun["uploadUrl"].as_str().unwrap(), b"no zip at all");
    assert_eq!(code(&house, "POST", &format!("{package}/activate"), json!({"format": "zip"}), 400), "InvalidInput");
    upload(&house, begun["uploadUrl"].as_str().unwrap(), EMPTY_ZIP);
    let active = house.send("POST", &format!("{package}/activate"), json!({"format": "zip", "isDefault": true}), 200).json();
    assert_eq!((&active["state"], &active["bytes"]), (&json!("active"), &json!(22)));
    assert_eq!(code(&house, "POST", &format!("{package}/activate"), Value::Null, 409), "OperationInvalidForCurrentState");
    assert_eq!(house.get("/applications")["value"], json!([{"id": "Blender", "displayName": "Blender 3D", "versions": ["2.7"]}]));
    let shown = house.get("/piecework/applications/blender");
    assert_eq!((&shown["defaultVersion"], &shown["versions"][0]["state"]), (&json!("2.7"), &json!("active")));
    assert_eq!(house.get("/piecework/applications")["value"][0]["id"], "Blender");

    house.send("DELETE", &package, Value::Null, 204);
    let shown = house.get("/piecework/applications/blender");
    assert_eq!((shown.get("defaultVersion"), &shown["versions"]), (None, &json!([])));
    house.send("DELETE", application, Value::Null, 204);
    assert_eq!(code(&house, "GET", "/applications/Blender", Value::Null, 404), "ApplicationNotFound");
}

#[test]
fn applications_change_by_their_rules() {
    let house = House::open();
    house.send("PUT", "/piecework/applications/a", Value::Null, 201);
    add(&house, "a", "1", Value::Null);
    let old = house.get("/piecework/applications/a")["eTag"].as_str().unwrap().to_owned();
    house.send("POST", "/piecework/applications/a", json!({"allowUpdates": false, "defaultVersion": "1"}), 200);
    let got = house.ask("POST", "/piecework/applications/a", &[("if-match", &old)], &json!({"displayName": "x"}));
    assert_eq!((got.status, got.json()["code"].as_str()), (412, Some("ConditionNotMet")));
    let shown = house.get("/piecework/applications/A");
    assert_eq!((&shown["allowUpdates"], &shown["defaultVersion"], shown.get("displayName")), (&json!(false), &json!("1"), None));
    assert_eq!(code(&house, "PUT", "/piecework/applications/a/versions/1", Value::Null, 409), "OperationInvalidForCurrentState");
    house.send("PUT", "/piecework/applications/a", json!({}), 200);
    assert_eq!(house.get("/piecework/applications/a").get("defaultVersion"), None, "a PUT resets what it leaves out");
    house.send("PUT", "/piecework/applications/a/versions/1", Value::Null, 201);
    assert_eq!(house.get("/applications/a")["versions"], json!(["1"]), "the version stays while it is uploaded again");

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
        assert_eq!(code(&house, method, target, body, status), expected, "{method} {target}");
    }
    for n in 1..20 {
        house.send("PUT", &format!("/piecework/applications/more{n}"), Value::Null, 201);
    }
    assert_eq!(code(&house, "PUT", "/piecework/applications/last", Value::Null, 409), "OperationInvalidForCurrentState");
    for n in 2..=40 {
        house.send("PUT", &format!("/piecework/applications/a/versions/{n}"), Value::Null, 201);
    }
    assert_eq!(code(&house, "PUT", "/piecework/applications/a/versions/41", Value::Null, 409), "OperationInvalidForCurrentState");
}

#[test]
fn references_name_packages_that_nodes_can_get() {
    let house = House::open();
    house.send("PUT", "/piecework/applications/tool", Value::Null, 201);
    add(&house, "tool", "1", Value::Null);
    let missing = "InvalidApplicationPackageReferences";
    for references in
        [json!([{"applicationId": "none"}]), json!([{"applicationId": "tool"}]), json!([{"applicationId": "tool", "version": "2"}])]
    {
        assert_eq!(code(&house, "POST", "/pools", pool(references), 409), missing);
    }
    let first = json!([{"applicationId": "Tool", "version": "1"}]);
    house.send("POST", "/pools", pool(first.clone()), 201);
    assert_eq!(house.get("/pools/Pool")["applicationPackageReferences"], first);
    house.send("POST", "/jobs", json!({"id": "Job", "poolInfo": {"poolId": "Pool"}}), 201);
    let task = |id: &str, references: &Value| json!({"id": id, "commandLine": "x", "applicationPackageReferences": references});
    assert_eq!(code(&house, "POST", "/jobs/Job/tasks", task("t", &json!([{"applicationId": "tool"}])), 409), missing);
    let manager = json!({"id": "J", "poolInfo": {"poolId": "Pool"}, "jobManagerTask": task("m", &json!([{"applicationId": "x"}]))});
    assert_eq!(code(&house, "POST", "/jobs", manager, 409), missing);
    house.send("GET", "/jobs/J", Value::Null, 404);
    add(&house, "tool", "2", json!({"isDefault": true}));
    house.send("POST", "/jobs/Job/tasks", task("t", &json!([{"applicationId": "tool"}])), 201);
    assert_eq!(house.get("/jobs/Job/tasks/t")["applicationPackageReferences"], json!([{"applicationId": "tool"}]));
    let two = json!({"value": [task("u", &json!([{"applicationId": "gone"}])), task("v", &first)]});
    let results = house.send("POST", "/jobs/Job/addtaskcollection", two, 200).json();
    assert_eq!((&results["value"][0]["error"]["code"], &results["value"][1]["status"]), (&json!(missing), &json!("success")));

    let mut node = Puppet::join(&house);
    let packages = |node: &Puppet| {
        node.joined.packages.iter().map(|package| (package.version.as_ref().unwrap().to_string(), package.is_default)).collect::<Vec<_>>()
    };
    assert_eq!(packages(&node), [("1".to_owned(), false)]);
    assert!(node.joined.packages[0].blob.as_ref().unwrap().starts_with("applications/tool/1/"));
    house.send("PATCH", "/pools/Pool", json!({"applicationPackageReferences": [{"applicationId": "tool"}]}), 200);
    assert_eq!(code(&house, "PATCH", "/pools/Pool", json!({"applicationPackageReferences": [{"applicationId": "x"}]}), 409), missing);
    node.restart();
    assert_eq!(packages(&node), [("2".to_owned(), true)]);
    house.send("DELETE", "/piecework/applications/tool", Value::Null, 204);
    node.restart();
    assert_eq!(node.joined.packages[0].blob, None, "what is gone is told as gone");
}
