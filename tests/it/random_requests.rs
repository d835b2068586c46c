//! schemathesis reads the OpenAPI document of a running stack and looks for server errors.

use std::process::{Command, Stdio};

use crate::stack::{Stack, skip, text};

#[test]
fn schemathesis_finds_no_server_error() {
    let Ok(tool) = std::env::var("PIECEWORK_TEST_SCHEMATHESIS") else {
        return skip("schemathesis_finds_no_server_error", "needs schemathesis 4 (set PIECEWORK_TEST_SCHEMATHESIS)");
    };
    let stack = Stack::start();
    let ready = &stack.ready;
    let output = Command::new(tool)
        .args(["run", &format!("{}/piecework/openapi.json", ready.url), "--url", &ready.url])
        .args(["--checks", "not_a_server_error", "--phases", "examples,coverage,fuzzing"])
        .args(["--max-examples", "10", "--max-time", "60", "--no-shrink", "--max-failures", "10", "--seed", "7"])
        .env("SCHEMATHESIS_HOOKS", format!("{}/tests/python/sign_requests.py", env!("CARGO_MANIFEST_DIR")))
        .env("PIECEWORK_ACCOUNT", &ready.account)
        .env("PIECEWORK_KEY", &ready.key)
        .current_dir(stack.scratch())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, err) = text(&output);
    assert!(output.status.success(), "{out}\n{err}");
    // Requests that nobody signed would all be refused, and show nothing.
    let counts = std::fs::read(stack.scratch().join("counts.json")).expect("the hook's counts");
    let counts: serde_json::Value = serde_json::from_slice(&counts).unwrap();
    let (answers, unsigned) = (counts["answers"].as_u64().unwrap(), counts["unsigned"].as_u64().unwrap());
    assert!(answers > 500 && unsigned * 10 < answers, "{counts}");
    let operations = out.lines().find_map(|line| line.trim().strip_prefix("Tested:")).unwrap_or_else(|| panic!("{out}"));
    assert!(operations.trim().parse::<usize>().unwrap() >= 90, "{out}");
    stack.stop();
}
