//! Autoscaled pools: refused formulas, the effect of an evaluation, and its results in responses.

use serde_json::{Value, json};

use crate::test_dispatcher::TestDispatcher;

fn pool(id: &str, more: Value) -> Value {
    let machine = json!({"imageReference": {"publisher": "p", "offer": "o", "sku": "s"}, "nodeAgentSKUId": "a"});
    let mut body = json!({"id": id, "vmSize": "x", "virtualMachineConfiguration": machine});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn code(dispatcher: &TestDispatcher, target: &str, body: Value, status: u16) -> String {
    dispatcher.send("POST", target, body, status).json()["code"].as_str().unwrap().to_owned()
}

const FORMULA: &str = "$TargetDedicatedNodes = 2 + $PendingTasks; $NodeDeallocationOption = taskcompletion;";

#[test]
fn a_formula_is_evaluated_when_the_pool_is_added_and_shown_with_it() {
    let dispatcher = TestDispatcher::start();
    let scaled = json!({"enableAutoScale": true, "autoScaleFormula": FORMULA, "autoScaleEvaluationInterval": "PT5M"});
    dispatcher.send("POST", "/pools", pool("Scaled", scaled), 201);
    dispatcher.send("POST", "/pools", pool("Fixed", json!({"targetDedicatedNodes": 0})), 201);
    let shown = dispatcher.get("/pools/Scaled");
    assert_eq!((&shown["enableAutoScale"], &shown["autoScaleFormula"]), (&json!(true), &json!(FORMULA)));
    assert_eq!((&shown["autoScaleEvaluationInterval"], &shown["targetDedicatedNodes"]), (&json!("PT5M"), &json!(2)));
    assert_eq!(shown["allocationState"], "resizing");
    assert_eq!(
        shown["autoScaleRun"]["results"],
        "$TargetDedicatedNodes=2;$TargetLowPriorityNodes=0;$NodeDeallocationOption=taskcompletion"
    );
    assert!(shown["autoScaleRun"].get("error").is_none() && shown["autoScaleRun"]["timestamp"].is_string());
    assert!(dispatcher.get("/pools/Fixed").get("autoScaleRun").is_none());
    for (filter, expected) in [("enableAutoScale%20eq%20true", "Scaled"), ("enableAutoScale%20eq%20false", "Fixed")] {
        let found = dispatcher.get(&format!("/pools?$filter={filter}&$select=id"));
        assert_eq!(found["value"], json!([{"id": expected}]), "{filter}");
    }
    assert_eq!(code(&dispatcher, "/pools/Scaled/resize", json!({"targetDedicatedNodes": 1}), 409), "OperationInvalidForCurrentState");
    let policy = json!({"minNodes": 0, "maxNodes": 3});
    dispatcher.send("PUT", "/piecework/pools/Scaled/policy", policy, 409);
}

#[test]
fn an_evaluation_answers_and_changes_nothing() {
    let dispatcher = TestDispatcher::start();
    let scaled = json!({"enableAutoScale": true, "autoScaleFormula": FORMULA});
    dispatcher.send("POST", "/pools", pool("Pool", scaled), 201);
    dispatcher.send("POST", "/jobs", json!({"id": "Job", "poolInfo": {"poolId": "Pool"}}), 201);
    for id in ["a", "b", "c"] {
        dispatcher.send("POST", "/jobs/Job/tasks", json!({"id": id, "commandLine": "x"}), 201);
    }
    let before = dispatcher.get("/pools/Pool");
    assert_eq!(before["autoScaleEvaluationInterval"], "PT15M");
    let evaluate =
        |formula: &str| dispatcher.send("POST", "/pools/Pool/evaluateautoscale", json!({"autoScaleFormula": formula}), 200).json();
    let run = evaluate("$TargetDedicatedNodes = $PendingTasks; $x = 1;");
    assert_eq!(run["results"], "$TargetDedicatedNodes=3;$TargetLowPriorityNodes=0;$NodeDeallocationOption=requeue;$x=1");
    let run = evaluate("$TargetDedicatedNodes = avg($CPUPercent.GetSample(TimeInterval_Minute, 50));");
    let details = &run["error"]["values"][0];
    assert_eq!((&run["error"]["code"], &details["name"]), (&json!("AutoScalingFormulaEvaluationError"), &json!("Message")));
    assert_eq!(details["value"], "Line 1, Col 41: Insufficient data from data set: $CPUPercent wanted 50%, received 0%.");
    assert_eq!(dispatcher.get("/pools/Pool"), before);
    assert_eq!(
        code(&dispatcher, "/pools/Pool/evaluateautoscale", json!({"autoScaleFormula": "a = b"}), 400),
        "AutoScalingFormulaSyntaxError"
    );
    assert_eq!(code(&dispatcher, "/pools/Pool/evaluateautoscale", json!({}), 400), "MissingRequiredProperty");
}

#[test]
fn scaling_is_switched_on_and_off() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    let enable = "/pools/Pool/enableautoscale";
    assert_eq!(code(&dispatcher, "/pools/Pool/disableautoscale", Value::Null, 409), "OperationInvalidForCurrentState");
    let formula = json!({"autoScaleFormula": "$TargetDedicatedNodes = 0;"});
    assert_eq!(code(&dispatcher, "/pools/Pool/evaluateautoscale", formula.clone(), 409), "OperationInvalidForCurrentState");
    assert_eq!(code(&dispatcher, enable, Value::Null, 400), "MissingRequiredProperty");
    assert_eq!(code(&dispatcher, "/pools/none/enableautoscale", formula.clone(), 404), "PoolNotFound");
    assert_eq!(dispatcher.ask("POST", enable, &[("if-match", "0x1")], &formula).status, 412);
    let got = dispatcher.send("POST", enable, formula.clone(), 200);
    let shown = dispatcher.get("/pools/Pool");
    assert_eq!((got.header("etag"), shown["enableAutoScale"].clone()), (shown["eTag"].as_str(), json!(true)));
    assert_eq!(shown["allocationState"], "steady", "the target is what it was");
    assert_eq!(code(&dispatcher, enable, formula, 503), "TooManyEnableAutoScaleRequests");
    dispatcher.send("POST", "/pools/Pool/disableautoscale", Value::Null, 200);
    let shown = dispatcher.get("/pools/Pool");
    assert_eq!((shown["enableAutoScale"].clone(), shown.get("autoScaleFormula")), (json!(false), None));
    dispatcher.send("POST", "/pools/Pool/resize", json!({"targetDedicatedNodes": 1}), 202);
    let formula = json!({"autoScaleFormula": "$TargetDedicatedNodes = 0;"});
    assert_eq!(code(&dispatcher, enable, formula, 409), "PoolBeingResized");
}

