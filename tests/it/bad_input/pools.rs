//! Pools, and our own operations on them.

use serde_json::{Value, json};

use super::{Table, pool};

pub(super) fn pools(table: &mut Table) {
    use Value::Null;
    let machine = |value: Value| ("virtualMachineConfiguration", value);
    for (change, code) in [
        (("id", Null), "MissingRequiredProperty"),
        (("id", json!("")), "InvalidPropertyValue"),
        (("id", json!("a b")), "InvalidPropertyValue"),
        (("id", json!("../etc")), "InvalidPropertyValue"),
        (("id", json!("ünder")), "InvalidPropertyValue"),
        (("id", json!("x".repeat(65))), "InvalidPropertyValue"),
        (("id", json!(5)), "InvalidPropertyValue"),
        (("displayName", json!("x".repeat(1025))), "InvalidPropertyValue"),
        (("vmSize", Null), "MissingRequiredProperty"),
        (("vmSize", json!("")), "InvalidPropertyValue"),
        (machine(Null), "MissingRequiredProperty"),
        (machine(json!("x")), "InvalidPropertyValue"),
        (machine(json!({"nodeAgentSKUId": "a"})), "MissingRequiredProperty"),
        (machine(json!({"imageReference": {"publisher": "p"}, "nodeAgentSKUId": "a"})), "MissingRequiredProperty"),
        (machine(json!({"imageReference": {"publisher": "p", "offer": "o", "sku": "s"}})), "MissingRequiredProperty"),
        (
            machine(
                json!({"imageReference": {"publisher": "p", "offer": "o", "sku": "s"}, "nodeAgentSKUId": "a", "containerConfiguration": {"type": "dockerCompatible"}}),
            ),
            "UnsupportedProperty",
        ),
        (("cloudServiceConfiguration", json!({"osFamily": "5"})), "InvalidPropertyValue"),
        (("targetDedicatedNodes", json!(-1)), "InvalidPropertyValue"),
        (("targetDedicatedNodes", json!(1.5)), "InvalidPropertyValue"),
        (("targetDedicatedNodes", json!("many")), "InvalidPropertyValue"),
        (("targetDedicatedNodes", json!(1_000_000_000)), "InvalidPropertyValue"),
        (("enableAutoScale", json!(true)), "InvalidPropertyValue"),
        (("enableAutoScale", json!("perhaps")), "InvalidPropertyValue"),
        (("autoScaleFormula", json!("$TargetDedicatedNodes = 1;")), "InvalidAutoScalingSettings"),
        (("resizeTimeout", json!("PT4M59S")), "InvalidPropertyValue"),
        (("resizeTimeout", json!("15 minutes")), "InvalidPropertyValue"),
        (("resizeTimeout", json!(900)), "InvalidPropertyValue"),
        (("taskSlotsPerNode", json!(0)), "InvalidPropertyValue"),
        (("taskSlotsPerNode", json!(257)), "InvalidPropertyValue"),
        (("taskSchedulingPolicy", json!({})), "MissingRequiredProperty"),
        (("taskSchedulingPolicy", json!({"nodeFillType": "even"})), "InvalidPropertyValue"),
        (("startTask", json!({})), "MissingRequiredProperty"),
        (("startTask", json!({"commandLine": "x", "maxTaskRetryCount": -2})), "InvalidPropertyValue"),
        (("startTask", json!({"commandLine": "x".repeat(33_000)})), "InvalidPropertyValue"),
        (("metadata", json!([{"name": "", "value": "v"}])), "EmptyMetadataKey"),
        (("metadata", json!([{"name": "a"}])), "MissingRequiredProperty"),
        (("metadata", json!({"a": "b"})), "InvalidPropertyValue"),
        (("metadata", json!([{"name": "a", "value": "x".repeat(65_536)}])), "MetadataTooLarge"),
        (("mountConfiguration", json!([{"nfsMountConfiguration": {"source": "s", "relativeMountPath": "p"}}])), "UnsupportedProperty"),
        (("userAccounts", json!([{"name": "u", "password": "p"}])), "UnsupportedProperty"),
        (("networkConfiguration", json!({"subnetId": "s"})), "UnsupportedProperty"),
    ] {
        table.post("/pools", pool(&[change]), 400, code);
    }
    let scaled =
        [("targetDedicatedNodes", Null), ("enableAutoScale", json!(true)), ("autoScaleFormula", json!("$TargetDedicatedNodes = ;"))];
    table.post("/pools", pool(&scaled), 400, "AutoScalingFormulaSyntaxError");
    table.post("/pools", pool(&[("id", json!("BAD-pool"))]), 409, "PoolExists");
    for (body, code) in [
        (json!({}), "MissingRequiredProperty"),
        (json!({"targetDedicatedNodes": -1}), "InvalidPropertyValue"),
        (json!({"targetDedicatedNodes": 1, "resizeTimeout": "PT1S"}), "InvalidPropertyValue"),
        (json!({"targetDedicatedNodes": 1, "nodeDeallocationOption": "explode"}), "InvalidPropertyValue"),
    ] {
        table.post("/pools/bad-pool/resize", body, 400, code);
    }
    table.post("/pools/bad-pool/removenodes", json!({}), 400, "MissingRequiredProperty");
    table.post("/pools/bad-pool/removenodes", json!({"nodeList": []}), 400, "InvalidPropertyValue");
    table.post("/pools/bad-pool/removenodes", json!({"nodeList": ["a b"]}), 400, "InvalidPropertyValue");
    table.post("/pools/bad-pool/removenodes", json!({"nodeList": vec!["n"; 101]}), 400, "InvalidPropertyValue");
    table.post("/pools/no-pool/resize", json!({"targetDedicatedNodes": 1}), 404, "PoolNotFound");
    table.get("/pools/no-pool", 404, "PoolNotFound");
    table.get("/pools/no-pool/nodes", 404, "PoolNotFound");
    table.get("/pools/bad-pool/nodes/no-node", 404, "NodeNotFound");
    table.send("DELETE", "/pools/no-pool", &Null, 404, "PoolNotFound");
    table.post("/pools/bad-pool/stopresize", Null, 409, "OperationInvalidForCurrentState");
}

pub(super) fn ours(table: &mut Table) {
    let policy = "/piecework/pools/bad-pool/policy";
    for (body, code) in [
        (json!({}), "MissingRequiredProperty"),
        (json!({"maxNodes": -1}), "InvalidPropertyValue"),
        (json!({"minNodes": 3, "maxNodes": 2}), "InvalidPropertyValue"),
        (json!({"maxNodes": 2, "idleMs": -5}), "InvalidPropertyValue"),
        (json!({"maxNodes": 2, "deallocation": "kindly"}), "InvalidPropertyValue"),
        (Value::Null, "InvalidRequestBody"),
    ] {
        table.send("PUT", policy, &body, 400, code);
    }
    table.send("PUT", "/piecework/pools/no-pool/policy", &json!({"maxNodes": 1}), 404, "PoolNotFound");
    table.get(policy, 404, "ResourceNotFound");
    table.get("/piecework/pools/no-pool", 404, "PoolNotFound");
}
