//! Databases of earlier builds: `tests/fixtures/store-format-N.sqlite` was written by a build of that format, stopped in
//! order, and vacuumed. A copy is opened by the binary under test; what it held is there, and what waited goes on.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{
    rest::Rest,
    stack::{Stack, text},
};

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

/// Ids and states of a list, without the pool `serving` and its standing job, which only the newest fixture has.
fn states(rest: &Rest, path: &str) -> Value {
    let list = rest.get(path);
    let common = list["value"].as_array().unwrap().iter().filter(|one| one["id"] != "serving" && one["id"] != "queue-serving");
    common.map(|one| json!([one["id"], one["state"]])).collect()
}

#[test]
fn a_database_of_format_3_is_opened_with_all_it_holds_and_goes_on() {
    let stack = stack_on("store-format-3.sqlite");
    goes_on(&stack);
    stack.stop();
}

#[test]
fn a_database_of_format_4_is_opened_with_all_it_holds_and_goes_on() {
    let stack = stack_on("store-format-4.sqlite");
    goes_on(&stack);
    stack.stop();
}

#[test]
fn a_database_of_format_5_is_opened_with_its_functions_and_submissions_and_goes_on() {
    let stack = stack_on("store-format-5.sqlite");
    goes_on(&stack);
    let rest = Rest::new(&stack.ready);

    let shown = rest.get("/piecework/pools/serving/functions/echo");
    assert_eq!((&shown["id"], &shown["version"], &shown["runtime"]), (&json!("echo"), &json!(2), &json!("lines")), "{shown}");
    assert_eq!(outcome(&rest, "queue-serving", "awaited"), json!(["active", null, null]));

    // Submitted tasks run although their answers' queue is gone, and the function answers.
    rest.post("/pools/serving/resize", &json!({"targetDedicatedNodes": 1}), 202);
    for task in ["awaited", "told"] {
        assert_eq!(rest.finished("queue-serving", task)["executionInfo"]["result"], "success", "{task}");
    }
    assert_eq!(rest.send("GET", "/jobs/queue-serving/tasks/awaited/files/stdout.txt", None).text(), "sent\n");
    let answer = stack.command().args(["function", "invoke", "echo", "--pool", "serving", "--data", "[1]"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&answer.stdout).trim(), "[1]", "{:?}", text(&answer));
    stack.stop();
}

/// All fixtures hold this; each later one is the one before, opened by a build of its format.
fn goes_on(stack: &Stack) {
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
}
