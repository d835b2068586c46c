//! Databases of earlier builds: `tests/fixtures/store-format-N.sqlite` was written by a build of that format, stopped in
//! order, and vacuumed. A copy is opened by the binary under test; what it held is there, and what waited goes on.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{rest::Rest, stack::Stack};

/// A stack on a copy of a stored database; broker, blobs and nodes begin anew.
fn stack_on(fixture: &str) -> Stack {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(fixture);
    Stack::start_after(|data| {
        fs::create_dir_all(data.join("dispatcher")).unwrap();
        fs::copy(source, data.join("dispatcher/store.sqlite")).unwrap();
    })
}

/// State, result and exit code of a task.
fn outcome(rest: &Rest, job: &str, task: &str) -> Value {
    let task = rest.get(&format!("/jobs/{job}/tasks/{task}"));
    json!([task["state"], task["executionInfo"]["result"], task["executionInfo"]["exitCode"]])
}

fn states(rest: &Rest, path: &str) -> Value {
    rest.get(path)["value"].as_array().unwrap().iter().map(|one| json!([one["id"], one["state"]])).collect()
}

#[test]
fn a_database_of_format_3_is_opened_with_all_it_holds_and_goes_on() {
    goes_on("store-format-3.sqlite");
}

#[test]
fn a_database_of_format_4_is_opened_with_all_it_holds_and_goes_on() {
    goes_on("store-format-4.sqlite");
}

/// Both fixtures hold the same; that of format 4 was the other one, opened by a build of its format.
fn goes_on(fixture: &str) {
    let stack = stack_on(fixture);
    let rest = Rest::new(&stack.ready);

    assert_eq!(states(&rest, "/pools"), json!([["fixed", "active"], ["formula", "active"], ["idle", "active"]]));
    let fixed = rest.get("/pools/fixed");
    assert_eq!((&fixed["targetDedicatedNodes"], &fixed["taskSlotsPerNode"]), (&json!(1), &json!(2)));
    assert_eq!(fixed["metadata"], json!([{"name": "kept", "value": "yes"}]));
    assert_eq!(fixed["startTask"]["commandLine"], "/bin/true");
    assert_eq!(fixed["applicationPackageReferences"], json!([{"applicationId": "tool", "version": "1.0"}]));
    let formula = rest.get("/pools/formula");
    assert_eq!((&formula["enableAutoScale"], &formula["autoScaleFormula"]), (&json!(true), &json!("$TargetDedicatedNodes = 0;")));
    assert_eq!(rest.get("/applications/tool")["versions"], json!(["1.0"]));
    assert_eq!(rest.get("/pools/fixed/nodes/node-0001")["totalTasksRun"], 5);

    let jobs =
        json!([["done", "active"], ["managed", "completed"], ["released", "completed"], ["resting", "disabled"], ["waiting", "active"]]);
    assert_eq!(states(&rest, "/jobs"), jobs);
    let done = rest.get("/jobs/done");
    assert_eq!(done["commonEnvironmentSettings"], json!([{"name": "COLOUR", "value": "blue"}]));
    assert_eq!((&done["jobPreparationTask"]["id"], &done["jobReleaseTask"]["id"]), (&json!("prepare"), &json!("release")));
    let managed = rest.get("/jobs/managed");
    assert_eq!((&managed["onAllTasksComplete"], &managed["jobManagerTask"]["id"]), (&json!("terminatejob"), &json!("manager")));
    assert_eq!(rest.get("/jobs/released")["executionInfo"]["terminateReason"], "over");
    let job_tasks = rest.get("/jobs/released/jobpreparationandreleasetaskstatus")["value"][0].clone();
    for job_task in ["jobPreparationTaskExecutionInfo", "jobReleaseTaskExecutionInfo"] {
        assert_eq!(job_tasks[job_task]["result"], "success", "{job_tasks}");
    }
    assert_eq!(rest.get("/jobs/resting")["priority"], 7);
    let nightly = rest.get("/jobschedules/nightly");
    assert_eq!((&nightly["state"], &nightly["executionInfo"]["nextRunTime"]), (&json!("active"), &json!("2099-01-01T00:00:00.000Z")));

    assert_eq!(outcome(&rest, "done", "good"), json!(["completed", "success", 0]));
    assert_eq!(outcome(&rest, "done", "bad"), json!(["completed", "failure", 3]));
    assert_eq!(outcome(&rest, "done", "after"), json!(["completed", "success", 0]));
    assert_eq!(outcome(&rest, "done", "never"), json!(["active", null, null]));
    assert_eq!(outcome(&rest, "managed", "manager"), json!(["completed", "success", 0]));
    let good = rest.get("/jobs/done/tasks/good");
    assert_eq!(good["outputFiles"][0]["filePattern"], "*.out");
    assert_eq!(rest.send("GET", "/jobs/done/tasks/good/files/stdout.txt", None).text(), "well\n");
    let counts = rest.get("/jobs/done/taskcounts")["taskCounts"].clone();
    assert_eq!(counts, json!({"active": 1, "running": 0, "completed": 3, "succeeded": 2, "failed": 1}));

    // Tasks that had never started run in their order, the dependent and the wide one too.
    rest.post("/pools/idle/resize", &json!({"targetDedicatedNodes": 1}), 202);
    for task in ["first", "second", "wide"] {
        assert_eq!(rest.finished("waiting", task)["executionInfo"]["result"], "success", "{task}");
    }
    assert_eq!(rest.send("GET", "/jobs/waiting/tasks/first/files/stdout.txt", None).text(), "went on\n");
    assert_eq!(outcome(&rest, "resting", "later"), json!(["active", null, null]));
    rest.send("POST", "/jobs/resting/enable", None);
    assert_eq!(rest.finished("resting", "later")["executionInfo"]["result"], "success");
    stack.stop();
}
