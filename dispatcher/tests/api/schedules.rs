//! Job schedules: the times of their jobs, the changes that each state allows, and deletion with their jobs.

use std::time::{Duration, Instant};

use contract::time::Timestamp;
use serde_json::{Value, json};

use crate::test_dispatcher::TestDispatcher;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn schedule(id: &str, when: Value) -> Value {
    json!({"id": id, "schedule": when, "jobSpecification": {"priority": 4, "poolInfo": {"poolId": "Pool"}}, "metadata": [{"name": "a", "value": "b"}]})
}

pub fn code(dispatcher: &TestDispatcher, method: &str, target: &str, body: Value, status: u16) -> String {
    dispatcher.send(method, target, body, status).json()["code"].as_str().unwrap().to_owned()
}

fn hourly() -> Value {
    json!({"recurrenceInterval": "PT1H"})
}

#[test]
fn a_schedule_makes_its_first_job_at_once_and_the_next_one_when_it_is_due() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    dispatcher.send("POST", "/jobschedules", schedule("S", hourly()), 201);
    let shown = dispatcher.get("/jobschedules/s");
    assert_eq!((&shown["id"], &shown["state"], &shown["metadata"]), (&json!("S"), &json!("active"), &json!([{"name": "a", "value": "b"}])));
    assert_eq!(shown["jobSpecification"]["poolInfo"], json!({"poolId": "Pool"}));
    assert_eq!((&shown["jobSpecification"]["priority"], &shown["schedule"]["recurrenceInterval"]), (&json!(4), &json!("PT1H")));
    assert_eq!(shown["executionInfo"]["recentJob"]["id"], "S:job-1");
    assert!(shown["executionInfo"]["recentJob"]["url"].as_str().unwrap().ends_with("/jobs/S%3Ajob-1"));
    let at = |time: &Value| Timestamp::parse(time.as_str().unwrap()).unwrap();
    assert_eq!(at(&shown["executionInfo"]["nextRunTime"]).since(at(&shown["creationTime"])), 3_600_000);
    let jobs = dispatcher.get("/jobschedules/S/jobs?$select=id,priority&$filter=state%20eq%20%27active%27");
    assert_eq!(jobs["value"], json!([{"id": "S:job-1", "priority": 4}]));
    assert_eq!(dispatcher.get("/jobs/S%3Ajob-1")["state"], "active");
    dispatcher.send("POST", "/jobs/S%3Ajob-1/tasks", json!({"id": "t", "commandLine": "x"}), 201);
}

#[test]
fn a_schedule_with_a_single_job_is_completed_with_it_and_refuses_changes() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    dispatcher.send("POST", "/jobschedules", schedule("One", json!({})), 201);
    dispatcher.send("POST", "/jobs/One%3Ajob-1/terminate", Value::Null, 202);
    let ended = eventually("the schedule to be completed", || {
        Some(dispatcher.get("/jobschedules/One")).filter(|shown| shown["state"] == "completed")
    });
    assert_eq!(ended["previousState"], "active");
    assert!(ended["executionInfo"]["endTime"].is_string() && ended["executionInfo"].get("nextRunTime").is_none());
    for (method, target, body) in [
        ("POST", "/jobschedules/One/disable", Value::Null),
        ("POST", "/jobschedules/One/enable", Value::Null),
        ("POST", "/jobschedules/One/terminate", Value::Null),
        ("PATCH", "/jobschedules/One", json!({"metadata": []})),
    ] {
        assert_eq!(code(&dispatcher, method, target, body, 409), "JobScheduleCompleted", "{method} {target}");
    }
}

#[test]
fn a_disabled_schedule_makes_no_job_until_it_is_enabled() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    dispatcher.send("POST", "/jobschedules", schedule("Later", json!({"doNotRunUntil": "2099-01-01T00:00:00Z"})), 201);
    dispatcher.send("POST", "/jobschedules/Later/disable", Value::Null, 204);
    assert_eq!(dispatcher.get("/jobschedules/Later")["state"], "disabled");
    dispatcher.send("PATCH", "/jobschedules/Later", json!({"schedule": {}}), 200);
    assert_eq!(dispatcher.get("/jobschedules/Later/jobs")["value"], json!([]));
    dispatcher.send("POST", "/jobschedules/Later/enable", Value::Null, 204);
    assert_eq!(dispatcher.get("/jobschedules/Later/jobs?$select=id")["value"], json!([{"id": "Later:job-1"}]));
}

