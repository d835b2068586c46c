//! Application packages: unpacked once, named in the environment, and the faults when they cannot be deployed.

use std::io::Write;

use contract::{
    outcome::{Outcome, Stream},
    spec::{Package, StartTask, TaskSpec},
    state::NodeState,
};
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::harness::{Harness, task, task_with};

const OWN: &str = "piecework";

pub fn zip(files: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, text) in files {
        writer.start_file(*name, SimpleFileOptions::default().unix_permissions(0o755)).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

pub fn package(version: &str, is_default: bool, upload: &str) -> Package {
    Package {
        application: "My-App".parse().unwrap(),
        version: Some(version.parse().unwrap()),
        is_default,
        blob: Some(format!("applications/my-app/{version}/{upload}.zip")),
    }
}

pub async fn put(harness: &Harness, package: &Package, bytes: Vec<u8>) {
    harness.blobs.as_ref().unwrap().put(OWN, package.blob.as_ref().unwrap(), bytes.into()).await.unwrap();
}

fn text(bytes: &str) -> Stream {
    Stream::Inline { bytes: bytes.as_bytes().to_vec() }
}

#[tokio::test]
async fn a_tasks_package_stands_before_its_command_and_is_fetched_once() {
    let mut harness = Harness::new(1).await;
    harness.add_blobs().await;
    let package = package("1.0", true, "aa");
    put(&harness, &package, zip(&[("bin/tool", "#!/bin/sh\necho tool $1\n")])).await;
    harness.start_agent();
    let command_line = "/bin/sh -c '$AZ_BATCH_APP_PACKAGE_MY_APP_1_0/bin/tool one; $AZ_BATCH_APP_PACKAGE_my_app/bin/tool two'";
    let spec = TaskSpec { command_line: command_line.into(), packages: vec![package.clone()], ..TaskSpec::default() };
    harness.release(&task_with(1, spec.clone())).await;
    assert_eq!(harness.finished().await.stdout, text("tool one\ntool two\n"));
    assert!(harness.root().join("applications/my-app/1.0/aa/bin/tool").exists());
    // The package is not fetched again: the blob may even be gone.
    harness.blobs.as_ref().unwrap().delete(OWN, package.blob.as_ref().unwrap()).await.unwrap();
    harness.release(&task_with(2, spec)).await;
    assert_eq!(harness.finished().await.outcome, Outcome::Exit { code: 0 });
    assert_eq!(std::fs::read_dir(harness.root().join("volatile/incoming")).unwrap().count(), 0);
    harness.stop().await;
}

#[tokio::test]
async fn a_tasks_package_that_cannot_be_had_fails_the_task_alone() {
    let mut harness = Harness::new(1).await;
    harness.add_blobs().await;
    let (broken, hostile) = (package("1", false, "b"), package("2", false, "h"));
    put(&harness, &broken, b"no zip".to_vec()).await;
    put(&harness, &hostile, zip(&[("../../../escaped", "x")])).await;
    harness.start_agent();
    let gone = Package { blob: None, ..package("3", false, "g") };
    for (index, package) in [package("9", false, "missing"), broken, hostile, gone].into_iter().enumerate() {
        let spec = TaskSpec { command_line: "/bin/true".into(), packages: vec![package], ..TaskSpec::default() };
        harness.release(&task_with(index as u64 + 1, spec)).await;
        match harness.finished().await.outcome {
            Outcome::Staging(fault) => assert_eq!(fault.code, "ApplicationPackageError"),
            other => panic!("{other:?}"),
        }
    }
    harness.release(&task(9, "/bin/true")).await;
    assert_eq!(harness.finished().await.outcome, Outcome::Exit { code: 0 });
    harness.stop().await;
}

#[tokio::test]
async fn a_pools_packages_stand_before_the_start_task_and_every_task_sees_them() {
    let mut harness = Harness::new(1).await;
    harness.add_blobs().await;
    let package = package("2.5", false, "cc");
    put(&harness, &package, zip(&[("say", "#!/bin/sh\necho $1 > $AZ_BATCH_NODE_SHARED_DIR/said\n")])).await;
    let start_task = StartTask { command_line: "/bin/sh -c '$AZ_BATCH_APP_PACKAGE_MY_APP_2_5/say hello'".into(), ..StartTask::default() };
    harness.change_script(|script| (script.packages, script.start_task) = (vec![package], Some(start_task)));
    harness.start_agent();
    harness.release(&task(1, "/bin/sh -c 'cat $AZ_BATCH_NODE_SHARED_DIR/said; test -x $AZ_BATCH_APP_PACKAGE_my_app_2_5/say'")).await;
    let finished = harness.finished().await;
    assert_eq!((finished.outcome, finished.stdout), (Outcome::Exit { code: 0 }, text("hello\n")));
    harness.stop().await;
}

#[tokio::test]
async fn a_node_without_its_pools_packages_is_unusable_and_takes_no_tasks() {
    let mut harness = Harness::new(1).await;
    harness.add_blobs().await;
    harness.change_script(|script| script.packages = vec![package("1", false, "missing")]);
    harness.start_agent();
    harness.release(&task(1, "/bin/true")).await;
    let report = loop {
        let report = harness.report().await;
        if report.state != NodeState::Starting {
            break report;
        }
    };
    assert_eq!((report.state, report.fault.unwrap().code.as_str()), (NodeState::Unusable, "ApplicationPackageError"));
    assert!(!harness.queue_is_empty().await, "the task waits for another node");
    harness.stop().await;
}
