//! A full disk: what adds is refused with the reason, running tasks go on, work resumes with room, and a start on a full
//! disk comes up. Needs the right to mount a small disk of its own.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    rest::Rest,
    stack::{PIECEWORK, Stack, processes_naming, text, wait_for},
};

/// Work resumes after this long; the promise is ten seconds.
const RESUME: Duration = Duration::from_secs(30);
/// A stop takes less; the promise is ten seconds.
const STOP: Duration = Duration::from_secs(20);
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A disk in memory, unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: &Path, megabytes: u32) -> Option<Disk> {
        fs::create_dir_all(path).unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "piecework-test"]).arg(path).output().ok()?;
        mounted.status.success().then(|| Disk(path.to_owned()))
    }

    /// Writes until nothing more fits.
    fn fill(&self) {
        let mut file = File::create(self.0.join("filling")).unwrap();
        let zeros = vec![0u8; 1 << 20];
        while file.write_all(&zeros).is_ok() {}
        while file.write_all(&zeros[..512]).is_ok() {}
    }

    fn make_room(&self) {
        fs::remove_file(self.0.join("filling")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(&self.0).output().unwrap();
        // The stack could not remove what was mounted.
        if let Some(folder) = self.0.parent().filter(|folder| folder.exists()) {
            fs::remove_dir_all(folder).unwrap();
        }
    }
}

#[test]
fn a_full_disk_refuses_what_adds_and_stops_nothing_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(&folder.path().join("data"), 600) else {
        eprintln!("this test may not mount a disk, and was not run");
        return;
    };
    let mut stack = Stack::start_in(folder, &[]);
    let rest = Rest::new(&stack.ready);
    rest.add_pool("pool", 1, 1);
    rest.add_job("job", "pool");
    let gate = stack.scratch().join("gate");
    let waits = format!("/bin/sh -c 'while [ ! -e {} ]; do sleep 0.1; done'", gate.display());
    rest.add_task("job", json!({"id": "waits", "commandLine": waits}));
    let state = |rest: &Rest, task: &str| rest.get(&format!("/jobs/job/tasks/{task}"))["state"].as_str().map(str::to_owned);
    wait_for(WAIT_MAX, || (state(&rest, "waits").as_deref() == Some("running")).then_some(())).expect("a task that runs");

    disk.fill();
    let add = |stack: &Stack, id: &str| stack.command().args(["task", "create", "job", id, "--", "/bin/true"]).output().unwrap();
    let refused = wait_for(WAIT_MAX, || {
        let out = add(&stack, "refused");
        text(&out).1.contains("disk").then_some(out)
    });
    let refused = refused.expect("a refusal with the reason");
    assert_eq!(refused.status.code(), Some(3), "{:?}", text(&refused));
    assert_eq!(state(&rest, "waits").as_deref(), Some("running"), "what runs goes on");

    disk.make_room();
    wait_for(RESUME, || add(&stack, "later").status.success().then_some(())).expect("a task that is taken");
    fs::write(&gate, "").unwrap();
    for task in ["waits", "later"] {
        wait_for(RESUME, || (state(&rest, task).as_deref() == Some("completed")).then_some(())).expect("its end");
        assert_eq!(rest.get(&format!("/jobs/job/tasks/{task}"))["executionInfo"]["result"], "success", "{task}");
    }
    assert_eq!(rest.get("/jobs/job/tasks/waits")["executionInfo"]["requeueCount"], 0);

    // A start on a full disk.
    wait_for(WAIT_MAX, || stack.data().join("dispatcher/reserve").exists().then_some(())).expect("space that is set aside again");
    stack.kill();
    disk.fill();
    stack.restart();
    let rest = Rest::new(&stack.ready);
    assert_eq!(state(&rest, "later").as_deref(), Some("completed"), "it serves what it has");
    disk.make_room();
    wait_for(RESUME, || add(&stack, "last").status.success().then_some(())).expect("a task that is taken");
    wait_for(WAIT_MAX, || (state(&rest, "last").as_deref() == Some("completed")).then_some(())).expect("its end");

    // A stop on a full disk.
    let ends = format!("/bin/sh -c 'while [ ! -e {} ]; do sleep 0.1; done'", stack.scratch().join("never").display());
    rest.add_task("job", json!({"id": "ends", "commandLine": ends}));
    wait_for(WAIT_MAX, || (state(&rest, "ends").as_deref() == Some("running")).then_some(())).expect("a task that runs");
    disk.fill();
    wait_for(WAIT_MAX, || text(&add(&stack, "refused")).1.contains("disk").then_some(())).expect("a refusal");
    let (data, began) = (stack.data(), Instant::now());
    drop(stack);
    assert!(began.elapsed() < STOP, "the stop took {:?}", began.elapsed());
    wait_for(WAIT_MAX, || processes_naming(&data).is_empty().then_some(())).expect("no process that is left over");
    drop(disk);
}

#[test]
fn a_ready_file_without_room_ends_nothing_and_is_written_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(&folder.path().join("small"), 1) else {
        eprintln!("this test may not mount a disk, and was not run");
        return;
    };
    disk.fill();
    let (data, late) = (folder.path().join("data"), folder.path().join("small/ready.json"));
    let mut up = Command::new(PIECEWORK);
    up.args(["up", "--listen", "127.0.0.1:0", "--data"]).arg(&data).arg("--ready-file").arg(&late).stdout(Stdio::null());
    let mut up = up.spawn().unwrap();
    wait_for(WAIT_MAX, || data.join("ready.json").exists().then_some(())).expect("a start");
    disk.make_room();
    let written = wait_for(RESUME, || late.exists().then_some(()));
    let pid = rustix::process::Pid::from_child(&up);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = up.wait().unwrap();
    assert!(written.is_some() && status.success(), "{written:?} {status}");
    assert!(!late.exists(), "the stop removes it");
    wait_for(WAIT_MAX, || processes_naming(&data).is_empty().then_some(())).expect("no process that is left over");
    drop(disk);
}

#[test]
fn a_task_that_writes_without_end_is_ended_as_disk_full() {
    let mut command = Command::new(PIECEWORK);
    for name in ["PIECEWORK_SERVER", "PIECEWORK_URL", "PIECEWORK_BROKER"] {
        command.env_remove(name);
    }
    command.env("PIECEWORK_TASK_STREAM_MAX_BYTES", "1000000");
    let out = command.args(["run", "--", "sh", "-c", "while :; do head -c 100000 /dev/zero; sleep 0.05; done"]).output().unwrap();
    let (_, err) = text(&out);
    assert_eq!(out.status.code(), Some(1), "{err}");
    assert!(err.contains("DiskFull") && err.contains("stdout.txt"), "{err}");
}
