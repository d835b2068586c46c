//! Application packages end to end: a zip on this machine, `piecework app upload`, and tasks on nodes that run out of it.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::{
    rest::Rest,
    stack::{Stack, text},
};

fn told(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (out, err) = text(&output);
    assert!(output.status.success(), "{out}\n{err}");
    out
}

/// Runs a command that must fail; returns its stderr.
fn refused(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (out, err) = text(&output);
    assert!(!output.status.success(), "{out}");
    err
}

fn zip(folder: &Path, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let path = folder.join(name);
    let mut zip = ZipWriter::new(File::create(&path).unwrap());
    for (name, text) in files {
        zip.start_file(*name, SimpleFileOptions::default().unix_permissions(0o755)).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    zip.finish().unwrap();
    path
}

fn upload(stack: &Stack, zip: &Path, version: &str) -> Command {
    let mut command = stack.command();
    command.args(["app", "upload"]).arg(zip).args(["--id", "Tool", "--version", version]);
    command
}

fn stdout(rest: &Rest, job: &str, task: &str) -> String {
    rest.send("GET", &format!("/jobs/{job}/tasks/{task}/files/stdout.txt"), None).text()
}

fn uses(id: &str, version: Option<&str>, variable: &str) -> Value {
    let mut reference = json!({"applicationId": "tool"});
    if let Some(version) = version {
        reference["version"] = json!(version);
    }
    let line = format!("/bin/sh -c '\"${variable}/bin/greet\" {id}'");
    json!({"id": id, "commandLine": line, "applicationPackageReferences": [reference]})
}

#[test]
fn a_package_that_was_uploaded_is_there_for_tasks_and_pools_until_it_is_deleted() {
    let stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    let scratch = stack.scratch();
    let greet = |word: &str| zip(&scratch, &format!("{word}.zip"), &[("bin/greet", &format!("#!/bin/sh\necho {word} $1\n"))]);
    let said: Value = serde_json::from_str(&told(upload(&stack, &greet("hello"), "1.0").args(["--default", "--json"]))).unwrap();
    assert_eq!((&said["version"], &said["state"]), (&json!("1.0"), &json!("active")));
    told(&mut upload(&stack, &greet("moin"), "2.0"));
    let listed = told(stack.command().args(["app", "list"]));
    assert!(listed.lines().any(|line| line.starts_with("Tool") && line.contains("1.0, 2.0")), "{listed}");
    assert_eq!(rest.get("/applications/tool"), json!({"id": "Tool", "displayName": "Tool", "versions": ["1.0", "2.0"]}));
    assert_eq!(rest.get("/applications")["value"][0]["id"], "Tool");
    assert!(told(stack.command().args(["app", "show", "tool"])).contains("defaultVersion: 1.0"));

    rest.add_pool("plain", 1, 1);
    rest.add_job("job", "plain");
    rest.add_task("job", uses("default", None, "AZ_BATCH_APP_PACKAGE_tool"));
    rest.add_task("job", uses("second", Some("2.0"), "AZ_BATCH_APP_PACKAGE_tool_2_0"));
    for (task, line) in [("default", "hello default\n"), ("second", "moin second\n")] {
        assert_eq!(rest.finished("job", task)["executionInfo"]["result"], "success", "{task}");
        assert_eq!(stdout(&rest, "job", task), line);
    }

    let machine = json!({"imageReference": {"publisher": "p", "offer": "o", "sku": "s"}, "nodeAgentSKUId": "batch.node.linux"});
    let references = json!([{"applicationId": "Tool", "version": "2.0"}]);
    let pool = json!({
        "id": "equipped", "vmSize": "local", "virtualMachineConfiguration": machine, "targetDedicatedNodes": 1,
        "applicationPackageReferences": references,
    });
    rest.post("/pools", &pool, 201);
    rest.add_job("bare", "equipped");
    rest.add_task("bare", json!({"id": "t", "commandLine": "/bin/sh -c '$AZ_BATCH_APP_PACKAGE_tool_2_0/bin/greet pool'"}));
    assert_eq!(rest.finished("bare", "t")["executionInfo"]["result"], "success");
    assert_eq!(stdout(&rest, "bare", "t"), "moin pool\n");

    told(stack.command().args(["app", "delete", "Tool", "--version", "2.0"]));
    assert_eq!(rest.get("/applications/Tool")["versions"], json!(["1.0"]));
    told(stack.command().args(["app", "delete", "tool"]));
    let gone = refused(stack.command().args(["app", "show", "tool"]));
    assert!(gone.contains("ApplicationNotFound"), "{gone}");
    stack.stop();
}

#[test]
fn a_package_that_would_leave_its_folder_fails_the_task_and_writes_nothing_outside() {
    let stack = Stack::start();
    let rest = Rest::new(&stack.ready);
    let scratch = stack.scratch();
    let no_zip = scratch.join("text.zip");
    std::fs::write(&no_zip, "not one").unwrap();
    assert!(refused(&mut upload(&stack, &no_zip, "1")).contains("is not a zip"));
    assert!(refused(&mut upload(&stack, &scratch.join("missing.zip"), "1")).contains("cannot read"));
    assert_eq!(rest.get("/applications")["value"], json!([]), "nothing is made for a file that cannot be uploaded");

    let hostile = zip(&scratch, "hostile.zip", &[("bin/greet", "#!/bin/sh\n"), ("../../escaped-1b2c", "out")]);
    told(&mut upload(&stack, &hostile, "1"));
    rest.add_pool("pool", 1, 1);
    rest.add_job("job", "pool");
    rest.add_task("job", uses("t", Some("1"), "AZ_BATCH_APP_PACKAGE_tool_1"));
    let ended = rest.finished("job", "t");
    assert_eq!(ended["executionInfo"]["result"], "failure");
    assert_eq!(ended["executionInfo"]["failureInfo"]["code"], "ApplicationPackageError", "{ended}");
    let found = told(Command::new("find").arg(stack.data()).args(["-name", "escaped-1b2c"]));
    assert_eq!(found, "");
    stack.stop();
}
