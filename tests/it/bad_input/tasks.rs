//! Tasks and their files.

use serde_json::{Value, json};

use super::{Table, output, resource, task, versioned};
use crate::signing::Wire;

pub(super) fn tasks(table: &mut Table) {
    use Value::Null;
    let target = "/jobs/bad-job/tasks";
    for (change, code) in [
        (("id", Null), "MissingRequiredProperty"),
        (("id", json!("a.b")), "InvalidPropertyValue"),
        (("id", json!("x".repeat(65))), "InvalidPropertyValue"),
        (("id", json!(["t"])), "InvalidPropertyValue"),
        (("commandLine", Null), "MissingRequiredProperty"),
        (("commandLine", json!("")), "InvalidPropertyValue"),
        (("commandLine", json!("   ")), "InvalidPropertyValue"),
        (("commandLine", json!("a\u{0}b")), "InvalidPropertyValue"),
        (("commandLine", json!(["/bin/true"])), "InvalidPropertyValue"),
        (("commandLine", json!("x".repeat(200_000))), "InvalidPropertyValue"),
        (("requiredSlots", json!(0)), "InvalidPropertyValue"),
        (("requiredSlots", json!(257)), "InvalidPropertyValue"),
        (("constraints", json!({"maxTaskRetryCount": "often"})), "InvalidPropertyValue"),
        (("constraints", json!({"maxWallClockTime": "-PT5M"})), "InvalidPropertyValue"),
        (("constraints", json!({"retentionTime": "P1D1Y"})), "InvalidPropertyValue"),
        (("environmentSettings", json!([5])), "InvalidPropertyValue"),
        (("environmentSettings", json!({"A": "b"})), "InvalidPropertyValue"),
        (("userIdentity", json!({"username": "root"})), "UnsupportedProperty"),
        (("userIdentity", json!({"autoUser": {"elevationLevel": "god"}})), "InvalidPropertyValue"),
        (("affinityInfo", json!({})), "MissingRequiredProperty"),
        (("containerSettings", json!({"imageName": "x"})), "UnsupportedProperty"),
        (("multiInstanceSettings", json!({"numberOfInstances": 2})), "UnsupportedProperty"),
        (("dependsOn", json!({"taskIds": ["other"]})), "TaskDependenciesNotSpecifiedOnJob"),
        (("dependsOn", json!({"taskIds": ["never-task"]})), "InvalidPropertyValue"),
        (("dependsOn", json!({"taskIds": ["a b"]})), "InvalidPropertyValue"),
        (("dependsOn", json!({"taskIdRanges": [{"start": 5, "end": 1}]})), "InvalidPropertyValue"),
        (("dependsOn", json!({"taskIdRanges": [{"start": 1}]})), "MissingRequiredProperty"),
        (("dependsOn", json!({"taskIdRanges": [{"start": 1, "end": 2147483647}]})), "TaskDependencyRangesTooLong"),
        (("dependsOn", json!({"taskIds": (0..1001).map(|n| format!("{n:064}")).collect::<Vec<_>>()})), "TaskDependencyListTooLong"),
        (("exitConditions", json!({"exitCodes": [{"code": "x", "exitOptions": {}}]})), "InvalidPropertyValue"),
        (("exitConditions", json!({"exitCodes": [{"code": 1}]})), "MissingRequiredProperty"),
        (("exitConditions", json!({"exitCodeRanges": [{"start": 9, "end": 1, "exitOptions": {}}]})), "InvalidPropertyValue"),
        (("exitConditions", json!({"default": {"dependencyAction": "wait"}})), "InvalidPropertyValue"),
        (("exitConditions", json!({"default": {"jobAction": "terminate"}})), "InvalidPropertyValue"),
    ] {
        table.post(target, task(&[change]), 400, code);
    }
    for (file, code) in [
        (json!({}), "InvalidPropertyValue"),
        (json!({"httpUrl": "http://h/x"}), "MissingRequiredProperty"),
        (json!({"httpUrl": "file:///etc/passwd", "filePath": "x"}), "InvalidPropertyValue"),
        (json!({"httpUrl": "gopher://h/x", "filePath": "x"}), "InvalidPropertyValue"),
        (json!({"httpUrl": "http://", "filePath": "x"}), "InvalidPropertyValue"),
        (json!({"httpUrl": "http://h/x", "filePath": ""}), "InvalidPropertyValue"),
        (json!({"httpUrl": "http://h/x", "filePath": "../x"}), "InvalidPropertyValue"),
        (json!({"httpUrl": "http://h/x", "filePath": "a/../../x"}), "InvalidPropertyValue"),
        (json!({"httpUrl": "http://h/x", "filePath": "..\\x"}), "InvalidPropertyValue"),
        (json!({"httpUrl": "http://h/x", "filePath": "/etc/cron.d/x"}), "InvalidPropertyValue"),
        (json!({"httpUrl": "http://h/x", "filePath": "a\nb"}), "InvalidPropertyValue"),
        (json!({"httpUrl": "http://h/x", "filePath": "x", "fileMode": "rwx"}), "InvalidPropertyValue"),
        (json!({"httpUrl": "http://h/x", "storageContainerUrl": "s3://box", "filePath": "x"}), "InvalidPropertyValue"),
        (json!({"autoStorageContainerName": "../b"}), "InvalidPropertyValue"),
        (json!({"httpUrl": "http://h/x", "filePath": "x", "identityReference": {"resourceId": "r"}}), "UnsupportedProperty"),
    ] {
        table.post(target, resource(file), 400, code);
    }
    for (change, code) in [
        (("filePattern", Null), "MissingRequiredProperty"),
        (("destination", Null), "MissingRequiredProperty"),
        (("destination", json!({"container": {}})), "MissingRequiredProperty"),
        (("destination", json!({"container": {"containerUrl": "/tmp/out"}})), "InvalidPropertyValue"),
        (("destination", json!({"container": {"containerUrl": "s3://box", "path": "../x"}})), "InvalidPropertyValue"),
        (
            ("destination", json!({"container": {"containerUrl": "s3://box", "uploadHeaders": [{"name": "host", "value": "x"}]}})),
            "InvalidPropertyValue",
        ),
        (
            ("destination", json!({"container": {"containerUrl": "s3://box", "uploadHeaders": [{"value": "text/csv"}]}})),
            "MissingRequiredProperty",
        ),
        (("uploadOptions", Null), "MissingRequiredProperty"),
        (("uploadOptions", json!({"uploadCondition": "always"})), "InvalidPropertyValue"),
    ] {
        table.post(target, output(&[change]), 400, code);
    }
    table.post(target, task(&[("id", json!("BAD-TASK"))]), 409, "TaskExists");
    table.post("/jobs/no-job/tasks", task(&[]), 404, "JobNotFound");
    let collection = "/jobs/bad-job/addtaskcollection";
    table.post(collection, json!({}), 400, "MissingRequiredProperty");
    table.post(collection, json!({"value": []}), 400, "InvalidPropertyValue");
    table.post(collection, json!({"value": {}}), 400, "InvalidPropertyValue");
    table.post(collection, json!({"value": [5]}), 400, "InvalidPropertyValue");
    table.post(
        collection,
        json!({"value": (0..101).map(|n| task(&[("id", json!(format!("never-{n}")))])).collect::<Vec<_>>()}),
        400,
        "InvalidPropertyValue",
    );
    table.post("/jobs/no-job/addtaskcollection", json!({"value": [task(&[])]}), 404, "JobNotFound");
    table.get("/jobs/bad-job/tasks/no-task", 404, "TaskNotFound");
    table.get("/jobs/bad-job/tasks/no-task/subtasksinfo", 404, "TaskNotFound");
    table.send("DELETE", "/jobs/bad-job/tasks/no-task", &Null, 404, "TaskNotFound");
    table.post("/jobs/bad-job/tasks/no-task/terminate", Null, 404, "TaskNotFound");
}

