//! Container URLs that nodes cannot use are refused when a request brings them, and error messages do not repeat their signatures.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::test_dispatcher::TestDispatcher;

/// URLs that no node of this dispatcher can use; `hush` stands for a signature.
const BAD: &[&str] = &[
    "s3://user/x?sv=1&sig=hush",
    "https://account.blob.core.windows.net/box?sv=1&sig=hush",
    "https://account.blob.core.windows.net/box",
    "s3://user/x#sig=hush",
    "http://127.0.0.1:1/user/x",
    "s3://own/x",
    "s3://Not_A_Bucket/x",
    "s3://user/../own",
    "sv=1&sig=hush",
];

/// Where a body has a container URL: method, target, body and the property's path.
fn namings(url: &str) -> Vec<(&'static str, &'static str, Value, &'static str)> {
    let machine = json!({"imageReference": {"publisher": "p", "offer": "o", "sku": "s"}, "nodeAgentSKUId": "a"});
    let outputs = json!([{"filePattern": "*", "destination": {"container": {"containerUrl": url}}, "uploadOptions": {"uploadCondition": "taskcompletion"}}]);
    let inputs = json!([{"storageContainerUrl": url}]);
    let command = |field: &str, list: &Value| {
        let mut task = json!({"id": "bad", "commandLine": "x"});
        task[field] = list.clone();
        task
    };
    let start = |list: &Value| json!({"commandLine": "x", "resourceFiles": list});
    let pool = |list: &Value| json!({"vmSize": "x", "virtualMachineConfiguration": machine, "startTask": start(list)});
    let named = |mut pool: Value| {
        pool["id"] = json!("bad");
        pool
    };
    let job = |part: &str, task: Value| {
        let mut job = json!({"id": "bad", "poolInfo": {"poolId": "Pool"}});
        if part == "jobReleaseTask" {
            job["jobPreparationTask"] = json!({"commandLine": "x"});
        }
        job[part] = task;
        job
    };
    let auto = json!({"id": "bad", "poolInfo": {"autoPoolSpecification": {"poolLifetimeOption": "job", "pool": pool(&inputs)}}});
    let mut specification = job("jobManagerTask", command("outputFiles", &outputs));
    specification.as_object_mut().unwrap().remove("id");
    let replacement = json!({"startTask": start(&inputs), "applicationPackageReferences": [], "metadata": []});
    vec![
        ("POST", "/jobs/Job/tasks", command("outputFiles", &outputs), "outputFiles[0].destination.container.containerUrl"),
        ("POST", "/jobs/Job/tasks", command("resourceFiles", &inputs), "resourceFiles[0].storageContainerUrl"),
        (
            "POST",
            "/jobs",
            job("jobManagerTask", command("outputFiles", &outputs)),
            "jobManagerTask.outputFiles[0].destination.container.containerUrl",
        ),
        ("POST", "/jobs", job("jobManagerTask", command("resourceFiles", &inputs)), "jobManagerTask.resourceFiles[0].storageContainerUrl"),
        (
            "POST",
            "/jobs",
            job("jobPreparationTask", command("resourceFiles", &inputs)),
            "jobPreparationTask.resourceFiles[0].storageContainerUrl",
        ),
        ("POST", "/jobs", job("jobReleaseTask", command("resourceFiles", &inputs)), "jobReleaseTask.resourceFiles[0].storageContainerUrl"),
        ("POST", "/jobs", auto, "poolInfo.autoPoolSpecification.pool.startTask.resourceFiles[0].storageContainerUrl"),
        (
            "POST",
            "/jobschedules",
            json!({"id": "bad", "schedule": {"recurrenceInterval": "PT1H"}, "jobSpecification": specification}),
            "jobSpecification.jobManagerTask.outputFiles[0].destination.container.containerUrl",
        ),
        ("POST", "/pools", named(pool(&inputs)), "startTask.resourceFiles[0].storageContainerUrl"),
        ("PATCH", "/pools/Pool", json!({"startTask": start(&inputs)}), "startTask.resourceFiles[0].storageContainerUrl"),
        ("POST", "/pools/Pool/updateproperties", replacement, "startTask.resourceFiles[0].storageContainerUrl"),
        (
            "POST",
            "/pools/Pool/nodes/n/uploadbatchservicelogs",
            json!({"containerUrl": url, "startTime": "2026-01-01T00:00:00Z"}),
            "containerUrl",
        ),
    ]
}

fn files(folder: &Path, found: &mut Vec<Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(fs::read(path).unwrap()) }
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn a_url_that_nodes_cannot_use_is_refused_in_every_property_and_its_signature_is_not_repeated() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    for url in BAD {
        for (method, target, body, property) in namings(url) {
            let got = dispatcher.send(method, target, body, 400);
            assert!(!holds(&got.body, "hush"), "{url} at {target}: {}", String::from_utf8_lossy(&got.body));
            let error = got.json();
            assert_eq!(
                (&error["code"], &error["values"][0]["value"]),
                (&json!("InvalidPropertyValue"), &json!(property)),
                "{url}: {error}"
            );
        }
        let task = namings(url).remove(0).2;
        let got = dispatcher.send("POST", "/jobs/Job/addtaskcollection", json!({"value": [task, {"id": "good", "commandLine": "x"}]}), 200);
        assert!(!holds(&got.body, "hush"), "{url}");
        let results = got.json()["value"].clone();
        assert_eq!((&results[0]["status"], &results[1]["taskId"]), (&json!("clienterror"), &json!("good")), "{url}: {results}");
        dispatcher.send("DELETE", "/jobs/Job/tasks/good", Value::Null, 200);
    }
    let mut stored = Vec::new();
    files(&dispatcher.folder.path().join("store"), &mut stored);
    assert!(stored.len() > 1 && stored.iter().any(|bytes| holds(bytes, "Pool")), "the store was looked at");
    assert!(!stored.iter().any(|bytes| holds(bytes, "hush")), "no row holds the signature");
}

#[test]
fn urls_of_the_configured_store_are_taken_in_both_spellings() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    for (id, url) in
        [("a", "s3://user/x".to_owned()), ("b", "S3://user".to_owned()), ("c", format!("{}/user/x%20y", dispatcher.blobs.endpoint))]
    {
        let outputs = json!([{"filePattern": "*", "destination": {"container": {"containerUrl": url}}, "uploadOptions": {"uploadCondition": "taskcompletion"}}]);
        dispatcher.send("POST", "/jobs/Job/tasks", json!({"id": id, "commandLine": "x", "outputFiles": outputs}), 201);
    }
    let long = json!([{"filePattern": "*", "destination": {"container": {"containerUrl": format!("s3://user/{}", "x".repeat(600)), "path": "y".repeat(600)}}, "uploadOptions": {"uploadCondition": "taskcompletion"}}]);
    let got = dispatcher.send("POST", "/jobs/Job/tasks", json!({"id": "d", "commandLine": "x", "outputFiles": long}), 400).json();
    assert_eq!(got["values"][0]["value"], "outputFiles[0].destination.container.path");
}
