//! Filters: the properties and operators of each list, from the table in Azure Batch's documentation.

use serde_json::json;

use crate::test_dispatcher::TestDispatcher;

const OPERATORS: [&str; 6] = ["eq", "ne", "gt", "ge", "lt", "le"];

/// Comparisons that a filter may make with a property.
enum Asks {
    /// Every comparison, and startswith.
    Text,
    /// Every comparison with a point in time.
    Time,
    /// Every comparison with a number.
    Number,
    /// Being the same or not.
    Same(&'static str),
}

use Asks::{Number, Same, Text, Time};

#[rustfmt::skip]
const LISTS: &[(&str, &[(&str, Asks)])] = &[
    ("/pools", &[
        ("id", Text), ("state", Same("'active'")), ("stateTransitionTime", Time), ("allocationState", Same("'steady'")),
        ("allocationStateTransitionTime", Time), ("creationTime", Time), ("lastModified", Time), ("enableAutoScale", Same("true")),
        ("enableInterNodeCommunication", Same("false")), ("vmSize", Same("'x'")),
    ]),
    ("/pools/Pool/nodes", &[
        ("state", Same("'idle'")), ("stateTransitionTime", Time), ("lastBootTime", Time), ("allocationTime", Time),
        ("startTaskInfo/state", Same("'running'")), ("startTaskInfo/result", Same("'success'")), ("startTaskInfo/exitCode", Number),
        ("startTaskInfo/startTime", Time), ("startTaskInfo/endTime", Time),
    ]),
    ("/jobs", &[
        ("id", Text), ("state", Same("'active'")), ("stateTransitionTime", Time), ("creationTime", Time), ("lastModified", Time),
        ("executionInfo/startTime", Time), ("executionInfo/endTime", Time), ("executionInfo/poolId", Text),
    ]),
    ("/jobschedules/S/jobs", &[
        ("state", Same("'active'")), ("stateTransitionTime", Time), ("creationTime", Time), ("lastModified", Time),
        ("executionInfo/startTime", Time), ("executionInfo/endTime", Time), ("executionInfo/poolId", Text),
    ]),
    ("/jobschedules", &[
        ("id", Text), ("state", Same("'active'")), ("stateTransitionTime", Time), ("creationTime", Time), ("lastModified", Time),
        ("executionInfo/endTime", Time), ("schedule/doNotRunUntil", Time), ("schedule/doNotRunAfter", Time),
    ]),
    ("/jobs/Job/tasks", &[
        ("id", Text), ("state", Same("'active'")), ("stateTransitionTime", Time), ("creationTime", Time), ("lastModifiedTime", Time),
        ("lastModified", Time), ("executionInfo/startTime", Time), ("executionInfo/endTime", Time), ("executionInfo/exitCode", Number),
        ("executionInfo/result", Same("'failure'")),
    ]),
    ("/jobs/Prepared/jobpreparationandreleasetaskstatus", &[
        ("poolId", Same("'p'")), ("nodeId", Same("'n'")),
        ("jobPreparationTaskExecutionInfo/state", Same("'running'")), ("jobPreparationTaskExecutionInfo/startTime", Time),
        ("jobPreparationTaskExecutionInfo/endTime", Time), ("jobPreparationTaskExecutionInfo/exitCode", Number),
        ("jobPreparationTaskExecutionInfo/result", Same("'success'")),
        ("jobReleaseTaskExecutionInfo/state", Same("'completed'")), ("jobReleaseTaskExecutionInfo/startTime", Time),
        ("jobReleaseTaskExecutionInfo/endTime", Time), ("jobReleaseTaskExecutionInfo/exitCode", Number),
        ("jobReleaseTaskExecutionInfo/result", Same("'failure'")),
    ]),
];

const TIMES: [&str; 4] = [
    "DateTime'2026-05-08T08:49:37Z'",
    "datetime'2026-05-08T08:49:37.123Z'",
    "DateTime'Fri, 08 May 2026 08:49:37 GMT'",
    "DateTime'2026-05-08T10:49:37%2B02:00'",
];

fn dispatcher() -> TestDispatcher {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    dispatcher.send("POST", "/jobs/Job/tasks", json!({"id": "t", "commandLine": "x"}), 201);
    let schedule = json!({"id": "S", "schedule": {}, "jobSpecification": {"poolInfo": {"poolId": "Pool"}}});
    dispatcher.send("POST", "/jobschedules", schedule, 201);
    let prepared = json!({"id": "Prepared", "poolInfo": {"poolId": "Pool"}, "jobPreparationTask": {"commandLine": "x"}});
    dispatcher.send("POST", "/jobs", prepared, 201);
    dispatcher
}

/// A list is answered, or refused with the code of a wrong filter.
fn check(dispatcher: &TestDispatcher, list: &str, filter: &str, is_good: bool) {
    let target = format!("{list}?$filter={}", filter.replace(' ', "%20"));
    let got = dispatcher.ask("GET", &target, &[], &serde_json::Value::Null);
    let text = String::from_utf8_lossy(&got.body).into_owned();
    assert_eq!(got.status, if is_good { 200 } else { 400 }, "{target}: {text}");
    assert!(is_good || text.contains("\"InvalidQueryParameterValue\""), "{target}: {text}");
}

#[test]
fn every_property_takes_its_operators_and_no_others() {
    let dispatcher = dispatcher();
    for (list, properties) in LISTS {
        for (property, asks) in *properties {
            for operator in OPERATORS {
                let is_equality = ["eq", "ne"].contains(&operator);
                match asks {
                    Text => check(&dispatcher, list, &format!("{property} {operator} 'a'"), true),
                    Time => TIMES.iter().for_each(|time| check(&dispatcher, list, &format!("{property} {operator} {time}"), true)),
                    Number => check(&dispatcher, list, &format!("{property} {operator} -5"), true),
                    Same(literal) => check(&dispatcher, list, &format!("{property} {operator} {literal}"), is_equality),
                }
            }
            check(&dispatcher, list, &format!("startswith({property},'a')"), matches!(asks, Text));
            // Of another kind, in another case, and inside something that is not there.
            let wrong = if matches!(asks, Number) { "'text'" } else { "7" };
            check(&dispatcher, list, &format!("{property} eq {wrong}"), false);
            check(&dispatcher, list, &format!("{} eq 'a'", property.to_uppercase()), false);
            check(&dispatcher, list, &format!("{property}/more eq 'a'"), false);
        }
    }
}

#[test]
fn what_is_no_part_of_the_grammar_is_refused() {
    let dispatcher = dispatcher();
    for filter in [
        "not (id eq 'a')",
        "id eq 'a' xor id eq 'b'",
        "endswith(id,'a')",
        "contains(id,'a')",
        "substringof('a',id)",
        "id in ('a')",
        "id add 1 eq 2",
        "tolower(id) eq 'a'",
        "id eq a",
        "id eq 'a",
        "id eq ''a'",
        "(id eq 'a'",
        "id eq 'a')",
        "id eq 'a' and",
        "and",
        "id",
        "id eq",
        "'a' eq id",
        "tasks/any(t: t eq 1)",
        "creationTime gt DateTime'yesterday'",
        "creationTime gt '2026-05-08T08:49:37Z'",
        "state eq 'sleeping'",
        "state eq",
        "id EQ 'a'",
        "startswith(id)",
        "startswith(id,'a','b')",
        "startswith('a',id)",
        "id eq null",
    ] {
        check(&dispatcher, "/jobs", filter, false);
    }
    for option in ["$orderby=id", "$top=1", "$skip=1", "$count=true", "$search=a", "$format=json"] {
        let got = dispatcher.send("GET", &format!("/jobs?{option}"), serde_json::Value::Null, 400);
        assert_eq!(got.json()["code"], "UnsupportedQueryParameter", "{option}");
    }
}

#[test]
fn what_is_asked_of_an_empty_list_is_checked() {
    let dispatcher = TestDispatcher::start();
    for option in
        ["$select=thumbprint,state", "$filter=state%20eq%20'Active'", "$filter=stateTransitionTime%20gt%20DateTime'2026-01-01T00:00:00Z'"]
    {
        assert_eq!(dispatcher.get(&format!("/certificates?{option}"))["value"], serde_json::json!([]), "{option}");
    }
    for option in ["$select=Thumbprint", "$filter=state%20eq%20'gone'", "$filter=thumbprint%20eq%20'ab'", "maxresults=0"] {
        dispatcher.send("GET", &format!("/certificates?{option}"), serde_json::Value::Null, 400);
    }
}
