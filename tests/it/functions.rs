//! Functions end to end: a folder on this machine, `piecework function deploy`, and answers over HTTP and AMQP.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use futures::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer,
    options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
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

/// Runs a command that must fail; returns both its streams.
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

/// Publishes an event with headers of 60 KB, whose answers go to a queue of this name.
async fn publish(channel: &Channel, reply_to: &str) {
    let mut headers = FieldTable::default();
    headers.insert("large".into(), AMQPValue::LongString("x".repeat(60_000).into()));
    let properties = BasicProperties::default()
        .with_type("Say".into())
        .with_message_id("one".into())
        .with_reply_to(reply_to.into())
        .with_headers(headers);
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let confirm = channel.basic_publish("piecework.invoke".into(), "work".into(), options, b"[1]", properties);
    assert!(confirm.await.unwrap().await.unwrap().is_ack());
}

/// The status and the body of the next answer.
async fn answered(answers: &mut Consumer) -> (String, String) {
    let delivery = tokio::time::timeout(PATIENCE, answers.next()).await.expect("an answer in time").unwrap().unwrap();
    match delivery.properties.headers().as_ref().and_then(|headers| headers.inner().get("piecework-status")) {
        Some(AMQPValue::LongString(status)) => (status.to_string(), String::from_utf8(delivery.data).unwrap()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_invocation_with_large_headers_that_failed_is_replayed_once_its_function_is_mended() {
    let stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    rest.add_pool("work", 1, 1);
    let deploy = |command: &str| {
        let mut deploy = function(&stack, &["deploy"]);
        told(deploy.args(["--name", "Say", "--runtime", "exec", "--command", command, "--retries", "0"]));
    };
    deploy("false");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (_connection, channel, mut answers) = runtime.block_on(async {
        let connection = Connection::connect(&stack.ready.broker, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        channel.queue_declare("mine".into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let answers = channel.basic_consume("mine".into(), "".into(), options, FieldTable::default()).await.unwrap();
        (connection, channel, answers)
    });
    runtime.block_on(publish(&channel, "mine"));
    assert_eq!(runtime.block_on(answered(&mut answers)).0, "error");
    let dead = |words: &[&str]| -> Value { serde_json::from_str(&told(stack.command().arg("dead").args(words).arg("--json"))).unwrap() };
    let listed = dead(&["list", "--pool", "work", "--function", "say"]);
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["reason"]), (1, &json!("FunctionCrashed")), "{listed}");
    let shown = dead(&["show", listed[0]["id"].as_str().unwrap()]);
    assert_eq!((&shown["messageId"], &shown["body"], &shown["failedAttempts"]), (&json!("one"), &json!([1]), &json!(1)));
    assert_eq!(shown["headers"]["large"].as_str().unwrap().len(), 60_000);

    deploy("cat");
    until("the new version answers", || {
        let output = function(&stack, &["invoke", "say", "--data", "2"]).output().unwrap();
        output.status.success()
    });
    assert_eq!(dead(&["replay", "--function", "say", "--newer-than", "PT0S"])["replayed"], 0);
    assert!(dead(&["replay", "--function", "say"])["replayed"].as_u64().unwrap() >= 1);
    assert_eq!(runtime.block_on(answered(&mut answers)), ("ok".to_owned(), "[1]".to_owned()));
    assert_eq!(dead(&["list"]), json!([]));
    failed(stack.command().args(["dead", "discard"]));
    assert_eq!(dead(&["discard", "--all"])["discarded"], 0);
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
