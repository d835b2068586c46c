//! Random requests on every route: no response is a server error, and every refusal has Azure's error body.

use std::cell::Cell;

use api::{ROUTES, Route};
use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};
use serde_json::{Map, Value, json};

use crate::{signing::Wire, test_dispatcher::TestDispatcher};

/// Requests of the property.
const REQUESTS: u32 = 1_500;

/// What stands in a path: what is there, which is empty here, things that are not, and what no id may be.
fn segment() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => Just(String::new()),
        2 => prop::sample::select(vec!["Pool", "Job", "task", "node", "app", "1.0", "piecework.dead", "S"]).prop_map(str::to_owned),
        1 => "[a-zA-Z0-9_-]{1,70}",
        1 => "(%[0-9a-fA-F]{2}){1,8}",
        1 => prop::sample::select(vec!["..", ".", "%2e%2e%2f", "a%20b", "%00", "%", "%zz", "a;b", "(x=1)"]).prop_map(str::to_owned),
    ]
}

/// A path of the route, its parameters filled in.
fn path(route: &'static Route, segments: &[String]) -> String {
    let mut segments = segments.iter().cycle();
    let mut filled = String::new();
    for part in route.path[1..].split('/') {
        filled.push('/');
        if part.starts_with('{') {
            let there = match part {
                "{pool}" => "Pool",
                "{job}" => "Job",
                "{task}" => "task",
                "{queue}" => "piecework.dead",
                _ => "none",
            };
            filled += segments.next().map(String::as_str).filter(|segment| !segment.is_empty()).unwrap_or(there);
        } else {
            filled += &part.replace("(*)", "(thumbprintAlgorithm=sha1,thumbprint=ff)");
        }
    }
    filled
}

fn query() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "api-version",
        "$filter",
        "$select",
        "$expand",
        "maxresults",
        "timeout",
        "$skiptoken",
        "recursive",
        "force",
        "starttime",
        "endtime",
        "count",
        "other",
    ]);
    let value = prop_oneof![
        "[ -~&&[^#&+%]]{0,24}".prop_map(|text| text.replace(' ', "%20")),
        "(%[0-9a-f]{2}){0,6}",
        prop::sample::select(vec![
            "id%20eq%20'x'",
            "state%20eq%20'active'",
            "startswith(id,'a')%20and%20(state%20ne%20'completed')",
            "id,state",
            "stats",
            "1",
            "0",
            "-1",
            "99999999999999999999",
            "true",
            "2024-02-01.19.0",
            "MTpKb2I",
            "2026-01-01T00:00:00Z",
        ])
        .prop_map(str::to_owned),
    ];
    let pairs = prop_oneof![2 => Just(vec![]), 1 => prop::collection::vec((name, value), 1..3)];
    pairs.prop_map(|pairs| {
        let pairs: String = pairs.into_iter().map(|(name, value)| format!("&{name}={value}")).collect();
        format!("?api-version=2024-02-01.19.0{pairs}")
    })
}

fn header() -> impl Strategy<Value = (String, String)> {
    let name = prop::sample::select(vec![
        "if-match",
        "if-none-match",
        "if-modified-since",
        "if-unmodified-since",
        "ocp-range",
        "range",
        "client-request-id",
        "return-client-request-id",
        "content-type",
        "accept",
        "expect",
        "x-other",
    ]);
    let value = prop_oneof!["[ -~]{0,30}", prop::sample::select(vec!["*", "0x1", "bytes=0-", "bytes=5-1", "true"]).prop_map(str::to_owned)];
    (name.prop_map(str::to_owned), value)
}

