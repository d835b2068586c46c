//! Official clients, unmodified, against the API alone.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use serde_json::json;

use crate::test_dispatcher::TestDispatcher;

const JOBS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/python/jobs.py");

/// Says loudly that a test did not run; in CI that is a failure.
fn skip(test: &str, why: &str) {
    assert!(std::env::var_os("PIECEWORK_CI").is_none(), "{test} may not be skipped in CI: {why}");
    // Written past the test harness, which would keep it to itself.
    writeln!(std::io::stderr(), "SKIPPED {test}: {why}").expect("a terminal or a log");
}

#[test]
fn the_official_python_client_drives_jobs_and_tasks() {
    let python = std::env::var("PIECEWORK_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let probe = Command::new(&python).args(["-c", "import azure.batch"]).stderr(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) {
        return skip(
            "the_official_python_client_drives_jobs_and_tasks",
            "needs Python with azure-batch 14.2.0 (set PIECEWORK_TEST_PYTHON)",
        );
    }
    let dispatcher = TestDispatcher::start();
    let machine = json!({"imageReference": {"publisher": "p", "offer": "o", "sku": "s"}, "nodeAgentSKUId": "a"});
    for id in ["Pool", "Other"] {
        let pool = json!({"id": id, "vmSize": "x", "targetDedicatedNodes": 0, "virtualMachineConfiguration": machine});
        dispatcher.send("POST", "/pools", pool, 201);
    }
    let account = &dispatcher.account;
    let done = Command::new(python).arg(JOBS).args([&account.url, &account.name, &account.key]).args(["Pool", "Other"]).output().unwrap();
    let (said, complained) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && said.trim() == "done", "{said}{complained}");
}
