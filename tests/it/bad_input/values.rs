//! The same fault in every property where it can be made: ids, values of another type, durations.

use serde_json::{Value, json};

use super::{Table, job, pool, task};

/// Ids with a character that ids may not have, and ids that are too long.
pub(super) fn ids(table: &mut Table) {
    for wrong in [
        "a b",
        "a/b",
        "a\\b",
        "a.b",
        "a:b",
        "a*b",
        "a?b",
        "a#b",
        "a%b",
        "a&b",
        "a+b",
        "a,b",
        "a;b",
        "a=b",
        "a@b",
        "a~b",
        "a\tb",
        "a\nb",
        "aéb",
        "a\u{200b}b",
        "a\u{1f980}b",
        "'a'",
        "<a>",
        "a|b",
    ] {
        table.post("/jobs", job(&[("id", json!(wrong))]), 400, "InvalidPropertyValue");
        table.post("/jobs/bad-job/tasks", task(&[("id", json!(wrong))]), 400, "InvalidPropertyValue");
    }
    for (target, body) in [("/jobs", job(&[])), ("/jobs/bad-job/tasks", task(&[])), ("/pools", pool(&[]))] {
        for wrong in [json!("x".repeat(65)), json!(""), json!(7), json!(true), json!({"id": "x"})] {
            table.post(target, super::with(body.clone(), &[("id", wrong)]), 400, "InvalidPropertyValue");
        }
    }
}

/// Properties that are a single value, and those that are an object or a list.
pub(super) fn kinds(table: &mut Table) {
    let single = [json!({"a": 1}), json!(["a"])];
    let several = [json!(5), json!("text"), json!(true)];
    let mut put = |target: &str, make: fn(&[(&str, Value)]) -> Value, names: &[&str], wrong: &[Value]| {
        for name in names {
            for value in wrong {
                table.post(target, make(&[(name, value.clone())]), 400, "InvalidPropertyValue");
            }
        }
    };
    put(
        "/pools",
        pool,
        &["displayName", "vmSize", "resizeTimeout", "targetDedicatedNodes", "targetLowPriorityNodes", "taskSlotsPerNode"],
        &single,
    );
    put("/pools", pool, &["enableAutoScale", "enableInterNodeCommunication", "targetNodeCommunicationMode"], &single);
    put("/pools", pool, &["startTask", "metadata", "taskSchedulingPolicy", "applicationPackageReferences"], &several);
    let names = ["displayName", "priority", "maxParallelTasks", "allowTaskPreemption", "onAllTasksComplete", "onTaskFailure"];
    put("/jobs", job, &names, &single);
    put("/jobs", job, &["constraints", "jobManagerTask", "commonEnvironmentSettings", "metadata"], &several);
    let tasks = "/jobs/bad-job/tasks";
    put(tasks, task, &["displayName", "requiredSlots"], &single);
    let names = ["constraints", "environmentSettings", "resourceFiles", "outputFiles", "exitConditions", "dependsOn", "affinityInfo"];
    put(tasks, task, &names, &several);
    put(tasks, task, &["applicationPackageReferences", "authenticationTokenSettings", "userIdentity"], &several);
}

/// Texts that look like durations and are none.
pub(super) fn durations(table: &mut Table) {
    for wrong in
        ["", "P", "PT", "5", "5M", "PT5", "PT5X", "P5S", "PTM", "PT1H1H", "PT5M1H", "T5M", "-PT1S", "PT-1S", "1:2:3:4:5", "abc", "PT1e3S"]
    {
        let constraints = json!({"maxWallClockTime": wrong});
        table.post("/jobs/bad-job/tasks", task(&[("constraints", constraints.clone())]), 400, "InvalidPropertyValue");
        table.post("/jobs", job(&[("constraints", constraints)]), 400, "InvalidPropertyValue");
    }
}
