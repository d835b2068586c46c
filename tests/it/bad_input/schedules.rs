//! Job schedules.

use serde_json::{Value, json};

use super::{Table, jobs::auto, with};

fn schedule(changes: &[(&str, Value)]) -> Value {
    let specification = json!({"poolInfo": {"poolId": "bad-pool"}});
    // A time far away: no case may make a job.
    let when = json!({"doNotRunUntil": "2100-01-01T00:00:00Z", "recurrenceInterval": "PT1H"});
    with(json!({"id": "never-schedule", "schedule": when, "jobSpecification": specification}), changes)
}

pub(super) fn schedules(table: &mut Table) {
    use Value::Null;
    let specification = |value: Value| ("jobSpecification", with(json!({"poolInfo": {"poolId": "bad-pool"}}), &[("priority", value)]));
    for (change, code) in [
        (("id", Null), "MissingRequiredProperty"),
        (("id", json!("a b")), "InvalidPropertyValue"),
        (("id", json!("a:job-1")), "InvalidPropertyValue"),
        (("id", json!("x".repeat(65))), "InvalidPropertyValue"),
        (("id", json!(5)), "InvalidPropertyValue"),
        (("displayName", json!("x".repeat(1025))), "InvalidPropertyValue"),
        (("schedule", json!("hourly")), "InvalidPropertyValue"),
        (("schedule", json!({"recurrenceInterval": "PT59S"})), "InvalidPropertyValue"),
        (("schedule", json!({"recurrenceInterval": "hourly"})), "InvalidPropertyValue"),
        (("schedule", json!({"recurrenceInterval": 60})), "InvalidPropertyValue"),
        (("schedule", json!({"startWindow": "PT59S", "recurrenceInterval": "PT1H"})), "InvalidPropertyValue"),
        (("schedule", json!({"doNotRunUntil": "tomorrow"})), "InvalidPropertyValue"),
        (("schedule", json!({"doNotRunAfter": 7})), "InvalidPropertyValue"),
        (("jobSpecification", Null), "MissingRequiredProperty"),
        (("jobSpecification", json!({})), "MissingRequiredProperty"),
        (("jobSpecification", json!([])), "InvalidPropertyValue"),
        (specification(json!(1_001)), "InvalidPropertyValue"),
        (specification(json!(-1_001)), "InvalidPropertyValue"),
        (specification(json!("high")), "InvalidPropertyValue"),
        (("jobSpecification", json!({"poolInfo": {"poolId": "bad-pool"}, "onAllTasksComplete": "celebrate"})), "InvalidPropertyValue"),
        (
            ("jobSpecification", json!({"poolInfo": {"poolId": "bad-pool"}, "constraints": {"maxTaskRetryCount": -2}})),
            "InvalidPropertyValue",
        ),
        (("jobSpecification", json!({"poolInfo": {"poolId": "bad-pool"}, "jobManagerTask": {"id": "m"}})), "MissingRequiredProperty"),
        (("jobSpecification", json!({"poolInfo": auto(&[("poolLifetimeOption", Null)])})), "MissingRequiredProperty"),
        (("jobSpecification", json!({"poolInfo": auto(&[("poolLifetimeOption", json!("task"))])})), "InvalidPropertyValue"),
        (("jobSpecification", json!({"poolInfo": auto(&[("autoPoolIdPrefix", json!("x".repeat(21)))])})), "InvalidPropertyValue"),
        (("jobSpecification", json!({"poolInfo": auto(&[("pool", json!({"vmSize": 1}))])})), "MissingRequiredProperty"),
        (("metadata", json!([{"name": "", "value": "v"}])), "EmptyMetadataKey"),
        (("metadata", json!("a=b")), "InvalidPropertyValue"),
    ] {
        table.post("/jobschedules", schedule(&[change]), 400, code);
    }
    for (method, target, body) in [
        ("GET", "/jobschedules/none", Null),
        ("DELETE", "/jobschedules/none", Null),
        ("PATCH", "/jobschedules/none", json!({"metadata": []})),
        ("PUT", "/jobschedules/none", schedule(&[("id", Null)])),
        ("POST", "/jobschedules/none/disable", Null),
        ("POST", "/jobschedules/none/enable", Null),
        ("POST", "/jobschedules/none/terminate", Null),
        ("GET", "/jobschedules/none/jobs", Null),
    ] {
        table.send(method, target, &body, 404, "JobScheduleNotFound");
    }
    table.get("/jobschedules/a%20b", 400, "InvalidUri");
    table.get("/jobschedules?$filter=state%20eq%20'sleeping'", 400, "InvalidQueryParameterValue");
    table.get("/jobschedules?$select=colour", 400, "InvalidQueryParameterValue");
    table.get("/jobschedules?maxresults=0", 400, "OutOfRangeQueryParameterValue");
    table.send("DELETE", "/jobschedules/none?force=perhaps", &Null, 400, "InvalidQueryParameterValue");
}
