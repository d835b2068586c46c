//! Automatic pools of jobs and schedules: their properties in responses, refusals, and possible changes.

use serde_json::{Value, json};

use crate::{
    schedules::{code, eventually},
    test_dispatcher::TestDispatcher,
};

fn pool() -> Value {
    let machine = json!({"imageReference": {"publisher": "p", "offer": "o", "sku": "s", "version": "latest"}, "nodeAgentSKUId": "a"});
    json!({
        "vmSize": "x", "targetDedicatedNodes": 0, "virtualMachineConfiguration": machine, "taskSlotsPerNode": 3,
        "taskSchedulingPolicy": {"nodeFillType": "pack", "jobDefaultOrder": "creationtime"}, "resourceTags": {"a": "b"},
        "metadata": [{"name": "a", "value": "b"}], "displayName": "shown",
    })
}

fn auto(lifetime: &str) -> Value {
    json!({"autoPoolSpecification": {"autoPoolIdPrefix": "Auto", "poolLifetimeOption": lifetime, "pool": pool()}})
}

/// The same with some properties replaced, by their paths; null removes one.
fn auto_with(changes: &[(&str, Value)]) -> Value {
    let mut info = auto("job");
    for (path, value) in changes {
        let target = path.split('/').fold(&mut info["autoPoolSpecification"], |at, name| &mut at[name]);
        *target = value.clone();
    }
    info
}

fn pools(dispatcher: &TestDispatcher) -> Vec<String> {
    let listed = dispatcher.get("/pools?$select=id")["value"].as_array().unwrap().clone();
    listed.iter().map(|pool| pool["id"].as_str().unwrap().to_owned()).collect()
}

fn gone(dispatcher: &TestDispatcher, pool: &str) {
    eventually("the pool to go", || {
        Some(()).filter(|()| dispatcher.ask("GET", &format!("/pools/{pool}"), &[], &Value::Null).status == 404)
    });
}

#[test]
fn a_job_shows_its_own_pool_as_it_was_given_and_where_it_runs() {
    let dispatcher = TestDispatcher::start();
    dispatcher.send("POST", "/jobs", json!({"id": "Job", "poolInfo": auto("job"), "priority": 7}), 201);
    let job = dispatcher.get("/jobs/Job?api-version=2025-06-01");
    let id = job["executionInfo"]["poolId"].as_str().unwrap().to_owned();
    assert_eq!(pools(&dispatcher), std::slice::from_ref(&id));
    assert!(id.starts_with("Auto_"), "{id}");
    let shown = &job["poolInfo"]["autoPoolSpecification"];
    assert_eq!((&shown["autoPoolIdPrefix"], &shown["poolLifetimeOption"]), (&json!("Auto"), &json!("job")));
    assert_eq!((job["poolInfo"].get("poolId"), &shown["keepAlive"]), (None, &json!(false)));
    let mut given = pool();
    given.as_object_mut().unwrap().remove("resourceTags");
    assert_eq!(shown["pool"], given, "resource tags are not part of this version");
    let made = dispatcher.get(&format!("/pools/{id}?api-version=2025-06-01"));
    for name in ["vmSize", "virtualMachineConfiguration", "taskSlotsPerNode", "taskSchedulingPolicy", "metadata", "displayName"] {
        assert_eq!(made[name], given[name], "{name}");
    }
    let listed = dispatcher.get("/jobs?$select=id,poolInfo&$filter=startswith(executionInfo/poolId,%27auto_%27)");
    assert_eq!(listed["value"][0]["poolInfo"]["autoPoolSpecification"]["pool"]["vmSize"], "x");
    assert_eq!(dispatcher.get("/jobs/Job?$select=priority"), {
        let metadata = job["odata.metadata"].clone();
        json!({"odata.metadata": metadata, "priority": 7})
    });
    dispatcher.send("POST", "/jobs/Job/terminate", Value::Null, 202);
    gone(&dispatcher, &id);
    let job = dispatcher.get("/jobs/Job");
    assert_eq!((&job["state"], &job["executionInfo"]["poolId"]), (&json!("completed"), &json!(id)));
    dispatcher.send("DELETE", "/jobs/Job", Value::Null, 202);
}

#[test]
fn every_version_shows_the_specification_without_what_it_lacks() {
    let dispatcher = TestDispatcher::start();
    dispatcher.send("POST", "/jobs", json!({"id": "Job", "poolInfo": auto("job")}), 201);
    let when = json!({"doNotRunUntil": "2099-01-01T00:00:00Z"});
    dispatcher.send(
        "POST",
        "/jobschedules",
        json!({"id": "S", "schedule": when, "jobSpecification": {"poolInfo": auto("jobSchedule")}}),
        201,
    );
    let versions = ["2020-03-01.11.0", "2024-02-01.19.0", "2024-07-01.20.0", "2025-06-01"];
    for (path, shown) in [
        ("vmSize", [true, true, true, true]),
        ("taskSlotsPerNode", [false, true, true, true]),
        ("maxTasksPerNode", [true, false, false, false]),
        ("taskSchedulingPolicy/jobDefaultOrder", [false, false, false, true]),
        ("taskSchedulingPolicy/nodeFillType", [true, true, true, true]),
        ("resourceTags", [false, true, true, false]),
    ] {
        for (version, is_shown) in versions.iter().zip(shown) {
            let job = dispatcher.get(&format!("/jobs/Job?api-version={version}"));
            let schedule = dispatcher.get(&format!("/jobschedules/S?api-version={version}"));
            for info in [&job["poolInfo"], &schedule["jobSpecification"]["poolInfo"]] {
                let found = info["autoPoolSpecification"]["pool"].pointer(&format!("/{path}"));
                assert_eq!(found.is_some(), is_shown, "{path} by {version}: {info}");
            }
        }
    }
}

