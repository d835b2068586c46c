//! The command line as people use it: with a server, and without one.

use std::{
    fs,
    os::unix::ffi::OsStrExt,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::stack::{PIECEWORK, Stack, processes_naming, text, wait_for};

/// Fails a test that waits forever.
const PATIENCE: Duration = Duration::from_secs(60);

fn json(command: &mut Command) -> Value {
    let output = command.arg("--json").output().unwrap();
    let (out, err) = text(&output);
    assert!(output.status.success(), "{out}\n{err}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

#[test]
fn run_streams_the_output_and_returns_the_exit_code() {
    let stack = Stack::start();
    let output = stack.command().args(["run", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]).output().unwrap();
    let (out, err) = text(&output);
    assert_eq!((output.status.code(), out.as_str()), (Some(7), "out\n"), "{err}");
    assert!(err.contains("err\n"), "{err}");
    let pools = json(stack.command().args(["pool", "list"]));
    assert!(pools.to_string().contains("default"), "{pools}");
    stack.stop();
}

#[test]
fn a_key_that_is_none_is_refused_before_the_data_folder_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let output =
        Command::new(PIECEWORK).args(["up", "--listen", "127.0.0.1:0", "--key", "no base64", "--data"]).arg(&data).output().unwrap();
    let (_, err) = text(&output);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(err.contains("not base64") && !err.contains("no base64"), "{err}");
    assert!(!data.join("secrets.json").exists(), "the next start would fail as well");
}

#[test]
fn a_pool_whose_policy_is_refused_is_not_there_afterwards() {
    let stack = Stack::start();
    let output = stack.command().args(["pool", "create", "odd", "--min", "3", "--max", "1"]).output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    let gone = || !json(stack.command().args(["pool", "list"])).to_string().contains("odd");
    wait_for(PATIENCE, || gone().then_some(())).expect("the pool is removed again");
    stack.stop();
}

/// A child that does not outlive its test.
struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn up_tells_programs_where_to_find_what_is_needed_to_use_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = Command::new(PIECEWORK);
    up.args(["up", "--json", "--listen", "127.0.0.1:0", "--data"]).arg(folder.path());
    let mut child = KilledOnDrop(up.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut values = serde_json::Deserializer::from_reader(child.0.stdout.take().unwrap()).into_iter::<Value>();
    let ready = values.next().unwrap().unwrap();
    assert!(ready["url"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{ready}");
    assert!(ready["account"].is_string() && ready["key"].is_null(), "{ready}");
    let file: Value = serde_json::from_slice(&fs::read(ready["ready_file"].as_str().unwrap()).unwrap()).unwrap();
    assert_eq!((&file["url"], &file["account"]), (&ready["url"], &ready["account"]));
    assert!(file["key"].is_string() && file["s3"]["endpoint"].is_string());
    rustix::process::kill_process(rustix::process::Pid::from_child(&child.0), rustix::process::Signal::TERM).unwrap();
    assert!(values.next().is_none(), "and nothing else");
    assert!(child.0.wait().unwrap().success());
}

#[test]
fn map_keeps_what_succeeded_lists_what_failed_and_resumes_with_what_is_missing() {
    let stack = Stack::start();
    let (input, out) = (stack.scratch().join("in"), stack.scratch().join("out"));
    fs::create_dir(&input).unwrap();
    for (name, content) in [("a b.txt", "one"), ("c.txt", "two"), ("bad.txt", "fail")] {
        fs::write(input.join(name), content).unwrap();
    }
    let map = |resume: bool| {
        let mut command = stack.command();
        command.arg("map").arg("--in").arg(&input).arg("--out").arg(&out).args(["--name", "{stem}.up"]);
        if resume {
            command.arg("--resume");
        }
        command.args([
            "--",
            "sh",
            "-c",
            "if grep -q fail \"$1\"; then echo no good >&2; exit 9; fi; tr a-z A-Z < \"$1\" > \"$2\"",
            "sh",
            "{in}",
            "{out}",
        ]);
        command.output().unwrap()
    };
    let first = map(false);
    let (_, err) = text(&first);
    assert_eq!(first.status.code(), Some(1), "{err}");
    assert!(err.contains("bad.txt") && err.contains("no good"), "{err}");
    assert_eq!(fs::read_to_string(out.join("a b.up")).unwrap(), "ONE");
    assert_eq!(fs::read_to_string(out.join("c.up")).unwrap(), "TWO");
    assert!(!out.join("bad.up").exists());

    fs::write(input.join("bad.txt"), "good now").unwrap();
    fs::write(out.join("c.up"), "untouched").unwrap();
    let second = map(true);
    assert_eq!(second.status.code(), Some(0), "{:?}", text(&second));
    assert_eq!(fs::read_to_string(out.join("bad.up")).unwrap(), "GOOD NOW");
    assert_eq!(fs::read_to_string(out.join("c.up")).unwrap(), "untouched", "what is there is not made again");
    stack.stop();
}

#[test]
fn map_refuses_what_would_be_lost_and_fails_only_the_inputs_that_cannot_be_used() {
    let stack = Stack::start();
    let (input, out) = (stack.scratch().join("in"), stack.scratch().join("out"));
    fs::create_dir(&input).unwrap();
    for (name, content) in [("a.txt", "one"), ("empty.txt", ""), ("t\tab.txt", "two")] {
        fs::write(input.join(name), content).unwrap();
    }
    fs::write(input.join(std::ffi::OsStr::from_bytes(b"bad\xff.txt")), "three").unwrap();
    let map = |out: &std::ffi::OsStr, flags: &[&str], command: &[&str]| {
        let mut map = stack.command();
        map.arg("map").arg("--in").arg(&input).arg("--out").arg(out).args(flags).arg("--").args(command);
        map.output().unwrap()
    };

    let lost = map(out.as_os_str(), &[], &["cp", "{in}", "{stem}.ogg"]);
    let (_, err) = text(&lost);
    assert_eq!(lost.status.code(), Some(2), "{err}");
    assert!(err.contains("{stem}") && err.contains("{out}") && err.contains("--stdout"), "{err}");
    for (place, flags, reason) in [
        (&out, ["--name", "{stem}.{bogus}"], "holds {bogus}, which is not known"),
        (&input, ["--name", "{name}"], "would overwrite the input"),
    ] {
        let refused = map(place.as_os_str(), &flags, &["cp", "{in}", "{out}"]);
        let (_, err) = text(&refused);
        assert!(refused.status.code() == Some(2) && err.contains(reason) && err.contains("{stem}"), "{err}");
    }
    assert!(!out.exists(), "nothing was begun");
    assert_eq!(fs::read_to_string(input.join("a.txt")).unwrap(), "one");

    // Without a result: nothing printed, nothing named.
    let filtered = map(out.as_os_str(), &[], &["cat", "{in}"]);
    let (_, err) = text(&filtered);
    assert_eq!(filtered.status.code(), Some(1), "{err}");
    assert!(err.contains("2 of 4 done, 2 failed"), "{err}");
    assert!(err.contains("empty.txt: the command printed nothing"), "{err}");
    assert!(err.contains("not UTF-8"), "{err}");
    assert_eq!(fs::read_to_string(out.join("a.txt")).unwrap(), "one");
    assert_eq!(fs::read_to_string(out.join("t\tab.txt")).unwrap(), "two");
    assert!(!out.join("empty.txt").exists());

    // A name that no key of an output may have fails alone as well.
    let stored = map("s3://piecework/stored".as_ref(), &["--stdout"], &["cat", "{in}"]);
    let (_, err) = text(&stored);
    assert_eq!(stored.status.code(), Some(1), "{err}");
    assert!(err.contains("2 of 4 done, 2 failed") && err.contains("failed: t ab.txt: "), "{err}");
    let again = stack.command().args(["map", "--in", "s3://piecework/stored", "--", "cat", "{in}"]).output().unwrap();
    assert_eq!(text(&again).0, "one", "{}", text(&again).1);
    stack.stop();
}

#[test]
fn the_demo_renders_its_picture_with_nothing_configured_and_leaves_nothing_running() {
    let folder = tempfile::tempdir().unwrap();
    let temporary = folder.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let mut command = Command::new(PIECEWORK);
    command.arg("demo").current_dir(folder.path()).env("TMPDIR", &temporary);
    for name in ["PIECEWORK_SERVER", "PIECEWORK_URL", "PIECEWORK_BROKER"] {
        command.env_remove(name);
    }
    let output = command.output().unwrap();
    let (out, err) = text(&output);
    assert!(output.status.success(), "{out}\n{err}");
    let picture = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|found| found == "png"));
    let picture = picture.expect("a picture in the current folder");
    assert!(out.contains(&*fs::canonicalize(&picture).unwrap().to_string_lossy()), "its absolute path is printed: {out}");
    assert!(fs::read(&picture).unwrap().starts_with(b"\x89PNG"));
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "the data folder is cleaned up");
    assert_eq!(processes_naming(&temporary), Vec::<String>::new());
}

#[test]
fn wrong_flags_and_a_missing_server_are_told_with_what_to_do() {
    let no_flag = Command::new(PIECEWORK).args(["pool", "create"]).output().unwrap();
    assert_eq!(no_flag.status.code(), Some(2));
    let nobody = Command::new(PIECEWORK)
        .args(["pool", "list", "--url", "http://127.0.0.1:9", "--account", "a", "--key", "a2V5"])
        .env_remove("PIECEWORK_SERVER")
        .output()
        .unwrap();
    let (out, err) = text(&nobody);
    assert!(!nobody.status.success() && out.is_empty(), "{out}");
    assert!(err.contains("127.0.0.1:9"), "{err}");
    let second = Stack::start();
    let twin = Command::new(PIECEWORK).args(["up", "--listen", "127.0.0.1:0", "--data"]).arg(second.data()).output().unwrap();
    assert!(!twin.status.success() && text(&twin).1.contains("in use"), "{:?}", text(&twin));
    second.stop();
}
