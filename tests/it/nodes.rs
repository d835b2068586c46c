//! Nodes that reboot, are reimaged, rest and come back: real agents as processes, through the API.

use broker_config::settings::{BlobSettings, Secret};
use clients::blobs::Blobs;
use serde_json::{Value, json};

use crate::{
    rest::{PATIENCE, Rest},
    stack::{Stack, wait_for},
};

fn node(rest: &Rest) -> Value {
    rest.get("/pools/turns/nodes")["value"][0].clone()
}

fn becomes(rest: &Rest, state: &str) -> Value {
    let found = wait_for(PATIENCE, || Some(node(rest)).filter(|node| node["state"] == state));
    found.unwrap_or_else(|| panic!("never {state}: {}", node(rest)))
}

fn order(rest: &Rest, order: &str, body: Value, status: u16) {
    let id = node(rest)["id"].as_str().expect("a node").to_owned();
    rest.post(&format!("/pools/turns/nodes/{id}/{order}"), &body, status);
}

fn has_shared(rest: &Rest, name: &str) -> bool {
    let id = node(rest)["id"].as_str().expect("a node").to_owned();
    rest.send("HEAD", &format!("/pools/turns/nodes/{id}/files/shared%2F{name}"), None).status == 200
}

fn completes(rest: &Rest, task: &str) -> Value {
    let path = format!("/jobs/job/tasks/{task}");
    let done = wait_for(PATIENCE, || Some(rest.get(&path)).filter(|task| task["state"] == "completed"));
    done.unwrap_or_else(|| panic!("never completed: {}", rest.get(&path)))
}

#[test]
fn a_node_reboots_is_reimaged_rests_across_a_crash_and_comes_back() {
    let mut stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    rest.add_pool("turns", 1, 1);
    let task = json!({"commandLine": "/bin/sh -c 'echo boot >> $AZ_BATCH_NODE_SHARED_DIR/boots'"});
    assert_eq!(rest.send("PATCH", "/pools/turns", Some(&json!({"startTask": task}))).status, 200);
    rest.add_job("job", "turns");
    let first = becomes(&rest, "idle")["lastBootTime"].clone();

    // A reboot ends what runs and starts it again; the start task runs, files stay.
    let waits = "/bin/sh -c 'until [ -e $AZ_BATCH_NODE_SHARED_DIR/go ]; do sleep 0.02; done'";
    rest.add_tasks("job", &[json!({"id": "long", "commandLine": waits})]);
    becomes(&rest, "running");
    order(&rest, "reboot", json!({"nodeRebootOption": "requeue"}), 202);
    assert_eq!(node(&rest)["state"], "rebooting");
    let again = becomes(&rest, "running");
    assert_ne!(again["lastBootTime"], first);
    assert_eq!(again["startTaskInfo"]["result"], "success");
    assert!(has_shared(&rest, "boots"), "the changed start task ran");
    assert_eq!(rest.get("/jobs/job/tasks/long")["executionInfo"]["requeueCount"], 1);
    order(&rest, "disablescheduling", json!({"nodeDisableSchedulingOption": "terminate"}), 200);
    assert_eq!(completes(&rest, "long")["executionInfo"]["failureInfo"]["code"], "TaskEnded");
    becomes(&rest, "offline");
    order(&rest, "enablescheduling", json!({}), 200);
    becomes(&rest, "idle");

    // A reimage empties the folders.
    rest.add_tasks("job", &[json!({"id": "mark", "commandLine": "/bin/sh -c 'touch $AZ_BATCH_NODE_SHARED_DIR/mark'"})]);
    completes(&rest, "mark");
    assert!(has_shared(&rest, "mark"));
    becomes(&rest, "idle");
    order(&rest, "reimage", json!({}), 202);
    assert_eq!(node(&rest)["state"], "reimaging");
    becomes(&rest, "idle");
    assert!(!has_shared(&rest, "mark") && has_shared(&rest, "boots"));

    // A resting node stays at rest, whatever happens to the stack.
    order(&rest, "deallocate", json!({}), 202);
    let rested = becomes(&rest, "deallocated");
    rest.add_tasks("job", &[json!({"id": "late", "commandLine": "/bin/true"})]);
    stack.kill_and_restart();
    let rest = Rest::new(&stack.ready);
    assert_eq!(becomes(&rest, "deallocated")["lastBootTime"], rested["lastBootTime"]);
    assert_eq!(rest.get("/jobs/job/tasks/late")["state"], "active");
    order(&rest, "start", json!({}), 202);
    assert_eq!(node(&rest)["state"], "starting");
    completes(&rest, "late");
    assert_eq!(rest.get("/pools/turns")["currentDedicatedNodes"], 1);
    stack.stop();
}

#[test]
fn a_node_whose_instance_is_replaced_while_its_reboot_waits_comes_back_and_its_task_ends() {
    let mut stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    rest.add_pool("turns", 1, 1);
    rest.add_job("job", "turns");
    let first = becomes(&rest, "idle")["lastBootTime"].clone();
    let waits = "/bin/sh -c 'until [ -e $AZ_BATCH_NODE_SHARED_DIR/go ]; do sleep 0.02; done'";
    rest.add_tasks("job", &[json!({"id": "long", "commandLine": waits})]);
    becomes(&rest, "running");
    order(&rest, "reboot", json!({"nodeRebootOption": "taskcompletion"}), 202);
    assert_eq!(node(&rest)["state"], "rebooting", "it waits for the task");

    // The agent dies with the stack, and another one begins in its place.
    stack.kill_and_restart();
    let rest = Rest::new(&stack.ready);
    let again = becomes(&rest, "running");
    assert_ne!(again["lastBootTime"], first);
    rest.add_tasks("job", &[json!({"id": "next", "commandLine": "/bin/true"})]);
    let id = again["id"].as_str().expect("a node").to_owned();
    let shared = stack.data().join(format!("nodes/turns/{id}/root/shared"));
    std::fs::write(shared.join("go"), "").unwrap();
    for task in ["long", "next"] {
        assert_eq!(completes(&rest, task)["executionInfo"]["result"], "success", "{task}");
    }
    becomes(&rest, "idle");
    stack.stop();
}

#[test]
fn a_node_uploads_its_agents_log() {
    let stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    rest.add_pool("turns", 1, 1);
    becomes(&rest, "idle");
    let s3 = stack.ready.s3.clone();
    let id = node(&rest)["id"].as_str().expect("a node").to_owned();
    let body = json!({"containerUrl": format!("s3://{}/logs", s3.bucket), "startTime": "2020-01-01T00:00:00Z"});
    let answer = rest.post(&format!("/pools/turns/nodes/{id}/uploadbatchservicelogs"), &body, 200).json();
    assert_eq!(answer["numberOfFilesUploaded"], 1, "{answer}");
    let key = format!("logs/{}/agent.log", answer["virtualDirectoryName"].as_str().expect("a directory"));
    let blobs = Blobs::new(BlobSettings {
        endpoint: s3.endpoint,
        region: s3.region,
        access_key: s3.access_key,
        secret_key: Secret::new(&s3.secret_key),
        bucket: s3.bucket.clone(),
        own_bucket: "piecework-own".to_owned(),
    })
    .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let found = wait_for(PATIENCE, || runtime.block_on(blobs.list(&s3.bucket, &key, None, 10)).unwrap().blobs.pop());
    assert!(found.is_some_and(|blob| blob.key == key), "the log is in the bucket");
    stack.stop();
}