#[test]
fn a_wrong_specification_is_refused_by_the_path_of_the_property_and_makes_nothing() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    let (missing, wrong) = ("MissingRequiredProperty", "InvalidPropertyValue");
    for (changes, code, path) in [
        (vec![("poolLifetimeOption", Value::Null)], missing, "poolLifetimeOption"),
        (vec![("poolLifetimeOption", json!("jobschedule"))], wrong, "poolLifetimeOption"),
        (vec![("autoPoolIdPrefix", json!("x".repeat(21)))], wrong, "autoPoolIdPrefix"),
        (vec![("autoPoolIdPrefix", json!("a.b"))], wrong, "autoPoolIdPrefix"),
        (vec![("keepAlive", json!(2))], wrong, "keepAlive"),
        (vec![("pool", Value::Null)], missing, "pool"),
        (vec![("pool/vmSize", Value::Null)], missing, "pool.vmSize"),
        (vec![("pool/targetDedicatedNodes", json!(-1))], wrong, "pool.targetDedicatedNodes"),
        (
            vec![("pool/virtualMachineConfiguration/nodeAgentSKUId", Value::Null)],
            missing,
            "pool.virtualMachineConfiguration.nodeAgentSKUId",
        ),
        (vec![("pool/taskSlotsPerNode", json!(257))], wrong, "pool.taskSlotsPerNode"),
        (vec![("pool/startTask", json!({}))], missing, "pool.startTask.commandLine"),
        (vec![("pool/resizeTimeout", json!("PT1M"))], wrong, "pool.resizeTimeout"),
        (vec![("pool/enableAutoScale", json!(true))], wrong, "pool.enableAutoScale"),
        (vec![("pool/taskSchedulingPolicy", json!({"nodeFillType": "even"}))], wrong, "pool.taskSchedulingPolicy.nodeFillType"),
        (vec![("pool/applicationPackageReferences", json!([{}]))], missing, "pool.applicationPackageReferences[0].applicationId"),
        (vec![("pool/certificateReferences", json!([{}]))], "UnsupportedProperty", "pool.certificateReferences"),
    ] {
        let refused = dispatcher.send("POST", "/jobs", json!({"id": "new", "poolInfo": auto_with(&changes)}), 400).json();
        let path = format!("poolInfo.autoPoolSpecification.{path}");
        assert_eq!((refused["code"].as_str(), refused["values"][0]["value"].as_str()), (Some(code), Some(path.as_str())), "{changes:?}");
        if path.ends_with("poolLifetimeOption") && code == wrong {
            continue;
        }
        let schedule = json!({"id": "new", "schedule": {}, "jobSpecification": {"poolInfo": auto_with(&changes)}});
        let refused = dispatcher.send("POST", "/jobschedules", schedule, 400).json();
        assert_eq!(refused["values"][0]["value"].as_str(), Some(format!("jobSpecification.{path}").as_str()), "{changes:?}");
    }
    let scaled = |formula: &str| {
        auto_with(&[
            ("pool/targetDedicatedNodes", Value::Null),
            ("pool/enableAutoScale", json!(true)),
            ("pool/autoScaleFormula", json!(formula)),
        ])
    };
    assert_eq!(code(&dispatcher, "POST", "/jobs", json!({"id": "new", "poolInfo": scaled("$a")}), 400), "AutoScalingFormulaSyntaxError");
    let mut both = auto("job");
    both["poolId"] = json!("Pool");
    assert_eq!(code(&dispatcher, "POST", "/jobs", json!({"id": "new", "poolInfo": both}), 400), wrong);
    assert_eq!(code(&dispatcher, "POST", "/jobs", json!({"id": "job", "poolInfo": auto("job")}), 409), "JobExists");
    assert_eq!(pools(&dispatcher), ["Pool"]);
    dispatcher.send("POST", "/jobs", json!({"id": "new", "poolInfo": scaled("$TargetDedicatedNodes = 0;")}), 201);
    let shown = dispatcher.get("/jobs/new")["poolInfo"]["autoPoolSpecification"]["pool"].clone();
    assert_eq!((&shown["enableAutoScale"], &shown["autoScaleFormula"]), (&json!(true), &json!("$TargetDedicatedNodes = 0;")));
}

