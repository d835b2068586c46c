//! Jobs that bring their pool along, whole: nodes come, tasks run, and pool and nodes go with the job.

use serde_json::{Value, json};

use crate::{
    rest::{PATIENCE, Rest},
    stack::{Stack, wait_for},
};

fn auto(lifetime: &str) -> Value {
    let machine = json!({"imageReference": {"publisher": "p", "offer": "o", "sku": "s"}, "nodeAgentSKUId": "batch.node.linux"});
    let pool = json!({"vmSize": "local", "virtualMachineConfiguration": machine, "targetDedicatedNodes": 1, "taskSlotsPerNode": 2});
    json!({"autoPoolSpecification": {"autoPoolIdPrefix": "auto", "poolLifetimeOption": lifetime, "pool": pool}})
}

fn in_state(rest: &Rest, path: &str, state: &str) -> Value {
    wait_for(PATIENCE, || Some(rest.get(path)).filter(|found| found["state"] == state))
        .unwrap_or_else(|| panic!("{path} is never {state}: {}", rest.get(path)))
}

fn pool_of(rest: &Rest, job: &str) -> String {
    rest.get(&format!("/jobs/{job}"))["executionInfo"]["poolId"].as_str().expect("a pool").to_owned()
}

fn gone(rest: &Rest, pool: &str) {
    wait_for(PATIENCE, || Some(()).filter(|()| rest.send("GET", &format!("/pools/{pool}"), None).status == 404))
        .unwrap_or_else(|| panic!("the pool does not go: {}", rest.get(&format!("/pools/{pool}"))));
}

#[test]
fn a_job_runs_on_a_pool_of_its_own_that_vanishes_with_its_last_task() {
    let mut stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    rest.post("/jobs", &json!({"id": "own", "poolInfo": auto("job")}), 201);
    let pool = pool_of(&rest, "own");
    for id in ["a", "b"] {
        rest.add_task("own", json!({"id": id, "commandLine": "/bin/sh -c 'echo $AZ_BATCH_POOL_ID'"}));
    }
    for id in ["a", "b"] {
        let task = rest.finished("own", id);
        assert_eq!((&task["executionInfo"]["exitCode"], &task["nodeInfo"]["poolId"]), (&json!(0), &json!(pool)));
        assert_eq!(rest.send("GET", &format!("/jobs/own/tasks/{id}/files/stdout.txt"), None).text(), format!("{pool}\n"));
    }
    stack.kill_and_restart();
    let rest = Rest::new(&stack.ready);
    assert_eq!(rest.get(&format!("/pools/{pool}"))["state"], "active");
    let answer = rest.send("PATCH", "/jobs/own", Some(&json!({"onAllTasksComplete": "terminatejob"})));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let job = in_state(&rest, "/jobs/own", "completed");
    assert_eq!(job["executionInfo"]["terminateReason"], "AllTasksComplete");
    stack.kill_and_restart();
    let rest = Rest::new(&stack.ready);
    gone(&rest, &pool);
    assert_eq!(rest.get("/pools")["value"], json!([]));
    stack.stop();
}

#[test]
fn the_jobs_of_a_schedule_run_on_one_pool_that_vanishes_with_the_schedule() {
    let stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    let manager = json!({"id": "boss", "commandLine": "/bin/sh -c 'echo $AZ_BATCH_POOL_ID'"});
    let specification = json!({"poolInfo": auto("jobschedule"), "jobManagerTask": manager});
    let schedule = json!({"id": "S", "schedule": {"recurrenceInterval": "PT1H"}, "jobSpecification": specification});
    rest.post("/jobschedules", &schedule, 201);
    let pool = pool_of(&rest, "S%3Ajob-1");
    let ended = in_state(&rest, "/jobs/S%3Ajob-1", "completed");
    assert_eq!(ended["executionInfo"]["terminateReason"], "JMComplete");
    assert_eq!(rest.send("GET", "/jobs/S%3Ajob-1/tasks/boss/files/stdout.txt", None).text(), format!("{pool}\n"));
    assert_eq!(rest.get(&format!("/pools/{pool}"))["state"], "active", "it waits for the next job");
    rest.post("/jobschedules/S/terminate", &json!({}), 202);
    in_state(&rest, "/jobschedules/S", "completed");
    gone(&rest, &pool);
    stack.stop();
}

#[test]
fn the_nodes_of_a_jobs_own_pool_release_the_job_before_the_pool_goes() {
    let stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    let marks = stack.scratch();
    let release = format!("/bin/sh -c 'cp $AZ_BATCH_JOB_PREP_WORKING_DIR/data {}/$AZ_BATCH_POOL_ID'", marks.display());
    let job = json!({
        "id": "tidy",
        "poolInfo": auto("job"),
        "jobPreparationTask": {"commandLine": "/bin/sh -c 'echo prepared > data'"},
        "jobReleaseTask": {"commandLine": release},
    });
    rest.post("/jobs", &job, 201);
    let pool = pool_of(&rest, "tidy");
    rest.add_task("tidy", json!({"id": "t", "commandLine": "/bin/sh -c 'cat $AZ_BATCH_JOB_PREP_WORKING_DIR/data'"}));
    assert_eq!(rest.finished("tidy", "t")["executionInfo"]["result"], "success");
    rest.post("/jobs/tidy/terminate", &json!({}), 202);
    in_state(&rest, "/jobs/tidy", "completed");
    let status = rest.get("/jobs/tidy/jobpreparationandreleasetaskstatus")["value"].clone();
    assert_eq!(status[0]["jobReleaseTaskExecutionInfo"]["result"], "success", "{status}");
    assert_eq!(std::fs::read_to_string(marks.join(&pool)).unwrap(), "prepared\n");
    gone(&rest, &pool);
    stack.stop();
}
