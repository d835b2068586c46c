//! Official clients drive a whole stack, unmodified: azure-batch of both generations, `az batch`, @azure/batch.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use serde_json::json;

use crate::{
    access::certify,
    stack::{Stack, skip, text},
};

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
pub fn python(variable: &str, needs: &str) -> Option<String> {
    let python = std::env::var(variable).unwrap_or_else(|_| "python3".to_owned());
    let is_fit = Command::new(&python).args(["-c", needs]).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    is_fit.then_some(python)
}

/// Azure's command line, where there is one.
fn azure_cli(test: &str) -> Option<Command> {
    let python = python("PIECEWORK_TEST_AZ_PYTHON", "import azure.cli.core");
    if python.is_none() {
        skip(test, "needs a Python with azure-cli (set PIECEWORK_TEST_AZ_PYTHON)");
    }
    python.map(Command::new)
}

fn azure_cli_works(stack: &Stack, command: &mut Command) {
    let seen = run(stack, command, "python/az_batch.py");
    assert_eq!(seen["stdout"], "hello\n");
    assert_eq!((&seen["counts"]["succeeded"], &seen["counts"]["failed"]), (&121.into(), &1.into()));
}

/// The Python client of the second generation, where there is one.
fn modern_python(test: &str) -> Option<Command> {
    let python = python("PIECEWORK_TEST_MODERN_PYTHON", "from azure.batch import BatchClient");
    if python.is_none() {
        skip(test, "needs a Python with azure-batch 15 (set PIECEWORK_TEST_MODERN_PYTHON)");
    }
    python.map(Command::new)
}

fn modern_python_works(stack: &Stack, command: &mut Command) {
    let seen = run(stack, command, "python/modern.py");
    assert_eq!(seen, json!({"counts": {"succeeded": 229, "failed": 1}, "stdout": "7\n", "part": "12", "nodes": [1]}));
}

/// Node with its client, where there is one.
fn node(test: &str) -> Option<Command> {
    let modules = std::env::var("PIECEWORK_TEST_NODE_MODULES").unwrap_or_default();
    if !Path::new(&modules).join("@azure/batch").is_dir() {
        skip(test, "needs node and @azure/batch (set PIECEWORK_TEST_NODE_MODULES)");
        return None;
    }
    let mut command = Command::new("node");
    command.env("NODE_PATH", modules);
    Some(command)
}

fn node_works(stack: &Stack, command: &mut Command) {
    let seen = run(stack, command, "node/batch.cjs");
    assert_eq!(seen, json!({"counts": {"succeeded": 129, "failed": 1}, "stdout": "7\n", "part": "12", "pages": 3, "nodes": [1]}));
}

#[test]
fn the_azure_command_line_works_unmodified() {
    let Some(mut command) = azure_cli("the_azure_command_line_works_unmodified") else { return };
    let stack = Stack::start();
    azure_cli_works(&stack, &mut command);
    stack.stop();
}

#[test]
fn the_azure_command_line_and_later_clients_work_behind_tls_with_a_private_authority() {
    let name = "the_azure_command_line_and_later_clients_work_behind_tls_with_a_private_authority";
    let folder = tempfile::tempdir().unwrap();
    let files = certify(folder.path());
    let stack = Stack::start_with(&["--tls-cert", files.cert.to_str().unwrap(), "--tls-key", files.key.to_str().unwrap()]);
    if let Some(mut command) = azure_cli(name) {
        azure_cli_works(&stack, command.env("REQUESTS_CA_BUNDLE", &files.authority));
    }
    if let Some(mut command) = modern_python(name) {
        modern_python_works(&stack, command.env("REQUESTS_CA_BUNDLE", &files.authority));
    }
    if let Some(mut command) = node(name) {
        node_works(&stack, command.env("NODE_EXTRA_CA_CERTS", &files.authority));
    }
    stack.stop();
}

#[test]
fn every_operation_of_the_python_client_is_answered_as_documented() {
    let Some(python) = python("PIECEWORK_TEST_PYTHON", "from azure.batch import BatchServiceClient") else {
        return skip(
            "every_operation_of_the_python_client_is_answered_as_documented",
            "needs a Python with azure-batch 14.2.0 (set PIECEWORK_TEST_PYTHON)",
        );
    };
    let stack = Stack::start();
    let seen = run(&stack, &mut Command::new(python), "python/every_operation.py");
    let refused = json!({
        "application.get": [404, "ApplicationNotFound"],
        "task.terminate": [409, "TaskCompleted"],
        "job.list_preparation_and_release_task_status": [409, "JobPreparationTaskNotSpecified"],
        "compute_node.get_remote_desktop": [409, "OperationNotValidOnNode"],
        "compute_node.add_user": [409, "OperationNotValidOnNode"],
        "compute_node.update_user": [409, "OperationNotValidOnNode"],
        "compute_node.delete_user": [409, "OperationNotValidOnNode"],
        "compute_node_extension.get": [404, "ResourceNotFound"],
        "certificate.add": [400, "InvalidInput"],
        "certificate.get": [404, "CertificateNotFound"],
        "certificate.delete": [404, "CertificateNotFound"],
        "certificate.cancel_deletion": [404, "CertificateNotFound"],
    });
    assert_eq!(seen, json!({"called": 76, "refused": refused}));
    stack.stop();
}

#[test]
fn the_python_client_runs_jobs_on_pools_of_their_own() {
    let Some(python) = python("PIECEWORK_TEST_PYTHON", "from azure.batch import BatchServiceClient") else {
        return skip(
            "the_python_client_runs_jobs_on_pools_of_their_own",
            "needs a Python with azure-batch 14.2.0 (set PIECEWORK_TEST_PYTHON)",
        );
    };
    let stack = Stack::start();
    let seen = run(&stack, &mut Command::new(python), "python/auto_pools.py");
    assert_eq!(seen, json!({"exits": [0, 0], "reason": "AllTasksComplete", "kept": "active"}));
    stack.stop();
}

#[test]
fn the_second_generation_of_the_python_client_works_unmodified() {
    let Some(mut command) = modern_python("the_second_generation_of_the_python_client_works_unmodified") else { return };
    let stack = Stack::start();
    modern_python_works(&stack, &mut command);
    stack.stop();
}

#[test]
fn the_node_client_works_unmodified() {
    let Some(mut command) = node("the_node_client_works_unmodified") else { return };
    let stack = Stack::start();
    node_works(&stack, &mut command);
    stack.stop();
}