#[test]
fn of_its_own_pool_a_disabled_job_changes_keep_alive_and_nothing_else() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    dispatcher.send("POST", "/jobs", json!({"id": "own", "poolInfo": auto("job")}), 201);
    let patch = |info: Value, status: u16| dispatcher.send("PATCH", "/jobs/own", json!({ "poolInfo": info }), status);
    patch(auto("job"), 200);
    let brief = json!({"autoPoolSpecification": {"poolLifetimeOption": "job", "keepAlive": true}});
    assert_eq!(patch(brief.clone(), 409).json()["code"], "OperationInvalidForCurrentState");
    dispatcher.send("POST", "/jobs/own/disable", json!({"disableTasks": "requeue"}), 202);
    eventually("the job to be disabled", || Some(()).filter(|()| dispatcher.get("/jobs/own")["state"] == "disabled"));
    patch(brief, 200);
    let kept = dispatcher.get("/jobs/own")["poolInfo"]["autoPoolSpecification"].clone();
    assert_eq!((&kept["keepAlive"], &kept["pool"]["vmSize"]), (&json!(true), &json!("x")));
    for (path, value) in [("poolLifetimeOption", json!("jobschedule")), ("autoPoolIdPrefix", json!("Other")), ("pool/vmSize", json!("y"))] {
        let refused = patch(auto_with(&[(path, value)]), 400).json();
        let path = format!("poolInfo.autoPoolSpecification.{}", path.replace('/', "."));
        assert_eq!((&refused["code"], &refused["values"][0]["value"]), (&json!("InvalidPropertyValue"), &json!(path)));
    }
    assert_eq!(patch(json!({"poolId": "Pool"}), 409).json()["code"], "OperationInvalidForCurrentState");
    dispatcher.send("PUT", "/jobs/own", json!({"poolInfo": auto("job"), "priority": 3}), 200);
    let job = dispatcher.get("/jobs/own");
    assert_eq!((&job["priority"], &job["poolInfo"]["autoPoolSpecification"]["keepAlive"]), (&json!(3), &json!(false)));
    let refused = dispatcher.send("PATCH", "/jobs/Job", json!({"poolInfo": auto("job")}), 400).json();
    assert_eq!(refused["values"][0]["value"], "poolInfo.autoPoolSpecification");
    patch(json!({"autoPoolSpecification": {"poolLifetimeOption": "job", "keepAlive": true}}), 200);
    let id = job["executionInfo"]["poolId"].as_str().unwrap();
    dispatcher.send("DELETE", "/jobs/own", Value::Null, 202);
    eventually("the job to go", || Some(()).filter(|()| dispatcher.ask("GET", "/jobs/own", &[], &Value::Null).status == 404));
    assert_eq!(dispatcher.get(&format!("/pools/{id}"))["state"], "active");
}

#[test]
fn a_job_whose_pool_cannot_be_made_tells_why() {
    let dispatcher = TestDispatcher::start();
    let info = auto_with(&[("pool/applicationPackageReferences", json!([{"applicationId": "nothing"}]))]);
    dispatcher.send("POST", "/jobs", json!({"id": "Job", "poolInfo": info}), 201);
    let job = eventually("the job to be completed", || Some(dispatcher.get("/jobs/Job")).filter(|job| job["state"] == "completed"));
    let execution = &job["executionInfo"];
    let error = &execution["schedulingError"];
    assert_eq!((&error["category"], &error["code"]), (&json!("usererror"), &json!("InvalidApplicationPackageReferencesInAutoPool")));
    assert_eq!(error["details"][0], json!({"name": "nothing", "value": "The specified application package does not exist."}));
    assert!(error["message"].is_string() && execution["endTime"].is_string(), "{execution}");
    assert_eq!((execution.get("poolId"), execution.get("terminateReason")), (None, None));
    assert_eq!(pools(&dispatcher), Vec::<String>::new());
}

#[test]
fn the_pool_of_a_schedule_lives_from_its_first_job_to_its_end() {
    let dispatcher = TestDispatcher::start();
    let specification = json!({"poolInfo": auto("jobSchedule")});
    let new = json!({"id": "S", "schedule": {"recurrenceInterval": "PT1H"}, "jobSpecification": specification});
    dispatcher.send("POST", "/jobschedules", new, 201);
    let shown = dispatcher.get("/jobschedules/S")["jobSpecification"]["poolInfo"]["autoPoolSpecification"].clone();
    assert_eq!((&shown["poolLifetimeOption"], &shown["pool"]["taskSlotsPerNode"]), (&json!("jobschedule"), &json!(3)));
    let job = dispatcher.get("/jobs/S%3Ajob-1");
    assert_eq!(job["poolInfo"]["autoPoolSpecification"], shown);
    let id = job["executionInfo"]["poolId"].as_str().unwrap();
    dispatcher.send("POST", "/jobs/S%3Ajob-1/terminate", Value::Null, 202);
    eventually("the job to be completed", || Some(()).filter(|()| dispatcher.get("/jobs/S%3Ajob-1")["state"] == "completed"));
    assert_eq!(dispatcher.get(&format!("/pools/{id}"))["state"], "active");
    dispatcher.send("DELETE", "/jobschedules/S", Value::Null, 202);
    gone(&dispatcher, id);
}
