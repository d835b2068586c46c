//! Azure CLI's `az batch` drives a whole stack, unmodified.

use std::process::{Command, Stdio};

use crate::stack::{Stack, skip, text};

/// Runs one script with an interpreter; its JSON.
fn run(stack: &Stack, python: &str, script: &str) -> serde_json::Value {
    let script = format!("{}/tests/python/{script}", env!("CARGO_MANIFEST_DIR"));
    let ready = &stack.ready;
    let mut command = Command::new(python);
    command.args([&script, &ready.url, &ready.account, &ready.key]).arg(stack.scratch());
    let output = command.stdin(Stdio::null()).output().unwrap();
    let (out, err) = text(&output);
    assert!(output.status.success(), "{out}\n{err}");
    serde_json::from_str(out.lines().last().unwrap_or_default()).unwrap_or_else(|error| panic!("{error}: {out}"))
}

#[test]
fn the_azure_command_line_works_unmodified() {
    let python = std::env::var("PIECEWORK_TEST_AZ_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has_cli =
        Command::new(&python).args(["-c", "import azure.cli.core"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !has_cli {
        return skip("the_azure_command_line_works_unmodified", "needs a Python with azure-cli (set PIECEWORK_TEST_AZ_PYTHON)");
    }
    let stack = Stack::start();
    let seen = run(&stack, &python, "az_batch.py");
    assert_eq!(seen["stdout"], "hello\n");
    assert_eq!((&seen["counts"]["succeeded"], &seen["counts"]["failed"]), (&121.into(), &1.into()));
    stack.stop();
}
