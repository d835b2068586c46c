//! Kills of the whole stack, of an agent, and of the parent process.

use std::{collections::HashMap, fs, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;

use crate::{
    rest::Rest,
    stack::{Stack, processes_naming, wait_for},
};

/// A number from the environment, for longer runs by hand.
fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Every task writes a witness line when it runs; every record is read at the end.
#[test]
fn killing_the_stack_again_and_again_loses_no_task_and_ends_each_once() {
    let (tasks_count, kills) = (setting("PIECEWORK_TASKS", 300), setting("PIECEWORK_KILLS", 3));
    let seed: u64 = std::env::var("PIECEWORK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    eprintln!("PIECEWORK_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut stack = Stack::start();
    let witness = stack.scratch().join("witness");
    let rest = Rest::new(&stack.ready);
    rest.add_pool("kill", 2, 4);
    rest.add_job("job", "kill");
    let command = format!("/bin/sh -c 'echo $AZ_BATCH_TASK_ID >> {}'", witness.display());
    let tasks: Vec<_> = (0..tasks_count).map(|number| json!({"id": format!("t{number}"), "commandLine": command})).collect();
    rest.add_tasks("job", &tasks);

    let mut completed_before: HashMap<String, serde_json::Value> = HashMap::new();
    for _ in 0..kills {
        let rest = Rest::new(&stack.ready);
        let goal = random.random_range(1..tasks_count / kills);
        let start = completed_before.len();
        wait_for(Duration::from_secs(60), || {
            let counts = rest.get("/jobs/job/taskcounts");
            (counts["taskCounts"]["completed"].as_u64().unwrap() as usize >= (start + goal).min(tasks_count)).then_some(())
        })
        .expect("progress");
        for task in rest.tasks("job") {
            if task["state"] == "completed" {
                completed_before.insert(task["id"].as_str().unwrap().to_owned(), task);
            }
        }
        stack.kill_and_restart();
    }
    let rest = Rest::new(&stack.ready);
    let counts = rest.all_finished("job");
    assert_eq!(counts["taskCounts"], json!({"active": 0, "running": 0, "completed": tasks_count, "succeeded": tasks_count, "failed": 0}));
    let tasks = rest.tasks("job");
    assert_eq!(tasks.len(), tasks_count);
    for task in &tasks {
        assert_eq!(task["executionInfo"]["result"], "success", "{task}");
        if let Some(before) = completed_before.get(task["id"].as_str().unwrap()) {
            assert_eq!(before, &strip_urls(task, before), "a terminal record changed");
        }
    }
    let mut runs: HashMap<String, u32> = HashMap::new();
    for line in fs::read_to_string(&witness).unwrap().lines() {
        *runs.entry(line.to_owned()).or_default() += 1;
    }
    assert_eq!(runs.len(), tasks_count, "a task completed without having run");
    let data = stack.data();
    stack.stop();
    assert_eq!(processes_naming(&data), Vec::<String>::new());
}

/// The stack listens on a new port after each start, so URLs differ and nothing else may.
fn strip_urls(task: &serde_json::Value, before: &serde_json::Value) -> serde_json::Value {
    let mut task = task.clone();
    task["url"] = before["url"].clone();
    for name in ["nodeUrl", "taskRootDirectoryUrl"] {
        if before["nodeInfo"].get(name).is_some() {
            task["nodeInfo"][name] = before["nodeInfo"][name].clone();
        }
    }
    for name in ["odata.metadata"] {
        if before.get(name).is_some() {
            task[name] = before[name].clone();
        }
    }
    task
}

#[test]
fn a_killed_parent_leaves_no_process_behind() {
    let mut stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    rest.add_pool("orphans", 1, 2);
    rest.add_job("job", "orphans");
    let marker = stack.scratch().join("daemon-marker");
    // A task that starts a daemon in a session of its own, with the marker in its command line.
    let command = format!("/bin/sh -c 'setsid sh -c \"while true; do sleep 1; done\" {} & echo started; sleep 600'", marker.display());
    rest.add_task("job", json!({"id": "daemon", "commandLine": command}));
    wait_for(Duration::from_secs(60), || (processes_naming(&marker).len() >= 2).then_some(())).expect("the daemon");
    stack.kill();
    let data = stack.data();
    let left =
        wait_for(Duration::from_secs(20), || (processes_naming(&marker).is_empty() && processes_naming(&data).is_empty()).then_some(()));
    assert!(left.is_some(), "left over: {:?} {:?}", processes_naming(&marker), processes_naming(&data));
}

#[test]
fn a_killed_agent_is_started_again_and_its_tasks_run_again_without_spending_retries() {
    let stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    rest.add_pool("agents", 1, 1);
    rest.add_job("job", "agents");
    let witness = stack.scratch().join("runs");
    let gate = stack.scratch().join("gate");
    let command = format!("/bin/sh -c 'echo run >> {}; while [ ! -e {} ]; do sleep 0.1; done'", witness.display(), gate.display());
    rest.add_task("job", json!({"id": "t", "commandLine": command}));
    let runs = || fs::read_to_string(&witness).unwrap_or_default().lines().count();
    wait_for(Duration::from_secs(60), || (runs() == 1).then_some(())).expect("the first run");
    let agent = processes_naming(&stack.data()).into_iter().find(|line| line.contains(" agent ")).expect("an agent");
    let pid: i32 = agent.split(':').next().unwrap().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
    wait_for(Duration::from_secs(30), || (runs() == 2).then_some(())).expect("the second run, long before the lease of a minute");
    fs::write(&gate, "").unwrap();
    let task = rest.finished("job", "t");
    assert_eq!(task["executionInfo"]["result"], "success");
    assert_eq!(task["executionInfo"]["retryCount"], 0);
    stack.stop();
}