#[test]
fn changes_are_for_later_jobs_and_a_put_replaces_everything() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    dispatcher.send("POST", "/jobschedules", schedule("S", hourly()), 201);
    let tag = dispatcher.get("/jobschedules/S")["eTag"].as_str().unwrap().to_owned();
    dispatcher.send("PATCH", "/jobschedules/S", json!({"jobSpecification": {"priority": 9, "poolInfo": {"poolId": "Pool"}}}), 200);
    assert_eq!(dispatcher.ask("PATCH", "/jobschedules/S", &[("if-match", &tag)], &json!({"metadata": []})).status, 412);
    assert_eq!(dispatcher.get("/jobs/S%3Ajob-1")["priority"], 4);
    let shown = dispatcher.get("/jobschedules/S");
    assert_eq!((&shown["jobSpecification"]["priority"], shown["metadata"].as_array().unwrap().len()), (&json!(9), 1));
    assert_eq!(code(&dispatcher, "PUT", "/jobschedules/S", json!({"schedule": {}}), 400), "MissingRequiredProperty");
    let whole = json!({"schedule": {"recurrenceInterval": "PT2H"}, "jobSpecification": {"poolInfo": {"poolId": "Pool"}}});
    dispatcher.send("PUT", "/jobschedules/S", whole, 200);
    let shown = dispatcher.get("/jobschedules/S");
    assert_eq!((&shown["schedule"]["recurrenceInterval"], &shown["jobSpecification"]["priority"]), (&json!("PT2H"), &json!(0)));
    assert!(shown.get("metadata").is_none());
    let found = dispatcher.ask("HEAD", "/jobschedules/S", &[], &Value::Null);
    assert_eq!((found.status, found.header("dataserviceid")), (200, shown["url"].as_str()));
    let later = json!({"schedule": {"recurrenceInterval": "PT2H", "doNotRunUntil": "2099-01-01T00:00:00"}});
    dispatcher.send("PATCH", "/jobschedules/S", later, 200);
    let shown = dispatcher.get("/jobschedules/S");
    assert_eq!(shown["schedule"]["doNotRunUntil"], "2099-01-01T00:00:00.000Z", "a time without an offset is one of UTC");
    assert_eq!(shown["executionInfo"]["nextRunTime"], "2099-01-01T00:00:00.000Z", "no job is made before a start that was set later");
    assert_eq!(dispatcher.ask("HEAD", "/jobschedules/T", &[], &Value::Null).status, 404);
}

#[test]
fn a_terminated_schedule_ends_its_job_and_a_deleted_one_takes_all_its_jobs_along() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    dispatcher.send("POST", "/jobschedules", schedule("S", hourly()), 201);
    dispatcher.send("POST", "/jobschedules/S/terminate", Value::Null, 202);
    let state = dispatcher.get("/jobschedules/S")["state"].clone();
    assert!(state == "terminating" || state == "completed", "{state}");
    eventually("the schedule to be completed", || Some(()).filter(|()| dispatcher.get("/jobschedules/S")["state"] == "completed"));
    let job = dispatcher.get("/jobs/S%3Ajob-1");
    assert_eq!((&job["state"], &job["executionInfo"]["terminateReason"]), (&json!("completed"), &json!("TerminateJobSchedule")));
    dispatcher.send("DELETE", "/jobschedules/S", Value::Null, 202);
    eventually("the schedule to go", || Some(()).filter(|()| dispatcher.ask("GET", "/jobschedules/S", &[], &Value::Null).status == 404));
    assert_eq!(code(&dispatcher, "GET", "/jobs/S%3Ajob-1", Value::Null, 404), "JobNotFound");
    assert_eq!(code(&dispatcher, "GET", "/jobschedules/S", Value::Null, 404), "JobScheduleNotFound");
}

#[test]
fn names_are_not_shared_and_wrong_schedules_are_refused() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    dispatcher.send("POST", "/jobschedules", schedule("S", hourly()), 201);
    assert_eq!(code(&dispatcher, "POST", "/jobschedules", schedule("s", hourly()), 409), "JobScheduleExists");
    assert_eq!(code(&dispatcher, "POST", "/jobschedules", schedule("JOB", hourly()), 409), "JobWithSameIdExists");
    assert_eq!(code(&dispatcher, "POST", "/jobs", json!({"id": "S", "poolInfo": {"poolId": "Pool"}}), 409), "JobScheduleWithSameIdExists");
    assert_eq!(code(&dispatcher, "POST", "/jobschedules", schedule("a:b", hourly()), 400), "InvalidPropertyValue");
    assert_eq!(code(&dispatcher, "POST", "/jobschedules", schedule("T", json!({"startWindow": "PT1S"})), 400), "InvalidPropertyValue");
    assert_eq!(code(&dispatcher, "POST", "/jobschedules", json!({"id": "T", "schedule": {}}), 400), "MissingRequiredProperty");
    let elsewhere = json!({"id": "T", "schedule": {}, "jobSpecification": {"poolInfo": {"poolId": "nowhere"}}});
    dispatcher.send("POST", "/jobschedules", elsewhere.clone(), 201);
    let mut managed = elsewhere;
    managed["id"] = json!("U");
    managed["jobSpecification"]["jobManagerTask"] = json!({"id": "m", "commandLine": "x"});
    assert_eq!(code(&dispatcher, "POST", "/jobschedules", managed.clone(), 404), "PoolNotFound");
    managed["jobSpecification"]["jobManagerTask"]["runExclusive"] = json!(false);
    dispatcher.send("POST", "/jobschedules", managed, 201);
    let listed = dispatcher.get("/jobschedules?$select=id&$filter=startswith(id,%27s%27)");
    assert_eq!(listed["value"], json!([{"id": "S"}]));
}
