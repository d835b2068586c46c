//! What tasks do and how they end, seen through the API as clients see it.

use std::time::Duration;

use broker_config::settings::{BlobSettings, Secret};
use bytes::Bytes;
use clients::blobs::Blobs;
use serde_json::{Value, json};

use crate::{
    rest::{PATIENCE, Rest},
    stack::{Stack, wait_for},
};

fn stack(pool: &str, nodes: u32, slots: u32) -> (Stack, Rest) {
    let stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    rest.add_pool(pool, nodes, slots);
    rest.add_job("job", pool);
    (stack, rest)
}

/// The stack's blob store, through the client that Piecework itself uses.
fn blobs(stack: &Stack) -> Blobs {
    let s3 = &stack.ready.s3;
    let settings = BlobSettings {
        endpoint: s3.endpoint.clone(),
        region: s3.region.clone(),
        access_key: s3.access_key.clone(),
        secret_key: Secret::new(&s3.secret_key),
        bucket: s3.bucket.clone(),
        own_bucket: "piecework-own".to_owned(),
    };
    Blobs::new(settings).unwrap()
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn stdout(rest: &Rest, task: &str) -> String {
    let answer = rest.send("GET", &format!("/jobs/job/tasks/{task}/files/stdout.txt"), None);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

#[test]
fn a_job_waits_for_a_pool_that_comes_later() {
    let stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    rest.add_job("job", "later");
    rest.add_tasks(
        "job",
        &[json!({"id": "one", "commandLine": "/bin/true"}), json!({"id": "wide", "commandLine": "/bin/true", "requiredSlots": 2})],
    );
    assert_eq!(rest.get("/jobs/job/taskcounts")["taskCounts"]["active"], 2);
    rest.add_pool("later", 1, 1);
    assert_eq!(rest.finished("job", "one")["executionInfo"]["result"], "success");
    assert_eq!(rest.get("/jobs/job/tasks/wide")["state"], "active", "its nodes have no room for this one");
    assert_eq!(rest.get("/piecework/queues/piecework.pool.later.wide")["messages"], 0, "so it is not handed out");
    stack.stop();
}

#[test]
fn every_end_is_told_as_it_was() {
    let (stack, rest) = stack("ends", 1, 4);
    rest.add_tasks(
        "job",
        &[
            json!({"id": "ok", "commandLine": "/bin/true"}),
            json!({"id": "code", "commandLine": "/bin/sh -c 'echo out; echo err >&2; exit 7'"}),
            json!({"id": "signal", "commandLine": "/bin/sh -c 'kill -9 $$'"}),
            json!({"id": "timeout", "commandLine": "/bin/sh -c 'sleep 600 & sleep 600'", "constraints": {"maxWallClockTime": "PT1S"}}),
            json!({"id": "missing", "commandLine": "/no/such/program"}),
            json!({"id": "input", "commandLine": "/bin/true", "resourceFiles": [{"httpUrl": format!("{}/none/x", stack.ready.s3.endpoint), "filePath": "x"}]}),
            json!({"id": "noshell", "commandLine": "/bin/echo a;b $HOME | c \"d  e\""}),
            json!({"id": "retry", "commandLine": "/bin/sh -c 'exit 3'", "constraints": {"maxTaskRetryCount": 2}}),
        ],
    );
    let info = |task: &str| rest.finished("job", task)["executionInfo"].clone();
    assert_eq!((&info("ok")["result"], &info("ok")["exitCode"]), (&json!("success"), &json!(0)));
    let code = info("code");
    assert_eq!(
        (&code["result"], &code["exitCode"], &code["failureInfo"]["code"]),
        (&json!("failure"), &json!(7), &json!("FailureExitCode"))
    );
    let signal = info("signal");
    assert_eq!(signal["exitCode"], 137);
    assert!(signal["failureInfo"]["message"].as_str().unwrap().contains("signal 9"), "{signal}");
    let timeout = info("timeout");
    assert_eq!(timeout["failureInfo"]["code"], "TaskEnded");
    assert!(
        timeout["failureInfo"]["details"].as_array().unwrap().contains(&json!({"name": "Reason", "value": "MaxWallClockTimeExpiry"})),
        "{timeout}"
    );
    assert_eq!(info("missing")["failureInfo"]["code"], "CommandProgramNotFound");
    let input = info("input");
    assert_eq!(input["failureInfo"]["category"], "usererror");
    assert!(input.get("exitCode").is_none(), "{input}");
    assert_eq!(info("retry")["retryCount"], 2);
    assert_eq!(stdout(&rest, "code"), "out\n");
    assert!(stdout(&rest, "noshell").starts_with("a;b "), "{}", stdout(&rest, "noshell"));
    assert!(stdout(&rest, "noshell").ends_with("| c d  e\n"), "{}", stdout(&rest, "noshell"));
    let counts = rest.all_finished("job");
    assert_eq!(counts["taskCounts"], json!({"active": 0, "running": 0, "completed": 8, "succeeded": 2, "failed": 6}));
    stack.stop();
}

#[test]
fn inputs_come_from_containers_and_outputs_go_to_them_under_their_conditions() {
    let (stack, rest) = stack("files", 1, 2);
    let blobs = blobs(&stack);
    wait(async {
        blobs.ensure_bucket("inputs").await.unwrap();
        blobs.ensure_bucket("results").await.unwrap();
        blobs.put("inputs", "set/a.txt", Bytes::from_static(b"alpha")).await.unwrap();
        blobs.put("inputs", "set/deep/b.txt", Bytes::from_static(b"beta")).await.unwrap();
        blobs.put("inputs", "other", Bytes::from_static(b"not wanted")).await.unwrap();
    });
    let outputs = |prefix: &str| {
        let headers = json!([{"name": "x-ms-blob-content-type", "value": "text/csv"}, {"name": "x-ms-meta-origin", "value": prefix}]);
        json!([
            {"filePattern": "**/*.out", "destination": {"container": {"containerUrl": "s3://results", "path": prefix, "uploadHeaders": headers}}, "uploadOptions": {"uploadCondition": "tasksuccess"}},
            {"filePattern": "../std*.txt", "destination": {"container": {"containerUrl": format!("{}/results", stack.ready.s3.endpoint), "path": format!("{prefix}-logs")}}, "uploadOptions": {"uploadCondition": "taskcompletion"}},
            {"filePattern": "why.txt", "destination": {"container": {"containerUrl": "s3://results", "path": format!("{prefix}-why")}}, "uploadOptions": {"uploadCondition": "taskfailure"}}
        ])
    };
    let inputs = json!([{"storageContainerUrl": "s3://inputs", "blobPrefix": "set/", "filePath": "in"}, {"autoStorageContainerName": "inputs", "blobPrefix": "other"}]);
    let command = "/bin/sh -c 'cat in/set/a.txt in/set/deep/b.txt; mkdir -p x/y; cp in/set/a.txt x/y/1.out; echo why > why.txt; test \"$AZ_BATCH_TASK_ID\" = good'";
    for task in ["good", "bad"] {
        rest.add_task("job", json!({"id": task, "commandLine": command, "resourceFiles": inputs, "outputFiles": outputs(task)}));
    }
    assert_eq!(rest.finished("job", "good")["executionInfo"]["result"], "success");
    assert_eq!(rest.finished("job", "bad")["executionInfo"]["exitCode"], 1);
    assert_eq!(stdout(&rest, "good"), "alphabeta");
    let keys: Vec<String> = wait(blobs.list("results", "", None, 100)).unwrap().blobs.into_iter().map(|blob| blob.key).collect();
    assert_eq!(
        keys,
        ["bad-logs/stderr.txt", "bad-logs/stdout.txt", "bad-why", "good-logs/stderr.txt", "good-logs/stdout.txt", "good/x/y/1.out"]
    );
    assert_eq!(wait(blobs.get("results", "good/x/y/1.out", None, 100)).unwrap(), Bytes::from_static(b"alpha"));
    let served = wait(async {
        let url = blobs.presign_get("results", "good/x/y/1.out", Duration::from_secs(60)).await.unwrap();
        reqwest::get(url).await.unwrap()
    });
    let header = |name: &str| served.headers()[name].to_str().unwrap().to_owned();
    assert_eq!((header("content-type"), header("x-amz-meta-origin")), ("text/csv".to_owned(), "good".to_owned()));

    rest.add_task("job", json!({"id": "nowhere", "commandLine": "/bin/sh -c 'echo > x.out'", "outputFiles": [{"filePattern": "*.out", "destination": {"container": {"containerUrl": "s3://no-such-bucket"}}, "uploadOptions": {"uploadCondition": "taskcompletion"}}]}));
    let nowhere = rest.finished("job", "nowhere")["executionInfo"].clone();
    assert_eq!(
        (&nowhere["result"], &nowhere["failureInfo"]["code"]),
        (&json!("failure"), &json!("FileUploadContainerNotFound")),
        "{nowhere}"
    );
    stack.stop();
}

#[test]
fn dependants_wait_for_success_and_the_job_ends_with_its_last_task() {
    let stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    rest.add_pool("deps", 1, 2);
    rest.post("/jobs", &json!({"id": "job", "poolInfo": {"poolId": "deps"}, "usesTaskDependencies": true}), 201);
    rest.add_task(
        "job",
        json!({"id": "merge", "commandLine": "/bin/true", "dependsOn": {"taskIds": ["first"], "taskIdRanges": [{"start": 1, "end": 3}]}}),
    );
    rest.add_task("job", json!({"id": "never", "commandLine": "/bin/true", "dependsOn": {"taskIds": ["bad"]}}));
    rest.add_tasks("job", &["first", "1", "02", "003"].map(|id| json!({"id": id, "commandLine": "/bin/true"})));
    rest.add_task("job", json!({"id": "bad", "commandLine": "/bin/false"}));
    let merge = rest.finished("job", "merge");
    for before in ["first", "1", "02", "003"] {
        let ended = rest.finished("job", before)["executionInfo"]["endTime"].as_str().unwrap().to_owned();
        assert!(ended.as_str() <= merge["executionInfo"]["startTime"].as_str().unwrap(), "{before} ended {ended}, {merge}");
    }
    rest.finished("job", "bad");
    assert_eq!(rest.get("/jobs/job/tasks/never")["state"], "active");
    assert_eq!(rest.send("PATCH", "/jobs/job", Some(&json!({"onAllTasksComplete": "terminatejob"}))).status, 200);
    assert_eq!(rest.get("/jobs/job")["state"], "active", "a blocked task keeps its job open");
    assert_eq!(rest.send("POST", "/jobs/job/tasks/never/terminate", None).status, 204);
    let job = wait_for(Duration::from_secs(30), || Some(rest.get("/jobs/job")).filter(|job| job["state"] == "completed"))
        .expect("the job to complete");
    assert_eq!(job["executionInfo"]["terminateReason"], "AllTasksComplete");
    assert_eq!(rest.send("POST", "/jobs/job/tasks", Some(&json!({"id": "late", "commandLine": "/bin/true"}))).status, 409);
    stack.stop();
}

#[test]
fn a_terminated_task_stops_and_a_deleted_one_is_gone() {
    let (stack, rest) = stack("stop", 1, 1);
    let marker = stack.scratch().join("still-here");
    let running = |id: &str| json!({"id": id, "commandLine": format!("/bin/sh -c 'sleep 601; : {}'", marker.display())});
    let is_running = |id: &str| (rest.get(&format!("/jobs/job/tasks/{id}"))["state"] == "running").then_some(());
    rest.add_tasks("job", &[running("one"), running("two")]);
    let (first, second) = wait_for(Duration::from_secs(60), || {
        is_running("one").map(|()| ("one", "two")).or_else(|| is_running("two").map(|()| ("two", "one")))
    })
    .expect("a task to run");
    assert_eq!(rest.send("POST", &format!("/jobs/job/tasks/{first}/terminate"), None).status, 204);
    let ended = rest.finished("job", first);
    assert_eq!(ended["executionInfo"]["failureInfo"]["code"], "TaskEnded");
    assert_eq!(rest.send("POST", &format!("/jobs/job/tasks/{first}/terminate"), None).status, 409);
    wait_for(Duration::from_secs(60), || is_running(second)).expect("the slot to be free again");
    assert_eq!(rest.send("DELETE", &format!("/jobs/job/tasks/{second}"), None).status, 200);
    assert_eq!(rest.send("GET", &format!("/jobs/job/tasks/{second}"), None).status, 404);
    assert_eq!(
        rest.get("/jobs/job/taskcounts")["taskCounts"],
        json!({"active": 0, "running": 0, "completed": 1, "succeeded": 0, "failed": 1})
    );
    let quiet = wait_for(Duration::from_secs(30), || crate::stack::processes_naming(&marker).is_empty().then_some(()));
    assert!(quiet.is_some(), "{:?}", crate::stack::processes_naming(&marker));
    assert_eq!(rest.send("DELETE", "/jobs/job", None).status, 202);
    wait_for(Duration::from_secs(30), || (rest.send("GET", "/jobs/job", None).status == 404).then_some(())).expect("the job to go");
    rest.add_job("job", "stop");
    assert_eq!(rest.tasks("job"), Vec::<Value>::new(), "a new job of the same name is empty");
    stack.stop();
}

#[test]
fn wide_tasks_take_their_slots_and_narrow_ones_fill_the_rest() {
    let (stack, rest) = stack("wide", 1, 4);
    let log = stack.scratch().join("log");
    let command = |slots: u32| {
        format!(
            "/bin/sh -c 'echo + {slots} $AZ_BATCH_TASK_ID $PIECEWORK_ATTEMPT >> {0}; sleep 0.3; echo - {slots} $AZ_BATCH_TASK_ID >> {0}'",
            log.display()
        )
    };
    let tasks: Vec<Value> = (0..12)
        .map(|n| (n, [1, 3, 4, 2][n % 4]))
        .map(|(n, slots)| json!({"id": format!("t{n}"), "requiredSlots": slots, "commandLine": command(slots as u32)}))
        .collect();
    rest.add_tasks("job", &tasks);
    let counts = rest.all_finished("job");
    assert_eq!(counts["taskCounts"]["succeeded"], 12);
    assert_eq!(counts["taskSlotCounts"]["succeeded"], 30);
    let (mut held, mut most) = (0i32, 0i32);
    let log = std::fs::read_to_string(&log).unwrap();
    for line in log.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        held += if words[0] == "+" { 1 } else { -1 } * words[1].parse::<i32>().unwrap();
        most = most.max(held);
    }
    assert!(most <= 4, "{most} slots of 4 were in use:\n{log}");
    stack.stop();
}

#[test]
fn a_policy_grows_the_pool_from_nothing_and_shrinks_it_when_it_is_idle() {
    let (stack, rest) = stack("auto", 0, 1);
    let policy = json!({"minNodes": 0, "maxNodes": 2, "reactMs": 0, "idleMs": 500, "deallocation": "taskcompletion"});
    let answer = rest.send("PUT", "/piecework/pools/auto/policy", Some(&policy));
    assert!(answer.status < 300, "{}", answer.text());
    let tasks: Vec<Value> = (0..8).map(|n| json!({"id": format!("t{n}"), "commandLine": "/bin/sleep 0.5"})).collect();
    rest.add_tasks("job", &tasks);
    assert_eq!(rest.all_finished("job")["taskCounts"]["succeeded"], 8);
    let nodes: std::collections::BTreeSet<String> =
        rest.tasks("job").iter().map(|task| task["nodeInfo"]["nodeId"].as_str().unwrap().to_owned()).collect();
    assert_eq!(nodes.len(), 2, "{nodes:?}");
    wait_for(Duration::from_secs(60), || rest.get("/pools/auto/nodes")["value"].as_array().unwrap().is_empty().then_some(()))
        .expect("the pool to shrink to nothing");
    assert_eq!(stdout(&rest, "t0"), "", "streams outlive their node");
    stack.stop();
}

#[test]
fn files_of_tasks_are_listed_read_in_ranges_and_never_outside_their_folder() {
    let (stack, rest) = stack("read", 1, 1);
    rest.add_task("job", json!({"id": "t", "commandLine": "/bin/sh -c 'seq 1 200000 > big.txt; mkdir d; echo x > \"d/a b.txt\"; seq 1 2000; ln -s /etc/passwd link'"}));
    assert_eq!(rest.finished("job", "t")["executionInfo"]["exitCode"], 0);
    let big: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    let answer = rest.send("GET", "/jobs/job/tasks/t/files/wd%2Fbig.txt", None);
    assert_eq!((answer.status, answer.text() == big), (200, true), "a large file comes whole");
    let out: String = (1..=2000).map(|n| format!("{n}\n")).collect();
    assert_eq!(stdout(&rest, "t"), out);
    assert_eq!(rest.send("GET", "/jobs/job/tasks/t/files/wd%2Fd%2Fa%20b.txt", None).text(), "x\n");
    let head = rest.send("HEAD", "/jobs/job/tasks/t/files/wd%2Fbig.txt", None);
    assert_eq!(head.headers["content-length"], big.len().to_string());
    assert_eq!(head.headers["ocp-batch-file-isdirectory"], "false");
    for path in ["..%2F..%2F..%2Fetc%2Fpasswd", "wd%2F..%2F..%2F..%2F..%2Fcredential", "wd%2Flink", "none.txt", "%2Fetc%2Fpasswd"] {
        let answer = rest.send("GET", &format!("/jobs/job/tasks/t/files/{path}"), None);
        assert!((400..500).contains(&answer.status), "{path}: {} {}", answer.status, answer.text());
        assert!(!answer.text().contains("root:"), "{path}");
    }
    let list = rest.get("/jobs/job/tasks/t/files?recursive=true");
    let names: Vec<&str> = list["value"].as_array().unwrap().iter().map(|file| file["name"].as_str().unwrap()).collect();
    for name in ["stdout.txt", "stderr.txt", "wd", "wd/big.txt", "wd/d", "wd/d/a b.txt"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    let node_list = rest.get("/pools/read/nodes");
    let node = node_list["value"][0]["id"].as_str().unwrap();
    let same = rest.send("GET", &format!("/pools/read/nodes/{node}/files/workitems%2Fjob%2Fjob-1%2Ft%2Fstdout.txt"), None);
    assert_eq!(same.text(), out);
    stack.stop();
}

#[test]
fn what_a_task_wrote_can_be_read_whatever_ended_it() {
    let (stack, rest) = stack("ends", 1, 2);
    // What it writes when it is told to end is more than travels with the end.
    let command = "/bin/sh -c 'trap \"seq 1 2000; echo last >&2; exit 0\" TERM; echo first; while :; do sleep 0.02; done'";
    let expected = format!("first\n{}", (1..=2000).map(|number| format!("{number}\n")).collect::<String>());
    let read = |job: &str, name: &str| rest.send("GET", &format!("/jobs/{job}/tasks/t/files/{name}"), None);
    let running = |job: &str| {
        rest.add_task(job, json!({"id": "t", "commandLine": command}));
        wait_for(PATIENCE, || Some(read(job, "stdout.txt")).filter(|answer| answer.status == 200 && answer.text() == "first\n"))
            .unwrap_or_else(|| panic!("{job} does not run"));
    };
    let is_told = |job: &str| {
        let told = || read(job, "stdout.txt").text() == expected && read(job, "stderr.txt").text().ends_with("last\n");
        wait_for(PATIENCE, || told().then_some(())).unwrap_or_else(|| panic!("{job}: {}", read(job, "stdout.txt").text()));
    };
    let jobs = ["task", "jobend", "disabled", "requeued"];
    for job in jobs {
        rest.add_job(job, "ends");
        running(job);
        match job {
            "task" => rest.post("/jobs/task/tasks/t/terminate", &json!({}), 204),
            "jobend" => rest.post("/jobs/jobend/terminate", &json!({}), 202),
            "disabled" => rest.post("/jobs/disabled/disable", &json!({"disableTasks": "terminate"}), 202),
            _ => rest.post("/jobs/requeued/disable", &json!({"disableTasks": "requeue"}), 202),
        };
        is_told(job);
        assert_eq!(rest.get(&format!("/jobs/{job}/tasks/t"))["state"], if job == "requeued" { "active" } else { "completed" });
    }
    rest.add_job("limit", "ends");
    rest.add_task("limit", json!({"id": "t", "commandLine": command, "constraints": {"maxWallClockTime": "PT1S"}}));
    rest.finished("limit", "t");
    is_told("limit");
    for (job, option) in [("removed", "terminate"), ("returned", "requeue")] {
        rest.add_pool(job, 1, 2);
        rest.add_job(job, job);
        running(job);
        let node = rest.get(&format!("/jobs/{job}/tasks/t"))["nodeInfo"]["nodeId"].clone();
        let is_steady = || (rest.get(&format!("/pools/{job}"))["allocationState"] == "steady").then_some(());
        wait_for(PATIENCE, is_steady).expect("the pool has its node");
        rest.post(&format!("/pools/{job}/removenodes"), &json!({"nodeList": [node], "nodeDeallocationOption": option}), 202);
        let nodes = format!("/pools/{job}/nodes");
        wait_for(PATIENCE, || rest.get(&nodes)["value"].as_array().unwrap().is_empty().then_some(())).expect("the node goes");
        is_told(job);
    }
    rest.send("DELETE", "/pools/ends", None);
    wait_for(PATIENCE, || (rest.send("GET", "/pools/ends", None).status == 404).then_some(())).expect("the pool goes");
    for job in ["task", "jobend", "disabled", "requeued", "limit"] {
        is_told(job);
    }
    stack.stop();
}