/// Any JSON, small.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
        prop::sample::select(vec!["PT1H", "P", "-PT5M", "2026-01-01T00:00:00Z", "s3://box/p", "http://h/x", "../x", "job", "requeue"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-zA-Z]{1,10}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Bodies that would be taken as they are; none of them makes a node.
fn good_bodies() -> Vec<Value> {
    let machine = json!({"imageReference": {"publisher": "p", "offer": "o", "sku": "s"}, "nodeAgentSKUId": "a"});
    let pool = json!({"id": "p", "vmSize": "x", "targetDedicatedNodes": 0, "virtualMachineConfiguration": machine, "resizeTimeout": "PT15M",
        "metadata": [{"name": "a", "value": "b"}], "startTask": {"commandLine": "x", "waitForSuccess": true, "maxTaskRetryCount": 1}});
    let task = json!({"id": "t", "commandLine": "x", "constraints": {"maxTaskRetryCount": 1, "maxWallClockTime": "PT1H"}, "requiredSlots": 1,
        "resourceFiles": [{"httpUrl": "http://h/x", "filePath": "x"}], "environmentSettings": [{"name": "A", "value": "b"}],
        "exitConditions": {"exitCodes": [{"code": 1, "exitOptions": {"jobAction": "none"}}]}});
    let job = json!({"id": "j", "poolInfo": {"poolId": "Pool"}, "priority": 5, "constraints": {"maxWallClockTime": "PT1H"},
        "onAllTasksComplete": "noaction", "commonEnvironmentSettings": [{"name": "A", "value": "b"}]});
    let mut auto = pool.clone();
    auto.as_object_mut().expect("an object").remove("id");
    let own = json!({"id": "own", "poolInfo": {"autoPoolSpecification": {"poolLifetimeOption": "job", "keepAlive": false, "pool": auto}}});
    let schedule = json!({"id": "s", "schedule": {"doNotRunUntil": "2100-01-01T00:00:00Z", "recurrenceInterval": "PT1H"},
        "jobSpecification": {"poolInfo": {"poolId": "Pool"}}});
    vec![
        json!({"value": [task.clone()]}),
        pool,
        task,
        job,
        own,
        schedule,
        json!({"targetDedicatedNodes": 0, "nodeDeallocationOption": "requeue"}),
        json!({"autoScaleFormula": "$TargetDedicatedNodes = 0;", "autoScaleEvaluationInterval": "PT15M"}),
        json!({"nodeList": ["n"]}),
        json!({"disableTasks": "requeue"}),
        json!({"maxNodes": 1, "idleMs": 1000}),
        json!({"displayName": "a", "allowUpdates": true}),
    ]
}

/// Puts a value somewhere into another one.
fn graft(into: &mut Value, at: &[prop::sample::Index], value: Value) {
    let Some((first, rest)) = at.split_first() else {
        *into = value;
        return;
    };
    match into {
        Value::Object(fields) if !fields.is_empty() => {
            let name = fields.keys().nth(first.index(fields.len())).expect("an index within").clone();
            graft(&mut fields[&name], rest, value);
        }
        Value::Array(items) if !items.is_empty() => {
            let index = first.index(items.len());
            graft(&mut items[index], rest, value);
        }
        other => *other = value,
    }
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let grafted = (prop::sample::select(good_bodies()), prop::collection::vec(any::<prop::sample::Index>(), 1..5), any_json()).prop_map(
        |(mut body, at, value)| {
            graft(&mut body, &at, value);
            body.to_string().into_bytes()
        },
    );
    prop_oneof![
        6 => grafted,
        2 => prop::sample::select(good_bodies()).prop_map(|body| body.to_string().into_bytes()),
        1 => any_json().prop_map(|body| body.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..64),
        1 => Just(Vec::new()),
    ]
}

#[test]
fn no_input_makes_the_server_fail_and_every_refusal_has_azures_body() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    dispatcher.send("POST", "/jobs/Job/tasks", json!({"id": "task", "commandLine": "x"}), 201);
    let mut runner = TestRunner::new(Config { cases: REQUESTS, failure_persistence: None, max_shrink_iters: 200, ..Config::default() });
    let headers = prop_oneof![2 => Just(vec![]), 1 => prop::collection::vec(header(), 1..3)];
    let requests = (0..ROUTES.len(), prop::collection::vec(segment(), 4), query(), headers, body());
    let taken = Cell::new(0);
    let outcome = runner.run(&requests, |(route, segments, query, headers, body)| {
        let route = &ROUTES[route];
        let body = if route.method == "GET" || route.method == "HEAD" { Vec::new() } else { body };
        let mut wire = Wire::new(route.method.as_str(), &format!("{}{query}", path(route, &segments)), body);
        for (name, value) in headers {
            wire = wire.with(&name, value.trim());
        }
        let got = wire.send_signed(&dispatcher.account);
        let shown = || format!("{} {}: {}", got.status, route.name, String::from_utf8_lossy(&got.body));
        if got.status < 300 {
            taken.set(taken.get() + 1);
        }
        prop_assert!((200..500).contains(&got.status), "{}", shown());
        if got.status >= 400 && route.method != "HEAD" {
            let body: Value = serde_json::from_slice(&got.body).map_err(|_| TestCaseError::fail(shown()))?;
            let message = body["message"]["value"].as_str().unwrap_or_default();
            let is_whole = body["code"].is_string() && body["message"]["lang"] == "en-US" && message.contains("\nRequestId:");
            prop_assert!(is_whole, "{}", shown());
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    assert!(taken.get() > REQUESTS / 20, "only {} requests got past the checks", taken.get());
    assert_eq!(dispatcher.get("/piecework/health")["status"], "ok");
}
