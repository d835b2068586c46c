//! `piecework queue`: the same on every broker, and a purge that costs no task.

use std::{process::Command, time::Duration};

use serde_json::{Value, json};

use crate::{
    rest::Rest,
    stack::{Stack, text, wait_for},
};

/// The dispatcher misses purged messages after a minute.
const MISSED: Duration = Duration::from_secs(150);

fn told(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (out, err) = text(&output);
    assert!(output.status.success(), "{out}\n{err}");
    out
}

fn json(command: &mut Command) -> Value {
    let out = told(command.arg("--json"));
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

#[test]
fn a_purged_pool_queue_costs_no_task() {
    let stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    rest.add_pool("busy", 1, 1);
    rest.add_job("job", "busy");
    let gate = stack.scratch().join("gate");
    let blocker = format!("/bin/sh -c 'while [ ! -e {} ]; do sleep 0.1; done'", gate.display());
    rest.add_task("job", json!({"id": "blocker", "commandLine": blocker}));
    let path = "/jobs/job/tasks/blocker";
    wait_for(MISSED, || (rest.get(path)["state"] == "running").then_some(())).expect("a task that runs");
    let tasks: Vec<_> = (0..3).map(|n| json!({"id": format!("t{n}"), "commandLine": "/bin/true"})).collect();
    rest.add_tasks("job", &tasks);

    let queue = "piecework.pool.busy";
    let waiting = || json(stack.command().args(["queue", "show", queue]))["messages"].as_u64().filter(|waiting| *waiting > 0);
    let waiting = wait_for(MISSED, waiting).expect("tasks that wait in the broker");
    let listed = told(stack.command().args(["queue", "list"]));
    assert!(listed.lines().any(|line| line.starts_with(queue) && line.contains("busy")), "{listed}");
    let seen = json(stack.command().args(["queue", "peek", queue, "--count", "2"]));
    assert_eq!(seen[0]["exchange"], "piecework.tasks");
    assert!(seen[0]["body"]["uid"].is_number() && seen[0]["messageId"].is_string(), "{seen}");
    assert_eq!(json(stack.command().args(["queue", "purge", queue]))["purged"], waiting);
    assert_eq!(json(stack.command().args(["queue", "show", queue]))["messages"], 0);

    let refused = stack.command().args(["queue", "purge", "piecework.events.0"]).output().unwrap();
    assert!(!refused.status.success() && text(&refused).1.contains("belongs to the dispatcher"), "{:?}", text(&refused));

    std::fs::write(&gate, "").unwrap();
    for task in ["blocker", "t0", "t1", "t2"] {
        let path = format!("/jobs/job/tasks/{task}");
        let ended = wait_for(MISSED, || Some(rest.get(&path)).filter(|task| task["state"] == "completed"));
        assert_eq!(ended.unwrap_or_else(|| panic!("{task} is lost"))["executionInfo"]["result"], "success");
    }
    stack.stop();
}
