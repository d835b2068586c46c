//! The official Python client, azure-batch 14.2.0, runs its quickstart unmodified.

use std::{
    io::{Read, Write},
    net::TcpListener,
    process::{Command, Stdio},
    thread,
};

use crate::stack::{Stack, skip, text};

/// Serves one file to everybody, as a blob store with public links would.
pub fn serve_input(content: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/input.txt", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let mut request = [0; 4096];
                if stream.read(&mut request).is_ok() {
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{content}", content.len());
                    // An agent that has what it needs may have closed.
                    let _ = stream.write_all(head.as_bytes());
                }
            });
        }
    });
    url
}

#[test]
fn the_official_python_client_runs_its_quickstart() {
    let python = std::env::var("PIECEWORK_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has_client =
        Command::new(&python).args(["-c", "import azure.batch"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !has_client {
        return skip("the_official_python_client_runs_its_quickstart", "needs Python with azure-batch 14.2.0 (set PIECEWORK_TEST_PYTHON)");
    }
    let stack = Stack::start();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/quickstart.py");
    let ready = &stack.ready;
    let output =
        Command::new(&python).args([script, &ready.url, &ready.account, &ready.key, &serve_input("hello\n"), "100"]).output().unwrap();
    let (out, err) = text(&output);
    assert!(output.status.success(), "{out}\n{err}");
    let seen: serde_json::Value = serde_json::from_str(&out).unwrap();
    for number in 0..100 {
        assert_eq!(seen["outputs"][format!("Task{number}")], format!("hello\nfrom Task{number} {number}\n"));
    }
    assert_eq!(seen["exits"], serde_json::json!([0]));
    assert_eq!(seen["succeeded"], 100);
    assert_eq!(seen["filtered"], 100);
    assert_eq!(seen["pool_nodes"].as_array().unwrap().len(), 2);
    assert_eq!(seen["files"], serde_json::json!(["stderr.txt", "stdout.txt", "wd", "wd/input.txt"]));
    assert_eq!(seen["length"], "hello\nfrom Task0 0\n".len());
    stack.stop();
}
