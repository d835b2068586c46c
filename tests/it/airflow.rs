//! Airflow's AzureBatchOperator, unmodified, drives a whole stack; in the clear, and behind TLS with a private authority.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::{
    access::certify,
    clients::python,
    stack::{Stack, skip, text},
};

/// A Python with the provider, or a loud word that there is none.
fn airflow(test: &str) -> Option<Command> {
    // The provider is looked for, not imported: Airflow takes seconds to load, and makes a folder in the home while it does.
    let needs = "import importlib.metadata; importlib.metadata.version('apache-airflow-providers-microsoft-azure')";
    let found = python("PIECEWORK_TEST_AIRFLOW_PYTHON", needs);
    if found.is_none() {
        skip(test, "needs a Python with apache-airflow-providers-microsoft-azure (set PIECEWORK_TEST_AIRFLOW_PYTHON)");
    }
    found.map(Command::new)
}

/// Plays scenes, or all of them; what each saw.
fn play(stack: &Stack, mut command: Command, scenes: &[&str]) -> Value {
    let ready = &stack.ready;
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/airflow_operator.py"));
    command.args([&ready.url, &ready.account, &ready.key]).arg(stack.scratch()).arg(&ready.s3.bucket).args(scenes);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let (out, err) = text(&output);
    assert!(output.status.success(), "{out}\n{err}");
    serde_json::from_str(out.lines().last().unwrap_or_default()).unwrap_or_else(|error| panic!("{error}: {out}"))
}

#[test]
fn the_airflow_operator_works_unmodified() {
    let Some(command) = airflow("the_airflow_operator_works_unmodified") else { return };
    let stack = Stack::start();
    let seen = play(&stack, command, &[]);
    let expected = json!({
        "fresh": ["42\n", "Job fail. The failed task are"],
        "brief": [true, true],
        "killed": ["completed", "completed", "failure", "TaskEnded", "Job fail. The failed task are"],
        "deferred": ["success", "error", ["task"], "timeout"],
        "formula": ["piecework.node.linux", "managed\n", "hello\n"],
        "connection": [true, false, true],
    });
    assert_eq!(seen, expected);
    stack.stop();
}

#[test]
fn the_airflow_operator_works_behind_tls_with_an_authority_of_its_own() {
    let Some(mut command) = airflow("the_airflow_operator_works_behind_tls_with_an_authority_of_its_own") else { return };
    let folder = tempfile::tempdir().unwrap();
    let files = certify(folder.path());
    let stack = Stack::start_with(&["--tls-cert", files.cert.to_str().unwrap(), "--tls-key", files.key.to_str().unwrap()]);
    command.env("REQUESTS_CA_BUNDLE", &files.authority);
    let seen = play(&stack, command, &["connection", "brief"]);
    assert_eq!(seen, json!({"connection": [true, false, true], "brief": [true, true]}));
    stack.stop();
}
