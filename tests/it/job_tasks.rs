//! Preparation and release of jobs end to end: real agents as processes, driven through the API.

use serde_json::{Value, json};

use crate::{
    rest::{PATIENCE, Rest},
    stack::{Stack, wait_for},
};

/// A job whose job tasks leave their marks in the nodes' shared folders.
fn job(id: &str, pool: &str, preparation: &str, waits: bool) -> Value {
    json!({
        "id": id,
        "poolInfo": {"poolId": pool},
        "commonEnvironmentSettings": [{"name": "COMMON", "value": id}],
        "jobPreparationTask": {"id": "prep", "commandLine": format!("/bin/sh -c '{preparation}'"), "waitForSuccess": waits},
        "jobReleaseTask": {
            "id": "tidy",
            "commandLine": "/bin/sh -c 'cat $AZ_BATCH_JOB_PREP_WORKING_DIR/data; echo $COMMON >> $AZ_BATCH_NODE_SHARED_DIR/released'"
        },
    })
}

/// A task that needs the file of the preparation and says what it held.
fn reader(id: &str) -> Value {
    json!({"id": id, "commandLine": "/bin/sh -c 'cat $AZ_BATCH_JOB_PREP_WORKING_DIR/data && echo $AZ_BATCH_JOB_PREP_DIR'"})
}

fn status(rest: &Rest, job: &str) -> Vec<Value> {
    let got = rest.get(&format!("/jobs/{}/jobpreparationandreleasetaskstatus", job.replace(':', "%3A")));
    got["value"].as_array().expect("rows").clone()
}

fn becomes(rest: &Rest, path: &str, state: &str) -> Value {
    let found = wait_for(PATIENCE, || Some(rest.get(path)).filter(|thing| thing["state"] == state));
    found.unwrap_or_else(|| panic!("never {state}: {}", rest.get(path)))
}

fn nodes(rest: &Rest, pool: &str) -> Vec<String> {
    let found = wait_for(PATIENCE, || {
        let nodes = rest.get(&format!("/pools/{pool}/nodes"))["value"].as_array().expect("nodes").clone();
        let is_wanted = !nodes.is_empty() && nodes.iter().all(|node| node["state"] == "idle" || node["state"] == "running");
        is_wanted.then(|| nodes.iter().map(|node| node["id"].as_str().expect("an id").to_owned()).collect())
    });
    found.expect("nodes that are ready")
}

fn file(rest: &Rest, pool: &str, node: &str, path: &str) -> String {
    let answer = rest.send("GET", &format!("/pools/{pool}/nodes/{node}/files/{}", path.replace('/', "%2F")), None);
    if answer.status == 200 { answer.text() } else { String::new() }
}

const ONCE: &str = "sleep 0.3; echo prepared $COMMON > data; echo once >> $AZ_BATCH_NODE_SHARED_DIR/prepared; echo said";

#[test]
fn a_node_is_prepared_once_before_several_tasks_and_released_before_the_job_is_completed() {
    let stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    rest.add_pool("prepared", 1, 4);
    rest.post("/jobs", &job("job", "prepared", ONCE, true), 201);
    rest.add_tasks("job", &(0..12).map(|number| reader(&format!("t{number}"))).collect::<Vec<_>>());
    rest.all_finished("job");
    for task in rest.tasks("job") {
        assert_eq!(task["executionInfo"]["result"], "success", "{task}");
        let said = rest.send("GET", &format!("/jobs/job/tasks/{}/files/stdout.txt", task["id"].as_str().expect("an id")), None).text();
        assert!(said.starts_with("prepared job\n") && said.ends_with("/workitems/job/job-1/prep\n"), "{said}");
    }
    let node = nodes(&rest, "prepared").remove(0);
    assert_eq!(file(&rest, "prepared", &node, "shared/prepared"), "once\n");
    let rows = status(&rest, "job");
    let info = &rows[0]["jobPreparationTaskExecutionInfo"];
    assert_eq!((rows.len(), &info["state"], &info["result"]), (1, &json!("completed"), &json!("success")));
    let root = info["taskRootDirectory"].as_str().expect("a folder");
    assert_eq!(file(&rest, "prepared", &node, &format!("{root}/stdout.txt")), "said\n");

    rest.post("/jobs/job/terminate", &json!({}), 202);
    becomes(&rest, "/jobs/job", "completed");
    let info = status(&rest, "job")[0]["jobReleaseTaskExecutionInfo"].clone();
    assert_eq!((&info["state"], &info["result"]), (&json!("completed"), &json!("success")));
    let root = info["taskRootDirectory"].as_str().expect("a folder");
    assert_eq!(
        file(&rest, "prepared", &node, &format!("{root}/stdout.txt")),
        "prepared job\n",
        "what was prepared is there for the release"
    );
    assert_eq!(file(&rest, "prepared", &node, "shared/released"), "job\n");

    // Deleting it afterwards releases nothing again.
    assert_eq!(rest.send("DELETE", "/jobs/job", None).status, 202);
    wait_for(PATIENCE, || (rest.send("GET", "/jobs/job", None).status == 404).then_some(())).expect("a job that is gone");
    assert_eq!(file(&rest, "prepared", &node, "shared/released"), "job\n");
    stack.stop();
}

