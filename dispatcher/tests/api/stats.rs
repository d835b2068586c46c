//! Statistics in responses, on request only, in Azure's fields.

use serde_json::{Value, json};

use crate::test_dispatcher::TestDispatcher;

/// Field names in order, as text.
fn fields(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

const OF_TASK: [&str; 11] = [
    "url",
    "startTime",
    "lastUpdateTime",
    "userCPUTime",
    "kernelCPUTime",
    "wallClockTime",
    "readIOps",
    "writeIOps",
    "readIOGiB",
    "writeIOGiB",
    "waitTime",
];

fn dispatcher() -> TestDispatcher {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    dispatcher.send("POST", "/jobs/Job/tasks", json!({"id": "t", "commandLine": "x"}), 201);
    let schedule = json!({"id": "S", "schedule": {}, "jobSpecification": {"poolInfo": {"poolId": "Pool"}}});
    dispatcher.send("POST", "/jobschedules", schedule, 201);
    dispatcher
}

#[test]
fn stats_of_tasks_jobs_schedules_and_pools_are_shown_when_they_are_expanded() {
    let dispatcher = dispatcher();
    let of_job: Vec<&str> = OF_TASK.into_iter().chain(["numSucceededTasks", "numFailedTasks", "numTaskRetries"]).collect();
    for (target, names) in [
        ("/jobs/Job/tasks/t", OF_TASK.to_vec()),
        ("/jobs/Job", of_job.clone()),
        ("/jobschedules/S", of_job),
        ("/pools/Pool", vec!["url", "startTime", "lastUpdateTime", "usageStats"]),
    ] {
        let shown = dispatcher.get(&format!("{target}?$expand=stats"));
        let mut wanted = names.clone();
        let mut got = fields(&shown["stats"]);
        wanted.sort_unstable();
        got.sort_unstable();
        assert_eq!(got, wanted, "{target}");
        assert_eq!((&shown["stats"]["url"], &shown["stats"]["startTime"]), (&shown["url"], &shown["creationTime"]), "{target}");
        let (list, id) = target.rsplit_once('/').unwrap();
        let page = dispatcher.get(&format!("{list}?$expand=stats"));
        let row = page["value"].as_array().unwrap().iter().find(|row| row["id"] == id).unwrap();
        assert_eq!(fields(&row["stats"]), fields(&shown["stats"]), "{list}");
        for query in ["", "?$select=id", "?$select=id&$expand=stats"] {
            assert!(dispatcher.get(&format!("{target}{query}")).get("stats").is_none(), "{target}{query}");
        }
        for query in ["$select=id,stats&$expand=stats", "$select=id,stats"] {
            let selected = dispatcher.get(&format!("{list}?{query}"));
            assert_eq!(fields(&selected["value"][0]), ["id", "stats"], "{list} {query}");
        }
    }
}

#[test]
fn what_has_not_run_has_used_nothing() {
    let dispatcher = dispatcher();
    let stats = &dispatcher.get("/jobs/Job/tasks/t?$expand=stats")["stats"];
    assert_eq!((&stats["userCPUTime"], &stats["wallClockTime"], &stats["waitTime"]), (&json!("PT0S"), &json!("PT0S"), &json!("PT0S")));
    assert_eq!((&stats["readIOps"], &stats["readIOGiB"]), (&json!(0), &json!(0.0)));
    dispatcher.send("POST", "/jobs/Job/tasks/t/terminate", Value::Null, 204);
    let stats = &dispatcher.get("/jobs/Job?$expand=stats")["stats"];
    assert_eq!((&stats["numSucceededTasks"], &stats["numFailedTasks"], &stats["numTaskRetries"]), (&json!(0), &json!(1), &json!(0)));
    assert_eq!(dispatcher.get("/pools/Pool?$expand=stats")["stats"]["usageStats"]["dedicatedCoreTime"], "PT0S");
}
