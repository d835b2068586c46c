//! Functions end to end: a folder on this machine, `piecework function deploy`, and answers over HTTP and AMQP.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    rest::Rest,
    stack::{Stack, text},
};

/// Fails a test that waits forever; nothing in a test takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

fn told(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (out, err) = text(&output);
    assert!(output.status.success(), "{out}\n{err}");
    out
}

/// What a command that must fail says on both streams.
fn failed(command: &mut Command) -> (String, String) {
    let output = command.output().unwrap();
    let (out, err) = text(&output);
    assert!(!output.status.success(), "{out}");
    (out, err)
}

fn function(stack: &Stack, words: &[&str]) -> Command {
    let mut command = stack.command();
    command.arg("function").args(words).args(["--pool", "work"]);
    command
}

/// A folder with a program that answers each line with a word and the line.
fn program(stack: &Stack, word: &str) -> PathBuf {
    let folder = stack.scratch().join(word);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("main.sh"), format!("while read -r event; do echo \"[\\\"{word}\\\",$event]\"; done\n")).unwrap();
    folder
}

fn deploy(stack: &Stack, word: &str) -> Command {
    let folder = program(stack, word);
    let mut command = function(stack, &["deploy"]);
    command.arg(folder).args(["--name", "Say", "--runtime", "lines", "--command", "/bin/sh main.sh", "--retries", "0"]);
    command
}

fn answer(stack: &Stack, event: &str) -> Value {
    serde_json::from_str(&told(&mut function(stack, &["invoke", "say", "--data", event]))).unwrap()
}

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Invokes until the function answers so: agents learn of a change a moment after it was made.
fn answers_in_the_end(stack: &Stack, event: &str, expected: &Value) {
    until(&format!("the answer is {expected}"), || answer(stack, event) == *expected);
}

#[test]
fn a_function_is_deployed_invoked_changed_rolled_back_and_deleted() {
    let stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    rest.add_pool("work", 1, 2);
    until("the node is idle", || rest.get("/pools/work/nodes")["value"][0]["state"] == "idle");
    let said: Value = serde_json::from_str(&told(deploy(&stack, "first").arg("--json"))).unwrap();
    assert_eq!((&said["id"], &said["version"], &said["runtime"]), (&json!("Say"), &json!(1), &json!("lines")));
    assert_eq!(answer(&stack, r#"{"a": 1}"#), json!(["first", {"a": 1}]));
    let listed = told(&mut function(&stack, &["list"]));
    assert!(listed.lines().any(|line| line.starts_with("Say") && line.contains("/bin/sh main.sh")), "{listed}");

    told(&mut deploy(&stack, "second"));
    answers_in_the_end(&stack, "2", &json!(["second", 2]));
    let shown = rest.get("/piecework/pools/work/functions/say");
    assert_eq!((&shown["version"], shown["versions"].as_array().unwrap().len()), (&json!(2), 2));
    told(&mut function(&stack, &["rollback", "say"]));
    answers_in_the_end(&stack, "3", &json!(["first", 3]));
    let (_, err) = failed(&mut function(&stack, &["rollback", "say", "--to", "9"]));
    assert!(err.contains("FunctionNotFound"), "{err}");

    let sent = told(function(&stack, &["invoke", "say", "--data", "4", "--async"]).arg("--json"));
    assert!(serde_json::from_str::<Value>(&sent).unwrap()["messageId"].is_string(), "{sent}");
    let (out, err) = failed(&mut function(&stack, &["invoke", "say", "--data", "no JSON"]));
    assert!(out.contains("FunctionEventInvalid") && err.contains("FunctionEventInvalid"), "{out}\n{err}");

    told(&mut function(&stack, &["delete", "say"]));
    let (_, err) = failed(&mut function(&stack, &["invoke", "say", "--data", "5"]));
    assert!(err.contains("FunctionNotFound"), "{err}");
    assert_eq!(rest.get("/piecework/pools/work/functions")["value"], json!([]));
    stack.stop();
}

#[test]
fn functions_that_make_no_sense_are_refused_with_what_to_do() {
    let stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    rest.add_pool("work", 0, 1);
    let path = "/piecework/pools/work/functions";
    let refused = |body: Value, status: u16, code: &str| {
        let answer = rest.send("POST", path, Some(&body));
        let text = answer.text();
        assert!(answer.status == status && text.contains(code), "{body}: {} {text}", answer.status);
    };
    refused(json!({"id": "f"}), 400, "MissingRequiredProperty");
    refused(json!({"id": "f", "runtime": "cobol"}), 400, "InvalidPropertyValue");
    refused(json!({"id": "f", "runtime": "lines"}), 400, "commandLine");
    refused(json!({"id": "f", "runtime": "lambda"}), 400, "handler");
    refused(json!({"id": "a/b", "runtime": "exec", "commandLine": "cat"}), 400, "InvalidPropertyValue");
    refused(json!({"id": "f", "runtime": "exec", "commandLine": "cat", "timeout": "P2D"}), 400, "timeout");
    refused(json!({"id": "f", "runtime": "exec", "commandLine": "cat", "package": "0".repeat(64)}), 400, "functionpackages");
    rest.post(path, &json!({"id": "f", "runtime": "exec", "commandLine": "cat", "maxRetryCount": 0}), 201);
    refused(json!({"id": "F", "runtime": "exec", "commandLine": "cat"}), 409, "FunctionExists");
    let function = rest.get(&format!("{path}/f"));
    assert_eq!((&function["timeout"], &function["idleTime"], &function["warmInstances"]), (&json!("PT30S"), &json!("PT10M"), &json!(0)));
    let missing = rest.send("GET", "/piecework/pools/none/functions", None);
    assert!(missing.status == 404 && missing.text().contains("PoolNotFound"));
    stack.stop();
}
