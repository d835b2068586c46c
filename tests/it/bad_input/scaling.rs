//! Formulas, and orders to nodes.

use serde_json::{Value, json};

use super::Table;

pub(super) fn scaling(table: &mut Table) {
    let enable = "/pools/bad-pool/enableautoscale";
    for (body, code) in [
        (json!({"autoScaleFormula": 5}), "InvalidPropertyValue"),
        (json!({"autoScaleFormula": "$TargetDedicatedNodes = 1;", "autoScaleEvaluationInterval": "PT4M59S"}), "InvalidPropertyValue"),
        (json!({"autoScaleFormula": "$TargetDedicatedNodes = 1;", "autoScaleEvaluationInterval": "P8D"}), "InvalidPropertyValue"),
        (json!({"autoScaleFormula": "$TargetDedicatedNodes = 1;", "autoScaleEvaluationInterval": 300}), "InvalidPropertyValue"),
        (json!({"autoScaleEvaluationInterval": "often"}), "InvalidPropertyValue"),
    ] {
        table.post(enable, body, 400, code);
    }
    for formula in [
        "$TargetDedicatedNodes = ;",
        "$TargetDedicatedNodes = (1;",
        "= 1;",
        "$TargetDedicatedNodes = 1 +;",
        "$TargetDedicatedNodes = 'a;",
        "$TargetDedicatedNodes == ;",
        "if (1) { }",
    ] {
        table.post(enable, json!({"autoScaleFormula": formula}), 400, "AutoScalingFormulaSyntaxError");
    }
    table.post("/pools/no-pool/enableautoscale", json!({"autoScaleFormula": "$TargetDedicatedNodes = 1;"}), 404, "PoolNotFound");
    table.post("/pools/no-pool/disableautoscale", Value::Null, 404, "PoolNotFound");
    table.post("/pools/no-pool/evaluateautoscale", json!({"autoScaleFormula": "$TargetDedicatedNodes = 1;"}), 404, "PoolNotFound");
    let evaluate = "/pools/bad-pool/evaluateautoscale";
    table.post(evaluate, json!({}), 400, "MissingRequiredProperty");
    table.post(evaluate, json!({"autoScaleFormula": 1}), 400, "InvalidPropertyValue");
    table.post(evaluate, Value::Null, 400, "InvalidRequestBody");
    for (body, code) in [
        (json!({"targetDedicatedNodes": "x"}), "InvalidPropertyValue"),
        (json!({"targetLowPriorityNodes": -1}), "InvalidPropertyValue"),
        (json!({"targetDedicatedNodes": 1, "resizeTimeout": "soon"}), "InvalidPropertyValue"),
        (json!({"targetDedicatedNodes": 1, "nodeDeallocationOption": 5}), "InvalidPropertyValue"),
    ] {
        table.post("/pools/bad-pool/resize", body, 400, code);
    }
    for body in [json!({"startTask": 5}), json!({"metadata": "x"}), json!({"applicationPackageReferences": {}})] {
        table.send("PATCH", "/pools/bad-pool", &body, 400, "InvalidPropertyValue");
    }
    table.send("PATCH", "/pools/no-pool", &json!({"metadata": []}), 404, "PoolNotFound");
    table.send("PATCH", "/pools/bad-pool", &Value::Null, 400, "InvalidRequestBody");
}

pub(super) fn nodes(table: &mut Table) {
    let node = "/pools/bad-pool/nodes/no-node";
    for order in ["reboot", "reimage", "start", "deallocate", "disablescheduling", "enablescheduling"] {
        table.post(&format!("{node}/{order}"), Value::Null, 404, "NodeNotFound");
    }
    for (order, body) in [
        ("reboot", json!({"nodeRebootOption": "softly"})),
        ("reimage", json!({"nodeReimageOption": 5})),
        ("disablescheduling", json!({"nodeDisableSchedulingOption": "later"})),
        ("deallocate", json!({"nodeDeallocateOption": {}})),
    ] {
        table.post(&format!("{node}/{order}"), body, 400, "InvalidPropertyValue");
    }
    table.get(&format!("{node}/remoteloginsettings"), 404, "NodeNotFound");
    table.get(&format!("{node}/extensions"), 404, "NodeNotFound");
    table.get(&format!("{node}/extensions?$select=colour"), 400, "InvalidQueryParameterValue");
    table.get("/pools/bad-pool/nodes?$filter=state%20eq%20'happy'", 400, "InvalidQueryParameterValue");
    table.get("/pools/bad-pool/nodes?$filter=ipAddress%20eq%205", 400, "InvalidQueryParameterValue");
    table.post(&format!("{node}/uploadbatchservicelogs"), json!({}), 400, "MissingRequiredProperty");
    table.post(&format!("{node}/users"), json!({}), 400, "MissingRequiredProperty");
    table.post("/pools/bad-pool/removenodes", json!({"nodeList": "n"}), 400, "InvalidPropertyValue");
    table.post("/pools/bad-pool/removenodes", json!({"nodeList": ["n"], "resizeTimeout": "PT1S"}), 400, "InvalidPropertyValue");
    table.post("/pools/no-pool/removenodes", json!({"nodeList": ["n"]}), 404, "PoolNotFound");
}