pub(super) fn files(table: &mut Table) {
    let files = "/jobs/bad-job/tasks/bad-task/files";
    for path in ["..", "..%2Fx", "wd%2F..%2F..%2Fx", "%2Fetc%2Fpasswd", "%2F", "a%00b", "wd%2F%ff"] {
        table.get(&format!("{files}/{path}"), 400, "InvalidUri");
    }
    table.get(&format!("{files}/stdout.txt"), 409, "TaskFilesUnavailable");
    table.get(&format!("{files}?$filter=name%20gt%20'a'"), 400, "InvalidQueryParameterValue");
    table.get(&format!("{files}?$filter=size%20eq%20'5'"), 400, "InvalidQueryParameterValue");
    table.get("/jobs/bad-job/tasks/no-task/files/stdout.txt", 404, "TaskNotFound");
    table.get("/jobs/no-job/tasks/bad-task/files", 404, "JobNotFound");
    table.get("/pools/bad-pool/nodes/no-node/files", 404, "NodeNotFound");
    table.get("/pools/bad-pool/nodes/no-node/files/startup%2Fstdout.txt", 404, "NodeNotFound");
    table.get("/pools/no-pool/nodes/n/files", 404, "PoolNotFound");
    table.send("DELETE", &format!("{files}/..%2Fother"), &Value::Null, 400, "InvalidUri");
    table.add("HEAD of a file outside", Wire::new("HEAD", &versioned(&format!("{files}/..%2Fx")), ""), 400, "");
    table.add("HEAD of no pool", Wire::new("HEAD", &versioned("/pools/no-pool"), ""), 404, "");
}