#[test]
fn a_failed_preparation_keeps_tasks_that_wait_from_the_node_until_a_reimage_and_no_others() {
    let stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    rest.add_pool("failing", 1, 2);
    let fails = "test -e $AZ_BATCH_NODE_SHARED_DIR/../volatile/never || exit 7";
    rest.post("/jobs", &job("waits", "failing", fails, true), 201);
    rest.add_tasks("waits", &[json!({"id": "t", "commandLine": "/bin/true"})]);
    let failed = |job: &str| {
        let row =
            wait_for(PATIENCE, || status(&rest, job).pop().filter(|row| row["jobPreparationTaskExecutionInfo"]["state"] == "completed"));
        row.expect("a preparation that ended")["jobPreparationTaskExecutionInfo"].clone()
    };
    let info = failed("waits");
    assert_eq!(
        (&info["exitCode"], &info["result"], &info["failureInfo"]["code"]),
        (&json!(7), &json!("failure"), &json!("FailureExitCode"))
    );
    let task = becomes(&rest, "/jobs/waits/tasks/t", "active");
    let counts = &task["executionInfo"];
    assert_eq!((&counts["retryCount"], &counts["requeueCount"]), (&json!(0), &json!(0)), "it spent nothing: {task}");

    // Other jobs have the node, and so have tasks that do not wait for the success.
    rest.add_job("other", "failing");
    rest.add_tasks("other", &[json!({"id": "t", "commandLine": "/bin/true"})]);
    assert_eq!(rest.finished("other", "t")["executionInfo"]["result"], "success");
    rest.post("/jobs", &job("careless", "failing", fails, false), 201);
    rest.add_tasks("careless", &[json!({"id": "t", "commandLine": "/bin/true"})]);
    assert_eq!(rest.finished("careless", "t")["executionInfo"]["result"], "success");
    assert_eq!(failed("careless")["exitCode"], 7);
    assert_eq!(rest.get("/jobs/waits/tasks/t")["state"], "active");

    // Another node may run what this one may not: its preparation is its own.
    rest.post("/jobs", &job("picky", "failing", "mkdir $AZ_BATCH_NODE_SHARED_DIR/../../picky && echo x > data", true), 201);
    rest.add_tasks("picky", &[reader("t")]);
    assert_eq!(rest.finished("picky", "t")["executionInfo"]["result"], "success");

    // A job of which no node was prepared ends without a release.
    rest.post("/jobs/waits/terminate", &json!({}), 202);
    becomes(&rest, "/jobs/waits", "completed");
    assert!(status(&rest, "waits")[0].get("jobReleaseTaskExecutionInfo").is_none());
    stack.stop();
}

#[test]
fn a_reboot_prepares_again_and_a_crash_of_the_dispatcher_loses_no_release() {
    let mut stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    rest.add_pool("again", 1, 1);
    rest.post("/jobs", &job("job", "again", ONCE, true), 201);
    rest.add_tasks("job", &[reader("first")]);
    assert_eq!(rest.finished("job", "first")["executionInfo"]["result"], "success");
    let node = nodes(&rest, "again").remove(0);
    rest.post(&format!("/pools/again/nodes/{node}/reboot"), &json!({}), 202);
    rest.add_tasks("job", &[reader("second")]);
    assert_eq!(rest.finished("job", "second")["executionInfo"]["result"], "success");
    assert_eq!(file(&rest, "again", &node, "shared/prepared"), "once\nonce\n");

    // The release waits for a mark; meanwhile everything is killed, and started again.
    let mut slow = job("slow", "again", "echo x > data", true);
    slow["jobReleaseTask"]["commandLine"] =
        json!("/bin/sh -c 'until [ -e $AZ_BATCH_NODE_SHARED_DIR/go ]; do sleep 0.02; done; echo slow >> $AZ_BATCH_NODE_SHARED_DIR/slow'");
    rest.post("/jobs", &slow, 201);
    rest.add_tasks("slow", &[reader("t")]);
    assert_eq!(rest.finished("slow", "t")["executionInfo"]["result"], "success");
    rest.post("/jobs/slow/terminate", &json!({}), 202);
    let begun = wait_for(PATIENCE, || (status(&rest, "slow")[0]["jobReleaseTaskExecutionInfo"]["state"] == "running").then_some(()));
    begun.expect("a release that runs");
    stack.kill_and_restart();
    let rest = Rest::new(&stack.ready);
    assert_eq!(rest.get("/jobs/slow")["state"], "terminating");
    let node = nodes(&rest, "again").remove(0);
    rest.add_tasks("job", &[json!({"id": "mark", "commandLine": "/bin/sh -c 'touch $AZ_BATCH_NODE_SHARED_DIR/go'"})]);
    becomes(&rest, "/jobs/slow", "completed");
    assert_eq!(file(&rest, "again", &node, "shared/slow"), "slow\n");
    stack.stop();
}

#[test]
fn the_jobs_of_a_schedule_prepare_and_release_each_for_itself() {
    let stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    rest.add_pool("scheduled", 1, 1);
    let mut specification = job("x", "scheduled", ONCE, true);
    specification.as_object_mut().expect("a job").remove("id");
    specification["onAllTasksComplete"] = json!("terminatejob");
    specification["jobManagerTask"] = json!({
        "id": "manager", "commandLine": "/bin/sh -c 'cat $AZ_BATCH_JOB_PREP_WORKING_DIR/data'", "killJobOnCompletion": true
    });
    rest.post("/jobschedules", &json!({"id": "plan", "schedule": {}, "jobSpecification": specification}), 201);
    becomes(&rest, "/jobs/plan%3Ajob-1", "completed");
    assert_eq!(rest.get("/jobs/plan%3Ajob-1/tasks/manager")["executionInfo"]["result"], "success");
    let row = status(&rest, "plan:job-1").remove(0);
    assert_eq!(row["jobPreparationTaskExecutionInfo"]["taskRootDirectory"], "workitems/plan/job-1/prep");
    assert_eq!(row["jobReleaseTaskExecutionInfo"]["result"], "success", "{row}");
    stack.stop();
}
