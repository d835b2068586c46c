//! Jobs.

use serde_json::{Value, json};

use super::{Table, job, pool, with};

/// A pool that comes with its job, with some properties replaced.
pub(super) fn auto(changes: &[(&str, Value)]) -> Value {
    let whole = json!({"autoPoolIdPrefix": "never", "poolLifetimeOption": "job", "pool": pool(&[("id", Value::Null)])});
    json!({"autoPoolSpecification": with(whole, changes)})
}

pub(super) fn jobs(table: &mut Table) {
    use Value::Null;
    for (change, code) in [
        (("id", Null), "MissingRequiredProperty"),
        (("id", json!("a/b")), "InvalidPropertyValue"),
        (("id", json!("schedule:job-1")), "InvalidPropertyValue"),
        (("poolInfo", Null), "MissingRequiredProperty"),
        (("poolInfo", json!({})), "MissingRequiredProperty"),
        (("poolInfo", json!("bad-pool")), "InvalidPropertyValue"),
        (("poolInfo", json!({"poolId": "a b"})), "InvalidPropertyValue"),
        (("poolInfo", json!({"poolId": "bad-pool", "autoPoolSpecification": {"poolLifetimeOption": "job"}})), "InvalidPropertyValue"),
        (("poolInfo", json!({"autoPoolSpecification": {"poolLifetimeOption": "job"}})), "MissingRequiredProperty"),
        (("poolInfo", json!({"autoPoolSpecification": "auto"})), "InvalidPropertyValue"),
        (("poolInfo", auto(&[("poolLifetimeOption", Null)])), "MissingRequiredProperty"),
        (("poolInfo", auto(&[("poolLifetimeOption", json!("for ever"))])), "InvalidPropertyValue"),
        (("poolInfo", auto(&[("poolLifetimeOption", json!("jobschedule"))])), "InvalidPropertyValue"),
        (("poolInfo", auto(&[("autoPoolIdPrefix", json!("x".repeat(21)))])), "InvalidPropertyValue"),
        (("poolInfo", auto(&[("autoPoolIdPrefix", json!("a b"))])), "InvalidPropertyValue"),
        (("poolInfo", auto(&[("autoPoolIdPrefix", json!("\u{e4}"))])), "InvalidPropertyValue"),
        (("poolInfo", auto(&[("autoPoolIdPrefix", json!([]))])), "InvalidPropertyValue"),
        (("poolInfo", auto(&[("keepAlive", json!("perhaps"))])), "InvalidPropertyValue"),
        (("poolInfo", auto(&[("pool", Null)])), "MissingRequiredProperty"),
        (("poolInfo", auto(&[("pool", json!([]))])), "InvalidPropertyValue"),
        (("poolInfo", auto(&[("pool", json!({}))])), "MissingRequiredProperty"),
        (("poolInfo", auto(&[("pool", pool(&[("vmSize", Null)]))])), "MissingRequiredProperty"),
        (("poolInfo", auto(&[("pool", pool(&[("virtualMachineConfiguration", Null)]))])), "MissingRequiredProperty"),
        (("poolInfo", auto(&[("pool", pool(&[("targetDedicatedNodes", json!(1_000_000))]))])), "InvalidPropertyValue"),
        (("poolInfo", auto(&[("pool", pool(&[("taskSlotsPerNode", json!(0))]))])), "InvalidPropertyValue"),
        (("poolInfo", auto(&[("pool", pool(&[("enableAutoScale", json!(true))]))])), "InvalidPropertyValue"),
        (("poolInfo", auto(&[("pool", pool(&[("autoScaleFormula", json!("$a = 1;"))]))])), "InvalidAutoScalingSettings"),
        (("poolInfo", auto(&[("pool", pool(&[("metadata", json!([{"name": "", "value": "v"}]))]))])), "EmptyMetadataKey"),
        (("poolInfo", auto(&[("pool", pool(&[("startTask", json!({"commandLine": ""}))]))])), "InvalidPropertyValue"),
        (("poolInfo", auto(&[("pool", pool(&[("certificateReferences", json!([{}]))]))])), "UnsupportedProperty"),
        (("priority", json!(1001)), "InvalidPropertyValue"),
        (("priority", json!(-1001)), "InvalidPropertyValue"),
        (("priority", json!("high")), "InvalidPropertyValue"),
        (("maxParallelTasks", json!(0)), "InvalidPropertyValue"),
        (("maxParallelTasks", json!(-2)), "InvalidPropertyValue"),
        (("constraints", json!({"maxTaskRetryCount": -2})), "InvalidPropertyValue"),
        (("constraints", json!({"maxWallClockTime": "forever"})), "InvalidPropertyValue"),
        (("constraints", json!({"maxWallClockTime": "PT0S"})), "InvalidPropertyValue"),
        (("constraints", json!([])), "InvalidPropertyValue"),
        (("onAllTasksComplete", json!("celebrate")), "InvalidPropertyValue"),
        (("onTaskFailure", json!("panic")), "InvalidPropertyValue"),
        (("usesTaskDependencies", json!("very")), "InvalidPropertyValue"),
        (("commonEnvironmentSettings", json!([{"value": "x"}])), "MissingRequiredProperty"),
        (("commonEnvironmentSettings", json!([{"name": "A=B", "value": "x"}])), "InvalidPropertyValue"),
        (("commonEnvironmentSettings", json!([{"name": "", "value": "x"}])), "InvalidPropertyValue"),
        (("jobManagerTask", json!({"id": "m"})), "MissingRequiredProperty"),
        (("jobManagerTask", json!({"id": "m", "commandLine": "x", "runExclusive": 2})), "InvalidPropertyValue"),
        (("jobPreparationTask", json!({"id": "p"})), "MissingRequiredProperty"),
        (("jobPreparationTask", json!("prepare")), "InvalidPropertyValue"),
        (("jobPreparationTask", json!({"commandLine": " "})), "InvalidPropertyValue"),
        (("jobPreparationTask", json!({"id": "a b", "commandLine": "x"})), "InvalidPropertyValue"),
        (("jobPreparationTask", json!({"commandLine": "x", "waitForSuccess": "perhaps"})), "InvalidPropertyValue"),
        (("jobPreparationTask", json!({"commandLine": "x", "containerSettings": {"imageName": "i"}})), "UnsupportedProperty"),
        (("jobReleaseTask", json!({"commandLine": "x"})), "InvalidPropertyValue"),
        (("networkConfiguration", json!({"subnetId": "s"})), "UnsupportedProperty"),
    ] {
        table.post("/jobs", job(&[change]), 400, code);
    }
    let preparation = ("jobPreparationTask", json!({"commandLine": "x"}));
    for release in [
        json!({"commandLine": "x", "maxWallClockTime": "PT16M"}),
        json!({"commandLine": "x", "retentionTime": "a week"}),
        json!({"id": "jobPreparation", "commandLine": "x"}),
    ] {
        table.post("/jobs", job(&[preparation.clone(), ("jobReleaseTask", release)]), 400, "InvalidPropertyValue");
    }
    let exclusive = ("jobManagerTask", json!({"id": "m", "commandLine": "x"}));
    table.post("/jobs", job(&[("poolInfo", json!({"poolId": "no-pool"})), exclusive]), 404, "PoolNotFound");
    table.post("/jobs", job(&[("id", json!("Bad-Job"))]), 409, "JobExists");
    table.send("PATCH", "/jobs/bad-job", &json!({"priority": 5000}), 400, "InvalidPropertyValue");
    table.send("PATCH", "/jobs/bad-job", &json!({"poolInfo": {"poolId": "other"}}), 409, "OperationInvalidForCurrentState");
    table.send("PATCH", "/jobs/bad-job", &json!({"poolInfo": auto(&[])}), 400, "InvalidPropertyValue");
    table.send("PUT", "/jobs/bad-job", &json!({"poolInfo": auto(&[("keepAlive", json!(1))])}), 400, "InvalidPropertyValue");
    table.post("/jobs", job(&[("id", json!("BAD-job")), ("poolInfo", auto(&[]))]), 409, "JobExists");
    table.send("PATCH", "/jobs/bad-job", &Null, 400, "InvalidRequestBody");
    table.send("PATCH", "/jobs/no-job", &json!({"priority": 1}), 404, "JobNotFound");
    table.send("PUT", "/jobs/bad-job", &json!({"priority": 1}), 400, "MissingRequiredProperty");
    table.post("/jobs/bad-job/terminate", json!({"terminateReason": 5}), 400, "InvalidPropertyValue");
    table.post("/jobs/bad-job/terminate", json!({"terminateReason": "x".repeat(2000)}), 400, "InvalidPropertyValue");
    table.post("/jobs/bad-job/terminate?force=maybe", Null, 400, "InvalidQueryParameterValue");
    table.post("/jobs/no-job/terminate", Null, 404, "JobNotFound");
    table.get("/jobs/no-job", 404, "JobNotFound");
    table.get("/jobs/no-job/tasks", 404, "JobNotFound");
    table.get("/jobs/no-job/taskcounts", 404, "JobNotFound");
    table.get("/jobs/no-job/jobpreparationandreleasetaskstatus", 404, "JobNotFound");
    table.get("/jobs/bad-job/jobpreparationandreleasetaskstatus", 409, "JobPreparationTaskNotSpecified");
    table.send("DELETE", "/jobs/no-job", &Null, 404, "JobNotFound");
}