#[test]
fn a_pool_added_with_a_formula_takes_another_at_once() {
    let dispatcher = TestDispatcher::start();
    dispatcher.send("POST", "/pools", pool("Pool", json!({"enableAutoScale": true, "autoScaleFormula": FORMULA})), 201);
    let interval = json!({"autoScaleEvaluationInterval": "PT6M"});
    dispatcher.send("POST", "/pools/Pool/enableautoscale", interval.clone(), 200);
    assert_eq!(dispatcher.get("/pools/Pool")["autoScaleEvaluationInterval"], "PT6M");
    assert_eq!(code(&dispatcher, "/pools/Pool/enableautoscale", interval, 503), "TooManyEnableAutoScaleRequests");
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let dispatcher = TestDispatcher::start();
    let formula = "$TargetDedicatedNodes = 1;";
    for (more, wanted) in [
        (json!({"enableAutoScale": true}), "InvalidAutoScalingSettings"),
        (json!({"autoScaleFormula": formula, "targetDedicatedNodes": 1}), "InvalidAutoScalingSettings"),
        (json!({"autoScaleEvaluationInterval": "PT5M", "targetDedicatedNodes": 1}), "InvalidAutoScalingSettings"),
        (json!({"enableAutoScale": true, "autoScaleFormula": formula, "targetDedicatedNodes": 1}), "InvalidPropertyValue"),
        (json!({"enableAutoScale": true, "autoScaleFormula": formula, "autoScaleEvaluationInterval": "PT4M59S"}), "InvalidPropertyValue"),
        (json!({"enableAutoScale": true, "autoScaleFormula": formula, "autoScaleEvaluationInterval": "P7DT1S"}), "InvalidPropertyValue"),
        (json!({"enableAutoScale": true, "autoScaleFormula": "$TargetDedicatedNodes = "}), "AutoScalingFormulaSyntaxError"),
        (json!({"enableAutoScale": true, "autoScaleFormula": 5}), "InvalidPropertyValue"),
        (json!({"enableAutoScale": true, "autoScaleFormula": "/".repeat(8_193)}), "AutoScaleFormulaTooLong"),
    ] {
        assert_eq!(code(&dispatcher, "/pools", pool("p", more.clone()), 400), wanted, "{more}");
    }
}
