//! Official clients of newer generations drive a whole stack, unmodified: `az batch`, azure-batch 15.x, @azure/batch.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use serde_json::json;

use crate::stack::{Stack, skip, text};

/// Runs one script with an interpreter; its JSON.
fn run(stack: &Stack, command: &mut Command, script: &str) -> serde_json::Value {
    let script = format!("{}/tests/{script}", env!("CARGO_MANIFEST_DIR"));
    let ready = &stack.ready;
    command.args([&script, &ready.url, &ready.account, &ready.key]).arg(stack.scratch());
    let output = command.stdin(Stdio::null()).output().unwrap();
    let (out, err) = text(&output);
    assert!(output.status.success(), "{out}\n{err}");
    serde_json::from_str(out.lines().last().unwrap_or_default()).unwrap_or_else(|error| panic!("{error}: {out}"))
}

/// The interpreter that a variable names, if it can do what the test needs.
fn python(variable: &str, needs: &str) -> Option<String> {
    let python = std::env::var(variable).unwrap_or_else(|_| "python3".to_owned());
    let is_fit = Command::new(&python).args(["-c", needs]).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    is_fit.then_some(python)
}

#[test]
fn the_azure_command_line_works_unmodified() {
    let Some(python) = python("PIECEWORK_TEST_AZ_PYTHON", "import azure.cli.core") else {
        return skip("the_azure_command_line_works_unmodified", "needs a Python with azure-cli (set PIECEWORK_TEST_AZ_PYTHON)");
    };
    let stack = Stack::start();
    let seen = run(&stack, &mut Command::new(python), "python/az_batch.py");
    assert_eq!(seen["stdout"], "hello\n");
    assert_eq!((&seen["counts"]["succeeded"], &seen["counts"]["failed"]), (&121.into(), &1.into()));
    stack.stop();
}

#[test]
fn the_second_generation_of_the_python_client_works_unmodified() {
    let Some(python) = python("PIECEWORK_TEST_MODERN_PYTHON", "from azure.batch import BatchClient") else {
        return skip(
            "the_second_generation_of_the_python_client_works_unmodified",
            "needs a Python with azure-batch 15 (set PIECEWORK_TEST_MODERN_PYTHON)",
        );
    };
    let stack = Stack::start();
    let seen = run(&stack, &mut Command::new(python), "python/modern.py");
    assert_eq!(seen, json!({"counts": {"succeeded": 229, "failed": 1}, "stdout": "7\n", "part": "12", "nodes": [1]}));
    stack.stop();
}

#[test]
fn the_node_client_works_unmodified() {
    let modules = std::env::var("PIECEWORK_TEST_NODE_MODULES").unwrap_or_default();
    if !Path::new(&modules).join("@azure/batch").is_dir() {
        return skip("the_node_client_works_unmodified", "needs node and @azure/batch (set PIECEWORK_TEST_NODE_MODULES)");
    }
    let stack = Stack::start();
    let seen = run(&stack, Command::new("node").env("NODE_PATH", modules), "node/batch.cjs");
    assert_eq!(seen, json!({"counts": {"succeeded": 129, "failed": 1}, "stdout": "7\n", "part": "12", "pages": 3, "nodes": [1]}));
    stack.stop();
}
